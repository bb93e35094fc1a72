"""The sections of a comparison, in their order: what each says and shows. Nothing is compared here."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kvprefix.cache.policies import label_policy
from kvprefix.report.comparison.curves import Study, list_common_names
from kvprefix.report.comparison.differences import format_columns, narrow_table, tabulate
from kvprefix.report.comparison.findings import pick_findings
from kvprefix.report.comparison.parameters import list_parameters, show_parameter
from kvprefix.report.comparison.parts import SORTS
from kvprefix.report.facts.answer import PLAN
from kvprefix.report.facts.comparison import (
    facts_at_equal_memory,
    facts_findings,
    facts_pairs,
    facts_parameters_compared,
    facts_rates_compared,
)
from kvprefix.report.facts.sharing import name_mode
from kvprefix.report.plots import comparison as plots
from kvprefix.report.rounding import percent, points
from kvprefix.report.section_files import SHARING
from kvprefix.report.sections import Section
from kvprefix.report.tables import Narrow, format_number
from kvprefix.report.words import say

DRAWN = ("lru", "opt")  # policies of the figure


class Compared(NamedTuple):
    """All that a comparison found; see the functions that made it."""

    reports: list
    measures: dict
    pairs: dict
    common: list
    lru: Study | None
    lru_measures: list
    parts: list
    policies: Study | None
    policy_measures: list
    engines: Study | None
    engine_measures: list
    plans: list
    findings: dict
    facts: dict


def add_sections(all_, folder):
    """Record all sections in a folder."""
    for add in (_add_summary, _add_parameters, _add_rates, _add_parts, _add_distributions, _add_cache, _add_engines,
                _add_plans, _add_findings, _add_paper):  # fmt: skip
        add(all_, Path(folder))


def _add_summary(all_, folder):
    section = Section("00-comparison", "What differs", folder)
    section.say("In short", say("compared.md", all_.facts["compared"]))


def _add_parameters(all_, folder):
    section = Section("10-parameters", "Parameters", folder)
    facts = facts_parameters_compared(all_.reports)
    section.say("What differs, and what that means", say("parameters_compared.md", facts))
    labels = [one.label for one in all_.reports]
    rows = [
        {"parameter": name, **{label: show_parameter(name, one) for label, one in zip(labels, values, strict=True)}}
        for name, values in list_parameters(all_.reports).items()
        if any(one != values[0] for one in values)
    ]  # fmt: skip
    if rows:
        narrow = None
        if len(labels) > 4:
            rows_of = [{"parameter": row["parameter"], "report": label, "value": row[label]}
                       for row in rows for label in labels]  # fmt: skip
            narrow = Narrow(pd.DataFrame(rows_of))
        caption = "Parameters, checksums and versions that differ."
        section.show_table("differ", caption, pd.DataFrame(rows), narrow=narrow)


def _add_rates(all_, folder):
    section = Section("20-rates", "Rates side by side", folder)
    facts = facts_pairs(all_.reports, all_.pairs, all_.measures)
    section.say("Which conversations are compared", say("pairs.md", facts))
    about = "unbounded cache, cold start; differences from the first report with 95 % intervals over conversations."
    for mode, measures in all_.measures.items():
        shares = [one for one in measures if one.share]
        section.show_table(
            mode.replace("_", "-"), f"Rates of the {name_mode(mode)} requests; differences in points: {about}",
            tabulate(shares), format_columns(shares, percent), narrow_table(shares, percent),
        )  # fmt: skip
    counts = [
        replace(one, keys={"measure": f"{name_mode(mode)}, {one.keys['measure']}"})
        for mode, measures in all_.measures.items()
        for one in measures
        if not one.share
    ]
    form = "{:,.2f}".format
    section.show_table(
        "counts", f"Counts per block and per request: {about}", tabulate(counts), format_columns(counts, form),
        narrow_table(counts, form),
    )  # fmt: skip
    caption = f"Differences from {all_.reports[0].label} with 95 % intervals over resampled conversations."
    section.show_figure("differences", caption, plots.draw_differences, all_.measures)
    section.say("Verdicts", say("rates_compared.md", facts_rates_compared(all_.reports, all_.measures)))
    if all_.common:
        _show_common(section, all_)


def _show_common(section, all_):
    rows = [one for one in all_.common if one.share]
    ends = ["difference", "95 % low", "95 % high"]
    head = ["mode", "report", "measure", "first", "report's", *ends, "verdict"]
    table = pd.concat([tabulate([one]).set_axis(head, axis=1) for one in rows], ignore_index=True)
    forms = dict.fromkeys(["first", "report's"], percent) | dict.fromkeys(ends, points)
    narrow = table[["mode", "measure", "first", "report's", "verdict"]]
    section.show_table(
        "common", "Rates of the common requests alone, paired request by request; differences in points.",
        table, forms, Narrow(narrow, {"first": percent, "report's": percent}),
    )  # fmt: skip


def _add_parts(all_, folder):
    section = Section("25-parts", "Where hits come from, and why the rest is missed", folder)
    for sort, (notebook, _) in SORTS.items():
        some = [replace(one, keys={sort: one.keys["part"]}) for one in all_.parts if one.keys["sort"] == sort]
        if not some:
            section.leave_out(f"Prompt tokens by {sort}: {_lacking(all_.reports, notebook)}.")
            continue
        caption = (
            f"Share of the prompt tokens by {sort}: nothing is evicted, prompts only; differences from the first "
            "report in points, with 95 % intervals made of both reports' own."
        )
        section.show_table(f"{sort}s", caption, tabulate(some), format_columns(some, percent),
                           narrow_table(some, percent))  # fmt: skip


def _add_distributions(all_, folder):
    section = Section("30-distributions", "Distributions", folder)
    modes = list(all_.measures)
    fractions = {mode: {one.label: one.sharing_fraction(mode) for one in all_.reports} for mode in modes}
    where = "unbounded cache, cold start, prompts only."
    section.show_figure(
        "sharing-fraction", f"Distribution of the sharing fraction over requests, by mode: {where}",
        plots.draw_sharing, fractions,
    )  # fmt: skip
    gaps = {mode: _read_gaps(all_.reports, mode) for mode in modes}
    lacking = [one.label for one in all_.reports if any(one.label not in some for some in gaps.values())]
    if lacking:
        section.leave_out(f"Reuse gaps: {', '.join(lacking)} has no curve of them (notebook {SHARING}).")
    else:
        section.show_figure(
            "reuse-gap", f"Distribution of the seconds between accesses of a block, each gap once: {where}",
            plots.draw_gaps, gaps,
        )  # fmt: skip
    accesses = {mode: {one.label: one.blocks[mode]["accesses"].to_numpy() for one in all_.reports} for mode in modes}
    section.show_figure(
        "hit-counts", f"Share of the distinct blocks that are accessed at least x times: {where}",
        plots.draw_hit_counts, accesses,
    )  # fmt: skip


def _read_gaps(reports, mode):
    """Return the reuse-gap curve of each report that has one: label to (x, y)."""
    found = {}
    for one in reports:
        frame = one.read_figure(SHARING, "reuse-gap-cdf", ["mode", "weighting", "reuse_gap_s", "share"])
        if frame is not None:
            rows = frame[(frame["mode"] == mode) & (frame["weighting"] == "block")]
            found[one.label] = rows["reuse_gap_s"].to_numpy(float), rows["share"].to_numpy(float)
    return found


def _add_cache(all_, folder):
    section = Section("40-cache", "Caches of limited size", folder)
    if all_.lru is None:
        section.leave_out(f"LRU curves: {_lacking(all_.reports, '40-cache-size')}.")
    else:
        unbounded = {one.label: one.stats["multi_turn"]["token_hit_rate"] for one in all_.lru.reports}
        section.show_figure(
            "lru-curve", "LRU's token hit rate over capacity in blocks, in tokens, and as a share of each report's own "
            "unbounded rate: multi-turn requests, prompts only, cold start; mean and range over seeds.",
            plots.draw_lru_curves, all_.lru, unbounded,
        )  # fmt: skip
        section.say("With equal memory", say("at_equal_memory.md", facts_at_equal_memory(all_.lru, all_.lru_measures)))
        _show_measures(section, "lru", "LRU's token hit rate at equal memory", all_.lru_measures)
    if all_.policies is None:
        section.leave_out(f"Eviction policies: {_lacking(all_.reports, '50-eviction')}.")
        return
    names = {name: label_policy(name) for name in list_common_names(all_.policies) if name in DRAWN}
    if names:
        caption = (
            "Token hit rate of LRU and of the optimum over capacity in tokens: multi-turn requests, prompts only, cold "
            "start; mean over seeds."
        )
        section.show_figure("policies", caption, plots.draw_policies, all_.policies, names)
    _show_measures(section, "policies", "Token hit rate of eviction policies at equal memory", all_.policy_measures)


def _show_measures(section, slug, what, measures):
    if not measures:
        section.leave_out(f"{what}: the reports have no capacity in common.")
        return
    caption = (
        f"{what}: multi-turn requests, means over draws of the arrival times; differences from the first report in "
        "points."
    )
    forms = format_columns(measures, percent)
    section.show_table(slug, caption, tabulate(measures), forms, narrow_table(measures, percent))


def _lacking(reports, notebook):
    lacking = [one.label for one in reports if notebook not in one.facts]
    return f"{', '.join(lacking)}: notebook {notebook} has not run with the parameters of the report"


def _add_engines(all_, folder):
    section = Section("70-engines", "Engines", folder)
    if all_.engines is None:
        section.leave_out(f"Engines: {_lacking(all_.reports, '70-engine-check')}.")
    elif not all_.engine_measures:
        section.leave_out("Engines: the reports have no pool of equal memory in common.")
    else:
        what = "Token hit rate of engines with pools of equal memory, generated tokens cached"
        _show_measures(section, "engines", what, all_.engine_measures)


def _add_plans(all_, folder):
    section = Section("80-plans", "Plans", folder)
    if not all_.plans:
        lacks = any(PLAN not in one.facts for one in all_.reports)
        section.leave_out(f"Plans: {_lacking(all_.reports, PLAN) if lacks else 'the reports have no plan in common'}.")
        return
    caption = (
        "Token hit rate of plans without DRAM, each report with its own cards and model: vLLM's replay, replies "
        "cached; differences from the first report in points, with 95 % intervals made of both reports' own."
    )
    section.show_table("plans", caption, tabulate(all_.plans), format_columns(all_.plans, percent),
                       narrow_table(all_.plans, percent))  # fmt: skip


def _add_findings(all_, folder):
    section = Section("80-findings", "Findings of the notebooks", folder)
    shown = pick_findings(all_.findings)
    section.say("Facts that differ", say("findings.md", facts_findings(all_.findings, shown)))
    if not shown:
        return
    labels = [one.label for one in all_.reports]
    rows = [
        {"notebook": one["notebook"], "fact": one["fact"],
         **{label: _show_fact(one["values"].get(label)) for label in labels}}
        for one in shown
    ]  # fmt: skip
    caption = "Facts of the notebooks that differ, by the names under which the reports keep them."
    narrow = pd.DataFrame([{"fact": f"{row['notebook']}: {row['fact']}", **{label: row[label] for label in labels[:4]}}
                           for row in rows])  # fmt: skip
    notes = (f"Not shown: {', '.join(labels[4:])}.",) if len(labels) > 4 else ()
    section.show_table("findings", caption, pd.DataFrame(rows), narrow=Narrow(narrow, notes=notes))


def _show_fact(value):
    large = isinstance(value, float) and abs(value) >= 1000
    return str(value).lower() if isinstance(value, bool) else format_number(value, "{:,.0f}" if large else None)


def _add_paper(all_, folder):
    section = Section("90-paper", "For a paper", folder)
    chosen = [
        replace(one, keys={"measure": f"{name_mode(mode)} {one.keys['measure']}"})
        for mode, some in all_.measures.items() for one in some
        if one.more["rate"] in ("token_hit_rate", "sharing_fraction.mean", "block_reuse_rate")
        or mode == "multi_turn" and one.share and one.more["rate"].endswith(".token_hit_rate")
    ]  # fmt: skip
    chosen += [
        replace(one, keys={"measure": f"LRU at {one.keys['memory (tokens)']:,} tokens"})
        for one in all_.lru_measures if len(one.values) == len(all_.reports)
    ]  # fmt: skip
    narrow = narrow_table(chosen, percent)
    caption = (
        f"{', '.join(one.label for one in all_.reports[1:])} against {all_.reports[0].label}. Rates of an unbounded "
        "cache, and of LRU at equal memory (multi-turn); cold start, prompts only unless said."
    )
    section.show_table("main", caption, narrow.frame, narrow.formats, narrow)
