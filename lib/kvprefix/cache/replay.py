"""Replay a trace through a cache of a fixed number of blocks, under an eviction policy.

The rules that all policies share (but `fifo_flat`, which knows no tree):

- A request hits its leading run of resident blocks; then its missing blocks are stored, from the root on.
- Only *leaves* are evicted, blocks without a resident child: a block behind a missing one could never be hit.
- The blocks of the request being served are *pinned*; with ``hold=True`` those of every request that still runs (from
  its arrival to its finish) are.
- The leaf with the lowest *score* goes first; of equal scores the deepest, then the one first seen.
- Where nothing can be evicted, the rest of the request's blocks is not stored. So a request larger than the cache keeps
  its first blocks, as many as fit, and hits up to these.

What each policy is stands in `policies`; the whole LRU curve without a replay in `curves`.
"""

import numpy as np
from numba import njit

from kvprefix.cache.policies import FIFO_FLAT, GDSF, LRU, NEVER, OPT, TTL, check_setting, find_policy
from kvprefix.cache.tree import replay_tree
from kvprefix.files.paths import InputError


def replay(accesses, capacity, policy="lru", *, setting=None, hold=False):
    """Replay a trace through a bounded cache.

    Parameters
    ----------
    accesses : PrefixTrace
    capacity : int
        Blocks, 1 or more.
    policy : str
        A name in POLICIES, where each is defined.
    setting : float, optional
        Of SLRU the protected share of the capacity, of S3-FIFO the small queue's, of TTL the seconds, of GDSF the cost
        of attention; the policy's default if not given.
    hold : bool
        Pin a request's blocks until it finishes. The other requests then may find no room.

    Returns
    -------
    (n_requests,) ndarray of int64
        Each request's hit blocks: its leading run of resident ones.

    Raises
    ------
    InputError
        An unknown policy, a capacity below 1, a setting out of range; OPT (which is no bound then) or flat FIFO with
        `hold`.

    Examples
    --------
    Room for two blocks: the third request's block 1 was evicted for block 2, under LRU.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> accesses = make_prefix_trace(make_trace_of([[1, 2, 9], [1, 3, 9], [1, 2, 9], [1, 3, 9]]), 1)
    >>> replay(accesses, 2, "lru"), replay(accesses, 2, "opt")
    (array([0, 1, 1, 1]), array([0, 1, 2, 1]))
    """
    known = find_policy(policy)
    capacity = check_capacity(capacity)
    setting = check_setting(policy, setting)
    if hold and known.code in (OPT, FIFO_FLAT):
        raise InputError(f"policy {policy} is not defined with hold: its requests take no time")
    capacity = min(capacity, max(accesses.n_distinct, 1))
    if known.code == FIFO_FLAT:
        return _replay_flat(accesses.ids, accesses.offsets, accesses.n_distinct, capacity)
    if known.code in (LRU, TTL) and not hold:
        ttl_s = setting if known.code == TTL else np.inf
        return _replay_recent(
            accesses.ids, accesses.offsets, accesses.n_distinct, accesses.arrival_s, capacity, float(ttl_s)
        )
    next_use = np.zeros(0, np.int32)
    if known.code == OPT:
        next_use = _find_next_uses(accesses.ids, accesses.offsets, accesses.n_distinct)
    order = np.argsort(accesses.finish_s, kind="stable") if hold else np.zeros(0, np.int64)
    cost_step = setting * accesses.block_size if known.code == GDSF else 0.0
    return replay_tree(
        accesses.ids, accesses.offsets, accesses.parent, accesses.depth, next_use, accesses.arrival_s,
        accesses.finish_s, order, capacity, known.code, float(setting or 0.0), cost_step,
    )  # fmt: skip


def check_capacity(capacity):
    """Return a capacity that is a whole number of blocks above 0, or raise InputError."""
    if isinstance(capacity, bool) or not isinstance(capacity, int | np.integer) or capacity < 1:
        raise InputError(f"capacity is {capacity!r}; expected a whole number of blocks, 1 or more")
    return int(capacity)


@njit(cache=True, nogil=True)
def _find_next_uses(ids, offsets, n_distinct):
    """Return, for each access, the position of the next request that accesses the block, NEVER if none does."""
    following = np.full(n_distinct, NEVER, np.int32)
    next_use = np.empty(len(ids), np.int32)
    for i in range(len(offsets) - 2, -1, -1):
        for k in range(offsets[i], offsets[i + 1]):
            next_use[k] = following[ids[k]]
            following[ids[k]] = i
    return next_use


@njit(cache=True, nogil=True)
def _replay_recent(ids, offsets, n_distinct, arrival_s, capacity, ttl_s):
    """LRU and TTL without a queue of blocks: the least recent ones are always the tail of the oldest request's stretch.

    What is resident of an earlier request and was not accessed since is a stretch of its path, [left_from, kept_to).
    """
    n = len(offsets) - 1
    last = np.full(n_distinct, -1, np.int32)
    left_from, kept_to, hits = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int64)
    used, oldest = 0, 0
    for i in range(n):
        start, n_blocks = offsets[i], offsets[i + 1] - offsets[i]
        while oldest < i and arrival_s[oldest] < arrival_s[i] - ttl_s:
            used -= max(kept_to[oldest] - left_from[oldest], 0)
            kept_to[oldest] = 0
            oldest += 1
        hit = 0
        while hit < n_blocks:
            request = last[ids[start + hit]]
            if request < 0 or hit >= kept_to[request]:
                break
            while hit < n_blocks and hit < kept_to[request] and last[ids[start + hit]] == request:
                last[ids[start + hit]] = i
                hit += 1
            left_from[request] = hit
        hits[i] = hit
        room = capacity - used
        while room < n_blocks - hit and oldest < i:
            stretch = max(kept_to[oldest] - left_from[oldest], 0)
            freed = min(stretch, n_blocks - hit - room)
            kept_to[oldest] -= freed
            room += freed
            oldest += freed == stretch
        stored = min(n_blocks, hit + room)
        for k in range(start + hit, start + stored):
            last[ids[k]] = i
        used = capacity - room + stored - hit
        kept_to[i] = stored
    return hits


@njit(cache=True, nogil=True)
def _replay_flat(ids, offsets, n_distinct, capacity):
    """First in, first out on single blocks: a ring of those stored, oldest next to be overwritten."""
    ring, resident = np.full(capacity, -1, np.int32), np.zeros(n_distinct, np.bool_)
    hits, oldest = np.zeros(len(offsets) - 1, np.int64), 0
    for i in range(len(hits)):
        start, stop = offsets[i], offsets[i + 1]
        while start + hits[i] < stop and resident[ids[start + hits[i]]]:
            hits[i] += 1
        for k in range(min(stop, start + capacity) - 1, start - 1, -1):
            if not resident[ids[k]]:
                if ring[oldest] >= 0:
                    resident[ring[oldest]] = False
                ring[oldest] = ids[k]
                resident[ids[k]] = True
                oldest = (oldest + 1) % capacity
    return hits
