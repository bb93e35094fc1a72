"""Calls of a chat server out of chat traffic of any form: in order of time, each with a name of its own."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kvprefix.conversations.calls import LISTS
from kvprefix.conversations.records import make_unique, replace_halves
from kvprefix.conversations.traffic import TrafficCounts, read_traffic
from kvprefix.files.paths import InputError
from kvprefix.files.progress import show_progress
from kvprefix.files.words import count
from kvprefix.formats.traffic_notes import describe_read, describe_skipped
from kvprefix.tokens.call_parts import make_calls


@dataclass(frozen=True)
class CallLog:
    """Calls with their bodies.

    Attributes
    ----------
    calls : list of Call
        In order of time, if all have one, else of the source. Their names are unique; equal messages are one object.
    info : dict
        `trace` (the source's name), `counts` (as `TrafficCounts.as_dict` gives them), and `notes` in words.
    """

    calls: list = field(repr=False)
    info: dict

    def __len__(self):
        return len(self.calls)


def read_call_log(source, *, progress=True):
    """Read the calls of chat traffic of any form.

    Parameters
    ----------
    source : path-like or `bundled`
        A file, a folder or a glob, see `read_traffic`.
    progress : bool

    Returns
    -------
    CallLog

    Raises
    ------
    InputError
        No such source, none of a known form, or no call in it.
    """
    counts, calls, known = TrafficCounts(), [], {}
    with show_progress(None, "reading", "B", shown=progress) as bar:
        for item in read_traffic(source, counts=counts):
            calls += [_share_messages(call, known) for call in make_calls(item)]
            bar.update(counts.bytes_read - bar.n)
    if not calls:
        raise InputError(f"{source}: holds no request{describe_skipped(counts)}")
    order, _, notes = order_by_time(calls)
    names = name_calls(calls)
    info = {
        "trace": Path(str(source)).name, "counts": counts.as_dict(), "notes": [*describe_read(counts), *notes],
    }  # fmt: skip
    return CallLog([calls[k]._replace(name=names[k]) for k in order.tolist()], info)


def _share_messages(call, known):
    """Return a call whose messages of text are the ones of earlier calls that are equal."""
    name = LISTS[call.api]
    given = call.body.get(name)
    if not isinstance(given, list):
        return call
    return call._replace(body={**call.body, name: [_share(message, known) for message in given]})


def _share(message, known):
    if len(message) != 2 or not isinstance(message.get("content"), str):
        return message
    return known.setdefault(tuple(message.items()), message)


def name_calls(calls):
    """Return a name for each call: its own, made unique, or its number."""
    taken = {}
    return [
        make_unique(f"r{k}" if call.name is None else replace_halves(str(call.name)), taken)
        for k, call in enumerate(calls)
    ]


def order_by_time(calls, *, from_first=True):
    """Return (order of calls, arrival times in that order, notes).

    Times count from the first call, to the microsecond, or stay as they are. If any call has no time, all stay in their
    order, at 0 s.
    """
    times = [call.start_s for call in calls]
    without = sum(time is None for time in times)
    if without:
        said = "no request has a time" if without == len(times) else f"{count(without, 'request')} without a time"
        return np.arange(len(calls)), np.zeros(len(calls)), [f"{said}: all arrive at 0 s, in the order of the source"]
    times = np.array(times)
    late = int(np.count_nonzero(times < np.maximum.accumulate(times)))
    order = np.argsort(times, kind="stable")
    notes = [f"{count(late, 'stamp')} out of order: sorted"] if late else []
    return order, np.round(times[order] - times[order[0]], 6) if from_first else times[order], notes
