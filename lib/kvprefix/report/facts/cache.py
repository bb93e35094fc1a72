"""What the cache study found: facts and tables of capacities, reuse, block sizes and policies.

A difference counts only if its interval (conversations resampled, 95 %) excludes zero and every seed agrees.
"""

import numpy as np
import pandas as pd

from kvprefix.cache.hinted import DESCRIBED
from kvprefix.cache.policies import POLICIES, label_policy
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.models.memory import list_models, to_gib
from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.rounding import percent
from kvprefix.stats.intervals import judge_difference, move_interval
from kvprefix.studies.cache import ACCESS_BUDGET, BLOCK_SIZES, count_accesses, fit_sizes


def measure_spread(values):
    """Return the mean and the range of a measure over seeds, as `rounding.spread` shows them.

    >>> measure_spread([0.25, 0.5, 0.75])
    {'mean': 0.5, 'least': 0.25, 'most': 0.75}
    """
    return {"mean": float(np.mean(values)), "least": float(np.min(values)), "most": float(np.max(values))}


def tabulate_needs(needs, block_size, model):
    """Tabulate the capacity that reaches 50, 90, 95 and 99 % of the unbounded token hit rate."""
    rows = []
    for share, one in needs.groupby("share"):
        blocks = one["capacity_blocks"]
        rows.append({
            "share of the unbounded rate": percent(share),
            "blocks: mean": round(blocks.mean()), "least": int(blocks.min()), "most": int(blocks.max()),
            "tokens: mean": round(blocks.mean() * block_size),
            f"GiB, {model.name}": float(to_gib(blocks.mean(), block_size, model.bytes_per_token)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def tabulate_margin(curve, block_size, model, rows=9):
    """Tabulate hit rates along the LRU curve, and what the next GiB adds at each."""
    grid = np.sort(curve["capacity_blocks"].unique())
    chosen = grid[np.unique(np.linspace(0, len(grid) - 1, rows).round().astype(int))]
    by_size = curve.groupby("capacity_blocks")["token"]
    mean, deviation = by_size.mean(), by_size.std()
    first = curve.dropna(subset="low").set_index("capacity_blocks")
    low, high = move_interval(first["low"], first["high"], first["token"], mean)
    gib = to_gib(chosen, block_size, model.bytes_per_token)
    gained = np.append(np.diff(mean[chosen].to_numpy()) / np.diff(gib), np.nan)
    return pd.DataFrame({
        "blocks": chosen, "tokens": chosen * block_size, f"GiB, {model.name}": gib,
        "token hit rate": mean[chosen].to_numpy(), "± over seeds (sd)": deviation[chosen].to_numpy(),
        "95 % low": low[chosen].to_numpy(), "95 % high": high[chosen].to_numpy(),
        "points per further GiB": 100 * gained,
    })  # fmt: skip


def tabulate_tiers(curve, tiers_gib, block_size, model):
    """Tabulate what each tier of an exclusive LRU hierarchy hits. `curve` is a `cache.curve.Curve`."""
    sizes = [int(gib * 2**30 // (block_size * model.bytes_per_token)) for gib in tiers_gib]
    rates = curve.tiers(sizes)
    names = [f"tier {k}" for k in range(1, len(sizes) + 1)]
    return pd.DataFrame({
        "tier": [*names, "a larger hierarchy", "computed"], f"GiB, {model.name}": [*tiers_gib, None, None],
        "blocks": [*sizes, None, None], "share of prompt tokens": [*rates, 1 - rates.sum()],
    })  # fmt: skip


def tabulate_models(needs, block_size):
    """Tabulate, for well-known models, the GiB that reach 95 % of the unbounded rate.

    Bytes per token are exact, or a mean of models with windows or states (see `models.memory.Model`).
    """
    blocks = needs[needs["share"] == 0.95]["capacity_blocks"].mean()
    models = list_models()
    models["GiB for 95 %"] = [float(to_gib(blocks, block_size, one)) for one in models["bytes per token"]]
    models["exact or mean"] = np.where(models["attention"].str.contains("full"), "mean", "exact")
    columns = ["model", "layers", "KV heads", "head size", "attention", "bytes per token", "exact or mean",
               "GiB for 95 %", "source"]  # fmt: skip
    return models[columns]


@gives_facts
def facts_lru(curve, needs, ceiling, block_size, model):
    """Return the memory that LRU needs for shares of the unbounded token hit rate."""
    if not ceiling["token"]:
        return {"unbounded": 0.0}
    sizes = {share: one["capacity_blocks"].mean() for share, one in needs.groupby("share")}
    return {
        "unbounded": ceiling["token"],
        "needs": [
            {"share": share, "blocks": blocks, "tokens": blocks * block_size,
             "gib": to_gib(blocks, block_size, model.bytes_per_token)}
            for share, blocks in sizes.items()
        ],
        "model": model.name,
        "draws": needs["seed"].nunique(),
        "largest": measure_spread(curve[curve["capacity_blocks"] == curve["capacity_blocks"].max()]["token"]),
    }  # fmt: skip


@gives_facts
def facts_reuse(gap_s, distances, reuse, block_size):
    """Return what the reuse gap, the stack distance and the hottest blocks each decide."""
    if not len(gap_s):
        return {"gaps": 0}
    half, most = np.percentile(distances, [50, 95])
    return {
        "gaps": len(gap_s),
        "half_s": np.median(gap_s),
        "most_s": np.percentile(gap_s, 95),
        "half_blocks": half,
        "half_tokens": half * block_size,
        "most_blocks": most,
        "hottest_tenth": reuse[1][len(reuse[1]) // 10],
    }


def tabulate_block_sizes(frame):
    """Tabulate every block size without a bound: rates, overhead, loss."""
    whole = frame[frame["memory_tokens"].isna()].set_index("block_size")
    return pd.DataFrame({
        "block size": whole.index, "token hit rate": whole["token"].to_numpy(),
        "mean sharing fraction": whole["request_mean"].to_numpy(), "block reuse rate": whole["block"].to_numpy(),
        "blocks (hashes) per request": whole["blocks"].to_numpy(),
        "tokens lost per request": whole["lost_tokens"].to_numpy(),
        "half a block": (whole.index.to_numpy() - whole.index.min()) / 2,
    })  # fmt: skip


def tabulate_equal_memory(frame):
    """Tabulate LRU's token hit rate of every block size at equal memory, with its spread and interval."""
    table = pd.DataFrame({"block size": frame["block_size"].unique()})
    for memory, one in frame.dropna(subset="memory_tokens").groupby("memory_tokens"):
        rates, first = one.groupby("block_size")["token"], one.dropna(subset="low").set_index("block_size")
        low, high = move_interval(first["low"], first["high"], first["token"], rates.mean())
        table[f"LRU, {memory:,.0f} tokens"] = rates.mean()[table["block size"]].to_numpy()
        table[f"± sd, {memory:,.0f}"] = rates.std()[table["block size"]].to_numpy()
        table[f"95 %, {memory:,.0f}"] = [
            f"{100 * low[size]:.1f}–{100 * high[size]:.1f}" for size in table["block size"]
        ]
    return table


def name_smallest(frame):
    """Return the smallest block of a study of block sizes in words: what larger ones are compared with."""
    small = frame["block_size"].min()
    return "one token" if small == 1 else f"{small} tokens"


@gives_facts
def facts_block_sizes(frame):
    """Return what larger blocks cost and save: each size without a bound, and two of them at equal memory."""
    whole = frame[frame["memory_tokens"].isna()].set_index("block_size")
    small, large = whole.index.min(), whole.index.max()
    usual = 16 if 16 in whole.index else small
    memories = []
    for memory, one in frame.dropna(subset="memory_tokens").groupby("memory_tokens"):
        rates = one.pivot(index="seed", columns="block_size", values="token")
        better = rates.mean().idxmax() != usual and len(rates) > 1 and (rates[small] > rates[usual]).all()
        memories.append({
            "tokens": memory, "small": measure_spread(rates[small]), "usual": measure_spread(rates[usual]),
            "small_is_better": better,
        })  # fmt: skip
    return {
        "sizes": [
            {"size": size, "token_hit_rate": row["token"], "blocks": row["blocks"], "lost_tokens": row["lost_tokens"],
             "half_a_block": (size - small) / 2}
            for size, row in whole.iterrows()
        ],
        "small": small, "usual": usual, "large": large, "memories": memories,
    }  # fmt: skip


@gives_facts
def facts_left_out(workload):
    """Return the block sizes that were left out, their accesses, and the limit of accesses."""
    out = [size for size in BLOCK_SIZES if size not in fit_sizes(workload)]
    sizes = [{"size": size, "accesses": count_accesses(workload, size)} for size in out]
    return {"left_out": sizes, "budget": ACCESS_BUDGET}


def tabulate_policies(frame, ceiling):
    """Tabulate every policy and capacity: rate, spread, and the difference to LRU with its interval."""
    rows = []
    for (capacity, policy), one in frame.groupby(["capacity_blocks", "policy"], sort=False):
        lru = frame[(frame["capacity_blocks"] == capacity) & (frame["policy"] == LRU.name)].set_index("seed")["token"]
        gain = one.set_index("seed")["token"] - lru
        first, rate = one.dropna(subset="low").iloc[0], one["token"].mean()
        low, high = move_interval(first["low"], first["high"], first["token"], rate)
        ends = move_interval(first["gain_low"], first["gain_high"], gain[first["seed"]], gain.mean(), -1)
        rows.append({
            "blocks": capacity, "policy": label_policy(policy), "token hit rate": rate,
            "± sd": one["token"].std(), "95 % low": low, "95 % high": high,
            "against LRU": 100 * gain.mean(), "low": 100 * ends[0], "high": 100 * ends[1],
            "verdict": _judge(policy, gain, *ends), "of the unbounded rate": rate / (ceiling["token"] or 1),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _judge(policy, gain, low, high):
    if policy == LRU.name:
        return "–"
    if policy in POLICIES and POLICIES[policy].is_bound:
        return "bound"
    verdict = judge_difference(gain, low, high)
    return {"higher": "better", "lower": "worse"}.get(verdict, verdict)


@gives_facts
def facts_policies(table):
    """Return what a better policy could gain, and which policies do gain; from the table of `tabulate_policies`."""
    bounds = [one.label for one in POLICIES.values() if one.is_bound]
    capacities, others = [], table[~table["policy"].isin([LRU.label, *bounds])]
    for capacity, one in table.groupby("blocks"):
        rates = one.set_index("policy")
        capacities.append({
            "blocks": capacity, "lru": rates["token hit rate"][LRU.label], "opt": rates["token hit rate"][OPT.label],
            "points": rates["against LRU"][OPT.label],
        })  # fmt: skip
    better = others[others["verdict"] == "better"].rename(columns={"against LRU": "points"})
    return {
        "capacities": capacities,
        "tried": others["policy"].nunique(),
        "better": better[["policy", "blocks", "points"]].to_dict("records"),
        "worse": _count_capacities(others[others["verdict"] == "worse"]),
        "open": _count_capacities(others[others["verdict"] == "not separated"]),
    }


def _count_capacities(rows):
    return [{"policy": policy, "capacities": n} for policy, n in rows["policy"].value_counts().items()]


def list_policies():
    """Tabulate what each policy is, those with hints last."""
    return pd.DataFrame(
        [{"policy": p.label, "setting": p.default, "definition": p.definition} for p in (POLICIES | DESCRIBED).values()]
    )
