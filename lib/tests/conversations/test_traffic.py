import gzip
import json

import pytest
from samples import record, write_records

from kvprefix.conversations.calls import Call, Dialog, Usage
from kvprefix.conversations.load import Conversation, LoadCounts, iterate_conversations, locate_data
from kvprefix.conversations.traffic import TrafficCounts, read_traffic
from kvprefix.files.paths import InputError

USER = {"role": "user", "content": "question"}
REPLY = {"role": "assistant", "content": "answer"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def read(source, **options):
    counts = TrafficCounts()
    return list(read_traffic(source, counts=counts, **options)), counts


def call_of(record):
    (call,), counts = read([record])
    assert isinstance(call, Call) and not counts.skipped
    return call


def dialog_of(record):
    (dialog,), counts = read([record])
    assert isinstance(dialog, Dialog) and (counts.dialogs, not counts.skipped) == (1, True)
    return dialog


def test_text_is_read_as_iterate_conversations_reads_it():
    texts, counts = list(iterate_conversations(locate_data("bundled"), counts=(c := LoadCounts()))), c
    items, found = read("bundled")
    assert items == texts and found.forms == {"chats": 1}
    assert {name: found.as_dict()[name] for name in counts.as_dict()} == counts.as_dict()


@pytest.mark.parametrize(
    "more, is_call",
    [
        ({"request_id": "a"}, True),
        ({"custom_id": "a"}, True),
        ({"response": "answer"}, True),
        ({"choices": [{"message": REPLY}]}, True),
        ({"url": "/v1/chat/completions"}, True),
        ({"url": "https://example.org/page"}, False),
        ({"id": "a", "model": "m", "created_at": 5}, False),
        ({"max_tokens": 5}, False),
        ({"source": "web"}, False),
        ({}, False),
    ],
)
def test_a_request_of_a_log_has_an_answer_an_endpoint_or_a_name_though_it_ends_with_a_reply(more, is_call):
    (item,), counts = read([{"messages": [USER, REPLY], **more}])
    assert isinstance(item, Call if is_call else Conversation) and not counts.noted


LONG = [USER, REPLY, USER]


@pytest.mark.parametrize("more", [{}, {"created_at": 5}, {"max_tokens": 5}, {"source": "web"}, {"tools": []}])
def test_records_without_a_mark_of_which_none_ends_with_a_reply_are_a_prompt_each(more):
    items, counts = read([{"messages": messages, **more} for messages in ([USER], LONG, LONG)])
    assert [len(one.body["messages"]) for one in items] == [1, 3, 3] and counts.forms == {"openai": 1}
    assert counts.first_noted == {
        "read_as_requests": "record 0: none of the first 3 records ends with a reply, so each is one prompt"
    }


def test_records_without_a_mark_of_which_one_ends_with_a_reply_are_conversations():
    records = [{"messages": LONG}] * 19 + [{"messages": [*LONG, REPLY]}]
    items, counts = read(records)
    assert counts.forms == {"chats": 1} and all(isinstance(one, Conversation) for one in items)
    assert counts.first_noted == {
        "read_as_conversations": (
            "record 0: 1 of the first 20 records end with a reply, so each user message is a prompt"
        )
    }
    assert read([records[0], *records])[1].forms == {"openai": 1}  # the first 20 decide
    assert not read(records[-1:] * 3)[1].noted  # a data set as all are: nothing to say
    dialect = {"messages": [{"from": "human", "value": "question"}]}
    assert read([dialect])[1].forms == {"chats": 1}


@pytest.mark.parametrize("more", [{"created_at": 5}, {"timestamp": "2026-01-01"}, {"temperature": 1}, {"id": "a"}])
def test_messages_that_end_with_a_reply_are_a_conversation(more):
    (item,), _ = read([{"messages": [USER, REPLY], **more}])
    assert isinstance(item, Conversation)


def test_records_with_a_time_are_conversations_if_some_end_with_a_reply():
    records = [{"messages": [USER], "created": 5}, {"messages": [USER, REPLY], "created": 6}]
    items, counts = read(records)
    assert counts.forms == {"chats": 1} and all(isinstance(one, Conversation) for one in items)
    items, counts = read([records[0], {**records[0], "created": 7}, *records] * 9)
    assert counts.forms == {"chats": 1} and len(items) == 36
    assert read([records[0]] * 40)[1].forms == {"openai": 1}
    assert read([{**records[0], "request_id": "a"}, records[1]])[1].forms == {"openai": 1}


BODY = {"model": "m", "messages": [USER]}


@pytest.mark.parametrize(
    "given",
    [
        {"body": BODY},
        {"request": BODY},
        {"request": {"url": "/v1/chat/completions", "body": BODY}},
        {"body": json.dumps(BODY)},
        {"custom_id": "a", "params": BODY},
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY},
        {**BODY, "timestamp": 5, "response": "x", "request_id": "a"},
        {"custom_id": "a", **BODY, "messages": json.dumps([USER])},
    ],
)
def test_a_body_is_found_where_it_lies(given):
    call = call_of(given)
    assert (call.api, call.body, call.model) == ("chat", BODY, "m")


def test_a_system_prompt_and_tools_as_text_beside_the_messages_are_the_body_s():
    tools = [{"type": "function", "function": {"name": "f"}}]
    system = {"role": "system", "content": "s"}
    for messages in ([USER], [system, USER]):
        (call,), _ = read([{"messages": messages, "system_prompt": "s", "tools": json.dumps(tools)}])
        assert call.body == {"messages": [system, USER], "tools": tools}
    _, counts = read([{"messages": [USER], "system_prompt": [1]}])
    assert counts.skipped == {"with_system_blocks": 1}


TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]


@pytest.mark.parametrize(
    "body, api",
    [
        (BODY, "chat"),
        ({**BODY, "system": "be brief"}, "messages"),
        ({**BODY, "system": [{"type": "text", "text": "a"}]}, "messages"),
        ({**BODY, "tools": TOOLS}, "messages"),
        ({**BODY, "tools": [{"type": "function", "function": {"name": "f"}}]}, "chat"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "a"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, "chat"),
        ({"input": "hello"}, "responses"),
        ({"input": [USER], "instructions": "be brief"}, "responses"),
    ],
)
def test_the_content_says_which_endpoint_a_body_was_sent_to(body, api):
    assert call_of({"body": body}).api == api


@pytest.mark.parametrize(
    "url, api", [("/v1/chat/completions", "chat"), ("/v1/messages?beta=true", "messages"), ("chat", "chat")]
)
def test_the_url_settles_the_endpoint(url, api):
    assert call_of({"url": url, "body": {**BODY, "system": "hm"}}).api == api


@pytest.mark.parametrize(
    "answer, reply",
    [
        ({"response": "text"}, {"role": "assistant", "content": "text"}),
        ({"completion": "text"}, {"role": "assistant", "content": "text"}),
        ({"choices": [{"message": REPLY}]}, REPLY),
        ({"response": {"body": {"choices": [{"message": REPLY}]}}}, REPLY),
        ({"response": json.dumps({"choices": [{"message": REPLY}]})}, REPLY),
        (
            {"response": {"choices": [{"message": {"content": None, "tool_calls": [CALL], "audio": None}}]}},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
        ),
        (
            {"response": {"choices": [{"message": {**REPLY, "reasoning_content": "hm"}}]}},
            {**REPLY, "reasoning_content": "hm"},
        ),
        ({"completion": '{"a": 1}'}, None),  # of no known shape: counted
    ],
)
def test_answers_are_found_and_kept_as_the_next_body_repeats_them(answer, reply):
    (call,), counts = read([{"body": BODY, **answer}])
    assert call.reply == (() if reply is None else (reply,))
    assert counts.noted == ({"answers_not_read": 1} if reply is None else {})


def test_answers_of_the_other_endpoints():
    content = [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]
    usage = {"input_tokens": 3, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 2, "output_tokens": 4}
    call = call_of({"url": "/v1/messages", "body": BODY, "response": {"type": "message", "content": content,
                                                                      "usage": usage}})  # fmt: skip
    assert call.reply == ({"role": "assistant", "content": content},)
    assert call.usage == Usage(13, 8, 4)  # 3 + 8 + 2
    item = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}
    usage = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 1}
    call = call_of({"body": {"input": "a"}, "response": {"object": "response", "output": [item], "usage": usage}})
    assert (call.api, call.reply, call.usage) == ("responses", (item,), Usage(9, 4, 1))


def chunk(delta, **more):
    return {"object": "chat.completion.chunk", "created": 5, "choices": [{"index": 0, "delta": delta}], **more}


def part(index=0, **function):
    return {"tool_calls": [{"index": index, "function": function}]}


STREAMS = {
    "chat": (
        [chunk({"role": "assistant", "content": ""}), chunk({"reasoning_content": "h"}),
         chunk({"reasoning_content": "m"}), chunk({"content": "an"}), chunk({"content": "swer"}),
         {**chunk({}), "choices": [], "usage": {"prompt_tokens": 3}}],
        {**REPLY, "reasoning_content": "hm"},
        Usage(3),
    ),
    "tools": (
        [chunk({"role": "assistant", "content": None}),
         chunk({"tool_calls": [{**CALL, "index": 0, "function": {"name": "f", "arguments": ""}}]}),
         chunk(part(arguments='{"a"')), chunk(part(arguments=": 1}"))],
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        Usage(),
    ),
    "messages": (
        [{"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": {
            "input_tokens": 3, "output_tokens": 1}}},
         {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
         {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
         {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f",
                                                                       "input": {}}},
         {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a": '}},
         {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
         {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}],
        {"role": "assistant", "content": [{"type": "text", "text": "a"},
                                          {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]},
        Usage(3, None, 9),
    ),
    "responses": (
        [{"type": "response.created", "response": {"output": []}},
         {"type": "response.output_item.done", "item": {"type": "message", "role": "assistant", "content": "a"}},
         {"type": "response.completed", "response": {
             "output": [{"type": "message", "role": "assistant", "content": "a"}], "usage": {"input_tokens": 3}}}],
        {"type": "message", "role": "assistant", "content": "a"},
        Usage(3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: {"status_code": 200, "body": one}])
def test_a_streamed_answer_is_put_together(name, wrap):
    events, reply, usage = STREAMS[name]
    text = "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    body = {"input": "q"} if name == "responses" else BODY
    url = "/v1/chat/completions" if name in ("chat", "tools") else f"/v1/{name}"
    for answer in (text, events):
        call = call_of({"url": url, "body": body, "response": wrap(answer)})
        assert (call.reply, call.usage) == ((reply,), usage)
    if name == "responses":  # it broke off: what it had said
        assert call_of({"url": url, "body": body, "response": events[:2]}).reply == (reply,)


def test_names_sessions_times_and_users():
    call = call_of({
        "request_id": 7, "session_id": "s", "user": "u", "startTime": 1764064800.25, "endTime": 1764064804250,
        "completionStartTime": "2025-11-25T10:00:01.250Z", "turn": 2, "body": BODY,
    })  # fmt: skip
    assert (call.name, call.session, call.user, call.turn) == ("7", "s", "u", 2)
    assert (call.start_s, call.first_token_s, call.end_s) == (1764064800.25, 1764064801.25, 1764064804.25)
    call = call_of({"time": 10, "latency_ms": 2500, "body": {**BODY, "metadata": {"user_id": "x_session_0a1b2c3d"}}})
    assert (call.start_s, call.end_s, call.session) == (10, 12.5, "0a1b2c3d")
    (call,), counts = read([{"startTime": 10, "endTime": 9, "body": BODY}])  # the clock went backwards
    assert call.end_s is None and counts.noted == {"times_before_the_start": 1}


def test_names_that_are_repeated_in_other_files_are_noted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"request_id": "r", "body": BODY}))
    items, counts = read(tmp_path)
    assert [one.name for one in items] == ["r", "r"] and counts.noted == {"repeated_names": 1}
    assert counts.first_noted["repeated_names"] == "b.jsonl, line 1: an earlier call is named r"


@pytest.mark.parametrize(
    "bad, reason",
    [
        ({"timestamp": "1711-05-01", "body": BODY}, "with_odd_time"),
        ({"timestamp": "noon", "body": BODY}, "with_odd_time"),
        ({"request_id": [], "custom_id": {"a": 1}, "body": BODY}, "with_odd_name"),
        ({"body": {"messages": []}}, "no_messages"),
        ({"body": {"messages": "redacted"}}, "no_messages"),
        ({"body": {"messages": [3]}}, "malformed_message"),
        ({"body": {"messages": [{"content": "a"}]}}, "malformed_message"),
        ({"body": {"messages": [{"role": "user", "content": 7}]}}, "malformed_message"),
        ({"body": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}}, "with_images"),
        ({"body": {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}}, "with_other_media"),
        (
            {"body": {"messages": [{"role": "user", "content": [
                {"type": "tool_result", "content": [{"type": "image", "source": {}}]}]}]}},
            "with_images",
        ),
        ({"url": "/v1/embeddings", "body": {"input": "a"}}, "no_chat_call"),
        ({"body": {"input": "a", "model": "text-embedding-3"}}, "no_chat_call"),
        ({"body": BODY, "status": "failure"}, "failure"),
        ({"body": BODY, "cache_hit": True}, "cache_hit"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "of_another_form"),
        ({"body": {**BODY, "message_mode": "delta"}}, "with_message_mode_delta"),
        (7, "no_object"),
        (None, "not_json"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_skipped_by_reason(bad, reason):
    good = {"timestamp": 5, "body": BODY}
    items, counts = read([good, bad, good])
    assert (len(items), counts.skipped) == (2, {reason: 1})
    assert counts.first_skipped[reason].startswith("record 1: ")
    assert counts.records_read == 3


def test_requests_of_several_endpoints_may_be_in_one_file(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{json.dumps({"body": BODY})}\n\n{json.dumps({"body": {"input": "a"}})}\n{{"body": \n')
    items, counts = read(path)
    assert [(one.api, one.place) for one in items] == [("chat", "line 1"), ("responses", "line 3")]
    assert counts.skipped == {"not_json": 1} and counts.first_skipped["not_json"].startswith("line 4: ")


def test_settings_beside_a_body_belong_to_it_and_other_fields_are_counted():
    given = {"messages": [USER], "model_parameters": {"tools": [1]}, "colour": 1, "timestamp": 5}
    assert call_of(given).body == {"messages": [USER], "tools": [1], "colour": 1}
    assert read([given])[1].as_dict()["not_kept"]["record_fields"] == {"colour": 1}
    _, counts = read([{"body": BODY, "colour": 1, "timestamp": 5}])
    assert counts.as_dict()["not_kept"]["record_fields"] == {"colour": 1}


def sharegpt(*turns, **more):
    return {"conversations": [{"from": speaker, "value": text} for speaker, text in turns], **more}


def test_every_speaker_of_text_has_a_role():
    speakers = ["system", "human", "gpt", "user", "assistant", "chatgpt", "bing", "bard", "model", "ai"]
    (one,), _ = read([sharegpt(*[(speaker, "x") for speaker in speakers])])
    assert [m.role for m in one.messages] == ["system", "user", "assistant", "user", *["assistant"] * 6]


def test_tools_of_sharegpt_become_those_of_a_chat_body():
    tool = {"name": "f", "description": "d", "parameters": {}}
    dialog = dialog_of(sharegpt(
        ("human", "q"), ("function_call", '{"name": "f", "arguments": {"a": "é"}}'), ("observation", "r"), ("gpt", "a"),
        tools=json.dumps([tool]), system="s", id="x",
    ))  # fmt: skip
    assert dialog.id == "x"
    assert dialog.settings == {"tools": [{"type": "function", "function": tool}]}
    assert dialog.messages == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"a": "é"}'}}]},
        {"role": "tool", "content": "r", "tool_call_id": "call_0"},
        {"role": "assistant", "content": "a"},
    ]  # fmt: skip


@pytest.mark.parametrize("tools", ["null", "None", "[]", "", None, [], {}])
def test_no_tools_may_be_written_in_many_ways(tools):
    (one,), counts = read([sharegpt(("human", "q"), ("gpt", "a"), tools=tools)])
    assert not counts.skipped and (isinstance(one, Conversation) or one.settings == {})


def test_tools_of_openai_stay_as_they_are():
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "r", "tool_call_id": "c1"},
        {**REPLY, "reasoning_content": "hm"},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert dialog_of({"messages": messages, "tools": tools})[1:3] == (messages, {"tools": tools})


def test_arguments_that_are_objects_are_written_as_text_and_invalid_ones_stay():
    given = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g", "arguments": '{"a":'}}]
    (dialog,), counts = read([{"messages": [USER, {"role": "assistant", "tool_calls": given, "content": ""}]}])
    assert [call["function"]["arguments"] for call in dialog.messages[1]["tool_calls"]] == ['{"a": 1}', '{"a":']
    assert counts.repaired["arguments_written_as_text"] == 1
    assert counts.repaired["tool_calls_given_an_id"] == 2


@pytest.mark.parametrize(
    "field", [{"reasoning": "hm"}, {"reasoning_content": "hm"}, {"thinking": "hm"}, {"name": "Ann"}]
)
def test_what_a_template_may_show_is_kept(field):
    dialog = dialog_of({"messages": [USER, {**REPLY, **field}]})
    assert set(dialog.messages[1].values()) == {"assistant", "answer", *field.values()}


def test_a_time_per_message_is_kept():
    turns = [
        {**USER, "timestamp": None},
        {**REPLY, "timestamp": "2023-04-10 00:01:08"},
        {"role": "user", "content": " "},
        {**USER, "timestamp": 1681085000},
    ]
    (one,), _ = read([{"conversation": turns, "system": "s"}])
    assert isinstance(one, Conversation)
    assert one.times_s == (None, None, 1681084868.0, 1681085000)  # of system, user, assistant, user
    (one,), counts = read([{"conversation": turns}, {"conversation": [{**USER, "timestamp": "1711-01-01"}]}])
    assert counts.skipped == {"with_odd_time": 1}


def test_a_conversation_in_anthropics_shape_is_a_call_per_reply():
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "r"}]}
    ended = {"messages": [USER, REPLY]}  # so that the other one is no request
    items, counts = read([{"id": "x", "system": "s", "messages": [USER, use, result, REPLY, USER]}, ended])
    calls = items[:3]
    assert [(one.api, one.name, one.session, len(one.body["messages"])) for one in calls] == [
        ("messages", "x/0", "x", 1), ("messages", "x/1", "x", 3), ("messages", "x/2", "x", 5)
    ]  # fmt: skip
    assert [one.reply for one in calls] == [(use,), (REPLY,), ()]
    assert all(one.body["system"] == "s" for one in calls) and counts.records_read == 2


@pytest.mark.parametrize(
    "bad, reason",
    [
        (sharegpt(("human", "q"), ("alien", "x")), "unknown_speaker"),
        (sharegpt(("gpt", "x"), ("observation", "y")), "no_user_message"),
        (sharegpt(("human", "q"), ("function_call", "no json")), "malformed_tool_call"),
        (sharegpt(("human", "q"), tools="[3]"), "malformed_tools"),
        (sharegpt(("human", "q"), images=["a.png"]), "with_images"),
        (sharegpt(("human", "q"), tools="[{}]", audios=["a"]), "with_other_media"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}], "tools": TOOLS}, "with_images"),
        ({"messages": [USER, {"role": "tool"}]}, "malformed_message"),
        ({"messages": [USER, {**REPLY, "reasoning": {"a": 1}}]}, "with_odd_reasoning"),
    ],
)
def test_a_dialog_that_no_body_can_hold_is_skipped_by_reason(bad, reason):
    items, counts = read([record("q"), bad])
    assert (len(items), counts.skipped) == (1, {reason: 1})


def test_equal_dialogs_are_duplicates():
    one = sharegpt(("human", "q"), ("observation", "r"))
    items, counts = read([one, one], drop_duplicates=True)
    assert (len(items), counts.exact_duplicates, counts.skipped) == (1, 1, {"exact_duplicate": 1})


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    write_records(tmp_path / "b.json", [record("second", id="x")])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "log.jsonl.gz").write_bytes(gzip.compress(json.dumps({"body": BODY}).encode()))
    (tmp_path / "c.jsonl").write_text(json.dumps(record("third", id="x")) + "\n{broken\n")
    (tmp_path / "note.txt").write_text("a note")
    (tmp_path / "empty.json").touch()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "trace.jsonl").write_text('{"timestamp": 0, "input_length": 3, "output_length": 1, "hash_ids": [1]}\n')
    items, counts = read(tmp_path)
    assert items[0].place == "a/log.jsonl.gz, line 1"
    assert [one.id for one in items[1:]] == ["x", "x#2"]
    assert counts.first_skipped["not_json"].startswith("c.jsonl, line 2: ")
    assert (counts.forms, counts.other_files) == ({"openai": 1, "chats": 2}, 4)
    assert counts.first_other.startswith("empty.json: is empty")
    assert read(str(tmp_path / "*.json"))[0] == items[1:2]
    assert [type(one) for one in read(str(tmp_path / "**" / "*.gz"))[0]] == [Call]


def test_a_file_that_is_damaged_is_read_up_to_there(tmp_path):
    data = gzip.compress(b"".join(json.dumps(record(str(k))).encode() + b"\n" for k in range(9999)))
    (tmp_path / "a.gz").write_bytes(data[:5000] + b"damage" + data[5006:])
    write_records(tmp_path / "b.json", [record("whole")])
    items, counts = read(tmp_path)
    assert len(items) > 1 and (counts.other_files, counts.noted) == (0, {"damaged_files": 1})
    assert counts.first_noted["damaged_files"].startswith("a.gz: cannot be decompressed")


def test_sources_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="absent.json: no such file"):
        read(tmp_path / "absent.json")
    with pytest.raises(InputError, match="no file fits"):
        read(str(tmp_path / "*.json"))
    with pytest.raises(InputError, match="no file of a known form"):
        read(tmp_path)
    (tmp_path / "note.txt").write_text("a note")
    with pytest.raises(InputError, match=r"no file of a known form \(first: note.txt: is neither"):
        read(tmp_path)


def test_a_form_can_be_named(tmp_path):
    items, _ = read([{"messages": [USER]}], form="openai")
    assert isinstance(items[0], Call)
    with pytest.raises(InputError, match="form 'opnai' is not known; .*; did you mean openai?"):
        read([], form="opnai")


def test_reading_stops_after_so_many_items():
    items, counts = read([record(str(k)) for k in range(9)], max_items=3)
    assert (len(items), counts.records_read) == (3, 3)
