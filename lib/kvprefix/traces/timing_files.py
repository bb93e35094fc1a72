"""Read files of times: starts of conversations, rates over a day, think times."""

import json

import numpy as np

from kvprefix.files.jsonlines import number_lines
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError, explain_os_errors, resolve_input

MAX_ARRIVAL_S = 1e12  # 30,000 years; beyond, microseconds are lost


def read_stamps(file, n):
    """Read the start times of n conversations from a file.

    Parameters
    ----------
    file : path-like
        One number of seconds per line, or JSON Lines with a `timestamp`: in ms as in Mooncake's traces, or, if there is
        a `chat_id`, in seconds as in Bailian's, where only requests without a `parent_chat_id` start a conversation.
    n : int
        Conversations.

    Returns
    -------
    (n,) ndarray of float64
        Seconds from the first stamp on, ascending.

    Raises
    ------
    InputError
        A line that is no stamp, which it names; or fewer stamps than conversations.
    """
    stamps = _read_numbers(file, _parse_stamp, "a number of seconds, or a JSON object with a timestamp")
    if len(stamps) < n:
        raise InputError(
            f"{file}: holds {len(stamps):,} stamps for {n:,} conversations; expected as many "
            f"(MAX_CONVERSATIONS={len(stamps)} takes fewer conversations)"
        )
    stamps = np.sort(stamps)[:n]
    return stamps - stamps[:1]


def read_profile(file):
    """Read a day's profile: 24 relative rates, one per line, from midnight on; (24,) float64."""
    profile = _read_numbers(file, _as_number, "a rate relative to the others")
    if len(profile) != 24 or (profile < 0).any() or not profile.any():
        raise InputError(f"{file}: holds {len(profile)} rates; expected 24, none below 0 and not all 0")
    return profile


def read_think_times(file):
    """Read think times in seconds, one per line; (n,) float64."""
    seconds = _read_numbers(file, _as_number, "a number of seconds, 0 or more")
    if seconds.min() < 0:
        raise InputError(f"{file}: holds {seconds.min():g} s; expected think times of 0 or more")
    return seconds


def _parse_stamp(line):
    """Return a line's stamp in seconds, None if it starts no conversation."""
    if not line.startswith("{"):
        return _as_number(line)
    fields = json.loads(line)
    if "chat_id" in fields:
        return _as_number(fields["timestamp"]) if fields.get("parent_chat_id", -1) in (-1, None) else None
    return _as_number(fields["timestamp"]) / 1000


def _as_number(value):
    """Return a number, or a text of one, as float; ValueError for anything else."""
    value = read_number(value, float) if isinstance(value, str) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return float(value)


def _read_numbers(file, parse, expected):
    """Return the numbers on a file's lines, at most MAX_ARRIVAL_S each; blank lines are skipped."""
    path, numbers = resolve_input(file), []
    with explain_os_errors(path):
        for number, line in number_lines(path):
            line = line.decode(errors="replace").strip()
            try:
                value = parse(line)
                if value is not None and not abs(value) <= MAX_ARRIVAL_S:
                    raise ValueError
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                raise InputError(
                    f"{path}: line {number} is {line[:40]!r}; expected {expected} (at most {MAX_ARRIVAL_S:g})"
                ) from None
            if value is not None:
                numbers.append(value)
    if not numbers:
        raise InputError(f"{path}: holds no numbers; expected {expected} per line")
    return np.array(numbers)
