"""Where hits come from, why the rest is missed, and what plans hit, in several reports: from their kept facts."""

from kvprefix.report.comparison.differences import Beside, no_difference
from kvprefix.report.comparison.parameters import differs_in_seed_only
from kvprefix.report.comparison.rates import judge
from kvprefix.report.facts.answer import CAUSES, ORIGINS, PLAN
from kvprefix.report.labels import LABELS
from kvprefix.stats.paired import combine_intervals

SORTS = {"origin": (ORIGINS, "origins"), "cause": (CAUSES, "causes")}


def compare_parts(reports):
    """Compare the shares of prompt tokens by origin and by cause.

    Returns
    -------
    list of Beside
        With the keys `sort` (`origin` or `cause`) and `part`; none of a sort that a report has not.
    """
    found = []
    for sort, (notebook, name) in SORTS.items():
        sizes = [one.facts.get(notebook, {}).get(name, {}).get("sizes") for one in reports]
        if all(sizes):
            parts = [one[-1]["parts"] for one in sizes]
            names = dict.fromkeys(part for one in parts for part in one)
            found += [
                _compare({"sort": sort, "part": LABELS[part]}, reports, [one.get(part) for one in parts], name=part)
                for part in names
            ]
    return [one for one in found if any(one.values.values())]


def compare_plans(reports):
    """Compare what plans without DRAM hit that all reports measured, whatever their cards and models.

    Returns
    -------
    list of Beside
        With the keys `replicas` and `router`; none if a report has no plans.
    """
    grids = [one.facts.get(PLAN, {}).get("plan_grid", {}).get("plans", []) for one in reports]
    cells = [{(one["replicas"], one["router"]): one for one in some if not one["dram_gib"]} for some in grids]
    shares = [{key: {"share": one["token"], **one} for key, one in some.items()} for some in cells]
    common = [key for key in shares[0] if all(key in some for some in shares)]
    return [
        _compare({"replicas": n, "router": router}, reports, [some[n, router] for some in shares])
        for n, router in common
    ]


def _compare(keys, reports, shares, **more):
    first, against = shares[0], {}
    for report, one in zip(reports[1:], shares[1:], strict=True):
        if first is None or one is None or None in [some[name] for some in (first, one) for name in ("low", "high")]:
            against[report.label] = no_difference("of both intervals")
            continue
        values = first["share"], one["share"]
        ends = combine_intervals((first["low"], first["high"]), (one["low"], one["high"]), values)
        seed_only = differs_in_seed_only(reports[0], report)
        against[report.label] = judge(*values, *ends, "of both intervals", seed_only)
    values = {report.label: one and one["share"] for report, one in zip(reports, shares, strict=True)}
    return Beside(keys, values, against, more=more)
