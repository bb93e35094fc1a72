"""First in, first out: among leaves, and flat, as in caches that know no tree."""

import numpy as np
from numba import njit

from kvprefix.cache.policy import Look, Policy
from kvprefix.cache.rule import Rule, rule_fields


class Fifo(Rule, rule_fields("Fifo")):
    """The score is the time of storing: an access changes nothing."""

    def on_access(self, k, now):
        pass


FIFO = Policy(
    name="fifo",
    label="FIFO (leaf)",
    definition="First in, first out among leaves: the score is the time of storing.",
    look=Look(color="#6FA8C9", linestyle=(0, (4, 1.5)), marker="s", rank=2),
    make_rule=Fifo.make,
)


def replay_flat(trace, capacities, setting):
    """Replay first in, first out on single blocks."""
    for capacity in capacities:
        yield _replay_flat(trace.ids, trace.offsets, trace.n_distinct, capacity)


@njit(cache=True, nogil=True)
def _replay_flat(ids, offsets, n_distinct, capacity):
    """Keep a ring of the blocks stored, the oldest the next to be overwritten."""
    ring, resident = np.full(capacity, -1, np.int32), np.zeros(n_distinct, np.bool_)
    hits, oldest, evicted = np.zeros(len(offsets) - 1, np.int64), 0, 0
    for i in range(len(hits)):
        start, stop = offsets[i], offsets[i + 1]
        while start + hits[i] < stop and resident[ids[start + hits[i]]]:
            hits[i] += 1
        for k in range(min(stop, start + capacity) - 1, start - 1, -1):
            if not resident[ids[k]]:
                if ring[oldest] >= 0:
                    resident[ring[oldest]] = False
                    evicted += 1
                ring[oldest] = ids[k]
                resident[ids[k]] = True
                oldest = (oldest + 1) % capacity
    return hits, evicted


FIFO_FLAT = Policy(
    name="fifo_flat",
    label="FIFO (flat)",
    definition="First in, first out as web caches do it: the block stored first goes, though resident ones may need "
    "it. A request's tail is stored first, so that its root stays longest.",
    look=Look(color="#6FA8C9", linestyle=(0, (1, 1.2)), marker="D", rank=3),
    holds=False,
    replay_free=replay_flat,
)
