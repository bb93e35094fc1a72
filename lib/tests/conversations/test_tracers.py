"""LangSmith's runs, OpenTelemetry's spans and ATIF's trajectories: small samples written by their documentation."""

import json

import pytest
from places import LIB

from kvprefix.conversations.calls import Usage
from kvprefix.conversations.traffic import TrafficCounts, read_traffic

USER, REPLY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "r", "tool_call_id": "c"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def read(source):
    counts = TrafficCounts()
    return list(read_traffic(source, counts=counts)), counts


def call_of(record):
    (call,), counts = read([record])
    assert not counts.skipped
    return call


def langchain(kind, **fields):
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kind], "kwargs": fields}


RUN = {
    "id": "r", "run_type": "llm", "trace_id": "t", "session_id": "project", "start_time": "2026-01-01T10:00:00.250000",
    "first_token_time": "2026-01-01T10:00:01+00:00", "end_time": "2026-01-01T10:00:02", "error": None,
    "inputs": {"messages": [USER, ASKED, RESULT]}, "outputs": {"choices": [{"message": REPLY}]},
    "extra": {"invocation_params": {"model": "m", "tools": [TOOL]}, "metadata": {"thread_id": "s"}},
    "prompt_tokens": 9, "completion_tokens": 2,
}  # fmt: skip


def test_a_run_with_openais_messages():
    call = call_of(RUN)
    assert (call.name, call.session, call.model, call.usage) == ("r", "s", "m", Usage(9, None, 2))
    assert call.body == {"messages": [USER, ASKED, RESULT], "tools": [TOOL]}
    assert call.reply == (REPLY,)
    assert (call.first_token_s - call.start_s, call.end_s - call.start_s) == (0.75, 1.75)


def test_a_run_with_langchains_messages():
    asked = langchain("AIMessage", content="", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "c"}],
                      usage_metadata={"input_tokens": 7, "output_tokens": 1,
                                      "input_token_details": {"cache_read": 5}})  # fmt: skip
    messages = [langchain("SystemMessage", content="s"), langchain("HumanMessage", content="q"), asked,
                langchain("ToolMessage", content="r", tool_call_id="c")]  # fmt: skip
    call = call_of({**RUN, "extra": {}, "inputs": {"messages": [messages]},
                    "outputs": {"generations": [[{"text": "", "message": asked}]]}})  # fmt: skip
    assert call.body["messages"] == [{"role": "system", "content": "s"}, USER, {**ASKED, "content": ""}, RESULT]
    assert call.reply == ({**ASKED, "content": ""},)
    assert (call.session, call.usage) == ("t", Usage(7, 5, 1))


@pytest.mark.parametrize(
    "more, reason",
    [
        ({"run_type": "chain"}, "no_llm_run"),
        ({"error": "timeout"}, "failure"),
        ({"inputs": {"prompts": ["text"]}}, "input_is_plain_text"),
        ({"inputs": {}}, "no_messages"),
        ({"inputs": {"messages": [[]]}}, "no_messages"),
        ({"inputs": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}}, "with_images"),
        ({"start_time": "noon"}, "with_odd_time"),
    ],
)
def test_runs_that_are_no_calls_are_skipped_by_reason(more, reason):
    assert read([RUN, {**RUN, **more}])[1].skipped == {reason: 1}


SEMANTIC = {
    "gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.conversation.id": "s",
    "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 2, "gen_ai.usage.cache_read.input_tokens": 4,
    "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "s"}]),
    "gen_ai.tool.definitions": json.dumps([{"type": "function", **TOOL["function"]}]),
    "gen_ai.input.messages": json.dumps([
        {"role": "user", "parts": [{"type": "text", "content": "q"}]},
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"},
                                        {"type": "tool_call", "id": "c", "name": "f", "arguments": {"x": 1}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "r"}]},
    ]),
    "gen_ai.output.messages": json.dumps([
        {"role": "assistant", "parts": [{"type": "text", "content": "a"}], "finish_reason": "stop"}]),
}  # fmt: skip
LLMETRY = {
    "llm.request.type": "chat", "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "s",
    "gen_ai.prompt.1.role": "user", "gen_ai.prompt.1.content": "q", "gen_ai.prompt.2.role": "assistant",
    "gen_ai.prompt.2.tool_calls.0.id": "c", "gen_ai.prompt.2.tool_calls.0.name": "f",
    "gen_ai.prompt.2.tool_calls.0.arguments": '{"x": 1}', "gen_ai.prompt.3.role": "tool",
    "gen_ai.prompt.3.content": "r", "gen_ai.prompt.3.tool_call_id": "c",
    "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "a",
    "llm.request.functions.0.name": "f", "llm.request.functions.0.parameters": '{"type": "object"}',
    "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 2, "gen_ai.usage.cache_read_input_tokens": 4,
    "gen_ai.request.model": "m", "session.id": "s",
}  # fmt: skip
INFERENCE = {
    "openinference.span.kind": "LLM", "llm.model_name": "m", "session.id": "s",
    **{f"llm.input_messages.{k}.message.{name}": value for k, one in enumerate([
        {"role": "system", "content": "s"}, {"role": "user", "contents.0.message_content.type": "text",
                                             "contents.0.message_content.text": "q"},
        {"role": "assistant", "tool_calls.0.tool_call.id": "c", "tool_calls.0.tool_call.function.name": "f",
         "tool_calls.0.tool_call.function.arguments": '{"x": 1}'},
        {"role": "tool", "content": "r", "tool_call_id": "c"}]) for name, value in one.items()},
    "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "a",
    "llm.tools.0.tool.json_schema": json.dumps(TOOL), "llm.token_count.prompt": 9, "llm.token_count.completion": 2,
    "llm.token_count.prompt_details.cache_read": 4,
}  # fmt: skip
EVENTS = [
    {"name": "gen_ai.system.message", "attributes": {"content": "s"}},
    {"name": "gen_ai.user.message", "attributes": {"content": "q"}},
    {"name": "gen_ai.assistant.message", "attributes": {"tool_calls": json.dumps([CALL])}},
    {"name": "gen_ai.tool.message", "attributes": {"content": "r", "id": "c"}},
    {"name": "gen_ai.choice", "attributes": {"message": json.dumps(REPLY), "index": 0}},
]
OF_EVENTS = {name: SEMANTIC[name] for name in SEMANTIC if "messages" not in name and "instructions" not in name}
DETAILS = [{"name": "gen_ai.client.inference.operation.details", "attributes": SEMANTIC}]


def otlp(attributes):
    def value(one):
        if isinstance(one, str):
            return {"stringValue": one}
        return {"intValue": str(one)}

    return [{"key": name, "value": value(one)} for name, one in attributes.items()]


@pytest.mark.parametrize("as_otlp", [False, True])
@pytest.mark.parametrize(
    "attributes, events",
    [(SEMANTIC, []), (LLMETRY, []), (INFERENCE, []), (OF_EVENTS, EVENTS), ({"gen_ai.operation.name": "chat"}, DETAILS)],
)
def test_spans_of_every_way_give_the_same_call(attributes, events, as_otlp):
    start = 1767261600_250000000
    if as_otlp:
        events = [{**one, "attributes": otlp(one["attributes"])} for one in events]
        span = {"traceId": "t", "spanId": "p", "startTimeUnixNano": str(start), "endTimeUnixNano": str(start + 10**9),
                "attributes": otlp(attributes), "events": events, "status": {}}  # fmt: skip
        span = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": [span]}]}]}
    else:
        span = {"name": "chat m", "context": {"trace_id": "t", "span_id": "p"}, "start_time": "2026-01-01T10:00:00.25Z",
                "end_time": "2026-01-01T10:00:01.25Z", "attributes": attributes, "events": events}  # fmt: skip
    call = call_of(span)
    messages = [{"role": "system", "content": "s"}, USER, ASKED, RESULT]
    found = [{k: v for k, v in one.items() if k != "reasoning_content"} for one in call.body["messages"]]
    assert [{**one, "content": one["content"] or None} for one in found] == messages
    assert call.reply == (REPLY,) and call.body["tools"] == [TOOL]
    assert (call.start_s, call.end_s - call.start_s) == (1767261600.25, 1)
    assert (call.name, call.session, call.model, call.usage) == ("p", "s", "m", Usage(9, 4, 2))


def test_spans_that_two_instrumentations_wrote_are_equal_calls():
    calls, counts = read(LIB / "tests" / "fixtures" / "otel_spans.jsonl")
    first, second = calls
    assert not counts.skipped and first.body == second.body
    assert [one["role"] for one in first.body["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert first.body["messages"][2]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert first.body["messages"][4]["content"] == [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    assert first.reply == second.reply == ({"role": "assistant", "content": "ok"},)
    assert first.usage == second.usage == Usage(5, 2, 1)


def test_reasoning_of_spans_is_kept():
    call = call_of({"traceId": "t", "attributes": SEMANTIC})
    assert call.body["messages"][2]["reasoning_content"] == "hm"


def text_of(*messages):
    return {"traceId": "t", "attributes": {"gen_ai.operation.name": "chat",
                                           "gen_ai.input.messages": json.dumps(messages)}}  # fmt: skip


@pytest.mark.parametrize(
    "span, reason",
    [
        ({"traceId": "t", "attributes": {"http.method": "GET"}}, "no_llm_span"),
        ({"traceId": "t", "attributes": {**SEMANTIC, "gen_ai.operation.name": "execute_tool"}}, "no_llm_span"),
        ({"traceId": "t", "attributes": {**INFERENCE, "openinference.span.kind": "CHAIN"}}, "no_llm_span"),
        ({"traceId": "t", "attributes": {"gen_ai.operation.name": "chat"}}, "without_content"),
        ({"traceId": "t", "attributes": SEMANTIC, "status": {"code": 2}}, "failure"),
        (text_of(), "no_messages"),
        (text_of({"role": "user", "parts": [{"type": "blob", "modality": "image"}]}), "with_images"),
        (text_of({"role": "user", "parts": [{"type": "hm"}]}), "with_other_content"),
        (text_of({"parts": [{"type": "text", "content": "x"}]}), "malformed_message"),
        ({"traceId": "t", "attributes": SEMANTIC, "startTimeUnixNano": "noon"}, "with_odd_time"),
    ],
)
def test_spans_that_are_no_calls_are_skipped_by_reason(span, reason):
    calls, counts = read([{"traceId": "t", "attributes": SEMANTIC}, span])
    assert (len(calls), counts.skipped) == (1, {reason: 1})


def step(source, message, **more):
    return {"source": source, "message": message, **more}


TRAJECTORY = {
    "schema_version": "ATIF-v1.7", "session_id": "s", "agent": {"name": "a", "version": "1", "model_name": "m"},
    "steps": [
        step("system", "s"),
        step("user", "q", timestamp="2026-01-01T10:00:00Z"),
        step("agent", "", reasoning_content="hm", timestamp="2026-01-01T10:00:05Z",
             tool_calls=[{"tool_call_id": "c", "function_name": "f", "arguments": {"x": 1}}],
             observation={"results": [{"source_call_id": "c", "content": "r"}]},
             metrics={"prompt_tokens": 9, "cached_tokens": 4, "completion_tokens": 2}),
        step("agent", "a", timestamp="2026-01-01T10:00:07Z"),
    ],
}  # fmt: skip


def test_a_trajectory_is_a_call_per_step_of_the_agent():
    calls, counts = read([TRAJECTORY])
    first, second = calls
    asked = {**ASKED, "content": "", "reasoning_content": "hm"}
    assert first.body == {"model": "m", "messages": [{"role": "system", "content": "s"}, USER]}
    assert (first.reply, first.usage, first.name, first.session) == ((asked,), Usage(9, 4, 2), "s/2", "s")
    assert second.body["messages"][2:] == [asked, RESULT] and second.reply == (REPLY,)
    assert second.start_s - first.start_s == 2
    assert counts.noted == {"tools_not_in_the_file": 1}


def test_steps_that_are_history_only_make_no_call_and_sub_agents_are_sessions():
    steps = [step("user", "q"), step("agent", "old", is_copied_context=True),
             step("agent", "made up", llm_call_count=0, observation={"results": [{"content": "seen"}]}),
             step("agent", "a")]  # fmt: skip
    inner = {"trajectory_id": "x", "agent": {}, "steps": [step("user", "task"), step("agent", "done")]}
    tools = {"tool_definitions": [{"name": "f", "parameters": {"type": "object"}}]}
    calls, _ = read([{**TRAJECTORY, "agent": tools, "steps": steps, "subagent_trajectories": [inner]}])
    assert [(call.session, call.parent, len(call.body["messages"])) for call in calls] == [
        ("s", None, 4), ("s/x", "s", 1)
    ]  # fmt: skip
    assert calls[0].body["messages"][3] == {"role": "user", "content": "seen"}
    assert calls[0].body["tools"] == [TOOL]


@pytest.mark.parametrize(
    "steps, reason",
    [
        ([step("robot", "x")], "malformed_step"),
        ([7], "malformed_step"),
        ([step("user", [{"type": "image", "source": {}}])], "with_images"),
        ([step("agent", "", tool_calls=[{}])], "malformed_tool_call"),
        ([step("user", "q"), step("agent", "a", timestamp="noon")], "with_odd_time"),
    ],
)
def test_trajectories_that_cannot_be_read_are_skipped_whole(steps, reason):
    calls, counts = read([TRAJECTORY, {**TRAJECTORY, "steps": [*TRAJECTORY["steps"], *steps]}])
    assert (len(calls), counts.skipped) == (2, {reason: 1})
