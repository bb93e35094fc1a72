"""Waits for a server, first come, first served: replayed for a trace, or the mean in the long run."""

import numpy as np
from numba import njit

from kvprefix.files.checks import check_number
from kvprefix.files.paths import InputError

PERCENTILES = (50, 90, 99)


def queue_waits(arrival_s, service_s, servers=None):
    """Replay a queue per server: how long each request waits before its service begins (Lindley's recursion).

    Parameters
    ----------
    arrival_s : (n,) array_like of float64
        Arrivals in seconds, rising.
    service_s : (n,) array_like of float64
        Seconds that each is served, 0 or more.
    servers : (n,) array_like of int64, optional
        The server of each request, 0, 1, ...; one server if not given.

    Returns
    -------
    (n,) ndarray of float64
        Seconds.

    Raises
    ------
    InputError
        Arrivals that fall, negative or unknown times.

    Notes
    -----
    On each server W[0] = 0, W[i+1] = max(0, W[i] + S[i] - (A[i+1] - A[i])). Lindley, The theory of queues with a single
    server, 1952.

    Examples
    --------
    >>> queue_waits([0, 1, 5], [3, 1, 1]).tolist()
    [0.0, 2.0, 0.0]
    >>> queue_waits([0, 1, 1], [3, 1, 1], [0, 0, 1]).tolist()
    [0.0, 2.0, 0.0]
    """
    arrival_s, service_s = np.array(arrival_s, np.float64), np.array(service_s, np.float64)
    if arrival_s.shape != service_s.shape or not (np.isfinite(arrival_s) & np.isfinite(service_s)).all():
        raise InputError("a queue needs one arrival and one service time per request, all finite")
    if (np.diff(arrival_s) < 0).any() or (service_s < 0).any():
        raise InputError("a queue needs arrivals that do not fall, and service times of 0 s or more")
    servers = np.zeros(len(arrival_s), np.int64) if servers is None else np.asarray(servers, np.int64)
    if servers.shape != arrival_s.shape or servers.min(initial=0) < 0:
        raise InputError("a queue needs one server per request, 0, 1, ...")
    return _wait(arrival_s, service_s, servers, servers.max(initial=0) + 1)


@njit(cache=True, nogil=True)
def _wait(arrival_s, service_s, servers, n_servers):
    free_s, wait_s = np.full(n_servers, -np.inf), np.empty(len(arrival_s))
    for i in range(len(arrival_s)):
        begin_s = max(free_s[servers[i]], arrival_s[i])
        wait_s[i] = begin_s - arrival_s[i]
        free_s[servers[i]] = begin_s + service_s[i]
    return wait_s


def mean_wait(rate_per_s, service_s):
    """Compute the mean wait in the long run if requests arrive at random (Poisson): Pollaczek-Khinchine.

    Parameters
    ----------
    rate_per_s : float
        Arrivals per second.
    service_s : float or (n,) array_like
        A sample of service times in seconds.

    Returns
    -------
    float or None
        Seconds; None if the server cannot keep up (rate x mean service time is 1 or more): the queue grows for ever.

    Notes
    -----
    rate x E[S**2] / (2 (1 - rate x E[S])).

    Examples
    --------
    >>> round(mean_wait(0.8, 1.0), 9), mean_wait(1.0, 1.0)
    (2.0, None)
    """
    service_s = np.atleast_1d(np.asarray(service_s, np.float64))
    load = offered_load(rate_per_s, service_s)
    return None if load >= 1 else float(rate_per_s * (service_s**2).mean() / (2 * (1 - load)))


def offered_load(rate_per_s, service_s):
    """Return the seconds of work that arrive per second: rate x mean service time. From 1 on a queue grows for ever."""
    check_number(rate_per_s, "rate", "requests per second, 0 or more")
    return float(rate_per_s * np.mean(service_s))


def rate_queue(arrival_s, service_s):
    """Rate a trace's queue on one server.

    Parameters
    ----------
    arrival_s, service_s : (n,) array_like
        As in `queue_waits`.

    Returns
    -------
    dict
        `requests`; `load`, seconds of service per second between the first and the last arrival (None if there is no
        time between them); `grows`, whether that is 1 or more; `wait_mean` and `ttft_p50 ttft_p90 ttft_p99`, in
        seconds, None for a queue that grows: they would depend on how long the trace lasts; and `said`, a sentence
        about that, or None.

    Examples
    --------
    >>> rate_queue([0, 1, 2], [2, 2, 2])["said"]
    '3.00 seconds of prefill arrive per second: one replica cannot serve them, and its queue grows without bound'
    """
    waits, service_s = queue_waits(arrival_s, service_s), np.asarray(service_s, np.float64)
    span = float(np.ptp(arrival_s)) if len(waits) else 0.0
    load = float(service_s.sum()) / span if span else None
    grows = load is not None and load >= 1
    ttft = waits + service_s
    told = len(waits) and not grows
    return {
        "requests": len(waits), "load": load, "grows": grows, "wait_mean": float(waits.mean()) if told else None,
        **{f"ttft_p{rank}": float(np.percentile(ttft, rank)) if told else None for rank in PERCENTILES},
        "said": f"{load:.2f} seconds of prefill arrive per second: one replica cannot serve them, and its queue grows "
        "without bound" if grows else None,
    }  # fmt: skip
