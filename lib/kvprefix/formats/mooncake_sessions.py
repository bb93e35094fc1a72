"""Mooncake's lines with sessions: lines of one `session_id` follow one another, and may list only what is new.

The rule of what is new is that of the tools which write and replay such lines (aiperf's agentic code generator and its
`mooncake_trace`, Dynamo's `mooncake-delta`): the first line of a session holds the whole prompt, each later one
the `input_length` new tokens alone, as ceil(input_length / block_size) ids; the prompt is all that came before, every
line's tokens and then the `output_length` tokens of its reply, and the new tokens. `context_mode` may say otherwise:
`message_array_with_responses` for whole prompts, `deltas_with_responses` if the new tokens hold the reply before them.

A later line without a `timestamp` comes `delay` ms after the reply before it.
"""

from pathlib import Path

import numpy as np

from kvprefix.blocks.deltas import join_deltas
from kvprefix.files.jsonlines import show_value
from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.formats.agentic_mooncake import read_agentic_mooncake
from kvprefix.formats.registry import FORMATS
from kvprefix.formats.session_lines import (
    check_count,
    find_block_size,
    group_sessions,
    read_session_lines,
    take_time,
)
from kvprefix.formats.session_rows import Request, SessionRows
from kvprefix.formats.session_signs import is_agentic_line

EXPECTED = (
    'a line is {"session_id": name, "timestamp": ms or "delay": ms, "input_length": tokens, "output_length": tokens, '
    '"hash_ids": [block, ...]}'
)
WHOLE, DELTAS, DELTAS_WITH_REPLIES = (
    "message_array_with_responses", "deltas_without_responses", "deltas_with_responses",
)  # fmt: skip  # names of `context_mode`


def read_mooncake_sessions(path, clockwork, block_size=None):
    """Read Mooncake's lines with sessions.

    Parameters
    ----------
    path : path-like
        JSON Lines, plain, gzip or zstandard.
    clockwork : Clockwork
        How long replies take, from which a `delay` counts.
    block_size : int, optional
        Tokens per block. If not given: what the first line says, else 512.

    Returns
    -------
    SessionTrace
        ``accesses.info["notes"]`` says whether lines were read as whole prompts or as what is new.

    Raises
    ------
    InputError
        A line that is no such request; it is named.
    """
    _, lines = read_session_lines(path, EXPECTED)
    if any(is_agentic_line(line.record) for line in lines):
        return read_agentic_mooncake(path, clockwork, block_size)
    size = find_block_size(lines, block_size, FORMATS["mooncake"].block_size)
    sessions = group_sessions(lines)
    times, is_timed, starts = _time(lines, sessions, clockwork)
    rows, info = SessionRows(size, is_local=False), {"trace": Path(path).name, "notes": []}
    mode, said = _find_mode(lines, sessions)
    info["notes"] += said
    lists, tokens, more = _list_whole(lines, sessions, size) if mode == WHOLE else _join(lines, sessions, size, mode)
    info["notes"] += more
    for members in sessions:
        start = times[members[0]]
        rows.add(
            [
                Request(times[k] - start, np.nan, tokens[k], lines[k].output_tokens, line=k) for k in members
            ],
            [lists[k] for k in members],
        )  # fmt: skip
    return rows.make_trace(clockwork, info, starts_s=starts, is_timed=is_timed)


def _time(lines, sessions, clockwork):
    """Return each line's time in seconds, whether there are any, and the starts of the sessions if they are known."""
    times = [take_time(line, "timestamp") for line in lines]
    delays = [take_time(line, "delay", 0) for line in lines]
    known = [times[members[0]] is not None for members in sessions]
    if any(known) and not all(known):
        odd = lines[sessions[known.index(not known[0])][0]]
        said = "has a timestamp" if not known[0] else "lacks timestamp"
        raise InputError(f"{odd.place} {said}, unlike the first request; expected all sessions or none to have one")
    is_timed = any(one is not None for one in [*times, *delays])
    for members in sessions:
        for before, k in zip([None, *members], members, strict=False):
            if times[k] is None and before is None:
                times[k] = 0.0
            elif times[k] is None:
                times[k] = times[before] + clockwork.serve(lines[before].output_tokens) + (delays[k] or 0.0)
    starts = [times[members[0]] for members in sessions]
    first = min(0.0, *starts, 0.0)
    return times, is_timed, [start - first for start in starts] if known[0] else None


def _find_mode(lines, sessions):
    """Return what a session's later lines hold, and what to say of it."""
    given = {line.record.get("context_mode") for line in lines} - {None}
    if given:
        if len(given) > 1 or not given <= {WHOLE, DELTAS, DELTAS_WITH_REPLIES}:
            named = ", ".join(show_value(one) for one in sorted(given, key=str))
            raise InputError(f"{lines[0].place}: its file has context_mode {named}; expected one of {WHOLE}, {DELTAS}")
        return given.pop(), []
    several = [[lines[k].ids for k in members] for members in sessions if len(members) > 1]
    whole = sum(any(_begin_alike(one, ids[0]) for one in ids[1:]) for ids in several)
    if not several or whole == len(several):
        return WHOLE, []
    if whole:
        odd = count(len(several) - whole, "session")
        return WHOLE, [f"{odd} whose later requests do not begin as the first: read as whole prompts, as the others"]
    return DELTAS, []


def _begin_alike(ids, first):
    return len(ids) > 0 and len(first) > 0 and ids[0] == first[0]


def _list_whole(lines, sessions, block_size):
    for line in lines:
        check_count(line, block_size)
    return [line.ids for line in lines], [line.new_tokens for line in lines], []


def _join(lines, sessions, block_size, mode):
    """Return each line's whole prompt: its ids and its tokens."""
    several = count(sum(len(members) > 1 for members in sessions), "session")
    said = f"{several} whose later lines list only what is new: read as all that came before, and that"
    numbers = SessionRows(block_size, is_local=False).name_all([line.ids for line in lines])
    if _is_aligned(lines, sessions, block_size):
        return *_extend(lines, sessions, numbers), [said]
    for line in lines:
        check_count(line, block_size)
    order = np.array([k for members in sessions for k in members])
    new, replies = (np.array([getattr(lines[k], name) for k in order]) for name in ("new_tokens", "output_tokens"))
    replies *= mode == DELTAS
    conversation = np.repeat(np.arange(len(sessions)), [len(members) for members in sessions])
    contents = np.unique(np.concatenate([numbers[k] for k in order]), return_inverse=True)[1]
    offsets = np.cumsum([0, *(len(numbers[k]) for k in order)])
    ids, offsets, tokens = join_deltas(contents, offsets, new, replies, conversation, block_size)
    back = np.argsort(order)
    lists = [ids[offsets[row] : offsets[row + 1]].view(np.uint64) for row in back]
    followed = np.append(conversation[1:] == conversation[:-1], False)
    between = int(replies[followed].sum())
    more = f", with the {count(between, 'token')} of the replies between" if between else ""
    return lists, tokens[back].tolist(), [said + more]


def _is_aligned(lines, sessions, block_size):
    """Say whether ids are those that the whole prompt has more than the one before, not of the new tokens alone."""
    if all(len(line.ids) == -(-line.new_tokens // block_size) for line in lines):
        return False
    for members in sessions:
        blocks = np.cumsum([len(lines[k].ids) for k in members])
        tokens = np.cumsum([lines[k].new_tokens for k in members])
        if ((blocks != tokens // block_size) & (blocks != -(-tokens // block_size))).any():
            return False
    return True


def _extend(lines, sessions, numbers):
    """Return each line's ids after those of the lines before it in its session, and all their tokens."""
    lists, tokens = [None] * len(lines), [0] * len(lines)
    for members in sessions:
        so_far, total = numbers[members[0]][:0], 0
        for k in members:
            so_far, total = np.concatenate((so_far, numbers[k])), total + lines[k].new_tokens
            lists[k], tokens[k] = so_far.view(np.uint64), total
    return lists, tokens
