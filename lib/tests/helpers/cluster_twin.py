"""Replicas behind a router again in plain Python, on the paths of `cache_twin`. Nothing here is fast."""

import random
from typing import NamedTuple

from cache_twin import Lru, count_leading, list_distinct, split_path

TTFT_S, OUTPUT_S = 0.5, 0.03


class Running(NamedTuple):
    """A request that was sent to a replica."""

    replica: int
    computed: int
    blocks: int
    prefilled_s: float
    finish_s: float


class Cluster:
    """Replicas, what runs there, and a router's own tree: the replicas that got each prefix, the latest last."""

    def __init__(self, small, capacity, replicas, seed=0):
        self.small, self.capacity, self.replicas = small, capacity, range(replicas)
        self.caches = [Lru(small, capacity, None) for _ in self.replicas]
        self.sent, self.tree, self.random = [], {}, random.Random(seed)

    def measure(self, now):
        """Take note of what each replica holds of a request, and of what runs there."""
        one, now_s = self.small.accesses, self.small.accesses.arrival_s[now]
        self.now, self.blocks = now, split_path(self.small.paths[now])
        self.tokens, self.size = int(one.prompt_tokens[now]), one.block_size
        self.matches = [count_leading(self.blocks, cache.resident) for cache in self.caches]
        running = [[each for each in self.sent if each.replica == k and each.finish_s > now_s] for k in self.replicas]
        self.outstanding = [len(some) for some in running]
        self.active = [sum(each.blocks for each in some) for some in running]
        self.prefilling = [
            sum(each.computed for each in self.sent if each.replica == k and each.prefilled_s > now_s)
            for k in self.replicas
        ]

    def count_computed(self, blocks):
        saved = blocks * self.size
        if blocks and blocks == len(self.blocks):
            saved += int(self.small.accesses.last_weight[self.now]) - self.size
        return self.tokens - saved

    def least(self, *costs):
        return min(self.replicas, key=lambda k: (*(cost[k] for cost in costs), k))

    def choose(self, router):
        name, _, number = router.partition(":")
        return getattr(self, "choose_" + name.replace("-", "_"))(*([int(number)] if number else []))

    def choose_rr(self):
        return self.now % len(self.replicas)

    def choose_random(self):
        return self.random.randrange(len(self.replicas))

    def choose_session(self):
        return int(self.small.accesses.conversation[self.now]) % len(self.replicas)

    def choose_hash(self, tokens):
        if not self.blocks:
            return 0
        block = self.blocks[: -(-tokens // self.size)][-1]
        return list_distinct(self.small.paths).index(block) * 2654435761 % 2**32 % len(self.replicas)

    def choose_longest(self):
        return self.least([-match for match in self.matches], self.outstanding)

    def choose_cache_aware(self, unmatched):
        most, least = max(self.outstanding), min(self.outstanding)
        if most - least > 64 and most > 1.5 * least:
            return self.least(self.outstanding)
        known = count_leading(self.blocks, self.tree)
        if known and known / len(self.blocks) > 0.3:
            return self.tree[self.blocks[known - 1]][-1]
        return self.least(unmatched)

    def choose_cache_aware_tree(self):
        return self.choose_cache_aware([sum(k in got for got in self.tree.values()) for k in self.replicas])

    def choose_cache_aware_load(self):
        return self.choose_cache_aware(self.outstanding)

    def choose_dynamo(self):
        blocks = -(-self.tokens // self.size)
        return self.least([
            (self.prefilling[k] + self.count_computed(self.matches[k])) / self.size + (self.active[k] + blocks)
            for k in self.replicas
        ])  # fmt: skip

    def choose_llm_d(self):
        most, least = max(self.outstanding), min(self.outstanding)
        scores = []
        for k in self.replicas:
            prefix = self.matches[k] / len(self.blocks) if self.blocks else 0.0
            queue = (most - self.outstanding[k]) / (most - least) if most > least else 1.0
            scores.append(3 * prefix + 2 * queue + 2 * (1 - self.active[k] / self.capacity))
        return self.least([-score for score in scores], self.outstanding)

    def send(self, replica):
        """Let a replica serve the request."""
        cache, hit, one = self.caches[replica], self.matches[replica], self.small.accesses
        cache.hit(self.blocks[:hit], self.now)
        for block in self.blocks[hit:]:
            if len(cache.resident) == self.capacity:
                leaves = cache.find_leaves(self.blocks)
                if not leaves:
                    break
                cache.evict(cache.first_out(leaves))
            cache.store(block, self.now)
        for block in self.blocks:
            self.tree.setdefault(block, []).append(replica)
        arrival_s = one.arrival_s[self.now]
        expected_s = arrival_s + (TTFT_S + int(one.output_tokens[self.now]) * OUTPUT_S)
        finish_s = max(one.finish_s[self.now], expected_s if one.finish_s[self.now] == arrival_s else 0)
        self.sent.append(Running(
            replica, self.count_computed(hit), -(-self.tokens // self.size), arrival_s + TTFT_S, finish_s
        ))  # fmt: skip


def route_twin(small, capacity, router, replicas, seed=0):
    """Return each request's hit blocks, the most that any replica held, and its replica."""
    cluster, found = Cluster(small, capacity, replicas, seed), []
    for now in range(len(small.paths)):
        cluster.measure(now)
        replica = cluster.choose(router)
        found.append((cluster.matches[replica], max(cluster.matches), replica))
        cluster.send(replica)
    return found
