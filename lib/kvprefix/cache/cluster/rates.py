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
        at that moment; `captured`, the share of what any replica held that was hit; `imbalance_computed`, the computed
        tokens of the busiest replica over the mean; `max_share_requests`, the largest share of requests that one
        replica got; `ttft_mean ttft_p50 ttft_p90 ttft_p99 wait_mean`, seconds of a queue per replica, first come, first
        served; `busiest_load`, seconds of prefill per second on the busiest replica: above 1 its queue grows as long as
        the trace lasts. What does not exist is None.
    """
    hit, held = (count_tokens(blocks, one, looked_up) for one in (routed.hits, routed.anywhere))
    computed = np.bincount(routed.places, blocks.prompt_tokens - hit, replicas)
    service_s = time_prefill(hit, blocks.prompt_tokens)
    wait_s = queue_waits(blocks.arrival_s, service_s, routed.places)
    ttft_s, prompt = wait_s + service_s, blocks.prompt_tokens.sum()
    span_s = float(np.ptp(blocks.arrival_s)) if len(blocks) else 0.0
    spread = np.percentile(ttft_s, PERCENTILES) if len(blocks) else [np.nan] * len(PERCENTILES)
    rates = {
        "hit_tokens": int(hit.sum()), "token_hit": _share(hit.sum(), prompt),
        "routing_loss": _share(held.sum() - hit.sum(), prompt), "captured": _share(hit.sum(), held.sum()),
        "imbalance_computed": _share(computed.max(), computed.mean()),
        "max_share_requests": _share(np.bincount(routed.places, minlength=1).max(), len(blocks)),
        "ttft_mean": _share(ttft_s.sum(), len(blocks)),
        **{f"ttft_p{rank}": _share(value, 1) for rank, value in zip(PERCENTILES, spread, strict=True)},
        "wait_mean": _share(wait_s.sum(), len(blocks)),
        "busiest_load": _share(np.bincount(routed.places, service_s, replicas).max(), span_s),
    }  # fmt: skip
    return rates


def count_tokens(blocks, hits, looked_up=None):
    """Return the tokens that leading hit blocks of prompts save, (n_requests,) int64; see `PrefixTrace.hit_tokens`."""
    looked_up = blocks.blocks if looked_up is None else looked_up
    is_all = (hits == looked_up) & (hits > 0)
    return hits * blocks.block_size - np.where(is_all, blocks.block_size - blocks.last_weight, 0)


def _share(part, whole):
    """Return a quotient as a float, None if there is none."""
    found = float(part) / float(whole) if whole else np.nan
    return None if np.isnan(found) else found
