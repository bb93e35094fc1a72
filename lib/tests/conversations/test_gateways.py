"""Logs of gateways and tracers: the shared samples, and small ones with a trap each."""

import gzip
import json

import pytest
from places import LIB, SHARED

from kvprefix.conversations.calls import Usage
from kvprefix.conversations.forms.langfuse import read_details
from kvprefix.conversations.traffic import TrafficCounts, read_traffic

SAMPLES, FIXTURES = SHARED / "samples", LIB / "tests" / "fixtures"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples beside the project")
USER = {"role": "user", "content": "q"}
REPLY = {"role": "assistant", "content": "a"}


def read(source):
    counts = TrafficCounts()
    return list(read_traffic(source, counts=counts)), counts


def call_of(record):
    (call,), counts = read([record])
    assert not counts.skipped
    return call


@needs_samples
@pytest.mark.parametrize(
    "name, session, reasons",
    [
        (
            "litellm",
            "trace",
            {
                "cache_hit": "cache_hit (never reached the engine)",
                "failure": "failure",
                "no_chat_call": "no chat call",
                "redacted": "redacted",
            },
        ),
        (
            "langfuse",
            "session",
            {
                "no_generation": "no GENERATION",
                "input_is_plain_text": "input is plain text",
                "level_error": "level ERROR",
            },
        ),
    ],
)
def test_the_samples_are_read_as_their_notes_say(name, session, reasons):
    right = json.loads((SAMPLES / f"{name}.expected.json").read_text())
    calls, counts = read(SAMPLES / name)
    calls.sort(key=lambda call: call.start_s)  # rows are written at the end of a call
    start = calls[0].start_s
    assert [(call.name, call.session, call.start_s - start, *call.usage) for call in calls] == [
        (one["id"], one[session], one["arrival_s"], one["prompt_tokens"], one["cached_tokens"], one["output_tokens"])
        for one in right["requests_in_order"]
    ]
    assert {reasons[reason]: n for reason, n in counts.skipped.items()} == right["skipped"]
    assert {call.model for call in calls} == {"qwen-demo"}
    assert calls[1].body["tools"][0]["function"]["name"] == "weather"
    assert calls[0].reply[0]["tool_calls"][0]["id"] == "c1"


PAYLOAD = {"call_type": "acompletion", "startTime": 5.0, "trace_id": "t", "messages": [USER]}


@pytest.mark.parametrize(
    "more, reason",
    [
        ({"cache_hit": "True"}, "cache_hit"),
        ({"status": "failure"}, "failure"),
        ({"call_type": "aembedding"}, "no_chat_call"),
        ({"messages": "redacted-by-litellm"}, "redacted"),
        ({"messages": [{"role": "user", "content": "redacted-by-litellm"}]}, "redacted"),
        ({"messages": None}, "no_messages"),
        ({"messages": {}}, "no_messages"),
        ({"startTime": "noon"}, "with_odd_time"),
        ({"trace_id": []}, None),
        ({"trace_id": {"a": 1}}, "with_odd_name"),
    ],
)
def test_payloads_that_are_no_calls_are_skipped_by_reason(more, reason):
    _, counts = read([PAYLOAD, {**PAYLOAD, **more}])
    assert counts.skipped == ({reason: 1} if reason else {})


def test_payloads_of_the_other_endpoints():
    settings = {"system": "s", "max_tokens": 5, "extra_body": {"chat_template_kwargs": {"a": 1}}}
    call = call_of({**PAYLOAD, "call_type": "anthropic_messages", "model_parameters": settings})
    assert (call.api, call.body["system"], call.body["chat_template_kwargs"]) == ("messages", "s", {"a": 1})
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    given = {**PAYLOAD, "call_type": "anthropic_messages", "model_parameters": {"tools": tools, "user": "u"}}
    (call,), counts = read([given])  # as LiteLLM 1.108 logs it: tools in OpenAI's form, and no system prompt
    assert (call.body["tools"], call.user) == ([{"name": "f", "input_schema": {"type": "object"}}], "u")
    assert counts.noted == {"system_prompt_not_logged": 1}
    call = call_of({**PAYLOAD, "call_type": "aresponses", "messages": "hello", "response": {"output": [REPLY]}})
    assert (call.api, call.body["input"], call.reply) == ("responses", "hello", (REPLY,))


def test_only_a_streamed_call_has_a_first_token(tmp_path):
    times = {"completionStartTime": 6.0, "endTime": 6.0}
    assert call_of({**PAYLOAD, **times, "stream": False})[8:10] == (None, 6.0)
    assert call_of({**PAYLOAD, **times, "stream": True})[8:10] == (6.0, 6.0)
    assert call_of({**PAYLOAD, **times, "completionStartTime": 5.5}).first_token_s == 5.5


def test_payloads_whose_fields_are_text_are_read_as_well():
    answer = {"choices": [{"message": REPLY}], "usage": {"prompt_tokens": 3}}
    call = call_of({
        **PAYLOAD, "messages": json.dumps([USER]), "response": json.dumps(answer),
        "startTime": "2026-01-01 10:00:00+02:00", "prompt_tokens": 7,
    })  # fmt: skip
    assert (call.body["messages"], call.reply, call.usage.prompt) == ([USER], (REPLY,), 3)
    assert call.start_s == 1767254400  # 08:00 UTC


def test_payloads_that_litellm_wrote():
    calls, counts = read(FIXTURES / "litellm_payloads.jsonl")
    chat, first, responses, second, streamed = calls
    assert counts.skipped == {"failure": 1} and counts.noted["system_prompt_not_logged"] == 2
    assert [call.api for call in calls] == ["chat", "messages", "responses", "messages", "chat"]
    assert [call.usage for call in calls] == [Usage(5, 2, 1)] * 4 + [Usage()]  # a stream without counts
    assert chat.body["tools"][0]["function"]["name"] == first.body["tools"][0]["name"] == "f"
    assert (chat.session, chat.user, chat.reply[0]["tool_calls"][0]["id"]) == ("sess", "bob", "t1")
    assert [part["type"] for part in second.body["messages"][2]["content"]] == ["tool_result", "text"]
    assert second.reply[0]["content"] == [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}]
    assert (responses.body["instructions"], responses.reply[0]["content"][0]["text"]) == ("be", "hi")
    assert [call.first_token_s is None for call in calls] == [True, True, True, True, False]
    assert streamed.start_s < streamed.first_token_s < streamed.end_s


def test_every_body_sent_through_litellms_proxy_is_read_as_it_was_sent():
    with gzip.open(FIXTURES / "litellm_proxy.sent.jsonl.gz", "rt", encoding="utf-8") as lines:
        sent = [json.loads(line) for line in lines]
    urls = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
    calls, counts = read(FIXTURES / "litellm_proxy.jsonl.gz")
    assert counts.skipped == {"failure": 1} and not counts.noted
    right = [one for one in sent if "please fail" not in str(one["body"])]
    ignored = {"metadata", "stream_options", "litellm_session_id"}  # the session is `trace_id`
    assert [(urls[call.api], without(call.body, ignored)) for call in calls] == [
        (one["path"], without(one["body"], ignored)) for one in right
    ]
    assert [call.session[:8] for call in calls[:4]] == ["s-plain"] * 3 + ["s-stream"]
    assert [call.usage for call in calls] == [Usage(40, 16, 7)] * 9
    assert [call.first_token_s is not None for call in calls] == [one["body"].get("stream", False) for one in right]
    answers = [call.reply[0] for call in calls]
    assert ["tool_calls" in one for one in answers] == [k in (0, 3) for k in range(9)]
    assert answers[5]["content"][0]["name"] == "weather" and answers[6]["content"][0]["input"] == {"city": "Köln"}
    assert [one["type"] for one in answers[7:]] == ["message", "function_call"]
    # as the payload alone has it: of Anthropic's endpoint without a system prompt, and none with template settings
    with gzip.open(FIXTURES / "litellm_proxy.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [without(json.loads(line), {"proxy_server_request"}) for line in lines]
    alone, counts = read(rows)
    assert counts.noted == {"system_prompt_not_logged": 2}
    pairs = [(one.body, other.body) for one, other in zip(calls, alone, strict=True)]
    changed = {name for one, other in pairs for name in one if one[name] != other.get(name)}
    assert changed - {"model", "stream"} == {"system", "chat_template_kwargs", "input"}  # a text `input` is a message


def without(body, names):
    return {name: value for name, value in body.items() if name not in names}


OBSERVATION = {"id": "o", "type": "GENERATION", "traceId": "t", "startTime": "2026-01-01T10:00:00.5Z", "input": [USER]}


def test_observations_of_the_api_have_names_in_camel_case():
    call = call_of({
        **OBSERVATION, "completionStartTime": "2026-01-01T10:00:01Z", "endTime": "2026-01-01T10:00:02Z",
        "input": {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f"}}]}, "output": "a",
        "modelParameters": {"temperature": 0}, "userId": "u", "usageDetails": {"input": 3, "output": 1},
    })  # fmt: skip
    assert (call.session, call.user, call.usage, call.reply) == ("t", "u", Usage(3, 0, 1), (REPLY,))
    assert (call.first_token_s - call.start_s, call.end_s - call.start_s) == (0.5, 1.5)
    assert set(call.body) == {"messages", "tools", "temperature"}


@pytest.mark.parametrize("tools", [{"f": '{"parameters": {}}'}, [{"name": "f", "parameters": {}}]])
def test_tools_beside_an_input_and_langchains_messages_are_read(tools):
    call = call_of({**OBSERVATION, "input": [{"type": "human", "content": "q"}], "tool_definitions": tools})
    assert call.body["messages"] == [USER]
    assert call.body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {}}}]


@pytest.mark.parametrize(
    "details, usage",
    [
        ({"input": 34, "input_cached_tokens": 176, "output": 6, "total": 216}, Usage(210, 176, 6)),  # beside
        ({"input": 210, "input_cached_tokens": 176, "output": 6, "total": 216}, Usage(210, 176, 6)),  # inside
        ({"input": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output": 1, "total": 18},
         Usage(17, 5, 1)),
        ({"input": 10, "output": 2, "output_reasoning_tokens": 3, "total": 15}, Usage(10, 0, 5)),
        ({"promptTokens": 3, "completionTokens": 2, "totalTokens": 5}, Usage(3, 0, 2)),
        ({"input": 210, "input_cached_tokens": 176, "output": 6}, None),  # no total: it cannot be known
        ({"input": 3, "input_cached_tokens": 2, "output": 1, "total": 99}, None),
        ({}, Usage()),
        (None, Usage()),
    ],
)  # fmt: skip
def test_the_total_tells_where_cached_tokens_are_counted(details, usage):
    assert read_details(details) == usage


@pytest.mark.parametrize(
    "more, reason",
    [
        ({"type": "SPAN"}, "no_generation"),
        ({"level": "ERROR"}, "level_error"),
        ({"input": "text"}, "input_is_plain_text"),
        ({"input": '{"prompt": "text"}'}, "no_messages"),
        ({"input": None}, "no_messages"),
        ({"input": [{"role": "user", "content": [{"type": "image_url"}]}]}, "with_images"),
    ],
)
def test_observations_that_are_no_calls_are_skipped_by_reason(more, reason):
    _, counts = read([OBSERVATION, {**OBSERVATION, **more}])
    assert counts.skipped == {reason: 1}
