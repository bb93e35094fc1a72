"""Replicas behind several routers, beside each other and beside one cache of their size: what `route` shows."""

from dataclasses import replace
from functools import partial

import numpy as np

from kvprefix.cache.cluster.rates import rate_routed
from kvprefix.cache.cluster.replay import SERVICE, Service, route_requests
from kvprefix.cache.cluster.routers import check_replicas, find_router
from kvprefix.cache.replay import check_capacity
from kvprefix.explain.walks import cut_blocks
from kvprefix.files.paths import InputError
from kvprefix.models.cards import load_card
from kvprefix.models.memory import load_model
from kvprefix.models.prefill import prefill_seconds

POOLED = ("hit_tokens", "token_hit", "routing_loss", "imbalance_computed", "max_share_requests")
SERVICE_NAMES = "ttft_s", "time_per_output_token_s"  # the parameters of a Service
NO_SESSIONS = "conversations are not known: each request is one of its own"
_COLUMNS = {
    "token_hit": "token hit rate", "routing_loss": "lost to routing", "captured": "captured",
    "imbalance_computed": "imbalance", "max_share_requests": "largest share", "ttft_p50": "TTFT p50 (s)",
    "ttft_p90": "p90 (s)", "ttft_p99": "p99 (s)",
}  # fmt: skip
_SHARES = {"token_hit", "routing_loss", "captured", "max_share_requests"}


def list_accesses(data, *, outputs=False):
    """Return what the replicas see of the data.

    Parameters
    ----------
    data : Explained
    outputs : bool
        Whether generated tokens are cached.

    Returns
    -------
    PrefixTrace, (n_requests,) ndarray of int64
        The block accesses, and how many of each request's are its prompt's.

    Raises
    ------
    InputError
        `outputs` of a trace of block ids.
    """
    if not data.has_tokens:
        if outputs:
            raise InputError("--outputs-cached: the tokens of replies are not known; the data list block ids")
        return data.trace, data.trace.blocks
    if outputs:
        blocks = cut_blocks(data.walks, data.trace, data.block_size, outputs=True).list_blocks()
    else:
        blocks = data.trace.blocks(data.block_size)
    tokens = data.trace.column("output_tokens") if data.trace.has("output_tokens") else None
    looked_up = blocks.prompt_tokens // data.block_size
    return replace(blocks, output_tokens=tokens, conversation=data.conversation), looked_up


def measure_routers(
    blocks, capacity, replicas, routers, *, looked_up=None, seed=0, service=SERVICE, time_prefill=None
):
    """Rate replicas behind each of several routers, and one cache of their size.

    Parameters
    ----------
    blocks : PrefixTrace
    capacity : int or None
        Blocks of each replica; None if nothing is evicted.
    replicas : int
    routers : sequence of str or Router
    looked_up, seed, service
        As in `cache.cluster.replay.route_requests`.
    time_prefill : callable, optional
        As in `rate_routed`; of Llama-3.1-8B on one H100 if not given, half of its FLOPS in use, and 0.02 s besides.

    Returns
    -------
    dict
        `routers`, by name, each what `rate_routed` returns; `pooled`, that of one cache, without times; `left_out`, the
        reason by router; `notes`.

    Raises
    ------
    InputError
        As `route_requests`; or if the only router needs conversations, and none are known.
    """
    found = {one.name: one for one in map(find_router, routers)}
    time_prefill = time_prefill or partial(
        prefill_seconds, model=load_model("Llama-3.1-8B"), card=load_card("H100-80G"), fixed_s=0.02
    )
    replicas, capacity = check_replicas(replicas), capacity if capacity is None else check_capacity(capacity)
    alone = len(blocks) > 1 and len(np.unique(blocks.conversation)) == len(blocks)
    left_out = {name: NO_SESSIONS for name, one in found.items() if one.by_session and alone}
    if len(left_out) == len(found):
        raise InputError(f"router {', '.join(found)}: {NO_SESSIONS}")
    options = {"looked_up": looked_up, "seed": seed, "service": service}
    rates = {}
    for name, router in found.items():
        if name not in left_out:
            routed = route_requests(blocks, capacity, router, replicas, **options)
            rates[name] = rate_routed(blocks, routed, replicas, time_prefill, looked_up=looked_up)
    pool = route_requests(blocks, capacity and capacity * replicas, "rr", 1, **options)
    pooled = rate_routed(blocks, pool, 1, time_prefill, looked_up=looked_up)
    notes = [f"router {name} is left out: {why}" for name, why in left_out.items()]
    if blocks.output_tokens is None and not (blocks.finish_s > blocks.arrival_s).any():
        notes.append("neither replies nor finishes are known: each request counts as outstanding for the TTFT alone")
    overloaded = [f"{name} {one['busiest_load']:.2f}" for name, one in rates.items() if (one["busiest_load"] or 0) > 1]
    if overloaded:
        notes.append(
            f"the busiest replica gets more than a second of prefill per second ({', '.join(overloaded)}): its queue "
            "grows as long as the trace lasts, and so do these TTFT"
        )
    return {"routers": rates, "pooled": {name: pooled[name] for name in POOLED}, "left_out": left_out, "notes": notes}


def read_service(parameters):
    """Return the Service of a command's parameters, those named in SERVICE_NAMES."""
    return Service(*(getattr(parameters, name) for name in SERVICE_NAMES))


def format_routers(found):
    """Return what `measure_routers` returns as text: a Markdown table, and one cache of the same size below it."""
    from tabulate import tabulate  # takes a tenth of a second

    rows = [[name, *(_show(one[key], key) for key in _COLUMNS)] for name, one in found["routers"].items()]
    pooled = found["pooled"]
    rows.append(["one cache of their size", *(_show(pooled.get(key), key) for key in _COLUMNS)])
    align = ["left", *["right"] * len(_COLUMNS)]
    return tabulate(rows, ["router", *_COLUMNS.values()], "pipe", disable_numparse=True, colalign=align)


def _show(value, key):
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if key in _SHARES else f"{value:.3f}"
