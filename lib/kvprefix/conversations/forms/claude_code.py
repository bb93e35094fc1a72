"""Claude Code's session files: a row per block of an answer, per message of a user, and per event.

All rows of one `message.id` are one call, whose prompt is the chain of `parentUuid` above its first row. A chain ends
where history was compacted, so that what follows has a new prefix. Side chains (sub-agents) are sessions of their own.
The system prompt and the tools are not in the file: the text of a prompt is a lower bound, `usage` is the provider's.
"""

import itertools
from typing import NamedTuple

from kvprefix.conversations.calls import Call, Usage
from kvprefix.conversations.forms.bodies import check_message
from kvprefix.conversations.forms.fields import check_time, count_of
from kvprefix.conversations.forms.form import Form
from kvprefix.conversations.forms.requests import find_model
from kvprefix.conversations.records import Refused

_FIELDS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


class Row(NamedTuple):
    """A row of a user or of an assistant."""

    index: int
    value: dict
    content: str | list | None
    fault: Refused | None
    place: str


class _Path(NamedTuple):
    """Messages of a prompt, the groups and rows in it, and the first fault of a row."""

    messages: list
    placed: set
    fault: Refused | None


def fits(record):
    """Say whether a record is a row of a session."""
    is_row = isinstance(record.get("type"), str) and isinstance(record.get("sessionId"), str)
    return is_row and ("uuid" in record or "parentUuid" in record)


def read_session(records, traffic):
    """Yield the calls of a session's file, in the order of their first rows."""
    session = _Session(traffic)
    for record in records:
        session.add(record)
    session.close()
    yield from session.list_calls()


class _Session:
    """The rows of a file: chains of parents, groups of one answer, results of tools."""

    def __init__(self, traffic):
        self.traffic, self.counts = traffic, traffic.counts
        self.parents, self.rows, self.groups, self.results, self.replies = {}, {}, {}, {}, {}
        self.order = {}  # of all rows, by uuid
        self.moved = []  # segments that a compaction kept: (index of its row, head, anchor, tail)
        self.last, self.n_rows = None, 0
        self.known, self.before = None, None  # the path of the call before, and that call's message id
        self.used = set()

    def add(self, record):
        """Take a row, or count it as skipped."""
        self.counts.records_read += 1
        self.n_rows += 1
        row = record.value
        if row is None:
            return self._skip("unparsable_line", record, "is not valid JSON")
        if not isinstance(row, dict):
            return self._skip("no_object", record, "is no object")
        uuid = row.get("uuid") if isinstance(row.get("uuid"), str) else f"row {record.number}"
        if uuid in self.parents:
            return self._skip("repeated_uuid", record, f"has a uuid that an earlier row has: {uuid[:40]}")
        self.order[uuid] = self.n_rows
        parent = row.get("parentUuid") if "parentUuid" in row or "uuid" in row else self.last
        self.parents[uuid] = None if parent is None else str(parent)
        kind, message = row.get("type"), row.get("message")
        if row.get("subtype") == "compact_boundary":
            self._move_kept(row)
        is_hidden = row.get("isVisibleInTranscriptOnly") and not row.get("isCompactSummary")
        if kind not in ("user", "assistant") or is_hidden:
            return self._skip("not_messages", record, f"is of type {str(kind)[:40]}")
        if not isinstance(message, dict) or "content" not in message:
            return self._skip("malformed_message", record, "lacks a message with content")
        if kind == "assistant" and message.get("model") == "<synthetic>":
            return self._skip("synthetic", record, "was written by the client, not by a model")
        self.last = uuid
        self._keep(uuid, Row(self.n_rows, row, message["content"], _find_fault(kind, message), record.place))

    def _skip(self, reason, record, detail):
        self.counts.skip(reason, record.place, detail)

    def _keep(self, uuid, row):
        self.rows[uuid] = row
        if row.value["type"] == "assistant":
            self.groups.setdefault(_group_of(uuid, row), []).append(uuid)
        elif isinstance(row.content, list):
            for part in row.content:
                if isinstance(part, dict) and isinstance(part.get("tool_use_id"), str):
                    self.results.setdefault(part["tool_use_id"], []).append(uuid)

    def _move_kept(self, row):
        """Note that a compaction kept a segment of rows: it then follows the summary, and what follows that, it."""
        metadata = row.get("compactMetadata")
        kept = metadata.get("preservedSegment") if isinstance(metadata, dict) else None
        ends = [kept.get(f"{end}Uuid") for end in ("head", "anchor", "tail")] if isinstance(kept, dict) else []
        if ends and all(isinstance(end, str) for end in ends):
            self.moved.append((self.n_rows, *ends))

    def close(self):
        """Count the end of a file that is cut."""
        cut = self.counts.reading.cut_at_byte
        if cut is not None:
            where = f"{self.traffic.file}, byte {cut}" if self.traffic.file else f"byte {cut}"
            self.counts.skip("unparsable_line", where, "the last line is cut")

    def list_calls(self):
        """Yield the calls."""
        n_calls = 0
        for name, uuids in self.groups.items():
            place = self.rows[uuids[0]].place
            try:
                call = self._make_call(name, uuids)
            except Refused as refusal:
                self.counts.skip(refusal.args[0], place, refusal.args[1])
                continue
            self.counts.note("text_is_a_lower_bound", place, "system prompt and tools are not in the file")
            n_calls += 1
            yield call
        if not n_calls:
            self.counts.note("sessions_without_calls", self.traffic.file or "the file", "no call can be read")
        left = [row for uuid, row in self.rows.items() if uuid not in self.used]
        if left:
            self.counts.note("messages_of_no_call", left[0].place, "no call that is read repeats it", len(left))

    def _make_call(self, name, uuids):
        """Return the call whose answer is a group of rows."""
        first, seen = self.rows[uuids[0]], self.traffic.seen.setdefault("claude_code", set())
        start, end = (self._time(self.rows[uuid]) for uuid in (uuids[0], uuids[-1]))
        if hash(name) in seen:
            raise Refused("repeated_call", f"{name[:40]} is in an earlier file")
        path = self._find_path(uuids[0])
        self.known, self.before = path, name
        reply = self._make_reply(name)
        if path.fault:
            raise path.fault
        if not path.messages:
            raise Refused("no_messages", "nothing lies above this answer")
        seen.add(hash(name))
        self.used.update(uuids)
        session, parent = _name_session(first.value)
        model = find_model(first.value["message"])
        body = {"model": model, "messages": path.messages}
        return Call(
            "messages", body, (reply,), first.place, name, session, parent, start, None, end,
            self._sum_usage(uuids), model,
        )  # fmt: skip

    def _time(self, row):
        given = row.value.get("timestamp")
        return None if given is None else check_time(given, "timestamp")

    def _sum_usage(self, uuids):
        """Return the provider's counts: each field's maximum, as early rows hold what was counted so far."""
        usages = [self.rows[uuid].value["message"].get("usage") for uuid in uuids]
        usages = [usage for usage in usages if isinstance(usage, dict)]
        given, made, read, output = (
            max((n for usage in usages if (n := count_of(usage, name)) is not None), default=None) for name in _FIELDS
        )
        prompt = None if given is None else given + (made or 0) + (read or 0)
        return Usage(prompt, read, output)

    def _find_path(self, uuid):
        """Return the path above a row; that of the call before is continued if it is a part of it."""
        rows, seen, index = [], set(), self.rows[uuid].index
        moved = [one for one in self.moved if one[0] < index]
        above = self._parent(uuid, moved)
        while above is not None:
            if above in seen:
                raise Refused("cycle_of_parents", f"the rows above it lead back to {str(above)[:40]}")
            seen.add(above)
            row = self.rows.get(above)
            if row and not moved and self.before and _group_of(above, row) == self.before:
                known = self.known
                start = _Path(list(known.messages), set(known.placed), known.fault)
                return self._extend(start, [above, *reversed(rows)], index)
            if row:
                rows.append(above)
            elif above not in self.parents:
                self.counts.note("parents_not_in_the_file", self.rows[uuid].place, "what lies above it is not known")
            above = self._parent(above, moved)
        return self._extend(_Path([], set(), None), rows[::-1], index)

    def _parent(self, uuid, moved):
        """Return a row's parent, as the compactions before a call have it."""
        above = self.parents.get(uuid)
        for boundary, head, anchor, tail in moved:
            if uuid == head:
                above = anchor
            elif above == anchor and self.order.get(uuid, 0) > boundary:
                above = tail
        return above

    def _extend(self, path, uuids, index):
        """Add rows to a path: an answer once and whole, results of its tools behind it, each message as it is."""
        messages, placed, fault = path
        on_path = set(uuids)
        for uuid in uuids:
            row = self.rows[uuid]
            group = _group_of(uuid, row)
            if group in placed:
                continue
            placed.add(group)
            if row.value["type"] == "user":
                fault = fault or row.fault
                messages.append({"role": "user", "content": row.content})
                self.used.add(uuid)
                continue
            reply = self._make_reply(group)
            fault = fault or next((self.rows[one].fault for one in self.groups[group] if self.rows[one].fault), None)
            messages.append(reply)
            for result in self._find_results(reply, on_path, index):
                if result not in placed:
                    placed.add(result)
                    fault = fault or self.rows[result].fault
                    messages.append({"role": "user", "content": self.rows[result].content})
                    self.used.add(result)
        return _Path(messages, placed, fault)

    def _find_results(self, reply, on_path, index):
        """Return the rows with results of a reply's tools, in file order: parallel calls' are side by side."""
        found = []
        for part in reply["content"]:
            if isinstance(part, dict) and part.get("type") == "tool_use":
                rows = [uuid for uuid in self.results.get(str(part.get("id")), ()) if self.rows[uuid].index < index]
                found += [uuid for uuid in rows if uuid in on_path][-1:] or rows[-1:]
        return sorted(set(found), key=lambda uuid: self.rows[uuid].index)

    def _make_reply(self, name):
        """Return the message of a group of rows: their blocks, in file order."""
        if name not in self.replies:
            contents = [self.rows[uuid].content for uuid in self.groups[name]]
            blocks = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in contents]
            blocks = [one for one in blocks if isinstance(one, list)]
            self.replies[name] = {"role": "assistant", "content": list(itertools.chain(*blocks))}
        return self.replies[name]


def _group_of(uuid, row):
    """Return what names the message that a row belongs to: `message.id` of an answer, else the row itself."""
    name = row.value["message"].get("id") if row.value["type"] == "assistant" else None
    return name if isinstance(name, str) and name else uuid


def _find_fault(kind, message):
    """Return why calls with this message in their prompt are skipped; None if they are not."""
    try:
        check_message({"role": kind, "content": message["content"]}, 0, "messages")
    except Refused as refusal:
        return refusal
    return None


def _name_session(row):
    """Return the names of a row's session and of the one that started it: a side chain is a session of its own."""
    session = row.get("sessionId") if isinstance(row.get("sessionId"), str) else None
    if not row.get("isSidechain"):
        return session, None
    agent = row.get("agentId") if isinstance(row.get("agentId"), str) else "side"
    return f"{session}/{agent}", session


FORM = Form(
    "claude-code", "Claude Code sessions",
    "rows of `type`, `sessionId`, `uuid`, `parentUuid`, `message`",
    "rows of one `message.id` as one call, its usage (each field's maximum), time of its first and last row, "
    "side chains as sessions, compaction as a new prefix, forks",
    "`unparsable_line`, `repeated_uuid`, `synthetic`, `not_messages`, `repeated_call`, `cycle_of_parents`, "
    "`with_images`; noted: `text_is_a_lower_bound`, `parents_not_in_the_file`, `messages_of_no_call`",
    fits, read_session,
)  # fmt: skip
