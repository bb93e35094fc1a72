"""Tables of a plan as readers see them, and their narrow forms."""

from dataclasses import replace

import numpy as np
import pandas as pd

from kvprefix.files.paths import InputError
from kvprefix.models.cards import list_cards, load_card
from kvprefix.plan.choose import MORE_DRAM
from kvprefix.plan.setup import list_assumptions
from kvprefix.report.facts.narrow import MOST_CAPACITIES, Estimate, say_notes, show_estimate
from kvprefix.report.tables import Narrow


def list_pools(plans):
    """Return what a replica's memory would hold on each known card: GiB of parts, and blocks (NaN if it does not fit).

    Those whose pool could not be computed, say for heads that so many ranks cannot divide, are all refused alike.
    """
    rows, setup = [], plans.setup
    for name in dict.fromkeys([setup.card.name, *list_cards()["card"]]):
        card = setup.card if name == setup.card.name else load_card(name)
        total = setup.gpus_per_replica * card.memory_bytes / 2**30
        try:
            pool = plans.pool if card == setup.card else replace(setup, gpu=name, gpu_price=None).pool()
        except InputError:
            pool = None
        kv = pool.gib if pool else 0.0
        weights = pool.weights_bytes * pool.gpus / 2**30 if pool else total
        rows.append({
            "card": name, "memory_gib": total, "weights_gib": weights, "engine_gib": total - weights - kv, "kv_gib": kv,
            "blocks": pool.blocks if pool else np.nan, "tokens": pool.tokens if pool else np.nan,
            "usd_per_hour": np.nan if card.usd_per_hour is None else card.usd_per_hour * setup.gpus_per_replica,
        })  # fmt: skip
    return pd.DataFrame(rows)


def tabulate_pools(rows):
    """Return `list_pools` as a reader sees it."""
    names = {
        "card": "card", "memory_gib": "memory (GiB)", "weights_gib": "weights (GiB)", "kv_gib": "KV blocks (GiB)",
        "blocks": "num-gpu-blocks", "tokens": "tokens", "usd_per_hour": "$ per hour",
    }  # fmt: skip
    shown = rows[list(names)].copy()
    shown.loc[rows["blocks"].isna(), ["weights_gib", "kv_gib"]] = np.nan
    return shown.rename(columns=names)


def list_steps(plans):
    """Return the next steps: `step`, `points`, `gpu_s_saved`, `usd_saved`, `usd_cost`, `ttft`, `computed_share`."""
    steps = {"one replica more": plans.next_gpu, f"{MORE_DRAM:,.0f} GiB of DRAM more": plans.next_dram}
    names = ("points", "gpu_s_saved", "usd_saved", "usd_cost", "ttft", "computed_share")
    rows = [{"step": step, **{name: one[name] for name in names}} for step, one in steps.items()]
    return pd.DataFrame(rows).astype(dict.fromkeys(names, float))


def tabulate_steps(rows, percentile):
    """Return `list_steps` as a reader sees it."""
    return rows.rename(columns={
        "points": "points of hits", "gpu_s_saved": "GPU-seconds saved per hour", "usd_saved": "saved ($ per hour)",
        "usd_cost": "cost ($ per hour)", "ttft": f"change of TTFT p{percentile} (s)",
        "computed_share": "computed tokens saved",
    })  # fmt: skip


def tabulate_routers(rows):
    """Return plans of one number of replicas, a router per row, as a reader sees them."""
    names = {
        "router": "router", "token": "token hit rate", "low": "95 % low", "high": "95 % high",
        "routing_loss": "lost to routing", "captured": "captured", "imbalance_computed": "imbalance",
        "max_share_requests": "largest share", "ttft_p50": "TTFT p50 (s)", "ttft_p90": "p90 (s)", "ttft_p99": "p99 (s)",
    }  # fmt: skip
    return rows[list(names)].rename(columns=names)


def tabulate_dram(rows):
    """Return `plan.choose.value_dram` as a reader sees it."""
    pays = rows["pays"].map({True: "yes", False: "no"}).where(rows["usd_per_gib_hour"].notna())
    return pd.DataFrame({
        "DRAM (GiB per replica)": rows["dram_gib"], "token hit rate": rows["token"], "95 % low": rows["low"],
        "95 % high": rows["high"], "GPU-seconds saved per GiB and hour": rows["gpu_s_per_gib_hour"],
        "$ saved per 1,000 GiB and hour": 1000 * rows["usd_per_gib_hour"], "pays": pays,
    })  # fmt: skip


def tabulate_break_even(rows):
    """Return `plan.choose.find_break_even` as a reader sees it."""
    return pd.DataFrame({
        "prefix (tokens)": rows["tokens"], "break-even (GiB/s)": rows["gib_per_s"],
        "DRAM is faster": rows["pays"].map({True: "yes", False: "no"}),
    })  # fmt: skip


def tabulate_varied(rows, percentile):
    """Return `Plans.varied` as a reader sees it."""
    return rows.drop(columns="router").rename(columns={
        "dram_gib": "DRAM (GiB)", "usd_per_hour": "$ per hour", "token": "token hit rate",
        "ttft": f"TTFT p{percentile} (s)",
    })  # fmt: skip


def tabulate_assumptions(plans):
    """Return the assumptions as a table: what, value, source, and the option that changes it."""
    found = list_assumptions(plans.setup)
    return pd.DataFrame({
        "assumption": [one.label for one in found], "value": [one.shown for one in found],
        "source": [one.source for one in found],
        "option": [f"--{one.name.replace('_', '-')}" for one in found],
    })  # fmt: skip


def narrow_pools(frame):
    """Narrow the table of cards: memory, blocks, tokens, price."""
    return Narrow(frame[["card", "memory (GiB)", "num-gpu-blocks", "tokens", "$ per hour"]], {
        "memory (GiB)": "{:,.1f}", "num-gpu-blocks": "{:,.0f}", "tokens": "{:,.0f}", "$ per hour": "{:,.2f}",
    })  # fmt: skip


def split_plans(rows):
    """Return the table of plans (`studies.plan_tables.tabulate_plans`) as two: what they give, and how work spreads."""
    whose, work = list(rows.columns[:3]), list(rows.columns[rows.columns.get_loc("lost to routing") :])
    return rows.drop(columns=work), rows[whose + work]


def narrow_plans(table):
    """Narrow the table of plans to a matrix of hits in percent without DRAM: a row per router, a column per replicas.

    `table` is that of `plan.choose.average_draws`.
    """
    rows = table[table["dram_gib"] == 0]
    sizes = np.sort(rows["replicas"].unique())
    kept = sizes[np.unique(np.linspace(0, len(sizes) - 1, MOST_CAPACITIES).round().astype(int))]
    made = pd.DataFrame({"router": rows["router"].unique()})
    for n in kept:
        one = rows[rows["replicas"] == n].set_index("router").loc[made["router"]]
        made[f"{n:,}"] = 100 * one["token"].to_numpy()
    return Narrow(made, dict.fromkeys(made.columns[1:], "{:.1f}"), say_notes(columns="replicas, without DRAM"))


def narrow_work(frame):
    """Narrow the table of how work spreads: what routing loses, and the load of the busiest."""
    names = [frame.columns[0], "router", "lost to routing", "imbalance", frame.columns[-2]]
    rows = frame[frame[frame.columns[2]] == 0][names]
    made = rows.rename(columns={"lost to routing": "lost (%)", names[-1]: "load"})
    return Narrow(made.assign(**{"lost (%)": 100 * made["lost (%)"]}), {
        "lost (%)": "{:.1f}", "imbalance": "{:.2f}", "load": "{:.2f}",
    })  # fmt: skip


def narrow_routers(frame):
    """Narrow the table of routers: hits, what routing loses, imbalance, the longest waits."""
    table = pd.DataFrame({
        "router": frame["router"], "hit (%)": 100 * frame["token hit rate"], "lost (%)": 100 * frame["lost to routing"],
        "imbalance": frame["imbalance"], "TTFT p99 (s)": frame["p99 (s)"],
    })  # fmt: skip
    formats = {"hit (%)": "{:.1f}", "lost (%)": "{:.1f}", "imbalance": "{:.2f}", "TTFT p99 (s)": "{:.3f}"}
    return Narrow(table, formats)


def narrow_steps(frame):
    """Narrow the table of next steps: points, dollars saved and their cost."""
    names = ["step", "points of hits", "saved ($ per hour)", "cost ($ per hour)"]
    formats = {"points of hits": "{:+.1f}", "saved ($ per hour)": "{:,.2f}", "cost ($ per hour)": "{:,.2f}"}
    return Narrow(frame[names], formats)


def narrow_dram(frame):
    """Narrow the table of DRAM by size: hits with their interval, what a GiB saves."""
    table = pd.DataFrame({
        "GiB": frame["DRAM (GiB per replica)"],
        "hit (%)": _estimate(frame, "token hit rate", "95 % low", "95 % high"),
        "$ per 1,000 GiB and h": frame["$ saved per 1,000 GiB and hour"], "pays": frame["pays"],
    })  # fmt: skip
    formats = {"GiB": "{:,.0f}", "hit (%)": show_estimate(".1f", 100), "$ per 1,000 GiB and h": "{:,.2f}"}
    return Narrow(table, formats, say_notes(interval="conversations"))


def narrow_varied(frame):
    """Narrow the table of other assumptions: what is chosen, what it hits."""
    table = pd.DataFrame({
        "assumption": frame["assumption"], "replicas": frame["replicas"], "DRAM (GiB)": frame["DRAM (GiB)"],
        "hit (%)": 100 * frame["token hit rate"], frame.columns[-1]: frame.iloc[:, -1],
    })  # fmt: skip
    formats = {"replicas": "{:.0f}", "DRAM (GiB)": "{:,.0f}", "hit (%)": "{:.1f}", table.columns[-1]: "{:.3f}"}
    return Narrow(table, formats)


def narrow_assumptions(frame):
    """Narrow the table of assumptions: what, value, option."""
    return Narrow(frame[["assumption", "value", "option"]])


def _estimate(frame, value, low, high):
    rows = frame[[value, low, high]].to_numpy()
    cells = [Estimate(row[0]) if np.isnan(row[1]) else Estimate(*row) for row in rows]
    return pd.Series([*cells, None], dtype=object)[:-1]
