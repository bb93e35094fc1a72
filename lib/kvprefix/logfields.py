"""Where the record of a request log holds what: its messages, its time, its name, who asked, what was answered.

A time is ISO 8601 (UTC, if it names no zone) or a number: of seconds below 1e11, of ms below 1e14, of us below 1e17, of
ns above, so that epoch times of any unit are told apart.
"""

import math
from datetime import UTC, datetime

from kvprefix.jsonlines import is_whole, show_value

EXPECTED = 'a line is {"timestamp": time, "messages": [{"role": ..., "content": ...}, ...]}, or has them in "body"'
ENGINE_FIELDS = frozenset(
    {"request_id", "conversation_id", "turn", "timestamp", "messages", "prompt_tokens", "output_tokens"}
)
TIMES = ("timestamp", "time", "created", "created_at")
_NAMES = ("request_id", "custom_id", "id")
_ANSWERS = ("completion", "response", "output")
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))  # from which number on: units a second


class Fault(Exception):
    """What is wrong with a record."""


class Unsupported(Exception):
    """A request that holds more than text: the reason."""


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


def find_messages(request):
    """Return a request's messages as (role, text) pairs, and how many have other fields.

    Raises
    ------
    Fault, Unsupported
    """
    messages = request["messages"]
    if not isinstance(messages, list) or not messages:
        raise Fault(f"has messages {show_value(messages)}; expected a list with one or more")
    if request.get("tools") or request.get("functions"):
        raise Unsupported("with tools")
    pairs = [_read_message(message, k) for k, message in enumerate(messages)]
    return pairs, sum(not message.keys() <= {"role", "content"} for message in messages)


def _read_message(message, k):
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Fault(f"has a message {k} without a text `role`: {show_value(message)}")
    if message.get("tool_calls") or message.get("function_call"):
        raise Unsupported("with tools")
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        if any(not isinstance(part.get("text"), str) for part in content):
            raise Unsupported("with other content than text")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise Fault(f"has a message {k} with content {show_value(content)}; expected a text or a list of texts")
    return message["role"], content


def find_name(record):
    """Return a request's name, None where it has none."""
    given = next((record[name] for name in _NAMES if record.get(name) is not None), None)
    if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
        raise Fault(f"has a name {show_value(given)}; expected a text or a whole number")
    return None if given is None or given == "" else str(given)


def find_asker(record, request):
    """Return ("conversation_id", who) or ("user", who), None where the log says neither."""
    for name in ("conversation_id", "user"):
        for part in (record, request):
            value = part.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
                raise Fault(f"has {name} {show_value(value)}; expected a text or a whole number")
            if value is not None and value != "":
                return name, str(value)
    return None


def find_reply(record):
    """Return the text of the completion, None where there is none."""
    answers = [record.get(name) for name in _ANSWERS if record.get(name) is not None]
    for answer in [*answers, record]:
        text = answer if isinstance(answer, str) else _find_choice(answer)
        if text is not None:
            return text
    return None


def _find_choice(answer):
    """Return the text of a chat completion's first choice; the object may lie in `body` (the batch form)."""
    for part in (answer, answer.get("body") if isinstance(answer, dict) else None):
        choices = part.get("choices") if isinstance(part, dict) else None
        first = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(first, dict):
            message = first.get("message")
            text = message.get("content") if isinstance(message, dict) else first.get("text")
            return text if isinstance(text, str) else None
    return None


def find_time(record, request):
    """Return a request's time in seconds, None where it has none; that of the answer stands in for it."""
    for part in (record, request):
        for name in TIMES:
            if part.get(name) is not None:
                return _read_time(part[name], name)
    answer = record.get("response")
    created = answer.get("created") if isinstance(answer, dict) else None
    return None if created is None else _read_time(created, "created")


def _read_time(value, name):
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e20:
        return value / next((units for least, units in _UNITS if abs(value) >= least), 1)
    raise Fault(f"has {name} {show_value(value)}; expected a number of seconds (or ms, us, ns) or an ISO 8601 time")


def find_whole(part, name):
    """Return a whole number of 0 or more, None where there is none."""
    value = part.get(name)
    if value is not None and (not is_whole(value) or value < 0):
        raise Fault(f"has {name} {show_value(value)}; expected a whole number, 0 or more")
    return value


def replace_halves(text):
    """Return a text with half characters (lone surrogates), which no tokenizer takes, replaced by U+FFFD.

    >>> replace_halves("a" + chr(0xD800)) == "a" + chr(0xFFFD)
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def make_unique(name, seen):
    """Return a name that is not among those seen (a repeat becomes `NAME#2`), and add it to them."""
    unique, repeat = name, 1
    while unique in seen:
        repeat += 1
        unique = f"{name}#{repeat}"
    seen.add(unique)
    return unique
