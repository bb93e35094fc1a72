"""Measured prefix sharing: facts and tables of both modes and of the three accountings.

Most functions take statistics as `stats.metrics.describe_mode` returns them, `{"single_turn": ..., "multi_turn": ...}`.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from kvprefix.blocks.sharing import count_history_hits
from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.rounding import percent
from kvprefix.stats.intervals import interval, judge_difference
from kvprefix.stats.resampling import read_rate

PERCENTS = dict.fromkeys(["mean sharing fraction", "median sharing fraction", "token hit rate"], percent)
PERCENTS |= dict.fromkeys(["± mean", "± rate"], percent)


class Accounting(NamedTuple):
    """What is cached and counted: its label in a table, and a short one beside the mode (None for the usual case)."""

    label: str
    short: str | None = None


ACCOUNTINGS = {  # by the prefix of the names of its rates
    "": Accounting("prompts only"),
    "with_generated_tokens.": Accounting("prompts and generated tokens", "generated tokens too"),
    "without_template_tokens.": Accounting("prompts without the template's tokens", "no template"),
}
COMPARED = {
    "sharing_fraction.mean": "mean sharing fraction",
    "sharing_fraction.median": "median sharing fraction",
    "token_hit_rate": "token hit rate",
    "block_reuse_rate": "block reuse rate",
    "blocks_reused_fraction": "blocks reused fraction",
    "block_hit_count.mean": "mean block hit count",
}


@gives_facts
def facts_sharing(stats):
    """Return the counts and rates of both modes that the summary and the conclusion state."""
    single, multi = stats["single_turn"], stats["multi_turn"]
    bare, blocks, reused = single["without_template_tokens"], multi["blocks"], multi["blocks_reused_fraction"]
    once, dataset = blocks["distinct"] * (1 - (reused or 0)), multi["dataset"]
    return {
        "calls": dataset.get("calls", 0) + dataset.get("dialogs", 0),
        "lower_bound": "text_is_a_lower_bound" in dataset.get("noted", {}),
        "conversations": dataset["conversations"],
        "records_read": dataset["records_read"],
        "records_skipped": sum(dataset["skipped"].values()),
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


@gives_facts
def facts_multi_turn(result):
    """Return why multi-turn shares: first turns against later ones, own history against other conversations."""
    trace, sharing, _, _ = result
    later = trace.requests["turn"].to_numpy() > 0
    if not later.any():
        return {"later": 0.0}
    fraction, prompt, cached = sharing.sharing_fraction, sharing.prompt_tokens, sharing.hit_tokens
    own = None
    if cached.any():
        own = count_history_hits(trace, sharing).sum() * sharing.block_size / cached.sum()
    return {
        "later": later.mean(),
        "later_tokens": prompt[later].sum() / prompt.sum(),
        "later_sharing": fraction[later].mean(),
        "first_sharing": fraction[~later].mean(),
        "own": own,
        "others": None if own is None else 1 - own,
        "left_tokens": np.median((prompt - cached)[later]),
    }


@gives_facts
def facts_single_turn(result):
    """Return why single-turn shares little or much: the most common hit, and the sharing without the template."""
    _, sharing, stats, _ = result
    hits, bare = sharing.hit_blocks, stats["without_template_tokens"]
    most_common = int(np.bincount(hits).argmax())
    return {
        "common_blocks": most_common,
        "common_tokens": most_common * sharing.block_size,
        "hit_common": (hits == most_common).mean(),
        "hit_more": (hits > most_common).mean(),
        "prompt_median": stats["prompt_tokens"]["median"],
        "sharing_mean": stats["sharing_fraction"]["mean"],
        "token_hit_rate": stats["token_hit_rate"],
        "has_bare": bool(bare["prompt_tokens"]),
        "bare_sharing_mean": bare["sharing_fraction"]["mean"] if bare["prompt_tokens"] else None,
        "bare_token_hit_rate": bare["token_hit_rate"] if bare["prompt_tokens"] else None,
        "duplicates": stats["dataset"]["exact_duplicates"] if bare["prompt_tokens"] else None,
    }


@gives_facts
def facts_gaps(result):
    """Return what the reuse gaps mean for eviction: how soon blocks return, and how much arrives in between."""
    _, sharing, stats, _ = result
    gap, size = sharing.gap_s, sharing.block_size
    if not len(gap):
        return {"gaps": 0}
    half, most = np.percentile(sharing.gap_new_blocks, [50, 95])
    return {
        "gaps": len(gap),
        "median_s": stats["reuse_gap_s"]["median"],
        "median_by_request_s": stats["reuse_gap_s_request_weighted"]["median"],
        **{f"within_{limit}_s": (gap <= limit).mean() for limit in (60, 600, 3600)},
        "beyond_3600_s": (gap > 3600).mean(),
        "half_blocks": half,
        "half_tokens": half * size,
        "most_blocks": most,
        "most_tokens": most * size,
    }


@gives_facts
def facts_hit_counts(results):
    """Return how often blocks are accessed in each mode: the share accessed once, the most, the hottest hundredth."""
    modes = []
    for mode, (_, sharing, stats, _) in results.items():
        accesses = np.sort(sharing.accesses)[::-1]
        one = {"mode": name_mode(mode), "blocks": len(accesses)}
        if len(accesses):
            one |= {
                "once": 1 - stats["blocks_reused_fraction"],
                "mean": accesses.mean(),
                "most": accesses[0],
                "requests": stats["requests"],
                "hottest": accesses[: max(1, len(accesses) // 100)].sum() / accesses.sum(),
            }
        modes.append(one)
    return {"modes": modes}


@gives_facts
def facts_accountings(stats):
    """Return what generated tokens and the template's own tokens add in each mode."""
    modes = []
    for mode, one in stats.items():
        bare, template = one["without_template_tokens"], None
        if bare["prompt_tokens"]:
            template = 1 - bare["prompt_tokens"]["total"] / one["prompt_tokens"]["total"]
        modes.append({
            "mode": name_mode(mode),
            "prompts_only": one["token_hit_rate"],
            "with_generated": one["with_generated_tokens"]["token_hit_rate"],
            "template": template,
            "sharing_mean": one["sharing_fraction"]["mean"],
            "bare_sharing_mean": bare["sharing_fraction"]["mean"] if bare["prompt_tokens"] else None,
        })  # fmt: skip
    return {"modes": modes, "early_turns": stats["multi_turn"]["early_turns"]}


@gives_facts
def facts_differences(table):
    """Return which differences are larger than the variation between samples of conversations."""
    alike = {
        verdict: table.loc[table["verdict"] == verdict, ["rate", "what", "against"]].to_dict("records")
        for verdict in ("not separated", "equal")
    }
    apart = table["verdict"].isin(["higher", "lower"]).sum()
    return {"differences": len(table), "apart": apart, "open": alike["not separated"], "equal": alike["equal"]}


def tabulate_comparison(stats):
    """Return both modes' main numbers side by side, each with its weighting: (table, a format for each row)."""
    whole = "{:,.0f}"
    rows = {
        "requests": (whole, "requests"),
        "prompt tokens": (whole, "prompt_tokens.total"),
        "sharing fraction, mean (by request)": (percent, "sharing_fraction.mean"),
        "sharing fraction, median (by request)": (percent, "sharing_fraction.median"),
        "sharing fraction, 95th percentile (by request)": (percent, "sharing_fraction.p95"),
        "token hit rate (by token)": (percent, "token_hit_rate"),
        "block accesses": (whole, "blocks.accesses"),
        "distinct blocks": (whole, "blocks.distinct"),
        "block reuse rate (by access)": (percent, "block_reuse_rate"),
        "blocks reused fraction (by block)": (percent, "blocks_reused_fraction"),
        "block hit count, mean": ("{:.2f}", "block_hit_count.mean"),
        "reuse gap, median (by block), s": ("{:,.2f}", "reuse_gap_s.median"),
        "reuse gap, median (by request), s": ("{:,.2f}", "reuse_gap_s_request_weighted.median"),
    }
    columns = {"measure": list(rows)}
    for mode, one in stats.items():
        columns[name_mode(mode)] = [read_rate(one, path) for _, path in rows.values()]
        columns[f"± {name_mode(mode)}"] = [_half_width(one, path) for _, path in rows.values()]
    return pd.DataFrame(columns, dtype=object), [form for form, _ in rows.values()]


def _half_width(stats, name):
    """Return half of the width of a rate's 95 % interval, None if it has none."""
    found = stats["intervals"].get(name)
    return found and (found[1] - found[0]) / 2


def tabulate_accountings(stats):
    """Return the main rates of both modes under the three accountings: a table (see PERCENTS for its formats)."""
    return pd.DataFrame([
        {
            "mode": name_mode(mode),
            "cached and counted": accounting.label,
            "mean sharing fraction": read_rate(one, f"{prefix}sharing_fraction.mean"),
            "± mean": _half_width(one, f"{prefix}sharing_fraction.mean"),
            "median sharing fraction": read_rate(one, f"{prefix}sharing_fraction.median"),
            "token hit rate": read_rate(one, f"{prefix}token_hit_rate"),
            "± rate": _half_width(one, f"{prefix}token_hit_rate"),
        }
        for mode, one in stats.items()
        for prefix, accounting in ACCOUNTINGS.items()
    ])  # fmt: skip


def tabulate_differences(results):
    """Return the differences of modes and accountings, with 95 % intervals, paired by conversation.

    Parameters
    ----------
    results : dict of str to studies.sharing.Result

    Returns
    -------
    pandas.DataFrame
        `what`, `against`, `rate`, `difference` (percentage points; of the block hit count, accesses), `low`, `high`,
        `verdict` (of `stats.intervals.judge_difference`).
    """
    single, multi = results["single_turn"], results["multi_turn"]
    rows = [("multi-turn", "single-turn", rate, (multi, rate), (single, rate)) for rate in COMPARED]
    for mode, one in results.items():
        for prefix, accounting in ACCOUNTINGS.items():
            for rate in ("sharing_fraction.mean", "token_hit_rate") if accounting.short else ():
                what = f"{name_mode(mode)}, {accounting.short}"
                rows.append((what, ACCOUNTINGS[""].label, rate, (one, f"{prefix}{rate}"), (one, rate)))
    return pd.DataFrame([_compare(*row) for row in rows if all(name in one.resampled.rates for one, name in row[3:])])


def _compare(what, against, rate, *both):
    factor = 1 if rate == "block_hit_count.mean" else 100
    values = [read_rate(one.stats, name) for one, name in both]
    draws = factor * np.subtract(*(one.resampled.rates[name].to_numpy() for one, name in both))
    row = {"what": what, "against": against, "rate": COMPARED[rate]}
    if None in values or np.isnan(draws).any():
        return {**row, "difference": None, "low": None, "high": None, "verdict": "not separated"}
    difference, (low, high) = factor * (values[0] - values[1]), interval(draws)
    separable = both[0][0].resampled.conversations > 1
    verdict = judge_difference([difference], low, high) if separable else "not separated"
    return {**row, "difference": difference, "low": low, "high": high, "verdict": verdict}


def name_mode(mode):
    """Return a mode as it is written.

    >>> name_mode("multi_turn")
    'multi-turn'
    """
    return mode.replace("_", "-")
