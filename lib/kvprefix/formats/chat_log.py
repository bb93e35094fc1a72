"""Read logs of chat requests, a request per line: OpenAI's form with a time and, if known, the completion.

Our own engine traces are one kind of them. A line holds `messages`, itself or in `body` or `request` (the batch form);
its time, as `timestamp`, `time`, `created`, `created_at`, `startTime` or `start_time`; its name, as `request_id`,
`custom_id` or `id`. What the model answered is taken from `completion`, `response`, `output` or `choices`; who asked,
from `conversation_id` or `user`. Text only: what is no such request, or has tools or images, is skipped and counted by
reason. Nothing is tokenised here.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kvprefix.conversations.records import MOST_NAMES, Message, make_unique, replace_halves
from kvprefix.files.jsonlines import read_objects, show_value
from kvprefix.files.paths import InputError, explain_os_errors
from kvprefix.files.words import count
from kvprefix.formats import chat_fields as logfields
from kvprefix.formats.chat_fields import ENGINE_FIELDS, EXPECTED, TIMES, Skipped


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
        What the model answered, if the log says so.
    asker : tuple or None
        ("conversation_id", ...) or ("user", ...), if the log says so.
    turn, prompt_tokens, output_tokens : int or None
        If the log says so.
    max_tokens : int or None
        The most that the request allowed to generate.
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
        `trace` (the file's name), `requests_read`, `skipped` (by reason), `first_skipped` (the first line of each), and
        `notes` on what was skipped and put right.
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
        In order of time; a log in which no line has a time stays in its order, and all its requests arrive at 0 s.

    Raises
    ------
    InputError
        No line is such a request, or half or more of the requests have no time while others have one.
    """
    reader, requests, lines = _Reader(), [], []
    with explain_os_errors(path):
        for number, record in read_objects(path, EXPECTED, on_fault=reader.skip_line, progress=progress):
            try:
                requests.append(reader.read(record))
                lines.append(number)
            except Skipped as skipped:
                reader.skip(number, *skipped.args)
    requests = _leave_out_timeless(path, requests, lines, reader)
    if not requests:
        raise InputError(f"{path}: holds no requests of text{reader.list_skipped()}; {EXPECTED}")
    requests, arrival_s, notes = _order(requests, reader.engine_lines == len(requests))
    info = {
        "trace": Path(path).name,
        "requests_read": len(requests) + sum(reader.skipped.values()),
        "skipped": dict(sorted(reader.skipped.items())),
        "first_skipped": dict(sorted(reader.first_skipped.items())),
        "notes": [*reader.describe(requests), *notes],
    }
    return RequestLog(requests, arrival_s, info)


def _leave_out_timeless(path, requests, lines, reader):
    """Skip the requests without a time if most have one."""
    without = [i for i, request in enumerate(requests) if request.time_s is None]
    if not without or len(without) == len(requests):
        return requests
    said = f"has no time ({', '.join(TIMES)})"
    if 2 * len(without) >= len(requests):
        raise InputError(
            f"{path}: line {lines[without[0]]} {said}, and neither have {len(without):,} of the {len(requests):,} "
            "requests; expected all or none to have one"
        )
    for i in without:
        reader.skip(lines[i], "without a time", said)
    return [request for request in requests if request.time_s is not None]


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


class _Reader:
    """Reads records one by one; keeps each distinct message once, and counts."""

    def __init__(self):
        self.known, self.names, self.skipped, self.first_skipped = {}, {}, Counter(), {}
        self.engine_lines = self.renamed = self.salted = self.halves = self.systems = self.odd_replies = 0
        self.unused, self.others, self.times = Counter(), Counter(), Counter()

    def read(self, record):
        """Return a record's request; raise Skipped."""
        request = logfields.find_request(record)
        if request is None:
            raise Skipped("without messages", f"lacks messages; {EXPECTED}")
        pairs = logfields.find_messages(record, request)
        time_s, asker = logfields.find_time(record, request), logfields.find_asker(record, request)
        numbers = [logfields.find_whole(record, name) for name in ("turn", "prompt_tokens", "output_tokens")]
        numbers.append(logfields.find_whole(request, "max_tokens", 2**63 - 1))
        model, reply, name = request.get("model", record.get("model")), logfields.find_reply(record), self._name(record)
        self.odd_replies += reply is None and logfields.has_answer(record)
        messages = tuple(self._keep(*pair) for pair in pairs)
        reply = None if reply is None else self._keep("assistant", reply).text
        self._count(record, request, len(pairs))
        return Logged(
            name, time_s, messages, reply, asker, *numbers, replace_halves(model) if isinstance(model, str) else None
        )

    def _count(self, record, request, n_messages):
        """Count what is put right and what is not kept."""
        unused, others, times = logfields.list_unused(record, request)
        self.systems += n_messages > len(request["messages"])
        self.salted += bool(request.get("cache_salt"))
        self.engine_lines += record.keys() >= ENGINE_FIELDS
        for counter, names in ((self.unused, unused), (self.others, others), (self.times, times)):
            counter.update(name if name in counter or len(counter) < MOST_NAMES else "other fields" for name in names)

    def skip_line(self, number, fault):
        """Count a line that is no JSON object."""
        self.skip(number, "not JSON" if fault.startswith("is not JSON") else "no JSON object", fault)

    def skip(self, number, reason, said):
        """Count a line that is left out; the first one of each reason is shown."""
        self.skipped[reason] += 1
        self.first_skipped.setdefault(reason, f"line {number} {said.removesuffix(f'; {EXPECTED}')}")

    def list_skipped(self):
        """Return what was skipped, in brackets; "" if nothing was."""
        said = (f"{n:,} {reason} skipped: {self.first_skipped[reason]}" for reason, n in sorted(self.skipped.items()))
        return f" ({'; '.join(said)})" if self.skipped else ""

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
            f"{count(self.systems, 'request')} with a system text beside the messages: put before them": self.systems,
            f"{count(self.renamed, 'request')} with a name that another one has: renamed": self.renamed,
            f"{count(self.halves, 'message')} with half characters (lone surrogates): replaced by U+FFFD": self.halves,
            f"not kept, of messages: {_list(self.unused)}": self.unused,
            f"not kept, of requests: {_list(self.others)}": self.others,
            f"answers that are not text alone: {self.odd_replies:,}, taken as none": self.odd_replies,
            f"times that are not used: {_list(self.times)}": self.times,
            f"{count(self.salted, 'request')} with a cache_salt: not kept, they share as if without": self.salted,
            f"{count(len(models), 'model')}: their requests share as if they were one's": len(models) > 1,
        }
        skipped = [f"skipped: {n:,} {why} ({self.first_skipped[why]})" for why, n in sorted(self.skipped.items())]
        return [*skipped, *(text for text, applies in said.items() if applies)]


def _list(counter):
    return ", ".join(f"{show_value(name)} of {n:,}" for name, n in sorted(counter.items()))
