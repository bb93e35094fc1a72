"""The characteristic time: gaps and working sets counted by hand, and the approximation where its assumptions hold."""

import numpy as np
import pytest
from cache_twin import list_distinct, make_random

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.cache.characteristic import compare_characteristic, find_window, measure_gaps, measure_working_set
from kvprefix.traces.trace import make_trace_of


def make(prompts, arrival_s):
    return make_prefix_trace(make_trace_of(prompts, arrival_s), 1)


def test_the_gap_before_each_access():
    gaps = measure_gaps(make([[1], [2], [1], [1]], [0.0, 1.0, 4.0, 10.0]))
    assert gaps.at_s.tolist() == [0, 1, 4, 10]
    assert gaps.before_s.tolist() == [np.inf, np.inf, 4, 6]


def test_the_working_set_by_hand():
    # Block a at 0 and 4, block b at 1. From 0 to 10, a window of 2 s sees a during [0, 2] and [4, 6], b during [1, 3].
    accesses = make([[1], [2], [1]], [0.0, 1.0, 4.0])
    assert measure_working_set(accesses, 0, 10, [2])[0] == pytest.approx((2 + 2 + 2) / 10)
    # Without an end to the window: a during [0, 10], b during [1, 10].
    assert measure_working_set(accesses, 0, 10, [100])[0] == pytest.approx((10 + 9) / 10)
    # From 2 to 5: a's first access lasts until 2, its second during [4, 5]; b during [2, 3].
    assert measure_working_set(accesses, 2, 5, [2])[0] == pytest.approx((0 + 1 + 1) / 3)


def test_the_working_set_equals_a_count_at_many_moments():
    rng = np.random.default_rng(3)
    arrival_s = np.sort(rng.uniform(0, 100, 400))
    ids = rng.integers(0, 40, 400)
    accesses = make([[int(one)] for one in ids], arrival_s)
    moments = np.linspace(20, 90, 7001)
    counted = [
        len(set(ids[(arrival_s <= moment) & (arrival_s > moment - 5)].tolist())) for moment in moments
    ]  # fmt: skip
    assert measure_working_set(accesses, 20, 90, [5.0])[0] == pytest.approx(np.mean(counted), rel=0.01)


def test_the_working_set_is_that_of_each_block_alone():
    small = make_random(seed=4)
    accesses, times_s = small.accesses, np.array([0.5, 3.0, 40.0, 1e6])
    start, end = 50.0, 300.0
    stays = np.zeros(len(times_s))
    for block in list_distinct(small.paths):
        at = [s for s, path in zip(accesses.arrival_s, small.paths, strict=True) if path.startswith(block)]
        for since, until in zip(at, [*at[1:], np.inf], strict=True):
            stays += np.maximum(np.minimum(np.minimum(until, since + times_s), end) - max(since, start), 0)
    assert measure_working_set(accesses, start, end, times_s) == pytest.approx(stays / (end - start), rel=1e-12)


def test_the_window_leaves_out_the_beginning_and_what_follows_the_last_start():
    accesses = make([[1], [2], [3]], [0.0, 5.0, 10.0])
    assert find_window(accesses) == pytest.approx((3.0, 10.0))


def test_independent_accesses_follow_che_within_a_point():
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 3001) ** 0.8
    ids = rng.choice(3000, 60_000, p=share / share.sum())
    accesses = make([[int(one)] for one in ids], np.cumsum(rng.exponential(1, 60_000)))
    frame = compare_characteristic(accesses, [10, 100, 500, 1000, 2000])
    assert frame["holds"].all()
    assert (frame["approximated"] - frame["simulated"]).abs().max() < 0.01
    assert (frame["independent"] - frame["simulated"]).abs().max() < 0.015  # the counts of 60,000 draws stand for rates
    assert 0.04 < frame["simulated"].min() < frame["simulated"].max() < 0.95  # a range that can be wrong
    # Renewal theory: the mean number of blocks accessed within T is sum of 1 - exp(-p T).
    expected = -np.expm1(-share / share.sum() * frame["time_s"][1]).sum()
    assert expected == pytest.approx(100, rel=0.02)


def test_bursts_of_one_block_are_not_independent_accesses():
    # Each block is accessed three times within 3 s and never again: rates alone cannot see that.
    starts = np.repeat(np.arange(2000.0) * 2, 3) + np.tile([0, 1, 2.0], 2000)
    order = np.argsort(starts, kind="stable")
    ids = np.repeat(np.arange(2000), 3)[order]
    accesses = make([[int(one)] for one in ids], starts[order])
    row = compare_characteristic(accesses, [5]).iloc[0]
    assert row["simulated"] == pytest.approx(2 / 3, abs=0.01) and row["approximated"] == pytest.approx(2 / 3, abs=0.01)
    assert row["independent"] < 0.02


def test_a_cache_larger_than_what_the_window_accesses_has_no_time():
    accesses = make([[1], [2], [1], [2], [1]], [0.0, 1.0, 2.0, 3.0, 4.0])
    frame = compare_characteristic(accesses, [1, 2, 50])
    assert np.isnan(frame["time_s"].iloc[-1]) and not frame["holds"].iloc[-1]


def test_one_moment_has_no_window():
    frame = compare_characteristic(make([[1], [1]], [0.0, 0.0]), [1])
    assert frame["simulated"].isna().all() and not frame["holds"].any()
