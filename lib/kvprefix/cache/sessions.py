"""The hit rates of sessions, one by one: what a mean over all requests hides."""

import numpy as np

from kvprefix.cache.curve import count_seen, first_counted

QUANTILES = {"p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95}


def rate_each(accesses, hit_tokens, start=0):
    """Return the token hit rate of each session that has prompt tokens, as a float64 array.

    Parameters
    ----------
    accesses : PrefixTrace
        A session is its `conversation`.
    hit_tokens : (n_requests,) ndarray of int64
    start : int
        The first request that counts.
    """
    _, session = np.unique(accesses.conversation[start:], return_inverse=True)
    hits, tokens = (np.bincount(session, one[start:]) for one in (hit_tokens, accesses.prompt_tokens))
    return hits[tokens > 0] / tokens[tokens > 0]


def rate_sessions(accesses, *, warmup=0.0):
    """Summarise the token hit rates that a cache that never evicts gives the sessions.

    Parameters
    ----------
    accesses : PrefixTrace
    warmup : float
        The share of the requests that are not counted.

    Returns
    -------
    dict or None
        `n`, how many sessions have prompt tokens among the counted requests, and of their rates `mean min p5 p25 median
        p75 p95 max`; None if each request is a session.
    """
    if len(np.unique(accesses.conversation)) == len(accesses):
        return None
    hits = accesses.hit_tokens(count_seen(accesses.ids, accesses.offsets))
    rates = rate_each(accesses, hits, first_counted(accesses, warmup))
    if not len(rates):
        return None
    spread = dict(zip(QUANTILES, np.percentile(rates, list(QUANTILES.values())).tolist(), strict=True))
    ends = {"mean": float(rates.mean()), "min": float(rates.min())}
    return {"n": len(rates), **ends, **spread, "max": float(rates.max())}
