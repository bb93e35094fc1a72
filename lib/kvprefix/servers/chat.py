"""Bodies of `/v1/chat/completions`: what a chat template gets of them.

Source: vLLM 0.32, `entrypoints/openai/chat_completion/protocol.py`, `renderers/chat_utils.py` and `renderers/hf.py`.
"""

from kvprefix.servers.content import is_strict, read_content
from kvprefix.servers.prompt import Prompt, Refused
from kvprefix.servers.tools import check_calls, check_tool_choice, is_call, parse_call, read_tools

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SHAPES = ("text", "json_object", "json_schema", "structural_tag")  # of answers
# The API's fields of messages, by role, and those of the server's free type
_TYPED = {
    **dict.fromkeys(("system", "developer", "user"), ("role", "content", "name")),
    "assistant": ("role", "audio", "content", "function_call", "name", "refusal", "tool_calls"),
    "tool": ("role", "content", "tool_call_id"),
    "function": ("role", "content", "name"),
}
_OWN = {"messages", "add_generation_prompt", "continue_final_message"}  # variables that only the request itself sets
_FREE = ("role", "content", "name", "tool_call_id", "tool_calls", "reasoning", "tools", "task")


def read_chat(body, facts, rules, memo):
    """Return the Prompt of a chat body; raise Refused."""
    _check_settings(body)
    tools = read_tools(body.get("tools"))
    check_tool_choice(body)
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise Refused("no messages", "`messages` is no list with one or more")
    messages = [memo.apply(read_message, message, facts, rules) for message in given]
    return finish_prompt(body, messages, tools, facts, find_settings(body, body.get("reasoning_effort")))


def finish_prompt(body, messages, tools, facts, settings):
    """Return the Prompt of messages and tools that are as the template gets them, but for roles that it does not know.

    Parameters
    ----------
    body : dict
        Its `add_generation_prompt`, `continue_final_message`, `documents` and `add_special_tokens` are read.
    messages : list of dict
    tools : list of dict or None
    facts : TemplateFacts
    settings : dict
        Variables of the template, before those that it does not read are left out.
    """
    if not facts.knows_developer and any(message["role"] == "developer" for message in messages):
        messages = _merge_systems([_as_system(message) for message in messages])
    settings = dict(settings)
    tools, documents = settings.pop("tools", tools), settings.pop("documents", None)
    if body.get("documents") is not None:
        documents = body["documents"]
    settings = {name: value for name, value in settings.items() if name in facts.variables - _OWN}
    if documents is not None:
        settings["documents"] = documents
    continues, generation = bool(body.get("continue_final_message")), body.get("add_generation_prompt", True)
    if continues and generation:
        raise Refused("settings", "`continue_final_message` and `add_generation_prompt` are both set")
    return Prompt(messages, tools, settings, bool(generation), continues, bool(body.get("add_special_tokens")))


def find_settings(body, effort):
    """Return the variables that a body gives to the template: its `chat_template_kwargs`, and the reasoning effort."""
    kwargs = body.get("chat_template_kwargs") or {}
    if not isinstance(kwargs, dict) or kwargs.get("chat_template") is not None:
        raise Refused("settings", "`chat_template_kwargs` is no object, or has a template of its own")
    settings = dict(kwargs)
    if effort is not None:
        settings |= {"reasoning_effort": effort} | (
            {} if "enable_thinking" in kwargs else {"enable_thinking": effort != "none"}
        )
    return {name: value for name, value in settings.items() if value is not None and value != "auto"}


def _check_settings(body):
    if body.get("chat_template") is not None:
        raise Refused("settings", "a template of its own, and the server trusts none of a request")
    if body.get("reasoning_effort") not in (None, *EFFORTS):
        raise Refused("settings", f"`reasoning_effort` is {body['reasoning_effort']!r}")
    if body.get("stream_options") and not body.get("stream"):
        raise Refused("settings", "`stream_options` without `stream`")
    for name in ("add_generation_prompt", "continue_final_message"):
        if not isinstance(body.get(name, False), bool):
            raise Refused("settings", f"`{name}` is {body[name]!r}")
    shape = body.get("response_format")
    kind = shape.get("type") if isinstance(shape, dict) else shape
    if kind not in (None, *_SHAPES) or shape == {} or kind == "json_schema" and shape.get("json_schema") is None:
        raise Refused("settings", f"`response_format` is {str(shape)[:80]}")
    documents = body.get("documents")
    if documents is not None and not (isinstance(documents, list) and all(map(_is_document, documents))):
        raise Refused("settings", "`documents` is no list of objects with texts")


def _is_document(document):
    return isinstance(document, dict) and all(isinstance(value, str) for value in document.values())


def read_message(message, facts, rules):
    """Return a message as the template gets it: role, content, and what else the server passes on; raise Refused."""
    message, tried = _check_message(message)
    strict = isinstance(message.get("content"), list) and is_strict(message, tried)
    calls = check_calls(message.get("tool_calls")) if message["role"] == "assistant" else None
    return pass_on(message, facts, rules, calls=calls, strict=strict)


def pass_on(message, facts, rules, *, calls=None, strict=False):
    """Return what the server passes on of a message that was checked: role, content, and the fields it knows.

    Parameters
    ----------
    message : dict
    facts : TemplateFacts
    rules : Rules
    calls : list of dict or None
        The message's calls of tools.
    strict : bool
        Whether only the API's part types are taken.
    """
    role = message["role"]
    read = {"role": role, "content": read_content(message, facts.content_format, rules.joiner, strict)}
    if role == "assistant":
        if calls:
            read["tool_calls"] = [parse_call(call) for call in calls]
        if (reasoning := message.get("reasoning")) is not None:
            read |= {"reasoning": reasoning, "reasoning_content": reasoning}
    elif role == "tool" and message.get("tool_call_id") is not None:
        read["tool_call_id"] = message["tool_call_id"]
    for name in ("name", "task"):
        if isinstance(message.get(name), str):
            read[name] = message[name]
    if role == "developer" and message.get("tools") is not None:
        read["tools"] = message["tools"]
    return read


def _check_message(message):
    """Return a message with `reasoning_content` under its newer name, and how many fields of both types it has.

    Raises
    ------
    Refused
        It fits neither the API's type for its role nor the server's free one.
    """
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Refused("messages", f"a message without a role: {str(message)[:80]}")
    if message.get("tool_calls") == {}:
        message = {**message, "tool_calls": []}
    if "reasoning_content" in message:
        message = dict(message)
        older = message.pop("reasoning_content")
        if older is not None and message.get("reasoning") is None:
            message["reasoning"] = older
    typed = _TYPED.get(message["role"])
    tried = (
        sum(name in message for name in typed) if typed and _fits_api(message) else None,
        _count_free(message) if _fits_free(message) else None,
    )
    if tried == (None, None):
        if message.get("content") is None and "content" in message:
            raise Refused("content", f"the content of a message of {message['role']} is null")
        raise Refused("messages", f"a message of {message['role']} has a field of another kind: {str(message)[:80]}")
    return message, tried


def _fits_api(message):
    """Tell whether a message fits the API's type for its role; parts and calls are not looked at."""
    role, content = message["role"], message.get("content")
    if role == "function":
        return isinstance(message.get("name"), str) and "content" in message and isinstance(content, str | None)
    if "name" in message and not isinstance(message["name"], str):
        return role == "tool" and isinstance(content, str | list) and isinstance(message.get("tool_call_id"), str)
    if role == "assistant":
        call, audio = message.get("function_call"), message.get("audio")
        return (
            isinstance(content, str | list | None)
            and isinstance(message.get("refusal"), str | None)
            and (call is None or _has_texts(call, "name", "arguments"))
            and (audio is None or _has_texts(audio, "id"))
            and isinstance(message.get("tool_calls", []), list)
        )
    return isinstance(content, str | list) and (role != "tool" or isinstance(message.get("tool_call_id"), str))


def _has_texts(value, *names):
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in names)


def _fits_free(message):
    """Tell whether a message fits the type that the server adds to the API's: any role, any part."""
    content, calls, tools = message.get("content", ""), message.get("tool_calls"), message.get("tools")
    return (
        (isinstance(content, str) or isinstance(content, list) and all(isinstance(p, str | dict) for p in content))
        and (calls is None or isinstance(calls, list) and all(map(is_call, calls)))
        and (tools is None or isinstance(tools, list))
        and all(isinstance(message.get(name), str | None) for name in ("tool_call_id", "reasoning", "task"))
        and isinstance(message.get("name", ""), str)
    )


def _count_free(message):
    """Return the number of a message's fields that the free type knows, those of its calls with them."""
    calls = message.get("tool_calls") or []
    return sum(name in message for name in _FREE) + 5 * len(calls)


def _as_system(message):
    """Return a developer's message as a system message, any other as it is."""
    if message["role"] != "developer":
        return message
    return {**{name: value for name, value in message.items() if name != "tools"}, "role": "system"}


def _merge_systems(messages):
    """Return messages with all system texts in one at the front, if one is not there already."""
    systems = [k for k, message in enumerate(messages) if message["role"] == "system"]
    if systems == [0]:
        return messages
    texts = [_text_of(messages[k]["content"]) for k in systems]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(message for message in messages if message["role"] != "system")]


def _text_of(content):
    if isinstance(content, str):
        return content
    texts = [part["text"] for part in content if "text" in part]
    if not all(isinstance(text, str) for text in texts):
        raise Refused("content", "a part's text is no text")
    return "\n".join(texts)
