"""What the study of agent sessions found: facts and tables of sessions, pauses, what a pause costs, compactions."""

import numpy as np
import pandas as pd

from kvprefix.cache.rules.gdsf import GDSF
from kvprefix.cache.rules.lfu import LFU
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.cache.rules.s3fifo import S3FIFO
from kvprefix.report.facts.plain import gives_facts
from kvprefix.stats.intervals import bootstrap_rates, interval, move_interval

PAUSES = ("under 10 s", "10 s to 1 min", "1 to 10 min", "10 min to 1 h", "over 1 h")  # of `studies.agents.PAUSES_S`
COUNT_USES = (LFU.label, S3FIFO.label, GDSF.label)  # policies that evict first what was used seldom
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
def facts_sessions(rows, growth, kind="agent session"):
    """Return how large sessions are, how their prompts grow, and what an unbounded cache gives each.

    `kind` is what a session is, in a word; if each is one request, there are none, and `kind` is `request`.
    """
    requests, rates, prompt, hit = (rows[name] for name in ("requests", "token", "prompt_tokens", "hit_tokens"))
    sub_prompt, sub_hit = rows["subagent_prompt_tokens"].sum(), rows["subagent_hit_tokens"].sum()
    low, high = interval(bootstrap_rates(hit.to_numpy()[:, None], prompt.to_numpy(), np.arange(len(rows))))
    last = growth[growth["sessions"] >= min(10, len(rows))].iloc[-1]
    return {
        "kind": kind if len(rows) < requests.sum() else "request",
        "sessions": len(rows), "requests": requests.sum(), "median_requests": requests.median(),
        "most_requests": requests.max(), "with_subagents": (rows["subagents"] > 0).sum(),
        "subagents": rows["subagents"].sum(), "subagent_requests": rows["subagent_requests"].sum(),
        "first_prompt": growth["median"].iloc[0], "last_prompt": last["median"], "last_request": last["request"],
        "last_sessions": last["sessions"], "largest_prompt": rows["largest_prompt"].max(),
        "rate": hit.sum() / max(prompt.sum(), 1), "rate_interval": [low[0], high[0]],
        "main_rate": (hit.sum() - sub_hit) / max(prompt.sum() - sub_prompt, 1),
        "subagent_rate": sub_hit / sub_prompt if sub_prompt else None,
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
    rows, table = [], table[table["n"] > 0]
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
def facts_misses(table):
    """Return what is missed without a bound; from the table of `studies.agents.tabulate_misses`."""
    return {"missed": table["missed_tokens"].sum(), "kinds": table.set_index("what").to_dict("index")}


def name_kind(sessions):
    """Return what the sessions of a trace are, in a word."""
    return "agent session" if sessions.is_of_agents else "session"


def select_widest(table):
    """Return the rows of the capacity at which policies but the optimum lie farthest apart, the best policy first.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `facts.cache.tabulate_policies`.
    """
    rates = table[table["policy"] != OPT.label].groupby("blocks")["token hit rate"]
    widest = (rates.max() - rates.min()).idxmax()
    return table[table["blocks"] == widest].sort_values("token hit rate", ascending=False, kind="stable")


@gives_facts
def facts_agent_policies(table, kind="agent session"):
    """Return what policies hit at the capacity at which they lie farthest apart; from `facts.cache.tabulate_policies`.

    `lru`, `opt` and each of `others` have their `rate` with the ends of its interval, and their `points` against LRU
    with theirs; `others` are those that differ from LRU, the farthest first, and `alike` the labels of the rest.
    """
    rows = [
        {"policy": row["policy"], "rate": row["token hit rate"], "rate_interval": [row["95 % low"], row["95 % high"]],
         "points": row["against LRU"], "points_interval": [row["low"], row["high"]], "verdict": row["verdict"]}
        for row in select_widest(table).to_dict("records")
    ]  # fmt: skip
    named = {one["policy"]: one for one in rows}
    others = [one for one in rows if one["verdict"] in ("better", "worse")]
    others.sort(key=lambda one: -abs(one["points"]))
    rest = [one["policy"] for one in rows if one["policy"] not in (OPT.label, LRU.label) and one not in others]
    tried = [one for one in rows if one["policy"] != OPT.label]  # the best first
    return {
        "kind": kind, "best": tried[0], "worst": tried[-1],
        "blocks": select_widest(table)["blocks"].iloc[0], "lru": named[LRU.label], "opt": named.get(OPT.label),
        "others": others, "alike": rest, "apart": 100 * (tried[0]["rate"] - tried[-1]["rate"]),
        "counting": [one["policy"] for one in others if one["verdict"] == "worse" and one["policy"] in COUNT_USES],
    }  # fmt: skip


@gives_facts
def facts_method_blocks(experiment):
    """Return how a trace of block ids becomes requests: their blocks, when they come, what was put right in reading."""
    said = experiment.say_times()
    starts = [one for one in said if one.startswith("sessions start")]
    last_s, under_way = _count_under_way(experiment.draw(experiment.parameters.block_size))
    return {
        "linked": experiment.sessions.is_linked,
        "last_start_s": last_s, "under_way": under_way, "sessions": experiment.sessions.n_sessions,
        "block_size": experiment.parameters.block_size, "seed": experiment.parameters.seed,
        "local": experiment.sessions.accesses.info.get("is_local", False), "starts": starts[0] if starts else None,
        "think": experiment.parameters.make("think").describe() if len(said) > len(starts) else None,
        "notes": experiment.dataset["notes"],
    }  # fmt: skip


def _count_under_way(accesses):
    """Return when the last session starts, in seconds, and how many are under way when the median request comes."""
    spans = pd.DataFrame({"session": accesses.conversation, "s": accesses.arrival_s, "e": accesses.finish_s})
    spans = spans.groupby("session").agg({"s": "min", "e": "max"})
    started = np.searchsorted(np.sort(spans["s"]), accesses.arrival_s, "right")
    ended = np.searchsorted(np.sort(spans["e"]), accesses.arrival_s, "left")
    return spans["s"].max(), np.median(started - ended)
