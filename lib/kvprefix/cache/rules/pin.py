"""Pinned system prompts: LRU that evicts them last, as long as they take no more than a share of the cache."""

import numpy as np

from kvprefix.cache.heap import find_first
from kvprefix.cache.policy import Policy, Setting
from kvprefix.cache.rule import Rule, rule_fields

FREE, PINNED = 0, 1  # the queues


class Pin(Rule, rule_fields("Pin", "limit", "system_blocks", "pinned")):
    """Two queues, scored as LRU; `pinned` counts the blocks in the second, resident ones of system prompts."""

    def on_access(self, k, now):
        block = self.trace.ids[k]
        self.cache.leaves.scores[block] = self.score_block(k, now)
        if self.cache.queue_of[block] == FREE and self.trace.depth[block] < self.system_blocks[now]:
            self.cache.queue_of[block] = PINNED
            self.pinned[0] += 1

    def on_store(self, k, now):
        block = self.trace.ids[k]
        self.cache.leaves.scores[block] = self.score_block(k, now)
        if self.trace.depth[block] >= self.system_blocks[now]:
            return FREE
        self.pinned[0] += 1
        return PINNED

    def choose_leaf(self, k):
        leaves = self.cache.leaves
        first = PINNED if self.pinned[0] > self.limit else FREE
        return find_first(leaves, first if leaves.fill[first] else 1 - first)

    def on_evict(self, block):
        self.pinned[0] -= self.cache.queue_of[block] == PINNED


def make_pin_policy(hints):
    """Return the Policy that pins the system prompts of `hints.system_blocks`."""

    def make(trace, cache, setting):
        limit = setting * cache.capacity + 1e-9  # 0.7 * 90 is 63
        return Pin(trace, cache, limit, hints.system_blocks, np.zeros(1, np.int64))

    return Policy(
        name="pin",
        label="Pinned prompts",
        definition="LRU that evicts blocks of system prompts last, the least recently used first, as long as they take "
        "at most 'setting' of the capacity; beyond that, they go first.",
        setting=Setting(default=0.1, most=1.0, meaning="share of the capacity that system prompts have at most"),
        make_rule=make,
        queues=2,
    )
