import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twin import account, small_traces

from kvprefix.blocks import check_block_size, identify_blocks
from kvprefix.files import InputError
from kvprefix.trace import make_trace_of

A, B, C, D, E, F, X, Y = range(8)


def identify(prompts, block_size, outputs=None):
    """Return each request's block ids as lists."""
    blocks = identify_blocks(make_trace_of(prompts, outputs=outputs), block_size, outputs=outputs is not None)
    return by_request(blocks)


def by_request(blocks):
    return [ids.tolist() for ids in np.split(blocks.ids, blocks.offsets[1:-1])]


def test_identity_is_the_whole_prefix():
    # "c d" after "a b" and after "x y" are two blocks: 1 and 4
    assert identify([[A, B, C, D], [A, B, E, F], [X, Y, C, D]], 2) == [[0, 1], [0, 2], [3, 4]]


def test_partial_last_block_is_none():
    # 5 tokens are floor(5 / 2) = 2 blocks, 1 token none; the tail "e" is part of no identity
    assert identify([[A, B, C, D, E], [A], [A, B, C, D, F], [A, B, C]], 2) == [[0, 1], [], [0, 1], [0]]


def test_prompt_shorter_than_a_block_has_none():
    assert identify([[A, B, C], [A, B, C, D]], 4) == [[], [0]]
    assert identify([[A], []], 2) == [[], []]


def test_same_tokens_at_another_depth_are_another_block():
    assert identify([[A, A, A, A], [A, A]], 2) == [[0, 1], [0]]


def test_blocks_of_one_token():
    assert identify([[A, B], [A, C], [B]], 1) == [[0, 1], [0, 2], [3]]


def test_order_within_a_block_counts():
    assert identify([[A, B], [B, A]], 2) == [[0], [1]]


@pytest.mark.parametrize(
    "n_prompt, n_output, n_blocks",
    [
        (4, 0, 2),  # no output: floor(4 / 2)
        (4, 1, 2),  # floor((4 + 1 - 1) / 2)
        (4, 2, 2),  # floor((4 + 2 - 1) / 2): the last token's KV is never computed
        (4, 3, 3),  # floor((4 + 3 - 1) / 2)
        (3, 2, 2),  # floor((3 + 2 - 1) / 2): a block half prompt, half output
        (1, 1, 0),  # floor((1 + 1 - 1) / 2)
    ],
)
def test_generated_tokens_fill_blocks_but_for_the_last(n_prompt, n_output, n_blocks):
    trace = make_trace_of([[A] * n_prompt], outputs=[[A] * n_output])
    blocks = identify_blocks(trace, 2, outputs=True)
    assert by_request(blocks) == [list(range(n_blocks))]
    assert blocks.prompt_blocks.tolist() == [n_prompt // 2]
    assert by_request(identify_blocks(trace, 2)) == [list(range(n_prompt // 2))]


def test_next_prompt_meets_the_blocks_of_the_reply():
    # the reply "c d e" leaves floor((2 + 3 - 1) / 2) = 2 blocks; "e" is computed by the next prompt
    assert identify([[A, B], [A, B, C, D, E, F]], 2, outputs=[[C, D, E], []]) == [[0, 1], [0, 1, 2]]


def test_parents_and_depths():
    blocks = identify_blocks(make_trace_of([[A, B, C, D], [A, B, E, F], [X, Y, C, D]]), 2)
    assert blocks.parent.tolist() == [-1, 0, 0, -1, 3]
    assert blocks.depth.tolist() == [0, 1, 1, 0, 1]
    assert blocks.n_distinct == 5


@given(small_traces(), st.integers(1, 5), st.booleans(), st.booleans())
def test_ids_agree_with_the_twin(small, block_size, outputs, without_template):
    trace, prompts = small.trace, small.prompts
    if without_template:
        trace = trace.without_template()
        prompts = [
            [token for token, flag in zip(prompt, flags, strict=True) if not flag]
            for prompt, flags in zip(prompts, small.is_template, strict=True)
        ]
    blocks = identify_blocks(trace, block_size, outputs=outputs)
    expected = account(prompts, trace.arrival_s, block_size, small.outputs if outputs else None)
    assert by_request(blocks) == expected.ids
    assert blocks.prompt_blocks.tolist() == [len(prompt) // block_size for prompt in prompts]
    assert blocks.n_distinct == len(expected.times)
    paths = {
        ids[depth]: (ids[depth - 1] if depth else -1, depth)
        for ids in expected.ids
        for depth in range(len(ids))
    }
    found = zip(blocks.parent.tolist(), blocks.depth.tolist(), strict=True)
    assert dict(enumerate(found)) == paths


@pytest.mark.parametrize("block_size", [0, -1, 2.0, "16", None, True, float("nan")])
def test_block_size_without_sense_is_refused(block_size):
    with pytest.raises(InputError, match="block size is .*; expected a whole number of tokens, 1 or more"):
        identify_blocks(make_trace_of([[A]]), block_size)


def test_block_size_may_be_a_numpy_integer():
    assert check_block_size(np.int32(16)) == 16
