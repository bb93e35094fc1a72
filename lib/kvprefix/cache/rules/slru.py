"""Segmented LRU: a block that was hit is protected, up to a share of the capacity."""

import numpy as np

from kvprefix.cache.heap import borrowed, find_first, push_leaf, remove_leaf
from kvprefix.cache.policy import Look, Policy, Setting
from kvprefix.cache.rule import Rule, rule_fields

PROBATION, PROTECTED = 0, 1  # the queues


class Slru(Rule, rule_fields("Slru", "limit", "before", "after", "protected")):
    """Two queues, scored as LRU; the protected blocks, leaves or not, are also a list from the latest to the oldest.

    `before` and `after` link the list; their last entry is its head and tail, and `before` is -1 off the list.
    `protected` counts it.
    """

    @classmethod
    def make(cls, trace, cache, setting):
        links = np.full(len(trace.parent) + 1, -1, np.int32)
        links[-1] = len(links) - 1
        limit = setting * cache.capacity + 1e-9  # 0.7 * 90 is 63
        return cls(trace, cache, limit, links, links.copy(), np.zeros(1, np.int64))

    def on_path(self, now, hit):
        start, head = self.trace.offsets[now], len(self.before) - 1
        for k in range(start + hit - 1, start - 1, -1):  # the root foremost
            block = self.trace.ids[k]
            if self.before[block] >= 0:
                unlink(self.before, self.after, block)
            else:
                self.cache.queue_of[block] = PROTECTED
                self.protected[0] += 1
            first = self.after[head]
            self.after[head], self.before[first] = block, block
            self.before[block], self.after[block] = head, first
        while self.protected[0] > self.limit:
            put_back(self, self.before[head], now)

    def choose_leaf(self, k):
        leaves = self.cache.leaves
        return find_first(leaves, PROBATION if leaves.fill[PROBATION] else PROTECTED)

    def on_evict(self, block):
        if self.cache.queue_of[block] == PROTECTED:
            unlink(self.before, self.after, block)
            self.protected[0] -= 1


@borrowed
def unlink(before, after, block):
    """Take a block out of the list of protected ones."""
    after[before[block]], before[after[block]] = after[block], before[block]
    before[block] = -1


@borrowed
def put_back(rule, block, now):
    """Put a protected block back on probation, as if just used."""
    leaves, stretch = rule.cache.leaves, rule.cache.owner[block]
    is_leaf = leaves.place[stretch] >= 0 and leaves.tail[stretch] == block
    unlink(rule.before, rule.after, block)
    rule.protected[0] -= 1
    if is_leaf:
        remove_leaf(leaves, PROTECTED, stretch)
    rule.cache.queue_of[block], leaves.scores[block] = PROBATION, now
    if is_leaf:
        push_leaf(leaves, PROBATION, stretch, block)


SLRU = Policy(
    name="slru",
    label="SLRU",
    definition="Segmented LRU (Karedla, Love and Wherry, 1994): new blocks are on probation, a hit one is protected; "
    "the protected part is at most 'setting' of the capacity, and what overflows, least recently used first, goes back "
    "on probation as if just used. Leaves on probation go first, least recently used first.",
    source="Karedla, Love and Wherry, Caching strategies to improve disk system performance, IEEE Computer, 1994",
    setting=Setting(default=0.8, most=1.0, meaning="share of the capacity that is protected at most"),
    look=Look(color="#E08A00", linestyle="-", marker="X", rank=6),
    make_rule=Slru.make,
    queues=2,
)
