"""`kvprefix inspect`: a newcomer's first look at what they have."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import SAMPLE, SHARED

from kvprefix.__main__ import main

SAMPLES = SHARED / "samples"
USER, REPLY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def look(capsys, *arguments):
    code = main(["inspect", *map(str, arguments)])
    out = capsys.readouterr()
    return code, out.out, out.err


def facts(capsys, path):
    code, out, err = look(capsys, path, "--format", "json")
    assert (code, err) == (0, "")
    return json.loads(out)


def write(path, *records):
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def test_a_log_is_summed_up(tmp_path, capsys):
    tools = [{"type": "function", "function": {"name": "f"}}]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"}
    usage = {"prompt_tokens": 40, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 30}}
    path = write(
        tmp_path / "log.jsonl",
        {"startTime": 20, "endTime": 21, "session_id": "s", "user": "u", "model": "m", "colour": 1,
         "body": {"messages": [USER, asked, {"role": "tool", "tool_call_id": "c", "content": "r"}], "tools": tools},
         "response": {"choices": [{"message": REPLY}], "usage": usage}},
        {"startTime": 10, "session_id": "s", "body": {"messages": [USER], "tools": tools},
         "response": {"choices": [{"message": asked}]}},
        {"body": {"messages": [USER]}},
        {"startTime": "noon", "body": {"messages": [USER]}},
    )  # fmt: skip
    found = facts(capsys, path)
    assert (found["kind"], found["form"], found["requests"], found["apis"]) == ("chats", "openai", 3, {"chat": 3})
    assert found["sessions"] == {"all": 2, "of_sub_agents": 0, "calls_without_session": 1, "users": 1}
    assert found["turns"] == {"mean": 1.5, "most": 2}
    assert found["times"] == {
        "real": 2, "modelled": 0, "missing": 1, "out_of_order": 1, "first": 10, "last": 20, "span_s": 10,
        "with_end": 1, "with_first_token": 0,
    }  # fmt: skip
    assert found["tools"] == {"with_tools": 2, "with_tool_calls": 1, "after_tool_results": 1}
    assert found["reasoning"] == 1
    assert found["usage"] == {
        "prompt_tokens": 40, "cached_tokens": 30, "output_tokens": 2, "requests_with_it": 1,
        "requests_with_cached": 1, "cached_share": 0.75,
    }  # fmt: skip
    assert found["counts"]["skipped"] == {"with_odd_time": 1}
    assert found["counts"]["not_kept"]["record_fields"] == {"colour": 1}
    assert json.loads(found["sample"])["reply"] == [REPLY]


def test_what_is_said_can_be_read(tmp_path, capsys):
    path = write(tmp_path / "log.jsonl", {"time": 5, "body": {"messages": [USER]}}, {"time": 5, "x": 1})
    code, out, _ = look(capsys, path)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == [
        "is", "records", "requests", "sessions", "times", "tools", "reasoning", "usage", "models", "skipped", "sample",
    ]  # fmt: skip
    assert "1 of another form (first: line 2: has no messages; expected a request)" in out


def test_control_characters_of_a_sample_are_escaped_and_it_is_cut(tmp_path, capsys):
    text = "\x1b[2J" + "long " * 1000
    path = write(tmp_path / "log.jsonl", {"time": 5, "body": {"messages": [{"role": "user", "content": text}]}})
    _, out, _ = look(capsys, path)
    assert "\x1b" not in out and "\\u001b[2J" in out
    assert max(map(len, out.splitlines())) < 700


def test_conversations_and_dialogs_are_counted_by_their_requests(tmp_path, capsys):
    path = write(
        tmp_path / "data.jsonl",
        {"messages": [USER, REPLY, USER, REPLY]},
        {"messages": [{**USER, "timestamp": 5}, {**REPLY, "timestamp": 9}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": '{"name": "f"}'},
                           {"from": "observation", "value": "r"}, {"from": "gpt", "value": "a"}], "tools": "[{}]"},
    )  # fmt: skip
    found = facts(capsys, path)
    assert (found["requests"], found["sessions"]["all"]) == (5, 3)  # 2 + 1 + 2
    assert found["messages_by_role"] == {"assistant": 5, "tool": 1, "user": 4}
    assert [found["times"][name] for name in ("real", "modelled", "missing")] == [1, 4, 0]
    assert found["tools"] == {"with_tools": 2, "with_tool_calls": 1, "after_tool_results": 1}


def test_parquet_may_hold_chats_or_no_chats(tmp_path, capsys):
    pq.write_table(pa.Table.from_pylist([{"messages": [USER, REPLY], "score": 1}]), tmp_path / "chats.parquet")
    found = facts(capsys, tmp_path / "chats.parquet")
    assert (found["form"], found["requests"]) == ("chats", 1)
    assert found["counts"]["not_kept"]["record_fields"] == {"score": 1}
    pq.write_table(pa.table({"score": [1]}), tmp_path / "other.parquet")
    code, _, err = look(capsys, tmp_path / "other.parquet")
    assert code == 2 and "has no column of chats; it has score (int64)" in err
    main(["run", "--data-path", str(SAMPLE), "--output-dir", str(tmp_path), "--skip-visualization", "--parquet"])
    capsys.readouterr()
    found = facts(capsys, tmp_path / "multi_turn_trace.parquet")
    assert (found["kind"], found["form"], found["holds"]) == ("trace", "parquet", "tokens")


def test_a_trace_of_block_ids_is_named(tmp_path, capsys):
    rows = [{"timestamp": k * 1000, "input_length": 600, "output_length": 1, "hash_ids": [0, k]} for k in (1, 2)]
    path = write(tmp_path / "trace.jsonl", *rows)
    found = facts(capsys, path)
    assert (found["kind"], found["form"], found["requests"], found["distinct_blocks"]) == ("trace", "mooncake", 2, 3)
    assert "Mooncake's lines (a trace of block ids)" in look(capsys, path)[1]


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "no such file"),
        ("a note", "is neither a JSON array nor JSON Lines"),
        ("", "is empty"),
        ('{"colour": 1}\n', "no record of a known form; expected"),
        ('{"messages": [', "is not a JSON object"),
    ],
)
def test_what_is_no_traffic_is_refused_in_a_line(tmp_path, capsys, content, said):
    path = tmp_path / "data.jsonl"
    if content is not None:
        path.write_text(content)
    code, out, err = look(capsys, path)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples beside the project")
@pytest.mark.parametrize(
    "name, form, requests, sessions",
    [("claude_code", "claude-code", 6, 2), ("codex", "codex", 5, 2), ("litellm", "litellm", 3, 2),
     ("langfuse", "langfuse", 2, 1)],
)  # fmt: skip
def test_each_sample_is_looked_at(capsys, name, form, requests, sessions):
    found = facts(capsys, SAMPLES / name)
    right = json.loads((SAMPLES / f"{name}.expected.json").read_text())["totals"]
    assert (found["form"], found["requests"], found["sessions"]["all"]) == (form, requests, sessions)
    assert {name: found["usage"][name] for name in right if name != "requests"} == {
        name: n for name, n in right.items() if name != "requests"
    }
