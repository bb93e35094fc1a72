"""Who wrote each token of a prompt, and which messages it holds: the one place that knows how messages become tokens.

Tokens that no template wrote are messages, in their order: each run of them is a message. So a prompt's writers are a
few runs per turn, and a turn lists only the runs of its own tokens. Templates differ from that in three ways, which the
number of runs shows: a system message that says what the template says by default is the template's; results of tools
that follow one another may be one run; tools, or a system text beside the messages, are a run before them.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.hashing import read_only
from kvprefix.explain.said import SYSTEM, TEMPLATE, UNKNOWN


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
        How many of the prompt's messages have begun: a run of a message is of the last of these. With `joins`, results
        of tools that follow one another count as one.
    writers : (n_runs,) ndarray of int8
        Of WRITERS.
    before : (n_runs, len(WRITERS)) ndarray of int64
        Tokens of each writer in the prompt before the run.
    joins : (n_rows,) ndarray of bool
        Whether results of tools that follow one another are one run of the row's prompt.
    is_known : (n_rows,) ndarray of bool
        Whether the prompt holds the messages that it should.
    """

    parent: np.ndarray
    shared: np.ndarray
    firsts: np.ndarray
    stops: np.ndarray
    numbers: np.ndarray
    writers: np.ndarray
    before: np.ndarray
    joins: np.ndarray
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
    arrays = tokens.parent, tokens.shared, tokens.own_offsets, read_only(np.asarray(tokens.own_is_template))
    firsts, stops, numbers, is_template, begun = _cut_runs(*arrays)
    writers = np.where(is_template, TEMPLATE, UNKNOWN).astype(np.int8)
    joins, is_known = np.zeros((2, len(begun)), bool)
    if said is not None:
        joins, is_known, extra = _align(begun, tokens.parent, said)
        _name_writers(firsts, numbers, said, joins, is_known, extra, writers)
    before = _count_before(tokens.parent, tokens.shared, firsts, stops, writers)
    return Writers(tokens.parent, tokens.shared, firsts, stops, numbers, writers, before, joins, is_known)


@njit(cache=True, nogil=True)
def _cut_runs(parent, shared, own_offsets, is_template):
    """Return the runs, and how many of messages each row's whole prompt has."""
    firsts, most = np.zeros(len(shared) + 1, np.int64), 1
    for row in range(len(shared)):
        most += own_offsets[row + 1] > own_offsets[row]
        for k in range(own_offsets[row] + 1, own_offsets[row + 1]):
            most += is_template[k] != is_template[k - 1]
    stops, numbers, flags = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.bool_)
    n, all_begun = 0, np.zeros(len(shared), np.int64)
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
        firsts[row + 1], all_begun[row] = n, begun
    return firsts, stops[:n].copy(), numbers[:n].copy(), flags[:n].copy(), all_begun


@njit(cache=True, nogil=True)
def find_run(at, row, parent, shared, firsts, stops):
    """Return the run of the token at a position of a row's prompt."""
    while at < shared[row]:
        row = parent[row]
    return firsts[row] + np.searchsorted(stops[firsts[row] : firsts[row + 1]], at, side="right")


@njit(cache=True, nogil=True)
def _align(begun, parent, said):
    """Compare the runs of each row's prompt with its messages: whether results of tools are joined, whether the runs
    are the messages, and how many more runs come first (fewer, if system messages are the template's).
    """
    n = len(said.counts)
    joins, is_known, extra = np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.int64)
    for row in range(n):
        first, last = said.firsts[row], said.firsts[row] + said.counts[row]
        system = 0
        while first + system < last and said.roles[first + system] == SYSTEM:
            system += 1
        more = begun[row] - said.counts[row], begun[row] - (said.groups[last] - said.groups[first])
        before = extra[parent[row]] if parent[row] >= 0 else 0
        for step in range(4):  # as many as in the turn before; none; one that comes first; messages of the template
            for joined in range(2):
                one = more[joined]
                fits = (one == before, one == 0, one == 1 and system == 0, -system <= one < 0)[step]
                if fits and not is_known[row]:
                    joins[row], is_known[row], extra[row] = joined, True, one
    return joins, is_known, extra


@njit(cache=True, nogil=True)
def _name_writers(firsts, numbers, said, joins, is_known, extra, writers):
    """Name the writers of messages, and number their runs as the messages are, in place."""
    for row in range(len(said.counts)):
        if not is_known[row]:
            continue
        first = said.firsts[row]
        for run in range(firsts[row], firsts[row + 1]):
            numbers[run] = max(numbers[run] - extra[row], 0)
            if writers[run] == TEMPLATE:
                continue
            place = first + numbers[run] - 1
            if joins[row]:
                groups = said.groups[first + 1 : first + said.counts[row] + 1]
                place = first + np.searchsorted(groups, said.groups[first] + numbers[run])
            writers[run] = said.roles[place] if numbers[run] > 0 else SYSTEM


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
    while row >= 0 and number > 0:
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
    is_known = np.zeros(said.chains.max() + 1 if len(said.chains) else 0, np.bool_)
    ends = np.zeros(len(rows), np.int64)
    for i in range(len(rows)):
        row = rows[i]
        first, known = said.firsts[row], said.counts[row]
        while known > 0 and not is_known[said.chains[first + known - 1]]:
            known -= 1
        if known > 0 and writers.is_known[row]:
            number = known
            if writers.joins[row]:  # of joined results of tools only the last one has an end
                number = said.groups[first + known] - said.groups[first]
                is_inside = known < said.counts[row] and said.groups[first + known + 1] == said.groups[first + known]
                number -= is_inside
            ends[i] = find_text_end(row, number, prompt_tokens[i], writers)
        for k in range(known, said.counts[row] + said.has_reply[row]):
            is_known[said.chains[first + k]] = True
    return ends
