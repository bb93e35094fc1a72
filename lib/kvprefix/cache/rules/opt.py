"""The optimum, which knows the future: the bound of all other policies."""

import heapq

import numpy as np
from numba import njit

from kvprefix.cache.heap import find_first
from kvprefix.cache.policy import Look, Policy
from kvprefix.cache.rule import Rule, rule_fields

NEVER = np.iinfo(np.int32).max


class Opt(Rule, rule_fields("Opt", "next_use")):
    """The score is the next access, farthest first; a block whose own is farther than the leaf's is not stored."""

    @classmethod
    def make(cls, trace, cache, setting):
        return cls(trace, cache, find_next_uses(trace.ids, trace.offsets, np.diff(trace.offsets), len(trace.parent)))

    def score_block(self, k, now):
        return -float(self.next_use[k])

    def admits_block(self, k):
        return self.next_use[k] != NEVER

    def choose_leaf(self, k):
        first = find_first(self.cache.leaves, 0)
        return first if first >= 0 and self.cache.leaves.key[first] < -float(self.next_use[k]) else -1


@njit(cache=True, nogil=True)
def find_next_uses(ids, offsets, looked_up, n_distinct):
    """Return, for each access, the position of the next request that looks the block up, NEVER if none does.

    Of each request's blocks the first `looked_up` are looked up; the others are only stored.
    """
    following = np.full(n_distinct, NEVER, np.int32)
    next_use = np.empty(len(ids), np.int32)
    for i in range(len(offsets) - 2, -1, -1):
        for k in range(offsets[i], offsets[i + 1]):
            next_use[k] = following[ids[k]]
        following[ids[offsets[i] : offsets[i] + looked_up[i]]] = i
    return next_use


def replay_opt(trace, capacities, setting):
    """Replay OPT without a tree: the blocks that a later request is the next to access are a stretch of its path."""
    return replay_lookups(trace, capacities, trace.blocks)


def replay_lookups(trace, capacities, looked_up):
    """Replay OPT where requests look up only their first blocks, and store the others, such as those of replies.

    Parameters
    ----------
    trace : PrefixTrace
    capacities : sequence of int
        Blocks.
    looked_up : (n_requests,) ndarray of int64
        Blocks of each request.

    Yields
    ------
    (n_requests,) ndarray of int64, int
        The hit blocks of each request, and the evictions, for each capacity.
    """
    next_use = find_next_uses(trace.ids, trace.offsets, looked_up, trace.n_distinct)
    runs = list_runs(trace.offsets, next_use, looked_up)
    for capacity in capacities:
        yield _replay_runs(*runs, capacity)


@njit(cache=True, nogil=True)
def list_runs(offsets, next_use, looked_up):
    """Return, request by request, the runs of blocks with one next use: where each request's begin, and of each run
    the use, the length, and whether it is looked up.

    An ancestor is looked up whenever its descendants are, so next uses never come earlier down a path.
    """
    starts = np.zeros(len(offsets), np.int64)
    uses, lengths = np.empty(len(next_use), np.int32), np.empty(len(next_use), np.int32)
    is_lookup = np.empty(len(next_use), np.bool_)
    n = 0
    for i in range(len(offsets) - 1):
        for k in range(offsets[i], offsets[i + 1]):
            if k == offsets[i] or next_use[k] != uses[n - 1] or k == offsets[i] + looked_up[i]:
                uses[n], lengths[n], is_lookup[n] = next_use[k], 0, k < offsets[i] + looked_up[i]
                n += 1
            lengths[n - 1] += 1
        starts[i + 1] = n
    return starts, uses[:n].copy(), lengths[:n].copy(), is_lookup[:n].copy()


@njit(cache=True, nogil=True)
def _replay_runs(starts, uses, lengths, is_lookup, capacity):
    """Keep how many blocks each later request will hit; make room from the farthest one's tail, from dead ones first.

    No block that makes room is of the request being served: those before a missing block are accessed no later than it.
    Blocks that are only stored may be there already, for their next use: then they stand before those of this request
    that have the same.
    """
    n = len(starts) - 1
    held, hits = np.zeros(n, np.int32), np.zeros(n, np.int64)
    farthest = [0 for _ in range(0)]  # a heap of the requests, negative, for which blocks are held, or were
    room, dead, evicted = capacity, 0, 0
    for i in range(n):
        hit = hits[i] = held[i]
        held[i] = 0
        last_use, added = NEVER, 0
        for run in range(starts[i], starts[i + 1]):
            use, length = uses[run], lengths[run]
            added = added if use == last_use else 0
            last_use = use
            if is_lookup[run]:
                known = min(length, hit)
                hit -= known
            else:
                known = 0 if use == NEVER else min(length, held[use] - added)
            if use == NEVER:
                dead += known
                break
            stored = min(length, known + room)
            room -= stored - known
            while stored < length:
                freed = min(dead, length - stored)
                dead -= freed
                if not freed:
                    while farthest and not held[-farthest[0]]:
                        heapq.heappop(farthest)
                    if not farthest or -farthest[0] <= use:
                        break
                    freed = min(held[-farthest[0]], length - stored)
                    held[-farthest[0]] -= freed
                stored += freed
                evicted += freed
            if stored and not held[use]:
                heapq.heappush(farthest, -use)
            held[use] += stored if is_lookup[run] else stored - known
            added += stored
            if stored < length:
                break
    return hits, evicted


OPT = Policy(
    name="opt",
    label="OPT",
    definition="Belady's MIN (1966) with bypass: the leaf whose next access is farthest goes, and a block whose own is "
    "farther still is not stored. An access to a block accesses its ancestors, so the block with the farthest next "
    "access is always a leaf: no policy hits more blocks.",
    source="Belady, A study of replacement algorithms for a virtual-storage computer, IBM Systems Journal, 1966",
    look=Look(color="#000000", linestyle="-", marker="^", rank=0),
    is_bound=True,
    holds=False,
    make_rule=Opt.make,
    replay_free=replay_opt,
)
