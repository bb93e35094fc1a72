"""The convert command: what is recognised, what is written, what it says it drops, and what comes back."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest
import zstandard
from places import SAMPLE
from samples import ALTERNATING_TEMPLATE, save_small_tokenizer
from trace_lines import CHATS, HI, line, messages, write

from kvprefix.__main__ import main
from kvprefix.cache.curve import rate_unbounded
from kvprefix.files.paths import InputError
from kvprefix.formats.call_log import read_call_log
from kvprefix.formats.convert import convert
from kvprefix.formats.lookup import list_targets, recognise
from kvprefix.formats.mooncake import read_mooncake
from kvprefix.formats.requests import read_requests
from kvprefix.studies.sweep import load_accesses
from kvprefix.traces.parquet import read_trace, write_trace
from kvprefix.traces.trace import make_trace_of


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Return the folder of a run on the sample: its traces as JSON Lines and as Parquet."""
    folder = tmp_path_factory.mktemp("sample")
    assert main([
        "run", "--data-path", str(SAMPLE), "--output-dir", str(folder), "--skip-visualization", "--parquet",
    ]) == 0  # fmt: skip
    return folder


@pytest.fixture
def run(capsys):
    """Run the command; return its exit code, stdout and stderr."""

    def call(*arguments):
        code = main(["convert", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def read_lines(path):
    return [json.loads(one) for one in path.read_text().split("\n") if one]


# ---- Recognising


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"hash_ids": [], "timestamp": 0}', "mooncake"),
        ('\n{"chat_id": 1, "hash_ids": []}', "bailian"),
        ('{"messages": []}', "log"),
        ('{"body": {"messages": []}, "custom_id": "a"}', "log"),
        ('{"prompt_token_ids": [1], "request_id": "a"}', "requests"),
        ('{"messages"', None),
        ("[]", None),
        ("", None),
    ],
)
def test_a_format_is_known_by_its_first_line(tmp_path, content, kind):
    for compress in (bytes, gzip.compress, zstandard.compress):
        (tmp_path / "t").write_bytes(compress(content.encode()))
        found = recognise(tmp_path / "t")
        assert found is None if kind is None else found.name == kind


@pytest.mark.parametrize("odd", ["{]", "[]", "null", '{"level": "info"}', "[" * 100_000])
def test_a_format_is_known_in_spite_of_odd_lines_before_it(tmp_path, odd, run):
    path = write(tmp_path / "t", *[odd] * 9, json.dumps(HI))
    assert recognise(path).name == "log"
    code, out, err = run(path, tmp_path / "out", "--to", "openai-batch")
    assert code == 0 and err == "" and "- skipped: 9 " in out and "(line 1: " in out
    assert recognise(write(tmp_path / "u", *[odd] * 200, json.dumps(HI))) is None


def test_fields_of_an_unknown_format_are_shown_without_control_characters(tmp_path, run):
    code, _, err = run(write(tmp_path / "t", json.dumps({"\x1b[31m": 1, "b": 2})), tmp_path / "out", "--to", "mooncake")
    assert code == 2 and 'it has "\\u001b[31m", b' in err


def test_our_own_traces_are_recognised(sample):
    assert recognise(sample / "multi_turn_trace.parquet").name == "parquet"
    assert recognise(sample / "multi_turn_trace.jsonl").name == "engine"


# ---- Round trips


def test_a_trace_with_tokens_comes_back_from_parquet(sample, tmp_path):
    convert(sample / "multi_turn_trace.parquet", tmp_path / "t.parquet", "parquet")
    ours, again = read_trace(sample / "multi_turn_trace.parquet"), read_trace(tmp_path / "t.parquet")
    assert again.requests.equals(ours.requests) and again.info == ours.info
    for i in range(len(ours)):
        assert (again.prompt(i).tolist(), again.generated(i).tolist()) == (
            ours.prompt(i).tolist(), ours.generated(i).tolist()
        )  # fmt: skip


@pytest.mark.parametrize("mode", ["single_turn", "multi_turn"])
def test_an_engine_trace_gives_the_tokens_that_it_was_made_of(sample, tmp_path, mode):
    convert(sample / f"{mode}_trace.jsonl", tmp_path / "t.parquet", "parquet", progress=False)
    ours, again = read_trace(sample / f"{mode}_trace.parquet"), read_trace(tmp_path / "t.parquet")
    columns = ["request_id", "conversation_id", "turn", "arrival_s", "prompt_tokens", "output_tokens", "messages"]
    assert again.requests[columns].equals(ours.requests[columns])
    assert [again.prompt(i).tolist() for i in range(len(again))] == [ours.prompt(i).tolist() for i in range(len(ours))]
    outputs = [(again.generated(i).tolist(), ours.generated(i).tolist()) for i in range(len(ours))]
    known = [(a, b) for a, b in outputs if a]
    assert all(a == b for a, b in known) and (mode == "single_turn" or known)


def test_requests_keep_their_conversations_and_who_may_share(tmp_path, run):
    salts, talks = [{"cache_salt": "s"}, {}, {"lora_name": "a"}, {"cache_salt": "s"}], ["x", "y", "x", "x"]
    tokens = {"prompt_token_ids": [1, 2, 3], "output_token_ids": []}
    rows = [{"request_id": f"r{k}", "timestamp": k, **tokens, "conversation": talk} for k, talk in enumerate(talks)]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps(row | salt) + "\n" for row, salt in zip(rows, salts, strict=True)))
    code, out, err = run(source, tmp_path / "b.jsonl", "--to", "requests")
    assert code == 0 and err == "" and out.count("- dropped: names of ") == 2
    numbered = zip(rows, [0, 1, 0, 0], "0120", strict=True)
    assert read_lines(tmp_path / "b.jsonl") == [row | {"conversation": k, "cache_salt": s} for row, k, s in numbered]
    trace = read_requests(tmp_path / "b.jsonl")
    assert trace.requests["turn"].tolist() == [0, 0, 1, 2] and trace.contexts.tolist() == [0, 1, 2, 0]


def test_a_batch_file_keeps_the_messages_and_shows_the_conversations(sample, tmp_path, run):
    source, batch = sample / "multi_turn_trace.jsonl", tmp_path / "batch.jsonl"
    code, out, err = run(source, batch, "--to", "openai-batch", "--model", "m")
    assert code == 0 and err == ""
    rows = read_lines(source)
    assert read_lines(batch) == [
        {
            "custom_id": row["request_id"], "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": row["messages"], "max_tokens": row["output_tokens"]},
        }
        for row in rows
    ]  # fmt: skip
    assert out.split("\n")[:3] == [
        f"{batch}: openai-batch of {len(rows)} requests (engine)",
        "- dropped: arrival times; names and turns of conversations (they show in the messages); their last replies",
        f"- {len(rows)} requests without a model: 'm' is written (--model gives another)",
    ]
    assert run(batch, tmp_path / "again.jsonl", "--to", "openai-batch")[0] == 0
    assert (tmp_path / "again.jsonl").read_bytes() == batch.read_bytes()
    log = read_call_log(batch)
    assert [call.name for call in log.calls] == [row["request_id"] for row in rows]
    assert [call.body["messages"] for call in log.calls] == [row["messages"] for row in rows]
    convert(batch, tmp_path / "t.parquet", "parquet", progress=False)
    trace, ours = read_trace(tmp_path / "t.parquet"), read_trace(sample / "multi_turn_trace.parquet")
    assert trace.requests["turn"].tolist() == ours.requests["turn"].tolist()
    lengths = [t.requests["conversation_index"].value_counts().sort_values().tolist() for t in (trace, ours)]
    assert lengths[0] == lengths[1]  # two conversations begin alike, so that which is which does not show


# Blocks of 4: 8 and 7 share block 70; the third request continues the second, which ends in a partial block.
BLOCKS = [line([70, 71], 8, 10), line([70, 90], 7, 20, output_length=5), line([70, 91, 50], 11, 35), line([], stamp=40)]


def test_mooncake_s_form_comes_back_with_ids_as_first_seen(tmp_path, run):
    source, target = write(tmp_path / "a.jsonl", *BLOCKS), tmp_path / "b.jsonl"
    code, out, _ = run(source, target, "--to", "mooncake", "--from-block-size", 4)
    assert code == 0 and [list(row.values()) for row in read_lines(target)] == [
        [10, 8, 1, 4, [0, 1]], [20, 7, 5, 4, [0, 2]], [35, 11, 1, 4, [0, 3, 4]], [40, 0, 1, 4, []],
    ]  # fmt: skip
    assert list(read_lines(target)[0]) == ["timestamp", "input_length", "output_length", "block_size", "hash_ids"]
    assert out.split("\n") == [
        f"{target}: mooncake of 4 requests (mooncake), blocks of 4 tokens",
        "- 1 request without tokens: kept, can hit nothing",
        "- 2 of 4 requests end in a partial block, which has an id of its own",
        "- 1 request without tokens: kvcache-simulator refuses them",
        "- blocks hold 4 tokens: other tools must be told, for the usual size is 512",
        "",
    ]
    ours, again = read_mooncake(source, 4), read_mooncake(target)  # whose lines say that blocks hold 4 tokens
    for name in ("ids", "offsets", "parent", "depth", "last_weight", "prompt_tokens", "arrival_s"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(again, name))


def test_mooncake_s_form_comes_back_from_bailian_s(tmp_path, run):
    source = write(tmp_path / "a.jsonl", *BLOCKS)
    assert run(source, tmp_path / "b", "--to", "bailian", "--from-block-size", 4)[0] == 0
    assert read_lines(tmp_path / "b")[1] == {
        "chat_id": 1, "parent_chat_id": -1, "timestamp": 0.02, "input_length": 7, "output_length": 5, "type": "text",
        "turn": 1, "block_size": 4, "hash_ids": [0, 2],
    }  # fmt: skip
    code, out, _ = run(tmp_path / "b", tmp_path / "c", "--to", "mooncake")
    assert code == 0 and "- dropped: chat_id, parent_chat_id, type and turn\n" in out
    run(source, tmp_path / "d", "--to", "mooncake", "--from-block-size", 4)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()


def test_bailian_s_form_keeps_chats_types_and_stamps(tmp_path, run):
    source = write(tmp_path / "a", *CHATS)
    assert run(source, tmp_path / "b", "--to", "bailian", "--from-block-size", 4)[0] == 0
    assert [list(row.values()) for row in read_lines(tmp_path / "b")] == [
        [0, -1, 0.5, 7, 3, "text", 1, 4, [0, 1]],
        [1, -1, 1.25, 4, 3, "search", 1, 4, [2]],
        [2, 0, 2.0, 10, 3, "text", 2, 4, [0, 3, 4]],
    ]
    run(tmp_path / "b", tmp_path / "c", "--to", "bailian")
    assert (tmp_path / "c").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_trace_with_tokens_becomes_blocks_and_then_coarser_ones(sample, tmp_path, run):
    source = sample / "multi_turn_trace.parquet"
    trace = read_trace(source)
    code, out, _ = run(source, tmp_path / "b.jsonl.gz", "--to", "bailian")
    assert code == 0 and "blocks of 16 tokens\n- dropped: token ids and texts (their numbers stay)" in out
    rows = [json.loads(one) for one in gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()).split(b"\n") if one]
    assert [row["input_length"] for row in rows] == trace.requests["prompt_tokens"].tolist()
    assert [row["timestamp"] for row in rows] == trace.arrival_s.tolist()
    assert [row["turn"] - 1 for row in rows] == trace.requests["turn"].tolist()
    for row in rows:
        if row["parent_chat_id"] >= 0:
            assert rows[row["parent_chat_id"]]["turn"] == row["turn"] - 1
    number = {}
    for i, row in enumerate(rows):
        prompt = trace.prompt(i).tolist()
        assert row["hash_ids"] == [
            number.setdefault(tuple(prompt[: k + 16]), len(number)) for k in range(0, len(prompt), 16)
        ]
    for size in (64, 512):
        code, out, _ = run(tmp_path / "b.jsonl.gz", tmp_path / "coarse", "--to", "mooncake", "--block-size", size)
        assert code == 0 and f"- 16 tokens per block became {size}: {len(number)} distinct blocks became" in out
        run(source, tmp_path / "direct", "--to", "mooncake", "--block-size", size)
        assert (tmp_path / "coarse").read_bytes() == (tmp_path / "direct").read_bytes()
    assert load_accesses(tmp_path / "b.jsonl.gz").conversation.max() + 1 == trace.requests["conversation_id"].nunique()


def test_stamps_are_rounded_to_whole_milliseconds_and_that_is_said(tmp_path, run):
    write_trace(make_trace_of([[1], [2]], [0.0104, 1.5]), tmp_path / "t.parquet")
    _, out, _ = run(tmp_path / "t.parquet", tmp_path / "m", "--to", "mooncake")
    assert [row["timestamp"] for row in read_lines(tmp_path / "m")] == [10, 1500]
    assert "- dropped: fractions of a millisecond (stamps moved by at most 0.4 ms)\n" in out
    write(tmp_path / "a", line([1], 4, 1.25), line([1], 4, 7))
    assert "at most 0.25 ms" in run(tmp_path / "a", tmp_path / "m", "--to", "mooncake", "--from-block-size", 4)[1]
    for start in (1000, 10**12):  # 1.001 * 1000 is a little less than 1001
        write(tmp_path / "a", *(line([1], 4, t) for t in range(start, start + 400)))
        assert "fractions" not in run(tmp_path / "a", tmp_path / "m", "--to", "mooncake", "--from-block-size", 4)[1]
        assert [row["timestamp"] for row in read_lines(tmp_path / "m")] == list(range(start, start + 400))


def test_requests_without_an_output_length_have_0(tmp_path, run):
    bare = {"timestamp": 0, "input_length": 4, "hash_ids": [1]}
    source = write(tmp_path / "a", json.dumps(bare), line([1], 4, 5), json.dumps({**bare, "output_length": None}))
    assert "- 2 requests without output_length: taken as 0\n" in run(
        source, tmp_path / "b", "--to", "mooncake", "--from-block-size", 4
    )[1]  # fmt: skip
    assert read_mooncake(tmp_path / "b", outputs=True).output_tokens.tolist() == [0, 0, 1]  # the first two by time
    write(tmp_path / "a", line([1], 4), json.dumps({**bare, "output_length": -1}))
    with pytest.raises(InputError, match="line 2 has output_length -1; expected a whole number of tokens, 0 or more"):
        convert(tmp_path / "a", tmp_path / "c", "mooncake", from_block_size=4)
    assert read_mooncake(tmp_path / "a", 4).prompt_tokens.tolist() == [4, 4]  # where it is not needed it is not read


# ---- Files


@pytest.mark.parametrize(("ending", "unpack"), [(".gz", gzip.decompress), (".zst", zstandard.decompress)])
def test_a_name_says_whether_the_target_is_compressed(tmp_path, run, ending, unpack):
    source, plain = write(tmp_path / "a", *BLOCKS), tmp_path / "b.jsonl"
    for target in (plain, tmp_path / f"b.jsonl{ending}", tmp_path / f"c.jsonl{ending}"):
        assert run(source, target, "--to", "mooncake", "--from-block-size", 4)[0] == 0
    packed = (tmp_path / f"b.jsonl{ending}").read_bytes()
    whole = zstandard.ZstdDecompressor().decompressobj().decompress if ending == ".zst" else unpack
    assert whole(packed) == plain.read_bytes()
    assert packed == (tmp_path / f"c.jsonl{ending}").read_bytes()
    assert rate_unbounded(load_accesses(tmp_path / f"b.jsonl{ending}")) == rate_unbounded(read_mooncake(source, 4))


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("", ["--to", "mooncake"], "in: is empty; known formats are: chats ("),
        ("{]", ["--to", "mooncake"], "in: line 1 is not JSON (Expecting property name"),
        ("\n[]", ["--to", "mooncake"], "in: line 2 is no JSON object"),
        ('{"prompt": "x", "n": 1}', ["--to", "parquet"], "line 1 is a request of no known format: it has prompt, n"),
        (None, ["--to", "parquet"], "in: No such file"),
        (BLOCKS[0], ["--to", "mooncake"], "line 1 lists 2 blocks for input_length 8; expected 1 of 512 tokens"),
        (BLOCKS[0], ["--to", "csv"], "format 'csv' cannot be written; known: mooncake, bailian, engine, vllm-custom"),
        (BLOCKS[0], ["--to", "mooncake", "--from", "csv"], "format 'csv' cannot be read; known: chats, requests"),
        (BLOCKS[0], ["--to", "mooncake", "--from", "bailian"], "in: line 1 lacks chat_id"),
        (
            BLOCKS[0], ["--to", "mooncake", "--from", "log"],
            "in: holds no request that can be rendered: 1 not_a_conversation (line 1: ",
        ),
        (BLOCKS[0], ["--to", "mooncake", "--from", "parquet"], "in: cannot be read as a Parquet trace"),
        (BLOCKS[0], ["--to", "mooncake", "--block-size", "x"], "block size is 'x'; expected a whole number of tokens"),
        (
            BLOCKS[0], ["--to", "mooncake", "--from-block-size", "4", "--block-size", "2"],
            "block size is 2; a trace that lists blocks of 4 tokens can only be written with a multiple of that",
        ),
        (BLOCKS[0], ["--to", "parquet", "--block-size", "4"], "--block-size is given, but parquet lists no blocks"),
        (json.dumps(HI), ["--to", "mooncake", "--from-block-size", "4"], "in (log) lists no blocks"),
        *[
            (BLOCKS[0], ["--to", to, "--from-block-size", "4"], "lists block ids (mooncake), whose tokens are not")
            for to in (one.name for one in list_targets() if one.holds != "blocks")
        ],
        (json.dumps(HI), ["--to", "parquet", "--tokenizer", "./nowhere"], "tokenizer ./nowhere: is no folder"),
        (
            json.dumps({**HI, "messages": [{"role": "system", "content": "x"}]}), ["--to", "vllm-multi-turn"],
            "in: has no conversation of a user's message and a reply of known length",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, run, content, options, said):
    if content is not None:
        (tmp_path / "in").write_text(content)
    target = tmp_path / "out.jsonl"
    target.write_text("as before")
    code, out, err = run(tmp_path / "in", target, *options)
    assert code == 2 and out == "" and said in err and err.count("error:") == 1 and "Traceback" not in err
    assert target.read_text() == "as before"
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "out.jsonl"}


def test_a_trace_of_token_ids_has_no_messages(sample, run, tmp_path):
    for to in ("vllm-custom", "vllm-multi-turn", "openai-batch"):
        code, _, err = run(sample / "multi_turn_trace.parquet", tmp_path / "t.jsonl", "--to", to)
        assert code == 2 and "holds token ids, and" in err and "such as multi_turn_trace.jsonl" in err


def test_source_and_target_must_differ(tmp_path, run):
    source = write(tmp_path / "a", *BLOCKS)
    assert "is both what is read and what would be written" in run(source, source, "--to", "mooncake")[2]
    assert "a file named .jsonl only" in run(source, tmp_path / "b.json", "--to", "vllm-custom")[2]


def test_the_curve_command_tokenises_chats_as_convert_does(sample, tmp_path, capsys, small_folder):
    for source in (sample / "multi_turn_trace.jsonl", SAMPLE):
        convert(source, tmp_path / "t.parquet", "parquet", tokenizer=small_folder, progress=False)
        rates = []
        for arguments in ([source, "--tokenizer", small_folder, "--server", "vllm"], [tmp_path / "t.parquet"]):
            assert main(["curve", *map(str, arguments), "--policy", "lru", "--format", "json"]) == 0
            rates.append(json.loads(capsys.readouterr().out))
        assert rates[0]["unbounded"] == rates[1]["unbounded"] and rates[0]["curves"] == rates[1]["curves"]
    assert main(["curve", str(SAMPLE), "--server", "x"]) == 2
    assert "server x: its rules are not known" in capsys.readouterr().err


def test_a_completion_as_text_has_the_tokens_of_its_reply(tmp_path, run):
    answer = {"choices": [{"message": {"role": "assistant", "content": "at six"}}], "usage": {"prompt_tokens": 9}}
    source = write(tmp_path / "log", json.dumps({**HI, "response": json.dumps(answer)}))
    assert run(source, tmp_path / "t.parquet", "--to", "parquet")[0] == 0
    assert read_trace(tmp_path / "t.parquet").requests["output_tokens"].tolist() == [3]  # "at", " six", the end of turn


def test_run_and_convert_keep_the_same_turns_before_a_refusal(tmp_path, run):
    # The fourth user message follows another user's: it and the fifth are refused, in a log as in a conversation.
    folder = save_small_tokenizer(tmp_path / "tokenizer", ALTERNATING_TEMPLATE)
    said = [*messages("a", "b", "c", "d", "e"), *messages("f", "g", "h")]
    chats = [said, messages("a", "b", "z", "y")]
    data = write(tmp_path / "data", *(json.dumps({"messages": one}) for one in chats))
    assert main([
        "run", "--data", str(data), "--tokenizer", str(folder), "--output-dir", str(tmp_path), "--parquet",
        "--skip-visualization",
    ]) == 0  # fmt: skip
    prompts = [said[:end] for end in (1, 3, 5, 6, 8)] + [messages("a"), messages("a", "b", "z")]
    log = write(tmp_path / "log", *(json.dumps({"messages": one}) for one in prompts))
    code, out, _ = run(log, tmp_path / "t.parquet", "--to", "parquet", "--tokenizer", folder)
    assert code == 0 and "- 2 requests refused by the chat template: roles must alternate user/assistant (" in out
    assert "- noted: read as requests: 1 (line 1: none of the first 7 records ends with a reply, so each is" in out
    ours, logged = read_trace(tmp_path / "multi_turn_trace.parquet"), read_trace(tmp_path / "t.parquet")
    by_run, by_log = (sorted(trace.prompt(i).tolist() for i in range(len(trace))) for trace in (ours, logged))
    assert by_run == by_log and len(by_run) == 5
    out = run(data, tmp_path / "u.parquet", "--to", "parquet", "--tokenizer", folder)[1]
    assert "2 requests refused by the chat template" in out and "alternate user/assistant (first: conversation " in out
    code, out, _ = run(log, tmp_path / "c.jsonl", "--to", "vllm-custom", "--tokenizer", folder)
    assert code == 0 and len(read_lines(tmp_path / "c.jsonl")) == 5
    assert "- dropped: 2 requests that the chat template refuses: roles must alternate user/assistant\n" in out


# ---- vLLM's two forms


def test_a_custom_dataset_holds_rendered_prompts(tmp_path, run, small_folder):
    source = write(
        tmp_path / "log", json.dumps({**HI, "output_tokens": 9}),
        json.dumps({"timestamp": 2, "messages": messages("Hi", "Yes", "So?"), "completion": "No"}),
        json.dumps({"timestamp": 3, "messages": messages("\u2028")}),
    )  # fmt: skip
    code, out, _ = run(source, tmp_path / "c.jsonl", "--to", "vllm-custom", "--tokenizer", small_folder)
    rows = [json.loads(one) for one in (tmp_path / "c.jsonl").read_text().split("\n") if one]
    system = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    first = f"{system}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert code == 0 and [row["prompt"] for row in rows] == [
        first,
        f"{first}Yes<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n",
        first.replace("Hi", "\u2028"),
    ]
    assert [row["output_tokens"] for row in rows] == [9, 3, 1]  # said; "N", "o" and the end of turn; not known
    assert "- 1 request whose number of generated tokens is not known: 1 is written\n" in out


def test_conversations_are_made_what_the_multi_turn_script_takes(tmp_path, run):
    records = [
        {"messages": messages("a", "b", "c", system="s"), "completion": "d", "id": "1"},
        {"messages": messages("a"), "completion": "b", "id": "2"},
        {"messages": messages("a", "b", "e"), "output_tokens": 4, "id": "3"},  # continues 2; of known length
        {"messages": messages("a", "b", "f"), "id": "4"},  # a branch, nothing known of its reply
        {"messages": [*messages("g"), *messages("h")], "completion": "i", "id": "5"},  # nothing but a first message
        {"messages": messages("k"), "id": "6"},
    ]
    source = write(tmp_path / "log", *map(json.dumps, records))
    code, out, _ = run(source, tmp_path / "m.json", "--to", "vllm-multi-turn")
    conversations = json.loads((tmp_path / "m.json").read_text())
    assert code == 0 and [(one["id"], [m["content"] for m in one["messages"]]) for one in conversations] == [
        ("1", ["a", "b", "c", "d"]), ("2", ["a", "b", "e", "a a a"]), ("2#2", ["a", "b"]),
    ]  # fmt: skip
    for one in conversations:
        assert [list(m) for m in one["messages"]] == [["role", "content"]] * len(one["messages"])
        assert [m["role"] for m in one["messages"]] == ["user", "assistant"] * (len(one["messages"]) // 2)
    assert out.split("\n")[2:-1] == [
        "- 3 conversations are written",
        "- 1 branch among them, with an id of its own each",
        "- dropped: arrival times and names of requests",
        "- dropped: system messages of 1 conversation",
        "- dropped: 1 message of 1 conversation, from where two of one role follow each other, or the last reply is not"
        " known",
        "- dropped: 2 conversations without a question and a reply",
        "- 1 last reply of known length only: as many words stand for it",
    ]


def test_fillers_of_many_replies_do_not_wait_in_memory(tmp_path):
    records = ({"messages": messages(str(k)), "output_tokens": 10**6} for k in range(40))
    source = write(tmp_path / "log", *map(json.dumps, records))
    tracemalloc.start()
    convert(source, tmp_path / "m.json", "vllm-multi-turn", progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "m.json").stat().st_size > 40 * 2e6 and peak < 20 * 2e6
