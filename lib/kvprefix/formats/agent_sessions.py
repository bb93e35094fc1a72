"""Agentic sessions: JSON objects of one session each, with its requests and sub-agents, as kv-cache-tester has them.

A session is ``{"id", "block_size", "hash_id_scope": "local", "requests": [...]}``. A request has `t` (seconds from the
session's start), `in` and `out` (tokens), `hash_ids`, and, where they are known, `stop`, `input_types`, `api_time`
(seconds), `think_time` (seconds since the last answer) and `model`. An entry of `type` `subagent` holds a sub-agent's
`requests`, whose `t` counts from its own `t`. `hash_ids` lists the full blocks of a prompt, floor(in / block_size), or
the partial last one too; an id names the whole prefix, and is comparable within one session only if the scope is
`local`.
"""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from kvprefix.blocks.sessions import PERSON, TOOL, UNKNOWN
from kvprefix.conversations.times import LATEST_S
from kvprefix.files.checks import check_block_size
from kvprefix.files.jsonlines import show_value
from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.formats.documents import list_files, read_documents
from kvprefix.formats.session_rows import Request, SessionRows
from kvprefix.formats.session_signs import is_agent_session
from kvprefix.formats.values import is_id, is_length, is_stamp

EXPECTED = (
    'a session is {"id": name, "block_size": tokens, "hash_id_scope": "local", "requests": [{"t": seconds, "in": '
    'tokens, "out": tokens, "hash_ids": [block, ...]}, ...]}'
)
MOST_DEPTH = 8  # of sub-agents within sub-agents
_CALLS_TOOL = ("tool_use", "tool_calls")  # `stop` of an answer that a tool's result follows


class _Skip(Exception):
    """Why a session is not read: the reason that is counted, and the detail of its first place."""

    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def read_agent_sessions(path, clockwork, block_size=None):
    """Read agentic sessions.

    Parameters
    ----------
    path : path-like
        A file of JSON Lines or JSON, or a folder of such files; plain, gzip or zstandard.
    clockwork : Clockwork
        For requests without `api_time`.
    block_size : int, optional
        Tokens per block, as the sessions have them.

    Returns
    -------
    SessionTrace
        ``accesses.info`` holds `trace` (the name), `notes`, `models` (by session) and `two_models` (how many sessions
        use several, all replayed as one).

    Raises
    ------
    InputError
        No session that can be read; or, all of them within one scope, sessions of another block size.
    """
    sessions = _Sessions(block_size)
    files, others = list_files(path)
    for file in files:
        for document in read_documents(file, "hash_ids", EXPECTED):
            sessions.take(document)
    return sessions.finish(path, clockwork, others)


class _Sessions:
    """The sessions of files as they are read; one that is wrong is skipped as a whole, and counted by reason."""

    def __init__(self, block_size):
        self.block_size = None if block_size is None else check_block_size(block_size)
        self.rows, self.models, self.seen = None, [], set()
        self.skipped, self.first = Counter(), {}

    def take(self, document):
        """Take in a document, or count why not."""
        try:
            self._add(document)
        except _Skip as skip:
            self.skipped[skip.reason] += 1
            self.first.setdefault(skip.reason, f"{document.place}: {skip.detail}")

    def _add(self, document):
        record = document.record
        if document.fault or not is_agent_session(record):
            raise _Skip("that is none", document.fault or f"is no session; {EXPECTED}")
        self._check(record, record["block_size"], record.get("hash_id_scope", "local"))
        reader = _SessionReader(self.rows.block_size)
        reader.read(record["requests"])
        if not reader.requests:
            raise _Skip("without requests", "holds no requests")
        key = show_value(record.get("id")), hashlib.blake2b(str(reader.requests).encode()).digest()
        if key in self.seen:
            raise _Skip("that was read before", f"is session {key[0]} again")
        self.seen.add(key)
        self.rows.add(reader.requests, reader.lists)
        self.models.append(sorted(reader.models))

    def _check(self, record, size, scope):
        """Raise _Skip if a session does not go with those before it."""
        try:
            check_block_size(size)
        except InputError as error:
            raise _Skip("of a wrong block size", str(error)) from error
        if scope not in ("local", "global"):
            raise _Skip("of an unknown scope", f"has hash_id_scope {show_value(scope)}; expected local or global")
        if self.rows is None:
            self.rows = SessionRows(self.block_size or size, scope == "local")
        if size != self.rows.block_size:
            raise _Skip("of another block size", f"has blocks of {size} tokens, and {self.rows.block_size} are read")
        if (scope == "local") != self.rows.is_local:
            raise _Skip("of another scope", f"has hash_id_scope {scope}, unlike the first session")

    def finish(self, path, clockwork, others):
        """Return the SessionTrace, with what is to be said."""
        skipped = [
            f"{count(n, 'session')} {reason}: skipped (first: {self.first[reason]})"
            for reason, n in self.skipped.items()
        ]
        if self.rows is None or not self.rows.n_sessions:
            raise InputError("; ".join(self.first.values()) or f"{path}: holds no sessions; {EXPECTED}")
        notes = [f"{count(others, 'file')} of other kinds in the folder: not read"] if others else []
        several = sum(len(models) > 1 for models in self.models)
        if several:
            notes.append(f"{count(several, 'session')} with several models: replayed as if one served all")
        info = {"trace": Path(path).name, "notes": [*notes, *skipped], "models": self.models, "two_models": several}
        return self.rows.make_trace(clockwork, info)


class _SessionReader:
    """Reads the entries of a session.

    Attributes
    ----------
    requests : list of Request
    lists : list of (ndarrays or lists)
        The ids of each.
    models : set of str
        Those that the requests name.
    """

    def __init__(self, block_size):
        self.block_size, self.agents = block_size, 0
        self.requests, self.lists, self.models = [], [], set()

    def read(self, entries, start_s=0.0, agent=0, depth=0):
        """Read the entries of an agent, whose times count from `start_s`, and of its sub-agents."""
        before, last = UNKNOWN, None
        for number, entry in enumerate(entries, start=1):
            place = f"its entry {number}" if not agent else f"entry {number} of its sub-agent {agent}"
            if not isinstance(entry, dict):
                raise _Skip("with a wrong request", f"{place} is no JSON object")
            time_s = start_s + _read_time(entry, place)
            if entry.get("type") == "subagent":
                self._read_subagent(entry, time_s, depth, place)
            else:
                self._add(entry, time_s, agent, before, place)
                self._end(last, time_s, entry.get("think_time"))
                last = len(self.requests) - 1
                stop = entry.get("stop")
                before = UNKNOWN if not stop else TOOL if stop in _CALLS_TOOL else PERSON

    def _read_subagent(self, entry, start_s, depth, place):
        if not isinstance(entry.get("requests"), list) or depth == MOST_DEPTH:
            raise _Skip("with a wrong sub-agent", f"{place} is no sub-agent with a list of requests")
        self.agents += 1
        self.read(entry["requests"], start_s, self.agents, depth + 1)

    def _add(self, entry, time_s, agent, before, place):
        tokens, output, service = entry.get("in"), entry.get("out", 0), entry.get("api_time")
        for name, value in (("in", tokens), ("out", output)):
            if not is_length(value):
                said = f"{place} has {name} {show_value(value)}; expected a whole number of tokens"
                raise _Skip("with a wrong length", said)
        is_known = is_stamp(service) and 0 <= service <= LATEST_S
        after = before if before != UNKNOWN else _find_after(entry.get("input_types"))
        self.lists.append(self._read_ids(entry.get("hash_ids"), tokens, place))
        self.requests.append(
            Request(time_s, float(service) if is_known else np.nan, tokens, output, agent, after, len(self.requests))
        )
        if isinstance(entry.get("model"), str):
            self.models.add(entry["model"])

    def _end(self, last, next_s, think_s):
        """Take the service time of the request before, if it has none, from how long after its answer the next came."""
        if last is not None and np.isnan(self.requests[last].service_s) and is_stamp(think_s):
            before = self.requests[last]
            self.requests[last] = before._replace(service_s=max(next_s - think_s - before.time_s, 0.0))

    def _read_ids(self, ids, tokens, place):
        if not isinstance(ids, np.ndarray) and not (isinstance(ids, list) and all(map(is_id, ids))):
            raise _Skip("with wrong ids", f"{place} has hash_ids {show_value(ids)}; expected a list of ids")
        if len(ids) not in (tokens // self.block_size, -(-tokens // self.block_size)):
            said = f"{place} lists {count(len(ids), 'block')} for {tokens} tokens; expected {tokens}"
            raise _Skip("with wrong ids", f"{said} / {self.block_size}, rounded down or up")
        return ids


def _read_time(entry, place):
    time = entry.get("t")
    if not is_stamp(time) or abs(time) > LATEST_S:
        raise _Skip("with a wrong time", f"{place} has t {show_value(time)}; expected seconds")
    return float(time)


def _find_after(input_types):
    """Return what a request follows by what its input holds, if the answer before does not tell how it ended."""
    return TOOL if isinstance(input_types, list) and "tool_result" in input_types else UNKNOWN
