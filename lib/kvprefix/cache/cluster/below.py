"""Tiers below the cache of each replica: what a replica's own second tier brings back."""

import numpy as np

from kvprefix.blocks.prefix_trace import select_requests
from kvprefix.cache.tiers import check_tiers, find_semantics, replay_tiers


def replay_tiers_below(blocks, capacities, places, semantics="exclusive", *, looked_up=None):
    """Replay tiers on each of several replicas; a router has placed the requests already, by the first tier.

    Parameters
    ----------
    blocks : PrefixTrace
    capacities : sequence of int
        Blocks of each tier of each replica, the fastest first.
    places : (n_requests,) ndarray of int64
        The replica of each request, as `replay.route_requests` returns it.
    semantics, looked_up
        As in `cache.tiers.replay_tiers`.

    Returns
    -------
    (n_tiers, n_requests) ndarray of int64
        Leading blocks of each prompt that the first tier of its replica hits, that the first two hit, and so on.

    Examples
    --------
    Two replicas with room for one block above two: the fifth request finds "1" in the second tier of its own.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> blocks = make_prefix_trace(make_trace_of([[1], [1], [2], [3], [1], [3]]), 1)
    >>> replay_tiers_below(blocks, [1, 2], np.array([0, 1, 0, 1, 0, 1]))
    array([[0, 0, 0, 0, 0, 1],
           [0, 0, 0, 0, 1, 1]])
    """
    known = find_semantics(semantics)
    hits = np.zeros((len(check_tiers(capacities, known)), len(blocks)), np.int64)
    looked_up = blocks.blocks if looked_up is None else looked_up
    for replica in np.unique(places):
        some = np.flatnonzero(places == replica)
        own = select_requests(blocks, some)
        hits[:, some] = replay_tiers(own, capacities, known, looked_up=looked_up[some])
    return hits
