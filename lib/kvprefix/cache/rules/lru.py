"""Least recently used."""

import numpy as np
from numba import njit

from kvprefix.cache.policy import Look, Policy
from kvprefix.cache.rule import Rule, rule_fields


class Lru(Rule, rule_fields("Lru")):
    """The score is the last access: what every rule does by itself."""


def replay_lru(trace, capacities, setting):
    """Replay LRU without a tree, see `replay_recent`."""
    for capacity in capacities:
        yield replay_recent(trace.ids, trace.offsets, trace.arrival_s, (trace.n_distinct, capacity, np.inf))


@njit(cache=True, nogil=True)
def replay_recent(ids, offsets, arrival_s, sizes):
    """Replay LRU or TTL without a queue: the least recent blocks are always the tail of the oldest request's stretch.

    The resident blocks of an earlier request, not accessed since, are a stretch of its path: [left_from, kept_to).
    `sizes` are the distinct blocks, the capacity, and the seconds after which a block is dropped.
    """
    n_distinct, capacity, ttl_s = sizes
    n = len(offsets) - 1
    last = np.full(n_distinct, -1, np.int32)
    left_from, kept_to, hits = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int64)
    used, oldest, evicted = 0, 0, 0
    for i in range(n):
        start, n_blocks = offsets[i], offsets[i + 1] - offsets[i]
        while oldest < i and arrival_s[oldest] < arrival_s[i] - ttl_s:
            stretch = max(kept_to[oldest] - left_from[oldest], 0)
            used -= stretch
            evicted += stretch
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
            evicted += freed
            oldest += freed == stretch
        stored = min(n_blocks, hit + room)
        for k in range(start + hit, start + stored):
            last[ids[k]] = i
        used = capacity - room + stored - hit
        kept_to[i] = stored
    return hits, evicted


LRU = Policy(
    name="lru",
    label="LRU",
    definition="Least recently used: the score is the last access (Mattson et al., 1970).",
    source="Mattson, Gecsei, Slutz and Traiger, Evaluation techniques for storage hierarchies, IBM Systems J., 1970",
    look=Look(color="#10507A", linestyle="-", marker="o", rank=1),
    make_rule=Lru.make,
    replay_free=replay_lru,
)
