"""Logs of calls as workloads: the prompts of a server, sessions, and times as the log has them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from call_logs import EPOCH, make_log

from kvprefix.__main__ import main
from kvprefix.files.paths import InputError
from kvprefix.formats.engine_trace import write_engine_trace
from kvprefix.formats.traffic_trace import read_chats
from kvprefix.tokens import parts as parts_module
from kvprefix.tokens.tokenizer import find_tokenizer
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.parquet import read_trace, write_trace
from kvprefix.traces.workload import load_workload, make_trace

APIS = ("chat", "messages")


@pytest.fixture
def load(tmp_path, shared_derived, monkeypatch):
    """Return a function that loads the workload of a file."""
    monkeypatch.setenv("KVPREFIX_DERIVED", str(shared_derived))

    def load(path, **parameters):
        return load_workload(Parameters(data=str(path), **parameters), progress=False)

    return load


def prompts_of(trace):
    return {name: trace.prompt(i).tolist() for i, name in enumerate(trace.request_ids)}


def outputs_of(trace):
    return {name: trace.generated(i).tolist() for i, name in enumerate(trace.request_ids)}


@pytest.mark.parametrize("api", APIS)
def test_prompts_and_replies_are_those_of_the_server(load, tmp_path, api):
    path, _ = make_log(tmp_path / "log.jsonl", api=api)
    workload, right = load(path), read_chats(path, find_tokenizer(), progress=False)
    trace = make_trace(workload, "multi_turn")
    assert prompts_of(trace) == prompts_of(right) and outputs_of(trace) == outputs_of(right)
    assert trace.request_ids == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert trace.column("conversation_id").tolist() == ["a", "b"] * 3
    assert trace.column("turn").tolist() == [0, 0, 1, 1, 2, 2]
    assert trace.column("after_tool").tolist() == [False, False, True, True, True, True]
    assert make_trace(workload, "single_turn").request_ids == ["a0", "b0"]
    assert all(len(trace.generated(i)) for i in range(6))


def test_arrivals_are_those_of_the_log_to_the_millisecond(load, tmp_path):
    path, starts = make_log(tmp_path / "log.jsonl")
    workload = load(path)
    assert workload.parameters.arrivals == "data"
    trace = make_trace(workload, "multi_turn")
    np.testing.assert_allclose(trace.arrival_s, np.array(starts) - EPOCH, atol=1e-6)
    np.testing.assert_allclose(trace.blocks(16).finish_s - trace.arrival_s, 2.5, atol=1e-6)
    fast = make_trace(load(path, speed=4.0), "multi_turn")
    np.testing.assert_allclose(fast.arrival_s, (np.array(starts) - EPOCH) / 4, atol=1e-6)
    modelled = load(path, arrivals="poisson")
    assert modelled.parameters.arrivals == "poisson"
    assert make_trace(modelled, "multi_turn").arrival_s.tolist() != trace.arrival_s.tolist()


def test_a_request_without_a_time_has_all_times_modelled(load, tmp_path):
    path, _ = make_log(tmp_path / "log.jsonl", without_time=[3])
    workload = load(path)
    assert workload.parameters.arrivals == "poisson" and workload.dataset["requests_with_time"] == 5
    with pytest.raises(InputError, match="the log has no time for 1 of 6 requests"):
        make_trace(load(path, arrivals="data"), "multi_turn")


def test_service_times_of_the_log_space_modelled_turns(load, tmp_path):
    path, _ = make_log(tmp_path / "log.jsonl")
    trace = make_trace(load(path, arrivals="poisson", think="constant", think_median_s=7), "multi_turn")
    own = trace.arrival_s[np.array(trace.request_ids) == "a1"] - trace.arrival_s[np.array(trace.request_ids) == "a0"]
    assert own == pytest.approx(2.5 + 7)


def test_sessions_go_on_over_parts(load, tmp_path, monkeypatch):
    path, _ = make_log(tmp_path / "log.jsonl", steps=4)
    right = make_trace(load(path), "multi_turn")
    monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path / "derived"))
    monkeypatch.setattr(parts_module, "PART_CALLS", 3)
    trace = make_trace(load(path), "multi_turn")
    assert len(list((tmp_path / "derived").glob("tokens-*/part-*.arrow"))) == 3
    assert prompts_of(trace) == prompts_of(right)
    for name in ("turn", "conversation_index", "conversation_id", "messages"):
        assert trace.column(name).tolist() == right.column(name).tolist()


def test_the_first_conversations_are_kept_whole(load, tmp_path):
    path, _ = make_log(tmp_path / "log.jsonl")
    workload = load(path, max_conversations=1)
    assert make_trace(workload, "multi_turn").request_ids == ["a0", "a1", "a2"]
    assert workload.dataset["conversations"] == 1


@pytest.mark.parametrize("api", APIS)
def test_engine_traces_are_read_back_to_equal_requests(load, tmp_path, api, capsys):
    path, _ = make_log(tmp_path / "log.jsonl", api=api)
    workload = load(path)
    trace = make_trace(workload, "multi_turn")
    write_engine_trace(trace, workload.messages, tmp_path / "trace.jsonl")
    target = tmp_path / "requests.jsonl"
    assert main(["convert", str(tmp_path / "trace.jsonl"), str(target), "--to", "requests"]) == 0
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert {one["request_id"]: one["prompt_token_ids"] for one in found} == prompts_of(trace)
    assert [one["timestamp"] / 1000 for one in found] == pytest.approx(trace.arrival_s.tolist(), abs=1e-6)


def test_a_request_may_come_before_the_one_that_it_continues(load, tmp_path):
    path, _ = make_log(tmp_path / "log.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["session_id"]  # what continues what is known by the messages alone
        line["start_time"] = 2 * EPOCH - line["start_time"]
        line["end_time"] = line["start_time"] + 1
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    trace = make_trace(load(path), "multi_turn")
    assert trace.request_ids == ["b2", "a2", "b1", "a1", "b0", "a0"]
    write_trace(trace, tmp_path / "trace.parquet")
    again = read_trace(tmp_path / "trace.parquet")
    assert prompts_of(again) == prompts_of(trace) and outputs_of(again) == outputs_of(trace)
    assert again.column("service_s").tolist() == trace.column("service_s").tolist()


def test_conversations_of_text_keep_their_times(load, tmp_path):
    turns = [
        [("user", "Hello", 100.0), ("assistant", "Yes?", 103.0), ("user", "More", 150.5), ("assistant", "So.", 151.0)],
        [("user", "Hi", 120.0), ("assistant", "Hm.", 121.0)],
    ]
    lines = [
        {"conversation_id": str(k), "messages": [
            {"role": role, "content": text, "timestamp": EPOCH + time} for role, text, time in one
        ]} for k, one in enumerate(turns)
    ]  # fmt: skip
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    workload = load(path)
    trace = make_trace(workload, "multi_turn")
    assert workload.parameters.arrivals == "data" and trace.arrival_s.tolist() == [0.0, 20.0, 50.5]
    assert trace.request_ids == ["c0t0", "c1t0", "c0t1"]
    answered = [{**line, "messages": [{k: v for k, v in m.items() if k != "timestamp" or m["role"] == "assistant"}
                                      for m in line["messages"]]} for line in lines]  # fmt: skip
    (tmp_path / "answered.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answered))
    late = make_trace(load(tmp_path / "answered.jsonl"), "multi_turn")  # as WildChat: times of answers alone
    assert late.arrival_s.tolist() == [0.0, 18.0, 48.0] and not load(path).dataset["not_kept"]["message_fields"]
    untimed = [{**line, "messages": [{k: v for k, v in m.items() if k != "timestamp"} for m in line["messages"]]}
               for line in lines]  # fmt: skip
    (tmp_path / "untimed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in untimed))
    plain = make_trace(replace(load(tmp_path / "untimed.jsonl")), "multi_turn")
    assert prompts_of(plain) == prompts_of(trace)


def test_conversations_with_tools_stand_beside_those_of_text(load, tmp_path):
    call = {"id": "t0", "type": "function", "function": {"name": "add", "arguments": '{"k": 1}'}}
    lines = [
        {"id": "text", "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]},
        {"id": "tools", "messages": [
            {"role": "user", "content": "Add"}, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t0", "content": "2"}, {"role": "assistant", "content": "It is 2."},
        ]},
    ]  # fmt: skip
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    workload, right = load(path), read_chats(path, find_tokenizer(), progress=False)
    assert workload.requests["conversation_id"].tolist() == ["text", "tools", "tools"]
    trace = workload.multi_turn(workload.parameters.make("arrivals"), workload.parameters.make("clock"))
    assert sorted(prompts_of(trace).values()) == sorted(prompts_of(right).values())
    assert [message.role for message in workload.read_messages(1)] == ["user", "assistant", "tool"]


def test_a_log_becomes_an_engine_trace_with_equal_prompts(load, tmp_path):
    path, starts = make_log(tmp_path / "log.jsonl")
    trace = make_trace(load(path), "multi_turn")
    assert main(["convert", str(path), str(tmp_path / "engine.jsonl"), "--to", "engine"]) == 0
    assert main(["convert", str(tmp_path / "engine.jsonl"), str(tmp_path / "ids.jsonl"), "--to", "requests"]) == 0
    found = [json.loads(line) for line in (tmp_path / "ids.jsonl").read_text().splitlines()]
    assert {one["request_id"]: one["prompt_token_ids"] for one in found} == prompts_of(trace)
    assert [one["timestamp"] / 1000 for one in found] == pytest.approx([start - EPOCH for start in starts])


def test_calls_without_sessions_are_joined_in_order_of_time(load, tmp_path):
    path, _ = make_log(tmp_path / "log.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()][::-1]  # the newest first
    for line in lines:
        del line["session_id"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    trace = make_trace(load(path), "multi_turn")
    assert trace.request_ids == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert trace.column("conversation_index").tolist() == [0, 1] * 3
    assert trace.column("turn").tolist() == [0, 0, 1, 1, 2, 2]


def test_a_rate_or_a_think_time_asks_for_modelled_times(load, tmp_path):
    path, _ = make_log(tmp_path / "log.jsonl")
    assert load(path, arrival_rate=5.0).parameters.arrivals == "poisson"
    assert load(path, think="agent").parameters.arrivals == "poisson"


def test_a_response_continues_the_one_that_it_names(load, tmp_path):
    def line(k, text, before=None):
        body = {"input": text, "model": "m"} | ({"previous_response_id": before} if before else {})
        said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"Answer {k}"}]}
        return {"url": "/v1/responses", "body": body, "response": {"id": f"resp_{k}", "output": [said]}}

    path = tmp_path / "log.jsonl"
    rows = [line(0, "First"), line(1, "Second", "resp_0"), line(2, "Third", "resp_1"), line(3, "Lost", "resp_9")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    workload = load(path)
    assert workload.dataset["refused"] == {"previous_response_id": 1}
    assert workload.requests["conversation_index"].tolist() == [0, 0, 0]
    assert [message.role for message in workload.read_messages(0)] == ["user", "assistant"] * 2 + ["user"]
    shared = workload.tokens.shared
    assert (np.diff(workload.tokens.prompt_lengths()) > 0).all() and (shared[1:] > 0).all()
