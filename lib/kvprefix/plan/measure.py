"""Measure a plan: what so many replicas behind a router, with or without a second tier, do with given traffic."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from kvprefix.cache.cluster.rates import count_tokens, rate_work
from kvprefix.cache.cluster.replay import route_requests
from kvprefix.cache.tiers import offload_behind
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.stats.queue import PERCENTILES

TIMES = tuple(f"ttft_p{rank}" for rank in PERCENTILES)


class Cell(NamedTuple):
    """A plan to measure: replicas, the name of a router, GiB of DRAM per replica."""

    replicas: int
    router: str
    dram_gib: float = 0.0


def measure_cells(traffic, setup, replicas, routers, tiers, *, with_intervals=True):
    """Measure plans of one number of replicas.

    Parameters
    ----------
    traffic : Traffic
    setup : Setup
    replicas : int
    routers : sequence of str
    tiers : sequence of float
        GiB of DRAM per replica, 0 for none.
    with_intervals : bool
        Whether conversations are resampled.

    Returns
    -------
    pandas.DataFrame
        A row per router and tier: `replicas`, `router`, `dram_gib`; `hit_tokens`, `token` (their share of the prompt
        tokens), `low` and `high` (its 95 % interval over resampled conversations, else NaN), `hbm_token` (of the first
        tier alone); `routing_loss` (the share that another replica's first tier held) and `captured` (the share of what
        any held that was hit); `computed_per_s` (tokens that
        are computed per second, of all replicas); `gpu_s_per_hour` (GPU-seconds of prefill and loading); `gpu_load`
        (the share of the time that all cards are busy with these and with decoding, by the assumed prefill share);
        `imbalance_computed`, `max_share_requests`, `busiest_load`; `ttft_p50 ttft_p90 ttft_p99`, NaN if the busiest
        replica gets a second of work per second or more: its queue grows without bound; `never_fit`, prompts larger
        than the pool, which are refused; `usd_per_hour`, NaN without a price.

    Notes
    -----
    A router places the requests by LRU caches of the pool's size. Then each replica's hits are those of vLLM's replay
    of its requests, one at a time and with replies cached; of a trace of block ids, those of LRU. The second tier
    follows vLLM's offloading connector (`cache.tiers`). Rates per second are of the middle half of the requests.
    """
    rows, hits = [], []
    for router in routers:
        routed, first, parts, refused = _serve(traffic, setup, router, replicas)
        held = count_tokens(traffic.blocks, routed.anywhere, traffic.looked_up)
        own, total = count_tokens(traffic.blocks, routed.hits, traffic.looked_up), max(traffic.prompts.sum(), 1)
        fate = {
            "routing_loss": float(held.sum() - own.sum()) / total, "never_fit": int(refused.sum()),
            "captured": float(own.sum()) / held.sum() if held.any() else np.nan,
        }  # fmt: skip
        for gib in tiers:
            hit = np.where(refused, 0, _look_below(traffic, setup, parts, first, gib))
            row = _rate(traffic, setup, Cell(replicas, router, gib), (routed.places, ~refused), (first, hit))
            rows.append(row | fate)
            hits.append(hit)
    frame = pd.DataFrame(rows)
    frame["low"] = frame["high"] = np.nan
    if with_intervals and len(traffic):
        draws = bootstrap_rates(np.column_stack(hits), traffic.prompts, traffic.blocks.conversation)
        frame["low"], frame["high"] = interval(draws)
    return frame


def _serve(traffic, setup, router, replicas):
    """Return the Routed, cached tokens of the first tier, the requests of each replica, and which prompts never fit."""
    blocks, pool = traffic.blocks, setup.pool(find_block_size(traffic))
    pool = pool._replace(blocks=max(int(pool.blocks * setup.pool_share), 2))
    capacity = max(pool.tokens // blocks.block_size, 1)
    routed = route_requests(
        blocks, capacity, router, replicas, looked_up=traffic.looked_up, seed=traffic.seed, service=traffic.service
    )
    first, parts = count_tokens(blocks, routed.hits, traffic.looked_up), []
    for replica in range(replicas):
        some = np.flatnonzero(routed.places == replica)
        parts.append((some, traffic.select(some)))
    if traffic.trace is None:
        first[traffic.prompts > pool.tokens] = -1
    else:
        groups = setup.groups(pool.block_size)
        for some, part in parts:
            first[some] = part.replay_engine(groups, pool)
    return routed, np.maximum(first, 0), parts, first < 0


def find_block_size(traffic):
    """Return the size of an engine's blocks: the trace's own if tokens are known, else vLLM's usual one."""
    return 16 if traffic.trace is None else traffic.blocks.block_size


def _look_below(traffic, setup, parts, first, gib):
    """Return the cached tokens of both tiers together, (n_requests,) int64."""
    size, hit = traffic.blocks.block_size, first.copy()
    capacity = setup.count_blocks(gib, size)
    if not capacity:
        return hit
    for some, part in parts:
        below = offload_behind(part.blocks, first[some] // size, capacity, part.looked_up)
        hit[some] = np.maximum(count_tokens(part.blocks, below, part.looked_up), first[some])
    return hit


def _rate(traffic, setup, cell, sent, hits):
    """Return the row of one plan; `sent` are the places of the requests, and which are served."""
    (places, served), (first, hit) = sent, hits
    computed = np.where(served, traffic.prompts - hit, 0)
    service_s = setup.time_prefill(hit, traffic.prompts) + setup.time_loading(hit - first)
    arrays = (traffic.blocks.arrival_s, service_s, computed, places)
    work = rate_work(*(one[served] for one in arrays), cell.replicas)
    total, grows = max(int(traffic.prompts.sum()), 1), (work["busiest_load"] or 0) >= 1
    per_s = traffic.rate_per_s(np.where(served, service_s, 0))
    whole_s = traffic.rate_per_s(np.where(served, setup.time_prefill(0 * hit, traffic.prompts), 0))
    decode_s = None if whole_s is None else whole_s * (1 - setup.prefill_share) / setup.prefill_share
    return cell._asdict() | {
        "hit_tokens": int(hit.sum()), "token": hit.sum() / total, "hbm_token": first.sum() / total,
        "computed_per_s": _or_nan(traffic.rate_per_s(computed)),
        "gpu_s_per_hour": np.nan if per_s is None else 3600 * per_s * setup.gpus_per_replica,
        "gpu_load": np.nan if per_s is None else (per_s + decode_s) / cell.replicas,
        **{name: _or_nan(work[name]) for name in ("imbalance_computed", "max_share_requests", "busiest_load")},
        **{name: np.nan if grows else _or_nan(work[name]) for name in TIMES},
        "usd_per_hour": np.nan if setup.card.usd_per_hour is None else setup.price(cell.replicas, cell.dram_gib),
    }  # fmt: skip


def _or_nan(value):
    return np.nan if value is None else value
