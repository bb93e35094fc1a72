"""Read a data set's conversation with tools or reasoning, in any dialect, as messages of a chat body.

Names of speakers become roles, calls of tools become `tool_calls`, their results `tool` messages. What a template shows
of it is not decided here.
"""

import json
from collections import Counter
from typing import NamedTuple

from kvprefix.conversations.forms.answers import write_arguments
from kvprefix.conversations.forms.bodies import check_message
from kvprefix.conversations.forms.fields import check_time, load_text
from kvprefix.conversations.records import (
    EMPTY,
    ROLES,
    UNRENDERED,
    Refused,
    list_field,
    list_systems,
)

ROLES_OF_TOOLS = {"tool": "tool", "observation": "tool", "function": "tool", "function_call": "assistant"}
SPEAKERS = {**ROLES, "developer": "developer", **ROLES_OF_TOOLS}
_PLAIN = ("user", "assistant", "system")  # who a message may be by as it is
REASONING = ("reasoning_content", "reasoning", "thinking")
MESSAGE_TIMES = ("timestamp", "time", "created_at", "createdAt", "create_time", "ts", "date")
_MARKS = frozenset({*REASONING, "name", "tool_call_id", "tool_calls", "function_call"})  # of a message that is more
_TOOLS = ("tools", "functions")
_SETTINGS = ("chat_template_kwargs",)
MESSAGE_FIELDS = frozenset({"role", "from", "content", "value", *_MARKS, *MESSAGE_TIMES})  # that are read
_HANDLED = {*_TOOLS, *_SETTINGS, "tool_calls", "function_call"}
_NOT_RENDERED = tuple(name for name in UNRENDERED if name not in _HANDLED)


class ReadDialog(NamedTuple):
    """What a record holds: messages, settings of the bodies made of it, times of its messages, what was put right."""

    messages: list
    settings: dict
    times_s: list | None
    repaired: Counter


def is_more_than_text(raw):
    """Say whether a list of messages has a field, beside role and text, that a template may show.

    >>> is_more_than_text([{"role": "user", "content": "a", "name": ""}, {"from": "gpt", "value": "b", "weight": 1}])
    False
    """
    for message in raw:
        if len(message) > 2 and not _MARKS.isdisjoint(message):
            for name in _MARKS & message.keys():
                if message[name] not in EMPTY:
                    return True
    return False


def read_dialog(record):
    """Return a ReadDialog of a record; raise Refused if it holds something that no chat body can."""
    raw = record.get(list_field(record)) if isinstance(record, dict) else None
    if not isinstance(raw, list):
        raise Refused("not_a_conversation", "expected an object with a list `conversations` or `messages`")
    if not raw:
        raise Refused("no_messages", "the list of messages is empty")
    _refuse_unrendered(record, "the record")
    repaired, ids = Counter(), _CallIds()
    messages = [_read_message(message, k, repaired, ids) for k, message in enumerate(raw)]
    times, systems = read_message_times(raw), _make_systems(record, messages, repaired)
    kept = _find_kept(messages, repaired)
    messages = [*systems, *(messages[k] for k in kept)]
    times = times and [None] * len(systems) + [times[k] for k in kept]
    return ReadDialog(messages, _read_settings(record, repaired), times, repaired)


def read_message_times(raw):
    """Return the time of each message in seconds, None for one without; None if none has one."""
    times = [_read_time(message) if len(message) > 2 else None for message in raw]
    return times if any(time is not None for time in times) else None


def _read_time(message):
    for name in MESSAGE_TIMES:
        if message.get(name) not in EMPTY:
            return check_time(message[name], name)
    return None


def _refuse_unrendered(fields, where):
    if fields.keys().isdisjoint(_NOT_RENDERED):
        return
    for name in _NOT_RENDERED:
        if name in fields and fields[name] and fields[name] not in EMPTY:
            raise Refused(UNRENDERED[name], f"{where} has `{name}`, which cannot be rendered")


def _read_message(message, k, repaired, ids):
    """Return a message of any dialect in the shape of a chat body."""
    if not isinstance(message, dict):
        raise Refused("malformed_message", f"message {k} is no object")
    if len(message) == 2 and message.get("role") in _PLAIN and isinstance(message.get("content"), str):
        check_message(message, k, "chat")
        return dict(message)
    _refuse_unrendered(message, f"message {k}")
    for name in _TOOLS:
        if message.get(name) not in EMPTY:
            raise Refused("with_tools", f"message {k} has `{name}`, which belong to the record")
    speaker = message.get("role") if message.get("from") is None else message["from"]
    content = message.get("content") if message.get("value") is None else message["value"]
    if not isinstance(speaker, str):
        raise Refused("malformed_message", f"message {k} has no text `from` or `role`")
    role = SPEAKERS.get(speaker.lower())
    if role is None:
        known = ", ".join(sorted(SPEAKERS))
        raise Refused("unknown_speaker", f"message {k} is by {speaker[:40]!r}; known: {known}")
    made = {"role": role, "content": content}
    check_message(made, k, "chat")
    calls = [] if role != "assistant" else _read_calls(message, k, repaired)
    if speaker.lower() == "function_call":
        calls, made["content"] = _read_calls_of_text(content, k, repaired), None
    _add_reasoning(made, message)
    if calls:
        made["tool_calls"] = ids.number(calls, repaired)
    if content is None and not (role == "assistant" and (calls or len(made) > 2)):
        raise Refused("malformed_message", f"message {k} has no text")
    if message.get("name") not in EMPTY:
        made["name"] = message["name"]
    if role == "tool" and (call_id := message.get("tool_call_id") or ids.answer()):
        made["tool_call_id"] = call_id
    return made


def _add_reasoning(made, message):
    """Keep an assistant's reasoning under the name that chat bodies have for it."""
    found = next((message[name] for name in REASONING if message.get(name) not in EMPTY), None)
    if found is not None and made["role"] == "assistant":
        if not isinstance(found, str):
            raise Refused("with_odd_reasoning", "reasoning is no text")
        made["reasoning_content"] = found


def _read_calls(message, k, repaired):
    """Return the tool calls of a message, OpenAI's older `function_call` too."""
    calls = load_text(message.get("tool_calls"))
    older = load_text(message.get("function_call"))
    if calls in EMPTY and isinstance(older, dict) and older:
        calls, repaired["function_call_made_a_tool_call"] = [older], repaired["function_call_made_a_tool_call"] + 1
    if calls in EMPTY:
        return []
    if not isinstance(calls, list):
        raise Refused("malformed_tool_call", f"message {k} has tool calls that are no list")
    return [_read_call(call, k, repaired) for call in calls]


def _read_calls_of_text(text, k, repaired):
    """Return the tool calls that a `function_call` message of ShareGPT's dialect holds as JSON text."""
    given = load_text(text)
    calls = given if isinstance(given, list) else [given]
    return [_read_call(call, k, repaired) for call in calls]


def _read_call(call, k, repaired):
    function = load_text(call.get("function", call)) if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise Refused("malformed_tool_call", f"message {k} has a tool call without a name")
    arguments = function.get("arguments", function.get("parameters"))
    repaired["arguments_written_as_text"] += not isinstance(arguments, str)
    return {"id": call.get("id"), "type": "function",
            "function": {"name": name, "arguments": write_arguments(arguments)}}  # fmt: skip


class _CallIds:
    """Gives calls without an id one, and results the id of the call that they follow."""

    def __init__(self):
        self.made, self.waiting = 0, []

    def number(self, calls, repaired):
        """Return calls with ids."""
        self.waiting = []
        for call in calls:
            if not isinstance(call["id"], str) or not call["id"]:
                call["id"], self.made = f"call_{self.made}", self.made + 1
                repaired["tool_calls_given_an_id"] += 1
            self.waiting.append(call["id"])
        return calls

    def answer(self):
        """Return the id of the first call that has no result yet; None if there is none."""
        return self.waiting.pop(0) if self.waiting else None


def _make_systems(record, messages, repaired):
    """Return the system fields as messages, without those whose text is already a system message."""
    known = {one["content"] for one in messages if one["role"] == "system" and isinstance(one["content"], str)}
    texts = list_systems(record, known, _refuse_system)
    repaired["system_field_made_first_message"] += len(texts)
    return [{"role": "system", "content": text} for text in texts]


def _refuse_system(name, value):
    raise Refused("with_system_blocks", f"`{name}` is no text")


def _find_kept(messages, repaired):
    """Return the indices of the messages that are kept: as for texts, see `iterate_conversations`."""
    filled = [k for k, one in enumerate(messages) if len(one) > 2 or one["role"] == "tool" or not _is_blank(one)]
    first_user = next((k for k in filled if messages[k]["role"] == "user"), None)
    if first_user is None:
        raise Refused("no_user_message", "no user message with text")
    kept = [k for k in filled if k >= first_user or messages[k]["role"] != "assistant"]
    repaired["blank_messages_dropped"] += len(messages) - len(filled)
    repaired["leading_assistant_messages_dropped"] += len(filled) - len(kept)
    return kept


def _is_blank(message):
    return not message["content"] or (isinstance(message["content"], str) and not message["content"].strip())


def _read_settings(record, repaired):
    """Return the tools and template settings of a record, as a chat body holds them."""
    settings = {name: load_text(record[name]) for name in _SETTINGS if record.get(name) not in EMPTY}
    given = next((load_text(record[name]) for name in _TOOLS if record.get(name) not in EMPTY), None)
    if given not in EMPTY and given not in ("null", "None"):
        tools = given if isinstance(given, list) else [given]
        settings["tools"] = [read_tool(tool) for tool in tools]
        repaired["tools_wrapped_as_functions"] += settings["tools"] != given
    return settings


def read_tool(tool):
    """Return a tool as a chat body holds it; one that is a bare function is wrapped.

    >>> read_tool('{"name": "f", "parameters": {}}')
    {'type': 'function', 'function': {'name': 'f', 'parameters': {}}}
    """
    tool = load_text(tool)
    if not isinstance(tool, dict) or not isinstance(tool.get("function", tool), dict):
        raise Refused("malformed_tools", f"a tool is {json.dumps(tool, default=str)[:40]}; expected an object")
    if "function" in tool:
        return tool if "type" in tool else {"type": "function", **tool}
    names = {"input_schema": "parameters"}
    function = {names.get(name, name): value for name, value in tool.items() if name != "type"}
    return {"type": "function", "function": function}
