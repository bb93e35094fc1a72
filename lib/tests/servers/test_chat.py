"""Rules for chat bodies, by hand; the numbers are those of the shared list of 27 rules."""

import pytest

from kvprefix.servers.prompt import Refused, TemplateFacts
from kvprefix.servers.rules import make_prompt

TEXT, PARTS = TemplateFacts("string"), TemplateFacts("openai")
USER = {"role": "user", "content": "hi"}


def read(message, facts=TEXT):
    """Return what the template gets of one message."""
    return make_prompt("chat", {"messages": [message]}, facts).messages[0]


def content(given, role="user", facts=TEXT):
    return read({"role": role, "content": given}, facts)["content"]


def refused(body, facts=TEXT):
    """Return the reason of a refusal."""
    with pytest.raises(Refused) as caught:
        make_prompt("chat", body, facts)
    return caught.value.reason


def text(value, **more):
    return {"type": "text", "text": value, **more}


def call(arguments="{}", **more):
    return {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}, **more}


def test_rule_2_texts_are_joined_and_empty_ones_left_out():
    assert content([text("a"), text(""), text("b"), text(None)]) == "a\nb"
    assert content([]) == content(None, "assistant") == read({"role": "user"})["content"] == ""


def test_rule_3_parts_stay_parts_with_their_extra_keys():
    marked = text("a", cache_control={"type": "ephemeral"})
    assert content([marked, text(""), text("b")], facts=PARTS) == [marked, text(""), text("b")]
    assert content("a", facts=PARTS) == [text("a")] and content(None, "assistant", PARTS) == []


def test_rule_4_a_tools_content_is_always_a_text():
    result = {"role": "tool", "tool_call_id": "c", "content": [text("a"), text(""), text("b")]}
    assert (read(result)["content"], read(result, PARTS)["content"]) == ("a\nb", "a\n\nb")


def test_rule_5_part_types():
    assert content([{"type": "input_text", "text": "a"}, text("b")]) == "a\nb"
    assert content([{"type": "refusal", "refusal": "no"}], "assistant") == "no"
    assert content([{"type": "thinking", "thinking": "hm"}], "assistant") == "hm"
    for part in ({"type": "output_text", "text": "a"}, "a", {"text": "a"}, {"type": "file", "file": {}}):
        assert refused({"messages": [{"role": "assistant", "content": [part]}]}) == "content"
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    assert refused({"messages": [{"role": "user", "content": [image]}]}) == "images and other media"


def test_rule_6_unknown_keys_are_dropped_and_any_role_is_taken():
    given = {"role": "assistant", "content": "a", "refusal": "r", "annotations": [], "x": 1, "name": "n"}
    assert read(given) == {"role": "assistant", "content": "a", "name": "n"}
    assert read({"role": "critic", "content": "a", "tool_call_id": "c"}) == {"role": "critic", "content": "a"}


def test_rule_7_null_content():
    for role in ("user", "system", "tool", "critic"):
        assert refused({"messages": [{"role": role, "content": None}]}) == "content"
    assert refused({"messages": []}) == refused({}) == "no messages"


def test_rule_8_a_billing_header_loses_its_line():
    header = "x-anthropic-billing-header: cch=1"
    assert content(f"{header}\nS", "system") == "S" and content(header, "system") == ""
    assert content(f"{header}\nS", "user") == f"{header}\nS"


def test_rule_9_reasoning_has_both_names():
    both = {"role": "assistant", "content": "a", "reasoning": "R", "reasoning_content": "R"}
    assert read({"role": "assistant", "content": "a", "reasoning": "R", "reasoning_content": "C"}) == both
    assert read({"role": "assistant", "content": "a", "reasoning_content": "R"}) == both
    assert read({"role": "assistant", "content": "a", "reasoning_content": ""})["reasoning"] == ""
    assert "reasoning" not in read({"role": "user", "content": "a", "reasoning_content": "R"})


@pytest.mark.parametrize(
    "given, parsed",
    [
        ('{"z": 2.50, "a": 1e3}', {"z": 2.5, "a": 1000.0}), ('{"a": 1, "a": 2}', {"a": 2}), ("[1]", {}), ("null", {}),
        ('"{}"', {}), ("", {}), ("{", {}), ('{"a": "\\u00e9"}', {"a": "é"}),
    ],
)  # fmt: skip
def test_rule_10_arguments_become_an_object(given, parsed):
    function = read({"role": "assistant", "content": None, "tool_calls": [call(given)]})["tool_calls"][0]["function"]
    assert function["arguments"] == parsed and list(function["arguments"]) == list(parsed)


def test_arguments_that_python_cannot_read_are_refused():
    for bad in ("[" * 100_000, '{"a": ' + "1" * 5000 + "}"):
        assert refused({"messages": [{"role": "assistant", "content": "", "tool_calls": [call(bad)]}]}) == "tool calls"


def test_rule_11_calls_that_are_refused():
    for key in ("id", "type"):
        lacking = {name: value for name, value in call().items() if name != key}
        assert refused({"messages": [{"role": "assistant", "content": None, "tool_calls": [lacking]}]}) == "tool calls"
    custom = {"id": "c", "type": "custom", "custom": {"name": "f", "input": ""}}
    for bad in (custom, call({"a": 1})):
        assert refused({"messages": [{"role": "assistant", "content": "", "tool_calls": [bad]}]}) == "tool calls"
    for none in (None, []):
        assert "tool_calls" not in read({"role": "assistant", "content": "a", "tool_calls": none})
    assert refused({"messages": [{"role": "assistant", "content": None, "tool_calls": None}]}) == "content"


def test_rule_12_keys_of_a_call_have_the_servers_order():
    read_call = read({"role": "assistant", "content": None, "tool_calls": [call(index=0)]})["tool_calls"][0]
    assert list(read_call) == ["id", "function", "type", "index"]
    assert list(read_call["function"]) == ["arguments", "name"]


def test_rule_13_results_are_not_matched_to_calls():
    assert read({"role": "tool", "content": "a", "tool_call_id": "x"})["tool_call_id"] == "x"
    assert read({"role": "tool", "content": "a"}) == {"role": "tool", "content": "a"}


def test_rule_14_tools_are_written_anew():
    given = {"cache_control": {}, "function": {"x": 1, "strict": True, "name": "f"}, "type": "function"}
    tools = make_prompt("chat", {"messages": [USER], "tools": [given]}, TEXT).tools
    assert tools == [{"type": "function", "function": {"name": "f", "description": None, "parameters": None,
                                                       "strict": True}}]  # fmt: skip
    assert list(tools[0]) == ["type", "function"]
    assert list(tools[0]["function"]) == ["name", "description", "parameters", "strict"]


def test_rule_15_tools_that_are_refused_and_a_choice_of_none():
    for tools in ([], [{"type": "function", "name": "f"}], [{"type": "web_search"}], "f"):
        assert refused({"messages": [USER], "tools": tools}) == "tools"
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert make_prompt("chat", {"messages": [USER], "tools": tools, "tool_choice": "none"}, TEXT).tools
    assert make_prompt("chat", {"messages": [USER], "functions": [{"name": "f"}]}, TEXT).tools is None
    for choice in ("auto", {"type": "function", "function": {"name": "f"}}):
        assert refused({"messages": [USER], "tool_choice": choice}) == "tool_choice"
    other = {"type": "function", "function": {"name": "g"}}
    assert refused({"messages": [USER], "tools": tools, "tool_choice": other}) == "tool_choice"


def test_rule_16_a_developer_becomes_the_one_system_message():
    messages = [
        {"role": "system", "content": "A"}, USER, {"role": "system", "content": ""},
        {"role": "developer", "content": [text("B"), text("C")]},
    ]  # fmt: skip
    for facts in (TEXT, PARTS):
        merged = make_prompt("chat", {"messages": messages}, facts).messages
        assert merged[0] == {"role": "system", "content": "A\n\nB\nC"} and len(merged) == 2
    known = make_prompt("chat", {"messages": messages}, TEXT._replace(knows_developer=True)).messages
    assert [message["role"] for message in known] == ["system", "user", "system", "developer"]
    kept = make_prompt("chat", {"messages": messages[:3]}, TEXT).messages
    assert [message["role"] for message in kept] == ["system", "user", "system"]


def test_rule_17_settings_that_the_template_reads():
    facts = TEXT._replace(variables=frozenset({"enable_thinking", "foo"}))

    def settings(**body):
        return make_prompt("chat", {"messages": [USER], **body}, facts)

    given = settings(chat_template_kwargs={"foo": 1, "bar": 2, "add_generation_prompt": False, "enable_thinking": None})
    assert given.settings == {"foo": 1} and given.generation
    assert settings(reasoning_effort="none").settings == {"enable_thinking": False}
    both = settings(reasoning_effort="none", chat_template_kwargs={"enable_thinking": True})
    assert both.settings == {"enable_thinking": True}
    documents = [{"title": "t"}]
    assert settings(documents=documents, chat_template_kwargs={"documents": []}).settings == {"documents": documents}
    closed = {"messages": [USER], "continue_final_message": True}
    assert refused(closed) == "settings"
    open_end = make_prompt("chat", {**closed, "add_generation_prompt": False}, facts)
    assert (open_end.continues, open_end.generation) == (True, False)


@pytest.mark.parametrize(
    "setting",
    [
        {"chat_template": "x"}, {"chat_template_kwargs": {"chat_template": "x"}}, {"reasoning_effort": "ultra"},
        {"stream_options": {"include_usage": True}}, {"documents": [{"a": 1}]}, {"response_format": {"type": "x"}},
    ],
)  # fmt: skip
def test_other_settings_that_are_refused(setting):
    assert refused({"messages": [USER], **setting}) == "settings"


def test_a_body_is_left_as_it_is():
    body = {"messages": [{"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [call()]}]}
    before = repr(body)
    make_prompt("chat", body, TEXT)
    assert repr(body) == before
