"""Read a field that several forms share: names, times, JSON in text, tokens that a provider counted."""

import contextlib
import json

from kvprefix.conversations.calls import Usage
from kvprefix.conversations.records import EMPTY, Refused, replace_halves
from kvprefix.conversations.times import EXPECTED, read_time
from kvprefix.files.jsonlines import show_value

MOST_TOKENS = 10**8  # of a request: no model takes more
_STARTS = ("startTime", "start_time", "request_time", "timestamp", "time", "created", "created_at", "createdAt", "ts")
_FIRSTS = ("completionStartTime", "completion_start_time", "first_token_time", "firstTokenTime")
_ENDS = ("endTime", "end_time", "completed_at", "completedAt", "ended_at")
_LASTING_MS = {"ttft_ms": "first", "time_to_first_token_ms": "first", "duration_ms": "end", "latency_ms": "end",
               "response_time_ms": "end"}  # fmt: skip
TIMES = (*_STARTS, *_FIRSTS, *_ENDS, *_LASTING_MS)


def load_text(value):
    """Return the object or list that a text holds as JSON; anything else as it is.

    >>> load_text('{"a": 1}'), load_text("[hm]"), load_text("7")
    ({'a': 1}, '[hm]', '7')
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def find_filled(names, *parts):
    """Return (name, value) of the first field of these names that is not empty in one of the parts; (None, None)."""
    for part in parts:
        if isinstance(part, dict) and not part.keys().isdisjoint(names):
            for name in names:
                value = part.get(name)
                if value is not None and value not in EMPTY:
                    return name, value
    return None, None


def find_name(names, *parts):
    """Return the text or whole number under one of these names as a text; None if there is none."""
    name, value = find_filled(names, *parts)
    if name is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused("with_odd_name", f"{name} is {show_value(value)}; expected a text or a whole number")
    return replace_halves(str(value))


def find_time(names, *parts):
    """Return the seconds of the first time of these names; None if there is none; raise Refused for an odd one."""
    name, value = find_filled(names, *parts)
    return None if name is None else check_time(value, name)


def check_time(value, name):
    """Return a time in seconds; raise Refused if it cannot be one."""
    try:
        return read_time(value)
    except ValueError:
        raise Refused("with_odd_time", f"{name} is {_show(value)}; {EXPECTED}") from None


def _show(value):
    return show_value(value) if isinstance(value, str | int | float | list | dict) else str(value)


def find_times(traffic, place, *parts):
    """Return when a call was sent, its first token came, and its answer was whole: `start_s` and so on."""
    start, first, end = (find_time(names, *parts) for names in (_STARTS, _FIRSTS, _ENDS))
    lasting = () if start is None or all(_LASTING_MS.keys().isdisjoint(one) for one in parts) else _LASTING_MS
    for name in lasting:
        lasted = find_filled((name,), *parts)[1]
        if isinstance(lasted, int | float) and not isinstance(lasted, bool) and lasted >= 0:
            first, end = (start + lasted / 1e3, end) if _LASTING_MS[name] == "first" else (first, start + lasted / 1e3)
    return order_times(traffic, place, start, first, end)


def order_times(traffic, place, start, first, end):
    """Return the three times by name; an end before the start is noted and left out: the clock went backwards."""
    times = {"start_s": start, "first_token_s": first, "end_s": end}
    if first is None and end is None:
        return times
    for name in ("first_token_s", "end_s"):
        if start is not None and times[name] is not None and times[name] < start:
            traffic.counts.note("times_before_the_start", place, f"{name.removesuffix('_s')} lies before its start")
            times[name] = None
    return times


def find_usage(*parts):
    """Return the Usage that `usage` of one of the parts holds, in OpenAI's or Anthropic's names."""
    usage = find_filled(("usage",), *parts)[1]
    return read_usage(usage) if isinstance(usage, dict) else Usage()


def read_usage(usage):
    """Return the Usage of counts in OpenAI's or Anthropic's names, whose `input_tokens` are without the cached ones.

    A prompt has at least a token: a count of 0 is none.

    >>> read_usage({"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 1})
    Usage(prompt=16, cached=5, output=None)
    >>> read_usage({"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}})
    Usage(prompt=7, cached=4, output=2)
    """
    prompt, given = count_of(usage, "prompt_tokens"), count_of(usage, "input_tokens")
    details = find_filled(("prompt_tokens_details", "input_tokens_details"), usage)[1]
    cached = count_of(details if isinstance(details, dict) else {}, "cached_tokens")
    output = count_of(usage, "completion_tokens", "output_tokens")
    read = count_of(usage, "cache_read_input_tokens")
    made = count_of(usage, "cache_creation_input_tokens")
    if prompt is None and (read is not None or made is not None):
        prompt = (given or 0) + (read or 0) + (made or 0)
    prompt = given if prompt is None else prompt
    return Usage(prompt, read if cached is None else cached, output) if prompt != 0 else Usage()


def count_of(fields, *names):
    """Return the first number of tokens under these names; None if there is none."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
            return value
    return None
