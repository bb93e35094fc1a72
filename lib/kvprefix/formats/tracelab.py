"""TraceLab's rounds: JSON Lines of one round of a coding agent each, with token counts and times, but no block ids.

A round has `session_id`, `round_index`, `input_tokens_total`, `prefix_tokens` (what the provider's cache had of it),
`newly_append_tokens`, `output_tokens` and `timing_events`. Blocks are made of them: a round's first floor(prefix_tokens
/ block_size) blocks are those of the round before, all others are new. So what is shared is what the provider reported,
within a session; the file does not tell which session called a sub-agent's.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from kvprefix.blocks.sessions import PERSON, TOOL, UNKNOWN
from kvprefix.files.jsonlines import show_value
from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.formats.documents import read_documents
from kvprefix.formats.registry import FORMATS
from kvprefix.formats.session_rows import Request, SessionRows
from kvprefix.formats.values import is_id, is_length

EXPECTED = (
    'a line is {"session_id": name, "round_index": number, "input_tokens_total": tokens, "prefix_tokens": tokens, '
    '"output_tokens": tokens, "timing_events": [{"event_type": name, "timestamp": time}, ...]}'
)
_INPUTS, _OUTPUTS = ("user_message", "tool_result"), ("text", "reasoning", "tool_call")


def read_tracelab(path, clockwork, block_size=None):
    """Read TraceLab's rounds.

    Parameters
    ----------
    path : path-like
        JSON Lines, plain, gzip or zstandard.
    clockwork : Clockwork
        For rounds that do not tell when the answer was there.
    block_size : int, optional
        Tokens per block that is made; 64 if not given.

    Returns
    -------
    SessionTrace
        A round comes at its latest input event, in the order of these; its answer ends with its last output event.

    Raises
    ------
    InputError
        A line that is no round; it is named.
    """
    sessions = {}
    for document in read_documents(path, "hash_ids", EXPECTED):
        if document.fault:
            raise InputError(f"{document.place} {document.fault}")
        sessions.setdefault(document.record.get("session_id"), []).append(_Round(document))
    if not sessions:
        raise InputError(f"{path}: holds no rounds; {EXPECTED}")
    size = block_size or FORMATS["tracelab"].block_size
    rows, starts = SessionRows(size, is_local=True), []
    is_timed = any(one.start_s is not None for rounds in sessions.values() for one in rounds)
    undated = sum(one.start_s is None for rounds in sessions.values() for one in rounds) if is_timed else 0
    for rounds in sessions.values():
        rounds = _order(rounds) if is_timed else rounds
        starts.append(rounds[0].start_s or 0.0)
        rows.add([one.as_request(starts[-1]) for one in rounds], _make_blocks(rounds, size))
    notes = [f"blocks of {size} tokens are made of prefix_tokens: shared is what the provider's cache had"]
    if undated:
        notes.append(f"{count(undated, 'round')} without times: taken to come with the one before")
    info = {"trace": Path(path).name, "notes": notes}
    return rows.make_trace(
        clockwork, info, starts_s=np.array(starts) - min(starts) if is_timed else None, is_timed=is_timed
    )


class _Round:
    """A line's numbers and times, in seconds."""

    def __init__(self, document):
        record, self.place = document.record, document.place
        name = record.get("session_id")
        if not is_id(name):
            raise InputError(f"{self.place} has session_id {show_value(name)}; expected a text or a whole number")
        prefix, new = record.get("prefix_tokens") or 0, record.get("newly_append_tokens") or 0
        self.tokens, self.output = record.get("input_tokens_total"), record.get("output_tokens") or 0
        if self.tokens is None and is_length(prefix) and is_length(new):
            self.tokens = prefix + new
        for what, value in (
            ("input_tokens_total", self.tokens), ("prefix_tokens", prefix), ("output_tokens", self.output)
        ):  # fmt: skip
            if not is_length(value):
                raise InputError(f"{self.place} has {what} {show_value(value)}; expected a whole number of tokens")
        self.prefix, self.number = min(prefix, self.tokens), document.place
        inputs, outputs = (self._read_times(record, kinds) for kinds in (_INPUTS, _OUTPUTS))
        self.start_s = max(inputs) if inputs else min(outputs, default=None)
        self.service_s = max(max(outputs) - self.start_s, 0.0) if outputs else np.nan
        self.after = {"tool_result": TOOL, "user_message": PERSON}.get(record.get("first_input_event_type"), UNKNOWN)
        if self.after == UNKNOWN:
            self.after = _find_after(record)

    def _read_times(self, record, kinds):
        events = [one for one in record.get("timing_events") or [] if isinstance(one, dict)]
        return [
            _parse_time(one["timestamp"], self.place)
            for one in events if one.get("event_type") in kinds and one.get("timestamp")
        ]  # fmt: skip

    def as_request(self, start_s):
        """Return the Request of a session that starts then."""
        return Request((self.start_s or 0.0) - start_s, self.service_s, self.tokens, self.output, 0, self.after)


def _find_after(record):
    kinds = [one.get("event_type") for one in record.get("timing_events") or [] if isinstance(one, dict)]
    inputs = [kind for kind in kinds if kind in _INPUTS]
    return UNKNOWN if not inputs else TOOL if "tool_result" in inputs else PERSON


def _parse_time(text, place):
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise InputError(f"{place} has the time {show_value(text)}; expected one like 2026-08-25T00:00:01Z") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _order(rounds):
    """Return a session's rounds in the order of their times; one without comes with the one before it in the file."""
    known = next((one.start_s for one in rounds if one.start_s is not None), 0.0)
    for one in rounds:
        if one.start_s is None:
            one.start_s = known
        known = one.start_s
    return sorted(rounds, key=lambda one: one.start_s)


def _make_blocks(rounds, block_size):
    """Return each round's ids: floor(tokens / block_size), of which it shares what the provider's cache had."""
    before, lists, unused = np.zeros(0, np.uint64), [], 0
    for one in rounds:
        total = one.tokens // block_size
        kept = before[: min(one.prefix // block_size, total)]
        new = total - len(kept)
        before = np.concatenate((kept, np.arange(unused, unused + new, dtype=np.uint64)))
        unused += new
        lists.append(before)
    return lists
