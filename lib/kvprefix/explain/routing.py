"""Requests that are spread over replicas, each with a prefix cache of its own.

A router is one entry of ROUTERS: it names a replica for each request. What a replica holds is LRU's.
"""

import numpy as np
from numba import njit

from kvprefix.blocks.prefix_trace import select_requests
from kvprefix.cache.replay import limit_capacity
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import replay_lookups
from kvprefix.files.checks import check_whole
from kvprefix.files.paths import InputError
from kvprefix.files.words import guess


def route_in_turn(conversation, replicas):
    """Send the requests to one replica after the other, in arrival order."""
    return np.arange(len(conversation)) % replicas


def route_by_session(conversation, replicas):
    """Send all requests of a conversation to one replica: its number modulo the replicas."""
    return conversation % replicas


MOST_REPLICAS = 256  # what each holds is kept for each block
ROUTERS = {"rr": route_in_turn, "session": route_by_session}


def route(conversation, router, replicas):
    """Return the replica of each request, (n_requests,) int64.

    Parameters
    ----------
    conversation : (n_requests,) ndarray of int64
        Of each request, in arrival order.
    router : str
        A name in ROUTERS.
    replicas : int

    Raises
    ------
    InputError
        A router that is not known, or a number of replicas that is none.
    """
    if router not in ROUTERS:
        raise InputError(f"router {router!r} is not known; known: {', '.join(ROUTERS)}{guess(router, ROUTERS)}")
    expected = f"a whole number, from 1 to {MOST_REPLICAS}"
    return ROUTERS[router](conversation, check_whole(replicas, "replicas", expected, most=MOST_REPLICAS))


def route_requests(blocks, policy, capacities, replicas, looked_up):
    """Yield what `replay_replicas` returns at each of several capacities; None is one at which nothing is evicted.

    Raises
    ------
    InputError
        A policy other than LRU.
    """
    if policy is not LRU:
        raise InputError(f"policy {policy.name}: replicas are replayed under {LRU.name} only")
    for capacity in capacities:
        limited = limit_capacity(blocks, blocks.n_distinct if capacity is None else capacity)
        yield replay_replicas(blocks, limited, replicas, looked_up)


def replay_replicas(blocks, capacity, replicas, looked_up):
    """Replay a trace through replicas under LRU.

    Parameters
    ----------
    blocks : PrefixTrace
    capacity : int
        Blocks of each replica.
    replicas : (n_requests,) ndarray of int64
        Which one serves each request.
    looked_up : (n_requests,) ndarray of int64
        Blocks of each prompt; the others are of its reply.

    Returns
    -------
    hits, anywhere, best : (n_requests,) ndarrays of int64
        Leading blocks that are resident on the request's replica, those on any replica, and those that OPT would hit
        on the request's replica.

    Examples
    --------
    The second request finds its block on the other replica alone.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> blocks = make_prefix_trace(make_trace_of([[1, 2], [1, 3]]), 1)
    >>> replay_replicas(blocks, 9, np.array([0, 1]), blocks.blocks)
    (array([0, 0]), array([0, 1]), array([0, 0]))
    """
    order = np.argsort(replicas, kind="stable")
    starts = np.searchsorted(replicas[order], np.arange(replicas.max(initial=0) + 2))
    hits, anywhere = _replay(blocks.ids, blocks.offsets, blocks.n_distinct, capacity, replicas, order, starts)
    best = np.zeros(len(hits), np.int64)
    for replica in range(len(starts) - 1):
        some = order[starts[replica] : starts[replica + 1]]
        ((found, _),) = replay_lookups(select_requests(blocks, some), [capacity], looked_up[some])
        best[some] = found
    return np.minimum(hits, looked_up), np.minimum(anywhere, looked_up), best


@njit(cache=True, nogil=True)
def _replay(ids, offsets, n_distinct, capacity, replicas, order, starts):
    """Replay LRU as `cache.rules.lru.replay_recent` does, on each replica; look each request up on all of them."""
    n, n_replicas = len(offsets) - 1, len(starts) - 1
    last = np.full((n_replicas, n_distinct), -1, np.int32)
    left_from, kept_to = np.zeros(n, np.int32), np.zeros(n, np.int32)
    hits, anywhere = np.zeros(n, np.int64), np.zeros(n, np.int64)
    room, oldest = np.full(n_replicas, capacity), starts[:-1].copy()
    for i in range(n):
        start, n_blocks, own = offsets[i], offsets[i + 1] - offsets[i], replicas[i]
        for replica in range(n_replicas):
            hit = 0
            while hit < n_blocks:
                request = last[replica, ids[start + hit]]
                if request < 0 or hit >= kept_to[request]:
                    break
                hit += 1
            anywhere[i] = max(anywhere[i], hit)
            hits[i] = hit if replica == own else hits[i]
        hit = hits[i]
        for k in range(hit):
            left_from[last[own, ids[start + k]]] = k + 1
            last[own, ids[start + k]] = i
        while room[own] < n_blocks - hit and order[oldest[own]] != i:
            request = order[oldest[own]]
            stretch = max(kept_to[request] - left_from[request], 0)
            freed = min(stretch, n_blocks - hit - room[own])
            kept_to[request] -= freed
            room[own] += freed
            oldest[own] += freed == stretch
        stored = min(n_blocks, hit + room[own])
        for k in range(start + hit, start + stored):
            last[own, ids[k]] = i
        room[own] -= stored - hit
        kept_to[i] = stored
    return hits, anywhere
