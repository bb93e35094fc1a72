"""Calls of a data set's conversations: what a client would have sent to have them."""

import json

from kvprefix.conversations.calls import Call, find_time

_RESULTS = ("tool", "function")


def calls_of(dialog):
    """Return the calls of a Dialog: one for each request of a user, and for each run of results of tools.

    A prompt is all up to a user's message, or up to the last of some messages of tools in a row unless a user's message
    follows them. What is said next is the reply, if it is an assistant's. Data sets leave out parts of calls of tools
    that bodies must have; they are put in: ids (`call_0`, ...), the type, and arguments as JSON text.
    """
    messages, calls = [_complete(message) for message in dialog.messages], []
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    for end, role in enumerate(roles, 1):
        after = roles[end] if end < len(roles) else None
        if role == "user" or role in _RESULTS and after not in (*_RESULTS, "user"):
            calls.append(
                Call(
                    "chat",
                    {**dialog.settings, "messages": messages[:end]},
                    (messages[end],) if after == "assistant" else (),
                    dialog.place,
                    session=dialog.id,
                    start_s=find_time(dialog.times_s, end) if dialog.times_s else None,
                )
            )
    return calls


def _complete(message):
    """Return a message whose calls of tools have all that a body must have."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        return message
    return {**message, "tool_calls": [_complete_call(call, k) for k, call in enumerate(calls)]}


def _complete_call(call, k):
    function = call.get("function")
    if not isinstance(function, dict):
        function = {name: call.get(name) for name in ("name", "arguments")}
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    rest = {name: value for name, value in call.items() if name not in ("name", "arguments")}
    known = {"id": call.get("id") or f"call_{k}", "type": call.get("type") or "function"}
    return rest | known | {"function": {**function, "arguments": arguments}}
