"""LangChain's messages, as it serialises them, in the shape of a chat body."""

from kvprefix.conversations.forms.answers import write_arguments
from kvprefix.conversations.forms.form import list_objects
from kvprefix.conversations.records import EMPTY

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool",
          "humanmessage": "user", "aimessage": "assistant", "systemmessage": "system", "toolmessage": "tool",
          "functionmessage": "tool", "chatmessage": None, "chat": None}  # fmt: skip


def read_message(message):
    """Return a message of LangChain's as a chat body has it; any other as it is.

    >>> read_message({"type": "ai", "data": {"content": "", "tool_calls": [{"name": "f", "args": {}, "id": "c"}]}})
    {'role': 'assistant', 'content': '', 'tool_calls': [{'id': 'c', 'type': 'function', 'function': {'name': 'f', \
'arguments': '{}'}}]}
    """
    if not isinstance(message, dict) or "role" in message and "kwargs" not in message:
        return message
    named = message.get("id")
    kind = named[-1] if isinstance(named, list) and named else message.get("type")
    fields = next((message[name] for name in ("kwargs", "data") if isinstance(message.get(name), dict)), message)
    if not isinstance(kind, str) or kind.lower().removesuffix("chunk") not in _ROLES or "content" not in fields:
        return message
    role = _ROLES[kind.lower().removesuffix("chunk")] or fields.get("role")
    made = {"role": role, "content": fields.get("content")}
    given = fields.get("additional_kwargs") if isinstance(fields.get("additional_kwargs"), dict) else {}
    if role == "assistant" and (calls := fields.get("tool_calls") or given.get("tool_calls")):
        made["tool_calls"] = [_read_call(call) for call in list_objects(calls)]
    if role == "assistant" and given.get("reasoning_content"):
        made["reasoning_content"] = given["reasoning_content"]
    for name in ("name", "tool_call_id"):
        if fields.get(name) not in EMPTY:
            made[name] = fields[name]
    return made


def _read_call(call):
    if "function" in call:
        return call
    function = {"name": call.get("name"), "arguments": write_arguments(call.get("args"))}
    return {"id": call.get("id"), "type": "function", "function": function}
