"""A comparison of reports: what differs in their parameters, which conversations they share, and the verdicts."""

from kvprefix.report.comparison.curves import NEAR
from kvprefix.report.comparison.differences import DECIDED, count_verdicts
from kvprefix.report.comparison.findings import count_findings
from kvprefix.report.comparison.parameters import (
    differs_in_seed_only,
    list_parameters,
    list_renamed,
    list_things,
    show_parameter,
)
from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.facts.sharing import name_mode
from kvprefix.stats.intervals import DRAWS

NO_DIFFERENCE, NOT_SEPARATED, DIFFERENT = "no difference", "not separated", "different"


@gives_facts
def facts_compared(reports, measures, bounded, found):
    """Return, for each report but the first, a verdict of all that is compared, and its main rate.

    Parameters
    ----------
    reports : list of Report
    measures : dict of str to list of Beside
        Of `comparison.rates.compare_rates`.
    bounded : list of Beside
        At equal memory.
    found : dict
        Of `comparison.findings.compare_findings`.
    """
    first, pairs = reports[0], []
    for other in reports[1:]:
        rates = [one for some in measures.values() for one in some]
        counts = count_verdicts([*rates, *bounded], other.label)
        facts = count_findings(found, first.label, other.label)
        main = next(one for one in measures["multi_turn"] if one.more["rate"] == "token_hit_rate")
        decided = sum(counts[name] for name in DECIDED)
        undecided = counts["not separated"] or facts
        pairs.append({
            "report": other.label, "verdict": DIFFERENT if decided else NOT_SEPARATED if undecided else NO_DIFFERENCE,
            "measures": sum(counts.values()), "higher": counts["higher"], "lower": counts["lower"],
            "open": counts["not separated"], "equal": counts["equal"], "facts": facts,
            "things": list_things(first, other), "first_rate": main.values[first.label],
            "rate": main.values[other.label], **_in_points(main.against[other.label]),
        })  # fmt: skip
    return {"first": first.label, "pairs": pairs}


@gives_facts
def facts_parameters_compared(reports):
    """Return what differs in the parameters of each report and the first, what that means, and what is equal in all."""
    first, pairs = reports[0], []
    for other in reports[1:]:
        things = list_things(first, other)
        pairs.append({
            "report": other.label, "things": things, "seed_only": differs_in_seed_only(first, other),
            "renamed": list_renamed(first, other), "data": "data" in things, "tokenizer": "tokenizer" in things,
            "kv_model": first.parameters["kv_model"] != other.parameters["kv_model"],
        })  # fmt: skip
    values = list_parameters(reports)
    equal = {name: some[0] for name, some in values.items() if all(one == some[0] for one in some)}
    versions = [name for name in values if name.startswith("versions.")]
    return {
        "first": first.label,
        "blocks": [one.label for one in reports if one.lists_blocks],
        "pairs": pairs,
        "equal": [
            {"parameter": name, "value": show_parameter(name, one)}
            for name, one in equal.items()
            if name not in versions and (one is not None or name == "max_conversations")
        ],
        "versions_equal": all(name in equal for name in versions),
    }


@gives_facts
def facts_pairs(reports, pairs, measures):
    """Return how many conversations and requests each report has in common with the first, and how these differ.

    Only of the multi-turn mode: the conversations of both modes are the same. `apart` names the measures whose
    intervals are not paired, because a report lacks their counts per request.
    """
    keys = ("conversations_common", "conversations_only_in_first", "conversations_only_in_report", "requests_common")
    listed = []
    for one in pairs["multi_turn"]:
        common = one["requests_common"]
        listed.append({
            "report": one["report"], **{name: one[name] for name in keys},
            **{
                name: one[f"requests_with_{name}"] / common if common else None
                for name in ("equal_prompts", "more_cached", "fewer_cached", "equal_cached")
            },
        })  # fmt: skip
    apart = [
        one.keys["measure"] for one in measures["multi_turn"]
        if any(found["interval"] == "of both intervals" and found["verdict"] for found in one.against.values())
    ]  # fmt: skip
    return {"first": reports[0].label, "pairs": listed, "apart": apart, "draws": DRAWS}


@gives_facts
def facts_rates_compared(reports, measures):
    """Return which rates of each report are higher, lower, not separated and equal, by mode."""
    listed = []
    for other in reports[1:]:
        by_verdict = {name: [] for name in (*DECIDED, "not separated", "equal")}
        for mode, some in measures.items():
            for one in some:
                verdict = one.against[other.label]["verdict"]
                if verdict is not None:
                    by_verdict[verdict].append({"mode": name_mode(mode), "measure": one.keys["measure"]})
        listed.append({
            "report": other.label, "higher": by_verdict["higher"], "lower": by_verdict["lower"],
            "open": by_verdict["not separated"], "equal": by_verdict["equal"],
        })  # fmt: skip
    return {"first": reports[0].label, "reports": listed}


@gives_facts
def facts_at_equal_memory(study, measures):
    """Return what each report's LRU rate is, beside the first's, at the least, a middle and the largest memory."""
    labels = [one.label for one in study.reports]
    chosen = [measures[k] for k in sorted({0, len(measures) // 2, len(measures) - 1})] if measures else []
    return {
        "first": labels[0],
        "near": NEAR,
        "reports": [
            {
                "report": label,
                "same": any(one.against[label]["interval"] == "over arrival times" for one in chosen),
                "memories": [
                    {
                        "tokens": one.keys["memory (tokens)"], "first_rate": one.values[labels[0]],
                        "rate": one.values[label], **_in_points(one.against[label]),
                    }
                    for one in chosen
                ],
            }
            for label in labels[1:]
        ],
    }  # fmt: skip


@gives_facts
def facts_findings(found, shown):
    """Return how many facts of how many notebooks are compared, differ and are shown."""
    return {
        "notebooks": len(found["notebooks"]), "facts": found["facts"], "differ": len(found["differ"]),
        "shown": len(shown),
    }  # fmt: skip


def _in_points(found):
    if found["difference"] is None:
        return {"points": None, "low": None, "high": None, "verdict_of_rate": None}
    ends = {name: None if found[key] is None else 100 * found[key] for name, key in
            (("points", "difference"), ("low", "low"), ("high", "high"))}  # fmt: skip
    return {**ends, "verdict_of_rate": found["verdict"]}
