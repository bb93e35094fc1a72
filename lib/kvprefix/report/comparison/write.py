"""Compare reports and write the comparison's folder: page, figures, tables, paper kit and all numbers as JSON."""

import json
import shutil

from kvprefix import __version__
from kvprefix.cache.policies import label_policy
from kvprefix.files.paths import InputError, write_bytes
from kvprefix.report.comparison import curves
from kvprefix.report.comparison.findings import compare_findings
from kvprefix.report.comparison.folders import (
    KIND,
    RESULT,
    check_output,
    choose_output,
    find_report,
    name_reports,
    replace_folder,
)
from kvprefix.report.comparison.parameters import list_parameters, list_things
from kvprefix.report.comparison.parts import compare_parts, compare_plans
from kvprefix.report.comparison.rates import compare_common, compare_rates
from kvprefix.report.comparison.read import read_report
from kvprefix.report.comparison.sections import Compared, add_sections
from kvprefix.report.facts.comparison import facts_compared
from kvprefix.report.facts.plain import make_plain
from kvprefix.report.page.join import write_report
from kvprefix.studies.engines import list_engines

VERSION = 1  # raise when a key of `comparison.json` changes its meaning


def compare_reports(given, out=None):
    """Compare reports and write the result.

    Parameters
    ----------
    given : sequence of path-like
        Two or more: folders, or names below `reports/`. The others are compared with the first.
    out : path-like, optional
        The folder to write; by default `reports/A-vs-B`.

    Returns
    -------
    folder : pathlib.Path
    facts : dict
        Of `facts.comparison.facts_compared`.

    Raises
    ------
    InputError
        Fewer than two, what `read.read_report` and `folders.check_output` refuse, or no common measure.
    """
    if len(given) < 2:
        raise InputError(f"compare got {len(given)} reports; expected two or more")
    folders = [find_report(one) for one in given]
    path = check_output(choose_output(folders) if out is None else out, folders)
    reports = [read_report(folder, label) for folder, label in zip(folders, name_reports(folders), strict=True)]
    all_ = compare(reports)
    with replace_folder(path) as folder:
        add_sections(all_, folder)
        *some, last = [one.label for one in reports[1:]]
        title = f"{', '.join(some)} and {last}" if some else last
        write_report(folder, f"Prefix sharing of the KV cache: {title} against {reports[0].label}")
        shutil.rmtree(folder / "sections")
        write_bytes(folder / RESULT, json.dumps(describe(all_), indent=1, allow_nan=False) + "\n")
    return path, all_.facts["compared"]


def compare(reports):
    """Return a Compared of reports; the others are compared with the first."""
    measures, pairs = compare_rates(reports)
    same = {one["report"] for one in pairs["multi_turn"] if not one["conversations_only_in_first"]
            and not one["conversations_only_in_report"]}  # fmt: skip
    lru = curves.read_study(reports, "40-cache-size", "lru-curve", what="lru")
    policies = curves.read_study(reports, "50-eviction", "policies", name="policy")
    policies = curves.add_named(policies, reports, "50-eviction", "hinted", "policy")
    engines = curves.read_study(reports, "70-engine-check", "engines", capacity="pool", name="case")
    bounded = [curves.compare_at(lru, curves.choose_memories(lru), same) if lru else []]
    for study, label in ((policies, label_policy), (engines, _label_engine)):
        memories = curves.list_comparable(study, curves.list_common_names(study)) if study else []
        bounded.append(curves.compare_at(study, memories, same, label) if study else [])
    findings, parts, plans = compare_findings(reports), compare_parts(reports), compare_plans(reports)
    facts = facts_compared(reports, measures, [*parts, *plans, *(one for some in bounded for one in some)], findings)
    return Compared(
        reports, measures, pairs, compare_common(reports, pairs), lru, bounded[0], parts, policies, bounded[1], engines,
        bounded[2], plans, findings, {"compared": facts},
    )  # fmt: skip


def describe(all_):
    """Return all numbers of a comparison, as `comparison.json` holds them."""
    first, *others = all_.reports
    parameters = list_parameters(all_.reports)
    differ = {name: some for name, some in parameters.items() if any(one != some[0] for one in some)}
    pairs = {
        mode: [{name: one for name, one in pair.items() if name != "positions"} for pair in some]
        for mode, some in all_.pairs.items()
    }
    return make_plain({
        "kind": KIND,
        "version": VERSION,
        "kvprefix": __version__,
        "reports": [one.label for one in all_.reports],
        "verdicts": {one["report"]: one["verdict"] for one in all_.facts["compared"]["pairs"]},
        "parameters": {
            "differ": differ,
            "equal": {name: some[0] for name, some in parameters.items() if name not in differ},
            "things": {one.label: list_things(first, one) for one in others},
        },
        "pairs": pairs,
        "rates": [one.as_dict() for some in all_.measures.values() for one in some],
        "common_requests": [one.as_dict() for one in all_.common],
        "lru": [one.as_dict() for one in all_.lru_measures],
        "parts": [one.as_dict() for one in all_.parts],
        "policies": [one.as_dict() for one in all_.policy_measures],
        "engines": [one.as_dict() for one in all_.engine_measures],
        "plans": [one.as_dict() for one in all_.plans],
        "findings": all_.findings,
    })  # fmt: skip


def _label_engine(name):
    cases = list_engines()
    return cases[name].label if name in cases else name
