"""Rules for Anthropic bodies, by hand; the numbers are those of the shared list of 27 rules."""

import pytest

from kvprefix.servers.prompt import Refused, TemplateFacts
from kvprefix.servers.rules import make_prompt

TEXT = TemplateFacts("string", variables=frozenset({"enable_thinking", "reasoning_effort"}))
USER = {"role": "user", "content": "hi"}
HEADER = "x-anthropic-billing-header: cch=1;"


def read(messages, facts=TEXT, **body):
    return make_prompt("messages", {"messages": messages, **body}, facts)


def turns(messages, facts=TEXT, **body):
    """Return (role, content) of each message that the template gets."""
    return [(message["role"], message["content"]) for message in read(messages, facts, **body).messages]


def refused(messages, **body):
    with pytest.raises(Refused) as caught:
        read(messages, **body)
    return caught.value.reason


def text(value, **more):
    return {"type": "text", "text": value, **more}


def result(content, **more):
    return {"type": "tool_result", "tool_use_id": "t", "content": content, **more}


def test_rule_20_system_blocks_follow_each_other_with_nothing_between():
    assert turns([USER], system="S") == [("system", "S"), ("user", "hi")]
    assert turns([USER], system=[text("a", cache_control={}), text(HEADER), text("b")])[0] == ("system", "ab")
    assert turns([USER], system="") == turns([USER], system=[]) == turns([USER], system=[text(HEADER)])
    assert turns([USER], system=f"{HEADER}\nS")[0] == ("system", "S")  # a text loses the line as in chat bodies


def test_rule_21_blocks_of_a_turn():
    assert turns([{"role": "user", "content": [text(""), text("a")]}]) == [("user", "a")]
    assert turns([{"role": "user", "content": [text("a"), text("b")]}]) == [("user", "a\nb")]
    assistant = [
        {"type": "thinking", "thinking": "h"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "m"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"é": 1.0}},
    ]
    message = read([USER, {"role": "assistant", "content": assistant}]).messages[1]  # fmt: skip
    assert message["reasoning"] == message["reasoning_content"] == "hm" and message["content"] == ""
    assert message["tool_calls"] == [
        {"id": "t", "function": {"arguments": {"é": 1.0}, "name": "f"}, "type": "function"}
    ]


def test_rule_21_results_stand_before_the_rest_of_their_turn():
    mixed = {"role": "user", "content": [text("first"), result("r"), result([text("a"), text(""), text("b")])]}
    assert turns([mixed]) == [("tool", "r"), ("tool", "a\n\nb"), ("user", "first")]
    assert turns([{"role": "user", "content": [result(None, is_error=True)]}]) == [("tool", "")]
    assert turns([{"role": "user", "content": []}, USER]) == [("user", "hi")]


@pytest.mark.parametrize(
    "block, reason",
    [
        ({"type": "server_tool_use", "id": "s"}, "content"), ({"type": "document"}, "content"),
        ({"type": "image", "source": {"type": "url", "url": "u"}}, "images and other media"),
        (result([{"type": "image", "source": {}}]), "images and other media"),
        ({"type": "tool_use", "input": "x"}, "content"),
    ],
)  # fmt: skip
def test_rule_21_blocks_that_are_refused(block, reason):
    assert refused([{"role": "user", "content": [block]}]) == reason


def test_rule_22_system_texts_inside_the_messages():
    late = [USER, {"role": "system", "content": "late"}, {"role": "system", "content": HEADER}, USER]
    assert turns(late, system="S") == [("system", "S"), ("user", "hi"), ("system", "late"), ("user", "hi")]
    strict = TEXT._replace(refuses_late_system=True)
    assert turns(late, strict, system="S") == [("system", "Slate"), ("user", "hi"), ("user", "hi")]


def test_rule_23_tools():
    given = [{"name": "f", "input_schema": {"properties": {}}, "cache_control": {}}]
    assert read([USER], tools=given).tools == [
        {"type": "function",
         "function": {"name": "f", "description": None, "parameters": {"properties": {}, "type": "object"}}}
    ]  # fmt: skip
    assert "type" not in given[0]["input_schema"]
    assert refused([USER], tools=[{"type": "web_search_20250305", "name": "web_search"}]) == "tools"
    assert read([USER], tools=[]).tools == []


def test_rule_23_tools_that_messages_add_and_remove():
    given = [{"name": name, "input_schema": {"type": "object"}} for name in ("f", "g")]
    added = {"type": "tool_definition", "definition": {"name": "h", "input_schema": {"type": "object"}}}
    change = [{"type": "tool_removal", "tool": {"type": "tool_reference", "name": "f"}},
              {"type": "tool_addition", "tool": added}]  # fmt: skip
    messages = [USER, {"role": "system", "content": change}]
    assert [tool["function"]["name"] for tool in read(messages, tools=given).tools] == ["g", "h"]
    assert refused(messages) == "tools"
    assert refused([{"role": "user", "content": change}]) == "content"


def test_rule_23_thinking_and_effort():
    assert read([USER], thinking={"type": "disabled"}).settings["enable_thinking"] is False
    low = TEXT._replace(disabled_effort="low")
    assert read([USER], low, thinking={"type": "disabled"}).settings["reasoning_effort"] == "low"
    assert read([USER], output_config={"effort": "max"}).settings["reasoning_effort"] == "max"
    enabled = {"type": "enabled", "budget_tokens": 2000}
    assert refused([USER], thinking=enabled, max_tokens=2000) == "settings"
    assert read([USER], thinking=enabled, max_tokens=2001).settings == {}


def test_rule_23_a_last_reply_is_closed():
    prompt = read([USER, {"role": "assistant", "content": "I"}])
    assert prompt.generation and not prompt.continues


def test_messages_that_are_refused():
    assert refused([{"role": "tool", "content": "a"}]) == "messages"
    assert refused([{"role": "user", "content": None}]) == "content"
    assert refused([]) == refused([{"role": "user", "content": []}]) == "no messages"
    assert refused([USER], system=5) == "system" and refused([USER], tool_choice={"type": "tool"}) == "tool_choice"
