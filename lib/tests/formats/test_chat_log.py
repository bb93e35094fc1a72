"""Logs of chat requests: what is read, which requests continue one another, and their tokens."""

import gzip
import json

import numpy as np
import pytest
import samples
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from logs import read_log_trace
from trace_lines import HI, messages
from transformers import AutoTokenizer

from kvprefix.blocks.sharing import share
from kvprefix.conversations.records import Message
from kvprefix.files.paths import InputError
from kvprefix.formats.chat_log import Logged, RequestLog, read_log
from kvprefix.formats.chat_threads import make_chains, thread_requests
from kvprefix.formats.chat_trace import tokenise_log
from kvprefix.tokens.tokenizer import find_tokenizer
from kvprefix.traces.parquet import read_trace, write_trace


def write(path, *records):
    path.write_bytes(b"".join((one if isinstance(one, str) else json.dumps(one)).encode() + b"\n" for one in records))
    return path


def read(tmp_path, *records):
    return read_log(write(tmp_path / "log.jsonl", *records), progress=False)


# ---- What a line holds


@pytest.mark.parametrize(
    "record",
    [
        {"timestamp": 5, "messages": messages("Hi"), "completion": "Yes", "request_id": "a", "user": "u"},
        {"time": 5, "request": {"messages": messages("Hi"), "user": "u"}, "response": "Yes", "id": "a"},
        {"custom_id": "a", "body": {"messages": messages("Hi"), "user": "u"}, "created": 5.0, "output": "Yes"},
        {
            "id": "a", "request": {"method": "POST", "body": {"messages": messages("Hi"), "user": "u"}},
            "response": {"created": 5, "choices": [{"message": {"role": "assistant", "content": "Yes"}}]},
        },
        {
            "custom_id": "a", "created_at": "1970-01-01T00:00:05Z", "body": {"messages": messages("Hi"), "user": "u"},
            "response": {"status_code": 200, "body": {"choices": [{"text": "Yes"}]}},
        },
        {
            "id": "a", "user": "u", "timestamp": 5, "choices": [{"message": {"content": "Yes"}}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        },
    ],
)  # fmt: skip
def test_every_form_gives_the_same_request(tmp_path, record):
    log = read(tmp_path, record)
    assert log.requests == [
        Logged("a", 5.0, (Message("user", "Hi"),), "Yes", ("user", "u"), None, None, None, None, None)
    ]
    assert log.arrival_s.tolist() == [0] and log.info == {
        "trace": "log.jsonl", "requests_read": 1, "skipped": {}, "first_skipped": {}, "notes": []
    }  # fmt: skip


@pytest.mark.parametrize(
    "times",
    [
        [100, 101.5, 160],
        [1_700_000_000, 1_700_000_001.5, 1_700_000_060],
        [1_700_000_000_000, 1_700_000_001_500, 1_700_000_060_000],
        [1_700_000_000_000_000, 1_700_000_001_500_000, 1_700_000_060_000_000],
        [1_700_000_000_000_000_000, 1_700_000_001_500_000_000, 1_700_000_060_000_000_000],
        ["2026-03-01T10:00:00Z", "2026-03-01 11:00:01.5+01:00", "2026-03-01T10:01"],
        ["1714567890123", "1714567891623", "1714567950123"],  # ms as text: May 2024, not the year 1711
        ["1714567890", "1714567891.5", "1714567950"],
        ["1714567890000000", "1714567891500000", "1714567950000000"],
        ["1714567890000000000", "1714567891500000000", "1.71456795e18"],
        [1714567890123, "2024-05-01T12:51:31.623Z", "1714567950.123"],
        ["20240501T125130Z", "20240501T125131.500Z", "20240501T125230Z"],
        ["100", "101.5", "160"],
        [-3, -1.5, 57],
    ],
)
@pytest.mark.parametrize("name", ["timestamp", "startTime", "start_time"])
def test_times_of_every_unit_count_from_the_first(tmp_path, times, name):
    log = read(tmp_path, *({name: time, "messages": messages("Hi")} for time in times))
    assert log.arrival_s.tolist() == [0, 1.5, 60]


def test_an_engine_trace_keeps_its_stamps(tmp_path):
    record = {
        "request_id": "c0t0", "conversation_id": "c", "turn": 0, "timestamp": 0.123456789, "messages": messages("Hi"),
        "prompt_tokens": 3, "output_tokens": 2,
    }  # fmt: skip
    assert read(tmp_path, record).arrival_s.tolist() == [0.123456789]


def test_lines_are_sorted_by_time_and_lines_without_stay(tmp_path):
    log = read(tmp_path, *({"timestamp": t, "messages": messages(str(t))} for t in (7, 5, 6)))
    assert [r.name for r in log.requests] == ["r1", "r2", "r0"] and log.arrival_s.tolist() == [0, 1, 2]
    assert log.info["notes"] == ["2 stamps out of order: sorted"]
    log = read(tmp_path, {"messages": messages("b")}, {"messages": messages("a")})
    assert [r.messages[0].text for r in log.requests] == ["b", "a"] and log.arrival_s.tolist() == [0, 0]
    assert log.info["notes"] == ["no line has a time: all requests arrive at 0 s, in the lines' order"]


def test_what_is_more_than_text_is_skipped_and_counted(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}
    log = read(
        tmp_path,
        {"timestamp": 1, "messages": messages("Hi"), "tools": [{"type": "function"}]},
        {"timestamp": 2, "messages": [*messages("Hi"), call]},
        {"timestamp": 3, "messages": [image]},
        {"timestamp": 4, "messages": messages("a\ud800"), "cache_salt": "s", "model": "m", "id": "x"},
        {"timestamp": 5, "messages": [{"role": "user", "content": "b", "name": "n"}], "model": "n", "id": "x"},
    )
    assert [(r.name, r.messages[0].text) for r in log.requests] == [("x", "a\ufffd"), ("x#2", "b")]
    assert log.info["requests_read"] == 5
    assert log.info["skipped"] == {"with images": 1, "with tools": 2}
    assert log.info["notes"] == [
        "skipped: 1 with images (line 3 has a message 0 with parts that are no text)",
        "skipped: 2 with tools (line 1 has `tools`, which is not rendered)",
        "1 request with a name that another one has: renamed",
        "1 message with half characters (lone surrogates): replaced by U+FFFD",
        'not kept, of messages: "name" of 1',
        "1 request with a cache_salt: not kept, they share as if without",
        "2 models: their requests share as if they were one's",
    ]


TOOL_CALLS = [{"id": "x", "function": {"name": "t", "arguments": "{}"}}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}


@pytest.mark.parametrize(
    ("odd", "reason", "said"),
    [
        ("{]", "not JSON", "is not JSON (Expecting property name"),
        ('{"truncated": ', "not JSON", "is not JSON (Expecting value"),
        ("[" * 100_000, "not JSON", "is not JSON"),
        ("[]", "no JSON object", "is no JSON object"),
        ({"timestamp": 1}, "without messages", "lacks messages"),
        ({**HI, "messages": []}, "without messages", "has messages []; expected a list with one or more"),
        ({**HI, "messages": "Hi"}, "without messages", 'has messages "Hi"; expected a list'),
        ({**HI, "messages": ["Hi"]}, "with a message that is none", 'has a message 0 without a text `role`: "Hi"'),
        (
            {**HI, "messages": [*messages("Hi"), {"content": "x"}]}, "with a message that is none",
            "has a message 1 without a text `role`",
        ),
        (
            {**HI, "messages": [{"role": "user"}]}, "with a message that is none",
            "has a message 0 with content null; expected a text or a list",
        ),
        ({**HI, "messages": [{"role": "user", "content": 5}]}, "with a message that is none", "0 with content 5"),
        (
            {**HI, "timestamp": "noon"}, "with an odd time",
            'has timestamp "noon"; expected a number of seconds (or ms, us, ns) or an ISO 8601 time, from 1970 to 2100',
        ),
        ({**HI, "timestamp": True}, "with an odd time", "has timestamp true"),
        ({**HI, "timestamp": {}}, "with an odd time", "has timestamp {}"),
        ({**HI, "timestamp": float("nan")}, "with an odd time", "has timestamp NaN"),
        (json.dumps(HI).replace(": 1,", ": 1e400,"), "with an odd time", "has timestamp Infinity"),
        ({**HI, "timestamp": 1e30}, "with an odd time", "has timestamp 1e+30"),
        ({**HI, "timestamp": "0001-01-01T00:00:00Z"}, "with an odd time", 'has timestamp "0001-01-01T00'),
        ({**HI, "timestamp": "1711-05-01"}, "with an odd time", 'has timestamp "1711-05-01"'),
        ({**HI, "timestamp": 20240501120000}, "with an odd time", "has timestamp 20240501120000"),  # 2611, in ms
        ({**HI, "timestamp": "\uff11\uff17"}, "with an odd time", 'has timestamp "\\uff11'),
        ({**HI, "request_id": 1.5}, "with an odd name", "has a name 1.5; expected a text or a whole number"),
        ({**HI, "conversation_id": {}}, "with an odd name", "has conversation_id {}; expected a text or a whole"),
        ({**HI, "turn": -1}, "with an odd number", "has turn -1; expected a whole number, 0 or more"),
        ({**HI, "output_tokens": "3"}, "with an odd number", 'has output_tokens "3"; expected a whole number'),
        ({**HI, "output_tokens": 10**12}, "with an odd number", "has output_tokens 1000000000000"),
        ({**HI, "prompt_tokens": True}, "with an odd number", "has prompt_tokens true"),
        ({**HI, "messages": messages("ab " * 2**23)}, "too long", "has a message 0 of 25,165,824 characters"),
        ({"messages": messages("Hi")}, "without a time", "has no time (timestamp, time, created, created_at"),
        ({**HI, "tools": [{"type": "function"}]}, "with tools", "has `tools`, which is not rendered"),
        ({**HI, "functions": [{}]}, "with tools", "has `functions`"),
        ({**HI, "model_parameters": {"tools": [{}]}}, "with tools", "has `tools`"),
        ({**HI, "chat_template_kwargs": {"a": 1}}, "with chat template kwargs", "has `chat_template_kwargs`"),
        ({**HI, "documents": [{}]}, "with documents", "has `documents`"),
        ({**HI, "previous_response_id": "r"}, "with previous response id", "has `previous_response_id`"),
        ({**HI, "message_mode": "delta"}, "with message_mode delta", "holds only the messages that are new"),
        ({**HI, "cache_hit": True}, "that no engine answered", "has cache_hit true"),  # LiteLLM's own cache did
        ({**HI, "status": "failure"}, "that no engine answered", 'has status "failure"'),
        ({**HI, "add_generation_prompt": False}, "with add_generation_prompt", "asks for no generation prompt"),
        ({**HI, "system": [{"type": "text", "text": "s"}]}, "with system blocks", "has system [{"),
        (
            {**HI, "messages": [{"role": "assistant", "content": "Hi", "tool_calls": TOOL_CALLS}]}, "with tools",
            "has `tool_calls`",
        ),
        ({**HI, "messages": [{"role": "user", "content": "Hi", "function_call": {"n": 1}}]}, "with tools", "has `f"),
        ({**HI, "messages": [{"role": "user", "content": "Hi", "images": ["x"]}]}, "with images", "has `images`"),
        (
            {**HI, "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, IMAGE]}]}, "with images",
            "has a message 0 with parts that are no text",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compress", [None, gzip.compress, zstandard.compress])
def test_an_odd_line_is_skipped_and_counted(tmp_path, odd, reason, said, compress):
    path = write(tmp_path / "odd.jsonl", {**HI, "id": "a"}, "", {**HI, "id": "b"}, odd, {**HI, "id": "c"}, odd)
    if compress:
        path.write_bytes(compress(path.read_bytes()))
    log = read_log(path, progress=False)
    assert [request.name for request in log.requests] == ["a", "b", "c"]
    ((found, n),) = log.info["skipped"].items()
    assert (n, found) == (2, reason)
    assert log.info["requests_read"] == 5 and log.info["first_skipped"][found].startswith("line 4 ")
    assert said in log.info["first_skipped"][found]
    assert log.info["notes"][0] == f"skipped: 2 {found} ({log.info['first_skipped'][found]})"
    if reason != "without a time":
        with pytest.raises(InputError) as error:  # nothing else in the file
            read(tmp_path, odd)
        assert f"holds no requests of text (1 {found} skipped: line 1 " in str(error.value)


def test_half_characters_in_names_are_replaced(tmp_path, small_folder):
    half = {"conversation_id": "c\ud800", "id": "i\ud800", "model": "m\ud800"}
    trace = read_log_trace(write(tmp_path / "log", {**HI, **half}), small_folder, progress=False)
    write_trace(trace, tmp_path / "t.parquet")
    again = read_trace(tmp_path / "t.parquet").requests
    assert again[["request_id", "conversation_id"]].to_numpy().tolist() == [["i\ufffd", "c\ufffd"]]


def test_a_skipped_line_leaves_no_trace(tmp_path):
    log = read(tmp_path, {**HI, "id": "a", "turn": -1}, {**HI, "id": "a", "turn": 1})
    assert [request.name for request in log.requests] == ["a"] and len(log.info["notes"]) == 1


def test_a_log_of_which_half_has_no_time_is_refused(tmp_path):
    with pytest.raises(InputError, match="log.jsonl: line 1 has no time .* neither have 1 of the 2 requests; exp"):
        read(tmp_path, {"messages": messages("a")}, HI)


# ---- What a line means


def text_of(tmp_path, *records, **more):
    return [[m.text for m in r.messages] for r in read(tmp_path, *records, **more).requests]


def test_text_parts_are_joined_as_a_server_joins_them(tmp_path):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    record = {**HI, "messages": [{"role": "user", "content": parts}], "response": {"choices": [{"message": {
        "content": parts}}]}}  # fmt: skip
    log = read(tmp_path, record)
    assert log.requests[0].messages[0].text == log.requests[0].reply == "one\ntwo"


def test_an_assistant_s_null_is_empty_text(tmp_path):
    said = [*messages("a"), {"role": "assistant", "content": None}, *messages("b")]
    assert text_of(tmp_path, {**HI, "messages": said}) == [["a", "", "b"]]


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_a_system_text_beside_the_messages_is_the_first_message(tmp_path, name):
    inside = [{"role": "system", "content": "s"}, *messages("a")]
    log = read(
        tmp_path, {**HI, "messages": inside}, {"timestamp": 2, "body": {name: "s", "messages": messages("a")}},
        {**HI, name: "s", "messages": inside}, {**HI, name: " ", "messages": inside},
    )  # fmt: skip
    assert {request.messages for request in log.requests} == {(Message("system", "s"), Message("user", "a"))}
    assert log.info["notes"][0] == "1 request with a system text beside the messages: put before them"


REPLY = {"choices": [{"message": {"role": "assistant", "content": "at six"}}], "created": 5}


@pytest.mark.parametrize(
    ("response", "reply"),
    [
        (REPLY, "at six"),
        (json.dumps(REPLY), "at six"),
        (json.dumps({"status_code": 200, "body": REPLY}, indent=1), "at six"),
        ('{"choices": "none"}', '{"choices": "none"}'),  # the model answered in JSON
        ('{"choices": [', '{"choices": ['),
        ("at six", "at six"),
        ({"choices": [{"message": {"content": "x", "tool_calls": TOOL_CALLS}}]}, None),
        (json.dumps({"choices": [{"message": {"content": None, "tool_calls": TOOL_CALLS}}]}), None),
        (json.dumps({"choices": []}), None),
    ],
)
def test_a_reply_that_is_a_completion_as_text_is_decoded(tmp_path, response, reply):
    assert read(tmp_path, {**HI, "response": response}).requests[0].reply == reply
    if response == json.dumps(REPLY):
        assert read(tmp_path, {"messages": messages("a"), "response": response}).requests[0].time_s == 5


def test_what_is_not_kept_is_said(tmp_path):
    said = [{**messages("a")[0], "name": "n"}, {"role": "assistant", "content": "b", "reasoning_content": "r"}]
    log = read(
        tmp_path,
        {"startTime": 5.5, "endTime": 9, "completionStartTime": "", "messages": said, "temperature": 0,
         "instructions": "Be brief"},
        {"startTime": 6, "endTime": 7.5, "updated_at": "2026", "messages": said},
    )  # fmt: skip
    assert log.arrival_s.tolist() == [0, 0.5] and log.info["notes"] == [
        'not kept, of messages: "name" of 2, "reasoning_content" of 2',
        'not kept, of requests: "instructions" of 1, "temperature" of 1',
        'times that are not used: "endTime" of 2, "updated_at" of 1',
    ]
    log = read(tmp_path, *({"ts": k, "messages": messages("a")} for k in range(3)))
    assert log.info["notes"] == [
        'times that are not used: "ts" of 3', "no line has a time: all requests arrive at 0 s, in the lines' order"
    ]  # fmt: skip
    many = [{**HI, "messages": [{"role": "user", "content": "a", f"f{k}\x1b": 1}]} for k in range(60)]
    (note,) = read(tmp_path, *many).info["notes"]
    assert note.count(" of 1") == 40 and '"other fields" of 20' in note and note.isprintable()


def test_files_that_cannot_be_read_are_named(tmp_path):
    lines = b"".join(json.dumps({**HI, "messages": messages(f"{k}" * k)}).encode() + b"\n" for k in range(400))
    (tmp_path / "cut").write_bytes(gzip.compress(lines)[:-9])
    (tmp_path / "empty").write_bytes(b"\n")
    write(tmp_path / "tools", {**HI, "tools": [1]})
    for name, said in {
        "missing": "No such file", "cut": "is cut or damaged after line [0-9]+", ".": "Is a directory",
        "empty": "holds no requests of text; a line is",
        "tools": r"holds no requests of text \(1 with tools skipped: line 1 has `tools`",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=f"{tmp_path / name}: {said}"):
            read_log(tmp_path / name, progress=False)


# ---- Which request continues which


def logged(texts, reply=None, asker=None, turn=None, name="r"):
    """Return a request whose messages alternate between user and assistant: letters stand for texts."""
    roles = ("user", "assistant")
    said = tuple(Message(roles[k % 2], text) for k, text in enumerate(texts))
    return Logged(name, 0.0, said, reply, asker, turn, None, None, None, None)


def test_a_chat_its_branch_and_a_stranger():
    # 0 asks a, is told b. 1 asks a too, is told x. 2 continues 0 (b, then c), 3 continues 1. 4 asks d of 0's answer: a
    # branch. 5 continues 2, whose reply the log does not know. 6 says that 0 answered y: it continues none.
    log = [
        logged("a", "b"), logged("a", "x"), logged("abc"), logged("axc"), logged("abd"), logged("abcde"), logged("ayc"),
    ]  # fmt: skip
    threads = thread_requests(log)
    assert threads.previous.tolist() == [-1, -1, 0, 1, 0, 2, -1]
    assert threads.conversation.tolist() == [0, 1, 0, 1, 0, 0, 2]
    assert threads.turn.tolist() == [0, 0, 1, 1, 1, 2, 0]
    chains = make_chains(log, threads.previous)
    assert [(chain.path, chain.ends) for chain in chains] == [
        ([1, 3], [1, 3]), ([0, 4], [1, 3]), ([0, 2, 5], [1, 3, 5]), ([6], [3])
    ]  # fmt: skip


def test_who_asked_must_be_the_same():
    log = [logged("a", asker=("user", "u")), logged("a", asker=("user", "v")), logged("abc", asker=("user", "v"))]
    assert thread_requests(log).previous.tolist() == [-1, -1, 1]
    asked = [logged("a", asker=("conversation_id", "k"), name="r0"), logged("xyz", asker=("conversation_id", "k"))]
    threads = thread_requests(asked)  # the log says that they belong together, though the texts do not go on
    assert threads.previous.tolist() == [-1, -1] and threads.conversation.tolist() == [0, 0]
    assert threads.turn.tolist() == [0, 1] and threads.names == ["k"]
    assert thread_requests([logged("a", turn=4, name="n")]).turn.tolist() == [4]
    assert thread_requests([logged("a", name="n")]).names == ["n"]


def search_previous(log):
    """Find which request continues which by comparing every two requests."""
    previous = []
    for i, request in enumerate(log):
        best = None
        for k in range(i):
            before = log[k]
            n = len(before.messages)
            if before.asker != request.asker or n >= len(request.messages) or request.messages[:n] != before.messages:
                continue
            following = request.messages[n]
            answered = following.role == "assistant" and following.text == before.reply
            if answered or before.reply is None:
                best = max(best or (0,), (n, answered, k not in previous, k))
        previous.append(best[3] if best else -1)
    return previous


TEXTS, REPLIES, ASKERS = st.text("ab", min_size=1, max_size=5), [None, "a", "b"], [None, "u"]


@given(st.lists(st.tuples(TEXTS, st.sampled_from(REPLIES), st.sampled_from(ASKERS)), max_size=12))
def test_conversations_are_those_of_a_search(drawn):
    log = [logged(texts, reply, asker and ("user", asker)) for texts, reply, asker in drawn]
    threads = thread_requests(log)
    assert threads.previous.tolist() == search_previous(log)
    paths = [chain.path for chain in make_chains(log, threads.previous)]
    assert sorted({i for path in paths for i in path}) == list(range(len(log)))
    for path in paths:
        assert [threads.previous[i] for i in path] == [-1, *path[:-1]]


# ---- Tokens


def make_log(conversations):
    """Return a log with a request a user message, the last ones of each with their reply, all conversations in turn."""
    requests = []
    for conversation in conversations:
        for end in conversation.request_ends():
            said = conversation.messages[:end]
            after = conversation.messages[end:]
            reply = after[0].text if len(after) == 1 and after[0].role == "assistant" else None
            requests.append(Logged(f"r{len(requests)}", 0.0, said, reply, None, None, None, None, None, None))
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].messages), i))  # turns of all are mixed
    requests = [requests[i] for i in order]
    return RequestLog(requests, np.arange(len(requests), dtype=float), {"notes": []})


TEMPLATES = {
    "qwen": samples.QWEN_TEMPLATE, "inst": samples.INST_TEMPLATE, "reasoning": samples.REASONING_TEMPLATE,
    "trim": samples.TRIM_TEMPLATE,
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_prompt_equals_apply_chat_template(tmp_path, name, bundled_conversations):
    folder = samples.save_small_tokenizer(tmp_path / "tokenizer", TEMPLATES[name])
    log = make_log([*samples.AWKWARD, *bundled_conversations[:20]])
    trace = tokenise_log(log, find_tokenizer(folder), progress=False)
    reference = AutoTokenizer.from_pretrained(folder)
    said = [samples.as_dicts(request.messages) for request in log.requests]
    expected = reference.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    assert [trace.prompt(i).tolist() for i in range(len(trace))] == expected
    assert trace.requests["prompt_tokens"].tolist() == [len(ids) for ids in expected]
    assert trace.requests["messages"].tolist() == [len(request.messages) for request in log.requests]
    assert (np.diff(trace.tokens.own_offsets) < trace.tokens.prompt_lengths()).any()  # turns share what is before them


def test_a_branch_shares_what_is_before_it(tmp_path, small_folder):
    log = RequestLog(
        [logged("a", "b"), logged("abc", "d"), logged("abe"), logged("z")], np.array([0.0, 1, 2, 2]), {"notes": []}
    )
    trace = tokenise_log(log, find_tokenizer(small_folder), progress=False)
    row = trace.rows
    assert trace.tokens.parent[row].tolist() == [-1, row[0], row[0], -1]
    assert trace.tokens.shared[row].tolist()[:1] == [0] and (trace.tokens.shared[row][1:3] > 0).all()
    assert trace.requests["turn"].tolist() == [0, 1, 1, 0]
    assert trace.requests["conversation_index"].tolist() == [0, 0, 0, 1]
    chat_ids = AutoTokenizer.from_pretrained(small_folder)
    end = chat_ids.eos_token_id
    assert [trace.generated(i).tolist() for i in range(4)] == [
        [*chat_ids.encode("b"), end], [*chat_ids.encode("d"), end], [], []
    ]  # fmt: skip
    assert trace.info["log"]["notes"] == [
        "2 conversations: 2 requests of 4 continue an earlier one",
        "2 requests without a reply in the log: no generated tokens are kept for them (0 have their number)",
    ]
    write_trace(trace, tmp_path / "t.parquet")
    again = read_trace(tmp_path / "t.parquet")
    assert [again.prompt(i).tolist() for i in range(4)] == [trace.prompt(i).tolist() for i in range(4)]
    assert share(again, 4).hit_blocks.tolist() == share(trace, 4).hit_blocks.tolist()


def test_what_the_template_refuses_is_left_out_alone(tmp_path):
    folder = samples.save_small_tokenizer(tmp_path / "tokenizer", samples.ALTERNATING_TEMPLATE)
    good, bad = messages("a", "b", "c"), [*messages("a", "b", "c"), *messages("d")]
    path = write(
        tmp_path / "log", {"timestamp": 0, "messages": messages("a")}, {"timestamp": 1, "messages": good},
        {"timestamp": 2, "messages": bad, "id": "bad"}, {"timestamp": 3, "messages": messages("z")},
    )  # fmt: skip
    trace = read_log_trace(path, folder, progress=False)
    assert trace.requests["request_id"].tolist() == ["r0", "r1", "r3"]
    reference = AutoTokenizer.from_pretrained(folder)
    expected = [
        reference.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        for said in (messages("a"), good, messages("z"))
    ]
    assert [trace.prompt(i).tolist() for i in range(3)] == expected
    assert trace.info["log"]["refused_by_template"] == 1
    assert "1 request refused by the chat template: roles must alternate user/assistant" in trace.info["log"]["notes"]
    path = write(tmp_path / "all", {"messages": [*messages("a"), *messages("b")]})
    with pytest.raises(InputError, match="its chat template refuses every request: roles must alternate"):
        read_log_trace(path, folder, progress=False)


def test_a_late_refusal_costs_the_turns_from_there_on(tmp_path):
    # User messages at 0, 2, 4, 6, and 7, which follows another user's: 7 and 9, which holds it, are refused. The branch
    # of the second turn is another conversation's last request; the stranger is none of theirs.
    folder = samples.save_small_tokenizer(tmp_path / "tokenizer", samples.ALTERNATING_TEMPLATE)
    said = [*messages("a", "b", "c", "d", "e", "f", "g"), *messages("twice", "x", "h")]
    prompts = [said[:end] for end in (1, 3, 5, 7, 8, 10)]
    prompts[3:3] = [[*said[:2], *messages("branch")], messages("stranger")]
    path = write(tmp_path / "log", *({"timestamp": k, "messages": one, "id": k} for k, one in enumerate(prompts)))
    trace = read_log_trace(path, folder, progress=False)
    assert trace.requests["request_id"].tolist() == ["0", "1", "2", "3", "4", "5"]
    reference = AutoTokenizer.from_pretrained(folder)
    expected = reference.apply_chat_template(prompts[:6], add_generation_prompt=True, return_dict=False)
    assert [trace.prompt(i).tolist() for i in range(6)] == expected
    assert trace.info["log"]["refused_by_template"] == 2
    assert "2 requests refused by the chat template: roles must alternate user/assistant" in trace.info["log"]["notes"]


def test_another_tokenizer_s_numbers_are_noticed(tmp_path, small_folder):
    path = write(tmp_path / "log", {**HI, "prompt_tokens": 2, "output_tokens": 7})
    trace = read_log_trace(path, small_folder, progress=False)
    assert trace.requests["output_tokens"].tolist() == [7] and len(trace.generated(0)) == 0
    notes = trace.info["log"]["notes"]
    assert "(1 have their number)" in notes[1] and notes[2].startswith("1 request with another prompt_tokens in the")


def test_answers_that_are_not_text_alone_are_counted(tmp_path):
    call = {"choices": [{"message": {"content": "Hm", "tool_calls": [{"id": "c"}]}}]}
    answers = [{"response": {"error": "busy"}}, {"response": 5}, {"response": call}, {"response": "fine"}, {}]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({**HI, "request_id": f"q{k}", **one}) + "\n" for k, one in enumerate(answers)))
    log = read_log(path)
    assert [request.reply for request in log.requests] == [None, None, None, "fine", None]
    assert "answers that are not text alone: 3, taken as none" in log.info["notes"]
