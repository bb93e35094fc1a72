"""What a log says was answered, as the next body would repeat it: messages, or output items of Responses."""

import json

from kvprefix.conversations.forms.fields import load_text
from kvprefix.conversations.forms.streams import join_stream
from kvprefix.conversations.records import EMPTY

_OF_CHAT = frozenset({"choices", "tool_calls", "reasoning_content", "reasoning"})  # an answer of OpenAI's shape
ANSWERS = ("response", "completion", "output", "choices")  # fields of a log


def find_answer(*parts):
    """Return the answer that a log holds, JSON text read and streams joined; the part if it has `choices`; else None.

    OpenAI's batch form wraps an answer in ``{"body": ...}``.
    """
    for part in parts:
        if not isinstance(part, dict):
            continue
        for name in ANSWERS:
            if (answer := part.get(name)) not in EMPTY:
                answer = part if name == "choices" else load_text(answer)
                body = answer.get("body") if isinstance(answer, dict) and "choices" not in answer else None
                body = join_stream(load_text(body))
                return body if isinstance(body, dict) else join_stream(answer)
    return None


def read_reply(api, answer):
    """Return a call's reply in its api's shape; () if the answer cannot be read so.

    >>> read_reply("chat", {"choices": [{"message": {"role": "assistant", "content": "Hi", "tool_calls": None}}]})
    ({'role': 'assistant', 'content': 'Hi'},)
    >>> read_reply("messages", "Hi"), read_reply("chat", 7)
    (({'role': 'assistant', 'content': 'Hi'},), ())
    """
    if isinstance(answer, str):
        return _make_text(api, answer)
    if isinstance(answer, dict):
        if api == "responses" and isinstance(answer.get("output"), list):
            return tuple(item for item in answer["output"] if isinstance(item, dict))
        if api == "messages" and isinstance(answer.get("content"), list | str) and _OF_CHAT.isdisjoint(answer):
            return ({"role": "assistant", "content": answer["content"]},)
        message = _find_message(answer)
        if isinstance(message, str):
            return _make_text(api, message)
        if message is not None and api in ("chat", "messages"):
            return (message if api == "chat" else _make_blocks(message),)
    if isinstance(answer, list) and answer and all(isinstance(one, dict) for one in answer):
        if api == "responses":
            return tuple(answer)
        if len(answer) == 1:
            return read_reply(api, answer[0])
    return ()


def _make_text(api, text):
    if api == "responses":
        return ({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},)
    return ({"role": "assistant", "content": text},)


def _find_message(answer):
    """Return the message of a chat completion's first choice, or the answer that is a message; a text; or None."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = first.get("message", answer if choices is None else None)
    if isinstance(message, dict) and (message.get("content") is not None or message.get("tool_calls")):
        kept = {name: value for name, value in message.items() if name == "content" or value not in EMPTY}
        return {"role": "assistant", **kept}
    return first["text"] if isinstance(first.get("text"), str) else None


def _make_blocks(message):
    """Return a chat message as Anthropic's form has it."""
    reasoning, content = message.get("reasoning_content") or message.get("reasoning"), message.get("content")
    blocks = [{"type": "thinking", "thinking": reasoning}] if isinstance(reasoning, str) else []
    blocks += content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            given = load_text(function.get("arguments"))
            given = given if isinstance(given, dict) else {}
            blocks.append({"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given})
    return {"role": "assistant", "content": blocks}


def write_arguments(value):
    """Return a tool call's arguments as the text that a chat message holds; a text stays as it is.

    >>> write_arguments({"city": "Köln"}), write_arguments('{"city":'), write_arguments(None)
    ('{"city": "Köln"}', '{"city":', '{}')
    """
    if value is None:
        return "{}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
