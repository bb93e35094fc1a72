"""The core of the explorer: its curves are those of a fresh trace, and only what changed is computed again."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest

from kvprefix.blocks.identify import identify_blocks
from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.blocks.sharing import count_hits, measure_hits_with_outputs
from kvprefix.cache.characteristic import compare_characteristic
from kvprefix.cache.curve import count_hits_at, lru_curve, measure_distances, rate_hits
from kvprefix.cache.replay import replay
from kvprefix.files.paths import InputError
from kvprefix.studies import explore
from kvprefix.studies import table as tables
from kvprefix.studies.explore import Settings, Warm, measure_point
from kvprefix.traces.workload import make_trace


@pytest.fixture(scope="module")
def warm(bundled_workload):
    return Warm(bundled_workload)


@pytest.fixture(scope="module")
def settings(bundled_workload):
    return Settings.of(bundled_workload.parameters, gib=1.5)


def make_fresh(workload, settings):
    parameters = replace(
        workload.parameters, arrival_rate=settings.arrival_rate, think_median_s=settings.think_median_s,
        block_size=settings.block_size,
    )  # fmt: skip
    return make_trace(replace(workload, parameters=parameters), "multi_turn")


@pytest.mark.parametrize(
    "changes",
    [{}, {"arrival_rate": 0.3}, {"think_median_s": 5.0}, {"block_size": 64}, {"block_size": 7, "arrival_rate": 9.0}],
)
def test_a_curve_is_that_of_a_fresh_trace(bundled_workload, warm, settings, changes):
    settings = replace(settings, **changes)
    view, accesses = warm.view(settings), make_prefix_trace(
        make_fresh(bundled_workload, settings), settings.block_size
    )  # fmt: skip
    expected = lru_curve(accesses)
    for name in ("token", "block", "request_mean"):
        np.testing.assert_array_equal(getattr(view.curve, name), getattr(expected, name))
    np.testing.assert_array_equal(view.accesses.ids, accesses.ids)
    capacity = settings.capacity_blocks
    assert view.rate(capacity) == pytest.approx(rate_hits(accesses, replay(accesses, capacity))["token"])
    for policy in ("fifo", "opt"):
        assert view.rate(200, policy) == rate_hits(accesses, replay(accesses, 200, policy))["token"]


@pytest.mark.parametrize("block_size", [16, 40])
def test_with_replies_the_cache_also_holds_them_and_prompts_alone_hit(bundled_workload, warm, settings, block_size):
    settings = replace(settings, block_size=block_size, replies=True, arrival_rate=3.0)
    view, trace = warm.view(settings), make_fresh(bundled_workload, settings)
    tokens = trace.requests["prompt_tokens"].to_numpy()
    unbounded = measure_hits_with_outputs(trace, block_size).sum() * block_size / tokens.sum()
    assert view.curve.token[-1] == pytest.approx(unbounded, rel=1e-12)
    blocks = identify_blocks(trace, block_size, outputs=True)
    np.testing.assert_array_equal(view.accesses.ids, blocks.ids)
    for capacity in (1, 30, 500, 4000):
        for policy in ("lru", "lfu"):
            hits = np.minimum(replay(view.accesses, capacity, policy), np.maximum(tokens - 1, 0) // block_size)
            assert view.rate(capacity, policy) == pytest.approx(hits.sum() * block_size / tokens.sum(), rel=1e-12)
    assert (count_hits(blocks, tokens) <= blocks.prompt_blocks).all()


@pytest.mark.parametrize("replies", [False, True])
def test_the_tree_is_made_once_and_a_memory_moves_nothing(bundled_workload, settings, monkeypatch, replies):
    settings, warm = replace(settings, replies=replies), Warm(bundled_workload)
    first = warm.view(settings)
    monkeypatch.setattr(tables, "make_prefix_tree", None)
    other = warm.view(replace(settings, arrival_rate=7.0))
    assert not np.array_equal(other.curve.token, first.curve.token)
    warm.view(replace(settings, block_size=5))
    other = warm.view(replace(settings, arrival_rate=7.0))
    monkeypatch.setattr(explore, "measure_recency", None)
    moved = warm.view(replace(settings, arrival_rate=7.0, gib=0.5, policy="opt", kv_model="Qwen3-8B"))
    assert moved.curve is other.curve and moved.settings.gib == 0.5


def test_few_trees_are_kept(bundled_workload, monkeypatch):
    monkeypatch.setattr(tables, "_kept", OrderedDict())
    workloads = [replace(bundled_workload, tokens=replace(bundled_workload.tokens)) for _ in range(6)]
    for workload in workloads:
        tree = tables.find_tree(workload.tokens)
        assert tables.find_tree(workload.tokens) is tree
    assert [kept for kept, _ in tables._kept.values()] == [one.tokens for one in workloads[-tables.KEPT_TREES :]]


def test_the_point_holds_what_the_curve_and_the_characteristic_time_say(warm, settings):
    view = warm.view(settings)
    point = measure_point(view)
    capacity = int(1.5 * 2**30 // (16 * 131072))  # Llama-3.1-8B: 128 KiB per token
    assert point["capacity_blocks"] == capacity == 768
    further = int(2.5 * 2**30 // (16 * 131072))
    token = view.curve.token
    assert point["lru"] == point["rate"] == token[capacity] and point["lru_next"] == token[further]
    hits = count_hits_at(view.accesses, measure_distances(view.accesses), [capacity])
    frame = compare_characteristic(view.accesses, [capacity], hits)
    assert frame["holds"][0] and point["survival_s"] == frame["time_s"][0] > 0
    long = measure_point(warm.view(replace(settings, gib=1e4, policy="opt")))
    assert long["capacity_blocks"] > long["distinct_blocks"] and np.isnan(long["survival_s"])
    assert long["rate"] == pytest.approx(long["unbounded"])


def test_a_memory_that_holds_no_block_hits_nothing(warm, settings):
    view = warm.view(replace(settings, gib=0.0001, policy="opt"))
    assert view.settings.capacity_blocks == 0 and measure_point(view)["rate"] == 0


def test_a_policy_is_replayed_at_the_present_capacity_first(warm, settings):
    view = warm.view(settings)
    first, *others = view.list_capacities()
    assert first == settings.capacity_blocks and others == sorted(others) and others[-1] == view.accesses.n_distinct
    assert all(not 0.7 < other / first < 1.4 for other in others)


def test_settings_that_no_report_can_have_are_refused(warm, settings):
    with pytest.raises(InputError, match="arrival_rate is -1"):
        warm.view(replace(settings, arrival_rate=-1.0))
    with pytest.raises(InputError, match="longer than a day"):
        warm.view(replace(settings, think_median_s=80_000.0))
