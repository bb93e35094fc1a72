"""Where hits come from and why the rest is missed, in several reports, without a bound: from their kept facts."""

from kvprefix.report.comparison.differences import Beside, no_difference
from kvprefix.report.comparison.parameters import differs_in_seed_only
from kvprefix.report.comparison.rates import judge
from kvprefix.report.facts.answer import CAUSES, ORIGINS
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
            found += [_compare(sort, part, reports, [one.get(part) for one in parts]) for part in names]
    return [one for one in found if any(one.values.values())]


def _compare(sort, part, reports, shares):
    first, against = shares[0], {}
    for report, one in zip(reports[1:], shares[1:], strict=True):
        if first is None or one is None or None in (*first.values(), *one.values()):
            against[report.label] = no_difference("of both intervals")
            continue
        values = first["share"], one["share"]
        ends = combine_intervals((first["low"], first["high"]), (one["low"], one["high"]), values)
        seed_only = differs_in_seed_only(reports[0], report)
        against[report.label] = judge(*values, *ends, "of both intervals", seed_only)
    values = {report.label: one and one["share"] for report, one in zip(reports, shares, strict=True)}
    return Beside({"sort": sort, "part": LABELS[part]}, values, against, more={"name": part})
