"""What a routed replay comes to: hits, what routing lost, how even the work is, and how long users wait."""

import numpy as np

from kvprefix.stats.queue import PERCENTILES, queue_waits


def rate_routed(blocks, routed, replicas, time_prefill, *, looked_up=None):
    """Rate a routed replay; no number of these should be read alone.

    Parameters
    ----------
    blocks : PrefixTrace
    routed : Routed
    replicas : int
    time_prefill : callable
        ``time_prefill(cached, prompt)`` returns the seconds of prefills, as `models.prefill.prefill_seconds`.
    looked_up : (n_requests,) ndarray of int64, optional
        As in `replay.route_requests`.

    Returns
    -------
    dict
        `hit_tokens`; `token_hit`, their share of the prompt tokens; `routing_loss`, the share that another replica held
        at that moment; `captured`, the share of what any replica held that was hit; and what `rate_work` returns. What
        does not exist is None.
    """
    hit, held = (count_tokens(blocks, one, looked_up) for one in (routed.hits, routed.anywhere))
    prompt = blocks.prompt_tokens.sum()
    return {
        "hit_tokens": int(hit.sum()), "token_hit": _share(hit.sum(), prompt),
        "routing_loss": _share(held.sum() - hit.sum(), prompt), "captured": _share(hit.sum(), held.sum()),
        **rate_work(
            blocks.arrival_s, time_prefill(hit, blocks.prompt_tokens), blocks.prompt_tokens - hit, routed.places,
            replicas,
        ),
    }  # fmt: skip


def rate_work(arrival_s, service_s, computed, places, replicas):
    """Rate how the work is spread over replicas, and how long users wait for it.

    Parameters
    ----------
    arrival_s, service_s : (n_requests,) ndarrays of float64
        Seconds; how long each request keeps its replica.
    computed : (n_requests,) ndarray of int64
        Tokens that are computed for each.
    places : (n_requests,) ndarray of int64
        The replica of each.
    replicas : int

    Returns
    -------
    dict
        `imbalance_computed`, the computed tokens of the busiest replica over the mean; `max_share_requests`, the
        largest share of requests that one replica got; `ttft_mean ttft_p50 ttft_p90 ttft_p99 wait_mean`, seconds of a
        queue per replica, first come, first served; `busiest_load`, seconds of service per second on the busiest
        replica, while the middle half of the requests arrives: above 1 its queue grows as long as such traffic lasts.
    """
    n, wait_s = len(arrival_s), queue_waits(arrival_s, service_s, places)
    ttft_s, steady = wait_s + service_s, find_steady(arrival_s)
    spread = np.percentile(ttft_s, PERCENTILES) if n else [np.nan] * len(PERCENTILES)
    by_replica = np.bincount(places, computed, replicas)
    work_s = np.bincount(places[steady], service_s[steady], replicas)
    return {
        "imbalance_computed": _share(by_replica.max(), by_replica.mean()),
        "max_share_requests": _share(np.bincount(places, minlength=1).max(), n),
        "ttft_mean": _share(ttft_s.sum(), n),
        **{f"ttft_p{rank}": _share(value, 1) for rank, value in zip(PERCENTILES, spread, strict=True)},
        "wait_mean": _share(wait_s.sum(), n),
        "busiest_load": _share(work_s.max(), np.ptp(arrival_s[steady]) if n else 0),
    }  # fmt: skip


def find_steady(arrival_s):
    """Return the middle half of the requests, a slice: while they arrive a trace neither sets in nor ends."""
    return slice(len(arrival_s) // 4, len(arrival_s) - len(arrival_s) // 4)


def count_tokens(blocks, hits, looked_up=None):
    """Return the tokens that leading hit blocks of prompts save, (n_requests,) int64; see `PrefixTrace.hit_tokens`."""
    looked_up = blocks.blocks if looked_up is None else looked_up
    is_all = (hits == looked_up) & (hits > 0)
    return hits * blocks.block_size - np.where(is_all, blocks.block_size - blocks.last_weight, 0)


def _share(part, whole):
    """Return a quotient as a float, None if there is none."""
    found = float(part) / float(whole) if whole else np.nan
    return None if np.isnan(found) else found
