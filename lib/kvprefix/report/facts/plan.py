"""Facts of a plan: the pool, the choice, the routers, the next step, what DRAM is worth, and other assumptions."""

import math

import pandas as pd

from kvprefix.plan.choose import MORE_DRAM, gain_throughput, select_different
from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.words import say_plainly

SENTENCES = ("plan_pool", "plan_choice", "plan_routers", "plan_next", "plan_dram", "plan_loading", "plan_varied")
_CELL = (
    "replicas", "router", "dram_gib", "token", "low", "high", "computed_per_s", "ttft_p50", "ttft_p90", "ttft_p99",
    "busiest_load", "gpu_load", "imbalance_computed", "max_share_requests", "routing_loss", "captured", "usd_per_hour",
)  # fmt: skip


def say_plans(plans):
    """Return what a plan comes to, for a terminal: a paragraph per question."""
    return "\n\n".join(say_plainly(f"{name}.md", facts) for name, facts in list_facts(plans).items())


def list_facts(plans):
    """Return the facts of each of SENTENCES, by the name of its template."""
    made = (facts_pool, facts_choice, facts_routers, facts_next, facts_dram, facts_loading, facts_varied)
    return dict(zip(SENTENCES, (one(plans) for one in made), strict=True))


@gives_facts
def facts_grid(plans):
    """Return all plans, for comparisons: one replica is the same behind any router."""
    rows = [_tell(row) for _, row in select_different(plans.table).iterrows()]
    return {"plans": [one | {"router": "any"} if one["is_any"] else one for one in rows]}


@gives_facts
def facts_pool(plans):
    """Return what the cards of a replica leave for blocks."""
    pool, setup = plans.pool, plans.setup
    return {
        "model": setup.model.name, "gpu": setup.card.name, "gpus": pool.gpus, "blocks": pool.blocks,
        "block_size": pool.block_size, "groups": pool.groups, "tokens": pool.tokens, "gib": pool.gib,
        "weights_gib": pool.weights_bytes * pool.gpus / 2**30,
        "memory_gib": pool.gpus * setup.card.memory_bytes / 2**30,
        "running_tokens": plans.traffic["running_tokens"],
    }  # fmt: skip


@gives_facts
def facts_choice(plans):
    """Return the plan that is chosen; if none is, the one that comes nearest."""
    setup, base = plans.setup, plans.base
    own_s = plans.table[f"own_p{setup.slo_percentile}"].min()  # without any wait
    return {
        "gpu": setup.card.name, "gpus": setup.gpus_per_replica, "model": setup.model.name,
        "slo_ttft": setup.slo_ttft, "slo_share": setup.slo_percentile / 100, "slo_percentile": setup.slo_percentile,
        "ttft": base[f"ttft_p{setup.slo_percentile}"], "is_met": plans.best is not None,
        "chosen": None if plans.best is None else _tell(base),
        "alone_s": own_s if plans.best is None and own_s > setup.slo_ttft else None,
        "decoding_replicas": math.ceil(base["replicas"] * base["gpu_load"]) if base["gpu_load"] > 1 else None,
        "is_engine": plans.is_engine, "compared": len(select_different(plans.table)), **_tell(base),
        "requests_per_s": plans.traffic["requests_per_s"], "seeds": len(plans.seeds),
        "prefill_share": setup.prefill_share, "throughput_gain": gain_throughput(base, setup),
        "most_dram": max(setup.tiers),
    }  # fmt: skip


@gives_facts
def facts_routers(plans):
    """Return what routers decide: with the most replicas, without a second tier."""
    table = plans.table
    rows = table[(table["replicas"] == table["replicas"].max()) & (table["dram_gib"] == 0)]
    time = f"ttft_p{plans.setup.slo_percentile}"
    known = rows.dropna(subset=time)
    alone = rows[rows["max_share_requests"] > 0.99]
    return {
        "replicas": int(rows["replicas"].iloc[0]), "routers": len(rows), "slo_percentile": plans.setup.slo_percentile,
        "most": _tell(rows.loc[rows["token"].idxmax()]), "fewest": _tell(rows.loc[rows["token"].idxmin()]),
        "quickest": _tell(known.loc[known[time].idxmin()]) | {"ttft": known[time].min()} if len(known) else None,
        "loser": _tell(rows.loc[rows["routing_loss"].idxmax()]),
        "most_ttft": rows.loc[rows["token"].idxmax(), time],
        "alone": list(alone["router"]) if rows["replicas"].iloc[0] > 1 else [],
    }  # fmt: skip


@gives_facts
def facts_next(plans):
    """Return what one replica more, and more DRAM, are worth."""
    gpu, dram = plans.next_gpu, plans.next_dram
    costs = gpu["usd_cost"], dram["usd_cost"]
    per_usd = None
    if None not in costs and min(costs) > 0:  # prices are known
        per_usd = {"gpu": gpu["points"] / costs[0], "dram": dram["points"] / costs[1]}
    return {
        "gpu": gpu, "dram": dram, "gpus": plans.setup.gpus_per_replica, "card": plans.setup.card.name,
        "gib": MORE_DRAM, "per_usd": per_usd, "replicas": int(plans.base["replicas"]),
        "slo_percentile": plans.setup.slo_percentile, "dram_gib": plans.base["dram_gib"],
    }  # fmt: skip


@gives_facts
def facts_dram(plans):
    """Return from which size on DRAM helps, up to which it pays, and when loading is faster than computing."""
    rows, setup = plans.dram, plans.setup
    none = plans.without_dram
    helps = rows[rows["token"] - none >= 0.001]
    pays = rows[rows["pays"]]
    return {
        "pool_gib": plans.pool.gib, "gpus": plans.pool.gpus, "price": setup.dram_price,
        "without": none, "helps": helps["dram_gib"].min() if len(helps) else None,
        "pays_to": pays["dram_gib"].max() if len(pays) else None,
        "most": None if rows["usd_per_gib_hour"].isna().all() else rows["usd_per_gib_hour"].max(),
        "largest": _tell_size(rows.iloc[-1]) if len(rows) else None,
        "enough": _tell_size(rows[rows["token"] >= rows["token"].max() - 0.001].iloc[0]) if len(rows) else None,
    }  # fmt: skip


@gives_facts
def facts_loading(plans):
    """Return from which bandwidth on loading a prefix is faster than computing it."""
    slow, setup = plans.break_even[~plans.break_even["pays"]], plans.setup
    return {
        "bandwidth": setup.load_gib_per_s * setup.gpus_per_replica,
        "loads": [{"tokens": one.tokens, "gib_per_s": one.gib_per_s} for one in plans.break_even.itertuples()
                  if one.tokens in (1024, 131072)],
        "slow": list(slow["tokens"]),
    }  # fmt: skip


@gives_facts
def facts_varied(plans):
    """Return which assumptions, if they were others, would change the choice."""
    first, *others = plans.varied.to_dict("records")
    places = ("replicas", "dram_gib")
    changed = [one for one in others if any(_differ(one[name], first[name]) for name in places)]
    return {
        "varied": len(others), "is_met": pd.notna(first["replicas"]), "is_met_on_all": plans.best is not None,
        "changed": [{name: one[name] for name in ("assumption", "replicas", "dram_gib", "usd_per_hour")}
                    for one in changed],
        "ttft_least": plans.varied["ttft"].min(), "ttft_most": plans.varied["ttft"].max(),
        "token_least": plans.varied["token"].min(), "token_most": plans.varied["token"].max(),
        "slo_percentile": plans.setup.slo_percentile, "gpu": plans.setup.card.name,
        "gpus": plans.setup.gpus_per_replica,
    }  # fmt: skip


def _tell(row):
    return {name: row[name] for name in _CELL} | {"is_any": row["replicas"] == 1}


def _tell_size(row):
    return {name: row[name] for name in ("dram_gib", "token")}


def _differ(one, other):
    return pd.isna(one) != pd.isna(other) or (not pd.isna(one) and one != other)
