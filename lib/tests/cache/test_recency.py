"""LRU by stretches against LRU block by block: the same hits, curves and ceilings, to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twin import small_traces

from kvprefix.blocks import prefix_tree, stretches
from kvprefix.cache import curve, recency
from kvprefix.cache.replay import replay
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import make_trace


def cut(trace, block_size, outputs=False):
    return stretches.cut_trace(prefix_tree.make_prefix_tree(trace.tokens, outputs=outputs), trace, block_size)


def assert_equal(trace, capacities):
    recent, blocks = recency.measure_recency(trace), trace.list_blocks()
    distances = curve.measure_distances(blocks)
    hits = recency.count_hits(trace, recent, capacities)
    np.testing.assert_array_equal(hits, curve.count_hits_at(blocks, distances, capacities))
    np.testing.assert_array_equal(recency.count_seen(trace, recent), curve.count_seen(blocks.ids, blocks.offsets))
    found, expected = recency.lru_curve(trace, recent), curve.lru_curve(blocks, distances)
    for name in ("block", "token", "request_mean"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    return hits


def test_recency_by_hand():
    # abc abd abc: at the third request ab is the most recent (distances 1, 2: recency 0), then d, then c (4 at depth 3)
    trace = cut(make_trace_of([[1, 2, 3], [1, 2, 4], [1, 2, 3]]), 1)
    never = recency.NEVER
    assert recency.measure_recency(trace).tolist() == [never, never, 0, never, 0, 1]
    hits = recency.count_hits(trace, recency.measure_recency(trace), [4, 1, 3, 0])
    assert hits.tolist() == [[0] * 4, [2, 1, 2, 0], [3, 1, 2, 0]]


@given(small_traces(), st.integers(1, 5), st.lists(st.integers(0, 40), min_size=1, max_size=5))
def test_small_traces_are_hit_alike_by_stretches_and_by_blocks(small, block_size, capacities):
    trace = cut(small.trace, block_size)
    hits = assert_equal(trace, capacities)
    for column, capacity in enumerate(capacities):
        if capacity:
            assert hits[:, column].tolist() == replay(trace.list_blocks(), capacity, "lru").tolist()


@given(small_traces(), st.integers(1, 5))
def test_with_replies_only_the_blocks_of_prompts_count(small, block_size):
    trace = cut(small.trace, block_size, outputs=True)
    found = recency.lru_curve(trace, recency.measure_recency(trace))
    limit, prompts = trace.prompt_tokens // block_size, max(trace.prompt_tokens.sum(), 1)
    for capacity in range(1, len(found.token)):
        hits = np.minimum(replay(trace.list_blocks(), capacity, "lru"), limit)
        last = (hits == limit) & (limit > 0) & (trace.prompt_tokens % block_size == 0)
        assert found.token[capacity] == (hits * block_size - last * block_size).sum() / prompts
        assert found.block[capacity] == hits.sum() / max(limit.sum(), 1)


@pytest.mark.parametrize("block_size", [1, 7, 16, 512])
def test_a_workload_is_hit_alike_at_any_time(bundled_workload, block_size):
    tree = prefix_tree.make_prefix_tree(bundled_workload.tokens)
    for seed in (0, 3):
        parameters = replace(bundled_workload.parameters, seed=seed)
        trace = make_trace(replace(bundled_workload, parameters=parameters), "multi_turn")
        assert_equal(stretches.cut_trace(tree, trace, block_size), [1, 3000 // block_size, 10**6, 40])
