"""What the study of hybrid models found, number by number, on a small table whose values are all different."""

import numpy as np
import pandas as pd
import pytest
from said import missing, said_of

from kvprefix.report.facts import hybrids as facts_hybrids

TOKENS = {  # pool -> case -> two seeds
    500: {"full": (0.31, 0.33), "all": (0.34, 0.35), "ends": (0.21, 0.25)},
    0: {"full": (0.80, 0.82), "all": (0.80, 0.82), "ends": (0.50, 0.54)},
}


def frame():
    rows = []
    for pool, cases in TOKENS.items():
        for name, tokens in cases.items():
            for seed, token in enumerate(tokens):
                step = token - cases["full"][seed]
                ends = (token - 0.03, token + 0.05, step - 0.01, step + 0.01) if seed == 0 else [np.nan] * 4
                rows.append((seed, pool, name, token, *ends))
    return pd.DataFrame(rows, columns=["seed", "pool", "case", "token", "low", "high", "step_low", "step_high"])


def test_the_table_names_the_pool_without_a_bound():
    table = facts_hybrids.tabulate_hybrids(frame())
    assert list(table["pool (blocks)"]) == ["500"] * 3 + ["no bound"] * 3
    # At 500 blocks retention 0 loses 10 and 8 points: 9, and of the first seed 10 +- 1, moved by 1.
    assert table[["token hit rate", "points", "low", "high"]].iloc[2].tolist() == pytest.approx([0.23, -9, -10, -8])
    assert table["verdict"].tolist() == ["–", "higher", "lower", "–", "equal", "lower"]


def test_what_is_said():
    text = said_of(facts_hybrids.facts_hybrids, frame())
    assert not missing(
        text, "memory of ~ 500 ~ blocks ~ 32.0 %", "none ~ 34.5 % ~ +2.50 ~ higher",
        "retention 0 ~ 23.0 % ~ −9.00 ~ lower", "Without a bound ~ 81.0 %", "none ~ 81.0 % ~ 0.00 ~ equal",
        "retention 0 ~ 52.0 % ~ −29.00 ~ lower", "window of ~ 128 ~ tokens",
    )  # fmt: skip
