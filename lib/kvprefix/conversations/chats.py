"""Chats as a user gives them, files or messages in memory, with counts of what was repaired and skipped."""

import functools
import hashlib
import json
from pathlib import Path

from kvprefix.conversations.calls import Call
from kvprefix.conversations.forms import chat_sets
from kvprefix.conversations.load import list_data, locate_data
from kvprefix.conversations.sources import find_files
from kvprefix.conversations.traffic import TrafficCounts, read_traffic
from kvprefix.files.paths import InputError, resolve_input
from kvprefix.files.sealed import stamp_file
from kvprefix.files.shown import Shown


class Conversations(Shown):
    """The usable conversations and calls of a source, or of records in memory, in their order.

    Iterating reads them; nothing of a file is kept in memory.

    Attributes
    ----------
    path : pathlib.Path or None
        Of a file or a folder, or a glob; None for records in memory.
    name, given : str
        Of the file, and the source as it was given; `in memory`.
    options : dict
        `max_conversations`, `drop_duplicates` and `rejoin_split`.
    """

    def __init__(self, source, *, max_conversations=None, drop_duplicates=False, rejoin_split=False):
        self.options = {
            "max_conversations": max_conversations, "drop_duplicates": drop_duplicates, "rejoin_split": rejoin_split,
        }  # fmt: skip
        if isinstance(source, str | Path):
            self._records, self._form, self.given = None, None, str(source)
            self.path = _locate(source)
            self.name = self.path.name
        else:
            source = list(source) if hasattr(source, "__iter__") and not isinstance(source, dict | bytes) else source
            self.path, self._records = None, _check_records(source)
            self._form = None if all(isinstance(one, dict) for one in source) else chat_sets.FORM.name
            self.name = self.given = "in memory"

    def read(self, counts=None):
        """Yield each `Conversation`, `Dialog` or `Call`; `counts` (a TrafficCounts) is filled in meanwhile.

        `max_conversations` stops after so many of the first two. What conversations calls belong to is known later.
        """
        most, options = self.options["max_conversations"], {**self.options, "counts": counts}
        del options["max_conversations"]
        n = 0
        for item in read_traffic(self._records if self.path is None else self.path, form=self._form, **options):
            yield item
            n += not isinstance(item, Call)
            if n == most:
                break

    def __iter__(self):
        return self.read()

    def __len__(self):
        return self.counts.conversations + self.counts.dialogs + self.counts.calls

    @functools.cached_property
    def counts(self):
        """What a whole pass read, repaired and skipped, as TrafficCounts."""
        counts = TrafficCounts()
        for _ in self.read(counts):
            pass
        return counts

    def stamps(self, *, shown=False):
        """Return `stamp_file` of each file as it is now; none for records in memory, which do not change."""
        if self.path is None:
            return []
        return [stamp_file(path, shown=shown) for path in list_data(self.given)]

    def fingerprint(self, stamps):
        """Return (SHA-256, number of bytes) of the files that have these stamps, or of records in memory, as JSON."""
        if self.path is None:
            data = json.dumps(self._records, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
            return hashlib.sha256(data).hexdigest(), len(data)
        top = find_files(self.path)[1]
        if top is None:
            return stamps[0].sha256, stamps[0].size
        listed = json.dumps([[one.path.relative_to(top).as_posix(), one.sha256] for one in stamps])
        return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest(), sum(one.size for one in stamps)

    def describe(self):
        """Return the number of conversations, and what was repaired and skipped."""
        counts = self.counts.as_dict()
        usable = f"{counts['conversations'] + counts['dialogs']:,} usable"
        usable = f"{counts['calls']:,} calls" if counts["calls"] else usable
        lines = {"read": f"{counts['records_read']:,} records, {usable}"}
        for name in ("skipped", "repaired"):
            found = {reason: n for reason, n in counts[name].items() if n}
            lines[name] = ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in found.items()) or "none"
        return {"what": f"Conversations ({self.name})", **lines}


def _locate(source):
    """Return the path of a file, a folder or a glob; what is not there is said now."""
    path = resolve_input(source)
    if str(source) == "bundled" or path.exists() and not path.is_dir():
        return locate_data(source)
    find_files(source)
    return path


def _check_records(source):
    """Return records as a file holds them: a list of messages becomes a record."""
    expected = "expected a file, or a list of conversations, each a list of messages {'role': ..., 'content': ...}"
    if isinstance(source, dict | bytes) or not hasattr(source, "__iter__"):
        raise InputError(f"conversations are a {type(source).__name__}; {expected}")
    records = []
    for number, one in enumerate(source):
        if not isinstance(one, dict | list | tuple):
            raise InputError(f"conversation {number} is a {type(one).__name__}; {expected}")
        if isinstance(one, dict) and "role" in one:
            raise InputError(f"conversation {number} is a single message; {expected}")
        records.append(one if isinstance(one, dict) else {"messages": list(one)})
    return records


def read_conversations(source, *, max_conversations=None, drop_duplicates=False, rejoin_split=False):
    """Read chats from a file, or from messages in memory.

    Parameters
    ----------
    source : path-like, `bundled`, or iterable
        A file of any form of chats, calls of a server or agent transcripts, JSON, JSON Lines, Parquet or Arrow, also
        compressed; a folder or a glob of such files. Or conversations, each a list of messages
        ``{"role": ..., "content": ...}`` or a record as a file holds it.
    max_conversations : int, optional
        Take the first N usable ones.
    drop_duplicates : bool
        Skip a conversation equal to an earlier one.
    rejoin_split : bool
        Join ShareGPT's split records again.

    Returns
    -------
    Conversations

    Raises
    ------
    InputError
        No such file, or something that is no conversation; it says what would be right.

    Examples
    --------
    >>> read_conversations([[{"role": "user", "content": "Hello"}], [{"role": "user", "content": " "}]])
    Conversations (in memory)
      read      2 records, 1 usable
      skipped   1 no user message
      repaired  none
    """
    return Conversations(
        source, max_conversations=max_conversations, drop_duplicates=drop_duplicates, rejoin_split=rejoin_split
    )
