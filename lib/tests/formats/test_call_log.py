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
from kvprefix.conversations.calls import Call, Usage
from kvprefix.files.paths import InputError
from kvprefix.formats.call_log import order_by_time, read_call_log
from kvprefix.formats.call_threads import find_previous, list_messages, make_chains
from kvprefix.traces.parquet import read_trace, write_trace


def write(path, *records):
    path.write_bytes(b"".join((one if isinstance(one, str) else json.dumps(one)).encode() + b"\n" for one in records))
    return path


def read(tmp_path, *records):
    return read_call_log(write(tmp_path / "log.jsonl", *records), progress=False)


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
            "messages": messages("Hi"),
        },
    ],
)  # fmt: skip
def test_every_form_gives_the_same_request(tmp_path, record):
    log = read(tmp_path, record)
    (call,) = log.calls
    assert (call.name, call.start_s, call.user, call.api) == ("a", 5.0, "u", "chat")
    assert call.body["messages"] == messages("Hi") and call.reply == ({"role": "assistant", "content": "Yes"},)
    assert log.info["notes"] == [] and log.info["trace"] == "log.jsonl"


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
    assert order_by_time(log.calls)[1].tolist() == [0, 1.5, 60]


def test_lines_are_sorted_by_time_and_lines_without_stay(tmp_path):
    log = read(tmp_path, *({"timestamp": t, "messages": messages(str(t))} for t in (7, 5, 6)))
    assert [call.name for call in log.calls] == ["r1", "r2", "r0"]
    assert log.info["notes"][1:] == ["2 stamps out of order: sorted"]
    log = read(tmp_path, {"messages": messages("b")}, {"messages": messages("a")})
    assert [call.body["messages"] for call in log.calls] == [messages("b"), messages("a")]
    assert log.info["notes"][1:] == ["no request has a time: all arrive at 0 s, in the order of the source"]
    log = read(tmp_path, {**HI, "id": "x"}, {"messages": messages("a"), "id": "x"})
    assert [call.name for call in log.calls] == ["x", "x#2"]
    assert log.info["notes"][-1] == "1 request without a time: all arrive at 0 s, in the order of the source"


TOOL_CALLS = [{"id": "x", "function": {"name": "t", "arguments": "{}"}}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}


@pytest.mark.parametrize(
    ("odd", "reason", "said"),
    [
        ("{]", "not json", "not valid JSON"),
        ('{"truncated": ', "not json", "not valid JSON"),
        ("[" * 100_000, "not json", "not valid JSON"),
        ("[]", "no object", "expected an object"),
        ({"timestamp": 1}, "of another form", "has no messages; expected a request"),
        ({**HI, "messages": []}, "no messages", "the list of messages is empty"),
        ({**HI, "messages": "Hi"}, "no messages", 'has messages "Hi"; expected a list'),
        ({**HI, "messages": ["Hi"]}, "malformed message", 'message 0 has no text `role`: "Hi"'),
        ({**HI, "messages": [*messages("Hi"), {"content": "x"}]}, "malformed message", "message 1 has no text `role`"),
        ({**HI, "messages": [{"role": "user", "content": 5}]}, "malformed message", "message 0 has content 5"),
        ({**HI, "timestamp": True}, "with odd time", "timestamp is true"),
        ({**HI, "timestamp": float("nan")}, "with odd time", "timestamp is NaN"),
        (json.dumps(HI).replace(": 1,", ": 1e400,"), "with odd time", "timestamp is Infinity"),
        ({**HI, "timestamp": 20240501120000}, "with odd time", "timestamp is 20240501120000"),  # 2611, in ms
        ({**HI, "conversation_id": {"a": 1}}, "with odd name", 'conversation_id is {"a": 1}; expected a text'),
        ({**HI, "turn": -1}, "with odd number", "has turn -1; expected a whole number, 0 or more"),
        ({**HI, "messages": messages("ab " * 2**23)}, "too long", "message 0 has 25,165,824 characters"),
        ({**HI, "message_mode": "delta"}, "with message mode delta", "holds only the messages that are new"),
        ({**HI, "cache_hit": True}, "cache hit", "never reached an engine"),
        ({**HI, "status": "failure"}, "failure", 'has status "failure"'),
        ({**HI, "messages": [{"role": "user", "content": [IMAGE]}]}, "with images", "message 0 has content that is no"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compress", [None, gzip.compress, zstandard.compress])
def test_an_odd_line_is_skipped_and_counted(tmp_path, odd, reason, said, compress):
    good = [{**HI, "request_id": name} for name in "abc"]
    path = write(tmp_path / "odd.jsonl", good[0], "", good[1], odd, good[2], odd)
    if compress:
        path.write_bytes(compress(path.read_bytes()))
    log = read_call_log(path, progress=False)
    assert [call.name for call in log.calls] == ["a", "b", "c"]
    (note,) = (one for one in log.info["notes"] if one.startswith("skipped"))
    assert note.startswith(f"skipped: 2 {reason} (line 4: ") and said in note
    assert log.info["counts"]["records_read"] == 5


def test_files_that_cannot_be_read_are_named_and_cut_ones_are_read_up_to_there(tmp_path):
    lines = b"".join(json.dumps({**HI, "messages": messages(f"{k}" * k)}).encode() + b"\n" for k in range(400))
    (tmp_path / "cut").write_bytes(gzip.compress(lines)[:-2000])
    log = read_call_log(tmp_path / "cut", progress=False)
    assert 5 < len(log) < 400 and any(note.startswith("the file is cut at byte ") for note in log.info["notes"])
    (tmp_path / "empty").write_bytes(b"\n")
    write(tmp_path / "images", {**HI, "messages": [{"role": "user", "content": [IMAGE]}]})
    (tmp_path / "folder").mkdir()
    for name, said in {
        "missing": "no such file", "folder": "no file of a known form", "empty": "is empty",
        "images": r"holds no request: 1 with_images \(line 1: message 0",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=f"{tmp_path / name}: {said}"):
            read_call_log(tmp_path / name, progress=False)


# ---- Which request continues which


def logged(texts, reply=None, session=None, name="r", **more):
    """Return a call whose messages alternate between user and assistant: letters stand for texts."""
    answer = () if reply is None else ({"role": "assistant", "content": reply},)
    return Call("chat", {"messages": messages(*texts)}, answer, "line 1", name, session, **more)


def paths(calls):
    return [chain.path for chain in make_chains(calls)]


def test_a_chat_its_branch_and_a_stranger():
    # 0 asks a, is told b. 1 asks a too, is told x. 2 continues 0 (b, then c), 3 continues 1. 4 asks d of 0's answer: a
    # branch. 5 continues 2, whose reply the log does not know. 6 says that 0 answered y: it continues none.
    log = [
        logged("a", "b"), logged("a", "x"), logged("abc"), logged("axc"), logged("abd"), logged("abcde"), logged("ayc"),
    ]  # fmt: skip
    assert find_previous(log) == [-1, -1, 0, 1, 0, 2, -1]
    assert paths(log) == [[0, 4], [0, 2, 5], [1, 3], [6]]


def test_who_asked_must_be_the_same():
    assert find_previous([logged("a", user="u"), logged("a", user="v"), logged("abc", user="v")]) == [-1, -1, 1]
    assert find_previous([logged("a", session="k"), logged("abc"), logged("abc", session="k")]) == [-1, -1, 0]
    assert [chain.name for chain in make_chains([logged("a", session="k"), logged("xyz", name="n")])] == ["k", "n"]


def test_a_call_continues_one_of_another_shape_that_says_the_same():
    use = {"role": "assistant", "content": None, "tool_calls": TOOL_CALLS, "refusal": None}
    result = {"role": "tool", "content": "r", "tool_call_id": "x"}
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    first = Call("chat", {"messages": messages("a")}, (use,), name="0")
    later = Call("chat", {"messages": [parts, {"role": "assistant", "tool_calls": TOOL_CALLS}, result]}, name="1")
    other = Call("chat", {"messages": [parts, {"role": "assistant", "tool_calls": []}, result]}, name="2")
    assert find_previous([first, later, other]) == [-1, 0, -1]
    items = [{"type": "reasoning", "content": []}, {"type": "message", "role": "assistant", "id": "m", "content": "b"}]
    calls = [Call("responses", {"input": "a", "instructions": "s"}, tuple(items), name="0"),
             Call("responses", {"input": [*messages("a"), *items, *messages("c")], "instructions": "s"}, name="1"),
             Call("responses", {"input": [*messages("a"), *items, *messages("c")]}, name="2")]  # fmt: skip
    assert find_previous(calls) == [-1, 0, -1]


def search_previous(log):
    """Find which request continues which by comparing every two requests."""
    previous = []
    for i, call in enumerate(log):
        best, said = None, list_messages(call)
        for k in range(i):
            before = log[k]
            n = len(list_messages(before))
            if before.user != call.user or n >= len(said) or said[:n] != list_messages(before):
                continue
            answered = said[n : n + 1] == list(before.reply)
            if answered or not before.reply:
                best = max(best or (0,), (n, answered, k not in previous, k))
        previous.append(best[3] if best else -1)
    return previous


TEXTS, REPLIES, ASKERS = st.text("ab", min_size=1, max_size=5), [None, "a", "b"], [None, "u"]


@given(st.lists(st.tuples(TEXTS, st.sampled_from(REPLIES), st.sampled_from(ASKERS)), max_size=12))
def test_conversations_are_those_of_a_search(drawn):
    log = [logged(texts, reply, user=user) for texts, reply, user in drawn]
    previous = find_previous(log)
    assert previous == search_previous(log)
    assert sorted({i for path in paths(log) for i in path}) == list(range(len(log)))
    for path in paths(log):
        assert [previous[i] for i in path] == [-1, *path[:-1]]


# ---- Tokens


def make_log(conversations):
    """Return the messages of a request per user message, the turns of all conversations mixed."""
    said = [samples.as_dicts(one.messages[:end]) for one in conversations for end in one.request_ends()]
    return sorted(said, key=len)


TEMPLATES = {
    "qwen": samples.QWEN_TEMPLATE, "inst": samples.INST_TEMPLATE, "reasoning": samples.REASONING_TEMPLATE,
    "trim": samples.TRIM_TEMPLATE,
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_prompt_equals_apply_chat_template(tmp_path, name, bundled_conversations):
    folder = samples.save_small_tokenizer(tmp_path / "tokenizer", TEMPLATES[name])
    said = make_log([*samples.AWKWARD, *bundled_conversations[:20]])
    path = write(tmp_path / "log", *({"timestamp": k, "messages": one} for k, one in enumerate(said)))
    trace = read_log_trace(path, folder)
    reference = AutoTokenizer.from_pretrained(folder)
    expected = reference.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    assert [trace.prompt(i).tolist() for i in range(len(trace))] == expected
    assert trace.requests["prompt_tokens"].tolist() == [len(ids) for ids in expected]
    assert trace.requests["messages"].tolist() == [len(one) for one in said]
    assert (np.diff(trace.tokens.own_offsets) < trace.tokens.prompt_lengths()).any()  # turns share what is before them


def test_a_branch_shares_what_is_before_it(tmp_path, small_folder):
    rows = [("a", "b"), ("abc", "d"), ("abe", None), ("z", None)]
    path = write(tmp_path / "log", *(
        {"timestamp": k, "messages": messages(*said), **({"response": reply} if reply else {})}
        for k, (said, reply) in enumerate(rows)
    ))  # fmt: skip
    trace = read_log_trace(path, small_folder)
    assert (trace.tokens.parent[:3] >= 0).sum() == 2 and trace.tokens.parent[3] == -1
    assert trace.requests["turn"].tolist() == [0, 1, 2, 0]
    assert trace.requests["conversation_index"].tolist() == [0, 0, 0, 1]
    chat_ids = AutoTokenizer.from_pretrained(small_folder)
    end = chat_ids.eos_token_id
    assert [trace.generated(i).tolist() for i in range(4)] == [
        [*chat_ids.encode("b"), end], [*chat_ids.encode("d"), end], [], []
    ]  # fmt: skip
    write_trace(trace, tmp_path / "t.parquet")
    again = read_trace(tmp_path / "t.parquet")
    assert [again.prompt(i).tolist() for i in range(4)] == [trace.prompt(i).tolist() for i in range(4)]
    assert share(again, 4).hit_blocks.tolist() == share(trace, 4).hit_blocks.tolist()


def test_half_characters_are_refused_in_texts_and_replaced_in_names(tmp_path, small_folder):
    half = {"conversation_id": "c\ud800", "id": "i\ud800", "model": "m\ud800"}
    bad = {**HI, "messages": messages("a\ud800")}
    trace = read_log_trace(write(tmp_path / "log", {**HI, **half}, bad), small_folder)
    write_trace(trace, tmp_path / "t.parquet")
    again = read_trace(tmp_path / "t.parquet").requests
    assert again[["request_id", "conversation_id"]].to_numpy().tolist() == [["i\ufffd", "c\ufffd"]]
    assert any("1 request refused by the server, half characters" in note for note in trace.info["log"]["notes"])


def test_what_the_template_refuses_is_left_out_alone(tmp_path):
    # The branch, and the stranger, are other conversations' requests.
    folder = samples.save_small_tokenizer(tmp_path / "tokenizer", samples.ALTERNATING_TEMPLATE)
    said = [*messages("a", "b", "c", "d", "e", "f", "g"), *messages("twice", "x", "h")]
    prompts = [said[:end] for end in (1, 3, 5, 7, 8, 10)]
    prompts[3:3] = [[*said[:2], *messages("branch")], messages("stranger")]
    path = write(tmp_path / "log", *({"timestamp": k, "messages": one, "id": k} for k, one in enumerate(prompts)))
    trace = read_log_trace(path, folder)
    assert trace.requests["request_id"].tolist() == ["0", "1", "2", "3", "4", "5"]
    reference = AutoTokenizer.from_pretrained(folder)
    expected = reference.apply_chat_template(prompts[:6], add_generation_prompt=True, return_dict=False)
    assert [trace.prompt(i).tolist() for i in range(6)] == expected
    refused = "2 requests refused by the chat template: roles must alternate user/assistant (first: line 7)"
    assert refused in trace.info["log"]["notes"]
    path = write(tmp_path / "all", {"messages": [*messages("a"), *messages("b")]})
    with pytest.raises(InputError, match="no request that can be rendered: 1 the chat template .*roles must alternate"):
        read_log_trace(path, folder)


def test_another_tokenizer_s_numbers_are_noticed(tmp_path, small_folder):
    path = write(tmp_path / "log", {**HI, "request_id": "a", "prompt_tokens": 2, "output_tokens": 7})
    trace = read_log_trace(path, small_folder)
    assert trace.requests["output_tokens"].tolist() == [7] and len(trace.generated(0)) == 0
    without, note = trace.info["log"]["notes"][:2]
    assert without.endswith("no generated tokens are kept for them (1 have their number)")
    assert note.startswith("1 request with another number of prompt tokens in the log (2 in all) than here")


def test_what_the_trace_does_not_keep_of_a_request_is_said(tmp_path, small_folder):
    rows = [{**HI, "request_id": "a", "cache_salt": "s", "model": "m"}, {**HI, "request_id": "b", "model": "n"}]
    notes = read_log_trace(write(tmp_path / "log", *rows), small_folder).info["log"]["notes"]
    assert notes[:2] == [
        "1 request with a cache_salt: not kept, they share as if without",
        "2 models: their requests share as if they were one's",
    ]


# ---- Our own engine traces


def test_an_engine_trace_keeps_its_stamps_and_its_replies_are_in_the_next_requests(tmp_path, small_folder):
    rows = [
        {"request_id": f"c{c}t{t}", "conversation_id": f"c{c}", "turn": t, "timestamp": 0.123456789 + t,
         "messages": messages(*said), "prompt_tokens": 3, "output_tokens": 2}
        for t, said in enumerate(["a", "abc"]) for c in range(2)
    ]  # fmt: skip
    trace = read_log_trace(write(tmp_path / "log", *rows), small_folder, of_run=True)
    assert trace.arrival_s.tolist() == [0.123456789] * 2 + [1.123456789] * 2
    ids = AutoTokenizer.from_pretrained(small_folder)
    assert [trace.generated(i).tolist() for i in range(4)] == [[*ids.encode("b"), ids.eos_token_id]] * 2 + [[]] * 2
    assert trace.requests["output_tokens"].tolist() == [2] * 4
    assert trace.requests["conversation_id"].tolist() == ["c0", "c1", "c0", "c1"]


# ---- Exports of what is more than text


def test_a_batch_file_of_every_endpoint_is_read_back_to_equal_requests(tmp_path):
    from kvprefix.formats.convert import convert

    tools = [{"type": "function", "function": {"name": "t"}}]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "r"}]}
    rows = [
        {"url": "/v1/chat/completions", "body": {"model": "m", "messages": messages("a"), "tools": tools, "top_p": 1}},
        {"url": "/v1/messages", "body": {"model": "m", "system": "s", "messages": [result], "max_tokens": 9}},
        {"url": "/v1/responses", "body": {"model": "m", "instructions": "s", "input": "a", "max_output_tokens": 5}},
    ]  # fmt: skip
    source = write(tmp_path / "log", *({"custom_id": str(k), **row} for k, row in enumerate(rows)))
    done = convert(source, tmp_path / "b.jsonl", "openai-batch", progress=False)
    assert "1 request of Anthropic's endpoint, which OpenAI's API does not have" in done.notes
    first, again = (read_call_log(path, progress=False).calls for path in (source, tmp_path / "b.jsonl"))
    assert [(one.name, one.api, one.body) for one in first] == [(one.name, one.api, one.body) for one in again]
    assert Usage() == first[0].usage
