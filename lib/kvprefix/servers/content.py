"""The content of a message: a text, nothing, or parts, as a chat template gets it.

Source: vLLM 0.32, `renderers/chat_utils.py` (`_parse_chat_message_content`), and pydantic's choice among the types of
a message in `ChatCompletionMessageParam`.
"""

from kvprefix.servers.prompt import Refused

BILLING_HEADER = "x-anthropic-billing-header"  # its value changes with every request
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "thinking": "thinking"}
_MEDIA_FIELDS = {
    "audio_embeds", "audio_url", "image_embeds", "image_pil", "image_url", "input_audio", "video_embeds", "video_url",
}  # fmt: skip
_MEDIA = _MEDIA_FIELDS | {"input_image", "prompt_embeds", "image", "audio", "video"}
# Fields of parts that the server knows; others of a part go on to a template that takes parts
_KNOWN = _MEDIA_FIELDS | {
    "closed", "data", "file", "name", "prompt_cache_breakpoint", "refusal", "text", "thinking", "type", "uuid",
}  # fmt: skip
_STRICT = {  # part types of the API, by role; {type: its field}
    "system": {"text": "text"}, "developer": {"text": "text"}, "tool": {"text": "text"}, "user": {"text": "text"},
    "assistant": {"text": "text", "refusal": "refusal"},
}  # fmt: skip


def read_content(message, content_format, joiner, is_strict):
    """Return what a template gets as a message's content.

    Parameters
    ----------
    message : dict
        One whose fields were checked.
    content_format : str
        `"string"` or `"openai"`.
    joiner : str
        Between texts where one text is wanted.
    is_strict : bool
        Whether only the API's part types are taken, see `is_strict`.

    Returns
    -------
    str or list

    Raises
    ------
    Refused
    """
    role, content = message["role"], message.get("content")
    if content is None:
        content = []
    elif isinstance(content, str):
        content = [{"type": "text", "text": content}]
    elif is_strict:
        _check_parts(content, role)
    if role == "system":
        content = _strip_billing_header(content)
    parts = [read for part in content if (read := _read_part(part, content_format == "openai"))]
    if content_format == "openai" and not (role == "tool" and all(part["type"] == "text" for part in parts)):
        return parts
    texts = [part["text"] for part in parts] if content_format == "openai" else parts
    if not all(isinstance(text, str) for text in texts):
        raise Refused("content", "a part's text is no text")
    return joiner.join(texts)


def is_strict(message, tried):
    """Tell whether only the API's part types are taken in a message's list of parts.

    The server tries two types on a message: the API's for its role, and a free one that takes any part. The one with
    more known fields wins, and the API's at a tie; only the free one counts the fields of parts and calls, too.

    Parameters
    ----------
    message : dict
    tried : tuple of (int or None, int or None)
        The number of known fields of both, without those of parts; None for a type that the message does not fit.
    """
    typed, free = tried
    if typed is None or free is None:
        return free is None
    return typed >= free + sum(map(_count_fields, message["content"]))


def _count_fields(part):
    """Return how many known fields of a part the server finds.

    >>> _count_fields({"type": "text", "text": "a"}), _count_fields({"type": "output_text", "text": "a"})
    (2, 0)
    """
    if isinstance(part, str):
        return 0
    kind, count = part.get("type"), 0
    field = {"text": "text", "refusal": "refusal", "thinking": "thinking"}.get(kind) if isinstance(kind, str) else None
    if field and isinstance(part.get(field), str):
        count = 2
    elif kind in ("tool_reference", None) and isinstance(part.get("name"), str):
        count = 1 + (kind is not None)
    return count or int(any(name in part for name in _MEDIA_FIELDS))


def _check_parts(content, role):
    for part in content:
        field = _STRICT[role].get(part.get("type")) if isinstance(part, dict) else None
        if not (field and isinstance(part.get(field), str)) and not (role == "user" and _is_media(part)):
            raise Refused("content", f"a part of a message of {role} is none of the API's: {str(part)[:80]}")


def _is_media(part):
    return isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] in _MEDIA


def _read_part(part, as_part):
    """Return a part as a template gets it, a text or (`as_part`) a dict; None or "" for one that is left out."""
    if isinstance(part, str):
        return {"type": "text", "text": part} if as_part else part
    kind = part.get("type")
    if not isinstance(kind, str) or part.get("uuid") is not None:
        raise Refused("content", f"a part has no type: {str(part)[:80]}")
    if kind in _TEXTS:
        text = part.get(_TEXTS[kind])
        if text is None and kind in ("text", "refusal"):
            return None
        extra = {name: value for name, value in part.items() if name not in _KNOWN}
        return {"type": "text", "text": text, **extra} if as_part else text
    if kind == "tool_reference":
        return {"type": kind, "name": part.get("name")} if as_part else part.get("name")
    if kind in _MEDIA:
        raise Refused("images and other media", f"a part of type {kind}, and the model takes text alone")
    raise Refused("content", f"a part of the unknown type {kind!r}")


def _strip_billing_header(parts):
    """Leave out the first line of a system text that starts with Claude Code's billing header."""
    kept = []
    for part in parts:
        text = part if isinstance(part, str) else part.get("text") if part.get("type") == "text" else None
        if isinstance(text, str) and text.startswith(BILLING_HEADER):
            if not (rest := text.partition("\n")[2]):
                continue
            part = rest if isinstance(part, str) else {**part, "text": rest}
        kept.append(part)
    return kept
