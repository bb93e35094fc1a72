"""Dynamo's request traces: sessions, agents, tools, times, and what is skipped."""

import gzip
import json

import pytest
from trace_lines import write

from kvprefix.blocks.sessions import NOTHING, PERSON, TOOL, UNKNOWN
from kvprefix.files.paths import InputError
from kvprefix.formats.dynamo import read_dynamo
from kvprefix.formats.lookup import recognise
from kvprefix.formats.session_rows import Clockwork

CLOCK = Clockwork(1.0, 0.5)
T0 = 1_777_312_800_000


def end(name, start, stop, hashes, context=None, tokens=None, size=4, **more):
    replay = {"trace_block_size": size, "input_length": size * len(hashes) if tokens is None else tokens}
    request = {"request_id": name, "output_tokens": 3, "request_received_ms": T0 + start, **more}
    request["replay"] = {**replay, "input_sequence_hashes": hashes}
    if stop is not None:
        request.setdefault("total_time_ms", stop - start)
    at = T0 + (start if stop is None else stop)
    event = {"schema": "dynamo.request.trace.v1", "event_type": "request_end", "event_time_unix_ms": at}
    return event | {"request": request} | ({"agent_context": context} if context else {})


def tool(kind, at, context):
    return {"event_type": kind, "event_time_unix_ms": T0 + at, "agent_context": context, "tool": {"tool_call_id": "c"}}


def read(tmp_path, *events):
    return read_dynamo(write(tmp_path / "t.jsonl", *map(json.dumps, events)), CLOCK)


BIG = 14879255164371896291


@pytest.mark.parametrize("old", [True, False])
def test_sessions_of_agents_and_their_sub_agents(tmp_path, old):
    main = {"session_id": "run", "trajectory_id": "main"} if old else {"session_id": "main"}
    sub = {"session_id": "run", "trajectory_id": "sub", "parent_trajectory_id": "main"} if old else {
        "session_id": "sub", "parent_session_id": "main"
    }  # fmt: skip
    trace = read(
        tmp_path, tool("tool_start", 500, main), end("b", 3000, 5000, [BIG, 2], main), tool("tool_end", 2500, main),
        end("a", 1000, 2000, [BIG], main, finish_reason_metadata={"finish_reason": "stop"}),
        end("c", 2500, 2600, [7], sub), {"event": end("d", 9000, 9500, [BIG, 2, 9], main, tokens=11)},
        end("e", 0, 100, [BIG]),
    )  # fmt: skip
    placed = trace.arrange()
    assert placed.arrival_s.tolist() == [0, 1, 2.5, 3, 9] and placed.conversation.tolist() == [1, 0, 0, 0, 0]
    assert (placed.finish_s - placed.arrival_s).round(6).tolist() == [0.1, 1, 0.1, 2, 0.5]
    assert placed.ids.tolist() == [0, 0, 1, 0, 2, 0, 2, 3]  # hashes are the same in all sessions
    assert trace.agent.tolist() == [0, 1, 0, 0, 0]
    assert trace.after.tolist() == [NOTHING, NOTHING, TOOL, UNKNOWN, NOTHING]
    assert placed.last_weight.tolist() == [4, 4, 4, 4, 3] and not placed.info["notes"]


def test_what_ended_an_answer_tells_what_the_next_request_follows(tmp_path):
    context = {"session_id": "s"}
    done = [{"finish_reason_metadata": {"finish_reason": reason}} for reason in ("tool_calls", "stop")]
    trace = read(
        tmp_path, end("a", 0, 10, [1], context, **done[0]), end("b", 20, 30, [1], context, **done[1]),
        end("c", 40, 50, [1], context),
    )  # fmt: skip
    assert trace.after.tolist() == [NOTHING, TOOL, PERSON]


def test_times_are_found_from_what_is_there(tmp_path):
    events = [end("a", 1000, 2000, [1]), end("b", 5000, None, [2]), end("c", 7000, 7500, [3])]
    del events[0]["request"]["request_received_ms"]
    del events[2]["request"]["total_time_ms"]
    del events[1]["request"]["request_received_ms"]
    placed = read(tmp_path, *events).arrange()
    assert placed.arrival_s.tolist() == [0, 4, 6]
    assert (placed.finish_s - placed.arrival_s).round(6).tolist() == [1, 2.5, 0.5]


def test_files_of_a_folder_are_read_together(tmp_path):
    for number in range(3):
        data = json.dumps(end(f"r{number}", 1000 * number, 1000 * number + 10, [1])).encode()
        (tmp_path / f"trace.{number:06}.jsonl.gz").write_bytes(gzip.compress(data))
    assert recognise(tmp_path).name == "dynamo"
    assert read_dynamo(tmp_path, CLOCK).arrange().arrival_s.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"event_type": "request_payload", "event_time_unix_ms": T0}, 'of type "request_payload": skipped (first: '),
        ({"event_type": "request_end", "event_time_unix_ms": T0, "request": {"request_id": "x"}}, "without blocks"),
        (end("a", 0, 1, [1]), 'read before: skipped (first: PATH: line 2: has request_id "a" again'),
        (end("x", 0, 1, [1], tokens=9), "with wrong blocks: skipped (first: PATH: line 2: does not list 3 whole"),
        (end("x", 0, 1, ["a"]), "with wrong blocks"),
        (end("x", 0, 1, [1], tokens=-1), "with wrong lengths"),
        (end("x", 0, 1, [1], size=8), "of another block size: skipped (first: PATH: line 2: has blocks of 8 tokens"),
        (end("x", 0, 1, [1], tokens=4, size=0), "of a wrong block size"),
        (end("x", 0, 1, [1], request_received_ms="now"), "with a wrong time: skipped (first: PATH: line 2: has reque"),
        ({"messages": []}, "no events: skipped (first: PATH: line 2: is no event; a line is {"),
    ],
)  # fmt: skip
def test_an_event_that_cannot_be_used_is_counted_with_its_first_place(tmp_path, bad, said):
    trace = read(tmp_path, end("a", 0, 10, [1]), bad)
    assert len(trace) == 1 and said.replace("PATH", str(tmp_path / "t.jsonl")) in trace.accesses.info["notes"][0]


def test_a_file_without_usable_requests_is_refused(tmp_path):
    with pytest.raises(InputError, match="its request has no replay with input_sequence_hashes"):
        read(tmp_path, {"event_type": "request_end", "event_time_unix_ms": T0, "request": {}})
    with pytest.raises(InputError, match="its blocks hold 4 tokens, and 8 were given"):
        read_dynamo(write(tmp_path / "t", json.dumps(end("a", 0, 10, [1]))), CLOCK, 8)
