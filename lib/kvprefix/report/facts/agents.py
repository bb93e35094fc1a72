"""What the study of agent sessions found: facts and tables of sessions, pauses, what a pause costs, compactions."""

import numpy as np
import pandas as pd

from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.report.facts.plain import gives_facts
from kvprefix.stats.intervals import move_interval
from kvprefix.studies.experiment import make_timing

PAUSES = ("under 10 s", "10 s to 1 min", "1 to 10 min", "10 min to 1 h", "over 1 h")  # of `studies.agents.PAUSES_S`
_MEASURES = {
    "requests": "requests", "subagent_requests": "requests of sub-agents", "prompt_tokens": "prompt tokens, all",
    "first_prompt": "first prompt (tokens)", "largest_prompt": "largest prompt (tokens)",
    "output_tokens": "generated tokens", "blocks": "distinct blocks", "duration_s": "duration (s)",
    "compactions": "prompts that do not continue",
}  # fmt: skip


def tabulate_sessions(rows):
    """Tabulate the sessions of `studies.agents.describe_sessions`: a row per measure, its total, mean and quantiles."""
    lines = []
    for name, label in _MEASURES.items():
        low, median, high, most = np.percentile(rows[name], [25, 50, 75, 95])
        total = None if name in ("first_prompt", "largest_prompt", "duration_s") else rows[name].sum()
        lines.append({"per session": label, "total": total, "mean": rows[name].mean(), "p25": low, "median": median,
                      "p75": high, "p95": most, "most": rows[name].max()})  # fmt: skip
    return pd.DataFrame(lines)


@gives_facts
def facts_sessions(rows, growth):
    """Return how large sessions are, how their prompts grow, and what an unbounded cache gives each."""
    requests, rates = rows["requests"], rows["token"]
    last = growth[growth["sessions"] >= min(10, len(rows))].iloc[-1]
    return {
        "sessions": len(rows), "requests": requests.sum(), "median_requests": requests.median(),
        "most_requests": requests.max(), "with_subagents": (rows["subagents"] > 0).sum(),
        "subagents": rows["subagents"].sum(), "subagent_requests": rows["subagent_requests"].sum(),
        "first_prompt": growth["median"].iloc[0], "last_prompt": last["median"], "last_request": last["request"],
        "last_sessions": last["sessions"], "largest_prompt": rows["largest_prompt"].max(),
        "rate": (rates * rows["prompt_tokens"]).sum() / max(rows["prompt_tokens"].sum(), 1),
        "rate_median": rates.median(), "rate_low": rates.quantile(0.05), "rate_least": rates.min(),
    }  # fmt: skip


def tabulate_gaps(gaps):
    """Tabulate the pauses of `studies.agents.tabulate_gaps` under the headings of the report."""
    return gaps.rename(columns={
        "after": "what follows the answer", "n": "requests", "median_s": "median pause (s)", "p90_s": "90 % below (s)",
        "share": "share of the paused time",
    })  # fmt: skip


@gives_facts
def facts_gaps(gaps):
    """Return how long agents pause, by what follows the answer."""
    return {"gaps": gaps.to_dict("records")}


def tabulate_pauses(table, block_size):
    """Tabulate what requests hit by the pause before them: a row per pause and capacity, with its interval."""
    rows = []
    for (pause, size), one in table.groupby(["pause", "capacity_blocks"], dropna=False, sort=True):
        first, rate = one.dropna(subset="low"), one["token"].mean()
        low, high = (None, None)
        if len(first):
            low, high = move_interval(*(first[name].iloc[0] for name in ("low", "high", "token")), rate)
        rows.append({
            "pause": PAUSES[int(pause)], "requests": int(one["n"].iloc[0]), "blocks": None if np.isnan(size) else size,
            "tokens of the cache": None if np.isnan(size) else size * block_size, "token hit rate": rate,
            "95 % low": low, "95 % high": high,
        })  # fmt: skip
    return pd.DataFrame(rows)


@gives_facts
def facts_pauses(table, block_size):
    """Return what a pause costs at the middle capacity: the rate of each class, and what it is without a bound."""
    sizes = np.sort(table["capacity_blocks"].dropna().unique())
    if not len(sizes) or not table["n"].sum():
        return {"blocks": None}
    blocks = sizes[(len(sizes) + 1) // 2 if len(sizes) > 2 else -1]
    at = table[table["capacity_blocks"] == blocks].groupby("pause")
    free, counts = table[table["capacity_blocks"].isna()].groupby("pause")["token"].mean(), at["n"].first()
    classes = [
        {"pause": PAUSES[int(k)], "requests": counts[k], "rate": rate, "unbounded": free[k]}
        for k, rate in at["token"].mean().items() if counts[k]
    ]  # fmt: skip
    return {"blocks": blocks, "tokens": blocks * block_size, "classes": classes}


@gives_facts
def facts_compactions(table, requests):
    """Return how often a prompt does not continue the one before it, and what it keeps of it."""
    if not len(table):
        return {"breaks": 0, "requests": requests}
    kept = table["shared"] / np.maximum(table["before"], 1)
    return {
        "breaks": len(table), "requests": requests, "sessions": table["session"].nunique(),
        "shorter": table["shorter"].sum(), "kept": kept.median(), "halved": (kept < 0.5).sum(),
        "lost": (np.minimum(table["before"], table["after"]) - table["shared"]).clip(lower=0).sum(),
        "prompt": table["after"].sum(),
    }  # fmt: skip


@gives_facts
def facts_agent_policies(table):
    """Return the capacity at which policies lie farthest apart; from the table of `facts.cache.tabulate_policies`."""
    widest = None
    for blocks, one in table.groupby("blocks"):
        rates = one.set_index("policy")["token hit rate"]
        others = rates.drop([OPT.label, LRU.label], errors="ignore")
        gap = rates[OPT.label] - rates.min()
        if widest is None or gap > widest["gap"]:
            worst = {"policy": others.idxmin(), "rate": others.min()} if len(others) else None
            if worst and worst["rate"] >= rates[LRU.label]:
                worst = None
            widest = {"blocks": blocks, "gap": gap, "lru": rates[LRU.label], "opt": rates[OPT.label], "worst": worst}
    return {"widest": widest}


@gives_facts
def facts_method_blocks(experiment):
    """Return how a trace of block ids becomes requests: their blocks, when they come, what was put right in reading."""
    said = make_timing(experiment.parameters).say(experiment.sessions)
    starts = [one for one in said if one.startswith("sessions start")]
    return {
        "block_size": experiment.parameters.block_size, "seed": experiment.parameters.seed,
        "local": experiment.sessions.accesses.info.get("is_local", False), "starts": starts[0] if starts else None,
        "think": experiment.parameters.make("think").describe() if len(said) > len(starts) else None,
        "notes": experiment.dataset["notes"],
    }  # fmt: skip
