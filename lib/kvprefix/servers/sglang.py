"""Bodies of `/v1/chat/completions` as SGLang reads them.

Source: SGLang 0.5.23, `srt/entrypoints/openai/protocol.py` and `serving_chat.py` (`_apply_jinja_template`),
`srt/parser/jinja_template_utils.py`; for a model of text alone, with a template of Hugging Face's kind.
"""

import json

from kvprefix.servers.prompt import Prompt, Refused

_ROLES = ("system", "assistant", "tool", "function", "developer", "latest_reminder", "root")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max")
_FIELDS = ("tool_call_id", "name", "phase", "reasoning_content", "tool_calls", "tools", "prefix")  # after the content
_MEDIA = ("image_url", "video_url", "audio_url", "input_audio")


def read_sglang_chat(body, facts, rules, memo):
    """Return the Prompt of a chat body; raise Refused."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise Refused("no messages", "`messages` is no list with one or more")
    if body.get("continue_final_message", False) is not False:
        raise Refused("settings", "`continue_final_message`: the open text is encoded apart, which is not done here")
    messages = [memo.apply(_read_message, message, facts.sglang_format, rules.joiner) for message in given]
    return Prompt(messages, _choose_tools(body), _find_settings(body))


def _find_settings(body):
    """Return the template's variables: the effort, what follows from it, and those that the body gives."""
    kwargs, effort, wish = body.get("chat_template_kwargs"), body.get("reasoning_effort"), body.get("reasoning")
    if not isinstance(kwargs, dict | None) or "chat_template" in (kwargs or {}):
        raise Refused("settings", "`chat_template_kwargs` is no object, or has a template of its own")
    thinks = None
    if isinstance(wish, dict):
        effort = wish.get("effort", wish.get("reasoning_effort")) or effort
        thinks = True if wish.get("enabled", wish.get("enable")) else None
    if effort is not None:
        if effort not in _EFFORTS:
            raise Refused("settings", f"`reasoning_effort` is {effort!r}")
        thinks = effort != "none"
    settings = {} if effort is None else {"reasoning_effort": effort}
    implied = {} if thinks is None else {"thinking": thinks, "enable_thinking": thinks}
    return settings | implied | (kwargs or {})


def _read_message(message, content_format, joiner):
    """Return a message as the template gets it: fields in the server's order, those that are null left out."""
    role = message.get("role") if isinstance(message, dict) else None
    if role != "user" and (not isinstance(role, str) or role.lower() not in _ROLES):
        raise Refused("messages", f"a message of none of the server's roles: {str(message)[:80]}")
    role, content = role if role == "user" else role.lower(), message.get("content")
    if content is None and role != "user":
        content = ""
    if not isinstance(content, str | list):
        raise Refused("content", f"the content of a message of {role} is neither text nor parts")
    if isinstance(content, list):
        content = _read_parts(content, role, content_format, joiner)
    read = {"role": role, "content": content}
    if role == "user":
        return read
    for name in _FIELDS:
        if message.get(name) is not None:
            read[name] = _read_field(name, message[name], role)
    if isinstance(message.get("content"), list) and content_format == "openai":
        read["content"] = read.pop("content")  # here the server puts it last
    return read


def _read_parts(parts, role, content_format, joiner):
    """Return parts as a list, or the texts as one; thinking is left out, and a tool's parts are always one text."""
    kept = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _MEDIA:
            raise Refused("images and other media", f"a part of type {kind}, and the model takes text alone")
        thought = [part.get(name) for name in ("thinking", "text")] if kind in ("thinking", "reasoning") else []
        if kind == "text" and isinstance(part.get("text"), str):
            kept.append({"type": "text", "text": part["text"]})
        elif kind == "tool_reference" and isinstance(part.get("name"), str):
            kept += [{"type": kind, "name": part["name"]}] if content_format == "openai" else []
        elif role != "assistant" or thought.count(None) != 1 or not isinstance(max(thought, key=bool), str):
            raise Refused("content", f"a part of a message of {role} is none of the server's: {str(part)[:80]}")
    if content_format == "openai" and not (role == "tool" and all(part["type"] == "text" for part in kept)):
        return kept
    return joiner.join(part["text"] for part in kept)


def _read_field(name, value, role):
    if name == "tool_calls":
        if not isinstance(value, list):
            raise Refused("tool calls", "`tool_calls` is no list")
        return [_read_call(call, role) for call in value]
    if name == "tools":
        return [_read_tool(tool) for tool in value]
    if not isinstance(value, bool if name == "prefix" else str):
        raise Refused("messages", f"the field {name} of a message of {role} is {str(value)[:80]}")
    return value


def _read_call(call, role):
    """Return a call with all of the server's fields; the arguments of an assistant's as an object."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise Refused("tool calls", f"a call of no function: {str(call)[:80]}")
    arguments = function.get("arguments")
    if isinstance(arguments, str) and role == "assistant":
        arguments = _parse(arguments)
    kinds = ((call.get("id"), str), (call.get("index"), int), (function.get("name"), str), (arguments, str | dict))
    if not all(value is None or isinstance(value, kind) for value, kind in kinds):
        raise Refused("tool calls", f"a call with a field of another kind: {str(call)[:80]}")
    function = {"name": function.get("name"), "arguments": arguments}
    return {"id": call.get("id"), "index": call.get("index"), "type": "function", "function": function}


def _parse(text):
    """Return a call's arguments; what is no JSON object is refused, and so are NaN and Infinity.

    The server reads JSON with orjson: whole numbers beyond 64 bits become fractions.
    """

    def refuse(constant):
        raise ValueError(constant)

    def read_whole(digits):
        return number if -(2**63) <= (number := int(digits)) < 2**64 else float(digits)

    try:
        parsed = json.loads(text, parse_constant=refuse, parse_int=read_whole)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise Refused("tool calls", f"arguments that are no JSON object: {text[:80]}")
    return parsed


def _choose_tools(body):
    """Return the tools that are rendered: none with `tool_choice` none, and only the one that is named."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not isinstance(tools, list | None):
        raise Refused("tools", "`tools` is no list")
    read = [_read_tool(tool) for tool in tools or ()]
    if isinstance(choice, dict):
        read = [tool for tool in read if isinstance(choice.get("function"), dict)
                and tool["function"]["name"] == choice["function"].get("name")]  # fmt: skip
    elif choice not in (None, "auto", "required", "none"):
        raise Refused("tool_choice", f"it is {str(choice)[:80]}")
    if (isinstance(choice, dict) or choice == "required") and not read:
        raise Refused("tool_choice", f"it fits none of the tools: {str(choice)[:80]}")
    return None if choice == "none" or not read else read


def _read_tool(tool):
    """Return a tool: its function's keys as they were given, then those that are missing, as null."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not all(
        isinstance(one, str) for one in (function.get("name"), tool.get("type", "function"))
    ):
        raise Refused("tools", f"a tool without a function that has a name: {str(tool)[:80]}")
    deferred = tool.get("defer_loading")
    kinds = {"description": str, "strict": bool, "defer_loading": bool}
    if not all(isinstance(function.get(name), kind | None) for name, kind in kinds.items()):
        raise Refused("tools", f"a tool's function has a field of another kind: {str(function)[:80]}")
    values = {"description": None, "name": None, "parameters": None, "strict": None, "defer_loading": deferred}
    values |= {name: value for name, value in function.items() if name in values and value is not None}
    order = [name for name in function if name in values] + [name for name in values if name not in function]
    held = {n: values[n] for n in order if values[n] is not None or n not in ("strict", "defer_loading")}
    return {"type": tool.get("type", "function"), "function": held, "defer_loading": deferred}
