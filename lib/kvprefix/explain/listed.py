"""Origins and causes of a trace that lists block ids, whose tokens are not known.

Conversations are those of the trace or, if it has none, inferred: a request continues another if it contains that one's
last full block, and nobody had this block before.
"""

from dataclasses import dataclass, field

import numpy as np
from numba import njit

from kvprefix.cache.curve import count_seen
from kvprefix.cache.policies import find_policy
from kvprefix.cache.replay import check_capacity, limit_capacity, replay, replay_each
from kvprefix.cache.rules.opt import OPT
from kvprefix.explain.copies import HOLDERS, OTHER_ONLY, find_copies
from kvprefix.explain.misses import Misses
from kvprefix.explain.parts import Origins, name_listed
from kvprefix.explain.routing import replay_routed

LISTED_ORIGINS = ("own_turns", "other_conversation", "uncached")
LISTED_CLASSES = ("hit", "policy", "capacity", "first_seen")
INFERRED = (
    "conversations are inferred: a request continues the one whose last full block it contains; on ShareGPT, where the "
    "truth is known, 97.0 % of these links are true, and own turns come out 1.1 % high"
)
COARSE = (
    "of block ids no more can be told: `first_seen` is what no earlier request had as a whole block, new tokens and "
    "those of a block that was there in part"
)


@dataclass(frozen=True, kw_only=True, repr=False)
class ListedProvenance(Origins):
    """The origins of the cached tokens of a trace of block ids.

    Attributes
    ----------
    holders : (3,) ndarray of int64
        Cached tokens by HOLDERS.
    groups, links : int or None
        Conversations that were inferred, and the requests that continue another; None if the trace has conversations.
    """

    names: tuple = LISTED_ORIGINS
    holders: np.ndarray = field(repr=False)
    groups: int | None = None
    links: int | None = None

    def as_dict(self):
        """Return the sums as JSON values."""
        inferred = {"inferred_groups": self.groups, "continuations": self.links}
        holders = dict(zip(HOLDERS, self.holders.tolist(), strict=True))
        return self.wrap({"holders_tokens": holders, **({} if self.groups is None else inferred)})


def infer_links(trace):
    """Return the request that each one continues, -1 for none, (n_requests,) int64.

    A request continues an earlier one whose last full block it contains, if that one was the first to have the block;
    of several, the one whose block lies deepest.

    Parameters
    ----------
    trace : PrefixTrace

    Examples
    --------
    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> infer_links(make_prefix_trace(make_trace_of([[1, 2], [1, 3], [1, 2, 4], [1, 5]]), 1))
    array([-1, -1,  0, -1])
    """
    full = np.minimum(trace.blocks, trace.prompt_tokens // trace.block_size)
    return _infer_links(trace.ids, trace.offsets, full, trace.n_distinct)


@njit(cache=True, nogil=True)
def _infer_links(ids, offsets, full, n_distinct):
    links, tail_of = np.full(len(full), -1), np.full(n_distinct, -1)
    seen = 0
    for i in range(len(full)):
        k = offsets[i] + full[i] - 1
        while k >= offsets[i] and (ids[k] >= seen or tail_of[ids[k]] < 0):
            k -= 1
        links[i] = tail_of[ids[k]] if k >= offsets[i] else -1
        last = offsets[i] + full[i] - 1
        if full[i] > 0 and ids[last] >= seen:
            tail_of[ids[last]] = i
        if offsets[i + 1] > offsets[i]:
            seen = max(seen, ids[offsets[i + 1] - 1] + 1)
    return links


def group_by_links(links):
    """Return the group of each request, 0, 1, ... as first seen: requests that continue one another.

    >>> group_by_links(np.array([-1, -1, 0, 2]))
    array([0, 1, 0, 0])
    """
    return _group(links)


@njit(cache=True, nogil=True)
def _group(links):
    groups, count = np.empty(len(links), np.int64), 0
    for i in range(len(links)):
        groups[i] = groups[links[i]] if links[i] >= 0 else count
        count += links[i] < 0
    return groups


def find_listed_provenance(trace, *, capacity=None, policy="lru", infer=None):
    """Find the origin of the cached tokens of a trace of block ids.

    Parameters
    ----------
    trace : PrefixTrace
    capacity : int, optional
        Blocks of the cache; nothing is evicted if not given.
    policy : str or Policy
    infer : bool, optional
        Whether to infer conversations; if not given, only if each request is one of its own.

    Returns
    -------
    ListedProvenance
    """
    infer = len(np.unique(trace.conversation)) == len(trace) if infer is None else infer
    links = infer_links(trace) if infer else None
    conversation = group_by_links(links) if infer else np.unique(trace.conversation, return_inverse=True)[1]
    hits = count_seen(trace.ids, trace.offsets) if capacity is None else replay(trace, capacity, policy)
    found = find_copies(trace, hits, hits, conversation, np.arange(len(trace)))
    request = found.requests
    ends = found.ends * trace.block_size - np.where(
        found.ends == trace.blocks[request], trace.block_size - trace.last_weight[request], 0
    )
    begins = np.where(np.diff(request, prepend=-1) > 0, 0, np.concatenate(([0], ends[:-1]))[: len(ends)])
    own = found.holders != OTHER_ONLY
    parts = [np.bincount(request[some], (ends - begins)[some], len(trace)).astype(np.int64) for some in (own, ~own)]
    return ListedProvenance(
        tokens=np.column_stack([*parts, trace.prompt_tokens - sum(parts)]), prompt_tokens=trace.prompt_tokens,
        requests=name_listed(trace) | {"conversation_index": conversation}, notes=[INFERRED] if infer else [],
        holders=np.bincount(found.holders, ends - begins, len(HOLDERS)).astype(np.int64),
        groups=int(conversation.max(initial=-1)) + 1 if infer else None,
        links=int((links >= 0).sum()) if infer else None, capacity=capacity, policy=getattr(policy, "name", policy),
    )  # fmt: skip


def find_listed_misses(trace, capacities, *, policy="lru", routing=None):
    """Find the cause of the missed tokens of a trace of block ids, as far as ids tell it.

    Parameters
    ----------
    trace : PrefixTrace
    capacities : sequence of int or None
        Blocks of each cache; None if nothing is evicted.
    policy : str or Policy
    routing : Routing, optional
        How requests are spread over replicas, see `misses.find_misses`.

    Yields
    ------
    Misses
        With the classes LISTED_CLASSES, and `routing` behind the first with replicas; for each of the capacities.
    """
    policy, capacities = find_policy(policy), [one if one is None else check_capacity(one) for one in capacities]
    stored = count_seen(trace.ids, trace.offsets)
    names = LISTED_CLASSES if routing is None else ("hit", "routing", *LISTED_CLASSES[1:])
    replayed = _replay(trace, policy, capacities, stored) if routing is None else ()
    if routing is not None:
        replayed = replay_routed(trace, policy, capacities, routing, trace.blocks)
    for capacity, hits in zip(capacities, replayed, strict=True):
        reached = [*(trace.hit_tokens(one) for one in (*hits, stored)), trace.prompt_tokens]
        reached = np.maximum.accumulate(np.stack(reached), axis=0)
        yield Misses(
            names=names, tokens=np.diff(reached, axis=0, prepend=0).T, prompt_tokens=trace.prompt_tokens,
            requests=name_listed(trace), capacity=capacity, policy=policy.name, notes=[COARSE],
        )  # fmt: skip


def _replay(trace, policy, capacities, stored):
    """Yield the blocks that each request hits, and those that OPT hits."""
    bounded = [limit_capacity(trace, one) for one in capacities if one is not None]
    hits, best = replay_each(trace, bounded, policy), replay_each(trace, bounded, OPT)
    for capacity in capacities:
        yield (stored, stored) if capacity is None else (next(hits), next(best))
