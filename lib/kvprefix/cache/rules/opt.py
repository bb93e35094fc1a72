"""The optimum, which knows the future: the bound of all other policies."""

import numpy as np
from numba import njit

from kvprefix.cache.policy import Look, Policy
from kvprefix.cache.rule import Rule, rule_fields

NEVER = np.iinfo(np.int32).max


class Opt(Rule, rule_fields("Opt", "next_use")):
    """The score is the next access, farthest first; a block whose own is farther than the leaf's is not stored."""

    @classmethod
    def make(cls, trace, cache, setting):
        return cls(trace, cache, find_next_uses(trace.ids, trace.offsets, len(trace.parent)))

    def score_block(self, k, now):
        return -float(self.next_use[k])

    def admits_block(self, k):
        return self.next_use[k] != NEVER

    def choose_leaf(self, k):
        leaves = self.cache.leaves
        if leaves.fill[0] == 0 or leaves.scores[leaves.heap[0, 0]] >= -float(self.next_use[k]):
            return -1
        return leaves.heap[0, 0]


@njit(cache=True, nogil=True)
def find_next_uses(ids, offsets, n_distinct):
    """Return, for each access, the position of the next request that accesses the block, NEVER if none does."""
    following = np.full(n_distinct, NEVER, np.int32)
    next_use = np.empty(len(ids), np.int32)
    for i in range(len(offsets) - 2, -1, -1):
        for k in range(offsets[i], offsets[i + 1]):
            next_use[k] = following[ids[k]]
            following[ids[k]] = i
    return next_use


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
)
