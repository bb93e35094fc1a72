"""The timing study on a small workload: what it holds, that it agrees with replays, what is said of it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from said import said_of

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.cache.curve import rate_hits
from kvprefix.cache.replay import replay
from kvprefix.report.captions import state_timing
from kvprefix.report.facts import timing as facts_timing
from kvprefix.report.plots import timing as plot_timing
from kvprefix.studies import timing as study_timing
from kvprefix.traces.workload import make_trace


@pytest.fixture(scope="module")
def workload(bundled_workload):
    return bundled_workload


@pytest.fixture(scope="module")
def clocks(workload):
    return study_timing.study_timing(workload, study_timing.CLOCKS, points=4)


def test_a_variant_is_a_replay_of_its_own_trace(workload, clocks):
    changes = study_timing.CLOCKS["back to back"]
    with pytest.warns(UserWarning):
        trace = make_trace(replace(workload, parameters=replace(workload.parameters, seed=3, **changes)), "multi_turn")
    accesses = make_prefix_trace(trace, 16)
    for row in clocks[(clocks["variant"] == "back to back") & (clocks["seed"] == 3)].itertuples():
        assert rate_hits(accesses, replay(accesses, row.capacity_blocks))["token"] == pytest.approx(row.token)


def test_every_variant_has_every_seed_and_the_first_one_intervals(workload, clocks):
    assert len(clocks) == len(study_timing.CLOCKS) * clocks["seed"].nunique() * clocks["capacity_blocks"].nunique()
    first = clocks.dropna(subset="low")
    assert set(first["seed"]) == {workload.parameters.seed} and len(first) * clocks["seed"].nunique() == len(clocks)
    assert (first["low"] <= first["token"]).all() and (first["token"] <= first["high"]).all()


def test_the_interval_of_a_difference_is_paired(clocks):
    # The last variant's difference to itself is zero in every draw.
    base = clocks[clocks["variant"] == clocks["variant"].iloc[-1]].dropna(subset="low")
    assert not base[["base_low", "base_high"]].to_numpy().any()


def test_without_a_bound_no_clock_matters(clocks):
    largest = clocks[clocks["capacity_blocks"] == clocks["capacity_blocks"].max()]
    assert np.ptp(largest["token"]) < 0.005


def test_a_naive_clock_makes_a_small_cache_look_better(workload, clocks):
    text = said_of(facts_timing.facts_clocks, clocks, 16, tokens=2_000)
    assert "times as good as it is" in text and "(higher)" in text
    smallest = facts_timing.tabulate_variants(clocks, [clocks["capacity_blocks"].unique()[1]])
    assert smallest["verdict"].tolist()[-1] == "–" and smallest["verdict"].tolist()[0] == "higher"


def test_a_table_is_kept(workload, clocks, monkeypatch):
    monkeypatch.setattr(study_timing, "measure_timing", None)
    pd.testing.assert_frame_equal(study_timing.study_timing(workload, study_timing.CLOCKS, points=4), clocks)


def test_what_is_drawn_and_said_of_rates(workload):
    frame = study_timing.study_timing(workload, study_timing.RATES, points=4)
    figure, _ = plot_timing.draw_rates(frame, 0.6, 16)
    assert len(figure.axes[0].lines) == len(study_timing.RATES) + 1
    figure, data = plot_timing.draw_approximation(frame, 16)
    assert {"simulated", "approximated", "independent"} <= set(data.columns)
    plot_timing.draw_characteristic(frame, np.array([1.0, 20.0]), 16)
    text = said_of(facts_timing.facts_rates, frame)
    assert "from" in text and "0.1 /s" in text and "nan" not in text
    table = facts_timing.tabulate_characteristic(frame)
    assert set(table["assumption"]) <= {"holds", "does not hold"} and len(table)
    assert "nan" not in said_of(facts_timing.facts_characteristic, frame)
    assert "nan" not in said_of(facts_timing.facts_survival, frame[frame["variant"] == "2 /s"], np.array([1.0, 20.0]))


def test_where_nothing_repeats_something_true_is_said():
    columns = ["time_s", "simulated", "window_s", "approximated", "independent"]
    unknown = dict.fromkeys(columns, [np.nan])
    empty = pd.DataFrame({"variant": ["a"], "capacity_blocks": [1], **unknown, "holds": [0.0]})
    assert "There is no window" in said_of(facts_timing.facts_characteristic, empty)
    assert "nothing to compare" in said_of(facts_timing.facts_survival, empty, np.zeros(0))


START = "n = 999 multi-turn requests of 300 conversations; block size 16 tokens"


def state(workload, frame, changes):
    return state_timing(workload, range(999), frame, changes)


def test_a_caption_states_what_is_varied_and_never_the_workload_s_value_of_it(workload, clocks):
    said = state(workload, clocks, study_timing.CLOCKS)
    assert said == (
        f"{START}, 2 conversations/s; varied: clock and think time (all turns at once, back to back, exponential think "
        "time, causal); cold start, prompts only; 4 seeds from 0 on."
    )
    rates = pd.DataFrame({"variant": list(study_timing.RATES), "seed": 0})
    assert state(workload, rates, study_timing.RATES) == (
        f"{START}, causal clock; varied: arrival rate (0.1 /s, 0.5 /s, 2 /s, 5 /s, 20 /s); cold start, prompts only; "
        "seed 0."
    )
    bursts = pd.DataFrame({"variant": list(study_timing.BURSTS) * 2, "seed": [4] * 4 + [5] * 4})
    assert state(workload, bursts, study_timing.BURSTS) == (
        f"{START}, 2 conversations/s, causal clock; varied: arrivals (CV 10, CV 5, CV 2, CV 1); cold start, prompts "
        "only; 2 seeds from 4 on."
    )


def test_a_caption_states_what_a_study_sets_in_all_its_variants(workload):
    # of a log with stamps and its own think times: the rates are of Poisson starts, the clocks of the stamps
    log = replace(workload, parameters=replace(workload.parameters, arrivals="stamps:s.txt", think="constant"))
    frame = pd.DataFrame({"variant": ["0.1 /s", "20 /s"], "seed": 7})
    said = state(log, frame, study_timing.RATES)
    assert "block size 16 tokens, causal clock (constant think time); varied: arrival rate (0.1 /s, 20 /s);" in said
    clocks = pd.DataFrame({"variant": list(study_timing.CLOCKS), "seed": 0})
    said = state(log, clocks, study_timing.CLOCKS)
    assert said.startswith(f"{START}, stamps of s.txt; varied: clock and think time (all turns at once, ")
    assert "conversations/s" not in said
    # one variant is no variation
    alone = clocks[clocks["variant"] == "back to back"]
    assert "stamps of s.txt, back_to_back clock; cold start" in state(log, alone, study_timing.CLOCKS)


def test_a_seventh_rate_is_stated_and_an_unknown_variant_is_an_error(workload):
    changes = study_timing.RATES | {"77 /s": {"arrivals": "poisson", "arrival_rate": 77.0}}
    frame = pd.DataFrame({"variant": list(changes), "seed": 0})
    assert "20 /s, 77 /s)" in state(workload, frame, changes)
    with pytest.raises(KeyError, match="77 /s"):
        state(workload, frame, study_timing.RATES)


def test_an_explanation_is_given_only_where_there_is_something_to_explain(workload, clocks):
    frame = study_timing.study_timing(workload, study_timing.RATES, points=4)
    assert said_of(facts_timing.facts_rates, frame, 110.0).endswith("the think time does not shrink with it.")
    assert said_of(facts_timing.facts_rates, frame).endswith("is used up sooner.")
    flat = frame.assign(token=0.5, low=frame["low"] * 0 + 0.5, high=frame["high"] * 0 + 0.5,
                        base_low=frame["base_low"] * 0, base_high=frame["base_high"] * 0)  # fmt: skip
    assert "(0.1 /s against 20 /s: equal)." in said_of(facts_timing.facts_rates, flat, 110.0)[-40:]
    assert said_of(facts_timing.facts_bursts, flat, 110.0).endswith("None of these differences is separated from zero.")
    equal = clocks.assign(token=0.5, base_low=clocks["base_low"] * 0, base_high=clocks["base_high"] * 0)
    assert "times as good" not in said_of(facts_timing.facts_clocks, equal, 16)


def test_the_farthest_of_many_are_named():
    far = pd.DataFrame({"capacity_blocks": range(1, 13), "approximated": [0.5 + k / 50 for k in range(12)]})
    far = far.assign(variant="a", time_s=1.0, simulated=0.5, independent=0.5, window_s=9.0, holds=1.0)
    text = said_of(facts_timing.facts_characteristic, far)
    # 0, 2, 4, ... 22 points off: the first is within 1.5, and of the eleven others the eight farthest are named
    assert "1 of 12 approximated" in text and "a, 4 blocks" not in text and "; and 3 more." in text
    assert "a, 5 blocks: +8.00; a, 6 blocks: +10.00" in text and "a, 12 blocks: +22.00; and 3 more" in text
    never = far.assign(time_s=np.nan)
    assert "nothing is evicted" in said_of(facts_timing.facts_characteristic, never)
