"""Chats of any form as a trace: ids, replies, order, times, sessions; what is left out is counted."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import CARRIED, SAMPLE

from kvprefix.__main__ import main
from kvprefix.formats.read import read_trace
from kvprefix.formats.traffic_trace import read_chats
from kvprefix.tokens import parts as parts_module
from kvprefix.tokens.template import load_chat
from kvprefix.tokens.tokenizer import find_tokenizer

URLS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_call(text, time=None, **more):
    stamp = {} if time is None else {"timestamp": time}
    return {"body": {"messages": [{"role": "user", "content": text}]}, "response": "Yes.", **stamp, **more}


@pytest.fixture(scope="module")
def tools_folder(tmp_path_factory, shared_derived):
    """Return the folder of a tokenizer whose template shows tools, and the carried bodies."""
    first, *bodies = read(CARRIED / "server_bodies.jsonl.gz")
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = load_chat(find_tokenizer()).tokenizer
    tokenizer.chat_template = first["templates"]["qwen25_tools"]
    tokenizer.save_pretrained(folder)
    return folder, bodies


def convert(tmp_path, source, *options):
    target = tmp_path / "requests.jsonl"
    assert main(["convert", str(source), str(target), "--to", "requests", *map(str, options)]) == 0
    return read_lines(target)


def test_bodies_become_the_requests_that_the_server_saw(tools_folder, tmp_path, capsys):
    folder, bodies = tools_folder
    rows = [{"custom_id": f"{k}", "url": URLS[one["api"]], "body": one["body"]} for k, one in enumerate(bodies)]
    found = convert(tmp_path, write(tmp_path / "log.jsonl", rows), "--tokenizer", folder)
    right = {f"{k}": one["ids"]["qwen25_tools"] for k, one in enumerate(bodies)}
    assert {one["request_id"]: one["prompt_token_ids"] for one in found} == {k: v for k, v in right.items() if v}
    assert "refused by the server" in capsys.readouterr().out


def test_sessions_have_the_replies_and_hits_of_the_server(tools_folder, tmp_path):
    rows = read(CARRIED / "server_sessions.jsonl.gz")
    name = {"chat": lambda reply: {"choices": [{"message": reply}]}, "messages": lambda reply: reply,
            "responses": lambda reply: {"output": reply}}  # fmt: skip
    lines = [
        {"custom_id": f"{k}", "url": URLS[row["api"]], "body": row["body"],
         "response": {"body": name[row["api"]](row["reply"])}}
        for k, row in enumerate(rows)
    ]  # fmt: skip
    found = convert(tmp_path, write(tmp_path / "log.jsonl", lines), "--tokenizer", tools_folder[0])
    assert [one["prompt_token_ids"] for one in found] == [row["prompt_token_ids"] for row in rows]
    assert [one["output_token_ids"] for one in found] == [row["reply_token_ids"] for row in rows]


def test_requests_are_in_order_of_time_and_keep_their_names(tmp_path, shared_derived):
    log = write(tmp_path / "log.jsonl", [
        make_call("second", "2026-01-01T00:00:01.250Z", id="b"), make_call("first", "2026-01-01T00:00:00Z", id="a"),
    ])  # fmt: skip
    found = convert(tmp_path, log)
    assert [(one["request_id"], one["timestamp"]) for one in found] == [("a", 0), ("b", 1250)]


def test_if_one_has_no_time_all_stay_in_the_order_of_the_file(tmp_path, shared_derived):
    log = write(tmp_path / "log.jsonl", [make_call("b", 9, id="b"), make_call("a", 3, id="a"), make_call("c", id="c")])
    trace = read_chats(log, find_tokenizer(), progress=False)
    assert trace.request_ids == ["b", "a", "c"] and trace.arrival_s.tolist() == [0, 0, 0]
    assert any("1 request without a time" in note for note in trace.info["log"]["notes"])


def test_a_data_set_s_prompts_are_those_of_the_main_job(tmp_path, shared_derived):
    code = main(["run", "--data-path", str(SAMPLE), "--output-dir", str(tmp_path), "--parquet", "--skip-visualization"])
    assert code == 0
    ours, trace = read_trace(tmp_path / "multi_turn_trace.parquet"), read_trace(SAMPLE)
    for one in (ours, trace):
        assert len(one) == len(ours)
    by_place = {(c, t): i for i, (c, t) in enumerate(zip(*places(ours), strict=True))}
    for i, place in enumerate(zip(*places(trace), strict=True)):
        k = by_place[place]
        assert trace.prompt(i).tolist() == ours.prompt(k).tolist()
        assert trace.generated(i).tolist() == ours.generated(k).tolist()


def places(trace):
    return trace.requests["conversation_id"], trace.requests["turn"]


def test_batches_change_no_prompt(tmp_path, shared_derived, monkeypatch):
    text = " ".join(f"word {k}" for k in range(300))
    rows = [make_call(f"{text} {k}", k, id=str(k), session_id="s") for k in range(40)]
    folder = tmp_path / "logs"
    folder.mkdir()
    for k in range(4):
        write(folder / f"{k}.jsonl", rows[10 * k : 10 * k + 10])
    whole = read_chats(folder, find_tokenizer(), progress=False)
    monkeypatch.setattr(parts_module, "PART_BYTES", 1000)
    parts = read_chats(folder, find_tokenizer(), progress=False)
    assert len(whole) == len(parts) == 40
    assert [whole.prompt(k).tolist() for k in range(40)] == [parts.prompt(k).tolist() for k in range(40)]
    assert whole.requests.equals(parts.requests)


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "jsonl.gz"])
def test_a_folder_with_other_files_in_it_is_converted(tmp_path, shared_derived, ending):
    folder = tmp_path / "logs"
    (folder / "deep").mkdir(parents=True)
    (folder / "README.md").write_text("# notes\n")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (folder / "0.json").write_text('{"a": 1}')
    (folder / "1.jsonl").touch()
    rows = [make_call(f"q{k}", k, id=str(k)) for k in range(3)]
    path = folder / "deep" / f"log.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write(path, rows)
    if ending == "jsonl.gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert [one["request_id"] for one in convert(tmp_path, folder)] == ["0", "1", "2"]


def test_calls_that_begin_alike_are_sessions_of_their_own_and_their_next_calls_go_on_from_them(
    tmp_path, shared_derived
):
    first = [{"role": "user", "content": "Hello"}]
    more = [*first, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}]
    rows = [{"body": {"messages": messages}, "timestamp": k} for k, messages in enumerate([first, first, more, more])]
    trace = read_chats(write(tmp_path / "log.jsonl", rows), find_tokenizer(), progress=False)
    assert trace.requests["conversation_index"].tolist() == [0, 1, 0, 1]
    assert trace.requests["turn"].tolist() == [0, 0, 1, 1]
