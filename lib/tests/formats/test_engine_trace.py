import json

import numpy as np
from samples import conversation

from kvprefix.formats import engine_trace as enginetrace
from kvprefix.formats.engine_trace import write_engine_trace
from kvprefix.tokens.messages import make_messages
from kvprefix.traces.trace import Trace, make_trace_of


def test_engine_trace_holds_what_a_server_needs(tmp_path):
    messages = conversation('say "hi"\n', "\u2028 \U0001f600", "bye", system="short").messages
    requests = make_trace_of([[1, 2], [1, 2, 3]], arrival_s=[0.25, 1e-5 + 7], outputs=[[5], []]).requests
    requests = requests.assign(conversation_index=4, conversation_id="x", turn=[0, 1], messages=[2, 4])
    trace = Trace(requests, np.arange(2), make_trace_of([[1, 2], [1, 2, 3]]).tokens, {})
    others = [conversation("another", "one").messages] * 4
    write_engine_trace(trace, make_messages([*others, messages]), tmp_path / "trace.jsonl")
    lines = (tmp_path / "trace.jsonl").read_bytes().decode().split("\n")
    assert lines.pop() == ""
    as_json = [{"role": role, "content": text} for role, text in messages]
    first, second = map(json.loads, lines)
    assert first["messages"] == as_json[:2]
    assert second["messages"] == as_json
    assert (first["timestamp"], second["timestamp"]) == (0.25, 7.00001)
    assert (first["turn"], second["turn"]) == (0, 1)
    assert (second["prompt_tokens"], second["output_tokens"]) == (3, 0)
    assert first["request_id"] == "c0t0"
    assert {line["conversation_id"] for line in (first, second)} == {"x"}


def test_lines_do_not_depend_on_how_many_are_made_at_a_time(tmp_path, monkeypatch):
    conversations = [conversation(*[f"{k}.{m}" for m in range(1 + k % 3)]).messages for k in range(9)]
    trace, messages = make_trace_of([[k] for k in range(9)]), make_messages(conversations)
    write_engine_trace(trace, messages, tmp_path / "whole.jsonl")
    monkeypatch.setattr(enginetrace, "LINES_AT_A_TIME", 2)
    write_engine_trace(trace, messages, tmp_path / "pieces.jsonl")
    assert (tmp_path / "pieces.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len((tmp_path / "whole.jsonl").read_bytes().splitlines()) == 9


def test_spilled_messages_are_the_first_ones_of_each_conversation(tmp_path):
    conversations = [[("user", f"question {k}"), ("assistant", "answer \u00e9"), ("user", "more")] for k in range(5)]
    messages = make_messages(conversations)
    for k in (3, 0, 4):
        for count in (1, 2, 3):
            said = json.loads(b"[" + messages.first(k, count) + b"]")
            assert [(one["role"], one["content"]) for one in said] == conversations[k][:count]


def test_no_messages_at_all(tmp_path):
    trace = make_trace_of([])
    write_engine_trace(trace, make_messages([]), tmp_path / "trace.jsonl")
    assert (tmp_path / "trace.jsonl").read_bytes() == b""
