from kvprefix.conversations.calls import Dialog
from kvprefix.servers.dialogs import calls_of
from kvprefix.servers.prompt import TemplateFacts
from kvprefix.servers.rules import make_prompt

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def test_a_dialog_makes_a_call_for_each_request_and_each_run_of_results():
    roles = ["system", "user", "assistant", "tool", "tool", "assistant", "user", "user", "assistant", "tool", "user"]
    messages = [{"role": role, "content": str(k)} for k, role in enumerate(roles)]
    calls = calls_of(Dialog("d", messages, {"tools": TOOLS}, "line 3", [float(k) for k in range(len(roles))]))
    assert [len(call.body["messages"]) for call in calls] == [2, 5, 7, 8, 11]
    assert [call.reply for call in calls] == [(messages[2],), (messages[5],), (), (messages[8],), ()]
    assert [call.start_s for call in calls] == [1.0, 4.0, 6.0, 7.0, 10.0]
    assert {(call.session, call.place, call.api) for call in calls} == {("d", "line 3", "chat")}
    assert calls[0].body["tools"] == TOOLS


def test_calls_in_a_dialog_get_what_a_body_must_have():
    loose = [{"function": {"name": "f", "arguments": {"b": "é", "a": 1}}}, {"name": "g", "arguments": None, "id": "x"}]
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": loose},
                {"role": "tool", "content": "r"}]  # fmt: skip
    first, second = calls_of(Dialog("d", messages, {}))
    (turn,) = first.reply
    assert turn["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"b": "é", "a": 1}'}},
        {"id": "x", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert second.body["messages"][1] == turn and "id" not in loose[0]
    assert make_prompt("chat", second.body, TemplateFacts()).messages[1]["tool_calls"][0]["id"] == "call_0"
