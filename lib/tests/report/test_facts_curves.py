"""What curves over capacity show, number by number."""

import numpy as np
import pandas as pd
import pytest
from said import missing, said_of

from kvprefix.models.memory import Model
from kvprefix.report.facts import curves as facts_curves

MODEL = Model("Tiny", 2**20, "")  # a MiB per token: 1,024 tokens are a GiB


def lru_curve(rates=(0.1, 0.4, 0.7, 0.8, 0.9)):
    """Return a curve of two seeds, 0.02 apart, whose mean has these rates at 64, 128, ... blocks."""
    return pd.DataFrame([
        (seed, 64 * 2**k, rate + (0.01 if seed else -0.01)) for seed in (0, 1) for k, rate in enumerate(rates)
    ], columns=["seed", "capacity_blocks", "token"])  # fmt: skip


def test_the_knee():
    # The third of five doublings lies highest above the line; 256 blocks of 16 tokens are 4,096 MiB.
    facts = facts_curves.facts_knee(lru_curve(), 16, MODEL)
    assert facts["blocks"] == 256 and facts["gib"] == 4 and facts["token_hit_rate"] == pytest.approx(0.7)
    assert (facts["points_before"], facts["points_after"]) == pytest.approx((30, 10))
    assert facts_curves.mark_knee(facts) == [("knee", 256)]
    text = said_of(facts_curves.facts_knee, lru_curve(), 16, MODEL)
    assert not missing(
        text, "knee of the curve by token is at ~ 256 ~ blocks ~ 4,096 ~ tokens ~ 4.0 ~ GiB of Tiny", "hits ~ 70.0 %",
        "77.8 % ~ of what the largest", "from ~ 64 ~ blocks on, a doubling adds ~ 30.0 ~ points",
        "to ~ 1,024 ~ blocks ~ 10.0",
    )  # fmt: skip


@pytest.mark.parametrize("rates", [(0.0, 0.0, 0.0), (0.1, 0.2, 0.9), (0.5,)])
def test_a_curve_without_a_knee(rates):
    facts = facts_curves.facts_knee(lru_curve(rates), 16, MODEL)
    assert facts == {"blocks": None} and facts_curves.mark_knee(facts) == []
    assert "has no knee" in said_of(facts_curves.facts_knee, lru_curve(rates), 16, MODEL)


def engine_curve():
    """Return an engine's curve of three seeds at four pools, the last larger than LRU's largest capacity."""
    rows = [
        (seed, blocks, rate + 0.03 * (seed - 1), 0.95)
        for seed in (0, 1, 2) for blocks, rate in ((64, 0.05), (181, 0.5), (512, 0.85), (4096, 0.92))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["seed", "capacity_blocks", "token", "unbounded"])


def test_an_engine_s_curve_beside_lru():
    arguments = engine_curve(), lru_curve(), "An engine", 16, MODEL
    facts = facts_curves.facts_engine_curve(*arguments)
    assert [one["blocks"] for one in facts["capacities"]] == [64, 181, 512, 4096] and facts["draws"] == 3
    # 181 is 64 * 2 ** 1.5 (181.02): halfway between 0.4 and 0.7
    prompts = [one["prompts_only"] for one in facts["capacities"]]
    assert prompts == pytest.approx([0.1, 0.55, 0.8, 0.9], abs=1e-4)
    assert facts["capacities"][1]["token_hit_rate"] == pytest.approx({"mean": 0.5, "least": 0.47, "most": 0.53})
    assert not missing(
        said_of(facts_curves.facts_engine_curve, *arguments), "An engine with replies cached hits ~ 95.0 %",
        "With ~ 64 ~ blocks ~ 1.0 ~ GiB of Tiny's KV cache) it hits ~ 5.0 % ~ 2.0 % ~ 8.0 % ~ prompts only ~ 10.0 %",
        "With ~ 181 ~ blocks ~ 2.8 ~ GiB) it hits ~ 50.0 % ~ 47.0 % ~ 53.0 % ~ prompts only ~ 55.0 %",
        "means of ~ 3 ~ draws",
    )  # fmt: skip


def test_traces_in_one_frame():
    # At 1 % the first trace is halfway (on the logarithmic axis) from 0.1 % to 10 %; the second's curve starts above.
    frame = pd.DataFrame({
        "trace": ["a & b"] * 3 + ["c"] * 2 + ["d"], "distinct_blocks": [5000] * 3 + [70] * 2 + [9], "maximum": [0.6] * 3
        + [0.25] * 2 + [0.0], "share_of_blocks": [0.001, 0.1, 1.0, 0.05, 0.2, 0.5],
        "share_of_maximum": [0.2, 0.6, 1.0, 0.3, 0.9, np.nan],
    })  # fmt: skip
    facts = facts_curves.facts_normalised(frame)["traces"]
    assert [one["of_maximum"] for one in facts[0]["shares"]] == pytest.approx([0.4, 0.6])
    assert facts[1]["shares"][0]["of_maximum"] is None
    assert facts[1]["shares"][1]["of_maximum"] == pytest.approx(0.6)  # halfway from 5 % to 20 %
    text = said_of(facts_curves.facts_normalised, frame)
    assert not missing(
        text, "A & b ~ 5,000 ~ distinct blocks ~ 1 ~ % of them reaches ~ 40.0 % ~ 10 ~ % of them reaches ~ 60.0 % ~ "
        "maximum, ~ 60.0 %", "D (~ 9 ~ distinct blocks): nothing is ever hit",
        "C (~ 70 ~ distinct blocks): a cache of 10 % of them reaches 60.0 % of the maximum",
    )  # fmt: skip
