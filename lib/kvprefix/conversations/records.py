"""Read one record of chat data: its messages as text, the reason to skip it, and the fields that are not kept.

A record is an object with a list `conversations`, `conversation` (ShareGPT: `from`, `value`) or `messages` (OpenAI:
`role`, `content`), and perhaps a text `system` or `system_prompt`. A record with something else that changes the prompt
is refused; `dialogs` reads those with tools or reasoning.
"""

import functools
import re
from collections import Counter
from typing import NamedTuple

ROLES = {
    "system": "system", "developer": "system",
    "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "ai": "assistant",
}  # fmt: skip
LIST_FIELDS = ("conversations", "messages", "conversation", "trajectory")  # of the messages
SYSTEM_FIELDS = ("system", "system_prompt")
# Fields that change the prompt and cannot be rendered, with the reason to skip a record (or message) that fills one
UNRENDERED = {
    "tools": "with_tools", "functions": "with_tools", "tool_calls": "with_tools", "function_call": "with_tools",
    "image": "with_images", "images": "with_images",
    "video": "with_other_media", "videos": "with_other_media",
    "audio": "with_other_media", "audios": "with_other_media",
    "documents": "with_documents", "chat_template": "with_chat_template",
    "chat_template_kwargs": "with_chat_template_kwargs", "continue_final_message": "with_continue_final_message",
    "previous_response_id": "with_previous_response_id",
}  # fmt: skip
PROMPT_FIELDS = frozenset({*SYSTEM_FIELDS, *UNRENDERED})
# {type of a content part: the field that holds its text}
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_OTHER_PARTS = {
    "image": "with_images", "image_url": "with_images", "input_image": "with_images",
    "tool_use": "with_tools", "tool_result": "with_tools", "server_tool_use": "with_tools",
    "thinking": "with_thinking", "redacted_thinking": "with_thinking",
}  # fmt: skip
EMPTY = (None, "", "[]", "{}", [], {})
_TIME_NAME = re.compile(r"(?i:time|stamp|created|updated|epoch)|(?i:(^|_)(date|ts)(_|$)|_at$)|[a-z]At$")
MOST_NAMES = 40  # fields that are counted one by one; further ones are counted together


MOST_CHARACTERS = 2**24  # of a message: a tokenizer takes about a hundred bytes of memory for each


class Message(NamedTuple):
    """One message: its role (`system`, `user` or `assistant`) and its text."""

    role: str
    text: str


def replace_halves(text):
    """Return a text with U+FFFD for each lone surrogate (half a character), which no tokenizer takes.

    >>> replace_halves("a" + chr(0xD800)) == "a" + chr(0xFFFD)
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def make_unique(name, seen):
    """Return a name that was not seen (a repeat becomes `NAME#2`) and add it to `seen`, {name: times seen}.

    >>> seen = {}
    >>> [make_unique(name, seen) for name in ("a", "a#2", "a", "a")]
    ['a', 'a#2', 'a#3', 'a#4']
    """
    unique = name
    while unique in seen:
        seen[name] += 1
        unique = f"{name}#{seen[name]}"
    seen[unique] = 1
    return unique


class Refused(Exception):
    """A record that is skipped: (reason, detail)."""


class NotText(ValueError):
    """A list of content parts holds more than text; its text is the reason, such as `with_images`."""


def join_text_parts(parts):
    """Join the text parts of a message's content by newlines, as vLLM does for a template that takes a text.

    Parameters
    ----------
    parts : list
        Texts and objects: ``{"type": "text", "text": ...}``, or of the types `input_text`, `output_text` or `refusal`.

    Raises
    ------
    NotText
        A part that is no text; the error's text is the reason.

    Notes
    -----
    vLLM 0.32, `_parse_chat_message_content_parts` in `vllm/renderers/chat_utils.py` (`vllm/entrypoints/` before):
    ``"\\n".join(texts)``, without parts whose text is null. A template that loops over the parts itself (`openai` in
    `_detect_content_format` of `vllm/renderers/hf.py`) gets them unjoined, and most such templates put nothing between
    them. This function does not distinguish the two.

    >>> join_text_parts([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])
    'one\\ntwo'
    """
    texts = []
    for part in parts:
        kind = part_type(part)
        text = part.get(TEXT_PARTS[kind]) if kind in TEXT_PARTS else part
        if not isinstance(text, str | None):
            raise NotText(_OTHER_PARTS.get(kind, "with_other_content"))
        texts.append(text)
    return "\n".join(text for text in texts if text is not None)


def part_type(part):
    """Return the type of a content part: its `type`, else its first field; "" if it is no object."""
    if not isinstance(part, dict):
        return ""
    kind = part.get("type") or ("text" if "text" in part else next(iter(part), ""))
    return kind if isinstance(kind, str) else ""


class Parsed(NamedTuple):
    """A record's messages, those from its system fields first, and the repairs made."""

    messages: list
    repaired: Counter


def parse_record(record):
    """Return a record's messages; raise Refused if it is no conversation of texts."""
    if record is None:
        raise Refused("not_json", "the line is not valid JSON")
    raw = record.get(list_field(record)) if isinstance(record, dict) else None
    if not isinstance(raw, list):
        raise Refused("not_a_conversation", "expected an object with a list `conversations` or `messages`")
    if not raw:
        raise Refused("no_messages", "the list of messages is empty")
    repaired = Counter()
    if not is_plain(record):
        _refuse_unrendered(record, "the record")
    messages = [_parse_message(message, k, repaired) for k, message in enumerate(raw)]
    if not is_plain(record):
        messages = [*_find_system(record, messages, repaired), *messages]
    return Parsed(messages, repaired)


def is_plain(record):
    """Say whether a record holds nothing but its messages and perhaps an id."""
    return len(record) == 1 or (len(record) == 2 and "id" in record)


def list_field(record):
    """Return the field that holds the messages: the first of LIST_FIELDS that is filled, else the first there is."""
    filled = next((name for name in LIST_FIELDS if record.get(name)), None)
    return filled or next((name for name in reversed(LIST_FIELDS) if name in record), "conversations")


def _refuse_unrendered(fields, where):
    """Raise Refused if a field that changes the prompt and cannot be rendered is filled."""
    if fields.keys().isdisjoint(UNRENDERED):
        return
    for name in UNRENDERED:
        if name in fields and fields[name] and fields[name] not in EMPTY:
            raise Refused(UNRENDERED[name], f"{where} has `{name}`, which cannot be rendered")


def _find_system(record, messages, repaired):
    """Return the system fields as messages, without those whose text is already a system message."""
    known = {message.text for message in messages if message.role == "system"}
    texts = list_systems(record, known, _refuse_system)
    repaired["system_field_made_first_message"] += len(texts)
    repaired["system_field_beside_a_system_message"] += len(texts) if known else 0
    return [Message("system", text) for text in texts]


def list_systems(fields, known, refuse):
    """Return the texts of the system fields, without repeats and without `known` ones.

    `refuse(name, value)` is called for a field that is no text, and raises.

    >>> list_systems({"system": "Be brief.", "system_prompt": "Be kind."}, {"Be kind."}, None)
    ['Be brief.']
    """
    texts = []
    for name in SYSTEM_FIELDS:
        text = fields.get(name)
        if text in EMPTY:
            continue
        if not isinstance(text, str):
            refuse(name, text)
        if text.strip() and text not in known and text not in texts:
            texts.append(text)
    return texts


def _refuse_system(name, value):
    if isinstance(value, list):
        raise Refused("with_system_blocks", f"`{name}` is a list, which cannot be rendered; expected a text")
    raise Refused("malformed_system", f"`{name}` is no text")


def _parse_message(message, k, repaired):
    if not isinstance(message, dict):
        raise Refused("malformed_message", f"message {k} is no object")
    speaker = message.get("role") if message.get("from") is None else message["from"]
    text = message.get("content") if message.get("value") is None else message["value"]
    if len(message) > 2 or text is None:
        _refuse_unrendered(message, f"message {k}")
    if isinstance(text, list):
        try:
            repaired["text_parts_joined_by_newline"] += len(text) > 1
            text = join_text_parts(text)
        except NotText as reason:
            raise Refused(str(reason), f"message {k} has content parts that are no text") from None
    role = ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if text is None and role == "assistant" and not message.keys().isdisjoint(("value", "content")):
        text = ""
    if not isinstance(speaker, str) or not isinstance(text, str):
        raise Refused("malformed_message", f"message {k} lacks text `from`/`value` or `role`/`content`")
    if len(text) > MOST_CHARACTERS:
        raise Refused("too_long", f"message {k} has {len(text):,} characters; expected at most {MOST_CHARACTERS:,}")
    if role is None:
        raise Refused("unknown_speaker", f"message {k} is by {speaker[:40]!r}; known: {', '.join(sorted(ROLES))}")
    return Message(role, text)


@functools.lru_cache(1024)
def is_time_name(name):
    """Say whether a field of this name holds a time.

    >>> [is_time_name(name) for name in ("createdAt", "sent_time", "ts", "date", "status", "format")]
    [True, True, True, True, False, False]
    """
    return _TIME_NAME.search(name) is not None
