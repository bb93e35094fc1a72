"""The characteristic time: gaps and working sets counted by hand, and the approximation where its assumptions hold."""

import numpy as np
import pytest
from cache_twin import list_distinct, make_random

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.blocks.prefix_tree import make_prefix_tree
from kvprefix.blocks.stretches import cut_trace
from kvprefix.cache.characteristic import (
    compare_characteristic,
    find_times,
    find_window,
    list_gaps,
    measure_working_set,
)
from kvprefix.cache.curve import count_hits_at, measure_distances
from kvprefix.cache.recency import count_hits, measure_recency
from kvprefix.traces.trace import make_trace_of


def make(prompts, arrival_s):
    return make_prefix_trace(make_trace_of(prompts, arrival_s), 1)


def compare(accesses, capacities):
    hits = count_hits_at(accesses, measure_distances(accesses), capacities)
    return compare_characteristic(accesses, capacities, hits)


def test_the_gap_before_each_access_by_runs_of_blocks():
    runs = list_gaps(make([[1], [2], [1, 3, 4], [1, 3, 4, 5], [1, 3]], [0.0, 1.0, 4.0, 9.0, 20.0]))
    # the third request meets 1 of the first; the fourth meets 1, 3 and 4 of the third; the last meets 1 and 3 of it
    assert [one.tolist() for one in runs] == [[1, 3, 2], [2, 3, 4], [0, 2, 3]]


def test_stretches_of_blocks_give_what_blocks_give():
    rng = np.random.default_rng(7)
    starts = [rng.integers(0, 3, 9).tolist() for _ in range(20)]
    prompts = [starts[rng.integers(20)][: rng.integers(2, 10)] + rng.integers(0, 2, 6).tolist() for _ in range(400)]
    trace = make_trace_of(prompts, np.cumsum(rng.exponential(1, 400)))
    accesses, capacities = make_prefix_trace(trace, 2), [1, 5, 20, 100, 10_000]
    stretches = cut_trace(make_prefix_tree(trace.tokens), trace, 2)
    hits = count_hits(stretches, measure_recency(stretches), capacities)
    assert stretches.paths.n_nodes < accesses.n_distinct
    one, other = compare(accesses, capacities), compare_characteristic(stretches, capacities, hits)
    assert one.to_numpy(float) == pytest.approx(other.to_numpy(float), rel=1e-12, nan_ok=True)
    assert find_times(accesses, capacities) == pytest.approx(one["time_s"], rel=1e-12, nan_ok=True)
    # block by block: a gap of at most the characteristic time, within the window
    (start, end), seen, gaps = find_window(accesses), {}, []
    for i, at in enumerate(accesses.arrival_s):
        for block in accesses.ids[accesses.offsets[i] : accesses.offsets[i + 1]].tolist():
            gaps += [at - seen.get(block, -np.inf)] if start <= at <= end else []
            seen[block] = at
    counted = [np.mean(np.array(gaps) <= time_s) for time_s in one["time_s"].dropna()]
    assert counted == pytest.approx(one["approximated"][: len(counted)]) and len(counted) > 2


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
    frame = compare(accesses, [10, 100, 500, 1000, 2000])
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
    row = compare(accesses, [5]).iloc[0]
    assert row["simulated"] == pytest.approx(2 / 3, abs=0.01) and row["approximated"] == pytest.approx(2 / 3, abs=0.01)
    assert row["independent"] < 0.02


def test_a_cache_larger_than_what_the_window_accesses_has_no_time():
    accesses = make([[1], [2], [1], [2], [1]], [0.0, 1.0, 2.0, 3.0, 4.0])
    frame = compare(accesses, [1, 2, 50])
    assert np.isnan(frame["time_s"].iloc[-1]) and not frame["holds"].iloc[-1]


def test_one_moment_has_no_window():
    frame = compare(make([[1], [1]], [0.0, 0.0]), [1])
    assert frame["simulated"].isna().all() and not frame["holds"].any()
