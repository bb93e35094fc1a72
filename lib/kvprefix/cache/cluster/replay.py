"""Replay a trace through replicas, each with a cache of its own under LRU, behind a router.

Requests are outstanding from their arrival to their finish, however loaded the replicas are: the loop is open. Of
replicas that a router's rule rates alike, `choices` says which one it takes.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.cache.cluster.choices import PLACED, choose, make_fleet, make_tree, save_tokens, send
from kvprefix.cache.cluster.replicas import find_matches, make_caches, serve
from kvprefix.cache.cluster.routers import check_replicas, find_router
from kvprefix.cache.replay import limit_capacity


class Service(NamedTuple):
    """How long a request is outstanding for a router: until its trace's finish, else the seconds that these give.

    Its prompt counts as being computed for the first of them.
    """

    ttft_s: float = 0.5
    time_per_output_token_s: float = 0.03


SERVICE = Service()


class Routed(NamedTuple):
    """What became of each request, (n_requests,) ndarrays of int64.

    Attributes
    ----------
    hits : ndarray
        Leading blocks of its prompt that its replica held.
    anywhere : ndarray
        Those that any replica held at that moment.
    places : ndarray
        Its replica, 0, 1, ...
    """

    hits: np.ndarray
    anywhere: np.ndarray
    places: np.ndarray


class _Trace(NamedTuple):
    """What the replay reads of a PrefixTrace; `by_finish` are the requests in the order of their finish."""

    block_size: int
    capacity: float
    ids: np.ndarray
    offsets: np.ndarray
    looked_up: np.ndarray
    last_weight: np.ndarray
    prompt_tokens: np.ndarray
    arrival_s: np.ndarray
    prefilled_s: np.ndarray
    finish_s: np.ndarray
    by_finish: np.ndarray


def route_requests(blocks, capacity, router, replicas, *, looked_up=None, seed=0, service=SERVICE):
    """Replay a trace through replicas behind a router.

    Parameters
    ----------
    blocks : PrefixTrace
    capacity : int or None
        Blocks of each replica; None if nothing is evicted.
    router : str or Router
        A name in ROUTERS, such as ``rr`` or ``hash:1024``.
    replicas : int
    looked_up : (n_requests,) ndarray of int64, optional
        Blocks of each prompt; the others are of its reply, and only stored. All are the prompt's if not given.
    seed : int
        Of random choices.
    service : Service
        How long requests are outstanding.

    Returns
    -------
    Routed

    Raises
    ------
    InputError
        A router that is not known, a capacity or a number of replicas below 1.

    Examples
    --------
    The third prompt begins like the first one, which went to the other replica.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> blocks = make_prefix_trace(make_trace_of([[1, 2, 9], [5, 6, 9], [1, 2, 9], [1, 2, 9]]), 1)
    >>> route_requests(blocks, 9, "rr", 2)
    Routed(hits=array([0, 0, 3, 0]), anywhere=array([0, 0, 3, 3]), places=array([0, 1, 0, 1]))
    >>> route_requests(blocks, 9, "longest", 2).places
    array([0, 0, 0, 0])
    """
    router, replicas = find_router(router), check_replicas(replicas)
    limited = limit_capacity(blocks, blocks.n_distinct or 1 if capacity is None else capacity)
    looked_up = blocks.blocks if looked_up is None else looked_up
    finish_s = find_finish(blocks, service)
    trace = _Trace(
        block_size=blocks.block_size, capacity=np.inf if capacity is None else float(min(capacity, 2**62)),
        ids=blocks.ids, offsets=blocks.offsets, looked_up=looked_up, last_weight=blocks.last_weight,
        prompt_tokens=np.array(blocks.prompt_tokens, np.int64),  # copies, so that one compiled loop serves all
        arrival_s=np.array(blocks.arrival_s, np.float64),
        prefilled_s=blocks.arrival_s + service.ttft_s, finish_s=finish_s, by_finish=np.argsort(finish_s, kind="stable"),
    )  # fmt: skip
    n, placed = len(blocks), router.rule == PLACED
    places = router.place(blocks, looked_up, replicas, seed) if placed else np.zeros(n, np.int64)
    hits, anywhere = np.zeros(n, np.int64), np.zeros(n, np.int64)
    caches = make_caches(n, blocks.n_distinct, replicas, limited)
    tree = make_tree(router.rule, replicas, blocks.n_distinct)
    _route(router.rule, trace, caches, make_fleet(replicas), tree, (hits, anywhere, places))
    return Routed(hits, anywhere, places)


def find_finish(blocks, service=SERVICE):
    """Return when each request finishes, (n_requests,) float64 in seconds: by its trace, else by `service`."""
    outputs = 0 if blocks.output_tokens is None else blocks.output_tokens
    expected_s = blocks.arrival_s + (service.ttft_s + outputs * service.time_per_output_token_s)
    return np.where(blocks.finish_s > blocks.arrival_s, blocks.finish_s, expected_s)


@njit(cache=True, nogil=True)
def _route(rule, trace, caches, fleet, tree, out):
    hits, anywhere, places = out
    computed, left = np.zeros(len(hits), np.int64), np.zeros(caches.holders.shape[1], np.int64)
    prefilled = finished = 0
    for now in range(len(hits)):
        arrival_s = trace.arrival_s[now]
        while prefilled < now and trace.prefilled_s[prefilled] <= arrival_s:
            fleet.prefilling[places[prefilled]] -= computed[prefilled]
            prefilled += 1
        while trace.by_finish[finished] < now and trace.finish_s[trace.by_finish[finished]] <= arrival_s:
            request = trace.by_finish[finished]
            fleet.outstanding[places[request]] -= 1
            fleet.active_blocks[places[request]] -= _count_blocks(trace, request)
            finished += 1
        start, stop = trace.offsets[now], trace.offsets[now + 1]
        find_matches(caches, trace.ids[start:stop], fleet.found, left)
        for replica in range(len(fleet.found)):
            fleet.matches[replica] = min(fleet.found[replica], trace.looked_up[now])
        if rule != PLACED:
            places[now] = choose(rule, fleet, tree, trace, now)
        own = places[now]
        hits[now], anywhere[now] = fleet.matches[own], fleet.matches.max()
        computed[now] = trace.prompt_tokens[now] - save_tokens(trace, now, hits[now])
        serve(caches, trace, now, own, fleet.found[own])
        fleet.outstanding[own] += 1
        fleet.active_blocks[own] += _count_blocks(trace, now)
        fleet.prefilling[own] += computed[now]
        if len(tree.latest):
            send(fleet, tree, trace, now, own)


@njit(cache=True, nogil=True)
def _count_blocks(trace, request):
    return -(-trace.prompt_tokens[request] // trace.block_size)
