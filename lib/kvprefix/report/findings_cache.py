"""Say what the cache study found, in sentences and tables: every number comes from the studies' tables.

A difference is called one only where its interval (conversations resampled, 95 %) leaves zero out and every seed agrees.
"""

import numpy as np
import pandas as pd

from kvprefix.cache.policies import POLICIES, label_policy
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.files.escape import escape_markdown
from kvprefix.files.words import count
from kvprefix.models.memory import list_models, to_gib
from kvprefix.report.describe import percent, seconds, state_clock
from kvprefix.stats.intervals import judge_difference, move_interval
from kvprefix.studies.cache import ACCESS_BUDGET, BLOCK_SIZES, count_accesses, fit_sizes

_NAMES = {"block_size": "block size", "arrival_rate": "arrival rate", "think": "think time"}  # of varied parameters


def state_study(workload, accesses, frame=None, *, varied=None, parameters=None, cached="prompts only"):
    """Return the conditions of what a caption is about.

    Parameters
    ----------
    workload : Workload
    accesses : sized
        Its requests.
    frame : pandas.DataFrame, optional
        Rows of a study's table, whose seeds are stated; if not given, one draw with the workload's own seed.
    varied : dict of str to sequence of str, optional
        The parameters that the study varies, joined by a comma, and their values; none of them is stated as fixed.
    parameters : dict, optional
        What the study does not vary; the workload's own parameters if not given.
    cached : str
        What is cached, if it is to be said.
    """
    parameters = parameters or workload.parameters.as_dict()
    names = [name for together in varied or {} for name in together.split(",")]
    size = [f"block size {count(parameters['block_size'], 'token')}"] if "block_size" not in names else []
    said = [
        ", ".join([*size, *filter(None, [state_clock(parameters, names)])]),
        *(f"varied: {' and '.join(_NAMES.get(name, name) for name in together.split(','))} ({', '.join(values)})"
          for together, values in (varied or {}).items()),
        ", ".join(filter(None, ["cold start", cached])),
        state_seeds([parameters["seed"]] if frame is None or not len(frame) else frame["seed"]),
    ]  # fmt: skip
    requests, conversations = len(accesses), workload.dataset["conversations"]
    return f"n = {count(requests, 'multi-turn request')} of {count(conversations, 'conversation')}; {'; '.join(said)}."


def state_seeds(seeds):
    """Say which draws of the clock something is of.

    >>> state_seeds([3, 3]), state_seeds([0, 1, 2]), state_seeds([0, 5])
    ('seed 3', '3 seeds from 0 on', 'seeds 0, 5')
    """
    found = sorted({int(seed) for seed in seeds})
    if len(found) == 1:
        return f"seed {found[0]}"
    whole = found == list(range(found[0], found[-1] + 1))
    return f"{len(found)} seeds from {found[0]} on" if whole else f"seeds {', '.join(map(str, found))}"


def spread(values, form=percent):
    """Return mean and range of a measure over seeds as text.

    >>> spread([0.1, 0.2, 0.3])
    '20.0 % (10.0 %–30.0 %)'
    """
    low, high = form(np.min(values)), form(np.max(values))
    return form(np.mean(values)) if low == high else f"{form(np.mean(values))} ({low}–{high})"


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
        "points a further GiB": 100 * gained,
    })  # fmt: skip


def tabulate_tiers(curve, tiers_gib, block_size, model):
    """Tabulate what each tier of an exclusive LRU hierarchy hits. `curve` is a `curves.Curve`."""
    sizes = [int(gib * 2**30 // (block_size * model.bytes_per_token)) for gib in tiers_gib]
    rates = curve.tiers(sizes)
    names = [f"tier {k}" for k in range(1, len(sizes) + 1)]
    return pd.DataFrame({
        "tier": [*names, "a larger hierarchy", "computed"], f"GiB, {model.name}": [*tiers_gib, None, None],
        "blocks": [*sizes, None, None], "share of prompt tokens": [*rates, 1 - rates.sum()],
    })  # fmt: skip


def tabulate_models(needs, block_size):
    """Tabulate, for well-known models, the GiB that reach 95 % of the unbounded rate."""
    blocks = needs[needs["share"] == 0.95]["capacity_blocks"].mean()
    models = list_models()
    models["GiB for 95 %"] = [float(to_gib(blocks, block_size, one)) for one in models["bytes a token"]]
    columns = ["model", "layers", "KV heads", "head size", "attention", "bytes a token", "GiB for 95 %", "source"]
    return models[columns]


def describe_lru(curve, needs, ceiling, block_size, model):
    """How much memory buys how much."""
    if not ceiling["token"]:
        return "Nothing is ever hit, so every capacity has a hit rate of 0."
    size = {share: one["capacity_blocks"].mean() for share, one in needs.groupby("share")}
    gib = {share: to_gib(blocks, block_size, model.bytes_per_token) for share, blocks in size.items()}
    last = curve[curve["capacity_blocks"] == curve["capacity_blocks"].max()]["token"]
    half = count(round(size[0.5]), "block")
    draws = needs["seed"].nunique()
    return (
        f"Without a bound, {percent(ceiling['token'])} of the prompt tokens are hit. LRU reaches half of that with "
        f"{half} ({count(round(size[0.5] * block_size), 'token')}; {gib[0.5]:,.1f} GiB of {escape_markdown(model.name)}'s KV cache), 90 % with "
        f"{size[0.9]:,.0f} ({gib[0.9]:,.1f} GiB), 95 % with {size[0.95]:,.0f} ({gib[0.95]:,.1f} GiB) and 99 % with {size[0.99]:,.0f} "
        f"({gib[0.99]:,.1f} GiB): the last part costs most. These are means of {count(draws, 'draw')} of the arrival times. At the largest capacity "
        f"the rate is {spread(last)}: what differs between draws is the order of the requests, and that matters only where "
        "blocks are evicted."
    )


def describe_reuse(gap_s, distances, reuse, block_size):
    """What the reuse gap, the stack distance and the hottest blocks each decide."""
    if not len(gap_s):
        return "No block is accessed twice: there are no gaps and no distances."
    half, most = np.percentile(distances, [50, 95])
    tenth = reuse[1][len(reuse[1]) // 10]
    return (
        f"The gap decides what a time to live keeps: half of the reuses come within {seconds(np.median(gap_s))}, 95 % within "
        f"{seconds(np.percentile(gap_s, 95))}, at any capacity. The stack distance decides what LRU keeps: it is how many distinct blocks were "
        f"accessed since, so half of the reuses need {count(round(half), 'block')} ({count(round(half * block_size), 'token')}), 95 % need {most:,.0f}, however long that takes. "
        f"The most accessed tenth of the blocks holds {percent(tenth)} of the reuses."
    )


def tabulate_block_sizes(frame):
    """Tabulate every block size without a bound: rates, overhead, loss."""
    whole = frame[frame["memory_tokens"].isna()].set_index("block_size")
    return pd.DataFrame({
        "block size": whole.index, "token hit rate": whole["token"].to_numpy(),
        "mean sharing fraction": whole["request_mean"].to_numpy(), "block reuse rate": whole["block"].to_numpy(),
        "blocks (hashes) a request": whole["blocks"].to_numpy(), "tokens lost a request": whole["lost_tokens"].to_numpy(),
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


def describe_block_sizes(frame):
    """What larger blocks cost and save."""
    whole = frame[frame["memory_tokens"].isna()].set_index("block_size")
    small, large = whole.index.min(), whole.index.max()
    usual = 16 if 16 in whole.index else small
    said = [
        f"With blocks of {count(small, 'token')}, {percent(whole['token'][small])} of the prompt tokens are hit in an unbounded cache; with "
        f"blocks of {usual}, {percent(whole['token'][usual])}; with blocks of {large}, {percent(whole['token'][large])}. A request hashes and looks up "
        f"{whole['blocks'][small]:,.0f}, {whole['blocks'][usual]:,.1f} and {whole['blocks'][large]:,.1f} blocks. Against blocks of {small}, blocks of {usual} lose "
        f"{whole['lost_tokens'][usual]:,.1f} cached tokens a request (half a block: {(usual - small) / 2:g}), blocks of {large} lose "
        f"{whole['lost_tokens'][large]:,.1f} (half a block: {(large - small) / 2:g}). Half a block is what is lost where two prompts part at any place within a block "
        "with equal chance; a prompt that shares less than a block has less to lose."
    ]
    bounded = frame.dropna(subset="memory_tokens")
    for memory, one in bounded.groupby("memory_tokens"):
        rates = one.pivot(index="seed", columns="block_size", values="token")
        best = rates.mean().idxmax()
        gain = rates[small] - rates[usual]
        if best != usual and len(rates) > 1 and (gain > 0).all():
            said.append(
                f"At equal memory of {memory:,.0f} tokens, LRU hits {spread(rates[usual])} of the tokens with blocks of {usual} and "
                f"{spread(rates[small])} with blocks of {small} (mean and range over seeds)."
            )
    return " ".join(said)


def name_smallest(frame):
    """Return the smallest block of a study of block sizes in words: what larger ones are compared with."""
    small = frame["block_size"].min()
    return "one token" if small == 1 else f"{small} tokens"


def describe_left_out(workload):
    """Say which block sizes were left out, and why; nothing where none was."""
    out = [size for size in BLOCK_SIZES if size not in fit_sizes(workload)]
    if not out:
        return ""
    listed = "; ".join(f"{size}: {count_accesses(workload, size):,}" for size in out)
    return (
        f" Left out, because these conversations have more than {ACCESS_BUDGET:,} block accesses with them, which would need too much "
        f"memory (block size: accesses): {listed}. Losses are against the smallest size that is left."
    )


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


def describe_policies(table):
    """How much a better policy could win, and which of those tried do."""
    said = []
    others = table[~table["policy"].isin([LRU.label, *(one.label for one in POLICIES.values() if one.is_bound)])]
    for capacity, one in table.groupby("blocks"):
        rates = one.set_index("policy")
        best = rates.loc[OPT.label]
        said.append(
            f"With {count(capacity, 'block')} LRU hits {percent(rates['token hit rate'][LRU.label])} and the optimum "
            f"{percent(best['token hit rate'])}: {best['against LRU']:z.1f} points are there to win."
        )
    better = others[others["verdict"] == "better"]
    if len(better):
        listed = "; ".join(
            f"{escape_markdown(row.policy)} with {count(row.blocks, 'block')} ({row.gain:+z.2f} points)"
            for row in better.rename(columns={"against LRU": "gain"}).itertuples()
        )
        said.append(f"Better than LRU, by an interval that leaves zero out: {listed}.")
    else:
        said.append("None of the other policies is better than LRU at any of these capacities.")
    worse = others[others["verdict"] == "worse"]["policy"].value_counts()
    if len(worse):
        listed = ", ".join(f"{escape_markdown(policy)} ({count})" for policy, count in worse.items())
        said.append(f"Worse than LRU, with the number of capacities where that holds: {listed}.")
    open_ = others[others["verdict"] == "not separated"]["policy"].value_counts()
    if len(open_):
        said.append(f"Not separated from LRU: {', '.join(f'{escape_markdown(policy)} ({count})' for policy, count in open_.items())}.")
    return " ".join(said)


def list_policies():
    """Tabulate what each policy is."""
    return pd.DataFrame(
        [{"policy": p.label, "setting": p.default, "definition": p.definition} for p in POLICIES.values()]
    )
