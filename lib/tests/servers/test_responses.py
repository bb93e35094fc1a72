"""Rules for Responses bodies, by hand; the numbers are those of the shared list of 27 rules."""

import pytest

from kvprefix.files.paths import InputError
from kvprefix.servers.prompt import Refused, TemplateFacts
from kvprefix.servers.rules import SERVERS, add_reply, make_prompt

TEXT = TemplateFacts("string")
USER = {"role": "user", "content": "q"}


def read(given, **body):
    return make_prompt("responses", {"input": given, **body}, TEXT)


def refused(given, **body):
    with pytest.raises(Refused) as caught:
        read(given, **body)
    return caught.value.reason


def said(*texts, **more):
    parts = [{"type": "output_text", "text": one, "annotations": []} for one in texts]
    return {"type": "message", "role": "assistant", "content": parts, **more}


def thought(*texts, summary=()):
    return {
        "type": "reasoning", "id": "r", "content": [{"type": "reasoning_text", "text": one} for one in texts],
        "summary": [{"type": "summary_text", "text": one} for one in summary],
    }  # fmt: skip


CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "o"}


def test_rule_25_instructions_and_text():
    messages = read("hi", instructions="S").messages
    assert messages == [{"role": "system", "content": "S"}, {"role": "user", "content": "hi"}]


def test_rule_25_items_in_a_row_make_one_turn_in_any_order():
    for items in ([thought("t"), said("a"), CALL], [CALL, said("a"), thought("t")]):
        messages = read([USER, *items, OUTPUT]).messages
        assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
        turn = messages[1]
        assert (turn["content"], turn["reasoning"], len(turn["tool_calls"])) == ("a", "t", 1)
    assert len(read([USER, CALL, CALL]).messages[1]["tool_calls"]) == 2
    for item in (said("a"), thought("t")):
        assert [message["role"] for message in read([USER, item, item]).messages] == ["user", "assistant", "assistant"]


def test_rule_12_names_stand_before_arguments():
    (call,) = read([USER, CALL]).messages[1]["tool_calls"]
    assert list(call) == ["id", "function", "type"] and list(call["function"]) == ["name", "arguments"]
    assert call["function"]["arguments"] == {"a": 1}


def test_rule_26_only_the_first_part_counts():
    assert read([USER, said("a", "b")]).messages[1]["content"] == "a"
    assert read([USER, thought("t", "u", summary=["s"])]).messages[1]["reasoning"] == "t"
    assert read([USER, thought(summary=["s", "v"])]).messages[1]["reasoning"] == "s"
    assert read([USER, thought()]).messages[1]["reasoning"] == ""
    assert refused([USER, {"type": "reasoning", "summary": [], "encrypted_content": "x"}]) == "encrypted reasoning"
    assert read([{"role": "user", "content": [{"type": "input_text", "text": one} for one in "ab"]}]).messages == [
        {"role": "user", "content": "a\nb"}
    ]
    assert read([{"role": "developer", "content": "D"}, USER]).messages[0] == {"role": "system", "content": "D"}


def test_rule_27_outputs_and_custom_tools():
    parts = {**OUTPUT, "output": [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}]}
    assert read([USER, parts]).messages[1] == {"role": "tool", "content": "x\ny", "tool_call_id": "c"}
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "sh", "input": "ls é"}
    assert read([USER, custom]).messages[1]["tool_calls"][0]["function"]["arguments"] == {"input": "ls é"}
    (tool,) = read("hi", tools=[{"type": "custom", "name": "sh"}]).tools
    assert tool["function"]["parameters"]["required"] == ["input"]


def test_rule_27_tools_of_the_provider_vanish():
    assert read("hi", tools=[{"type": "web_search"}]).tools == []
    assert read("hi", tools=[]).tools is read("hi").tools is None
    inner = {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}
    assert read("hi", tools=[inner]).tools[0]["function"]["name"] == "n__f"
    assert refused("hi", tools=[{"type": "function", "function": {"name": "f"}}]) == "tools"


@pytest.mark.parametrize("kind", ["web_search_call", "local_shell_call", "item_reference", "compaction"])
def test_rule_27_items_that_are_refused(kind):
    assert refused([{"type": kind, "id": "x"}, USER]) == "input items"


def test_rule_27_a_response_before_is_not_in_the_body():
    assert refused("hi", previous_response_id="r") == "previous_response_id"


def test_the_reply_goes_on_in_an_open_item():
    prompt = read([USER, said("a", status="incomplete")])
    assert prompt.continues and not prompt.generation and not read([USER, said("a")]).continues


def test_the_tokenizer_adds_its_special_tokens():
    assert read("hi").adds_special and not make_prompt("chat", {"messages": [USER]}, TEXT).adds_special


def test_effort_and_choice():
    facts = TEXT._replace(variables=frozenset({"enable_thinking"}))
    body = {"input": "hi", "reasoning": {"effort": "low"}}
    assert make_prompt("responses", body, facts).settings == {"enable_thinking": True}
    assert refused("hi", reasoning={"effort": "ultra"}) == "settings"
    assert refused("hi", tool_choice="required") == "tool_choice"


def test_replies_stand_behind_items_or_messages():
    assert add_reply("responses", {"input": "hi"}, [said("a")])["input"] == [
        {"role": "user", "content": "hi"},
        said("a"),
    ]
    assert add_reply("messages", {"messages": [USER], "max_tokens": 1}, [USER]) == {
        "messages": [USER, USER], "max_tokens": 1,
    }  # fmt: skip


def test_an_unknown_server_or_api():
    with pytest.raises(InputError, match="server x: its rules are not known; expected one of vllm, sglang"):
        make_prompt("chat", {}, TEXT, "x")
    with pytest.raises(Refused, match="completions"):
        make_prompt("completions", {}, TEXT)
    assert SERVERS["vllm"].version == "0.32"
