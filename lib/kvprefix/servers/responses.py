"""Bodies of `/v1/responses`: the chat messages that the server makes of their items.

Source: vLLM 0.32, `entrypoints/openai/responses/protocol.py` (`input_item_parsing`) and `utils.py`
(`construct_input_messages`), and the item types of the openai package.
"""

import json

from kvprefix.servers.chat import EFFORTS, find_settings, finish_prompt, pass_on
from kvprefix.servers.prompt import Refused
from kvprefix.servers.tools import write_function

_ROLES = ("user", "assistant", "system", "developer")
_MEDIA = ("input_image", "input_file", "input_audio")
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


def read_responses(body, facts, rules, memo):
    """Return the Prompt of a Responses body; raise Refused. Items are joined to messages, so `memo` is of no use."""
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
    tools = _read_tools(body.get("tools", []))
    _check_choice(body.get("tool_choice", "auto"), body.get("tools") or [])
    reasoning = body.get("reasoning")
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else reasoning
    if effort not in (None, *EFFORTS):
        raise Refused("settings", f"`reasoning` asks for the effort {effort!r}")
    continues = isinstance(given, list) and _is_open(given[-1:])
    how = {"continue_final_message": continues, "add_generation_prompt": not continues, "add_special_tokens": True}
    messages = [pass_on(message, facts, rules, calls=message.get("tool_calls")) for message in messages]
    return finish_prompt(how, messages, tools, facts, find_settings(body, effort))


def _is_open(items):
    return any(
        item.get("type", "message") in ("message", "reasoning") and item.get("status") in _OPEN for item in items
    )


def _add_item(messages, item):
    """Add an item to the messages: to the assistant's message before it if that still lacks such a part."""
    if not isinstance(item, dict):
        raise Refused("input items", f"an item is no object: {str(item)[:80]}")
    named = item.get("type") == "reasoning" or item.get("role") == "assistant" and isinstance(item.get("content"), list)
    if named and not isinstance(item.get("id", ""), str):
        raise Refused("input items", f"an item whose id is no text: {str(item)[:80]}")
    kind, last = item.get("type", "message"), messages[-1] if messages and messages[-1]["role"] == "assistant" else None
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
    elif kind == "message" and item.get("role") == "assistant" and (item.get("content") != [] or "type" in item):
        _add_part(messages, last, "content", _read_reply(item))
    elif kind == "message" and item.get("role") in _ROLES:
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
    needed = item["type"] == "custom_tool_call_output" or "call_id" in item
    if needed and not isinstance(item.get("call_id"), str) or not _is_content(output):
        raise Refused("input items", f"an output that is neither text nor the API's parts: {str(item)[:80]}")
    return {"role": "tool", "content": output, "tool_call_id": item.get("call_id")}


def _read_reply(item):
    """Return the text of an assistant's message: the first of its parts."""
    content = item.get("content")
    if isinstance(content, str):
        if content and isinstance(item.get("id"), str) and "status" in item:
            raise Refused("content", "an assistant's message with id and status whose content is no list")
        return content
    if item.get("status", "completed") not in ("completed", *_OPEN):
        raise Refused("input items", f"a message with the status {item['status']!r}")
    named = item.get("type") == "message" or isinstance(item.get("id"), str) and "status" in item
    is_output = named and isinstance(content, list) and all(map(_is_output, content))
    if not is_output and not _is_content(content) or is_output and not content:
        raise Refused("content", f"an assistant's message with none of the API's parts: {str(content)[:80]}")
    if content and not isinstance(content[0].get("text"), str):
        raise Refused("content", f"an assistant's message does not begin with a text: {str(content)[:80]}")
    return content[0]["text"] if content else ""


def _is_output(part):
    refusal = isinstance(part, dict) and part.get("type") == "refusal" and isinstance(part.get("refusal"), str)
    return refusal or _is_text(part, "output_text") and isinstance(part.get("annotations", []), list)


def _read_message(item):
    if not _is_content(content := item.get("content")):
        raise Refused("content", f"the content of a message of {item['role']} is neither text nor the API's parts")
    return {"role": item["role"], "content": content}


def _is_content(content):
    return isinstance(content, str) or isinstance(content, list) and all(map(_is_input, content))


def _is_input(part):
    return _is_text(part, "input_text") or isinstance(part, dict) and part.get("type") in _MEDIA


def _read_tools(tools):
    """Return the functions among a body's tools as a template gets them; tools of the provider vanish."""
    if not isinstance(tools, list):
        raise Refused("tools", "`tools` is no list")
    if not tools:
        return None
    return [{"type": "function", "function": function} for tool in tools for function in _read_tool(tool)]


def _check_choice(choice, tools):
    """Raise Refused if `tool_choice` fits none of the tools. It changes no prompt."""
    named = isinstance(choice, dict) and choice.get("type") in ("function", "custom")
    inner = [(tool, one) for tool in tools for one in tool.get("tools") or [tool]]
    names = {name for tool, one in inner for name in (one.get("name"), f"{tool.get('name')}__{one.get('name')}")}
    if choice is None or choice == "required" and not tools or named and choice.get("name") not in names:
        raise Refused("tool_choice", f"it fits none of the tools: {str(choice)[:80]}")


def _read_tool(tool):
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str):
        raise Refused("tools", f"a tool without a type: {str(tool)[:80]}")
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
