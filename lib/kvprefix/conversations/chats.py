"""Chats as a user gives them, a file or messages in memory, with counts of what was repaired and skipped."""

import functools
import hashlib
import json
from pathlib import Path

from kvprefix.conversations.load import LoadCounts, iterate_conversations, locate_data
from kvprefix.files.paths import InputError
from kvprefix.files.sealed import stamp_file
from kvprefix.files.shown import Shown


class Conversations(Shown):
    """The usable conversations of a file, or of records in memory, in their order.

    Iterating reads them; nothing of a file is kept in memory.

    Attributes
    ----------
    path : pathlib.Path or None
        None for records in memory.
    name, given : str
        Of the file, and the source as it was given; `in memory`.
    options : dict
        `max_conversations`, `drop_duplicates` and `rejoin_split`.
    """

    def __init__(self, source, **options):
        self.options = options
        if isinstance(source, str | Path):
            self.path, self._records, self.given = locate_data(source), None, str(source)
            self.name = self.path.name
        else:
            self.path, self._records = None, _check_records(source)
            self.name = self.given = "in memory"

    def read(self, counts=None):
        """Yield each `Conversation`; `counts` (a LoadCounts) is filled in meanwhile."""
        return iterate_conversations(self._records if self.path is None else self.path, counts=counts, **self.options)

    def __iter__(self):
        return self.read()

    def __len__(self):
        return self.counts.conversations

    @functools.cached_property
    def counts(self):
        """What a whole pass read, repaired and skipped, as LoadCounts."""
        counts = LoadCounts()
        for _ in self.read(counts):
            pass
        return counts

    def stamp(self, *, shown=False):
        """Return `stamp_file` of the file as it is now; None for records in memory, which do not change."""
        return None if self.path is None else stamp_file(self.path, shown=shown)

    def fingerprint(self):
        """Return (SHA-256, number of bytes) of records in memory, as JSON."""
        data = json.dumps(self._records, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        return hashlib.sha256(data).hexdigest(), len(data)

    def describe(self):
        """Return the number of conversations, and what was repaired and skipped."""
        counts = self.counts.as_dict()
        lines = {"read": f"{counts['records_read']:,} records, {counts['conversations']:,} usable"}
        for name in ("skipped", "repaired"):
            found = {reason: n for reason, n in counts[name].items() if n}
            lines[name] = ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in found.items()) or "none"
        return {"what": f"Conversations ({self.name})", **lines}


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
        A file in ShareGPT's or OpenAI's form, JSON or JSON Lines, also compressed. Or conversations, each a list of
        messages ``{"role": ..., "content": ...}`` or a record as a file holds it.
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
