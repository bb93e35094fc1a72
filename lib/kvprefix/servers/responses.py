"""Bodies of `/v1/responses`: the chat messages that the server makes of their items.

Source: vLLM 0.32, `entrypoints/openai/responses/protocol.py` (`input_item_parsing`) and `utils.py`
(`construct_input_messages`), and the item types of the openai package.
"""

import json

from kvprefix.servers.chat import find_settings, finish_prompt, pass_on
from kvprefix.servers.prompt import Refused
from kvprefix.servers.tools import write_function

_ROLES = ("user", "assistant", "system", "developer")
_OPEN = ("in_progress", "incomplete")  # the status of an item that the reply goes on with
_CUSTOM = {  # the parameters of the function that a custom tool is shown as
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The freeform text payload for this tool."}},
    "required": ["input"],
    "additionalProperties": False,
}
# Tools of the provider: they vanish
_HOSTED = {
    "apply_patch", "code_interpreter", "computer", "computer_use_preview", "file_search", "image_generation",
    "local_shell", "mcp", "shell", "tool_search", "web_search", "web_search_2025_08_26", "web_search_preview",
    "web_search_preview_2025_03_11",
}  # fmt: skip


def read_responses(body, facts, rules):
    """Return the Prompt of a Responses body; raise Refused."""
    if body.get("previous_response_id") is not None:
        raise Refused("previous_response_id", "the messages before it are not in the body")
    if body.get("prompt") is not None:
        raise Refused("settings", "`prompt` is a template of the provider's")
    given, instructions = body.get("input"), body.get("instructions")
    if not isinstance(given, str | list) or not isinstance(instructions, str | None):
        raise Refused("no messages", "`input` is neither text nor items, or `instructions` is no text")
    messages = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    for item in given if isinstance(given, list) else ():
        _add_item(messages, item)
    if not messages:
        raise Refused("no messages", "`input` has no item")
    reasoning = body.get("reasoning")
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else reasoning
    continues = isinstance(given, list) and _is_open(given[-1:])
    how = {"continue_final_message": continues, "add_generation_prompt": not continues, "add_special_tokens": True}
    messages = [pass_on(message, facts, rules, calls=message.get("tool_calls")) for message in messages]
    return finish_prompt(how, messages, _read_tools(body.get("tools")), facts, find_settings(body, effort))


def _is_open(items):
    return any(
        item.get("type", "message") in ("message", "reasoning") and item.get("status") in _OPEN for item in items
    )


def _add_item(messages, item):
    """Add an item to the messages: to the assistant's message before it if that still lacks such a part."""
    if not isinstance(item, dict):
        raise Refused("input items", f"an item is no object: {str(item)[:80]}")
    kind, last = item.get("type"), messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    if kind in ("function_call", "custom_tool_call"):
        call = _read_call(item)
        if last is not None:
            last.setdefault("tool_calls", []).append(call)
        else:
            messages.append({"role": "assistant", "tool_calls": [call]})
    elif kind == "reasoning":
        _add_part(messages, last, "reasoning", _read_reasoning(item))
    elif kind in ("function_call_output", "custom_tool_call_output"):
        messages.append(_read_output(item))
    elif kind in ("message", None) and item.get("role") == "assistant":
        _add_part(messages, last, "content", _read_reply(item))
    elif kind in ("message", None) and item.get("role") in _ROLES:
        messages.append(_read_message(item))
    else:
        raise Refused("input items", f"an item of the type {kind!r} is not rendered")


def _add_part(messages, last, name, value):
    if last is not None and last.get(name) is None:
        last[name] = value
    else:
        messages.append({"role": "assistant", name: value})


def _read_call(item):
    """Return a call of a chat message."""
    name, call_id, custom = item.get("name"), item.get("call_id"), item["type"] == "custom_tool_call"
    text = item.get("input" if custom else "arguments")
    if not all(isinstance(one, str) for one in (name, call_id, text)):
        raise Refused("input items", f"a call without name, id or arguments as text: {str(item)[:80]}")
    if custom:
        text = json.dumps({"input": text}, ensure_ascii=False)
    elif item.get("namespace"):
        name = f"{item['namespace']}__{name}"
    # the server gives names before arguments here, the other way round than of chat bodies
    return {"id": call_id, "function": {"name": name, "arguments": text}, "type": "function"}


def _read_reasoning(item):
    """Return the text of a reasoning item: the first of its contents, else of its summary."""
    if item.get("encrypted_content"):
        raise Refused("encrypted reasoning", "a reasoning item whose text is encrypted")
    for name, kind in (("content", "reasoning_text"), ("summary", "summary_text")):
        parts = item.get(name)
        if parts is None and name == "content":
            continue
        if not isinstance(parts, list) or not all(_is_text(part, kind) for part in parts):
            raise Refused("input items", f"a reasoning item with an odd {name}: {str(item)[:80]}")
    texts = [part["text"] for part in [*(item.get("content") or [])[:1], *item["summary"][:1]]]
    return texts[0] if texts else ""


def _is_text(part, *kinds):
    return isinstance(part, dict) and part.get("type") in kinds and isinstance(part.get("text"), str)


def _read_output(item):
    """Return a tool's message."""
    output = item.get("output")
    if not isinstance(item.get("call_id"), str) or not isinstance(output, str | list):
        raise Refused("input items", f"an output without an id, or that is neither text nor parts: {str(item)[:80]}")
    return {"role": "tool", "content": output, "tool_call_id": item["call_id"]}


def _read_reply(item):
    """Return the text of an assistant's message: the first of its parts."""
    content = item.get("content")
    if isinstance(content, str):
        return content
    kinds = ("output_text",) if item.get("type") == "message" else ("input_text",)
    if not isinstance(content, list) or not content or not _is_text(content[0], *kinds):
        raise Refused("content", f"an assistant's message does not begin with a text: {str(content)[:80]}")
    return content[0]["text"]


def _read_message(item):
    content = item.get("content")
    if not isinstance(content, str | list):
        raise Refused("content", f"the content of a message of {item['role']} is neither text nor parts")
    return {"role": item["role"], "content": content}


def _read_tools(tools):
    """Return the functions among a body's tools as a template gets them; tools of the provider vanish."""
    if tools is None or tools == []:
        return None
    if not isinstance(tools, list):
        raise Refused("tools", "`tools` is no list")
    return [{"type": "function", "function": function} for tool in tools for function in _read_tool(tool)]


def _read_tool(tool):
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind == "function":
        return [write_function(tool)]
    if kind == "custom":
        if isinstance(tool.get("format"), dict) and tool["format"].get("type") == "grammar":
            raise Refused("tools", "a custom tool with a grammar")
        return [write_function({**tool, "parameters": _CUSTOM, "strict": None, "defer_loading": None})]
    if kind == "namespace":
        inner = [one for one in tool.get("tools") or () if one.get("type") == "function"]
        return [write_function({**one, "name": f"{tool.get('name')}__{one.get('name')}"}) for one in inner]
    if kind not in _HOSTED:
        raise Refused("tools", f"a tool of the unknown type {kind!r}")
    return []
