"""What the study of one's own policy found: the share of the gap between LRU and OPT, and how evictions differ."""

import numpy as np
import pandas as pd

from kvprefix.cache.policies import label_policy
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.report.facts.plain import gives_facts
from kvprefix.stats.intervals import judge_difference, move_interval
from kvprefix.studies.own_policy import BY, LEFT_OUT, share_closed


def tabulate_own(frame, policy):
    """Tabulate a policy between LRU and OPT, a row per capacity: means over seeds, intervals moved to them."""
    rows = []
    for capacity, one in frame.groupby("capacity_blocks"):
        by_policy = {name: rows.set_index("seed") for name, rows in one.groupby("policy")}
        lru, mine, opt = (by_policy[name]["token"] for name in (LRU.name, policy.name, OPT.name))
        gain, first = mine - lru, by_policy[policy.name].dropna(subset="low").iloc[0]
        ends = move_interval(first["gain_low"], first["gain_high"], gain[first.name], gain.mean(), -1)
        shares = (float(share_closed(*(one.loc[[first.name]].mean() for one in (lru, mine, opt)))),
                  float(share_closed(*(one.mean() for one in (lru, mine, opt)))))  # fmt: skip
        closed = move_interval(first["closed_low"], first["closed_high"], *shares, -np.inf)
        rows.append({
            "blocks": capacity, LRU.label: lru.mean(), policy.label: mine.mean(), OPT.label: opt.mean(),
            "of the gap": shares[1], "95 % low": closed[0], "95 % high": closed[1],
            "against LRU": 100 * gain.mean(), "low": 100 * ends[0], "high": 100 * ends[1],
            "verdict": judge_difference(gain, *ends),
        })  # fmt: skip
    return pd.DataFrame(rows)


@gives_facts
def facts_own_policy(table, policy):
    """Return how much of the gap the policy closes at each capacity; from the table of `tabulate_own`."""
    names = {LRU.label: "lru", policy.label: "mine", OPT.label: "opt", "against LRU": "points", "of the gap": "closed",
             "95 % low": "closed_low", "95 % high": "closed_high"}  # fmt: skip
    rows = table.rename(columns=names)[["blocks", *names.values(), "verdict"]]
    return {
        "policy": policy.label,
        "definition": policy.definition,
        "capacities": rows.to_dict("records"),
        "verdicts": {name: int((table["verdict"] == name).sum()) for name in ("higher", "lower")},
    }


def tabulate_evictions(frame):
    """Tabulate what each policy evicts: how much, how much of it in vain, and where the half of it lies."""
    rows = []
    for policy, one in frame.groupby("policy", sort=False):
        all_by = dict(list(one.groupby("by")))
        total, again = (all_by["depth"][name].sum() if "depth" in all_by else 0 for name in ("evictions", "again"))
        rows.append({
            "policy": label_policy(policy), "evictions": total, "needed again": again / total if total else np.nan,
            **{f"{by}: median": find_median(all_by[by]) if by in all_by else np.nan for by in BY},
            "not stored": all_by[LEFT_OUT]["evictions"].sum(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def find_median(counts):
    """Return the least `value` at or below which half of the `evictions` lie.

    >>> find_median(pd.DataFrame({"value": [1, 5, 9], "evictions": [1, 1, 2]}))
    5
    """
    reached = counts["evictions"].cumsum().to_numpy()
    return int(counts["value"].iloc[np.searchsorted(reached, reached[-1] / 2)])


def find_distances(frame, policy):
    """Return how far a policy's evictions are from OPT's by each of BY: the largest difference of their CDFs."""
    distances = {}
    for by, one in frame[frame["by"].isin(BY)].groupby("by"):
        counts = one.pivot_table(index="value", columns="policy", values="evictions", fill_value=0).sort_index()
        if {policy.name, OPT.name} <= set(counts):
            shares = counts.cumsum() / counts.sum()
            distances[by] = float((shares[policy.name] - shares[OPT.name]).abs().max())
    return distances


@gives_facts
def facts_evictions(frame, policy, capacity):
    """Return what the policies evict, and by what the policy's evictions differ from OPT's, the most first."""
    policies = []
    for row in tabulate_evictions(frame).to_dict("records"):
        depth, age, turn = (int(row[f"{by}: median"]) if row["evictions"] else 0 for by in BY)
        policies.append({
            "policy": row["policy"], "evictions": row["evictions"], "again": row["needed again"],
            "blocks_deep": depth + 1, "age": age, "turn": turn + 1, "left_out": row["not stored"],
        })  # fmt: skip
    distances = sorted(find_distances(frame, policy).items(), key=lambda item: -item[1])
    return {
        "blocks": capacity,
        "policy": policy.label,
        "policies": policies,
        "differences": [{"by": by, "points": 100 * distance} for by, distance in distances],
    }
