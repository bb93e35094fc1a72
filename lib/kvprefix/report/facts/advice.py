"""What the linter found: facts, the table of sites, and both texts where prompts part."""

import pandas as pd

from kvprefix.report.facts.explained import FEW
from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.rounding import percent
from kvprefix.report.tables import Narrow
from kvprefix.stats.intervals import bootstrap_rates, interval

SHARE = "share of prompt tokens"
LISTED = 12  # sites in tables and figures: those that win most


@gives_facts
def facts_advice(found, rows):
    """Return what all fixes together win, with its interval over resampled conversations, and what each adds.

    Parameters
    ----------
    found : dict
    rows : pandas.DataFrame
        Of `studies.lint.study_lint`.
    """
    whole = max(found["prompt_tokens"], 1)
    won = (rows["hit_tokens_after"] - rows["hit_tokens"]).to_numpy()
    low, high = interval(bootstrap_rates(won[:, None], rows["prompt_tokens"], rows["conversation_index"]))
    proved = [one for one in found["sites"] if one["proved"]]
    worth = [one for one in proved if one["recoverable_tokens"] >= FEW * whole]
    return {
        "rate": found["hit_tokens"] / whole,
        "after": min((found["hit_tokens"] + found["recoverable_tokens"]) / whole, 1.0),  # prompts may grow
        "points": 100 * found["recoverable_tokens"] / whole, "low": 100 * low[0], "high": 100 * high[0],
        "estimated": found["estimated_tokens"] / whole, "proved": len(worth), "small": len(proved) - len(worth),
        "sites": [
            {"fix": one["fix"], "kind": one["kind"], "where": one["where"], "requests": one["requests"],
             "points": 100 * one["recoverable_tokens"] / whole} for one in worth[:LISTED]
        ],
        "unproved": [
            {"fix": one["fix"], "estimated": one["estimated_tokens"] / whole} for one in found["sites"]
            if not one["proved"]
        ][:LISTED],
        "notes": found["notes"],
    }  # fmt: skip


def tabulate_sites(found):
    """Tabulate the sites: where, what kind of value, how often it changes, and what is won; the best first."""
    whole = max(found["prompt_tokens"], 1)
    return pd.DataFrame([
        {"fix": number, "kind": one["kind"], "where": one["where"], "example": one["example"],
         "values": one["values"], "changes": one["changes"], "requests": one["requests"],
         "estimate (tokens)": one["estimated_tokens"], "recoverable (tokens)": one["recoverable_tokens"],
         SHARE: None if one["recoverable_tokens"] is None else one["recoverable_tokens"] / whole}
        for number, one in enumerate(found["sites"][:LISTED], start=1)
    ])  # fmt: skip


def narrow_sites(frame):
    """Narrow the table of sites."""
    table = pd.DataFrame({
        "fix": frame["fix"], "kind": frame["kind"], "where": frame["where"], "requests": frame["requests"],
        "won": frame[SHARE],
    })  # fmt: skip
    return Narrow(table, {"won": percent, "requests": "{:,.0f}"})


def tabulate_sides(found):
    """Tabulate what stands in a prompt, and in the earlier one, where they part, and the fix in a sentence."""
    return pd.DataFrame([
        {"fix": number, "here": one["both_sides"][0], "in the earlier prompt": one["both_sides"][1],
         "what to do": one["fix"]}
        for number, one in enumerate(found["sites"][:LISTED], start=1)
    ])  # fmt: skip


def narrow_sides(frame):
    """Narrow the table of both sides: the fixes are in the other table's order."""
    return Narrow(frame[["fix", "here", "in the earlier prompt"]])


def list_steps(found):
    """Return the token hit rate before and after each proved fix, in their order: a row per fix."""
    whole, hits, steps = max(found["prompt_tokens"], 1), found["hit_tokens"], []
    for number, one in enumerate([one for one in found["sites"] if one["proved"]][:LISTED], start=1):
        steps.append({"fix": number, "kind": one["kind"], "before": hits / whole,
                      "won": one["recoverable_tokens"] / whole})  # fmt: skip
        hits += one["recoverable_tokens"]
    return pd.DataFrame(steps)
