"""Agentic Mooncake: requests that wait for others, in both versions."""

import json

import pytest
from trace_lines import write

from kvprefix.blocks.sessions import NOTHING, TOOL, UNKNOWN
from kvprefix.files.paths import InputError
from kvprefix.formats.agentic_mooncake import read_agentic_mooncake
from kvprefix.formats.lookup import recognise
from kvprefix.formats.read import read_sessions, read_trace
from kvprefix.formats.session_rows import Clockwork
from kvprefix.formats.timing import Timing

CLOCK = Clockwork(1.0, 0.5)


def row(name, ids, session="s", output=2, **more):
    given = {"request_id": name, "session_id": session, "input_length": 4 * len(ids), "output_length": output}
    return json.dumps({**given, "hash_ids": ids, **more})


def read(tmp_path, *lines):
    return read_agentic_mooncake(write(tmp_path / "t", *lines), CLOCK, 4)


def test_a_request_comes_after_all_that_it_waits_for_a_delay_and_the_tools(tmp_path):
    # the root and its reply take 2 s; the child of another agent 1 s more; the join waits for both
    lines = [
        row("root", [1, 2], timestamp=10_000), row("join", [1, 2, 3], wait_for=["root", "child"], delay=500),
        row("child", [9], "sub", 0, wait_for=["root"], delay=2, tool_wait_ms=3000), row("other", [1], "z", timestamp=0),
    ]  # fmt: skip
    trace = read(tmp_path, *lines)
    placed = trace.arrange()
    assert placed.arrival_s.tolist() == [0, 10, 15.002, 16.502]
    assert placed.conversation.tolist() == [1, 0, 0, 0]
    assert trace.agent.tolist() == [0, 1, 0, 0] and trace.after.tolist() == [NOTHING, NOTHING, UNKNOWN, NOTHING]
    assert trace.accesses.previous.tolist() == [-1, -1, 0, -1] and trace.spawned_by.tolist() == [-1, 0, -1, -1]
    assert recognise(write(tmp_path / "u", lines[1])).name == "agentic-mooncake"


def test_a_file_that_begins_as_mooncakes_lines_do_is_read_as_what_it_is(tmp_path):
    root = row("root", [1], timestamp=0, block_size=4)
    path = write(tmp_path / "t", root, row("child", [1, 2], wait_for=["root"], delay=2, tool_wait_ms=3))
    assert recognise(path).name == "mooncake"
    timing = Timing({"ttft_s": 1.0, "time_per_output_token_s": 0.5})
    assert read_trace(path, timing=timing).arrival_s.tolist() == [0, 2.005]
    assert read_sessions(path, timing=timing).after.tolist() == [NOTHING, TOOL]


def test_version_2_has_a_first_line_plays_and_dependencies(tmp_path):
    head = {"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 4, "hash_id_scope": "local", "source": {}}

    def line(name, play, ids, session="s", after=(), **more):
        needs = [{"request_id": one, "trigger": t, "delay_ms": d, "relation": "sequence"} for one, t, d in after]
        return row(name, ids, session, play_id=play, model="m", dependencies=needs, **more)

    path = write(
        tmp_path / "t", json.dumps(head), line("a", "p", [1], not_before_ms=1000, recorded_api_time_ms=5000),
        line("b", "p", [1, 2], after=[("a", "completion", 250)], not_before_ms=0),
        line("c", "p", [5], "sub", after=[("a", "dispatch", 100)], not_before_ms=2000),
        line("d", "q", [1], not_before_ms=0),
    )  # fmt: skip
    trace = read_sessions(path, timing=Timing({"ttft_s": 1.0, "time_per_output_token_s": 0.5}))
    placed = trace.arrange()
    assert placed.arrival_s.tolist() == [0, 1, 2, 6.25] and placed.conversation.tolist() == [1, 0, 0, 0]
    assert placed.ids.tolist() == [0, 1, 2, 1, 3]  # block 1 of play q is another one
    assert recognise(path).name == "agentic-mooncake"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([row("a", [1], wait_for=["b"]), row("b", [1], wait_for=["a"])], "waits for itself, through other lines"),
        ([row("a", [1], wait_for=["a"])], "line 1 waits for itself"),
        ([row("a", [1], wait_for=["x"])], 'line 1 waits for "x"; expected the request_id of a line'),
        ([row("a", [1], wait_for="x")], 'waits for "x"; expected a list'),
        ([row("a", [1]), row("a", [1])], 'line 2 has request_id "a"; is there before'),
        ([row(None, [1])], "has request_id null; expected a text or a whole number"),
        ([row("a", [1], tool_wait_ms=-1, wait_for=[])], "has tool_wait_ms -1; expected milliseconds, 0 or more"),
        ([row("a", [1], input_length=9)], "lists 1 block for input_length 9; expected 3"),
    ],
)
def test_a_bad_line_is_named(tmp_path, lines, said):
    with pytest.raises(InputError) as error:
        read(tmp_path, *lines)
    assert said in str(error.value) and str(tmp_path / "t") in str(error.value)


def test_a_long_chain_is_no_trouble(tmp_path):
    lines = [row(k, [1], wait_for=[k + 1] if k < 4999 else [], output=0) for k in range(5000)]
    assert read(tmp_path, *lines).accesses.arrival_s.max() == 4999
