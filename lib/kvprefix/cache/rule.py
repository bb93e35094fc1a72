"""What a policy decides in a cache on the prefix tree: the methods of a rule, and their defaults.

A rule is a named tuple of arrays that begins with `trace` and `cache` (see `tree`), so numba compiles the replay once
for each rule's type. Its methods are plain Python functions; numba finds them by the names below.
"""

from collections import namedtuple

from numba import types
from numba.extending import overload_method

from kvprefix.cache.heap import find_first

COMPILED = (
    "score_block", "on_access", "on_path", "on_store", "on_request", "admits_block", "choose_leaf", "on_evict",
)  # fmt: skip


def rule_fields(name, *own):
    """Return a rule's named tuple: `trace`, `cache`, and fields of its own."""
    return namedtuple(name, ["trace", "cache", *own])


class Rule:
    """A policy at work in one cache; a subclass overrides what it does differently.

    Most policies differ in the score. Each method gets the block access `k` (its block is ``trace.ids[k]``) and `now`,
    the position of the request that accesses it.
    """

    @classmethod
    def make(cls, trace, cache, setting):
        """Make the rule for an empty cache; the arrays of its own, if any, come after `trace` and `cache`."""
        return cls(trace, cache)

    def check(self):
        """Raise what went wrong in the replay, once it is over."""

    def score_block(self, k, now):
        """Return the score of an accessed block: the leaf with the lowest score is evicted first."""
        return float(now)

    def on_access(self, k, now):
        """Take note of a hit block."""
        self.cache.leaves.scores[self.trace.ids[k]] = self.score_block(k, now)

    def on_path(self, now, hit):
        """Take note of the request's `hit` leading blocks together, once each was accessed."""

    def on_store(self, k, now):
        """Take note of a stored block; return its queue: 0, or 1 if the policy has two."""
        self.cache.leaves.scores[self.trace.ids[k]] = self.score_block(k, now)
        return 0

    def on_request(self, now):
        """Drop blocks before a request is looked up."""

    def admits_block(self, k):
        """Say whether a missing block is stored at all; if not, the rest of its request is not stored either."""
        return True

    def choose_leaf(self, k):
        """Return the stretch whose tail to evict for a missing block; -1 if none: the block is then not stored."""
        return find_first(self.cache.leaves, 0)

    def on_evict(self, block):
        """Take note of a block that is about to be evicted."""


def _offer(name, method):
    """Let numba find a method on every rule. Its arguments are counted here, since numba takes no `*arguments`."""

    def with_one(self, a):
        return _find(self, name)

    def with_two(self, a, b):
        return _find(self, name)

    make = overload_method(types.BaseNamedTuple, name, strict=False, jit_options={"_nrt": False})  # see heap.borrowed
    make({2: with_one, 3: with_two}[method.__code__.co_argcount])


def _find(rule, name):
    return getattr(rule.instance_class, name) if issubclass(rule.instance_class, Rule) else None


for _name in COMPILED:
    _offer(_name, getattr(Rule, _name))
