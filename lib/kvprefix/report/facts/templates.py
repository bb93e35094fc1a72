"""What the study of templates found: facts and tables of what each behaviour computes, beside its reference."""

import pandas as pd

from kvprefix.report.facts.narrow import Estimate, say_notes, show_estimate
from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.tables import Narrow
from kvprefix.traces.behaviours import BEHAVIOURS

PROMPTS, REPLIES = "computed per request, prompts only", "computed per request, replies cached"
TIMES, LOW, HIGH = "times the reference", "95 % low", "95 % high"


def pair_behaviours(table):
    """Return a row per behaviour of the table of `studies.templates.study_templates`, in the order of BEHAVIOURS.

    Columns: `name`, `label`, `reference` (a label; the own one of a reference), `prompt`, `alone`, `computed` (tokens
    per request: of the prompt, computed with prompts cached only, and with replies cached too), `saved` (the share of
    computed tokens that caching replies saves), and with replies cached `ratio`, `low`, `high` and the ends of the
    interval of `computed`, `computed_low` and `computed_high`.
    """
    known = table[table["refused"] == ""].set_index(["behaviour", "outputs"])
    rows = []
    for name, behaviour in BEHAVIOURS.items():
        if (name, True) not in known.index:
            continue
        alone, cached = (known.loc[(name, outputs)] for outputs in (False, True))
        of_alone, of_cached = (one["computed_tokens"] / one["requests"] for one in (alone, cached))
        rows.append({
            "name": name, "label": behaviour.label, "reference": BEHAVIOURS[behaviour.reference].label,
            "prompt": cached["prompt_tokens"] / cached["requests"], "alone": of_alone, "computed": of_cached,
            "saved": 1 - of_cached / of_alone, "ratio": cached["ratio"], "low": cached["ratio_low"],
            "high": cached["ratio_high"], "computed_low": cached["low"], "computed_high": cached["high"],
        })  # fmt: skip
    return pd.DataFrame(rows)


@gives_facts
def facts_templates(table):
    """Return what each behaviour computes; `strip` beside `keep`, the others that cost more, and what is refused."""
    rows = pair_behaviours(table).to_dict("records") if len(table) else []
    named = {one["name"]: one for one in rows}
    others = [one for one in rows if one["label"] != one["reference"] and one["name"] != "strip"]
    refused = table[~table["outputs"] & (table["refused"] != "")]
    return {
        "requests": table["requests"].max(), "conversations": table["conversations"].max(),
        "keep": named.get("keep"), "strip": named.get("strip") if "keep" in named else None,
        "dearer": sorted((one for one in others if one["low"] > 1), key=lambda one: -one["ratio"]),
        "alike": [one["label"] for one in others if not one["low"] > 1],
        "refused": [
            {"label": BEHAVIOURS[name].label, "reason": reason}
            for name, reason in zip(refused["behaviour"], refused["refused"], strict=True)
        ],
    }  # fmt: skip


def tabulate_behaviours():
    """Tabulate what each behaviour does, and which one it is compared with."""
    return pd.DataFrame([
        {"behaviour": one.label, "what it does": one.says,
         "reference": "–" if one.reference == one.name else BEHAVIOURS[one.reference].label}
        for one in BEHAVIOURS.values()
    ])  # fmt: skip


def tabulate_templates(table):
    """Tabulate the behaviours: tokens per request, and how many times the reference's are computed."""
    rows = pair_behaviours(table)
    is_reference = rows["label"] == rows["reference"]
    ends = {TIMES: rows["ratio"], LOW: rows["low"], HIGH: rows["high"]}
    return pd.DataFrame({
        "behaviour": rows["label"], "reference": rows["reference"].mask(is_reference, "–"),
        "prompt tokens per request": rows["prompt"], PROMPTS: rows["alone"], REPLIES: rows["computed"],
        **{name: one.mask(is_reference) for name, one in ends.items()}, "saved by caching replies": rows["saved"],
    })  # fmt: skip


def narrow_templates(frame):
    """Narrow the table of behaviours: computed tokens per request, and the ratio with its interval."""
    times = [
        None if pd.isna(ratio) else Estimate(ratio, low, high)
        for ratio, low, high in zip(frame[TIMES], frame[LOW], frame[HIGH], strict=True)
    ]
    made = pd.DataFrame({
        "computed per request": frame["behaviour"], "prompts only": frame[PROMPTS], "replies cached": frame[REPLIES],
        "times": pd.Series([*times, None], dtype=object)[:-1],
    })  # fmt: skip
    formats = {**dict.fromkeys(["prompts only", "replies cached"], "{:,.0f}"), "times": show_estimate(".2f")}
    return Narrow(made, formats, say_notes(interval="conversations"))
