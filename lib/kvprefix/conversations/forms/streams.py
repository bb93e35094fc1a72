"""Put a streamed answer together again: server-sent events, as a text of ``data: {...}`` lines or a list of them."""

from kvprefix.conversations.forms.fields import load_text

_STARTS = ("data:", "event:", ": ")  # of a stream's text; a line that begins with a colon is a comment
_TYPES = ("message_start", "response.created", "response.in_progress", "response.queued")
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


def join_stream(answer):
    """Return the answer that a stream gave: a chat completion, Anthropic's message or a response; else it itself.

    A stream that breaks off gives what it had said.

    >>> join_stream('data: {"choices": [{"delta": {"content": "a"}}]}\\n\\ndata: [DONE]\\n')["choices"][0]["message"]
    {'role': 'assistant', 'content': 'a'}
    """
    if isinstance(answer, str) and answer.lstrip().startswith(_STARTS):
        lines = (line.removeprefix("data:") for line in answer.splitlines() if line.startswith("data:"))
        events = [event for event in map(load_text, lines) if isinstance(event, dict)]
    elif isinstance(answer, list) and answer and all(isinstance(one, dict) for one in answer):
        events = answer if _is_event(answer[0]) else []
    else:
        return answer
    if any(isinstance(event.get("choices"), list) for event in events):
        return _join_chat(events)
    if any(event.get("type") == "message_start" for event in events):
        return _join_message(events)
    return _join_response(events) or answer


def _is_event(value):
    return value.get("object") == "chat.completion.chunk" or value.get("type") in _TYPES


def _join_chat(events):
    """Return the chat completion of chunks: texts joined, tool calls by their index."""
    message, calls, more = {"role": "assistant", "content": None}, {}, {}
    for event in events:
        more.update({name: event[name] for name in ("created", "model", "usage") if event.get(name)})
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        if choice.get("index") or not isinstance(choice.get("delta"), dict):
            if isinstance(choice.get("text"), str):
                message["content"] = (message["content"] or "") + choice["text"]
            continue
        delta = choice["delta"]
        for name in _TEXTS:
            if isinstance(delta.get(name), str):
                message[name] = (message.get(name) or "") + delta[name]
        for call in delta["tool_calls"] if isinstance(delta.get("tool_calls"), list) else ():
            _add_call(calls, call)
    if calls:
        message["tool_calls"] = list(calls.values())
    return {"choices": [{"message": message}], **more}


def _add_call(calls, delta):
    function = delta.get("function") if isinstance(delta, dict) else None
    if not isinstance(function, dict):
        return
    known = calls.setdefault(str(delta.get("index")), {"id": None, "type": "function", "function": {"arguments": ""}})
    known["id"] = known["id"] or delta.get("id")
    if function.get("name"):
        known["function"]["name"] = function["name"]
    if isinstance(function.get("arguments"), str):
        known["function"]["arguments"] += function["arguments"]


def _join_message(events):
    """Return Anthropic's message of events: blocks by their index, inputs of tools from parts of JSON."""
    message, blocks, parts = {}, {}, {}
    for event in events:
        index, kind = str(event.get("index")), event.get("type")
        if kind == "message_start" and isinstance(event.get("message"), dict):
            message = dict(event["message"])
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            blocks[index] = dict(event["content_block"])
        elif kind == "content_block_delta" and isinstance(event.get("delta"), dict) and index in blocks:
            _add_delta(blocks[index], parts.setdefault(index, []), event["delta"])
        elif kind == "message_delta" and isinstance(event.get("usage"), dict):
            usage = message.get("usage")
            message["usage"] = {**(usage if isinstance(usage, dict) else {}), **event["usage"]}
    for index, texts in parts.items():
        if texts:
            blocks[index]["input"] = load_text("".join(texts))
    return {**message, "type": "message", "content": list(blocks.values())}


def _add_delta(block, parts, delta):
    name = _DELTAS.get(str(delta.get("type")))
    if name and isinstance(delta.get(name), str):
        block[name] = str(block.get(name) or "") + delta[name]
    elif isinstance(delta.get("partial_json"), str):
        parts.append(delta["partial_json"])


def _join_response(events):
    """Return the response that the last event of one holds, else the items that are done; None if there are none."""
    last = next((event["response"] for event in reversed(events) if isinstance(event.get("response"), dict)), {})
    if last.get("output"):
        return last
    done = [event.get("item") for event in events if event.get("type") == "response.output_item.done"]
    items = [item for item in done if isinstance(item, dict)]
    return {**last, "object": "response", "output": items} if items else None
