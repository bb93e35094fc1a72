"""Measure a plan: what so many replicas behind a router, with or without a second tier, do with given traffic."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from kvprefix.cache.cluster.rates import count_tokens, rate_work
from kvprefix.cache.cluster.replay import Routed, route_requests
from kvprefix.cache.tiers import offload_behind
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.stats.queue import PERCENTILES

TIMES = tuple(f"ttft_p{rank}" for rank in PERCENTILES)
OWN_TIMES = tuple(f"own_p{rank}" for rank in PERCENTILES)


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
        any held that was hit); `computed_per_s` (tokens that are computed per second, of all replicas);
        `gpu_s_per_hour` (GPU-seconds of prefill and loading); `gpu_load` (the share of the time that all cards are busy
        with these and with decoding, by the assumed prefill share);
        `imbalance_computed`, `max_share_requests`, `busiest_load`; `ttft_p50 ttft_p90 ttft_p99`, NaN if the busiest
        replica gets a second of work per second or more: its queue grows without bound; `own_p50 own_p90 own_p99`,
        seconds of prefill and loading alone, without any wait, NaN without requests; `never_fit`, prompts that a
        replica's pool cannot hold, which a server refuses: they count nowhere else; `refused`, their share of the
        requests; `gib`, of all pools and second tiers; `usd_per_hour`, NaN without a price.

    Notes
    -----
    A router places the requests by LRU caches of the pool's size. Then each replica's hits are those of vLLM's replay
    of its requests, one at a time and with replies cached; of a trace of block ids, those of LRU. The second tier
    follows vLLM's offloading connector (`cache.tiers`); below a hybrid model it keeps whole units of all groups, which
    is more than vLLM does. Rates per second are of the middle half of the requests.
    """
    some = routers[:1] if replicas == 1 else routers  # in front of one replica all are the same
    frames = [_measure_router(traffic, setup, router, replicas, tiers, with_intervals) for router in some]
    if replicas == 1:
        frames = [frames[0].assign(router=router) for router in routers]
    return pd.concat(frames, ignore_index=True)


def _measure_router(traffic, setup, router, replicas, tiers, with_intervals):
    """Return the rows of one router."""
    served, routed, first = _serve(traffic, setup, router, replicas)
    unit = 1 if served.trace is None else setup.find_unit(served.blocks.block_size)
    held, own = (_count(served, one, unit) for one in (routed.anywhere, routed.hits))
    fate = {
        "routing_loss": float(held.sum() - own.sum()) / max(served.prompts.sum(), 1),
        "captured": float(own.sum()) / held.sum() if held.any() else np.nan,
        "never_fit": len(traffic) - len(served), "refused": 1 - len(served) / max(len(traffic), 1),
    }  # fmt: skip
    above = routed.hits if served.trace is None else first // served.blocks.block_size  # the same, in blocks
    parts, rows, hits = [(some, served.select(some)) for some in _split(routed.places, replicas)], [], []
    for gib in tiers:
        hits.append(_look_below(served, setup, parts, (first, above, unit), gib))
        rows.append(_rate(served, setup, Cell(replicas, router, gib), routed.places, (first, hits[-1])) | fate)
    low = high = np.nan
    if with_intervals and len(served):
        low, high = interval(bootstrap_rates(np.column_stack(hits), served.prompts, served.blocks.conversation))
    return pd.DataFrame(rows).assign(low=low, high=high)


def _serve(traffic, setup, router, replicas):
    """Return the Traffic whose prompts fit, its Routed, and the cached tokens of the first tier."""
    pool = setup.pool(find_block_size(traffic))
    pool = pool._replace(blocks=max(int(pool.blocks * setup.pool_share), 2))
    if traffic.trace is None:
        traffic = traffic.select(np.flatnonzero(traffic.prompts <= pool.tokens))
    blocks, looked_up = traffic.blocks, traffic.looked_up
    capacity = max(pool.tokens // blocks.block_size, 1)
    routed = route_requests(
        blocks, capacity, router, replicas, looked_up=looked_up, seed=traffic.seed, service=traffic.service
    )
    first = count_tokens(blocks, routed.hits, looked_up)
    if traffic.trace is None:
        return traffic, routed, first
    groups = setup.groups(pool.block_size)
    for some in _split(routed.places, replicas):
        first[some] = traffic.replay_engine(some, groups, pool)
    fits = np.flatnonzero(first >= 0)
    return traffic.select(fits), Routed(*(one[fits] for one in routed)), first[fits]


def _split(places, replicas):
    """Return the requests of each replica."""
    return [np.flatnonzero(places == replica) for replica in range(replicas)]


def find_block_size(traffic):
    """Return the size of an engine's blocks: the trace's own if tokens are known, else vLLM's usual one."""
    return 16 if traffic.trace is None else traffic.blocks.block_size


def _count(traffic, hits, unit):
    """Return the tokens of leading hit blocks, whole units of them."""
    return count_tokens(traffic.blocks, hits, traffic.looked_up) // unit * unit


def _look_below(served, setup, parts, above, gib):
    """Return the cached tokens of both tiers together, (n_requests,) int64.

    `above` are the first tier's tokens, the same in blocks, and the unit of hits.
    """
    first, blocks, unit = above
    hit = first.copy()
    capacity = setup.count_blocks(gib, served.blocks.block_size)
    if not capacity:
        return hit
    for some, part in parts:
        below = offload_behind(part.blocks, blocks[some], capacity, part.looked_up)
        hit[some] = np.maximum(_count(part, below, unit), first[some])
    return hit


def _rate(traffic, setup, cell, places, hits):
    """Return the row of one plan."""
    first, hit = hits
    computed = traffic.prompts - hit
    service_s = setup.time_prefill(hit, traffic.prompts) + setup.time_loading(hit - first)
    work = rate_work(traffic.blocks.arrival_s, service_s, computed, places, cell.replicas)
    nothing = [np.nan] * len(PERCENTILES)
    total, grows = max(int(traffic.prompts.sum()), 1), (work["busiest_load"] or 0) >= 1
    per_s, whole_s = (traffic.rate_per_s(one) for one in (service_s, setup.time_prefill(0 * hit, traffic.prompts)))
    decode_s = None if per_s is None else whole_s * (1 - setup.prefill_share) / setup.prefill_share
    return cell._asdict() | {
        "hit_tokens": int(hit.sum()), "token": hit.sum() / total, "hbm_token": first.sum() / total,
        "computed_per_s": _or_nan(traffic.rate_per_s(computed)),
        "gpu_s_per_hour": np.nan if per_s is None else 3600 * per_s * setup.gpus_per_replica,
        "gpu_load": np.nan if per_s is None else (per_s + decode_s) / cell.replicas,
        **{name: _or_nan(work[name]) for name in ("imbalance_computed", "max_share_requests", "busiest_load")},
        **{name: np.nan if grows else _or_nan(work[name]) for name in TIMES},
        **dict(zip(OWN_TIMES, np.percentile(service_s, PERCENTILES) if len(service_s) else nothing, strict=True)),
        "gib": cell.replicas * (setup.pool(find_block_size(traffic)).gib + cell.dram_gib),
        "usd_per_hour": np.nan if setup.card.usd_per_hour is None else setup.price(cell.replicas, cell.dram_gib),
    }  # fmt: skip


def _or_nan(value):
    return np.nan if value is None else value
