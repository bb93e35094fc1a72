"""Messages in the attributes and events of OpenTelemetry's spans, as a chat body has them."""

from kvprefix.conversations.dialogs import read_tool
from kvprefix.conversations.forms.answers import write_arguments
from kvprefix.conversations.forms.fields import load_text
from kvprefix.conversations.records import EMPTY, Refused

_EVENT_ROLES = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
_PARTS = ("text", "input_text", "output_text", "image_url", "image", "input_image")
_INDEXED = (("gen_ai.prompt.", "gen_ai.completion."), ("llm.input_messages.", "llm.output_messages."))
ATTRIBUTES = frozenset({
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions",
    "llm.request.functions",
})  # fmt: skip
INDEXED = (*(prefix for pair in _INDEXED for prefix in pair), "llm.tools.", "llm.request.functions.")


def read_exchange(attributes, events):
    """Return (messages, reply, tools) of a span; messages are None if it holds none.

    Parameters
    ----------
    attributes : dict
    events : list of (str, dict)
        Names and attributes.

    Raises
    ------
    Refused
        A part that is no text, call or result.
    """
    given = load_text(attributes.get("gen_ai.input.messages"))
    if isinstance(given, list):
        reply = _read_all(load_text(attributes.get("gen_ai.output.messages")))
        return [*_read_system(attributes), *_read_all(given)], reply[:1], _read_tools(attributes)
    for prompt, answer in _INDEXED:
        if messages := [_read_indexed(one) for one in _collect(attributes, prompt)]:
            reply = [_read_indexed(one) for one in _collect(attributes, answer)]
            return messages, [{**one, "role": "assistant"} for one in reply[:1]], _read_tools(attributes)
    messages = [_read_event(name, given) for name, given in events if name in _EVENT_ROLES]
    reply = [_read_event(name, given) for name, given in events if name == "gen_ai.choice"]
    return messages or None, reply[:1], _read_tools(attributes)


def _read_system(attributes):
    """Return the system instructions as a message."""
    given = load_text(attributes.get("gen_ai.system_instructions"))
    if given in EMPTY:
        return []
    parts = given if isinstance(given, list) else [{"type": "text", "content": given}]
    texts = [part.get("content", part.get("text")) if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise Refused("with_other_content", "has system instructions that are no text")
    return [{"role": "system", "content": _join(texts)}]


def _read_all(messages):
    """Return messages of the semantic conventions, whose parts are texts, calls and results."""
    made = []
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            raise Refused("malformed_message", "has a message that is no object")
        made += _read_parts(message) if isinstance(message.get("parts"), list) else [message]
    return made


def _read_parts(message):
    """Return the chat messages that one with parts stands for: one, or one per result of a tool."""
    texts, reasoning, calls, results = [], [], [], []
    for part in message["parts"]:
        kind = part.get("type") if isinstance(part, dict) else "text"
        content = part.get("content", part.get("text")) if isinstance(part, dict) else part
        if kind == "text" and isinstance(content, str):
            texts.append(content)
        elif kind == "reasoning" and isinstance(content, str):
            reasoning.append(content)
        elif kind == "tool_call":
            calls.append(_make_call(part.get("id"), part.get("name"), part.get("arguments")))
        elif kind == "tool_call_response":
            results.append(_make_result(part))
        else:
            is_image = isinstance(part, dict) and "image" in (kind, part.get("modality"))
            raise Refused("with_images" if is_image else "with_other_content", f"has a part {str(kind)[:40]}")
    made = {"role": message.get("role"), "content": _join(texts) if texts or not calls else None}
    if reasoning:
        made["reasoning_content"] = "".join(reasoning)
    if calls:
        made["tool_calls"] = calls
    if message.get("name") not in EMPTY:
        made["name"] = message["name"]
    return [*results, made] if texts or calls or reasoning else results or [made]


def _join(texts):
    """Return one text as it is, several as parts: a server joins them."""
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts] or ""


def _make_call(name_of_call, name, arguments):
    return {"id": name_of_call, "type": "function",
            "function": {"name": name, "arguments": write_arguments(arguments)}}  # fmt: skip


def _make_result(part):
    content = part.get("response", part.get("result", part.get("content")))
    message = {"role": "tool", "content": "" if content is None else write_arguments(content)}
    return {**message, "tool_call_id": part["id"]} if part.get("id") is not None else message


def _collect(attributes, prefix):
    """Return the objects that attributes such as ``PREFIX0.message.role`` spell out, in order.

    >>> _collect({"p.1.role": "b", "p.0.role": "a", "p.0.tool_calls.0.name": "f"}, "p.")
    [{'role': 'a', 'tool_calls': {'0': {'name': 'f'}}}, {'role': 'b'}]
    """
    found = {}
    for name, value in attributes.items():
        if name.startswith(prefix):
            index, *path = name.removeprefix(prefix).split(".")
            node = found.setdefault(index, {})
            for step in path[:-1]:
                node = node.setdefault(step, {}) if isinstance(node, dict) else {}
            if path and isinstance(node, dict):
                node[path[-1]] = value
    return _ordered(found)


def _ordered(by_index):
    """Return the values of an object whose names are 0, 1, ..., in order."""
    names = [name for name in by_index if name.isdecimal()] if isinstance(by_index, dict) else []
    return [by_index[name] for name in sorted(names, key=int)]


def _read_indexed(given):
    """Return a message that attributes spell out, OpenLLMetry's or OpenInference's."""
    given = _object(given.get("message", given))
    made = {"role": given.get("role"), "content": _read_content(given)}
    calls = load_text(given.get("tool_calls"))
    calls = calls if isinstance(calls, list) else _ordered(calls)
    calls = [_object(_object(one).get("tool_call", one)) for one in calls]
    if calls:
        functions = [one["function"] if isinstance(one.get("function"), dict) else one for one in calls]
        made["tool_calls"] = [
            _make_call(one.get("id"), function.get("name"), function.get("arguments"))
            for one, function in zip(calls, functions, strict=True)
        ]
    elif made["content"] is None and made["role"] == "assistant":
        made["content"] = ""
    for name in ("tool_call_id", "name"):
        if given.get(name) not in EMPTY:
            made[name] = given[name]
    return made


def _object(value):
    return value if isinstance(value, dict) else {}


def _read_content(given):
    """Return a message's content: parts that are spelt out, or that a text holds as JSON, or the text itself."""
    if contents := _ordered(given.get("contents")):
        parts = [_object(_object(one).get("message_content")) for one in contents]
        if any(part.get("type") != "text" for part in parts):
            raise Refused("with_images", "has a content that is no text")
        return _join([part.get("text") or "" for part in parts])
    parts = load_text(given.get("content"))
    is_parts = isinstance(parts, list) and all(_object(part).get("type") in _PARTS for part in parts)
    return parts if is_parts and parts else given.get("content")


def _read_event(name, given):
    """Return the message of one of the older events; its fields may lie in a body of JSON text."""
    body = load_text(given.get("body", given.get("event_body")))
    given = {**given, **body} if isinstance(body, dict) else given
    inner = load_text(given.get("message"))
    given = {**given, **inner} if isinstance(inner, dict) else given
    made = {"role": _EVENT_ROLES.get(name, "assistant"), "content": given.get("content")}
    calls = load_text(given.get("tool_calls"))
    if isinstance(calls, list) and calls:
        made["tool_calls"] = calls
    elif made["content"] is None and made["role"] == "assistant":
        made["content"] = ""
    if made["role"] == "tool" and given.get("id") is not None:
        made["tool_call_id"] = given["id"]
    return made


def _read_tools(attributes):
    """Return the tools that a span names: a list in JSON, or one tool or function per index."""
    given = load_text(attributes.get("gen_ai.tool.definitions", attributes.get("llm.request.functions")))
    if isinstance(given, list):
        return [read_tool(tool) for tool in given]
    tools = [load_text(_object(one.get("tool")).get("json_schema")) for one in _collect(attributes, "llm.tools.")]
    functions = [
        {name: load_text(value) for name, value in one.items()}
        for one in _collect(attributes, "llm.request.functions.")
    ]
    return [read_tool(tool) for tool in tools or functions]
