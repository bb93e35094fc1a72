"""Dynamo's request traces: JSON Lines of events, of which `request_end` tells of a request and its blocks.

``{"event_type": "request_end", "event_time_unix_ms", "agent_context": {"session_id", "trajectory_id",
"parent_trajectory_id"}, "request": {"request_id", "output_tokens", "request_received_ms", "total_time_ms", "replay":
{"trace_block_size", "input_length", "input_sequence_hashes"}}}``, itself or in `event`. Newer ones name the agent by
`session_id` alone and its caller by `parent_session_id`. `tool_end` and `tool_error` tell when a tool was done.
"""

from bisect import bisect_right
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
from kvprefix.formats.session_signs import is_dynamo_line
from kvprefix.formats.values import is_id, is_length, is_stamp

EXPECTED = (
    'a line is {"event_type": "request_end", "event_time_unix_ms": ms, "request": {"request_id": name, "replay": '
    '{"trace_block_size": tokens, "input_length": tokens, "input_sequence_hashes": [block, ...]}}}'
)


class _Skip(Exception):
    """Why an event is not read: the reason that is counted, and the detail of its first place."""


def read_dynamo(path, clockwork, block_size=None):
    """Read Dynamo's request traces.

    Parameters
    ----------
    path : path-like
        A file of JSON Lines, or a folder of them; plain, gzip or zstandard.
    clockwork : Clockwork
        For requests without a time of their end.
    block_size : int, optional
        Tokens per block, as the trace has them.

    Returns
    -------
    SessionTrace
        With the sessions' starts. Requests of no session are one each.

    Raises
    ------
    InputError
        No request that tells its blocks, or blocks of several sizes.
    """
    events = _Events()
    files, others = list_files(path)
    for file in files:
        for document in read_documents(file, "input_sequence_hashes", EXPECTED):
            events.take(document)
    return events.finish(path, clockwork, block_size, others)


class _Events:
    """The events of files as they are read; those that cannot be used are counted by reason."""

    def __init__(self):
        self.requests, self.tools, self.parents, self.names, self.size = [], {}, {}, set(), None
        self.skipped, self.first = Counter(), {}

    def take(self, document):
        """Take in a line, or count why not."""
        try:
            if not document.record or not is_dynamo_line(document.record):
                raise _Skip("no events", document.fault or f"is no event; {EXPECTED}")
            self._add(document.record.get("event", document.record))
        except _Skip as skip:
            reason, detail = skip.args
            self.skipped[reason] += 1
            self.first.setdefault(reason, f"{document.place}: {detail}")

    def _add(self, event):
        kind, context = event["event_type"], event.get("agent_context")
        context = context if isinstance(context, dict) else {}
        agent = _name(context, "trajectory_id", "session_id")
        if kind in ("tool_end", "tool_error"):
            tool = event.get("tool") if isinstance(event.get("tool"), dict) else {}
            self.tools.setdefault(agent, []).append(_time(tool, "ended_at_unix_ms", event["event_time_unix_ms"]))
        elif kind != "request_end":
            if kind != "tool_start":
                raise _Skip(f"of type {show_value(kind)}", "tells of no request's blocks")
        else:
            self._add_request(event, context, agent)

    def _add_request(self, event, context, agent):
        request = event.get("request") if isinstance(event.get("request"), dict) else {}
        replay, name = request.get("replay"), request.get("request_id")
        if not isinstance(replay, dict):
            raise _Skip("without blocks", "its request has no replay with input_sequence_hashes")
        if name is not None and (not is_id(name) or name in self.names):
            raise _Skip("read before", f"has request_id {show_value(name)} again")
        size, tokens, ids = (
            replay.get(key) for key in ("trace_block_size", "input_length", "input_sequence_hashes")
        )
        output = request.get("output_tokens", 0) or 0
        if not is_length(tokens) or not is_length(output):
            raise _Skip("with wrong lengths", f"has input_length {show_value(tokens)}, output {show_value(output)}")
        self._check_size(size)
        if not isinstance(ids, np.ndarray) or len(ids) != -(-tokens // size):
            raise _Skip("with wrong blocks", f"does not list {-(-tokens // size)} whole numbers for {tokens} tokens")
        start, end = _find_times(event["event_time_unix_ms"], request)
        self.names.add(name)
        root = context.get("session_id") if context.get("trajectory_id") is not None else None
        parent = _name(context, "parent_trajectory_id", "parent_session_id")
        if agent is not None and parent is not None:
            self.parents[agent] = parent
        done = request.get("finish_reason_metadata")
        reason = done.get("finish_reason") if isinstance(done, dict) else None
        self.requests.append((root, agent, start, end, tokens, output, reason, ids))

    def _check_size(self, size):
        try:
            check_block_size(size)
        except InputError as error:
            raise _Skip("of a wrong block size", str(error)) from error
        self.size = self.size or size
        if size != self.size:
            raise _Skip("of another block size", f"has blocks of {size} tokens, and {self.size} are read")

    def finish(self, path, clockwork, block_size, others):
        """Return the SessionTrace, with what is to be said."""
        if not self.requests:
            raise InputError("; ".join(self.first.values()) or f"{path}: holds no requests; {EXPECTED}")
        if block_size not in (None, self.size):
            raise InputError(f"{path}: its blocks hold {self.size} tokens, and {block_size} were given")
        notes = [f"{count(others, 'file')} of other kinds in the folder: not read"] if others else []
        notes += [f"{count(n, 'event')} {why}: skipped (first: {self.first[why]})" for why, n in self.skipped.items()]
        sessions = {}
        for number, one in enumerate(self.requests):
            sessions.setdefault(self._find_session(number, one), []).append(number)
        rows, starts = SessionRows(self.size, is_local=False), []
        for members in sessions.values():
            starts.append(min(self.requests[k][2] for k in members))
            rows.add(self._list(members, starts[-1]), [self.requests[k][-1] for k in members])
        info = {"trace": Path(path).name, "notes": notes}
        return rows.make_trace(clockwork, info, starts_s=np.array(starts) - min(starts))

    def _find_session(self, number, one):
        """Return what names a request's session: its own, or the agent that called all others."""
        root, agent, *_ = one
        if root is not None or agent is None:
            return number if root is None else ("session", root)
        seen = {agent}
        while self.parents.get(agent) is not None and self.parents[agent] not in seen:
            agent = self.parents[agent]
            seen.add(agent)
        return "agent", agent

    def _list(self, members, start_s):
        """Return the Requests of a session."""
        agents, before, found = {}, {}, {}
        ordered = sorted(members, key=lambda k: self.requests[k][2])
        callers = [one for one in (self.requests[k][1] for k in ordered) if one not in self.parents]
        for name in [*callers, *(self.requests[k][1] for k in ordered)]:
            agents.setdefault(name, len(agents))
        for k in ordered:
            _, agent, start, end, tokens, output, reason, _ = self.requests[k]
            after = self._find_after(agent, before.get(agent), start)
            found[k] = Request(start - start_s, end - start, tokens, output, agents[agent], after, k)
            before[agent] = end, reason
        return [found[k] for k in members]

    def _find_after(self, agent, before, start):
        if before is None:
            return UNKNOWN
        end, reason = before
        ends = self.tools[agent] = sorted(self.tools.get(agent, []))
        if reason == "tool_calls" or bisect_right(ends, start) > bisect_right(ends, end):
            return TOOL
        return PERSON if reason else UNKNOWN


def _name(context, *names):
    return next((context[name] for name in names if is_id(context.get(name))), None)


def _time(record, name, default=None):
    value = record.get(name)
    value = default if value is None else value
    if value is None:
        return None
    if not is_stamp(value) or not 0 <= value <= 1000 * LATEST_S:
        raise _Skip("with a wrong time", f"has {name} {show_value(value)}; expected milliseconds, none after 2100")
    return value / 1000


def _find_times(event_ms, request):
    """Return when a request came and when it was answered, in seconds (NaN if unknown)."""
    event_s = _time({"event_time_unix_ms": event_ms}, "event_time_unix_ms")
    start, total = _time(request, "request_received_ms"), _time(request, "total_time_ms")
    if event_s is None:
        raise _Skip("with a wrong time", "has no event_time_unix_ms")
    if start is None:
        return (event_s - total, event_s) if total is not None else (event_s, np.nan)
    return start, start + total if total is not None else max(event_s, start)
