"""What the study of policies with hints found: facts and a table of the gap between LRU and OPT that each closes."""

from kvprefix.cache.hinted import DESCRIBED
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.report.facts.cache import tabulate_policies
from kvprefix.report.facts.plain import gives_facts

CLOSED = "of the gap"  # between LRU and the optimum


def tabulate_hinted(frame):
    """Tabulate the policies at each capacity, as `facts.cache.tabulate_policies`, and CLOSED.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.hinted.study_hinted`.

    Returns
    -------
    pandas.DataFrame
        CLOSED is a policy's points against LRU over the optimum's, means over seeds; NaN if the optimum has none.
    """
    table = tabulate_policies(frame, {"token": 1.0}).drop(columns=["± sd", "of the unbounded rate"])
    gain = table["blocks"].map(table[table["policy"] == OPT.label].set_index("blocks")["against LRU"])
    table[CLOSED] = (table["against LRU"] / gain).where(gain > 0)
    return table


@gives_facts
def facts_hinted(table):
    """Return what each policy with hints closes of the gap to the optimum; from the table of `tabulate_hinted`.

    Returns
    -------
    dict
        `policies` : each `policy`, at how many capacities it is `better` and `worse` than LRU, and `best`, the row of
        the capacity at which it closes most, among those where it is better if there are any; None if there is no gap.
        `most` : the best of these rows, by the same rule. `left_out` : the names and labels of the policies that the
        data tell nothing.
    """
    policies = []
    for one in DESCRIBED.values():
        rows = table[table["policy"] == one.label]
        if len(rows):
            counts = {name: (rows["verdict"] == name).sum() for name in ("better", "worse")}
            policies.append({"policy": one.label, **counts, "best": _pick_best(_list_rows(rows, table))})
    there = {one["policy"] for one in policies}
    return {
        "capacities": table["blocks"].nunique(), "policies": policies,
        "most": _pick_best([one["best"] for one in policies if one["best"]]),
        "left_out": [{"name": one.name, "policy": one.label} for one in DESCRIBED.values() if one.label not in there],
    }  # fmt: skip


def _list_rows(rows, table):
    """Return the rows at which there is a gap to close, as dicts, with what LRU and the optimum hit there."""
    rates = table.pivot(index="blocks", columns="policy", values="token hit rate")
    return [
        {"policy": row["policy"], "blocks": row["blocks"], "closed": row[CLOSED], "points": row["against LRU"],
         "points_interval": [row["low"], row["high"]], "verdict": row["verdict"], "rate": row["token hit rate"],
         "lru": rates[LRU.label][row["blocks"]], "opt": rates[OPT.label][row["blocks"]]}
        for row in rows.dropna(subset=CLOSED).to_dict("records")
    ]  # fmt: skip


def _pick_best(rows):
    return max(rows, key=lambda row: (row["verdict"] == "better", row["closed"]), default=None)
