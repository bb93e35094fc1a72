"""Traces of blocks: what is listed of prompts with tokens, partial blocks, coarser blocks, and a twin of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twin import small_traces

from kvprefix.blocks.listed import coarsen_blocks, list_blocks, number_chains
from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.cache.curve import rate_unbounded
from kvprefix.files.paths import InputError
from kvprefix.traces.trace import make_trace_of


def lists_of(trace):
    return [trace.ids[a:b].tolist() for a, b in zip(trace.offsets[:-1], trace.offsets[1:], strict=True)]


def test_partial_blocks_have_ids_of_their_own():
    # Blocks of 2. 12|34|5 and 12|34|56: the partial 5 is another block than 56; the fourth prompt is the first again.
    # The third has the full blocks 12 and 34 only; in the fifth 5 follows 12, which makes it another one.
    trace = list_blocks(
        make_trace_of([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 5], []]), 2
    )
    assert lists_of(trace) == [[0, 1, 2], [0, 1, 3], [0, 1], [0, 1, 2], [0, 4], []]
    assert trace.parent.tolist() == [-1, 0, 1, 1, 0] and trace.depth.tolist() == [0, 1, 2, 2, 1]
    assert trace.last_weight.tolist() == [1, 2, 2, 1, 1, 0]  # 5 - 4, 6 - 4, 4 - 2, 5 - 4, 3 - 2, nothing
    # Unbounded: 0 + 4 + 4 + 5 + 2 of 5 + 6 + 4 + 5 + 3 tokens
    assert rate_unbounded(trace)["token"] == pytest.approx(15 / 23)


@given(small_traces(), st.integers(1, 5))
def test_blocks_are_those_of_a_dict_of_prefixes(small, block_size):
    trace, number = list_blocks(small.trace, block_size), {}
    expected = [
        [number.setdefault(tuple(prompt[: k + block_size]), len(number)) for k in range(0, len(prompt), block_size)]
        for prompt in small.prompts
    ]
    assert lists_of(trace) == expected
    assert trace.prompt_tokens.tolist() == [len(prompt) for prompt in small.prompts]
    assert trace.output_tokens.tolist() == [len(output) for output in small.outputs]
    assert trace.arrival_s.tolist() == small.trace.arrival_s.tolist()


@given(small_traces(), st.integers(1, 4), st.integers(1, 4))
def test_joined_blocks_are_the_larger_blocks_of_the_tokens(small, block_size, times):
    coarse = coarsen_blocks(list_blocks(small.trace, block_size), times * block_size)
    direct = list_blocks(small.trace, times * block_size)
    assert coarse.block_size == direct.block_size
    for name in ("ids", "offsets", "parent", "depth", "prompt_tokens"):
        np.testing.assert_array_equal(getattr(coarse, name), getattr(direct, name))


@pytest.mark.parametrize("size", [2, 6, 7])
def test_finer_blocks_and_no_multiples_are_refused(size):
    with pytest.raises(InputError, match=f"block size is {size}; a trace that lists blocks of 4 .* such as 4 or 8"):
        coarsen_blocks(list_blocks(make_trace_of([range(9)]), 4), size)


@pytest.mark.parametrize("length", [9, 8])  # an engine computes the last token: the second block of 8 saves nothing
def test_full_blocks_alone_are_not_joined(length):
    full = make_prefix_trace(make_trace_of([range(length)]), 4)
    with pytest.raises(InputError, match="lists only the full blocks of its prompts; expected the partial last ones"):
        coarsen_blocks(full, 8)


def test_joined_blocks_weigh_what_they_hold():
    # Prompts of 9 and 4 tokens: in blocks of 8 their last ones hold 1 and 4
    coarse = coarsen_blocks(list_blocks(make_trace_of([range(9), range(4)]), 4), 8)
    assert coarse.last_weight.tolist() == [1, 4] and coarse.hit_tokens(np.array([2, 1])).tolist() == [9, 4]


@given(st.lists(st.lists(st.integers(-3, 2**40).map(lambda n: n % 3 - 1), max_size=6), min_size=1, max_size=6))
def test_chains_are_those_of_a_dict(lists):
    offsets = np.cumsum([0, *map(len, lists)])
    ids, parent, depth = number_chains(np.array([one for ids in lists for one in ids], np.int64), offsets)
    number = {}
    expected = [number.setdefault(tuple(ids[: k + 1]), len(number)) for ids in lists for k in range(len(ids))]
    assert ids.tolist() == expected
    prefixes = list(number)
    assert parent.tolist() == [number.get(prefix[:-1], -1) for prefix in prefixes]
    assert depth.tolist() == [len(prefix) - 1 for prefix in prefixes]


def test_previous_turns_are_found():
    trace = make_trace_of([[1]] * 6)
    trace.requests["conversation_index"] = [7, 7, 8, 7, 7, 8]
    trace.requests["turn"] = [0, 1, 0, 2, 1, 5]  # the fifth is a branch: the first's turn 1 again
    blocks = list_blocks(trace, 1)
    assert blocks.previous.tolist() == [-1, 0, -1, 1, 0, 2]
    assert blocks.conversation.tolist() == [0, 0, 1, 0, 0, 1]
