"""Agentic Mooncake: lines of requests that wait for other requests, as Dynamo writes and replays them.

A line has Mooncake's fields, with whole prompts, and a `request_id`. With `wait_for`, a list of such ids, it comes when
all of them are answered, after `delay` and `tool_wait_ms` more milliseconds; without, at its `timestamp`. `session_id`
names the agent; requests that wait for one another are a session. Version 2 has a first line of its own (`schema`,
`block_size`, `hash_id_scope`), and in each line a `play_id` (the session), `not_before_ms`, `dependencies` (of
`request_id`, `trigger`, `delay_ms`) and perhaps `recorded_api_time_ms`.
"""

from pathlib import Path

import numpy as np

from kvprefix.blocks.sessions import TOOL, UNKNOWN
from kvprefix.files.jsonlines import show_value
from kvprefix.files.paths import InputError
from kvprefix.formats.registry import FORMATS
from kvprefix.formats.session_lines import check_count, find_block_size, read_session_lines, take_time
from kvprefix.formats.session_rows import Request, SessionRows
from kvprefix.formats.session_signs import is_agentic_head
from kvprefix.formats.values import is_id

EXPECTED = (
    'a line is {"request_id": name, "session_id": name, "timestamp": ms or "wait_for": [name, ...], "delay": ms, '
    '"tool_wait_ms": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [block, ...]}'
)


def read_agentic_mooncake(path, clockwork, block_size=None):
    """Read agentic Mooncake lines.

    Parameters
    ----------
    path : path-like
        JSON Lines, plain, gzip or zstandard.
    clockwork : Clockwork
        How long replies take whose line does not say it.
    block_size : int, optional
        Tokens per block. If not given: what the first line says, else 512.

    Returns
    -------
    SessionTrace

    Raises
    ------
    InputError
        A line that is no such request, that waits for none that is there, or for itself; it is named.
    """
    head, lines = read_session_lines(path, EXPECTED, head=is_agentic_head)
    size = find_block_size(lines, block_size, FORMATS["agentic-mooncake"].block_size, head)
    for line in lines:
        check_count(line, size)
    waits = _find_waits(lines)
    service = [_serve(line, clockwork) for line in lines]
    times = _schedule(lines, waits, service)
    rows = SessionRows(size, is_local=bool(head) and head.get("hash_id_scope") == "local")
    starts = []
    for members in _group(lines, waits):
        start, agents = min(times[k] for k in members), {}
        for k in sorted(members, key=lambda k: times[k]):
            agents.setdefault(lines[k].record.get("session_id"), len(agents))
        rows.add([
            Request(times[k] - start, service[k], lines[k].new_tokens, lines[k].output_tokens,
                    agents[lines[k].record.get("session_id")], _find_after(lines[k]), k)
            for k in members
        ], [lines[k].ids for k in members])  # fmt: skip
        starts.append(start)
    known = any(take_time(line, name) is not None for line in lines for name in ("timestamp", "not_before_ms"))
    info = {"trace": Path(path).name, "notes": []}
    return rows.make_trace(clockwork, info, starts_s=np.array(starts) - min(0, *starts) if known else None)


def _serve(line, clockwork):
    known = take_time(line, "recorded_api_time_ms", 0)
    return clockwork.serve(line.output_tokens) if known is None else known


def _find_after(line):
    return TOOL if line.record.get("tool_wait_ms") else UNKNOWN


def _find_waits(lines):
    """Return for each line (position, whether its answer is waited for, seconds) of what it waits for."""
    names = {}
    for number, line in enumerate(lines):
        name = line.record.get("request_id")
        if not is_id(name) or name in names:
            said = "is there before" if is_id(name) else "expected a text or a whole number"
            raise InputError(f"{line.place} has request_id {show_value(name)}; {said}")
        names[name] = number
    return [_find_waits_of(line, names) for line in lines]


def _find_waits_of(line, names):
    waits, given = line.record.get("wait_for") or [], line.record.get("dependencies") or []
    if not isinstance(waits, list) or not isinstance(given, list):
        raise InputError(f"{line.place} waits for {show_value(waits or given)}; expected a list")
    pause = (take_time(line, "delay", 0) or 0.0) + (take_time(line, "tool_wait_ms", 0) or 0.0)
    edges = [(name, True, pause) for name in waits]
    for one in given:
        one = one if isinstance(one, dict) else {"request_id": one}
        delay = take_time(line._replace(record=one), "delay_ms", 0) or 0.0
        edges.append((one.get("request_id"), one.get("trigger") != "dispatch", delay))
    for name, _, _ in edges:
        if not is_id(name) or name not in names:
            raise InputError(f"{line.place} waits for {show_value(name)}; expected the request_id of a line")
    return [(names[name], answered, delay) for name, answered, delay in edges]


def _schedule(lines, waits, service):
    """Return each line's time in seconds; raise InputError for a line that waits for itself."""
    times, under_way = [None] * len(lines), set()
    for first in range(len(lines)):
        stack = [first]
        while stack:
            k = stack[-1]
            open_ones = [before for before, _, _ in waits[k] if times[before] is None]
            if times[k] is not None or not open_ones:
                times[k] = _time(lines[k], waits[k], times, service) if times[k] is None else times[k]
                under_way.discard(stack.pop())
            elif k in under_way:
                raise InputError(f"{lines[k].place} waits for itself, through other lines")
            else:
                under_way.add(k)
                stack += open_ones
    return times


def _time(line, waits, times, service):
    after = [times[before] + (service[before] if answered else 0.0) + delay for before, answered, delay in waits]
    not_before = take_time(line, "not_before_ms")
    if not after:
        after = [take_time(line, "timestamp") or 0.0] if not_before is None else []
    return max([*after, *([] if not_before is None else [not_before])])


def _group(lines, waits):
    """Return the positions of each session's lines: of one play, or that wait for one another."""
    root = list(range(len(lines)))

    def find(k):
        while root[k] != k:
            root[k] = root[root[k]]
            k = root[k]
        return k

    plays = {}
    for k, line in enumerate(lines):
        play = line.record.get("play_id")
        agent = line.record.get("session_id")
        same = [before for before, _, _ in waits[k]]
        for name in [("play", play)] if play is not None else [("agent", agent)] if agent is not None else []:
            same.append(plays.setdefault(name, k))
        for other in same:
            low, high = sorted((find(k), find(other)))
            root[high] = low
    groups = {}
    for k in range(len(lines)):
        groups.setdefault(find(k), []).append(k)
    return list(groups.values())
