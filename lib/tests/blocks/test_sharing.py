import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twin import account, small_traces

from kvprefix.blocks.sharing import count_history_hits, measure_hits_with_outputs, share
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import make_trace


def hits(prompts, block_size):
    return share(make_trace_of(prompts), block_size).hit_blocks.tolist()


def test_last_token_is_always_computed():
    # 4 tokens sent again: at most floor((4 - 1) / 2) = 1 block hits; with a fifth floor((5 - 1) / 2) = 2
    assert hits([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5]], 2) == [0, 1, 2]


def test_one_token_and_short_prompts_hit_nothing():
    # floor((1 - 1) / 1) = 0; floor((3 - 1) / 4) = 0
    assert hits([[1], [1], [1]], 1) == [0, 0, 0]
    assert hits([[1, 2, 3], [1, 2, 3], [1]], 4) == [0, 0, 0]
    assert hits([[], []], 1) == [0, 0]


def test_hit_is_a_leading_run():
    # the second request hits "1 2" and misses "9 9"; its "3 4" has another prefix than the first one's
    assert hits([[1, 2, 3, 4, 0], [1, 2, 9, 9, 3, 4, 0]], 2) == [0, 1]


def test_partial_tail_is_no_hit():
    # 5 tokens, blocks of 2: tokens 1-4 hit, the tail is computed
    assert hits([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]], 2) == [0, 2]


def test_request_does_not_hit_itself():
    assert hits([[1, 1, 1, 1, 1]], 2) == [0]


def test_accounting_by_hand():
    # blocks at 0 s: 0 1; at 1 s: 0 2; at 4 s: 0 1 (an aligned resend: one hit, two accesses); at 6 s: 3
    prompts = [[1, 2, 3, 4], [1, 2, 5, 6, 7], [1, 2, 3, 4], [8, 8]]
    sharing = share(make_trace_of(prompts, arrival_s=[0, 1, 4, 6]), 2)
    assert sharing.hit_blocks.tolist() == [0, 1, 1, 0]
    assert sharing.hit_tokens.tolist() == [0, 2, 2, 0]
    assert sharing.sharing_fraction.tolist() == [0, 2 / 5, 2 / 4, 0]
    assert sharing.accesses.tolist() == [3, 2, 1, 1]
    assert sharing.first_access_s.tolist() == [0, 0, 1, 6]
    assert sharing.last_access_s.tolist() == [4, 4, 1, 6]
    assert sharing.gap_s.tolist() == [1, 3, 4]  # block 0: 0 to 1; then 1 to 4; block 1: 0 to 4
    assert sharing.gap_new_blocks.tolist() == [0, 0, 1]  # block 2 came between block 1's accesses
    assert sharing.request_gaps.tolist() == [0, 1, 2, 0]
    assert sharing.gap_weights.tolist() == [1, 0.5, 0.5]
    assert sharing.token_hit_rate == 4 / 15  # (2 + 2) / (4 + 5 + 4 + 2)
    assert sharing.block_reuse_rate == 3 / 7  # 7 accesses of 4 blocks
    assert sharing.blocks_reused_fraction == 2 / 4


def test_rates_without_blocks_are_none():
    sharing = share(make_trace_of([[1], [1]]), 2)
    assert (sharing.block_reuse_rate, sharing.blocks_reused_fraction, sharing.token_hit_rate) == (
        None,
        None,
        0,
    )
    assert share(make_trace_of([[]]), 2).token_hit_rate is None


def test_hits_on_generated_tokens():
    # floor((2 + 3 - 1) / 2) = 2 blocks kept; 5 and 4 tokens may hit floor(4 / 2) = 2 and floor(3 / 2) = 1
    trace = make_trace_of([[1, 2], [1, 2, 3, 4, 5], [1, 2, 3, 4]], outputs=[[3, 4, 9], [], []])
    assert measure_hits_with_outputs(trace, 2).tolist() == [0, 2, 1]
    # one generated token fewer: 2 + 2 - 1 = 3 tokens kept, 1 block
    trace = make_trace_of([[1, 2], [1, 2, 3, 4, 5]], outputs=[[3, 4], []])
    assert measure_hits_with_outputs(trace, 2).tolist() == [0, 1]


def assert_agrees(trace, prompts, outputs, block_size):
    sharing = share(trace, block_size)
    expected = account(prompts, trace.arrival_s.tolist(), block_size)
    assert sharing.hit_blocks.tolist() == expected.hits
    assert sharing.accesses.tolist() == [len(times) for times in expected.times]
    assert sharing.first_access_s.tolist() == [times[0] for times in expected.times]
    assert sharing.last_access_s.tolist() == [times[-1] for times in expected.times]
    assert sharing.gap_s.tolist() == expected.gaps
    assert sharing.gap_new_blocks.tolist() == expected.new_blocks
    assert sharing.request_gaps.tolist() == expected.request_gaps
    with_outputs = account(prompts, trace.arrival_s.tolist(), block_size, outputs)
    assert measure_hits_with_outputs(trace, block_size).tolist() == with_outputs.hits
    n_accesses, n_distinct = sum(map(len, expected.ids)), len(expected.times)
    assert sharing.block_reuse_rate == ((n_accesses - n_distinct) / n_accesses if n_accesses else None)


@given(small_traces(), st.integers(1, 5))
def test_small_traces_agree_with_the_twin(small, block_size):
    assert_agrees(small.trace, small.prompts, small.outputs, block_size)


@given(small_traces(), st.integers(1, 5))
def test_small_traces_without_template_agree_with_the_twin(small, block_size):
    prompts = [
        [token for token, flag in zip(prompt, flags, strict=True) if not flag]
        for prompt, flags in zip(small.prompts, small.is_template, strict=True)
    ]
    assert_agrees(small.trace.without_template(), prompts, small.outputs, block_size)


@given(small_traces(), st.integers(1, 5))
def test_rates_stay_within_bounds(small, block_size):
    sharing = share(small.trace, block_size)
    limits = np.maximum(sharing.prompt_tokens - 1, 0) // block_size
    assert (sharing.hit_blocks <= limits).all()
    assert (measure_hits_with_outputs(small.trace, block_size) >= sharing.hit_blocks).all()
    assert ((sharing.sharing_fraction >= 0) & (sharing.sharing_fraction < 1)).all()
    assert (
        sharing.accesses.sum()
        == sharing.blocks.prompt_blocks.sum()
        == len(sharing.gap_s) + len(sharing.accesses)
    )
    assert sharing.gap_weights.sum() == pytest.approx((sharing.request_gaps > 0).sum())


@pytest.mark.parametrize("mode", ["single_turn", "multi_turn"])
@pytest.mark.parametrize("block_size", [16, 100])
def test_bundled_conversations_agree_with_the_twin(bundled_workload, mode, block_size):
    trace = make_trace(bundled_workload, mode)
    prompts = [trace.prompt(i).tolist() for i in range(len(trace))]
    outputs = [trace.generated(i).tolist() for i in range(len(trace))]
    assert_agrees(trace, prompts, outputs, block_size)


def test_history_hits_are_those_on_the_previous_turn(bundled_workload):
    trace = make_trace(bundled_workload, "multi_turn")
    sharing = share(trace, 16)
    previous, expected = {}, []
    for i, (conversation, hits) in enumerate(
        zip(trace.requests["conversation_index"], sharing.hit_blocks.tolist(), strict=True)
    ):
        before, prompt = previous.get(conversation, []), trace.prompt(i).tolist()
        common = next(
            (k for k, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), len(before)
        )
        expected.append(min(common // 16, hits))
        previous[conversation] = prompt
    assert count_history_hits(trace, sharing).tolist() == expected
