"""What requests reuse, found part by part and range by range, is what a dict of whole prefixes says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twin import small_traces

from kvprefix.blocks import hashing, reuse
from kvprefix.blocks.identify import identify_blocks
from kvprefix.blocks.reuse import Reuse, find_reuse, reuse_of
from kvprefix.blocks.runs import find_block_runs, find_gap_runs
from kvprefix.files.paths import InputError
from kvprefix.tokens import arrays
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import make_trace


def find(trace, block_size, outputs=False):
    return find_reuse(trace.tokens, trace.rows, block_size, outputs=outputs)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)



def test_reuse_by_hand():
    # blocks of 2: (1 2) (3 4); (1 2) (5 6); the first again; (1 2) (5 6) (7 8): the second request stored its (5 6)
    found = find(make_trace_of([[1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 3, 4], [1, 2, 5, 6, 7, 8, 9]]), 2)
    assert found.blocks.tolist() == [2, 2, 2, 3]
    assert found.reused.tolist() == [0, 1, 2, 2]
    assert found.source.tolist() == [-1, 0, 0, 1]
    assert found.stored.tolist() == [0, 2, 3, 3, 4]


@given(small_traces(), st.integers(1, 4), st.booleans())
def test_parts_and_ranges_give_what_the_numbered_blocks_give(small, block_size, outputs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "PART_TOKENS", 5)
        patch.setattr(reuse, "PART_TOKENS", 1)
        patch.setattr(reuse, "RANGE_BLOCKS", 1)
        found = find(small.trace, block_size, outputs)
    blocks = identify_blocks(small.trace, block_size, outputs=outputs)
    assert_equal(found, reuse_of(blocks.ids, blocks.offsets))


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("mode", ["single_turn", "multi_turn"])
def test_files_hold_what_memory_holds(bundled_workload, monkeypatch, tmp_path, mode, outputs):
    trace = make_trace(bundled_workload, mode)
    expected = find(trace, 16, outputs)
    monkeypatch.setattr(arrays, "PART_TOKENS", 2**14)
    monkeypatch.setattr(reuse, "PART_TOKENS", 2**14)
    monkeypatch.setattr(reuse, "IN_MEMORY", 0)
    assert_equal(find(trace, 16, outputs), expected)
    blocks = identify_blocks(trace, 16, outputs=outputs)
    assert_equal(expected, reuse_of(blocks.ids, blocks.offsets))


def test_counts_beyond_32_bits_are_counted():
    # a request of 2**33 blocks, one that reuses all but its last block, one that reuses 2**32 of them
    long = Reuse(np.array([2**30, 2**33, 2**33, 2**33]), np.array([0, 0, 2**33 - 1, 2**32]), np.array([-1, -1, 1, 1]))
    assert long.stored.tolist() == [0, 2**30, 2**30 + 2**33, 2**30 + 2**33 + 1, 2**30 + 2**34 + 1 - 2**32]
    runs = find_block_runs(long)
    assert runs.lengths.tolist() == [2**30, 2**32, 2**32 - 1, 1, 1, 2**32]
    assert runs.accesses.tolist() == [1, 3, 2, 1, 1, 1]
    assert runs.depth.tolist() == [0, 0, 2**32, 2**33 - 1, 2**33 - 1, 2**32]
    assert (runs.lengths * runs.accesses).sum() == long.blocks.sum()


def test_gaps_of_blocks_with_one_fate_are_one_run():
    # 0 stores 4 blocks; 1 takes 3 of them, 2 takes 2, 3 takes all: last accessed by 2 (two), by 1 (one), by 0 (one)
    gaps = find_gap_runs(Reuse(np.array([4, 3, 2, 4]), np.array([0, 3, 2, 4]), np.array([-1, 0, 0, 0])))
    assert gaps.lengths.tolist() == [3, 2, 2, 1, 1]
    assert gaps.request.tolist() == [1, 2, 3, 3, 3]
    assert gaps.last.tolist() == [0, 1, 2, 1, 0]


def test_a_part_of_too_many_blocks_is_refused(monkeypatch):
    monkeypatch.setattr(hashing, "MOST", 3)
    assert find(make_trace_of([[1, 2], [3, 4]]), 2).reused.tolist() == [0, 0]
    with pytest.raises(InputError, match="3 blocks of 1 tokens depend on one another, more than can be numbered"):
        find(make_trace_of([[1, 2, 3]]), 1)
