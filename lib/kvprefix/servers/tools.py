"""Tools as a chat template gets them, and calls of tools in messages.

Source: vLLM 0.32, `ChatCompletionToolsParam`, `FunctionDefinition` and `_postprocess_messages`.
"""

import json

from kvprefix.servers.prompt import Refused

_FUNCTION = ("name", "description", "parameters", "strict", "defer_loading")


def read_tools(tools):
    """Return a chat body's tools, written anew: known keys in the server's order.

    `description` and `parameters` are there even if they are null; `strict` and `defer_loading` only if they are not.

    >>> read_tools([{"function": {"x": 1, "name": "f"}, "type": "function"}])
    [{'type': 'function', 'function': {'name': 'f', 'description': None, 'parameters': None}}]
    """
    if tools is None:
        return None
    if not isinstance(tools, list) or not tools:
        raise Refused("tools", f"`tools` is {'an empty list' if tools == [] else 'no list'}")
    return [_read_tool(tool) for tool in tools]


def _read_tool(tool):
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        raise Refused("tools", f"a tool is no function: {str(tool)[:80]}")
    deferred = tool.get("defer_loading")
    function = write_function(tool.get("function"), deferred)
    return {"type": "function", "function": function} | ({} if deferred is None else {"defer_loading": deferred})


def write_function(function, deferred=None):
    """Return a function's definition with known keys in the server's order; `deferred` if it does not say itself."""
    kinds = {"name": str, "description": str, "parameters": dict, "strict": bool, "defer_loading": bool}
    given = function if isinstance(function, dict) else {}
    if not isinstance(given.get("name"), str) or not all(
        given.get(name) is None or isinstance(given[name], kinds[name]) for name in _FUNCTION
    ):
        raise Refused("tools", f"a tool's function lacks a name, or has a field of another kind: {str(function)[:80]}")
    values = {name: given.get(name) for name in _FUNCTION}
    if values["defer_loading"] is None:
        values["defer_loading"] = deferred
    return {name: value for name, value in values.items() if value is not None or name in ("description", "parameters")}


def check_tool_choice(body):
    """Raise Refused if a chat body's `tool_choice` fits none of its tools. It changes no prompt."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if choice is None or choice == "none":
        return
    if tools is None:
        raise Refused("tool_choice", "there is a `tool_choice`, but no `tools`")
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if choice.get("type", "function") != "function" or not any(tool["function"]["name"] == name for tool in tools):
            raise Refused("tool_choice", f"it names none of the tools: {str(choice)[:80]}")
    elif choice not in ("auto", "required"):
        raise Refused("tool_choice", f"it is {choice!r}")


def check_calls(calls):
    """Return the calls of an assistant's message, keys in the server's order, extra keys last; raise Refused."""
    if calls is None:
        return None
    if not isinstance(calls, list):
        raise Refused("tool calls", "`tool_calls` is no list")
    return [_check_call(call) for call in calls]


def _check_call(call):
    if not is_call(call):
        said = f"a call without id, type or function, or arguments that are no text: {str(call)[:80]}"
        raise Refused("tool calls", said)
    function = _put_first(call["function"], "arguments", "name")
    return _put_first({**call, "function": function}, "id", "function", "type")


def _put_first(fields, *names):
    return {name: fields[name] for name in names} | fields


def is_call(call):
    """Tell whether a call of a function has all that the API asks for."""
    function = call.get("function") if isinstance(call, dict) else None
    return (
        isinstance(function, dict)
        and isinstance(call.get("id"), str)
        and call.get("type") == "function"
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), str)
    )


def parse_call(call):
    """Return a call whose arguments are an object."""
    function = call["function"]
    return {**call, "function": {**function, "arguments": parse_arguments(function["arguments"])}}


def parse_arguments(text):
    """Return a call's arguments as an object: an empty one for what is no JSON, or JSON but no object.

    The server only warns of those.

    >>> parse_arguments('{"b": 2.50, "a": 1}'), parse_arguments("[1]"), parse_arguments("")
    ({'b': 2.5, 'a': 1}, {}, {})
    """
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError:
        return {}
    except (ValueError, RecursionError) as error:  # too many digits, or too deep
        raise Refused("tool calls", f"arguments that cannot be read: {str(error)[:80]}") from error
    return parsed if isinstance(parsed, dict) else {}
