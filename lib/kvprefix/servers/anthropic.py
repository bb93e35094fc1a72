"""Bodies of `/v1/messages`: the chat body that the server makes of them.

Source: vLLM 0.32, `entrypoints/anthropic/protocol.py` and `serving.py` (`to_chat_completion_request`).
"""

import json

from kvprefix.servers.chat import find_settings, finish_prompt, read_message
from kvprefix.servers.content import BILLING_HEADER
from kvprefix.servers.prompt import Refused
from kvprefix.servers.tools import write_function

_TEXTS = ("text", "id", "tool_use_id", "name", "tool_name", "thinking", "signature", "data")
_BLOCKS = (
    "text", "image", "tool_use", "tool_result", "tool_reference", "thinking", "redacted_thinking", "tool_addition",
    "tool_removal",
)  # fmt: skip
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


def read_messages(body, facts, rules, memo):
    """Return the Prompt of an Anthropic body; raise Refused."""
    given = body.get("messages")
    if not isinstance(given, list):
        raise Refused("no messages", "`messages` is no list")
    for message in given:
        memo.apply(_check_message, message)
    merges = facts.refuses_late_system
    messages = _read_system(body.get("system"), given if merges else ())
    for message in given:
        if message["role"] != "system":
            messages += memo.apply(_read_turn, message)
        elif not merges and (text := _join_system(message["content"])):
            messages.append({"role": "system", "content": text})
    if not messages:
        raise Refused("no messages", "no message holds anything")
    tools = _change_tools(_read_tools(body.get("tools")), given)
    _check_choice(body.get("tool_choice"))
    settings = find_settings(body, _find_effort(body, facts))
    messages = [memo.apply(read_message, message, facts, rules) for message in messages]
    return finish_prompt({}, messages, tools, facts, settings)


def _check_message(message):
    """Raise Refused if a message is none of the API's."""
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("user", "assistant", "system"):
        raise Refused("messages", f"a message of none of the API's roles: {str(message)[:80]}")
    content = message.get("content")
    if not isinstance(content, str | list):
        raise Refused("content", f"the content of a message of {role} is neither text nor blocks: {str(content)[:80]}")
    for block in content if isinstance(content, list) else ():
        _check_block(block)
        if block["type"] in ("tool_addition", "tool_removal") and role != "system":
            raise Refused("content", f"a {block['type']} in a message of {role}")


def _check_block(block):
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in _BLOCKS:
        raise Refused("content", f"a block of the unknown type {kind!r}")
    inner = block.get("content")
    if (
        not all(isinstance(block.get(name), str | None) for name in _TEXTS)
        or not all(isinstance(block.get(name), dict | None) for name in ("source", "input"))
        or not isinstance(inner, str | list | None)
        or isinstance(inner, list)
        and not all(isinstance(one, dict) for one in inner)
    ):
        raise Refused("content", f"a block of type {kind} has a field of another kind: {str(block)[:80]}")


def _read_system(system, given):
    """Return the system message of a body: its `system`, and with it the system texts of the messages `given`."""
    if not isinstance(system, str | list | None):
        raise Refused("system", "`system` is neither text nor blocks")
    if isinstance(system, list):
        for block in system:
            _check_block(block)
            if block["type"] in ("tool_addition", "tool_removal"):
                raise Refused("system", f"a {block['type']} in `system`")
    texts = [system if isinstance(system, str) else _join_system(system or [])]
    texts += [_join_system(message["content"]) for message in given if message["role"] == "system"]
    return [{"role": "system", "content": "".join(texts)}] if any(texts) else []


def _join_system(content):
    """Return a system text without billing headers, "" for none; blocks follow each other with nothing between.

    >>> _join_system([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    'ab'
    """
    texts = [content] if isinstance(content, str) else [b.get("text") or "" for b in content if b["type"] == "text"]
    return "".join(text for text in texts if not text.startswith(BILLING_HEADER))


def _read_turn(message):
    """Return the chat messages of a turn: those of its tool results first, then what else it holds, if anything."""
    role, content = message["role"], message["content"]
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    results, parts, calls, thoughts = [], [], [], []
    for block in content:
        kind = block["type"]
        if kind == "text" and block.get("text"):
            parts.append({"type": "text", "text": block["text"]})
        elif kind == "image" and block.get("source"):
            raise Refused("images and other media", "an image, and the model takes text alone")
        elif kind == "thinking" and block.get("thinking") is not None:
            thoughts.append(block["thinking"])
        elif kind == "tool_use":
            calls.append(_read_use(block))
        elif kind == "tool_result" and role == "user":
            results += _read_result(block)
        elif kind == "tool_result":
            parts.append({"type": "text", "text": f"Tool result: {block['content'] if block.get('content') else ''}"})
    turn = {"role": role}
    if thoughts:
        turn["reasoning"] = "".join(thoughts)
    if calls:
        turn["tool_calls"] = calls
    if parts:
        turn["content"] = parts[0]["text"] if len(parts) == 1 else parts
    return results if role == "user" and not parts else [*results, turn]


def _read_use(block):
    """Return a call of a chat message; the server numbers one without an id by its clock, here it is 0."""
    function = {"name": block.get("name") or "", "arguments": json.dumps(block.get("input") or {})}
    return {"id": block.get("id") or "call_0", "type": "function", "function": function}


def _read_result(block):
    """Return the tool messages of a result: its texts, and the tools that it refers to."""
    inner, references = block.get("content"), []
    if isinstance(inner, list):
        if any(part.get("type") == "image" for part in inner):
            raise Refused("images and other media", "an image in a tool's result, and the model takes text alone")
        names = [part.get("tool_name") or part.get("name") for part in inner if part.get("type") == "tool_reference"]
        references = [{"type": "tool_reference", "name": name} for name in names if name]
        texts = [part.get("text", "") for part in inner if part.get("type") == "text"]
        if not all(isinstance(text, str) for text in texts):
            raise Refused("content", "a text of a tool's result is no text")
        inner = "\n".join(texts)
    said = {"role": "tool", "tool_call_id": block.get("tool_use_id") or ""}
    return [{**said, "content": inner or ""}, *([{**said, "content": references}] if references else [])]


def _read_tools(tools):
    """Return the functions of a body's tools, by name in their order; None without tools."""
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise Refused("tools", "`tools` is no list")
    return [_read_tool(tool) for tool in tools]


def _read_tool(tool):
    schema = tool.get("input_schema") if isinstance(tool, dict) else None
    if not isinstance(schema, dict):
        raise Refused("tools", f"a tool without `input_schema` (one of the provider's own?): {str(tool)[:80]}")
    return write_function({**tool, "parameters": schema if "type" in schema else {**schema, "type": "object"}})


def _change_tools(functions, messages):
    """Return the tools at the end of the messages: those of a body, changed by additions and removals."""
    blocks = [block for message in messages if isinstance(message["content"], list) for block in message["content"]]
    changes = [block for block in blocks if block["type"] in ("tool_addition", "tool_removal")]
    if changes:
        functions = _apply_changes({function["name"]: function for function in functions or ()}, changes)
    return None if functions is None else [{"type": "function", "function": function} for function in functions]


def _apply_changes(functions, changes):
    removed = set()
    for block in changes:
        change = block.get("tool") if isinstance(block.get("tool"), dict) else {}
        added = block["type"] == "tool_addition"
        if change.get("type") == "tool_definition" and added:
            function = _read_tool(change.get("definition"))
            name = function["name"]
            functions[name] = function
        elif change.get("type") == "tool_reference" and change.get("name") in functions:
            name = change["name"]
            if added:
                functions[name] = {key: value for key, value in functions[name].items() if key != "defer_loading"}
        else:
            raise Refused("tools", f"a {block['type']} of no tool of the body: {str(change)[:80]}")
        removed = removed - {name} if added else removed | {name}
    return [function for name, function in functions.items() if name not in removed]


def _check_choice(choice):
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if choice is not None and kind not in ("auto", "any", "tool", "none") or kind == "tool" and not choice.get("name"):
        raise Refused("tool_choice", f"it is {str(choice)[:80]}")


def _find_effort(body, facts):
    """Return the reasoning effort that a body asks for, None if it does not."""
    config, thinking = body.get("output_config") or {}, body.get("thinking")
    effort = config.get("effort") if isinstance(config, dict) else config
    if effort not in (None, *_EFFORTS):
        raise Refused("settings", f"`output_config` asks for the effort {effort!r}")
    kind = thinking.get("type") if isinstance(thinking, dict) else thinking
    if kind == "disabled":
        return facts.disabled_effort
    if kind == "enabled":
        budget, most = thinking.get("budget_tokens"), body.get("max_tokens") or 0
        if not isinstance(budget, int) or not 1024 <= budget < most:
            raise Refused("settings", "`thinking` has a budget below 1,024, or not below `max_tokens`")
    elif thinking is not None and kind != "adaptive":
        raise Refused("settings", f"`thinking` is {str(thinking)[:80]}")
    return effort
