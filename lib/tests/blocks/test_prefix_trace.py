from dataclasses import replace

import numpy as np
import pytest
from cache_twin import make_random, make_small, small_traces
from hypothesis import given, settings
from hypothesis import strategies as st
from twin import account
from twin import small_traces as token_traces

from kvprefix.blocks.prefix_trace import PrefixError, make_prefix_trace, number_blocks, select_requests
from kvprefix.blocks.sharing import share
from kvprefix.cache.curve import count_seen, rate_unbounded
from kvprefix.files.paths import InputError
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import make_trace

BY_REQUEST = ("last_weight", "prompt_tokens", "arrival_s", "finish_s", "conversation")


def number(requests):
    """Number the blocks of plain lists of ids."""
    offsets = np.cumsum([0, *map(len, requests)])
    return number_blocks(np.array([block for request in requests for block in request], np.int64), offsets)


# ---- Of our own trace


def test_accesses_by_hand():
    # blocks of 2: 12 34 | 12 56, 7 left | 12 34 | 8 left | nothing: three distinct, the second two follow the first
    prompts = [[1, 2, 3, 4], [1, 2, 5, 6, 7], [1, 2, 3, 4], [8], []]
    accesses = make_prefix_trace(make_trace_of(prompts, arrival_s=[0, 1, 4, 6, 7]), 2)
    assert (len(accesses), accesses.n_distinct, accesses.block_size) == (5, 3, 2)
    assert accesses.ids.tolist() == [0, 1, 0, 2, 0, 1]
    assert accesses.offsets.tolist() == [0, 2, 4, 6, 6, 6]
    assert accesses.blocks.tolist() == [2, 2, 2, 0, 0]
    assert accesses.parent.tolist() == [-1, 0, 0]
    assert accesses.depth.tolist() == [0, 1, 1]
    assert accesses.prompt_tokens.tolist() == [4, 5, 4, 1, 0]
    assert accesses.last_weight[:3].tolist() == [0, 2, 0]  # the last block of 4 tokens ends the prompt: it is computed
    assert accesses.arrival_s.tolist() == accesses.finish_s.tolist() == [0, 1, 4, 6, 7]
    assert accesses.conversation.tolist() == [0, 1, 2, 3, 4]


def test_a_request_runs_for_its_service_time():
    trace = make_trace_of([[1], [2], [3]], arrival_s=[0, 1, 1], outputs=[[], [7], [7] * 4])
    trace = replace(trace, info={"parameters": {"ttft_s": 0.5, "time_per_output_token_s": 0.25}})
    accesses = make_prefix_trace(trace, 1)
    # arrival + 0.5 s + 0.25 s a generated token: 0 + 0.5; 1 + 0.5 + 0.25; 1 + 0.5 + 4 * 0.25
    assert accesses.finish_s.tolist() == [0.5, 1.75, 2.5]
    assert accesses.info == trace.info


def test_tokens_of_hits_by_hand():
    # blocks of 4: the first prompt's 2 blocks end it (last weighs 0), the second's are followed by a token (4), the
    # third lists a partial last one of 3 tokens; the fourth has no block
    small = make_small(["ab", "ab", "ab", ""], block_size=4, last_weight=[0, 4, 3, 0], prompt_tokens=[8, 9, 7, 1])
    assert small.accesses.hit_tokens(np.array([2, 2, 2, 0])).tolist() == [4 + 0, 4 + 4, 4 + 3, 0]
    assert small.accesses.hit_tokens(np.array([1, 1, 1, 0])).tolist() == [4, 4, 4, 0]
    several = np.array([[0, 1, 2], [0, 0, 1], [2, 2, 2], [0, 0, 0]])
    assert small.accesses.hit_tokens(several).tolist() == [[0, 4, 4], [0, 0, 4], [7, 7, 7], [0, 0, 0]]


@given(token_traces(), st.integers(1, 4))
@settings(max_examples=100)
def test_accesses_of_small_traces_agree_with_the_twin(small, block_size):
    accesses = make_prefix_trace(small.trace, block_size)
    expected = account(small.prompts, small.trace.arrival_s.tolist(), block_size)
    assert accesses.blocks.tolist() == [len(ids) for ids in expected.ids]
    assert accesses.ids.tolist() == [block for ids in expected.ids for block in ids]
    saved = accesses.hit_tokens(count_seen(accesses.ids, accesses.offsets))
    assert saved.tolist() == [block_size * n for n in expected.hits]  # a hit of the prompt's last token saves nothing


@pytest.mark.parametrize("mode", ["single_turn", "multi_turn"])
def test_bundled_conversations_have_one_ceiling(bundled_workload, mode):
    trace = make_trace(bundled_workload, mode)
    accesses, sharing = make_prefix_trace(trace, 16), share(trace, 16)
    rates = rate_unbounded(accesses)
    assert rates["block"] == sharing.block_reuse_rate
    assert rates["token"] == sharing.token_hit_rate
    assert rates["request_mean"] == pytest.approx(sharing.sharing_fraction.mean())


# ---- Of listed ids


def test_numbering_by_hand():
    # first seen: 7 is 0, -3 is 1 and follows it, 10**12 is 2 and follows it too, 5 is 3 and a first one
    ids, parent, depth = number([[7, -3], [], [7, 10**12], [5]])
    assert ids.tolist() == [0, 1, 0, 2, 3]
    assert parent.tolist() == [-1, 0, 0, -1]
    assert depth.tolist() == [0, 1, 1, 0]
    assert (ids.dtype, parent.dtype, depth.dtype) == (np.int32, np.int32, np.int32)


@pytest.mark.parametrize("requests", [[], [[]], [[], []]])
def test_nothing_to_number(requests):
    assert [len(array) for array in number(requests)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("requests", "request_", "block"),
    [
        ([[1, 2], [], [3, 2]], 2, 2),  # 2 follows 1, then 3
        ([[1], [2, 1]], 1, 1),  # 1 is a first block, then it follows 2
        ([[], [1, 2], [2]], 2, 2),  # 2 follows 1, then it is a first block
        ([[1, 2, 3], [1, 3]], 1, 3),  # a block left out
        ([[4, 4]], 0, 4),  # twice in one request
        ([[1], [2, 3, 2]], 1, 2),
        ([[-9, 8], [8, -9], [8, 8]], 1, 8),  # the first of several
    ],
)
def test_an_id_names_one_prefix(requests, request_, block):
    with pytest.raises(PrefixError, match=f"block id {block} follows another block") as error:
        number(requests)
    assert error.value.request == request_
    assert isinstance(error.value, InputError)


@given(small_traces(), st.integers(0, 50), st.integers(-(2**40), 2**40))
@settings(max_examples=100)
def test_any_whole_numbers_are_numbered_alike(small, shift, start):
    accesses = small.accesses
    for names in (start + 2**shift * np.arange(accesses.n_distinct), start - np.arange(accesses.n_distinct)):
        ids, parent, depth = number_blocks(names[accesses.ids], accesses.offsets)
        assert ids.tolist() == accesses.ids.tolist()
        assert parent.tolist() == accesses.parent.tolist()
        assert depth.tolist() == accesses.depth.tolist()


# ---- Part of the requests


def assert_selects(small, positions):
    selected = select_requests(small.accesses, np.array(positions, np.int64))
    expected = make_small([small.paths[i] for i in positions]).accesses
    for name in ("ids", "offsets", "parent", "depth"):
        assert getattr(selected, name).tolist() == getattr(expected, name).tolist()
        assert getattr(selected, name).dtype == getattr(expected, name).dtype
    for name in BY_REQUEST:
        assert getattr(selected, name).tolist() == getattr(small.accesses, name)[positions].tolist()
    assert selected.block_size == small.accesses.block_size
    assert selected.info is small.accesses.info


def test_selection_by_hand():
    # of a ab | c | | ad | c ce the third to the last: a 0, ad 1, c 2, ce 3
    small = make_small(["ab", "c", "", "ad", "ce"])
    selected = select_requests(small.accesses, np.array([2, 3, 4]))
    assert selected.ids.tolist() == [0, 1, 2, 3]
    assert selected.offsets.tolist() == [0, 0, 2, 4]
    assert selected.parent.tolist() == [-1, 0, -1, 2]
    assert selected.arrival_s.tolist() == [2, 3, 4]
    assert_selects(small, [2, 3, 4])


def test_selection_at_other_times():
    # each runs for as long as before: 3 s from 0 s on, 0.5 s from 4 s on, and 3 s again
    small = make_small(["a", "b"], arrival_s=[1, 2], finish_s=[4, 2.5])
    selected = select_requests(small.accesses, np.array([0, 1, 0]), np.array([0.0, 4.0, 4.0]))
    assert selected.arrival_s.tolist() == [0, 4, 4]
    assert selected.finish_s.tolist() == [3, 4.5, 7]
    assert selected.ids.tolist() == [0, 1, 0]


def test_selection_keeps_what_only_some_traces_know():
    small = make_small(["a", "b", "ab"])
    known = replace(
        small.accesses, output_tokens=np.array([5, 6, 7]), previous=np.array([-1, -1, 0]), turn=np.array([0, 0, 1]),
        types=["text", "search", "file"],
    )  # fmt: skip
    selected = select_requests(known, np.array([2, 0]))
    assert (selected.output_tokens.tolist(), selected.turn.tolist()) == ([7, 5], [1, 0])
    assert selected.types == ["file", "text"] and selected.previous is None  # positions are others now
    unknown = select_requests(small.accesses, np.array([2, 0]))
    assert unknown.output_tokens is unknown.turn is unknown.types is unknown.previous is None


@given(st.data())
@settings(max_examples=100)
def test_selection_equals_a_trace_of_the_selected(data):
    small = data.draw(small_traces())
    assert_selects(small, data.draw(st.lists(st.integers(0, len(small.paths) - 1))))  # in any order, and again


def test_selection_of_a_longer_trace():
    small = make_random(seed=1)
    assert_selects(small, list(range(0, 400, 3)))
    assert_selects(small, list(range(400)))
