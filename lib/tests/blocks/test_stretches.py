"""The prefix tree and its stretches: by hand, and against the twin and the identities of hashed blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twin import account, small_traces

from kvprefix.blocks.identify import identify_blocks
from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.blocks.prefix_tree import make_prefix_tree
from kvprefix.blocks.sharing import count_hits
from kvprefix.blocks.stretch_blocks import stretch_trace
from kvprefix.blocks.stretches import count_leading, cut_trace, describe_stretches, find_paths
from kvprefix.cache.curve import rate_hits
from kvprefix.cache.recency import lru_curve, measure_recency
from kvprefix.cache.replay import replay
from kvprefix.tokens.arrays import make_tokens
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import make_trace


def cut(trace, block_size, outputs=False):
    return cut_trace(make_prefix_tree(trace.tokens, outputs=outputs), trace, block_size)


def by_request(flat, offsets):
    return [part.tolist() for part in np.split(flat, offsets[1:-1])]


def test_a_tree_by_hand():
    # row 1 parts from row 0 after two tokens, row 2 ends within what both share, row 3 is new, row 4 is row 1 again
    prompts = [[1, 2, 3], [1, 2, 4, 5], [1], [9], [1, 2, 4, 5], []]
    tree = make_prefix_tree(make_tokens(prompts, [[]] * 6))
    spans = list(zip(tree.start.tolist(), tree.end.tolist(), strict=True))
    paths = [[spans[node] for node in path] for path in by_request(tree.nodes, tree.offsets)]
    shared = [(0, 1), (1, 2)]
    assert paths == [[*shared, (2, 3)], [*shared, (2, 4)], [(0, 1)], [(0, 1)], [*shared, (2, 4)], []]
    first, second, *_, last, _ = by_request(tree.nodes, tree.offsets)
    assert first[:2] == second[:2] and first[2] != second[2] and last == second


def test_stretches_by_hand():
    # blocks of two: abcd abcdef abx; "ab" is shared by three, "cd" by two, "ef" is of one, "x" fills no block
    trace = make_trace_of([[1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [1, 2, 8]])
    stretches = cut(trace, 2)
    assert by_request(stretches.paths.nodes, stretches.paths.offsets) == [[0, 1], [0, 1, 2], [0]]
    assert by_request(stretches.paths.ends, stretches.paths.offsets) == [[1, 2], [1, 2, 3], [1]]
    assert stretches.n_distinct == 3 and stretches.blocks.tolist() == [2, 3, 1]
    # blocks of four: no block ends within the first two tokens, so that node is no stretch
    assert by_request(cut(trace, 4).paths.ends, cut(trace, 4).paths.offsets) == [[1], [1], []]


@given(small_traces(), st.integers(1, 5), st.booleans())
def test_blocks_are_those_of_the_twin(small, block_size, outputs):
    blocks = cut(small.trace, block_size, outputs).list_blocks()
    arrival_s = small.trace.arrival_s.tolist()
    expected = account(small.prompts, arrival_s, block_size, small.outputs if outputs else None).ids
    assert by_request(blocks.ids, blocks.offsets) == expected
    depth, parent = {}, {}
    for ids in expected:
        for place, block in enumerate(ids):
            depth[block], parent[block] = place, ids[place - 1] if place else -1
    assert blocks.depth.tolist() == [depth[block] for block in range(len(depth))]
    assert blocks.parent.tolist() == [parent[block] for block in range(len(parent))]
    assert blocks.n_distinct == len(depth)


@given(small_traces(), st.integers(1, 5))
def test_blocks_of_a_stretch_have_one_history(small, block_size):
    """A stretch is accessed whole: each request has all of its blocks or none."""
    stretches = cut(small.trace, block_size)
    spans = {}
    for nodes, ends in zip(
        by_request(stretches.paths.nodes, stretches.paths.offsets),
        by_request(stretches.paths.ends, stretches.paths.offsets), strict=True,
    ):  # fmt: skip
        for node, start, end in zip(nodes, [0, *ends], ends, strict=False):
            assert start < end and spans.setdefault(node, (start, end)) == (start, end)
    assert sorted(spans) == list(range(stretches.paths.n_nodes))
    assert sum(end - start for start, end in spans.values()) == stretches.n_distinct


@pytest.mark.parametrize("block_size", [1, 7, 16])
def test_a_workload_s_stretches_are_its_prefix_trace(bundled_workload, block_size):
    trace = make_trace(bundled_workload, "multi_turn")
    made, expected = cut(trace, block_size).list_blocks(), make_prefix_trace(trace, block_size)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(made, name), value, err_msg=name)


def test_stretches_are_described_by_hand():
    # abcdefgh abcd abcdxy in blocks of two: "abcd", "efgh" and "xy"
    paths = find_paths(make_trace_of([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4], [1, 2, 3, 4, 9, 9]]), 2)
    described = describe_stretches(paths)
    assert [one.tolist() for one in described] == [[-1, 0, 0], [0, 2, 2], [2, 4, 3]]
    assert described.lengths.tolist() == [2, 2, 1]


@given(small_traces(), st.integers(1, 5), st.booleans())
def test_leading_blocks_are_those_of_the_accounting(small, block_size, outputs):
    trace = small.trace
    limits = np.maximum(trace.requests["prompt_tokens"].to_numpy() - 1, 0) // block_size
    blocks = identify_blocks(trace, block_size, outputs=outputs)
    expected = count_hits(blocks, trace.requests["prompt_tokens"].to_numpy())
    assert count_leading(find_paths(trace, block_size, outputs=outputs), limits).tolist() == expected.tolist()


@given(small_traces(), st.integers(1, 5), st.data())
def test_requests_of_different_contexts_share_no_stretch(small, block_size, data):
    n = len(small.prompts)
    salts = data.draw(st.lists(st.sampled_from(["x", "y", ""]), min_size=n, max_size=n))
    trace = make_trace_of(small.prompts, small.trace.arrival_s, cache_salts=salts)
    paths, blocks = find_paths(trace, block_size), identify_blocks(trace, block_size)
    assert paths.n_distinct == blocks.n_distinct
    limits = np.maximum(trace.requests["prompt_tokens"].to_numpy() - 1, 0) // block_size
    hits = count_hits(blocks, trace.requests["prompt_tokens"].to_numpy())
    assert count_leading(paths, limits).tolist() == hits.tolist()


def test_paths_without_the_template_are_those_of_its_blocks(bundled_workload):
    trace = make_trace(bundled_workload, "multi_turn").without_template()
    paths, blocks = find_paths(trace, 16, outputs=True), identify_blocks(trace, 16, outputs=True)
    assert paths.n_distinct == blocks.n_distinct
    ends = [part[-1] if part else 0 for part in by_request(paths.ends, paths.offsets)]
    assert ends == np.diff(blocks.offsets).tolist()


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=12))
def test_stretches_of_a_list_of_blocks_give_it_back(prompts):
    accesses = make_prefix_trace(make_trace_of([[*prompt, 9] for prompt in prompts]), 1)
    stretched = stretch_trace(accesses)
    again = stretched.list_blocks()
    for name in ("ids", "offsets", "parent", "depth", "last_weight", "prompt_tokens"):
        assert getattr(again, name).tolist() == getattr(accesses, name).tolist()
    ends = {(prompt[: k + 1]) for prompt in map(tuple, ([*one, 9] for one in prompts)) for k in range(len(prompt))}
    children = {one: {other for other in ends if other[:-1] == one} for one in ends}
    last = {(*prompt, 9) for prompt in map(tuple, prompts)}
    assert stretched.paths.n_nodes == sum(len(children[one]) != 1 or one in last for one in ends)
    capacities = [1, 3, 8]
    curve = lru_curve(stretched, measure_recency(stretched)).at(capacities)
    for k, capacity in enumerate(capacities):
        expected = rate_hits(accesses, replay(accesses, capacity, "lru"))
        assert {name: one[k] for name, one in curve.items()} == pytest.approx(expected)
