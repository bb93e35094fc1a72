"""Where the record of a request log holds what: its messages, its time, its name, who asked, what was answered."""

import contextlib
import json

from kvprefix.conversations.records import (
    EMPTY,
    MOST_CHARACTERS,
    SYSTEM_FIELDS,
    find_unrendered,
    is_time_name,
    join_text_parts,
    list_systems,
    replace_halves,
)
from kvprefix.conversations.times import EXPECTED as EXPECTED_TIME
from kvprefix.conversations.times import read_time as read_seconds
from kvprefix.files.jsonlines import is_whole, show_value
from kvprefix.formats.values import MOST_TOKENS

EXPECTED = 'a line is {"timestamp": time, "messages": [{"role": ..., "content": ...}, ...]}, or has them in "body"'
ENGINE_FIELDS = frozenset(
    {"request_id", "conversation_id", "turn", "timestamp", "messages", "prompt_tokens", "output_tokens"}
)
TIMES = ("timestamp", "time", "created", "created_at", "startTime", "start_time")
_NAMES = ("request_id", "custom_id", "id")
_ANSWERS = ("completion", "response", "output")
_READ = {
    *ENGINE_FIELDS, *_NAMES, *_ANSWERS, *SYSTEM_FIELDS, "body", "request", "choices", "user", "model", "max_tokens",
    "cache_salt",
}  # fmt: skip
_SETTINGS = ("model_parameters", "optional_params", "extra_body")  # where gateways put such fields


class Skipped(Exception):
    """A record that is no request, or holds more than text: (reason, what is wrong)."""


def find_request(record):
    """Return the part of a record that holds `messages`: itself, its `body` or `request`, or that one's `body`.

    >>> find_request({"body": {"messages": []}})
    {'messages': []}
    """
    inner = record.get("request")
    deeper = inner.get("body") if isinstance(inner, dict) else None
    for part in (record, record.get("body"), inner, deeper):
        if isinstance(part, dict) and "messages" in part:
            return part
    return None


def find_messages(record, request):
    """Return the messages of a record's request as (role, text) pairs, a system text beside them first.

    Raises
    ------
    Skipped
    """
    messages = request["messages"]
    if record.get("cache_hit") is True or record.get("status") == "failure":
        name = "cache_hit" if record.get("cache_hit") is True else "status"
        raise Skipped("that no engine answered", f"has {name} {show_value(record[name])}")
    if not isinstance(messages, list) or not messages:
        raise Skipped("without messages", f"has messages {show_value(messages)}; expected a list with one or more")
    holders = [request, *(part.get(name) for part in (record, request) for name in _SETTINGS)]
    for part in holders:
        if isinstance(part, dict):
            _refuse_unrendered(part)
    if request.get("add_generation_prompt") is False:
        raise Skipped("with add_generation_prompt", "asks for no generation prompt")
    if "delta" in (record.get("message_mode"), request.get("message_mode")):
        raise Skipped("with message_mode delta", "holds only the messages that are new")
    pairs = [_read_message(message, k) for k, message in enumerate(messages)]
    known = {text for role, text in pairs if role == "system"}
    return [*(("system", text) for text in list_systems(request, known, _refuse_system)), *pairs]


def _refuse_unrendered(part):
    """Raise Skipped if a field that changes the prompt holds something."""
    if found := find_unrendered(part):
        raise Skipped(found[1].replace("_", " "), f"has `{found[0]}`, which is not rendered")


def _refuse_system(name, value):
    raise Skipped("with system blocks", f"has {name} {show_value(value)}; expected a text")


def _read_message(message, k):
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Skipped("with a message that is none", f"has a message {k} without a text `role`: {show_value(message)}")
    content = message.get("content")
    if len(message) > 2 or content is None:  # than role and content
        _refuse_unrendered(message)
    if content is None and message["role"] == "assistant":
        return "assistant", ""
    if isinstance(content, list):
        content = _join_parts(content, f"has a message {k} with")
    if not isinstance(content, str):
        raise Skipped(
            "with a message that is none",
            f"has a message {k} with content {show_value(content)}; expected a text or a list of texts",
        )
    if len(content) > MOST_CHARACTERS:
        most = f"expected at most {MOST_CHARACTERS:,}"
        raise Skipped("too long", f"has a message {k} of {len(content):,} characters; {most}")
    return message["role"], content


def _join_parts(content, where):
    try:
        return join_text_parts(content)
    except ValueError as reason:
        raise Skipped(str(reason).replace("_", " "), f"{where} parts that are no text") from None


def list_unused(record, request):
    """Return the fields that are not kept: of messages, of the request, and times other than the one that is read.

    >>> messages = [{"role": "user", "content": "a", "name": "b"}]
    >>> list_unused({"messages": messages, "endTime": 5, "startTime": 4, "instructions": "Be brief"}, {})
    (['name'], ['instructions'], ['endTime'])
    """
    messages = (request or record)["messages"]
    others = (message for message in messages if len(message) > 2 or "content" not in message)
    named = [name for message in others for name in message if name not in ("role", "content")]
    read = next((name for part in (record, request) for name in TIMES if part.get(name) is not None), None)
    times = [name for name, value in record.items() if name != read and is_time_name(name) and _may_be_time(value)]
    used = {*_READ, read, *times}
    parts = (record,) if request is record else (record, request or {})
    others = [name for part in parts for name, value in part.items() if name not in used and value not in EMPTY]
    return named, others, times


def _may_be_time(value):
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def find_name(record):
    """Return a request's name, None if it has none."""
    given = next((record[name] for name in _NAMES if record.get(name) is not None), None)
    if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
        raise Skipped("with an odd name", f"has a name {show_value(given)}; expected a text or a whole number")
    return None if given is None or given == "" else str(given)


def find_asker(record, request):
    """Return ("conversation_id", who) or ("user", who), None if the log says neither."""
    for name in ("conversation_id", "user"):
        for part in (record, request):
            value = part.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
                raise Skipped("with an odd name", f"has {name} {show_value(value)}; expected a text or a whole number")
            if value is not None and value != "":
                return name, replace_halves(str(value))
    return None


def find_reply(record):
    """Return the text of the completion, None if there is none or it holds more than text."""
    answers = [record.get(name) for name in _ANSWERS if record.get(name) is not None]
    for answer in [*answers, record]:
        answer = _decode(answer) if isinstance(answer, str) else answer
        text = answer if isinstance(answer, str) else _find_choice(answer)
        if text is not None:
            return text
    return None


def has_answer(record):
    """Say whether a record holds an answer of whatever kind."""
    return any(record.get(name) for name in (*_ANSWERS, "choices"))


def _decode(text):
    """Return the chat completion that a text holds as JSON; any other text as it is.

    >>> _decode('{"choices": []}'), _decode('{"a": 1}')
    ({'choices': []}, '{"a": 1}')
    """
    if text.lstrip()[:1] == "{" and '"choices"' in text:
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(text)
            if any(isinstance(part.get("choices"), list) for part in _list_bodies(answer)):
                return answer
    return text


def _list_bodies(answer):
    """Return an answer and what lies in its `body` (the batch form), those that are objects."""
    body = answer.get("body") if isinstance(answer, dict) else None
    return [part for part in (answer, body) if isinstance(part, dict)]


def _find_choice(answer):
    """Return the text of a chat completion's first choice, None if it calls tools."""
    for part in _list_bodies(answer):
        choices = part.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(first, dict):
            message = first.get("message")
            if not isinstance(message, dict):
                message = {"content": first.get("text")}
            text = message.get("content")
            if isinstance(text, list):
                with contextlib.suppress(ValueError):
                    text = join_text_parts(text)
            return text if isinstance(text, str) and not find_unrendered(message) else None
    return None


def find_time(record, request):
    """Return a request's time in seconds, else its answer's; None if neither has one."""
    for part in (record, request):
        for name in TIMES:
            if part.get(name) is not None:
                return read_time(part[name], name)
    answer = record.get("response")
    answer = _decode(answer) if isinstance(answer, str) else answer
    created = answer.get("created") if isinstance(answer, dict) else None
    return None if created is None else read_time(created, "created")


def read_time(value, name):
    """Return a time in seconds; raise Skipped if it cannot be one.

    >>> read_time("1714567890123", "timestamp"), read_time("2024-05-01T12:51:30.123Z", "timestamp")
    (1714567890.123, 1714567890.123)
    """
    try:
        return read_seconds(value)
    except ValueError:
        raise Skipped("with an odd time", f"has {name} {show_value(value)}; {EXPECTED_TIME}") from None


def find_whole(part, name, most=MOST_TOKENS):
    """Return a whole number of 0 or more, None if there is none."""
    value = part.get(name)
    if value is not None and (not is_whole(value) or not 0 <= value <= most):
        raise Skipped("with an odd number", f"has {name} {show_value(value)}; expected a whole number, 0 or more")
    return value
