"""Time to live: LRU that also drops what was not accessed for long."""

from kvprefix.cache.policy import Look, Policy, Setting
from kvprefix.cache.rule import Rule, rule_fields
from kvprefix.cache.rules.lru import replay_recent
from kvprefix.cache.tree import evict_leaf


class Ttl(Rule, rule_fields("Ttl", "seconds")):
    """Before each request the oldest leaves go, until the oldest one is young enough."""

    @classmethod
    def make(cls, trace, cache, setting):
        return cls(trace, cache, float(setting))

    def on_request(self, now):
        arrival_s, leaves = self.trace.arrival_s, self.cache.leaves
        since = arrival_s[now] - self.seconds
        while leaves.fill[0] and arrival_s[int(leaves.key[leaves.heap[0, 0]])] < since:
            evict_leaf(self, leaves.heap[0, 0], now)


def replay_ttl(trace, capacities, setting):
    """Replay TTL without a tree, see `replay_recent`."""
    for capacity in capacities:
        yield replay_recent(trace.ids, trace.offsets, trace.arrival_s, (trace.n_distinct, capacity, float(setting)))


TTL = Policy(
    name="ttl",
    label="TTL",
    definition="Time to live: a block that was not accessed for more than 'setting' seconds is dropped; room is made "
    "as in LRU.",
    setting=Setting(default=600.0, meaning="seconds that a block stays without an access"),
    look=Look(color="#8C5A9E", linestyle=(0, (6, 1.5, 1, 1.5)), marker="v", rank=4),
    make_rule=Ttl.make,
    replay_free=replay_ttl,
)
