"""What the live check found, number by number, from small recordings made by hand; blocks hold 4 tokens."""

from pathlib import Path

import numpy as np
import pytest
from said import missing, says

from kvprefix.files.paths import InputError
from kvprefix.live.compare import _find_overlap, _make_trace, compare_recording
from kvprefix.live.findings import describe_comparison
from kvprefix.live.recording import Recording

HEADER = {"key": "k", "url": "http://h", "model": "m", "api": "completions", "timing": "sequential", "speed": 1.0,
          "max_tokens": 1, "source": "test"}  # fmt: skip
SERVER = {"block_size": 4, "num_gpu_blocks": 1000}
EIGHT = [1, 2, 3, 4, 5, 6, 7, 8]


def answer(name, prompt, cached, **more):
    usual = {
        "request_id": name, "prompt_token_ids": prompt, "server_prompt_tokens": len(prompt), "same_prompt": True,
        "cached_tokens": cached, "output_tokens": 1, "output_token_ids": [99], "ttft_s": 0.25, "duration_s": 0.5,
        "sent_s": 0.0,
    }  # fmt: skip
    return usual | more


def record(answers, metrics=SERVER, *, end=None, skipped=0, to_go=0, version="0.32.1", run=None, **header):
    n = len(answers) + skipped + to_go
    recording = Recording(Path("recording.jsonl"), HEADER | {"requests": n} | header)
    recording.add("run", {"metrics": metrics, "server": {"version": version}, **(run or {})})
    for one in answers:
        recording.add("answer", one)
    for k in range(skipped):
        recording.add("skipped", {"request_id": f"long{k}", "prompt_tokens": 9999, "reason": "long"})
    if end is not None:
        recording.add("end", {"metrics": end})
    return recording


# 31 prompt tokens. Predicted are 0 + 4 + 8 + 8 = 20, measured 0 + 4 + 4 + 8 = 16: the third request differs.
ANSWERS = [
    answer("r0", EIGHT, 0, ttft_s=0.1), answer("r1", [1, 2, 3, 4, 9], 4, ttft_s=0.2),
    answer("r2", [*EIGHT, 12], 4, ttft_s=0.4), answer("r3", [*EIGHT, 13], 8, ttft_s=1.0, duration_s=2.0),
]  # fmt: skip


def test_a_summary_adds_up_what_is_compared():
    recording = record(
        ANSWERS, SERVER | {"queries": 100, "hits": 10}, end=SERVER | {"queries": 131, "hits": 27}, skipped=2, to_go=3
    )
    frame, summary = compare_recording(recording)
    assert frame["predicted_cached_tokens"].tolist()[:4] == [0, 4, 8, 8]
    assert frame["measured_cached_tokens"].tolist()[:4] == [0, 4, 4, 8]
    assert frame["prompt_tokens"].tolist() == [8, 5, 9, 9, 9999, 9999]
    assert frame["status"].tolist() == ["agrees", "agrees", "differs", "agrees", "too_long", "too_long"]
    expected = {
        "verdict": "differ", "approximate_because": None, "requests": 9, "answered": 4, "skipped_too_long": 2,
        "sent_again": 0, "compared": 4, "agree": 3, "differ": 1, "other_prompts": 0, "prompt_tokens": 31,
        "predicted_cached_tokens": 20, "measured_cached_tokens": 16, "unlimited_cached_tokens": 20, "block_size": 4,
        "num_gpu_blocks": 1000, "server_version": "0.32.1", "legacy_free": False,
        "first_difference": "first: r2, predicted 8, measured 4", "first_other_prompt": None,
        "server_counters": {"queries_before": 100, "queries": 31, "hits": 17},
    }  # fmt: skip
    assert {name: summary[name] for name in expected} == expected
    # 0.1, 0.2, 0.4, 1.0 s: the 95th percentile lies 0.85 of the way from 0.4 to 1.0, the 99th 0.97, the 5th 0.15
    assert summary["ttft_s"] == {"mean": 0.425, "p5": 0.115, "p50": 0.3, "p95": 0.91, "p99": 0.982, "max": 1.0}
    text = describe_comparison(summary)
    assert not missing(
        text, "DIFFER on ~ 1 ~ of ~ 4 ~ requests ~ first: r2, ~ predicted ~ 8 ~ measured ~ 4",
        "16 ~ of ~ 31 ~ prompt tokens cached ~ 51.6 % ~ predicted ~ 20",
        "version ~ 0.32.1 ~ block size ~ 4 ~ 1,000 ~ blocks",
        "2 ~ requests longer",
    )  # fmt: skip
    warned = " ".join(summary["warnings"])
    assert not missing(warned, "100 ~ prompt tokens before", "not complete ~ 3 ~ requests to go")


def test_agreement_is_of_all_requests():
    answers = [*ANSWERS[:2], answer("r2", [*EIGHT, 12], 8), ANSWERS[3]]
    summary = compare_recording(record(answers))[1]
    assert summary["verdict"] == "agree" and (summary["agree"], summary["differ"]) == (4, 0)
    assert says(describe_comparison(summary), "agree on all ~ 4 ~ requests ~ 20 ~ of ~ 31 ~ prompt tokens ~ 64.5 %")
    nothing = compare_recording(record([], to_go=3))[1]
    assert nothing["verdict"] == "nothing" and nothing["ttft_s"] is None
    assert says(describe_comparison(nothing), "none of ~ 3 ~ requests")


def test_a_pool_that_evicts_is_told_from_an_unlimited_one():
    # Three usable blocks: another prompt of 12 tokens pushes the first one out, which an unlimited pool still holds.
    answers = [answer("a", EIGHT, 0), answer("b", list(range(20, 32)), 0), answer("c", [*EIGHT, 12], 0)]
    summary = compare_recording(record(answers, {"block_size": 4, "num_gpu_blocks": 4}))[1]
    assert (summary["predicted_cached_tokens"], summary["unlimited_cached_tokens"]) == (0, 8)
    assert says(describe_comparison(summary), "4 ~ blocks, which evict (unlimited: ~ 8 ~ cached")
    unlimited = compare_recording(record(answers, {"block_size": 4}))[1]
    assert unlimited["predicted_cached_tokens"] == 8 and "an unlimited pool" in describe_comparison(unlimited)
    assert "evict" not in describe_comparison(unlimited)


def test_a_prompt_that_never_fits_is_predicted_as_none():
    answers = [answer("a", list(range(12)), 4)]
    frame, summary = compare_recording(record(answers, {"block_size": 4, "num_gpu_blocks": 3}))
    assert frame["predicted_cached_tokens"].isna().tolist() == [True] and frame["status"].tolist() == ["differs"]
    assert summary["first_difference"] == "first: a, predicted none, measured 4"


def test_other_prompts_make_it_void_and_are_counted():
    answers = [
        ANSWERS[0], answer("x", [1, 2, 3], 0, server_prompt_tokens=5), answer("y", EIGHT, 0, same_prompt=False),
        ANSWERS[1],
    ]  # fmt: skip
    frame, summary = compare_recording(record(answers))
    assert frame["status"].tolist() == ["agrees", "other_prompt", "other_prompt", "agrees"]
    assert (summary["verdict"], summary["other_prompts"], summary["compared"]) == ("void", 2, 2)
    assert summary["prompt_tokens"] == 13
    assert not missing(
        describe_comparison(summary), "of ~ 2 ~ requests of ~ 4 ~ the server makes", "first: x, ours ~ 3 ~ server's ~ 5"
    )


def test_a_server_that_reports_nothing_and_one_that_leaves_zeros_out():
    silent = [answer("a", EIGHT, None), answer("b", EIGHT, None)]
    frame, summary = compare_recording(record(silent))
    assert summary["verdict"] == "not_reported" and set(frame["status"]) == {"not_reported"}
    frame, summary = compare_recording(record([answer("a", EIGHT, None), answer("b", [*EIGHT, 9], 8)]))
    assert frame["measured_cached_tokens"].tolist() == [0, 8] and summary["verdict"] == "agree"


def test_overlapping_requests_are_approximate_and_in_the_order_in_which_they_were_sent():
    prompts = {"c": ([*EIGHT, 13], 8, 20.0), "b": ([*EIGHT, 12], 4, 9.0), "a": (EIGHT, 0, 1.0)}
    answers = [answer(name, prompt, cached, sent_s=sent_s) for name, (prompt, cached, sent_s) in prompts.items()]
    frame, summary = compare_recording(record(answers, timing="trace"))
    assert frame["request_id"].tolist() == ["a", "b", "c"] and summary["verdict"] == "approximate"
    assert not missing(
        describe_comparison(summary), "requests overlapped ~ 12 ~ of ~ 26 ~ prompt tokens cached ~ 46.2 %",
        "predicted ~ 16 ~ 61.5 % ~ 2 ~ of ~ 3 ~ requests agree exactly",
    )  # fmt: skip


def test_the_overlap_takes_median_times():
    # To the first token 0.1, 0.2, 0.9 s: 0.2. Then 0.5 (one token), 0.6 / 2, 0.18 / 9: 0.3 s per token.
    sent = [
        answer("a", [1], 0, ttft_s=0.1, duration_s=0.6, output_tokens=1, sent_s=3.0),
        answer("b", [1], 0, ttft_s=0.2, duration_s=0.8, output_tokens=3, sent_s=4.0),
        answer("c", [1], 0, ttft_s=0.9, duration_s=1.08, output_tokens=10, sent_s=6.0),
    ]
    overlap = _find_overlap(sent)
    assert overlap.first_token_s == pytest.approx(0.2) and overlap.time_per_token_s == pytest.approx(0.3)
    assert _make_trace(sent, [1, 2, 1]).arrival_s.tolist() == [3, 4, 4, 6]


@pytest.mark.parametrize(
    "version, metrics, legacy",
    [("0.22.1", SERVER, True), ("0.23.0", SERVER, False), ("0.9.2", SERVER, True), ("0.32.0", SERVER, False),
     ("1.2.0", SERVER, False), (None, SERVER, False), ("0.22.1", {}, False), ("0.100.0", SERVER, False)],
)  # fmt: skip
def test_blocks_are_freed_as_that_version_does(version, metrics, legacy):
    assert compare_recording(record(ANSWERS, metrics, version=version))[1]["legacy_free"] is legacy


# Blocks of 4, full attention and a window of 8: of 20 tokens the window keeps blocks 2 and 3, so the first 12 hit none.
LONGER, SHORTER = [*range(20)], [*range(12)]
SIBLINGS = [answer("r0", LONGER, 0), answer("r1", SHORTER, 0, sent_s=1.0)]
GROUPS = {"model": "gpt-oss", "window": 8, "retention": None}


def test_a_hybrid_model_is_predicted_once_it_is_named():
    hybrid = SERVER | {"hybrid": "sliding_window=8, prefix_cache_retention_interval=0"}
    _, unnamed = compare_recording(record(SIBLINGS, hybrid))
    assert (unnamed["verdict"], unnamed["predicted_cached_tokens"]) == ("differ", 8)
    assert any("(--kv-groups names its groups of layers)" in cause for cause in unnamed["causes"])
    _, named = compare_recording(record(SIBLINGS, hybrid, run={"kv_groups": GROUPS}))
    assert (named["verdict"], named["predicted_cached_tokens"]) == ("agree", 0)
    assert "1,000 blocks, shared by the groups of layers that --kv-groups names" in describe_comparison(named)
    config = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    read = record(SIBLINGS, hybrid, run={"kv_groups": {"model": config}})
    assert compare_recording(read)[1]["verdict"] == "agree"


@pytest.mark.parametrize(
    ("given", "said", "predicted"),
    [(None, "0", 0), (None, "4", 8), ("none", "0", 8), (0, "4", 0), (4, "0", 8), (None, None, 0)],
)
def test_retention_is_what_was_given_else_the_server_s_else_0(given, said, predicted):
    metrics = SERVER | {"hybrid": "sliding_window=8" + (f", prefix_cache_retention_interval={said}" if said else "")}
    recording = record(SIBLINGS, metrics, run={"kv_groups": GROUPS | {"retention": given}})
    assert compare_recording(recording)[1]["predicted_cached_tokens"] == predicted


def test_a_difference_in_a_named_hybrid_is_not_put_down_to_it():
    recording = record([SIBLINGS[0], SIBLINGS[1] | {"cached_tokens": 4}], run={"kv_groups": GROUPS})
    _, summary = compare_recording(recording)
    assert summary["verdict"] == "differ" and not any("groups of layers" in cause for cause in summary["causes"])


def test_groups_that_a_recording_does_not_hold_whole_are_refused():
    with pytest.raises(InputError, match="groups of layers cannot be read; --restart begins a new one"):
        compare_recording(record(SIBLINGS, run={"kv_groups": {"layers": 2}}))


def test_what_was_given_goes_before_what_the_server_says():
    summary = compare_recording(record(ANSWERS, run={"block_size": 2, "num_gpu_blocks": 77}))[1]
    assert (summary["block_size"], summary["num_gpu_blocks"]) == (2, 77)
    summary = compare_recording(record(ANSWERS, {}))[1]
    assert (summary["block_size"], summary["num_gpu_blocks"]) == (16, None)
    warned = " ".join(summary["warnings"])
    assert says(warned, "block size; ~ 16 ~ is assumed") and "an unlimited pool is assumed" in warned


def warn(answers, *args, **options):
    return " ".join(compare_recording(record(answers, *args, **options))[1]["warnings"])


def test_nothing_is_warned_of_without_a_cause():
    assert warn(ANSWERS, SERVER | {"queries": 0}, end=SERVER | {"queries": 31}) == ""


@pytest.mark.parametrize("queries, said", [(31, False), (32, True), (30, False)])
def test_others_are_noticed_by_the_tokens_that_were_looked_up(queries, said):
    text = warn(ANSWERS, SERVER | {"queries": 0}, end=SERVER | {"queries": queries})
    assert says(text, f"looked up ~ {queries} ~ prompt tokens and the check sent ~ 31") == said


def test_tokens_of_lost_attempts_may_have_been_looked_up_too():
    # r1 (5 tokens) was lost twice: up to 31 + 10 tokens are the check's own.
    answers = [ANSWERS[0], answer("r1", [1, 2, 3, 4, 9], 4, lost=2), *ANSWERS[2:]]
    for queries, said in ((41, False), (42, True)):
        text = warn(answers, SERVER | {"queries": 0}, end=SERVER | {"queries": queries})
        assert ("somebody else" in text) == said
    assert says(text, "1 ~ request had to be sent again")
    summary = compare_recording(record(answers, skipped=2))[1]
    counts = {"sent_again": 1, "compared": 3, "answered": 4, "skipped_too_long": 2}
    assert {name: summary[name] for name in counts} == counts


@pytest.mark.parametrize("longer, said", [(0, False), (1, True)])
def test_too_little_to_hit_says_little(longer, said):
    # 4 of 80 prompt tokens are 5 %: enough; 4 of 81 are less.
    answers = [
        answer("a", [1, 2, 3, 4, *range(100, 136)], 0), answer("b", [1, 2, 3, 4, *range(200, 236 + longer)], 4),
    ]  # fmt: skip
    assert says(warn(answers), f"Only ~ 4 ~ of ~ {80 + longer} ~ prompt tokens") == said


def test_generated_tokens_streams_and_engines():
    answers = [
        answer("a", EIGHT, 0, output_tokens=3, output_token_ids=None, ttft_s=0.5, duration_s=0.5),
        answer("b", [*EIGHT, 9], 8, output_tokens=2, output_token_ids=None), answer("c", [*EIGHT, 7], 8),
        answer("d", [*EIGHT, 6], 8, output_tokens=1, output_token_ids=None, ttft_s=0.5, duration_s=0.5),
    ]  # fmt: skip
    text = warn(answers, SERVER | {"engines": 3}, end=SERVER | {"engines": 2})
    assert not missing(
        text, "tokens that it generated for ~ 2 ~ requests", "1 ~ answer came without a stream", "runs ~ 3 ~ engines"
    )
    summary = compare_recording(record(answers))[1]
    assert summary["verdict"] == "approximate"
    assert summary["approximate_because"] == "the server does not give the tokens that it generated"


def test_a_cache_that_was_emptied_is_not_called_used():
    metrics, end = SERVER | {"queries": 50}, SERVER | {"queries": 81}
    assert "may not have been empty" in warn(ANSWERS, metrics, end=end)
    assert "may not have been empty" not in warn(ANSWERS, metrics, end=end, run={"reset": True})


def test_counters_that_were_set_back_are_a_restart():
    text = warn(ANSWERS, SERVER | {"queries": 50}, end=SERVER | {"queries": 80})
    assert "restarted during the check" in text  # 50 + 31 are more than 80
    assert "restarted during the check" not in warn(ANSWERS, SERVER | {"queries": 50}, end=SERVER | {"queries": 81})


def test_times_are_of_what_was_answered():
    values = np.array([one["ttft_s"] for one in ANSWERS])
    summary = compare_recording(record(ANSWERS, skipped=3))[1]
    assert summary["ttft_s"]["mean"] == pytest.approx(values.mean()) and summary["ttft_s"]["max"] == values.max()
