"""Find the stretches of a trace that lists its blocks: what `stretches` cuts from tokens."""

import numpy as np
from numba import njit

from kvprefix.blocks.stretches import Paths, StretchTrace


def stretch_trace(accesses):
    """Return the accesses of a PrefixTrace by stretches: blocks that always follow one another, to their end.

    Examples
    --------
    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> trace = make_prefix_trace(make_trace_of([[1, 2, 3, 9], [1, 2, 3, 9], [1, 2, 4, 9]]), 1)
    >>> paths = stretch_trace(trace).paths
    >>> paths.nodes, paths.ends
    (array([0, 1, 0, 1, 0, 2], dtype=int32), array([2, 4, 2, 4, 2, 4], dtype=int32))
    """
    paths = Paths(*_stretch(accesses.ids, accesses.offsets, accesses.parent))
    names = "block_size", "offsets", "info", "last_weight", "prompt_tokens", "arrival_s", "finish_s", "conversation"
    return StretchTrace(paths=paths, **{name: getattr(accesses, name) for name in names})


@njit(cache=True, nogil=True)
def _stretch(ids, offsets, parent):
    """A block ends its stretch if it has no child or several, or if a request ends with it."""
    n = len(parent)
    is_end, children = np.zeros(n, np.bool_), np.zeros(n, np.int32)
    for block in range(n):
        if parent[block] >= 0:
            children[parent[block]] += 1
    for block in range(n):
        is_end[block] = children[block] != 1
    for i in range(len(offsets) - 1):
        if offsets[i + 1] > offsets[i]:
            is_end[ids[offsets[i + 1] - 1]] = True
    number, ends_of = np.full(n, -1, np.int32), np.zeros(len(offsets), np.int64)
    for i in range(len(offsets) - 1):
        ends_of[i + 1] = ends_of[i]
        for k in range(offsets[i], offsets[i + 1]):
            ends_of[i + 1] += is_end[ids[k]]
    nodes, ends, count = np.empty(ends_of[-1], np.int32), np.empty(ends_of[-1], np.int32), 0
    for i in range(len(offsets) - 1):
        at = ends_of[i]
        for k in range(offsets[i], offsets[i + 1]):
            block = ids[k]
            if is_end[block]:
                if number[block] < 0:
                    number[block] = count
                    count += 1
                nodes[at], ends[at] = number[block], k + 1 - offsets[i]
                at += 1
    return nodes, ends, ends_of, count, n
