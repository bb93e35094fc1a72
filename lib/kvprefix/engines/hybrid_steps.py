"""Requests that run one after the other through vLLM's cache for hybrid models, step by step, compiled.

A step computes some tokens of a prompt, or one generated token. Before it, each group frees the blocks that its next
token cannot reach; then each takes new ones; then full blocks become visible, those that retention keeps. Steps in
which nothing of this happens are skipped. `hybrid_lookup` has the hits, `hybrid_pool` the blocks.
"""

import numpy as np
from numba import njit

from kvprefix.engines.hybrid_keep import keeps, set_ends
from kvprefix.engines.hybrid_layout import CHUNK, FULL, STATE, WINDOW
from kvprefix.engines.hybrid_lookup import find_hit
from kvprefix.engines.hybrid_pool import give_back, make_room, publish, take, touch
from kvprefix.engines.hybrid_tables import list_contents
from kvprefix.engines.vllm_runs import borrowed


@njit(cache=True, nogil=True)
def replay_steps(pool, layout, tables, work, firsts):
    """Replay requests, each of which finishes before the next starts.

    Parameters
    ----------
    pool : Blocks
    layout : Layout
    tables : Tables
    work : Work
        Its paths are cut into units of hashing.
    firsts : (n_nodes,) ndarray of int64
        The content of each stretch's block at depth 0, were it in the stretch.

    Returns
    -------
    (hits, reached, pool) : tuple
        Each request's cached tokens, -1 if it never fits, and the tokens that it computed; the pool at the end.
    """
    n = len(work.prompts)
    hits, reached = np.full(n, -1), np.zeros(n, np.int64)
    for i in range(n):
        prompt, computed = work.prompts[i], work.computed[i]
        most = 0
        for one in layout.groups:
            most += computed // one.size + 1
        pool = make_room(pool, most)
        list_contents(tables.contents, work.paths, firsts, i, computed // layout.hashed)
        hit, junction = find_hit(pool, layout, tables, prompt)
        set_ends(tables.ends, layout, prompt, junction)
        done = _admit(pool, layout, tables, prompt, hit, junction)
        if done < 0:
            continue
        done = _run(pool, layout, tables, prompt, computed, junction, done)
        hits[i], reached[i] = hit if done >= prompt else -1, done
        for g in range(len(layout.groups)):
            give_back(pool, tables.blocks[g], tables.rows[g].gone, tables.rows[g].n)
    return hits, reached, pool


@borrowed
def _count_skipped(one, computed):
    """Return the leading blocks of a group that no token after the computed ones can reach."""
    if one.kind == FULL:
        return 0
    if one.kind == WINDOW:
        return max(computed - one.span + 1, 0) // one.size
    if one.kind == CHUNK:
        return computed // one.span * one.span // one.size
    return max(computed - 1, 0) // one.size


@borrowed
def _admit(pool, layout, tables, prompt, hit, junction):
    """Hold a prompt's hits and compute its first tokens; return how many it has then, -1 if there is no room."""
    stop = hit + _count_next(layout, hit, prompt, junction)
    all_needed, needed = 0, 0
    for g in range(len(layout.groups)):
        one, row = layout.groups[g], tables.rows[g]
        row.n = row.seen = -(-hit // one.size)
        row.gone = min(max(_count_skipped(one, hit), row.start), row.n)
        all_needed += _count_new(one, row.n, min(-(-prompt // one.size), one.cap)) + row.n - row.gone
        needed += _count_new(one, row.n, -(-stop // one.size)) + row.n - row.gone
    free = pool.state[0].free
    if stop == hit or all_needed > free or needed > free:
        return -1
    n_groups = len(layout.groups)
    for g in range(n_groups):
        one, row, table = layout.groups[g], tables.rows[g], tables.blocks[g]
        table[: row.gone] = 0
        for k in range(row.gone, row.n):
            table[k] = pool.keys[tables.contents[(k + 1) * one.scale - 1] * n_groups + g].oldest
            touch(pool, table[k])
    _extend(pool, layout, tables, prompt, stop)
    return stop


@borrowed
def _run(pool, layout, tables, prompt, computed, junction, done):
    """Compute the rest of a prompt, then the generated tokens, as long as there is room; return the tokens done."""
    while done < computed:
        if done < prompt:
            stop = done + _count_next(layout, done, prompt, junction)
        else:
            if done > prompt:
                done = min(_find_next(layout, done), computed)
                if done == computed:
                    break
            stop = done + 1
        needed = 0
        for g in range(len(layout.groups)):
            one, row = layout.groups[g], tables.rows[g]
            skipped = min(_count_skipped(one, done), row.n)
            if skipped > row.gone:
                give_back(pool, tables.blocks[g], row.gone, skipped)
                row.gone = skipped
            needed += _count_new(one, row.n, -(-stop // one.size))
        if stop == done or needed > pool.state[0].free:
            break
        _extend(pool, layout, tables, prompt, stop)
        done = stop
    return done


@borrowed
def _count_new(one, n, wanted):
    """Return the blocks that a group takes to have `wanted`; a recurrent one takes the last of them only."""
    return min(max(wanted - n, 0), 1) if one.kind == STATE else max(wanted - n, 0)


@borrowed
def _extend(pool, layout, tables, prompt, stop):
    """Take the blocks of all tokens before `stop`, and make the full ones visible."""
    for g in range(len(layout.groups)):
        one, row, table = layout.groups[g], tables.rows[g], tables.blocks[g]
        wanted = -(-stop // one.size)
        if one.kind == STATE and row.n < wanted - 1:
            table[row.n : wanted - 1] = 0
            row.n = wanted - 1
        while row.n < wanted:
            table[row.n] = take(pool)
            row.n += 1
    for g in range(len(layout.groups)):
        _publish_full(pool, layout, tables, prompt, g, stop)


@borrowed
def _publish_full(pool, layout, tables, prompt, g, stop):
    """Make a group's full blocks of the tokens before `stop` visible, those that it keeps."""
    one, row, table, n_groups = layout.groups[g], tables.rows[g], tables.blocks[g], len(layout.groups)
    until = stop if n_groups == 1 else stop // layout.unit * layout.unit
    if layout.drop and n_groups > 1 and until:
        until = min(stop, until + one.size)
    full = until // one.size
    for k in range(max(row.seen, row.gone), full):
        if table[k] and keeps(layout, one, tables.ends, k):
            publish(pool, table[k], tables.contents[(k + 1) * one.scale - 1] * n_groups + g)
    row.seen = max(row.seen, full)
    if layout.drop:
        _publish_tail(pool, layout, tables, prompt, g, until)


@borrowed
def _publish_tail(pool, layout, tables, prompt, g, until):
    """Give a key to the block in which the prompt's last unit ends, or to the state before that.

    If the last unit of a hit is dropped, vLLM does so for blocks and states that no rule of retention keeps. No lookup
    asks for such a part of a block, but the block is evicted later.
    """
    one, row, table = layout.groups[g], tables.rows[g], tables.blocks[g]
    units = prompt // layout.hashed - (one.kind == STATE)
    k = (units - 1) // one.scale
    if one.kind == STATE:
        found = units > 0 and units * layout.hashed == until
    else:
        found = one.kind == FULL and units % one.scale > 0 and units * layout.hashed <= until
    if found and row.gone <= k < row.n and table[k] and pool.blocks[table[k]].key < 0:
        publish(pool, table[k], tables.contents[units - 1] * len(layout.groups) + g)


@borrowed
def _count_next(layout, done, prompt, junction):
    """Return the tokens of the next step of a prompt.

    With recurrent groups it ends where a state must be kept: at a multiple of their block, at the last one within the
    prompt, or at the junction.
    """
    size, stop = layout.state_size, min(prompt, done + layout.step_tokens)
    if not size:
        return stop - done
    if stop < prompt:
        aligned = stop // size * size
        stop = aligned if aligned > done or size <= layout.step_tokens else stop
    last = prompt // size * size - size if layout.drop else (prompt - 1) // size * size
    end = stop
    if done < last < end:
        end = last
    if done % size and (done // size + 1) * size < end:
        end = (done // size + 1) * size
    if done < junction < stop:
        floored = done + (junction - done) // size * size
        if done < floored < end:
            end = floored
    return max(end - done, 0)


@borrowed
def _find_next(layout, done):
    """Return the next step, this one or a later one, before which a block is freed, or that takes or fills one."""
    best = done + layout.unit
    for k in range(len(layout.offsets) - 1):
        one = layout.groups[layout.members[layout.offsets[k]]]
        best = min(best, done + min(-done % one.size, -(done + 1) % one.size))
        if one.kind == WINDOW:
            best = min(best, done + -(done - one.span + 1) % one.size)
        elif one.kind == CHUNK:
            best = min(best, done + -done % one.span)
        elif one.kind == STATE:
            best = min(best, done + -(done - 1) % one.size)
    return best
