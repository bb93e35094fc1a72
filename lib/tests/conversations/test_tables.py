"""Parquet and Arrow files, JSON documents, and data sets in the shapes that their publishers gave them."""

import gzip
import json
import random
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import record, write_records

from kvprefix.conversations.calls import Call, Dialog
from kvprefix.conversations.load import Conversation
from kvprefix.conversations.traffic import TrafficCounts, read_traffic
from kvprefix.files.paths import InputError

USER, REPLY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def read(source):
    counts = TrafficCounts()
    return list(read_traffic(source, counts=counts)), counts


def write_parquet(path, table):
    pq.write_table(table, path, row_group_size=100)


def write_file(path, table):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, 100)


def write_stream(path, table):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, 100)


WRITERS = pytest.mark.parametrize("write", [write_parquet, write_file, write_stream])


@WRITERS
def test_a_table_is_read_as_its_records_are(tmp_path, write):
    records = [record(f"q{k}", f"a{k}", id=str(k)) for k in range(300)]
    write_records(tmp_path / "data.json", records)
    write(tmp_path / "data.table", pa.Table.from_pylist(records))
    items, counts = read(tmp_path / "data.table")
    assert items == read(tmp_path / "data.json")[0] and len(items) == 300
    assert (counts.records_read, counts.reading.at_end) == (300, True)
    assert counts.bytes_read == (tmp_path / "data.table").stat().st_size


@WRITERS
def test_members_that_are_null_are_absent_and_columns_of_no_use_are_not_read(tmp_path, write):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "r", "tool_call_id": "c"}, REPLY]  # fmt: skip
    rows = [{"messages": messages, "score": 1, "id": "x"}, {"messages": [USER, REPLY], "score": 2}]
    write(tmp_path / "data.table", pa.Table.from_pylist(rows))
    (dialog, text), counts = read(tmp_path / "data.table")
    assert isinstance(dialog, Dialog) and dialog.messages == messages and dialog.place == "row 0"
    assert isinstance(text, Conversation)
    assert counts.as_dict()["not_kept"]["record_fields"] == {"score": 2}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@WRITERS
def test_times_of_turns_are_read_in_any_unit(tmp_path, write, unit):
    turn = pa.struct({"role": pa.string(), "content": pa.string(), "timestamp": pa.timestamp(unit)})
    time = datetime(2023, 4, 10, 0, 1, 8)
    rows = {"conversation": [[{**USER, "timestamp": None}, {**REPLY, "timestamp": time}]], "conversation_hash": ["h"]}
    write(tmp_path / "data.table", pa.table(rows, pa.schema({"conversation": pa.list_(turn),
                                                            "conversation_hash": pa.string()})))  # fmt: skip
    (one,), _ = read(tmp_path / "data.table")
    assert one.times_s == (None, time.replace(tzinfo=UTC).timestamp())


def test_a_table_may_be_a_log(tmp_path):
    rows = [{"startTime": datetime(2026, 1, 1, tzinfo=UTC), "messages": [USER], "response": "a", "model": "m"}]
    write_parquet(tmp_path / "log.parquet", pa.Table.from_pylist(rows))
    (call,), counts = read(tmp_path / "log.parquet")
    assert isinstance(call, Call) and (call.start_s, call.model) == (1767225600, "m")
    rows = [{"call_type": "acompletion", "trace_id": "t", "startTime": 5.0, "messages": json.dumps([USER])}]
    write_parquet(tmp_path / "log.parquet", pa.Table.from_pylist(rows))
    assert read(tmp_path / "log.parquet")[1].forms == {"litellm": 1}


@WRITERS
def test_a_table_without_chats_names_its_columns(tmp_path, write):
    write(tmp_path / "data.table", pa.table({"prompt": ["a"], "score": [1]}))
    with pytest.raises(InputError, match=r"data.table: has no column of chats; it has prompt \(string\), score"):
        read(tmp_path / "data.table")


@WRITERS
def test_a_table_that_is_cut_is_refused(tmp_path, write):
    path = tmp_path / "data.table"
    write(path, pa.Table.from_pylist([record(f"q{k}") for k in range(500)]))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="data.table: is a damaged table"):
        read(path)


@WRITERS
def test_a_table_with_wrong_bytes_is_read_or_refused_in_one_line(tmp_path, write):
    path, draw = tmp_path / "data.table", random.Random(3)
    write(path, pa.Table.from_pylist([record(f"q{k}") for k in range(5)]))
    data, refused = path.read_bytes(), 0
    for _ in range(150):
        wrong = bytearray(data)
        for _ in range(draw.choice([1, 3, 20])):
            wrong[draw.randrange(4, len(wrong))] = draw.randrange(256)
        path.write_bytes(wrong)
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and "data.table" in str(error)
    assert refused


def test_trajectories_of_turns_with_text_are_read(tmp_path):
    turns = [
        {"role": "system", "system_prompt": "s", "text": None, "mask": False},
        {"role": "user", "system_prompt": None, "text": "issue", "mask": False},
        {"role": "ai", "system_prompt": None, "text": "ls", "mask": True},
    ]
    write_parquet(tmp_path / "data.parquet", pa.Table.from_pylist([{"trajectory": turns, "target": True}]))
    (one,), _ = read(tmp_path / "data.parquet")
    assert one.messages == (("system", "s"), ("user", "issue"), ("assistant", "ls"))


def test_messages_may_be_json_text():
    (one,), _ = read([{"messages": json.dumps([USER, {**REPLY, "tool_calls": []}])}])
    assert one.messages == (("user", "q"), ("assistant", "a"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_json_document_may_spread_over_lines_and_wrap_its_records(tmp_path, pack):
    path, one = tmp_path / "data.json", {"messages": [USER, REPLY]}
    path.write_bytes(pack(json.dumps(one, indent=1).encode()))
    assert len(read(path)[0]) == 1
    path.write_bytes(pack(json.dumps({"data": [one, one], "meta": {}}, indent=1).encode()))
    items, counts = read(path)
    assert (len(items), counts.records_read) == (2, 2)
    path.write_bytes(pack(json.dumps({"runs": [one, 3]}).encode()))
    assert read(path)[1].first_skipped == {"not_a_conversation": "line 1, 1: expected an object with a list "
                                           "`conversations` or `messages`"}  # fmt: skip
