"""What the timing study found, number by number, on small tables whose values are all different."""

import numpy as np
import pandas as pd
import pytest
from said import missing, said_of, says

from kvprefix.report.facts import timing as facts_timing

RATES = {  # variant -> capacity -> two seeds
    "all at once": {10: (0.50, 0.54), 1000: (0.72, 0.74), 4000: (0.80, 0.81), 9000: (0.9, 0.9), 9500: (0.95, 0.95)},
    "slow": {10: (0.21, 0.24), 1000: (0.60, 0.66), 4000: (0.79, 0.80), 9000: (0.9, 0.9), 9500: (0.95, 0.95)},
    "causal": {10: (0.20, 0.22), 1000: (0.55, 0.59), 4000: (0.77, 0.80), 9000: (0.9, 0.9), 9500: (0.95, 0.95)},
}


def frame():
    """Return a study of three variants: intervals of the first seed alone, the difference's wider than a point."""
    rows = []
    for name, capacities in RATES.items():
        for capacity, tokens in capacities.items():
            for seed, token in enumerate(tokens):
                gain = token - RATES["causal"][capacity][seed]
                ends = (token - 0.05, token + 0.03, gain - 0.02, gain + 0.04) if seed == 0 else [np.nan] * 4
                rows.append((name, seed, capacity, token, *ends))
    columns = ["variant", "seed", "capacity_blocks", "token", "low", "high", "base_low", "base_high"]
    return pd.DataFrame(rows, columns=columns)


def test_the_table_of_variants():
    table = facts_timing.tabulate_variants(frame(), [10, 1000]).set_index(["blocks", "variant"])
    assert list(table)[:5] == ["token hit rate", "± sd", "95 % low", "95 % high", "against causal"]
    # At 10 blocks, all at once: mean 0.52, 0.02 above its first seed: 0.45 to 0.53 becomes 0.47 to 0.55. It is 30 and
    # 32 points above causal, mean 31; the first seed's 28 to 34 becomes 29 to 35.
    expected = {
        (10, "all at once"): [0.52, 0.04 / 2**0.5, 0.47, 0.55, 31, 29, 35],
        (10, "slow"): [0.225, 0.03 / 2**0.5, 0.175, 0.255, 1.5, -0.5, 5.5],
        (1000, "slow"): [0.63, 0.06 / 2**0.5, 0.58, 0.66, 6, 4, 10],
    }
    for at, row in expected.items():
        assert table.loc[at].drop("verdict").astype(float).tolist() == pytest.approx(row), at
    assert table.loc[(10, "causal"), "against causal"] == 0 and pd.isna(table.loc[(10, "causal"), "low"])
    assert table["verdict"].tolist() == ["higher", "not separated", "–", "higher", "higher", "–"]


def test_rates_are_means_of_seeds_not_medians():
    third = frame()[lambda rows: rows["seed"] == 1].assign(seed=2)
    third["token"] += np.where(third["variant"] == "slow", 0.3, 0.03)
    table = facts_timing.tabulate_variants(pd.concat([frame(), third]), [10]).set_index("variant")
    assert table.loc["slow", "token hit rate"] == pytest.approx((0.21 + 0.24 + 0.54) / 3)
    assert table.loc["slow", "against causal"] == pytest.approx(100 * (0.01 + 0.02 + 0.29) / 3)
    text = said_of(facts_timing.facts_clocks, pd.concat([frame(), third]), 16, tokens=160)
    assert not missing(text, "slow ~ 33.0 % ~", "causal clock hits ~ 22.3 %", "look ~ 2.4 ~ times")  # 0.53 / 0.2233


def test_the_capacities_of_the_table_are_a_quarter_to_three_quarters_of_the_grid():
    grid = pd.DataFrame({"capacity_blocks": np.repeat(np.arange(24) ** 2, 2)})
    assert facts_timing.choose_capacities(grid).tolist() == [36, 144, 324]
    assert facts_timing.choose_capacities(grid, 2).tolist() == [36, 324]


def test_what_a_naive_clock_promises():
    # 32,768 tokens are 2,048 blocks of 16: by ratio 1,000 is the nearer one of 1,000 (0.49) and 4,000 (1.95)? No:
    # 4,000 / 2,048 = 1.95 and 2,048 / 1,000 = 2.05, so 4,000 is.
    text = said_of(facts_timing.facts_clocks, frame(), 16)
    assert says(text, "With ~ 4,000 ~ blocks ~ 64,000 ~ tokens")
    text = said_of(facts_timing.facts_clocks, frame(), 16, tokens=160)
    assert not missing(
        text, "With ~ 10 ~ blocks ~ 160 ~ tokens ~ causal clock hits ~ 21.0 % ~ 20.0 % ~ 22.0 %",
        "all at once ~ 52.0 % ~ (higher)", "slow ~ 22.5 % ~ (not separated)", "look ~ 2.5 ~ times",
    )  # fmt: skip
    nothing = frame()
    nothing.loc[nothing["variant"] == "causal", "token"] = 0.0
    assert says(said_of(facts_timing.facts_clocks, nothing, 16, tokens=160), "10 ~ blocks ~ hits nothing ~ 52.0 %")


def test_what_the_rate_does_goes_from_the_first_to_the_last():
    text = said_of(facts_timing.facts_rates, frame())  # capacities 1, 2 and 3 of five
    assert not missing(
        text, "With ~ 1,000 ~ blocks ~ from ~ 73.0 % ~ at all at once to ~ 57.0 % ~ at causal ~ higher",
        "With ~ 4,000 ~ blocks ~ from ~ 80.5 % ~ to ~ 78.5 %", "With ~ 9,000 ~ blocks ~ 90.0 % ~ 90.0 % ~ equal",
    )  # fmt: skip


def test_bursts_that_change_nothing_are_called_so():
    assert "None of these differences" not in said_of(facts_timing.facts_bursts, frame())
    alike = frame()
    alike.loc[:, ["base_low", "base_high"]] = [-0.5, 0.5]
    alike.loc[alike["seed"] == 1, ["low", "high", "base_low", "base_high"]] = np.nan
    assert "None of these differences" in said_of(facts_timing.facts_bursts, alike)


CHARACTERISTIC = pd.DataFrame(
    [
        ("A", 10, 5.0, 100.0, 0.50, 0.52, 0.81, 1.0), ("A", 1000, 20.0, 100.0, 0.60, 0.615, 0.93, 1.0),
        ("B", 10, 7.0, 110.0, 0.40, 0.37, 0.45, 1.0), ("B", 1000, 90.0, 110.0, 0.55, 0.63, 0.70, 0.0),
        ("B", 4000, 99.0, 110.0, 0.57, 0.58, 0.72, 0.0), ("C", 10, np.nan, 50.0, 0.3, 0.9, 0.1, 1.0),
        ("C", 20, 3.0, 50.0, np.nan, 0.9, 0.1, 1.0), ("D", 10, 4.0, 50.0, 0.20, 0.2011, 0.3, 1.0),
    ],
    columns=["variant", "capacity_blocks", "time_s", "window_s", "simulated", "approximated", "independent", "holds"],
)  # fmt: skip


def test_the_table_of_characteristic_times():
    table = facts_timing.tabulate_characteristic(CHARACTERISTIC)
    assert table["variant"].tolist() == ["A", "A", "B", "B", "B", "D"]
    assert table["points off"].tolist() == pytest.approx([2, 1.5, -3, 8, 1, 0.11])
    assert table["assumption"].tolist() == ["holds"] * 3 + ["does not hold"] * 2 + ["holds"]
    assert table.loc[3].tolist()[:6] == ["B", 1000, 90.0, 110.0, 0.55, 0.63]
    assert table["independent accesses"].tolist() == [0.81, 0.93, 0.45, 0.70, 0.72, 0.3]
    assert facts_timing.tabulate_characteristic(CHARACTERISTIC, [10])["blocks"].tolist() == [10, 10, 10]


def test_where_the_approximation_agrees():
    # Where it holds it is 2, 1.5 (within), 3 and 0.11 (within) points off; elsewhere 8 and 1. Rates alone: 33 at most.
    frame = CHARACTERISTIC.assign(approximated=CHARACTERISTIC["approximated"].replace(0.615, 0.6149))
    text = said_of(facts_timing.facts_characteristic, frame)
    assert not missing(
        text, "2 ~ of ~ 4 ~ approximated", "lie within ~ 1.5 ~ points", "largest difference is ~ 3.00 ~ points",
        "A, ~ 10 ~ blocks: ~ +2.00 ~ B, ~ 10 ~ blocks: ~ −3.00", "2 ~ cases ~ reaches ~ 8.00 ~ points",
        "off by up to ~ 33.0 ~ points",
    )  # fmt: skip
    assert "1,000 blocks:" not in text


def test_how_long_a_block_survives():
    # Seven times: the first, third, fifth and last are shown. Of the gaps 5, 20, 41, 50 and 700 s, 1, 2, 3 and 4 are
    # at most 5, 30, 45 and 300 s.
    frame = pd.DataFrame({"time_s": [5, 9, 30, 40, 45, 60, 300, np.nan], "capacity_blocks": range(1000, 9000, 1000)})
    text = said_of(facts_timing.facts_survival, frame, np.array([5, 20, 41, 50, 700.0]))
    assert not missing(
        text, "5 ~ s with ~ 1,000 ~ blocks ~ 20.0 % ~ 30 ~ s with ~ 3,000 ~ blocks ~ 40.0 %",
        "45 ~ s with ~ 5,000 ~ 60.0 %",
        "300 ~ s with ~ 7,000 ~ blocks ~ 80.0 %", "Half of the gaps are shorter than ~ 41 ~ s",
    )  # fmt: skip


def test_the_facts_of_clocks_are_of_a_small_cache():
    # 2,048 blocks of 16 tokens are 32,768
    rows = [
        {"variant": name, "seed": 0, "capacity_blocks": blocks, "token": rate + blocks / 1e6, "low": 0, "high": 1,
         "base_low": 0.1, "base_high": 0.2}
        for name, rate in (("naive", 0.6), ("between", 0.5), ("causal", 0.1)) for blocks in (512, 2048, 8192)
    ]  # fmt: skip
    facts = facts_timing.facts_clocks(pd.DataFrame(rows), 16)
    assert (facts["blocks"], facts["tokens"], facts["base"], facts["naive"]) == (2048, 32_768, "causal", "naive")
    assert facts["naive_token_hit_rate"] == pytest.approx(0.602048) and facts["naive_verdict"] == "higher"
    assert facts["base_token_hit_rate"] == pytest.approx(dict.fromkeys(["mean", "least", "most"], 0.102048))
    assert facts["naive_times"] == pytest.approx(0.602048 / 0.102048)
    assert [(one["variant"], one["verdict"]) for one in facts["others"]] == [("between", "higher"), ("naive", "higher")]
    alone = facts_timing.facts_clocks(pd.DataFrame(rows[-3:]), 16)
    assert alone["naive"] == alone["base"] == "causal" and alone["others"] == []


def test_the_facts_of_rates_and_bursts_are_of_the_first_and_the_last():
    facts = facts_timing.facts_rates(frame(), 110.0)
    assert (facts["first"], facts["last"], facts["think_s"]) == ("all at once", "causal", 110)
    assert facts["first_is_higher"] is True
    assert [one["blocks"] for one in facts["capacities"]] == [1000, 4000, 9000]
    assert [one["first_rate"] for one in facts["capacities"]] == pytest.approx([0.73, 0.805, 0.9])
    assert [one["last_rate"] for one in facts["capacities"]] == pytest.approx([0.57, 0.785, 0.9])
    assert [facts["capacities"][k]["verdict"] for k in (0, 2)] == ["higher", "equal"]
    facts = facts_timing.facts_bursts(frame(), 59.9)
    assert (facts["any_separated"], facts["any_open"], facts["think_takes_minutes"]) == (True, True, False)
    assert facts_timing.facts_bursts(frame(), 60)["think_takes_minutes"] is True
    one = facts_timing.facts_rates(frame()[lambda rows: rows["variant"] == "causal"])
    assert one["first"] == one["last"] and one["first_is_higher"] is False


def test_the_facts_of_the_approximation():
    facts = facts_timing.facts_characteristic(CHARACTERISTIC)
    assert [facts[name] for name in ("cases", "short", "long", "not_listed")] == [6, 4, 2, 0]
    assert facts["short_most_off"] == pytest.approx(3) and facts["long_most_off"] == pytest.approx(8)
    assert facts["independent_most_off"] == pytest.approx(33)
    assert facts["farthest"][-1] == {"variant": "B", "blocks": 10, "points": pytest.approx(-3)}
    none = facts_timing.facts_characteristic(CHARACTERISTIC.assign(time_s=np.nan))
    assert none == {"cases": 0, "has_window": True}
