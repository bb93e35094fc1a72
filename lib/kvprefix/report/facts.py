"""Take from each notebook's results the few numbers that the conclusion and the limits are made of.

Each function returns numbers by name, for `report.Section.hand_over`; names of variants and policies are keys.
"""

import numpy as np

from kvprefix.cache.policies import POLICIES
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.report.findings_timing import choose_capacities, tabulate_variants

SMALL_TOKENS = 32_768  # the small cache in which clocks differ most


def take_sharing(stats):
    """Of notebook 20: counts and rates of both modes, from their statistics."""
    single, multi = stats["single_turn"], stats["multi_turn"]
    bare, blocks, reused = single["without_template_tokens"], multi["blocks"], multi["blocks_reused_fraction"]
    once = blocks["distinct"] * (1 - (reused or 0))
    return {
        "conversations": multi["dataset"]["conversations"],
        "records_read": multi["dataset"]["records_read"],
        "records_skipped": sum(multi["dataset"]["skipped"].values()),
        "requests": multi["requests"],
        "token_hit_rate": multi["token_hit_rate"],
        "sharing_mean": multi["sharing_fraction"]["mean"],
        "sharing_median": multi["sharing_fraction"]["median"],
        "with_generated": multi["with_generated_tokens"]["token_hit_rate"],
        "single_token_hit_rate": single["token_hit_rate"],
        "single_sharing_mean": single["sharing_fraction"]["mean"],
        "bare_token_hit_rate": bare["token_hit_rate"] if bare["prompt_tokens"] else None,
        "bare_sharing_mean": bare["sharing_fraction"]["mean"] if bare["prompt_tokens"] else None,
        "never_reused": 1 - reused if reused else None,
        "accesses_if_reused": (blocks["accesses"] - once) / (blocks["distinct"] - once) if reused else None,
        "gap_median_s": multi["reuse_gap_s"]["median"] if reused else None,
    }


def take_block_sizes(frame):
    """Of notebook 30: the unbounded token hit rate of every block size."""
    whole = frame[frame["memory_tokens"].isna()]
    return {"sizes": whole["block_size"].tolist(), "rates": whole["token"].tolist()}


def take_capacities(needs, ceiling):
    """Of notebook 40: the unbounded rate, and the blocks with which LRU reaches half and nine tenths of it."""
    blocks = needs.groupby("share")["capacity_blocks"].mean()
    return {"unbounded": ceiling["token"], "half_blocks": blocks[0.5], "most_blocks": blocks[0.9]}


def take_policies(table):
    """Of notebook 50: LRU and the optimum at each capacity, and what the policies better than LRU win, in points."""
    rates = {one.name: table[table["policy"] == one.label]["token hit rate"].tolist() for one in (LRU, OPT)}
    tried = table[~table["policy"].isin([LRU.label, *(one.label for one in POLICIES.values() if one.is_bound)])]
    better = tried[tried["verdict"] == "better"].groupby("policy")["against LRU"].max()
    capacities = table[table["policy"] == LRU.label]["blocks"].tolist()
    return {"capacities": capacities, **rates, "tried": tried["policy"].nunique(), "better": better.to_dict()}


def take_timing(clocks, rates, block_size):
    """Of notebook 60: first and last clock with a small cache, first and last arrival rate with a middle one."""
    grid, middle = np.sort(clocks["capacity_blocks"].unique()), choose_capacities(rates)
    small = grid[np.abs(np.log(grid * block_size / SMALL_TOKENS)).argmin()]
    return {"clocks": _take_ends(clocks, small), "rates": _take_ends(rates, middle[len(middle) // 2])}


def _take_ends(frame, capacity):
    ends = tabulate_variants(frame, [capacity]).iloc[[0, -1]]
    token = dict(zip(ends["variant"], ends["token hit rate"], strict=True))
    return {"blocks": capacity, "token": token, "separated": int(ends.iloc[0]["verdict"] in ("higher", "lower"))}


def take_engines(frame):
    """Of notebook 70: what vLLM's rules hit with each pool, requests running at once."""
    rates = frame[frame["case"] == "overlap"].groupby("pool")["token"].mean()
    return {"pools": rates.index.tolist(), "rates": rates.tolist()}
