"""What replicas hit, what any of them held, and what the optimum would have hit on the replica that a request went to.

The replicas and their routers are those of `cache.cluster`.
"""

from typing import NamedTuple

import numpy as np

from kvprefix.blocks.prefix_trace import select_requests
from kvprefix.cache.cluster.replay import SERVICE, Service, route_requests
from kvprefix.cache.cluster.routers import Router, check_replicas, find_router
from kvprefix.cache.replay import limit_capacity
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import replay_lookups
from kvprefix.files.paths import InputError


class Routing(NamedTuple):
    """A router and what it needs to know, as `cache.cluster.replay.route_requests` takes it."""

    router: Router
    replicas: int
    seed: int = 0
    service: Service = SERVICE


def make_routing(router, replicas, **more):
    """Return a Routing; raise InputError for a router that is not known, or a number of replicas that is none."""
    return Routing(find_router(router), check_replicas(replicas), **more)


def replay_routed(blocks, policy, capacities, routing, looked_up):
    """Replay a trace through replicas of several sizes under LRU; None is a size at which nothing is evicted.

    Parameters
    ----------
    blocks : PrefixTrace
    policy : Policy
    capacities : sequence of int or None
        Blocks of each replica.
    routing : Routing
    looked_up : (n_requests,) ndarray of int64
        Blocks of each prompt; the others are of its reply.

    Yields
    ------
    hits, anywhere, best : (n_requests,) ndarrays of int64
        Leading blocks that are resident on the request's replica, those on any replica, and those that OPT would hit
        on the request's replica, for each of the capacities.

    Raises
    ------
    InputError
        A policy other than LRU.

    Examples
    --------
    The second request finds its block on the other replica alone.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> blocks = make_prefix_trace(make_trace_of([[1, 2], [1, 3]]), 1)
    >>> list(replay_routed(blocks, LRU, [9], make_routing("rr", 2), blocks.blocks))
    [(array([0, 0]), array([0, 1]), array([0, 0]))]
    """
    if policy is not LRU:
        raise InputError(f"policy {policy.name}: replicas are replayed under {LRU.name} only")
    router, replicas, seed, service = routing
    for capacity in capacities:
        routed = route_requests(
            blocks, capacity, router, replicas, looked_up=looked_up, seed=seed, service=service
        )
        limited = limit_capacity(blocks, (blocks.n_distinct or 1) if capacity is None else capacity)
        yield routed.hits, routed.anywhere, _find_best(blocks, limited, routed.places, looked_up)


def _find_best(blocks, capacity, places, looked_up):
    best = np.zeros(len(blocks), np.int64)
    for replica in range(places.max(initial=-1) + 1):
        some = np.flatnonzero(places == replica)
        ((best[some], _),) = replay_lookups(select_requests(blocks, some), [capacity], looked_up[some])
    return best
