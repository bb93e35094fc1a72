"""Who wrote each token of a prompt, and which messages it holds: the one place that knows how messages become tokens.

Of calls, the making of the prompts showed which message each token is of. Of chats of text, tokens that no template
wrote are messages, in their order: each run of them is one; only a system message that says what the template says by
default may be the template's, which the number of runs shows. So a prompt's writers are a few runs per turn, and a turn
lists only the runs of its own tokens.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.explain.said import no_runs
from kvprefix.files.mapped import read_only
from kvprefix.tokens.marks import SYSTEM, TEMPLATE, UNKNOWN


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
        How many of the prompt's messages have begun.
    writers : (n_runs,) ndarray of int8
        Of WRITERS.
    is_text : (n_runs,) ndarray of bool
        Whether it is text of the last of these: not the template's, nor that of tools or of an earlier message.
    before : (n_runs, len(WRITERS)) ndarray of int64
        Tokens of each writer in the prompt before the run.
    is_known : (n_rows,) ndarray of bool
        Whether the prompt holds the messages that it should.
    """

    parent: np.ndarray
    shared: np.ndarray
    firsts: np.ndarray
    stops: np.ndarray
    numbers: np.ndarray
    writers: np.ndarray
    is_text: np.ndarray
    before: np.ndarray
    is_known: np.ndarray


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
    given = no_runs(len(tokens.shared)) if said is None else said.runs
    arrays = tokens.parent, tokens.shared, tokens.own_offsets, read_only(np.asarray(tokens.own_is_template))
    firsts, stops, numbers, writers, is_text, begun = _cut_runs(*arrays, given)
    is_known = given.is_known.copy()
    if said is not None:
        extra = _align(begun, tokens.parent, said, is_known)
        _name_writers(firsts, numbers, said, (is_known, extra), writers, is_text)
    before = _count_before(tokens.parent, tokens.shared, firsts, stops, writers)
    return Writers(tokens.parent, tokens.shared, firsts, stops, numbers, writers, is_text, before, is_known)


@njit(cache=True, nogil=True)
def _cut_runs(parent, shared, own_offsets, is_template, given):
    """Return the runs, and how many of messages each row's whole prompt has."""
    firsts, most = np.zeros(len(shared) + 1, np.int64), len(given.stops) + 1
    for row in range(len(shared)):
        most += own_offsets[row + 1] > own_offsets[row]
        for k in range(own_offsets[row] + 1, own_offsets[row + 1]):
            most += is_template[k] != is_template[k - 1]
    stops, numbers = np.empty(most, np.int64), np.empty(most, np.int64)
    writers, is_text = np.empty(most, np.int8), np.empty(most, np.bool_)
    n, all_begun = 0, np.zeros(len(shared), np.int64)
    for row in range(len(shared)):
        begun, was_template, at = 0, True, shared[row]
        if at > 0:
            run = find_run(at - 1, parent[row], parent, shared, firsts, stops)
            begun, was_template = numbers[run], writers[run] == TEMPLATE
        there, g = given.is_there[row], given.firsts[row] - 1
        stop = at  # of the given run
        for k in range(own_offsets[row], own_offsets[row + 1]):
            begins = k == own_offsets[row] or is_template[k] != is_template[k - 1]
            while there and at >= stop:
                g, begins = g + 1, True
                stop = given.stops[g]
            if begins:
                message = given.messages[g] if there else begun + (was_template and not is_template[k])
                begun = max(begun, message)
                was_template = is_template[k]
                writers[n] = TEMPLATE if was_template else given.writers[g] if there else UNKNOWN
                numbers[n], is_text[n] = begun, 0 < message == begun and writers[n] != TEMPLATE
                n += 1
            at += 1
            stops[n - 1] = at
        firsts[row + 1], all_begun[row] = n, begun
    return firsts, stops[:n].copy(), numbers[:n].copy(), writers[:n].copy(), is_text[:n].copy(), all_begun


@njit(cache=True, nogil=True)
def find_run(at, row, parent, shared, firsts, stops):
    """Return the run of the token at a position of a row's prompt."""
    while at < shared[row]:
        row = parent[row]
    return firsts[row] + np.searchsorted(stops[firsts[row] : firsts[row + 1]], at, side="right")


@njit(cache=True, nogil=True)
def _align(begun, parent, said, is_known):
    """Compare the runs of each row of text with its messages; say in `is_known` whether the runs are the messages.

    Returns
    -------
    (n_rows,) ndarray of int64
        How many fewer runs than messages a prompt has, as a number below 0: so many system messages are the template's.
    """
    extra = np.zeros(len(said.counts), np.int64)
    for row in range(len(said.counts)):
        if said.runs.is_there[row]:
            continue
        first, last = said.firsts[row], said.firsts[row] + said.counts[row]
        system = first
        while system < last and said.roles[system] == SYSTEM:
            system += 1
        more = begun[row] - said.counts[row]
        is_known[row] = first - system <= more <= 0
        extra[row] = more if is_known[row] else 0
    return extra


@njit(cache=True, nogil=True)
def _name_writers(firsts, numbers, said, aligned, writers, is_text):
    """Name the writers of messages, and number their runs as the messages are, in place."""
    is_known, extra = aligned
    for row in range(len(said.counts)):
        if said.runs.is_there[row] or not is_known[row]:
            continue
        for run in range(firsts[row], firsts[row + 1]):
            numbers[run] -= extra[row]
            if writers[run] != TEMPLATE and numbers[run] > 0:
                writers[run] = said.roles[said.firsts[row] + numbers[run] - 1]
            is_text[run] &= numbers[run] > 0


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
    """Return where the text of a prompt's message ends, in tokens; `number` counts from 1.

    If no token is of it, that is the end of the message before; 0 if there is none.

    Parameters
    ----------
    row, number : int
    length : int
        Of the row's prompt.
    of : Writers
    """
    limit = length
    while row >= 0 and number > 0:
        first, last = of.firsts[row], of.firsts[row + 1]
        run = first + np.searchsorted(of.numbers[first:last], number, side="right") - 1
        while run >= first and not of.is_text[run]:
            run -= 1
        if run >= first:
            return min(of.stops[run], limit)
        limit = min(limit, of.shared[row])
        row = of.parent[row]
    return 0


def find_known_messages(rows, prompt_tokens, said, writers):
    """Find where the text ends of the longest run of whole messages that began an earlier prompt and its reply.

    Equal messages are equal in all that they hold: role, text, calls of tools.

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
        Leading tokens of each prompt up to that end; 0 if its first message is new, or what it holds is not known.
    """
    return _find_known(rows, prompt_tokens, said, writers)


@njit(cache=True, nogil=True)
def _find_known(rows, prompt_tokens, said, writers):
    is_known, ends = np.zeros(len(said.up), np.bool_), np.zeros(len(rows), np.int64)
    for i in range(len(rows)):
        row = rows[i]
        node = said.nodes[row]
        while node >= 0 and not is_known[node]:
            node = said.up[node]
        if node >= 0 and writers.is_known[row]:
            ends[i] = find_text_end(row, said.depths[node], prompt_tokens[i], writers)
        node = said.replies[row]
        while node >= 0 and not is_known[node]:
            is_known[node] = True
            node = said.up[node]
    return ends
