"""Summaries, tables and statistics: their names, their arithmetic, no NaN."""

import json

import numpy as np
import pytest

from kvprefix.blocks.sharing import share
from kvprefix.stats.metrics import describe_mode, summarize, tabulate_blocks, tabulate_requests
from kvprefix.studies.sharing import analyse
from kvprefix.traces.trace import make_trace_of

SUMMARY = ["mean", "std", "min", "p5", "p25", "median", "p75", "p95", "p99", "max"]


def test_summarize_states_ten_numbers_by_hand():
    # mean (0+0+2+6)/4 = 2; variance (4+4+0+16)/4 = 6; median between 0 and 2 = 1
    summary = summarize([0, 0, 2, 6])
    assert list(summary) == SUMMARY
    assert (summary["mean"], summary["median"], summary["min"], summary["max"]) == (2, 1, 0, 6)
    assert summary["std"] == pytest.approx(6**0.5)


def test_summarize_weights_count_as_repeats_would():
    # weights 1, 2, 1 of the values 5, 1, 9: sorted 1 1 5 9; half of 4 is reached at the second 1
    summary = summarize([5, 1, 9], weights=[1, 2, 1])
    assert (summary["median"], summary["p75"], summary["mean"]) == (1, 5, 4)


def test_summarize_nothing_is_null():
    assert set(summarize([]).values()) == {None}


def test_request_and_block_tables_have_the_fixed_columns_and_add_up():
    trace = make_trace_of([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [1, 2]], arrival_s=[0.0, 1.5, 4.0])
    sharing = share(trace, 2)
    requests, blocks = tabulate_requests(trace, sharing), tabulate_blocks(sharing.time_block_runs()).to_pandas()
    assert list(requests) == [
        "request_id", "conversation_index", "conversation_id", "turn", "arrival_s", "prompt_tokens", "output_tokens",
        "prompt_blocks", "hit_blocks", "cached_tokens", "sharing_fraction",
    ]  # fmt: skip
    assert list(blocks) == ["block_id", "depth", "accesses", "first_access_s", "last_access_s", "mean_reuse_gap_s"]
    assert requests["hit_blocks"].tolist() == [0, 2, 0]  # the last prompt is one aligned block: floor((2-1)/2) = 0
    assert requests["sharing_fraction"].tolist() == [0, 4 / 5, 0]
    assert blocks["accesses"].tolist() == [3, 2]  # (1 2) three times, (3 4) twice
    assert blocks["mean_reuse_gap_s"].tolist() == [2.0, 1.5]  # (1.5 + 2.5) / 2 and 1.5


def test_stats_hold_every_fixed_key_and_agree_with_the_tables(bundled_workload):
    for mode, (trace, sharing, stats, _) in analyse(bundled_workload).items():
        requests = tabulate_requests(trace, sharing)
        assert stats["mode"] == mode
        for key in ("sharing_fraction", "block_hit_count", "reuse_gap_s"):
            assert list(stats[key]) == SUMMARY
        for key in ("prompt_tokens", "output_tokens"):
            assert list(stats[key]) == ["total", *SUMMARY]
        assert {"records_read", "skipped", "conversations"} <= stats["dataset"].keys()
        assert {"data_sha256", "tokenizer_sha256", "seed", "versions", "block_size"} <= stats["parameters"].keys()
        assert stats["token_hit_rate"] == requests["cached_tokens"].sum() / requests["prompt_tokens"].sum()
        assert stats["sharing_fraction"]["mean"] == pytest.approx(requests["sharing_fraction"].mean())
        accesses, distinct = stats["blocks"]["accesses"], stats["blocks"]["distinct"]
        assert accesses == requests["prompt_blocks"].sum()
        assert stats["block_reuse_rate"] == (accesses - distinct) / accesses
        assert stats["block_hit_count"]["mean"] == pytest.approx(accesses / distinct)
        assert 0 <= stats["without_template_tokens"]["token_hit_rate"] <= 1
        assert stats["with_generated_tokens"]["token_hit_rate"] >= stats["token_hit_rate"]
        json.dumps(stats, allow_nan=False)


def test_a_prompt_without_a_block_gives_null_and_no_nan(bundled_workload):
    from dataclasses import replace

    from kvprefix.traces.workload import make_trace

    trace = make_trace(bundled_workload, "single_turn")
    one = replace(trace, requests=trace.requests.iloc[:1], rows=trace.rows[:1])
    stats = describe_mode(one, share(one, 10_000))
    assert stats["block_reuse_rate"] is None and stats["blocks_reused_fraction"] is None
    assert stats["reuse_gap_s"]["mean"] is None and stats["sharing_fraction"]["mean"] == 0
    json.dumps(stats, allow_nan=False)


def test_gap_weights_count_each_request_once():
    trace = make_trace_of([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2]])
    sharing = share(trace, 1)
    # the second request ends 4 gaps, the third 2: weights 1/4 four times, 1/2 twice
    assert sharing.request_gaps.tolist() == [0, 4, 2]
    assert np.allclose(sharing.gap_weights, [0.25] * 4 + [0.5] * 2)
