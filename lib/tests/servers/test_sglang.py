"""SGLang's rules for chat bodies where they are other than vLLM's, by hand."""

import pytest

from kvprefix.servers.prompt import Refused, TemplateFacts
from kvprefix.servers.rules import make_prompt

TEXT, PARTS = TemplateFacts(sglang_format="string"), TemplateFacts(sglang_format="openai")
USER = {"role": "user", "content": "hi"}
TOOLS = [{"type": "function", "function": {"parameters": {}, "name": name}} for name in ("f", "g")]


def read(messages, facts=TEXT, **body):
    return make_prompt("chat", {"messages": messages, **body}, facts, "sglang")


def refused(messages, api="chat", **body):
    with pytest.raises(Refused) as caught:
        make_prompt(api, {"messages": messages, **body}, TEXT, "sglang")
    return caught.value.reason


def text(value, **more):
    return {"type": "text", "text": value, **more}


def call(arguments):
    return {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}


def test_texts_are_joined_with_a_space_and_empty_ones_count():
    result = {"role": "tool", "tool_call_id": "c", "content": [text("a"), text("b")]}
    messages = [{"role": "user", "content": [text("a"), text(""), text("b")]}, result]
    assert [message["content"] for message in read(messages).messages] == ["a  b", "a b"]
    given = [text("a", cache_control={}), text("")]
    assert read([{"role": "user", "content": given}], PARTS).messages[0]["content"] == [text("a"), text("")]


def test_fields_have_the_servers_order_and_null_ones_are_left_out():
    message = {"reasoning_content": "r", "name": None, "content": None, "role": "Assistant", "tool_calls": [call("{}")]}
    first = read([message, USER]).messages[0]
    assert list(first) == ["role", "content", "reasoning_content", "tool_calls"] and first["content"] == ""
    assert list(first["tool_calls"][0]) == ["id", "index", "type", "function"]
    assert read([{**USER, "name": "n"}]).messages == [USER]


def test_arguments_must_be_an_object():
    turn = {"role": "assistant", "content": "", "tool_calls": [call('{"b": 1e3, "a": 100000000000000000000}')]}
    arguments = read([turn, USER]).messages[0]["tool_calls"][0]["function"]["arguments"]
    assert arguments == {"b": 1000.0, "a": 1e20} and isinstance(arguments["a"], float)
    for bad in ("", "[1]", "{", '{"a": NaN}'):
        assert refused([{"role": "assistant", "content": "", "tool_calls": [call(bad)]}]) == "tool calls"
    assert read([{**turn, "tool_calls": [call({"a": 1})]}, USER]).messages[0]["tool_calls"]


def test_a_last_reply_becomes_a_users_message():
    assert read([USER, {"role": "assistant", "content": "a"}]).messages[-1] == {"role": "user", "content": "a"}
    assert refused([USER, {"role": "assistant", "content": "a"}], continue_final_message=True) == "settings"


def test_tools_keep_the_order_of_their_keys():
    assert read([USER], tools=TOOLS[:1]).tools == [
        {"type": "function", "function": {"parameters": {}, "name": "f", "description": None}, "defer_loading": None}
    ]
    assert list(read([USER], tools=TOOLS).tools[0]["function"]) == ["parameters", "name", "description"]


def test_the_choice_of_a_tool_decides_which_are_rendered():
    assert read([USER], tools=TOOLS, tool_choice="none").tools is None
    named = {"type": "function", "function": {"name": "g"}}
    assert [tool["function"]["name"] for tool in read([USER], tools=TOOLS, tool_choice=named).tools] == ["g"]
    assert refused([USER], tool_choice="required") == "tool_choice"
    assert read([USER], tools=[]).tools is None


def test_an_effort_sets_both_names_of_thinking():
    thinks = {"thinking": True, "enable_thinking": True}
    assert read([USER], reasoning_effort="low").settings == {"reasoning_effort": "low", **thinks}
    assert read([USER], reasoning={"enabled": True}, chat_template_kwargs={"thinking": False}).settings == {
        "thinking": False, "enable_thinking": True,
    }  # fmt: skip


def test_what_is_refused():
    assert refused([{"role": "critic", "content": "a"}]) == refused([5]) == "messages"
    assert refused([{"role": "user", "content": None}]) == "content"
    assert refused([{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]) == "content"
    image = {"type": "image_url", "image_url": {"url": "u"}}
    assert refused([{"role": "user", "content": [image]}]) == "images and other media"
    assert refused([]) == "no messages" and refused([USER], "messages") == "api"
