"""The timing study on a small workload: what it holds, that it agrees with replays, what is said of it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kvprefix import findings_timing, plot_timing, study, study_timing
from kvprefix.accesses import make_accesses
from kvprefix.cache import replay
from kvprefix.curves import rate_hits
from kvprefix.workload import make_trace


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
    accesses = make_accesses(trace, 16)
    for row in clocks[(clocks["variant"] == "back to back") & (clocks["seed"] == 3)].itertuples():
        assert rate_hits(accesses, replay(accesses, row.capacity_blocks))["token"] == pytest.approx(row.token)


def test_every_variant_has_every_seed_and_the_first_one_intervals(workload, clocks):
    assert len(clocks) == len(study_timing.CLOCKS) * study.SEEDS * clocks["capacity_blocks"].nunique()
    first = clocks.dropna(subset="low")
    assert set(first["seed"]) == {workload.parameters.seed} and len(first) * study.SEEDS == len(clocks)
    assert (first["low"] <= first["token"]).all() and (first["token"] <= first["high"]).all()


def test_the_interval_of_a_difference_is_paired(clocks):
    # The last variant's difference to itself is zero in every draw.
    base = clocks[clocks["variant"] == clocks["variant"].iloc[-1]].dropna(subset="low")
    assert not base[["base_low", "base_high"]].to_numpy().any()


def test_without_a_bound_no_clock_matters(clocks):
    largest = clocks[clocks["capacity_blocks"] == clocks["capacity_blocks"].max()]
    assert np.ptp(largest["token"]) < 0.005


def test_a_naive_clock_makes_a_small_cache_look_better(workload, clocks):
    text = findings_timing.describe_clocks(clocks, 16, tokens=2_000)
    assert "times as good as it is" in text and "(higher)" in text
    smallest = findings_timing.tabulate_variants(clocks, [clocks["capacity_blocks"].unique()[1]])
    assert smallest["verdict"].tolist()[-1] == "–" and smallest["verdict"].tolist()[0] == "higher"


def test_a_table_is_kept(workload, clocks, monkeypatch):
    monkeypatch.setattr(study_timing, "measure_timing", None)
    pd.testing.assert_frame_equal(study_timing.study_timing(workload, study_timing.CLOCKS, points=4), clocks)


def test_what_is_drawn_and_said_of_rates(workload):
    frame = study_timing.study_timing(workload, study_timing.RATES, points=4)
    figure, _ = plot_timing.draw_variants(frame, 0.6, 16)
    assert len(figure.axes[0].lines) == len(study_timing.RATES) + 1
    figure, data = plot_timing.draw_approximation(frame, 16)
    assert {"simulated", "approximated", "independent"} <= set(data.columns)
    plot_timing.draw_characteristic(frame, np.array([1.0, 20.0]), 16)
    text = findings_timing.describe_rates(frame)
    assert "from" in text and "0.1 /s" in text and "nan" not in text
    table = findings_timing.tabulate_characteristic(frame)
    assert set(table["assumption"]) <= {"holds", "does not hold"} and len(table)
    assert "nan" not in findings_timing.describe_characteristic(frame)
    assert "nan" not in findings_timing.describe_survival(frame[frame["variant"] == "2 /s"], np.array([1.0, 20.0]))


def test_where_nothing_repeats_something_true_is_said():
    columns = ["time_s", "simulated", "window_s", "approximated", "independent"]
    unknown = dict.fromkeys(columns, [np.nan])
    empty = pd.DataFrame({"variant": ["a"], "capacity_blocks": [1], **unknown, "holds": [0.0]})
    assert "no window" in findings_timing.describe_characteristic(empty)
    assert "nothing to compare" in findings_timing.describe_survival(empty, np.zeros(0))
