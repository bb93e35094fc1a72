"""What the study of hybrid models found: facts and a table of what windows and their retention cost or gain."""

import pandas as pd

from kvprefix.report.facts.engines import tabulate_cases
from kvprefix.report.facts.plain import gives_facts
from kvprefix.studies.hybrids import HYBRIDS, UNBOUNDED, WINDOW, name_pool


def tabulate_hybrids(frame):
    """Tabulate the cases at each pool, with the difference to full attention."""
    tables = [tabulate_cases(frame, pool, HYBRIDS) for pool in frame["pool"].unique()]
    table = pd.concat(tables, ignore_index=True)
    table["pool (blocks)"] = table["pool (blocks)"].map(name_pool)
    return table


@gives_facts
def facts_hybrids(frame):
    """Return the rates of full attention and of the hybrid at each pool, None for no bound."""
    pools = []
    for pool in frame["pool"].unique():
        table = tabulate_cases(frame, pool, HYBRIDS).rename(columns={"token hit rate": "token_hit_rate"})
        others = table[table["case"] != HYBRIDS["full"].label]
        pools.append({
            "blocks": None if pool == UNBOUNDED else pool, "token_hit_rate": table["token_hit_rate"].iloc[0],
            "others": others[["case", "token_hit_rate", "points", "verdict"]].to_dict("records"),
        })  # fmt: skip
    return {"window": WINDOW, "pools": pools}
