"""What a policy decides in a cache on the prefix tree: the methods of a rule, and what each does if a rule has no own.

A rule is a named tuple of arrays that begins with `trace` and `cache` (see `tree`), so numba compiles the replay once
for each rule's type. Its methods are plain Python functions; numba finds them by the names below.
"""

from collections import namedtuple

from numba import types
from numba.extending import overload_method


def rule_fields(name, *own):
    """Return the named tuple that a rule is: `trace`, `cache`, and what is its own."""
    return namedtuple(name, ["trace", "cache", *own])


class Rule:
    """A policy at work in one cache; a subclass gives what it does differently.

    Most policies are a score alone. Each method gets the block access `k` (its block is ``trace.ids[k]``) and `now`,
    the position of the request that accesses it.
    """

    @classmethod
    def make(cls, trace, cache, setting):
        """Make the rule for an empty cache; the arrays of its own, if any, come after `trace` and `cache`."""
        return cls(trace, cache)

    def check(self):
        """Raise what went wrong in the replay, which is through."""

    def score_block(self, k, now):
        """Return the score of an accessed block: of all leaves the one with the lowest goes first."""
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
        """Return the leaf that goes for a missing block; -1: none does, and the block is not stored."""
        leaves = self.cache.leaves
        return leaves.heap[0, 0] if leaves.fill[0] else -1

    def on_evict(self, block):
        """Take note of a block that is about to go."""


@overload_method(types.BaseNamedTuple, "score_block")
def _score_block(self, k, now):
    return _find(self, "score_block")


@overload_method(types.BaseNamedTuple, "on_access")
def _on_access(self, k, now):
    return _find(self, "on_access")


@overload_method(types.BaseNamedTuple, "on_path")
def _on_path(self, now, hit):
    return _find(self, "on_path")


@overload_method(types.BaseNamedTuple, "on_store")
def _on_store(self, k, now):
    return _find(self, "on_store")


@overload_method(types.BaseNamedTuple, "on_request")
def _on_request(self, now):
    return _find(self, "on_request")


@overload_method(types.BaseNamedTuple, "admits_block")
def _admits_block(self, k):
    return _find(self, "admits_block")


@overload_method(types.BaseNamedTuple, "choose_leaf")
def _choose_leaf(self, k):
    return _find(self, "choose_leaf")


@overload_method(types.BaseNamedTuple, "on_evict")
def _on_evict(self, block):
    return _find(self, "on_evict")


def _find(rule, name):
    return getattr(rule.instance_class, name) if issubclass(rule.instance_class, Rule) else None
