"""S3-FIFO: a small queue in which new blocks must be hit, a main queue, and a memory of what left the small one."""

import numpy as np

from kvprefix.cache.heap import push_leaf, remove_leaf
from kvprefix.cache.policy import Look, Policy, Setting
from kvprefix.cache.rule import Rule, rule_fields

SMALL, MAIN = 0, 1  # the queues


class S3Fifo(Rule, rule_fields("S3Fifo", "limit", "counts", "forgotten_at")):
    """The score is when a block entered its queue; `uses` counts its hits there plus 1, up to 4.

    `counts` holds the entries into queues so far, the blocks in the small queue, and the evictions from it.
    `forgotten_at` is the number of such evictions until which a block is remembered.
    """

    @classmethod
    def make(cls, trace, cache, setting):
        limit = setting * cache.capacity + 1e-9  # 0.7 * 90 is 63
        return cls(trace, cache, limit, np.zeros(3, np.int64), np.zeros(len(trace.parent), np.int64))

    def on_access(self, k, now):
        block = self.trace.ids[k]
        self.cache.uses[block] = min(self.cache.uses[block], 4)

    def on_store(self, k, now):
        block = self.trace.ids[k]
        queue = MAIN if self.forgotten_at[block] > self.counts[2] else SMALL
        self.forgotten_at[block] = 0
        self.counts[0] += 1
        self.counts[1] += queue == SMALL
        self.cache.leaves.scores[block] = self.counts[0]
        return queue

    def choose_leaf(self, k):
        """Return the stretch whose tail to evict; those that were hit move on, or to the back of the main queue."""
        leaves, uses = self.cache.leaves, self.cache.uses
        while True:
            queue = SMALL if leaves.fill[SMALL] else MAIN
            if leaves.fill[MAIN] and self.counts[1] <= self.limit:
                queue = MAIN
            if leaves.fill[queue] == 0:
                return -1
            stretch = leaves.heap[queue, 0]
            block = leaves.tail[stretch]
            if uses[block] <= (2 if queue == SMALL else 1):
                return stretch
            remove_leaf(leaves, queue, stretch)
            if queue == SMALL:
                self.cache.queue_of[block], uses[block] = MAIN, 1
                self.counts[1] -= 1
            else:
                uses[block] -= 1
            self.counts[0] += 1
            leaves.scores[block] = self.counts[0]
            push_leaf(leaves, MAIN, stretch, block)

    def on_evict(self, block):
        if self.cache.queue_of[block] == SMALL:
            main_room = int(self.cache.capacity - self.limit + 1e-6)
            self.counts[1] -= 1
            self.counts[2] += 1
            self.forgotten_at[block] = self.counts[2] + main_room


S3FIFO = Policy(
    name="s3fifo",
    label="S3-FIFO",
    definition="S3-FIFO (Yang et al., SOSP 2023): new blocks enter a small queue, at most 'setting' of the capacity "
    "before its oldest leaf goes; one hit twice meanwhile moves to the main queue instead. The main queue's oldest "
    "leaf goes unless it was hit, which puts it back (up to three times). A block evicted from the small queue is "
    "remembered, for as many evictions from that queue as the main queue is large, and enters the main queue when "
    "it comes back.",
    source="Yang, Zhang, Qiu, Yue and Rashmi, FIFO queues are all you need for cache eviction, SOSP 2023",
    setting=Setting(default=0.1, most=1.0, meaning="share of the capacity that the small queue has at most"),
    look=Look(color="#E08A00", linestyle=(0, (4, 1.5)), marker="d", rank=7),
    make_rule=S3Fifo.make,
    queues=2,
)
