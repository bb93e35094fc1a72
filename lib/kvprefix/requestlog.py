"""Read logs of chat requests, a request a line: OpenAI's form with a time and, if known, the completion.

Our own engine traces are one kind of them. A line holds `messages`, itself or in `body` or `request` (the batch form);
its time, as `timestamp`, `time`, `created` or `created_at`; its name, as `request_id`, `custom_id` or `id`. What the
model answered is taken from `completion`, `response`, `output` or `choices`; who asked, from `conversation_id` or
`user`. Text only: requests with tools or images are skipped and counted. Nothing is tokenised here.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kvprefix import logfields
from kvprefix.conversations import Message
from kvprefix.files import InputError, explain_os_errors
from kvprefix.jsonlines import count, read_objects
from kvprefix.logfields import ENGINE_FIELDS, EXPECTED, TIMES, Fault, Unsupported, make_unique, replace_halves


class Logged(NamedTuple):
    """A request of a log.

    Attributes
    ----------
    name : str
        Unique in the log.
    time_s : float or None
        Seconds, as the log counts them.
    messages : tuple of Message
        Of its prompt; equal ones are one object.
    reply : str or None
        What the model answered, where the log says so.
    asker : tuple or None
        ("conversation_id", ...) or ("user", ...), where the log says so.
    turn, prompt_tokens, output_tokens : int or None
        Where the log says so.
    max_tokens : int or None
        The most that might be generated.
    model : str or None
    """

    name: str
    time_s: float | None
    messages: tuple
    reply: str | None
    asker: tuple | None
    turn: int | None
    prompt_tokens: int | None
    output_tokens: int | None
    max_tokens: int | None
    model: str | None


@dataclass(frozen=True)
class RequestLog:
    """Requests with their messages, in arrival order.

    Attributes
    ----------
    requests : list of Logged
    arrival_s : (n,) ndarray of float64
        Seconds, ascending: an engine trace's own, else counted from the first request, to the microsecond.
    info : dict
        `trace` (the file's name), `requests_read`, `skipped` (by reason), and `notes` on what was put right.
    """

    requests: list = field(repr=False)
    arrival_s: np.ndarray
    info: dict

    def __len__(self):
        return len(self.requests)


def read_log(path, *, progress=True):
    """Read a log of chat requests.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.
    progress : bool

    Returns
    -------
    RequestLog
        By time; a log in which no line has a time stays in its order, and all its requests arrive at 0 s.

    Raises
    ------
    InputError
        Naming the file and the line that is no such request, or has no time where the first one has one.
    """
    reader, requests = _Reader(), []
    with explain_os_errors(path):
        for number, record in read_objects(path, EXPECTED, progress=progress):
            try:
                requests.append(reader.read(record))
            except Unsupported as reason:
                reader.skipped[reason.args[0]] += 1
                continue
            except Fault as fault:
                raise InputError(f"{path}: line {number} {fault}") from None
            if (requests[-1].time_s is None) != (requests[0].time_s is None):
                said = "has no time" if requests[-1].time_s is None else "has a time, unlike the first one"
                raise InputError(f"{path}: line {number} {said} ({', '.join(TIMES)}); expected all or none to have one")
    if not requests:
        skipped = f" ({_list(reader.skipped)} skipped)" if reader.skipped else ""
        raise InputError(f"{path}: holds no requests of text{skipped}; {EXPECTED}")
    requests, arrival_s, notes = _order(requests, reader.engine_lines == len(requests))
    info = {
        "trace": Path(path).name,
        "requests_read": len(requests) + sum(reader.skipped.values()),
        "skipped": dict(sorted(reader.skipped.items())),
        "notes": [*reader.describe(requests), *notes],
    }
    return RequestLog(requests, arrival_s, info)


def _order(requests, is_engine_trace):
    """Return the requests by time, their arrival times, and what was put right."""
    if requests[0].time_s is None:
        note = "no line has a time: all requests arrive at 0 s, in the lines' order"
        return requests, np.zeros(len(requests)), [note]
    times = np.array([request.time_s for request in requests])
    late, notes = int(np.count_nonzero(times < np.maximum.accumulate(times))), []
    if late:
        notes.append(f"{count(late, 'stamp')} out of order: sorted")
        order = np.argsort(times, kind="stable")
        requests, times = [requests[i] for i in order], times[order]
    return requests, times if is_engine_trace else np.round(times - times[0], 6), notes


def _list(counter):
    return ", ".join(f"{n:,} {name}" for name, n in sorted(counter.items()))


class _Reader:
    """Reads records one by one; keeps each distinct message once, and counts."""

    def __init__(self):
        self.known, self.names, self.skipped = {}, set(), Counter()
        self.engine_lines = self.renamed = self.salted = self.halves = self.trimmed = 0

    def read(self, record):
        """Return a record's request; raise Fault or Unsupported."""
        request = logfields.find_request(record)
        if request is None:
            raise Fault(f"lacks messages; {EXPECTED}")
        pairs, trimmed = logfields.find_messages(request)
        model, reply = request.get("model", record.get("model")), logfields.find_reply(record)
        numbers = [logfields.find_whole(record, name) for name in ("turn", "prompt_tokens", "output_tokens")]
        read = Logged(
            self._name(record), logfields.find_time(record, request), tuple(self._keep(*pair) for pair in pairs),
            None if reply is None else self._keep("assistant", reply).text, logfields.find_asker(record, request),
            *numbers, logfields.find_whole(request, "max_tokens"), model if isinstance(model, str) else None,
        )  # fmt: skip
        self.trimmed += trimmed
        self.salted += bool(request.get("cache_salt"))
        self.engine_lines += record.keys() >= ENGINE_FIELDS
        return read

    def _keep(self, role, text):
        """Return a message, one object for all equal ones."""
        message = Message(role, text)
        kept = self.known.get(message)
        if kept is None:
            kept = Message(replace_halves(role), replace_halves(text))
            self.halves += kept != message
            kept = self.known[message] = self.known.setdefault(kept, kept)
        return kept

    def _name(self, record):
        """Return the record's name, made unique."""
        given = logfields.find_name(record)
        name = f"r{len(self.names)}" if given is None else replace_halves(given)
        unique = make_unique(name, self.names)
        self.renamed += unique != name
        return unique

    def describe(self, requests):
        """Return what was skipped, put right or left out."""
        models = {request.model for request in requests} - {None}
        said = {
            f"skipped: {_list(self.skipped)}": self.skipped,
            f"{count(self.renamed, 'request')} with a name that another one has: renamed": self.renamed,
            f"{count(self.halves, 'message')} with half characters (lone surrogates): replaced by U+FFFD": self.halves,
            f"{count(self.trimmed, 'message')} with fields beside role and content: not kept": self.trimmed,
            f"{count(self.salted, 'request')} with a cache_salt: not kept, they share as if without": self.salted,
            f"{count(len(models), 'model')}: their requests share as if they were one's": len(models) > 1,
        }
        return [text for text, applies in said.items() if applies]
