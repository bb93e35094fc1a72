"""Greedy-Dual-Size-Frequency, with the FLOPs of computing a block again as its cost."""

import numpy as np

from kvprefix.cache.policy import Look, Policy, Setting
from kvprefix.cache.rule import Rule, rule_fields

ATTENTION = 3.3e-5  # FLOPs per token of context over those of the rest: Llama-3.1-8B's, 4 * 32 * 4096 / (2 * 8.0e9)


class Gdsf(Rule, rule_fields("Gdsf", "cost_step", "evicted_score")):
    """The score is uses times cost, plus the score of the block evicted last: what is not used any more ages."""

    @classmethod
    def make(cls, trace, cache, setting):
        return cls(trace, cache, float(setting) * trace.block_size, np.zeros(1))

    def score_block(self, k, now):
        block = self.trace.ids[k]
        cost = 1.0 + self.cost_step * (self.trace.depth[block] + 0.5)
        return self.evicted_score[0] + self.cache.uses[block] * cost

    def on_evict(self, block):
        self.evicted_score[0] = self.cache.leaves.scores[block]


GDSF = Policy(
    name="gdsf",
    label="GDSF (FLOPs)",
    definition="Greedy-Dual-Size-Frequency (Cherkasova, 1998): the score is the accesses since storing times the cost "
    "of computing the block again, plus the score of the block evicted last. The cost is 1 + 'setting' * the position "
    "of the block's middle in tokens: attention over what is before it, relative to the rest (the default is "
    "Llama-3.1-8B's: 4 * 32 layers * 4096 FLOPs a token of context against 2 * 8.0e9).",
    source="Cherkasova, Improving WWW proxies performance with GDSF caching policy, HP Laboratories HPL-98-69, 1998",
    setting=Setting(default=ATTENTION, meaning="cost of a token of context, relative to the rest of a token's cost"),
    look=Look(color="#2E8B57", linestyle=(0, (4, 1.5)), marker="P", rank=5),
    make_rule=Gdsf.make,
)
