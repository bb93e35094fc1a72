"""Replay a trace through a cache of a fixed number of blocks, under an eviction policy.

The rules that all policies share (except `fifo_flat`, which knows no tree):

- A request hits its leading run of resident blocks; then its missing blocks are stored, from the root on.
- Only *leaves* are evicted, blocks without a resident child: a block behind a missing one could never be hit.
- The blocks of the request being served are *pinned*; with ``hold=True`` so are those of every request that still runs
  (from its arrival to its finish).
- The leaf with the lowest *score* is evicted first; of equal scores the deepest, then the one first seen.
- If nothing can be evicted, the rest of the request's blocks is not stored. So a request larger than the cache keeps
  its first blocks, as many as fit, and hits up to these.

The policies are in `rules`; `curve` computes the whole LRU curve without a replay.
"""

from dataclasses import KW_ONLY, dataclass

import numpy as np

from kvprefix.cache.policies import check_setting, find_policy
from kvprefix.cache.policy import Policy
from kvprefix.cache.tree import make_tree_cache, make_tree_trace, run_rule
from kvprefix.files.checks import check_whole
from kvprefix.files.paths import InputError
from kvprefix.stats.replayed import Replayed


def replay(trace, capacity, policy="lru", *, setting=None, hold=False):
    """Replay a trace through a bounded cache.

    Parameters
    ----------
    trace : PrefixTrace
    capacity : int
        Blocks, 1 or more.
    policy : str or Policy
        A name in POLICIES, or a policy itself, such as `policies.policy` makes.
    setting : float, optional
        The policy's one number, see its `setting`; the default if not given.
    hold : bool
        Pin a request's blocks until it finishes. The other requests then may find no room.

    Returns
    -------
    (n_requests,) ndarray of int64
        Each request's hit blocks: its leading run of resident ones.

    Raises
    ------
    InputError
        An unknown policy, a capacity below 1, a setting out of range; a policy that is not defined with `hold`; a
        user's policy that raises or returns no number.

    Examples
    --------
    Room for two blocks: the third request's block 1 was evicted for block 2, under LRU.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> trace = make_prefix_trace(make_trace_of([[1, 2, 9], [1, 3, 9], [1, 2, 9], [1, 3, 9]]), 1)
    >>> replay(trace, 2, "lru"), replay(trace, 2, "opt")
    (array([0, 1, 1, 1]), array([0, 1, 2, 1]))
    """
    return _replay(trace, capacity, find_policy(policy), setting, hold)[0]


def replay_each(trace, capacities, policy="lru"):
    """Replay a trace through caches of several sizes; what does not depend on the size is found once.

    Parameters
    ----------
    trace, policy
        As in `replay`.
    capacities : sequence of int

    Yields
    ------
    (n_requests,) ndarray of int64
        What `replay` returns for each capacity.
    """
    known = find_policy(policy)
    if known.replay_free is None:
        yield from (replay(trace, capacity, known) for capacity in capacities)
    else:
        limited = [limit_capacity(trace, capacity) for capacity in capacities]
        yield from (hits for hits, _ in known.replay_free(trace, limited, known.default))


@dataclass(frozen=True)
class PrefixCache:
    """A bounded prefix cache that replays traces as an engine does.

    Attributes
    ----------
    policy : str or Policy
    capacity : int
        Blocks, 1 or more.
    setting, hold
        As in `replay`.
    """

    policy: str | Policy
    capacity: int
    _: KW_ONLY
    setting: float | None = None
    hold: bool = False

    def __post_init__(self):
        check_setting(find_policy(self.policy), self.setting)
        check_capacity(self.capacity)

    def replay(self, trace):
        """Replay a PrefixTrace; see `replay` for the errors.

        Returns
        -------
        Replayed
            Its `details` hold `hit_blocks`, (n_requests,) ndarray of int64. Evictions are blocks that left the cache.

        Examples
        --------
        >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
        >>> from kvprefix.traces.trace import make_trace_of
        >>> trace = make_prefix_trace(make_trace_of([[1, 2, 9], [1, 3, 9], [1, 2, 9]]), 1)
        >>> replayed = PrefixCache("lru", 2).replay(trace)
        >>> replayed.hit_tokens, replayed.evictions
        (array([0, 1, 1]), 2)
        """
        known = find_policy(self.policy)
        hits, evictions = _replay(trace, self.capacity, known, self.setting, self.hold)
        return Replayed(
            hit_tokens=trace.hit_tokens(hits), prompt_tokens=trace.prompt_tokens, evictions=evictions,
            label=known.label, details={"hit_blocks": hits},
        )  # fmt: skip


def _replay(trace, capacity, policy, setting, hold):
    """Return each request's hit blocks, and the evictions."""
    if hold and not policy.holds:
        raise InputError(f"policy {policy.name} is not defined with hold: its requests take no time")
    if policy.replay_free is not None and not hold:
        setting = check_setting(policy, setting)
        hits, evictions = next(policy.replay_free(trace, [limit_capacity(trace, capacity)], setting))
        return hits, int(evictions)
    hits, cache = replay_on_tree(trace, capacity, policy, setting, hold)
    return hits, int(cache.evicted[0])


def replay_on_tree(trace, capacity, policy, setting=None, hold=False, record=False):
    """Replay on the prefix tree; return each request's hit blocks, and the TreeCache as it was left.

    Arguments are those of `replay`; with `record` the cache lists what it evicted.
    """
    setting = check_setting(policy, setting)
    tree = make_tree_trace(trace, hold)
    cache = make_tree_cache(tree, limit_capacity(trace, capacity), policy.queues, record)
    rule = policy.make_rule(tree, cache, setting)
    hits = np.zeros(len(trace), np.int64)
    run_rule(rule, hits)
    rule.check()
    return hits, cache


def limit_capacity(trace, capacity):
    """Return a capacity, at most a trace's distinct blocks; raise InputError as `check_capacity`."""
    return min(check_capacity(capacity), max(trace.n_distinct, 1))


def check_capacity(capacity):
    """Return a capacity that is a whole number of blocks above 0, or raise InputError."""
    return check_whole(capacity, "capacity", "a whole number of blocks, 1 or more", most=float("inf"))
