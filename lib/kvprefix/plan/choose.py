"""Choose among measured plans, and say what the next replica and the next GiB of DRAM are worth."""

import numpy as np
import pandas as pd

from kvprefix.models.prefill import break_even_bandwidth, throughput_gain
from kvprefix.plan.measure import Cell
from kvprefix.stats.intervals import move_interval

KEYS = list(Cell._fields)
MORE_DRAM = 100.0  # GiB per replica, of the next step
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)  # tokens of a prefix that is loaded


def average_draws(frame):
    """Return measured plans as one row each: the mean over draws, the first draw's interval moved to it.

    A time is NaN if a queue grows in any draw.
    """
    numbers = [name for name in frame if name not in (*KEYS, "seed")]
    means = frame.groupby(KEYS, sort=False)[numbers].agg(lambda column: column.mean(skipna=False)).reset_index()
    first = frame.groupby(KEYS, sort=False)[["low", "high", "token"]].first().reset_index()
    means["low"], means["high"] = move_interval(first["low"], first["high"], first["token"], means["token"])
    return means


def select_different(table):
    """Return the plans that can differ: one replica is the same behind any router."""
    return table[~((table["replicas"] == 1) & table.duplicated(["replicas", "dram_gib"]))]


def choose_plan(table, setup):
    """Return the cheapest plan that keeps the aim, a row of `average_draws`; None if none does.

    A request that is refused has no first token: with more of them than the aim leaves a plan fails. Of equally
    cheap ones (as all are at a price of 0) those with the fewest replicas, and of these the one whose busiest replica
    has the least to do. Without a price the fewest replicas, then the least DRAM, count as cheapest.
    """
    able = _select_able(table, setup)
    if able.empty:
        return None
    order = ["usd_per_hour", "replicas"] if able["usd_per_hour"].notna().all() else ["replicas", "dram_gib"]
    return able.sort_values([*order, "busiest_load"], kind="stable").iloc[0]


def _select_able(table, setup):
    """Return the plans that keep the aim."""
    in_time = table[f"ttft_p{setup.slo_percentile}"] <= setup.slo_ttft
    return table[in_time & (table["refused"] <= 1 - setup.slo_percentile / 100)]


def find_idlest(table):
    """Return the plan whose busiest replica has the least to do, a row of `average_draws`."""
    return table.sort_values("busiest_load", kind="stable").iloc[0]


def find_nearest(table, setup):
    """Return the plan that comes nearest to the aim, a row of `average_draws`: the shortest time, else the idlest."""
    return table.sort_values([f"ttft_p{setup.slo_percentile}", "busiest_load"], kind="stable").iloc[0]


def find_worthiest(table, setup):
    """Return the plan that takes the least GPU time of those that keep the aim; the nearest if none does."""
    able = _select_able(table, setup)
    if able.empty or able["gpu_s_per_hour"].isna().all():
        return find_nearest(table, setup)
    return able.sort_values(["gpu_s_per_hour", "busiest_load"], kind="stable").iloc[0]


def compare_plans(before, after, setup):
    """Return what a step from one plan to another brings.

    Returns
    -------
    dict
        `replicas`, `router` and `dram_gib` of the plan after it; `points` (of token hit rate); `gpu_s_saved`
        (GPU-seconds of prefill and loading per hour), `usd_saved` (their price), `usd_cost` (what the step costs per
        hour) and `pays` (whether that is less); `ttft`, the change of the aim's percentile in seconds;
        `computed_share`, the share of the computed tokens that is saved. What does not exist is None.
    """
    saved, cost = before["gpu_s_per_hour"] - after["gpu_s_per_hour"], after["usd_per_hour"] - before["usd_per_hour"]
    price, time, computed = setup.card.usd_per_hour, f"ttft_p{setup.slo_percentile}", before["computed_per_s"]
    usd = np.nan if price is None else saved * price / 3600
    found = {
        "points": 100 * (after["token"] - before["token"]), "gpu_s_saved": saved, "usd_saved": usd, "usd_cost": cost,
        "ttft": after[time] - before[time],
        "computed_share": 1 - after["computed_per_s"] / computed if computed else np.nan,
    }  # fmt: skip
    found = {name: None if np.isnan(value) else float(value) for name, value in found.items()}
    return {
        "replicas": int(after["replicas"]), "router": str(after["router"]), "dram_gib": float(after["dram_gib"]),
        **found, "pays": None if None in (found["usd_saved"], found["usd_cost"]) else bool(usd > cost),
    }  # fmt: skip


def value_dram(rows, setup):
    """Return what DRAM is worth by its size.

    Parameters
    ----------
    rows : pandas.DataFrame
        Of `average_draws`: one number of replicas, one router, rising `dram_gib` from 0 on.
    setup : Setup

    Returns
    -------
    pandas.DataFrame
        `dram_gib` (per replica), `token`, `low`, `high`, `gpu_s_per_gib_hour` (GPU-seconds that each further GiB saves
        per hour, from the size before), `usd_per_gib_hour` (their price, NaN if none is known) and `pays` (whether it
        exceeds the price of a GiB).
    """
    none, some = rows.iloc[0], rows.iloc[1:]
    replicas, price = int(none["replicas"]), setup.card.usd_per_hour
    saved = (none["gpu_s_per_hour"] - some["gpu_s_per_hour"]).to_numpy()
    gib = some["dram_gib"].to_numpy() * replicas
    marginal = np.diff(saved, prepend=0.0) / np.diff(gib, prepend=0.0)  # below 0 if loading is slower than computing
    usd = np.full(len(some), np.nan) if price is None else marginal * price / 3600
    return pd.DataFrame({
        "dram_gib": some["dram_gib"].to_numpy(), **{name: some[name].to_numpy() for name in ("token", "low", "high")},
        "gpu_s_per_gib_hour": marginal, "usd_per_gib_hour": usd, "pays": usd > setup.dram_price,
    })  # fmt: skip


def find_break_even(setup, lengths=LENGTHS):
    """Return from which bandwidth on loading a prefix is faster than computing it.

    Returns
    -------
    pandas.DataFrame
        `tokens` and `gib_per_s`, of one replica; `pays`, whether DRAM's bandwidth is higher.
    """
    own = setup.load_gib_per_s * setup.gpus_per_replica
    known = setup.model, setup.card, setup.gpus_per_replica, setup.mfu
    rates = [break_even_bandwidth(n, *known, dtype=setup.weights_dtype) / 2**30 for n in lengths]
    return pd.DataFrame({"tokens": lengths, "gib_per_s": rates, "pays": [own > rate for rate in rates]})


def gain_throughput(plan, setup):
    """Return by how much throughput grows against no cache, for the prefill share that is assumed."""
    return throughput_gain(float(plan["token"]), setup.prefill_share)
