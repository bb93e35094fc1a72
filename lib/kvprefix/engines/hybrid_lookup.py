"""The longest prefix that every group of layers has in the cache, compiled: vLLM's rules 6 to 10.

A full-attention group needs all of its blocks, a window those that reach into it, a chunked group those of the current
chunk, a recurrent group the state at the end. The hit is a fixed point: each kind of group shortens it until none does.
"""

from kvprefix.engines.hybrid_layout import CHUNK, FULL, STATE, WINDOW
from kvprefix.engines.vllm_runs import borrowed


@borrowed
def find_hit(pool, layout, tables, prompt):
    """Return the tokens of a prompt that are cached in all groups, and the junction.

    Parameters
    ----------
    pool : Blocks
    layout : Layout
    tables : Tables
        With the prompt's contents; `start` of its chunked groups is set.
    prompt : int
        Its tokens.

    Returns
    -------
    (hit, junction) : tuple of int
        The junction is the longest hit that some group saw; 0 if it is the hit itself.
    """
    n_kinds = len(layout.offsets) - 1
    if n_kinds == 1 and len(layout.groups) == 1:
        return _find(pool, layout, tables, 0, prompt - 1, layout.drop), 0
    n_full = 0
    while n_full < n_kinds and layout.groups[layout.members[layout.offsets[n_full]]].kind == FULL:
        tables.lengths[n_full] = -1
        n_full += 1
    once = n_kinds == 2 and n_full > 0
    hit, longest, dropped = prompt - 1, 0, 0  # dropped: a bit per kind that has dropped its last unit at this length
    while True:
        now = hit
        for k in range(n_kinds):
            if k < n_full and tables.lengths[k] >= 0:
                now = min(now, tables.lengths[k])
                continue
            one = layout.groups[layout.members[layout.offsets[k]]]
            drop = 1 if layout.drop and not dropped >> k & 1 else 0
            most = now
            if drop and one.kind != STATE:
                most = min(now + one.size, prompt // layout.hashed * layout.hashed)
            new = _find(pool, layout, tables, k, most, drop)
            if drop:
                dropped |= 1 << k
            elif new < now:
                dropped = 0
            now = new
            if k < n_full:
                tables.lengths[k] = new
            longest = max(longest, now)
        if now >= hit:
            break
        hit = now
        if once:
            break
    return hit, longest if longest > hit else 0


@borrowed
def _find(pool, layout, tables, k, most, drop):
    """Return the tokens, `most` at most, that the groups of a kind have cached."""
    one = layout.groups[layout.members[layout.offsets[k]]]
    n = most // one.size
    if one.kind == FULL:
        hit = _count_leading(pool, layout, tables.contents, k, 0, n) * one.size
        hit -= one.size if drop and hit else 0
        return hit - hit % layout.unit
    if one.kind == CHUNK:
        start = most // one.span * one.span // one.size
        for j in range(layout.offsets[k], layout.offsets[k + 1]):
            tables.rows[layout.members[j]].start = start
        return _count_leading(pool, layout, tables.contents, k, start, n) * one.size
    if one.kind == WINDOW:
        return _find_window(pool, layout, tables.contents, k, n, drop)
    for i in range(n - 1, -1, -1):
        if (i + 1) * one.size % layout.unit == 0 and _has(pool, layout, tables.contents, k, i):
            return (i + 1) * one.size
    return 0


@borrowed
def _has(pool, layout, contents, k, i):
    """Whether block i is cached in all groups of a kind."""
    n_groups = len(layout.groups)
    for j in range(layout.offsets[k], layout.offsets[k + 1]):
        g = layout.members[j]
        if not pool.keys[contents[(i + 1) * layout.groups[g].scale - 1] * n_groups + g].oldest:
            return False
    return True


@borrowed
def _count_leading(pool, layout, contents, k, start, n):
    """Return the depth, n at most, up to which all blocks from `start` on are cached."""
    while start < n and _has(pool, layout, contents, k, start):
        start += 1
    return start


@borrowed
def _find_window(pool, layout, contents, k, n, drop):
    """Scan from the right for as many neighbours as a window needs; those at the very start may be fewer."""
    one, run, end = layout.groups[layout.members[layout.offsets[k]]], 0, 0
    need, size = one.need + drop, one.size
    for i in range(n - 1, -1, -1):
        if not _has(pool, layout, contents, k, i):
            run = 0
            continue
        if run == 0:
            end = i + 1
            if (end - drop) * size % layout.unit:
                continue
        run += 1
        if run >= need:
            return (end - drop) * size
    hit = run * size
    hit -= hit % layout.unit
    if drop and hit:
        hit -= size
    return hit - hit % layout.unit
