"""Who wrote each token of a prompt, and which messages it holds: the one place that knows how messages become tokens.

Tokens that no template wrote are messages, in their order: each run of them is a message. So a prompt's writers are a
few runs per turn, and a turn lists only the runs of its own tokens.
"""

import json
from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.hashing import fold, number_keys, read_only

WRITERS = ("template", "system", "user", "assistant", "tool", "message")
TEMPLATE, SYSTEM, USER, ASSISTANT, TOOL, UNKNOWN = range(len(WRITERS))
_BY_LETTER = {"s": SYSTEM, "d": SYSTEM, "u": USER, "a": ASSISTANT, "t": TOOL, "f": TOOL}  # developer, function
_ROLE = b'{"role": "'
_OF_TYPE = {"function_call": "assistant", "reasoning": "assistant", "function_call_output": "tool"}  # without a role


class Said(NamedTuple):
    """Which messages each row of some tokens holds.

    Attributes
    ----------
    roles : (n_messages,) ndarray of int8
        The writers of all messages that are listed.
    chains : (n_messages,) ndarray of int64
        Equal numbers are equal messages (role and text) after equal messages: the whole list up to there.
    firsts : (n_rows,) ndarray of int64
        Where each row's messages begin in these lists. The one after its prompt's is its reply, if it has one.
    counts : (n_rows,) ndarray of int64
        The messages of its prompt.
    has_reply : (n_rows,) ndarray of bool
    twins : (n_rows,) ndarray of int64
        Equal numbers are conversations with equal messages.
    """

    roles: np.ndarray
    chains: np.ndarray
    firsts: np.ndarray
    counts: np.ndarray
    has_reply: np.ndarray
    twins: np.ndarray


class Writers(NamedTuple):
    """The runs of tokens with one writer, of each row's own tokens: those after what it shares with its parent.

    Attributes
    ----------
    parent, shared : (n_rows,) ndarrays of int64
        As in `Tokens`.
    firsts : (n_rows + 1,) ndarray of int64
        Row r's runs are ``firsts[r]`` up to ``firsts[r + 1]``.
    stops : (n_runs,) ndarray of int64
        Where each ends in its prompt.
    numbers : (n_runs,) ndarray of int64
        How many of the prompt's messages have begun: a run of a message is of the last of these.
    writers : (n_runs,) ndarray of int8
        Of WRITERS.
    before : (n_runs, len(WRITERS)) ndarray of int64
        Tokens of each writer in the prompt before the run.
    """

    parent: np.ndarray
    shared: np.ndarray
    firsts: np.ndarray
    stops: np.ndarray
    numbers: np.ndarray
    writers: np.ndarray
    before: np.ndarray


def read_said(workload):
    """Return the Said of a workload's tokens.

    Parameters
    ----------
    workload : Workload
    """
    messages, requests = workload.messages, workload.requests
    chains, _ = number_keys([_chain(read_only(messages.content), messages.stops, messages.firsts)])
    roles = _read_roles(messages)
    messages.release()
    rows, listed = requests.index.to_numpy(), getattr(messages, "chains", None)
    lists = requests["conversation_index"].to_numpy() if listed is None else listed[rows]
    firsts, ends, counts = messages.firsts[lists], messages.firsts[lists + 1], requests["messages"].to_numpy()
    has_reply = (np.diff(workload.tokens.output_offsets)[rows] > 0) & (firsts + counts < ends)
    chains = chains.astype(np.int64)
    twins = np.where(ends > firsts, chains[np.maximum(ends - 1, 0)], -1 - lists)
    return Said(roles, chains, *(_place(one, rows) for one in (firsts, counts, has_reply, twins)))


def _place(values, rows):
    """Return values in the order of their rows."""
    placed = np.zeros(rows.max(initial=-1) + 1, values.dtype)
    placed[rows] = values
    return placed


def _read_roles(messages):
    """Return the writer of each message: by its first letter where the role stands first, as in a plain text."""
    starts = messages.stops[:-1]
    heads = np.asarray(messages.content[starts[:, None] + np.arange(len(_ROLE) + 1)])
    by_letter = np.full(256, UNKNOWN, np.int8)
    by_letter[[ord(letter) for letter in _BY_LETTER]] = list(_BY_LETTER.values())
    roles = by_letter[heads[:, -1]]
    for k in np.flatnonzero((heads[:, :-1] != np.frombuffer(_ROLE, np.uint8)).any(axis=1)).tolist():
        said = json.loads(messages.content[starts[k] : messages.stops[k + 1] - 2].tobytes())
        said = said if isinstance(said, dict) else {}
        name = str(said.get("role") or _OF_TYPE.get(said.get("type"), "?"))
        roles[k] = _BY_LETTER.get(name[:1], UNKNOWN)
    return roles


@njit(cache=True, nogil=True)
def _chain(content, stops, firsts):
    """Return a 128-bit key of each message's text and all before it in its conversation."""
    keys = np.empty((len(stops) - 1, 2), np.uint64)
    for c in range(len(firsts) - 1):
        a, b = np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344)
        for k in range(firsts[c], firsts[c + 1]):
            word, filled = np.uint64(0), 0
            for at in range(stops[k], stops[k + 1]):
                word = (word << np.uint64(8)) | np.uint64(content[at])
                filled += 1
                if filled == 8:
                    a, b = fold(a, b, word)
                    word, filled = np.uint64(0), 0
            a, b = fold(a, b, word)
            a, b = fold(a, b, stops[k + 1] - stops[k])
            keys[k, 0], keys[k, 1] = a, b
    return keys


def find_writers(tokens, said=None):
    """Find the Writers of some tokens.

    Parameters
    ----------
    tokens : Tokens
    said : Said, optional
        Without it, a message's writer is not known. Nor is it of a prompt that holds other messages than it should.

    Returns
    -------
    Writers
    """
    arrays = tokens.parent, tokens.shared, tokens.own_offsets, read_only(np.asarray(tokens.own_is_template))
    firsts, stops, numbers, is_template = _cut_runs(*arrays)
    begun = np.zeros(len(firsts) - 1, np.int64)
    filled = np.diff(firsts) > 0
    begun[filled] = numbers[firsts[1:][filled] - 1]
    writers = np.where(is_template, TEMPLATE, UNKNOWN).astype(np.int8)
    if said is not None:
        numbers = _name_writers(firsts, numbers, said.roles, said.firsts, said.counts - begun, writers)
    before = _count_before(tokens.parent, tokens.shared, firsts, stops, writers)
    return Writers(tokens.parent, tokens.shared, firsts, stops, numbers, writers, before)


@njit(cache=True, nogil=True)
def _cut_runs(parent, shared, own_offsets, is_template):
    firsts, most = np.zeros(len(shared) + 1, np.int64), 1
    for row in range(len(shared)):
        most += own_offsets[row + 1] > own_offsets[row]
        for k in range(own_offsets[row] + 1, own_offsets[row + 1]):
            most += is_template[k] != is_template[k - 1]
    stops, numbers, flags = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.bool_)
    n = 0
    for row in range(len(shared)):
        begun, was_template, at = 0, True, shared[row]
        if at > 0:
            run = find_run(at - 1, parent[row], parent, shared, firsts, stops)
            begun, was_template = numbers[run], flags[run]
        for k in range(own_offsets[row], own_offsets[row + 1]):
            if k == own_offsets[row] or is_template[k] != was_template:
                begun += was_template and not is_template[k]
                was_template = is_template[k]
                numbers[n], flags[n] = begun, was_template
                n += 1
            at += 1
            stops[n - 1] = at
        firsts[row + 1] = n
    return firsts, stops[:n].copy(), numbers[:n].copy(), flags[:n].copy()


@njit(cache=True, nogil=True)
def find_run(at, row, parent, shared, firsts, stops):
    """Return the run of the token at a position of a row's prompt."""
    while at < shared[row]:
        row = parent[row]
    return firsts[row] + np.searchsorted(stops[firsts[row] : firsts[row + 1]], at, side="right")


@njit(cache=True, nogil=True)
def _name_writers(firsts, numbers, roles, of_row, missing, writers):
    """Name the writers of messages in place; return the runs' numbers with messages that the template wrote itself.

    These are system messages at the start that say what the template says by default.
    """
    renumbered = numbers.copy()
    for row in range(len(firsts) - 1):
        is_known = missing[row] >= 0
        for k in range(missing[row]):
            is_known &= roles[of_row[row] + k] == SYSTEM
        for run in range(firsts[row], firsts[row + 1]):
            if is_known:
                renumbered[run] += missing[row]
                if writers[run] != TEMPLATE:
                    writers[run] = roles[of_row[row] + renumbered[run] - 1]
    return renumbered


@njit(cache=True, nogil=True)
def _count_before(parent, shared, firsts, stops, writers):
    before = np.zeros((len(stops), UNKNOWN + 1), np.int64)
    counts = np.zeros(UNKNOWN + 1, np.int64)
    for row in range(len(shared)):
        counts[:] = 0
        at = shared[row]
        if at > 0:
            run = find_run(at - 1, parent[row], parent, shared, firsts, stops)
            counts[:] = before[run]
            source = parent[row]
            while at <= shared[source]:
                source = parent[source]
            begin = shared[source] if run == firsts[source] else stops[run - 1]
            counts[writers[run]] += at - begin
        for run in range(firsts[row], firsts[row + 1]):
            before[run] = counts
            counts[writers[run]] += stops[run] - at
            at = stops[run]
    return before


@njit(cache=True, nogil=True)
def find_text_end(row, number, length, of):
    """Return where the text of a prompt's message ends, in tokens; `number` counts from 1. 0 if no token is its own.

    Parameters
    ----------
    row, number : int
    length : int
        Of the row's prompt.
    of : Writers
    """
    limit = length
    while row >= 0:
        first, last = of.firsts[row], of.firsts[row + 1]
        run = first + np.searchsorted(of.numbers[first:last], number, side="right") - 1
        while run >= first and of.numbers[run] == number and of.writers[run] == TEMPLATE:
            run -= 1
        if run >= first and of.numbers[run] == number:
            return min(of.stops[run], limit)
        limit = min(limit, of.shared[row])
        row = of.parent[row]
    return 0


def find_known_messages(rows, prompt_tokens, said, writers):
    """Find where the text ends of the longest run of whole messages that began an earlier prompt and its reply.

    Parameters
    ----------
    rows : (n_requests,) ndarray of int64
        In arrival order.
    prompt_tokens : (n_requests,) ndarray of int64
    said : Said
    writers : Writers

    Returns
    -------
    (n_requests,) ndarray of int64
        Leading tokens of each prompt up to that end; 0 if its first message is new.
    """
    return _find_known(rows, prompt_tokens, said, writers)


@njit(cache=True, nogil=True)
def _find_known(rows, prompt_tokens, said, writers):
    is_known = np.zeros(said.chains.max() + 1 if len(said.chains) else 0, np.bool_)
    ends = np.zeros(len(rows), np.int64)
    for i in range(len(rows)):
        row = rows[i]
        first, known = said.firsts[row], said.counts[row]
        while known > 0 and not is_known[said.chains[first + known - 1]]:
            known -= 1
        if known > 0:
            ends[i] = find_text_end(row, known, prompt_tokens[i], writers)
        for k in range(known, said.counts[row] + said.has_reply[row]):
            is_known[said.chains[first + k]] = True
    return ends
