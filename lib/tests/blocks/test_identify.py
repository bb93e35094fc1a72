import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twin import account, identify_in_arrival_order, small_traces

from kvprefix.blocks.hashing import RANGES, hash_blocks, number_keys, sort_by_range
from kvprefix.blocks.identify import identify_blocks
from kvprefix.files.checks import check_block_size
from kvprefix.files.paths import InputError
from kvprefix.tokens import arrays as tokens_module
from kvprefix.tokens.arrays import Tokens, make_tokens
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import make_trace

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


@given(small_traces(), st.integers(1, 5), st.booleans(), st.booleans(), st.sampled_from([1, 20, 2**22]))
def test_ids_agree_with_the_twin(small, block_size, outputs, without_template, part_tokens):
    trace, prompts = small.trace, small.prompts
    if without_template:
        trace = trace.without_template()
        prompts = [
            [token for token, flag in zip(prompt, flags, strict=True) if not flag]
            for prompt, flags in zip(prompts, small.is_template, strict=True)
        ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens_module, "PART_TOKENS", part_tokens)
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


def test_parts_are_hashed_alone_and_their_keys_numbered_by_range():
    # Blocks of 2. Part 1: [A B | C D] and, going on from it, [E F]; part 2: [A B | E F]. Hashed alone, each numbers its
    # own keys; numbered together, "A B" is one block, and "E F" after "A B C D" is not "E F" after "A B": 4 blocks.
    one = Tokens(np.array([-1, 0]), np.array([0, 4]), np.array([0, 4, 6]), np.array([A, B, C, D, E, F], np.int32),
                 np.zeros(6, bool), np.zeros(3, int), np.zeros(0, np.int32))  # fmt: skip
    two = make_tokens([[A, B, E, F]], [[]])
    found = [pickle.loads(pickle.dumps(hash_blocks(part, 2))) for part in (one, two)]
    assert [part.ids.tolist() for part in found] == [[0, 1, 2], [0, 1]]
    assert [len(part.keys) for part in found] == [3, 2]
    assert found[0].keys[0].tolist() == found[1].keys[0].tolist()
    blocks, of_range = [], []
    for part in found:
        keys, bounds, ids = sort_by_range(part)
        assert keys[ids].tolist() == part.keys[part.ids].tolist()
        ranges = np.repeat(np.arange(RANGES), np.diff(bounds))
        assert ranges.tolist() == (keys[:, 0] >> np.uint64(60)).tolist()
        blocks.append(keys[ids])
        of_range.append([keys[bounds[r] : bounds[r + 1]] for r in range(RANGES)])
    names = {}
    for r, keys in enumerate(zip(*of_range, strict=True)):
        numbers, n_distinct = number_keys(keys)
        assert n_distinct == len(set(numbers.tolist()))
        names |= {tuple(key): (r, n) for key, n in zip(np.concatenate(keys).tolist(), numbers.tolist(), strict=True)}
    ab, cd, ef, ab_again, other_ef = [names[tuple(key)] for key in np.concatenate(blocks).tolist()]
    assert ab == ab_again and len({ab, cd, ef, other_ef}) == 4


def test_row_that_goes_on_from_a_later_one_is_refused():
    later = dataclasses.replace(make_tokens([[A], [A, B]], [[], []]), parent=np.array([1, -1]), shared=np.array([1, 0]))
    with pytest.raises(ValueError, match="continues itself or a later row"):
        identify_blocks(dataclasses.replace(make_trace_of([[A], [A, B]]), tokens=later), 1)


def test_rows_that_are_not_needed_are_not_hashed():
    tokens = make_tokens([[A, B], [C, D], [A, B]], [[]] * 3)
    assert hash_blocks(tokens, 2, needed=np.array([True, False, True])).ids.tolist() == [0, 0]


@given(small_traces(), st.integers(1, 5), st.booleans())
def test_blocks_agree_with_one_pass_in_arrival_order(small, block_size, outputs):
    blocks = identify_blocks(small.trace, block_size, outputs=outputs)
    expected = identify_in_arrival_order(small.trace, block_size, outputs)
    for name, value in expected.items():
        found = getattr(blocks, name)
        assert np.array_equal(found, value) and (np.isscalar(value) or found.dtype == value.dtype), name


@pytest.mark.parametrize("outputs", [False, True])
def test_blocks_of_real_conversations_agree_with_one_pass(bundled_workload, monkeypatch, outputs):
    monkeypatch.setattr(tokens_module, "PART_TOKENS", 10_000)
    for mode in ("single_turn", "multi_turn"):
        trace = make_trace(bundled_workload, mode)
        for block_size in (7, 16):
            blocks = identify_blocks(trace, block_size, outputs=outputs)
            expected = identify_in_arrival_order(trace, block_size, outputs)
            assert all(np.array_equal(getattr(blocks, name), value) for name, value in expected.items())


def test_blocks_of_other_contexts_are_other_blocks():
    salts, adapters = ["x", "y", "x", None, "", "x"], [None, None, None, None, None, "l"]
    prompts = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 5, 6], [1, 2], [1, 2], [1, 2]]
    blocks = identify_blocks(make_trace_of(prompts, cache_salts=salts, lora_names=adapters), 2)
    assert blocks.ids.tolist() == [0, 1, 2, 3, 0, 4, 5, 5, 6]
    assert blocks.parent.tolist() == [-1, 0, -1, 2, 0, -1, -1] and blocks.depth.tolist() == [0, 1, 0, 1, 1, 0, 0]
    assert identify_blocks(make_trace_of(prompts, cache_salts=["x"] * 6), 2).n_distinct == 3


@pytest.mark.parametrize("block_size", [0, -1, 2.0, "16", None, True, float("nan")])
def test_block_size_without_sense_is_refused(block_size):
    with pytest.raises(InputError, match="block size is .*; expected a whole number of tokens, 1 or more"):
        identify_blocks(make_trace_of([[A]]), block_size)


def test_block_size_may_be_a_numpy_integer():
    assert check_block_size(np.int32(16)) == 16
