"""Least frequently used."""

from kvprefix.cache.policy import Look, Policy
from kvprefix.cache.rule import Rule, rule_fields


class Lfu(Rule, rule_fields("Lfu")):
    """The score is the accesses since the block was stored; the last access, below 1, tells equal ones apart."""

    def score_block(self, k, now):
        return self.cache.uses[self.trace.ids[k]] + now / 2**31


LFU = Policy(
    name="lfu",
    label="LFU",
    definition="Least frequently used: the score is the number of accesses since the block was stored; of equal ones "
    "the least recently used goes first.",
    look=Look(color="#B03A2E", linestyle=(0, (1, 1.2)), marker="*", rank=8),
    make_rule=Lfu.make,
)
