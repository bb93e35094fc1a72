"""The registry of formats: an entry alone makes a format known everywhere, and the docs show all."""

import json

import numpy as np
import pytest
from places import LIB
from trace_lines import CHATS, HI, line, write

from kvprefix.__main__ import main
from kvprefix.blocks.listed import make_listed
from kvprefix.blocks.prefix_trace import make_prefix_trace, number_blocks
from kvprefix.files.jsonlines import read_objects
from kvprefix.files.paths import InputError, write_bytes
from kvprefix.formats import registry
from kvprefix.formats.bailian import write_bailian
from kvprefix.formats.entry import Format
from kvprefix.formats.lookup import find_source, find_target, list_sizes, make_table, recognise
from kvprefix.formats.mooncake import write_mooncake
from kvprefix.traces.trace import make_trace_of


def read_dummy(path, options):
    records = [record for _, record in read_objects(path, "a line is {...}", progress=False)]
    lists = [[int(one) for one in record["own_ids"].split()] for record in records]
    offsets = np.cumsum([0, *map(len, lists)])
    ids, parent, depth = number_blocks(np.array([one for ids in lists for one in ids], np.int64), offsets)
    return make_listed(
        block_size=options.block_size or 8, ids=ids, offsets=offsets, parent=parent, depth=depth,
        prompt_tokens=np.array([record["n"] for record in records]), arrival_s=np.arange(len(records)) * 1.0,
    )  # fmt: skip


def write_dummy(trace, path, options):
    rows = zip(trace.prompt_tokens.tolist(), np.split(trace.ids, trace.offsets[1:-1]), strict=True)
    write_bytes(path, "".join(json.dumps({"n": n, "own_ids": " ".join(map(str, ids))}) + "\n" for n, ids in rows))
    return ["dropped: times"]


@pytest.fixture
def dummy():
    before = dict(registry.FORMATS)
    registry.register(Format(
        name="dummy", label="the dummy's lines", definition="JSON Lines of n, own_ids", holds="blocks",
        tools="the dummy", not_in_it="times", read=read_dummy, write=write_dummy, block_size=8,
        has_request=lambda record: "own_ids" in record,
    ))  # fmt: skip
    yield
    registry.FORMATS.clear()
    registry.FORMATS.update(before)


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command, as if compiled before; return its exit code, stdout and stderr."""
    monkeypatch.setattr("kvprefix.studies.sweep.is_compiled", lambda policies: True)
    monkeypatch.setenv("COLUMNS", "400")  # help does not break lines at the dashes of names

    def call(*arguments):
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as end:
            code = end.code
        return code, *(" ".join(text.split()) for text in capsys.readouterr())

    return call


MOONCAKE = [line([1, 2], 16, 0, block_size=8), line([1, 3], 15, 1000), line([1, 3], 15, 2000)]
SESSIONS = "agent-sessions", "agentic-mooncake", "dynamo", "tracelab"
SIZES = "mooncake 512, bailian 16, agent-sessions 64, agentic-mooncake 512, dynamo 64, tracelab 64, dummy 8"
LABELS = "agentic sessions, agentic Mooncake, Dynamo's request traces, TraceLab's rounds or the dummy's lines"
DUMMY = [{"n": 16, "own_ids": "0 1"}, {"n": 15, "own_ids": "0 2"}, {"n": 15, "own_ids": "0 2"}]


def test_help_names_a_new_format(dummy, run):
    code, out, _ = run("convert", "--help")
    assert code == 0
    targets = "mooncake, bailian, dummy, engine, vllm-custom, vllm-multi-turn, openai-batch, requests or parquet"
    assert f"--to FORMAT format of OUT: {targets}" in out
    sources = f"chats, requests, parquet, engine, log, mooncake, bailian, {', '.join(SESSIONS)} or dummy"
    assert f"--from FORMAT format of IN: {sources} (default: found by content)" in out
    assert f"(default: IN's, else {SIZES})" in out
    code, out, _ = run("curve", "--help")
    assert code == 0 and f"logs of OpenAI requests, Mooncake's lines, Bailian's lines, {LABELS}" in out
    assert f"the trace's own, else chats 16, requests 16, parquet 16, engine 16, log 16, {SIZES}" in out


def test_a_new_format_is_written_and_read_by_content_and_by_name(dummy, run, tmp_path):
    source = write(tmp_path / "m", *MOONCAKE)
    code, out, err = run("convert", source, tmp_path / "d", "--to", "dummy")
    assert (code, err) == (0, "") and "d: dummy of 3 requests (mooncake), blocks of 8 tokens - dropped: times" in out
    assert [json.loads(one) for one in (tmp_path / "d").read_text().splitlines()] == DUMMY
    assert recognise(tmp_path / "d").name == "dummy"
    for kind in ([], ["--from", "dummy"]):
        code, out, _ = run("convert", tmp_path / "d", tmp_path / "again", "--to", "mooncake", *kind)
        assert code == 0 and "again: mooncake of 3 requests (dummy), blocks of 8 tokens" in out
        ids = [json.loads(one)["hash_ids"] for one in (tmp_path / "again").read_text().splitlines()]
        assert ids == [[0, 1], [0, 2], [0, 2]]
    assert "no parquet of it" in run("convert", tmp_path / "d", tmp_path / "x", "--to", "parquet")[2]


def test_a_new_format_is_rated_as_any_other(dummy, run, tmp_path):
    sources = write(tmp_path / "m", *MOONCAKE), write(tmp_path / "d", *map(json.dumps, DUMMY))
    results = []
    for source in sources:
        code, out, err = run("curve", source, "--capacities", "2,3", "--format", "json")
        assert (code, err) == (0, "")
        results.append(json.loads(out))
    assert results[0]["curves"] == results[1]["curves"] and results[0]["unbounded"] == results[1]["unbounded"]
    assert results[1]["unbounded"]["token"] == pytest.approx((8 + 15) / 46)


def test_errors_and_the_table_list_a_new_format(dummy, run, tmp_path):
    source = write(tmp_path / "m", *MOONCAKE)
    said = run("convert", source, tmp_path / "x", "--to", "csv")[2]
    assert "known: mooncake, bailian, dummy, engine, vllm-custom" in said
    assert f"known: chats, requests, parquet, engine, log, mooncake, bailian, {', '.join(SESSIONS)}, dummy" in run(
        "convert", source, tmp_path / "x", "--to", "dummy", "--from", "csv"
    )[2]  # fmt: skip
    for command in (["convert", tmp_path / "u", tmp_path / "x", "--to", "dummy"], ["curve", tmp_path / "u"]):
        write(tmp_path / "u", '{"prompt": 1}')
        said = "line 1 is a request of no known format: it has prompt; known formats are: chats ("
        code, _, err = run(*command)
        assert code == 2 and said in err and err.endswith("; dummy (JSON Lines of n, own_ids)")
    assert "| `dummy` | the dummy | yes | any trace | times |" in make_table()


def test_a_later_format_goes_before_an_earlier_one(dummy, tmp_path):
    both = json.dumps({**json.loads(MOONCAKE[0]), "own_ids": "1 2"})
    assert recognise(write(tmp_path / "t", both)).name == "dummy"
    assert recognise(write(tmp_path / "t", *CHATS)).name == "bailian"  # which has hash_ids, as mooncake has


def test_a_format_of_messages_takes_a_log(dummy, run, tmp_path):
    def write_texts(log, path, options):
        write_bytes(path, f"{options.model}: {log.calls[0].body['messages'][0]['content']}")
        return []

    registry.register(Format(
        name="texts", label="texts", definition="a text", holds="messages", write=write_texts, options=("model",),
    ))  # fmt: skip
    source = write(tmp_path / "log", json.dumps(HI))
    assert run("convert", source, tmp_path / "t", "--to", "texts", "--model", "m")[0] == 0
    assert (tmp_path / "t").read_text() == "m: Hi"
    assert "--model MODEL the model to write in openai-batch or texts, if IN names none" in run("convert", "--help")[1]
    assert "`chats`, `engine`, `log`" in make_table().splitlines()[-1]
    code, _, err = run("convert", write(tmp_path / "m", *MOONCAKE), tmp_path / "x", "--to", "texts")
    assert code == 2 and "lists block ids (mooncake), whose tokens are not known: no texts of it" in err


GOOD = {"name": "x", "label": "x", "definition": "x", "holds": "messages", "write": write_dummy}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "A b"}, "'A b' is no name; expected small letters, digits and dashes"),
        ({"holds": "texts"}, "format x holds 'texts'; expected one of tokens, messages, blocks"),
        ({"holds": "blocks"}, "format x lacks block_size; expected the usual size of its blocks in tokens"),
        ({"write": None}, "format x has neither read nor write; expected one of them or both"),
    ],
)
def test_an_entry_that_cannot_be_one_is_refused(wrong, said):
    assert Format(**GOOD).write is write_dummy
    with pytest.raises(InputError, match=said):
        Format(**{**GOOD, **wrong})


def test_the_reference_shows_the_table_of_all_formats():
    assert make_table() in (LIB / "docs/reference/formats.md").read_text(encoding="utf-8"), "make docs"


def test_formats_are_found_for_what_they_can():
    assert find_source("log").holds == "messages" and find_target("vllm-custom").read is None
    for find, name, done in ((find_source, "vllm-custom", "read"), (find_target, "log", "written")):
        with pytest.raises(InputError, match=f"format '{name}' cannot be {done}; known: "):
            find(name)
    assert list_sizes("tokens") == "requests 16, parquet 16"
    assert [one.name for one in registry.FORMATS.values() if not one.is_packed] == ["parquet"]


@pytest.mark.parametrize("write_it", [write_mooncake, write_bailian])
def test_a_trace_of_full_blocks_alone_is_not_written(tmp_path, write_it):
    full = make_prefix_trace(make_trace_of([range(9)]), 4)
    with pytest.raises(InputError, match="lists only the full blocks of its prompts; expected the partial last ones"):
        write_it(full, tmp_path / "t", progress=False)
    assert not list(tmp_path.iterdir())
