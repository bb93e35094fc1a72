"""Bodies of chat requests: which endpoint one was sent to, and whether it can be a prompt of text."""

from kvprefix.conversations.calls import APIS, LISTS
from kvprefix.conversations.records import EMPTY, MOST_CHARACTERS, Refused
from kvprefix.files.jsonlines import show_value

_PATHS = (("/chat/completions", "chat"), ("/messages", "messages"), ("/responses", "responses"))
_ANTHROPIC_BLOCKS = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "server_tool_use"})
_RESPONSES_FIELDS = frozenset({"instructions", "previous_response_id", "max_output_tokens", "store", "truncation"})
_MEDIA = {
    "image": "with_images", "image_url": "with_images", "input_image": "with_images",
    "input_audio": "with_other_media", "audio": "with_other_media", "audio_url": "with_other_media",
    "video": "with_other_media", "video_url": "with_other_media",
}  # fmt: skip


def find_api(url, body, answer=None):
    """Return the api of a body, one of `calls.APIS`: as its url says, else its fields, else its answer's.

    Raises
    ------
    Refused
        The url, or the body, is that of no chat.

    >>> find_api("/v1/chat/completions", {"input": "hm"}), find_api(None, {"input": "hm"})
    ('chat', 'responses')
    >>> find_api(None, {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]})
    'messages'
    """
    if url in APIS:
        return url
    if isinstance(url, str) and url:
        path = url.partition("?")[0].rstrip("/")
        api = next((api for end, api in _PATHS if path.endswith(end)), None)
        if api is None:
            raise Refused("no_chat_call", f"url is {show_value(url)}, no chat endpoint")
        return api
    if "messages" not in body:
        if isinstance(body.get("model"), str) and "embed" in body["model"].lower() or not _has_items(body):
            raise Refused("no_chat_call", "has an `input` of no chat")
        return "responses"
    if _is_anthropic(body):
        return "messages"
    return {"message": "messages", "response": "responses"}.get(_answer_kind(answer), "chat")


def is_responses(body):
    """Say whether a body without a url is one of Responses: an `input` of items, or other fields of it."""
    given = body.get("input")
    items = isinstance(given, list) and given and all(isinstance(item, dict) for item in given)
    return bool(items) or ("input" in body and not _RESPONSES_FIELDS.isdisjoint(body))


def _has_items(body):
    given = body.get("input")
    return isinstance(given, str) or (isinstance(given, list) and all(isinstance(item, dict) for item in given))


def _answer_kind(answer):
    if isinstance(answer, dict) and "choices" not in answer:
        return answer.get("type") if answer.get("type") == "message" else answer.get("object")
    return None


def _is_anthropic(body):
    """Say whether a body has what only Anthropic's form has."""
    tools, messages = body.get("tools"), body.get("messages")
    return (
        body.get("system") not in EMPTY
        or "anthropic_version" in body
        or isinstance(tools, list)
        and any(isinstance(tool, dict) and "input_schema" in tool for tool in tools)
        or isinstance(messages, list)
        and any(has_blocks(message) for message in messages)
    )


def has_blocks(message):
    """Say whether a message's content has blocks that only Anthropic's form has."""
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(
        isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] in _ANTHROPIC_BLOCKS
        for part in content
    )


def check_body(api, body):
    """Raise Refused if a body has no messages, a message that is none, or images or sound in one."""
    if body.get("message_mode") == "delta":
        raise Refused("with_message_mode_delta", "holds only the messages that are new")
    name = LISTS[api]
    messages = body.get(name)
    if isinstance(messages, str) and api == "responses":
        messages = [{"role": "user", "content": messages}]
    if messages == []:
        raise Refused("no_messages", "the list of messages is empty")
    if not isinstance(messages, list):
        raise Refused("no_messages", f"has {name} {show_value(messages)}; expected a list with one or more")
    for k, message in enumerate(messages):
        check_message(message, k, api)


def check_message(message, k, api):
    """Raise Refused if a message is none, is too long, or holds images or sound."""
    named = isinstance(message, dict) and (isinstance(message.get("role"), str) or api == "responses")
    if not named:
        raise Refused("malformed_message", f"message {k} has no text `role`: {show_value(message)}")
    content = message.get("content")
    if (not isinstance(content, str) or "output" in message) and (reason := find_media(message)):
        raise Refused(reason, f"message {k} has content that is no text")
    if not isinstance(content, str | list | None):
        raise Refused("malformed_message", f"message {k} has content {show_value(content)}; expected a text or parts")
    if isinstance(content, str) and len(content) > MOST_CHARACTERS:
        most = f"expected at most {MOST_CHARACTERS:,}"
        raise Refused("too_long", f"message {k} has {len(content):,} characters; {most}")


def find_media(message):
    """Return the reason to skip a message with images or sound, also in a tool's result; None if it has none."""
    for parts in (message.get("content"), message.get("output")):
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                kind = part.get("type")
                reason = _MEDIA.get(kind) if isinstance(kind, str) else None
                if reason is None and kind == "tool_result":
                    reason = find_media(part)
                if reason:
                    return reason
    return None
