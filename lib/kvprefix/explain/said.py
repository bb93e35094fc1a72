"""Which messages the prompts of a workload hold, as numbers: who wrote each, and which are equal."""

import json
from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.hashing import fold, number_keys
from kvprefix.files.arrow_arrays import fill_missing, flat_lists, to_array
from kvprefix.files.mapped import read_only
from kvprefix.tokens.marks import ASSISTANT, SYSTEM, TOOL, UNKNOWN, USER
from kvprefix.tokens.messages import add_up

_BY_LETTER = {"s": SYSTEM, "d": SYSTEM, "u": USER, "a": ASSISTANT, "t": TOOL, "f": TOOL}  # developer, function
_ROLE = b'{"role": "'


class Runs(NamedTuple):
    """Which message each own token of each row is of, as the making of the prompts showed it.

    Attributes
    ----------
    is_there, is_known : (n_rows,) ndarrays of bool
        Whether a row has such runs, and whether they are known.
    firsts : (n_rows + 1,) ndarray of int64
        Row r's runs are ``firsts[r]`` up to ``firsts[r + 1]``.
    stops, messages : (n_runs,) ndarrays of int64
        Where each ends in its prompt; its message, from 1 on, 0 for tools and the like, -1 for what is of none.
    writers : (n_runs,) ndarray of int8
    """

    is_there: np.ndarray
    is_known: np.ndarray
    firsts: np.ndarray
    stops: np.ndarray
    messages: np.ndarray
    writers: np.ndarray


class Said(NamedTuple):
    """Which messages each row of some tokens holds.

    A node is a list of messages; equal lists (role and text of each) are one. Its parent is the list without the last.

    Attributes
    ----------
    nodes, replies : (n_rows,) ndarrays of int64
        The list of each row's prompt, and that with its reply; the same if it has none; -1 for no message.
    up, depths : (n_nodes,) ndarrays of int64
        The parent of each node, -1 for none; how many messages it has.
    twins : (n_rows,) ndarray of int64
        Equal numbers are conversations with equal messages.
    roles : (n_messages,) ndarray of int8
        The writers of the messages of chats of text.
    firsts, counts : (n_rows,) ndarrays of int64
        Where the messages of each row's prompt begin in `roles`, and how many these are.
    runs : Runs
        Of calls of a server.
    """

    nodes: np.ndarray
    replies: np.ndarray
    up: np.ndarray
    depths: np.ndarray
    twins: np.ndarray
    roles: np.ndarray
    firsts: np.ndarray
    counts: np.ndarray
    runs: Runs


def read_said(workload):
    """Return the Said of a workload's tokens.

    Parameters
    ----------
    workload : Workload
    """
    rendered, n = getattr(workload.messages, "rendered", None), len(workload.tokens.shared)
    if rendered is None:
        return _read_texts(workload, workload.requests, no_runs(n))
    runs, calls = _read_rendered(rendered)
    texts = workload.requests[~runs.is_there[workload.requests.index]]
    if not len(texts):
        none = np.zeros(n, np.int64)
        return Said(*calls, calls[1], np.zeros(0, np.int8), none, none, runs)
    said, (nodes, replies, up, depths) = _read_texts(workload, texts, runs), calls
    before, nodes, replies, up = len(said.up), *(np.where(one >= 0, one + len(said.up), -1) for one in calls[:3])
    return said._replace(
        nodes=np.where(runs.is_there, nodes, said.nodes), replies=np.where(runs.is_there, replies, said.replies),
        up=np.concatenate((said.up, up)), depths=np.concatenate((said.depths, depths)),
        twins=np.where(runs.is_there, replies + before, said.twins),
    )  # fmt: skip


def no_runs(n_rows):
    """Return the Runs of rows that have none."""
    none = np.zeros(0, np.int64)
    return Runs(*np.zeros((2, n_rows), bool), np.zeros(n_rows + 1, np.int64), none, none, none.astype(np.int8))


def _read_texts(workload, requests, runs):
    """Return the Said of requests of text; that of other rows is empty."""
    messages, n = workload.messages, len(workload.tokens.shared)
    chains, n_nodes = number_keys([_chain(read_only(messages.content), messages.stops, messages.firsts)])
    roles, chains = _read_roles(messages), chains.astype(np.int64)
    messages.release()
    begins = np.zeros(len(chains), bool)
    begins[messages.firsts[:-1][np.diff(messages.firsts) > 0]] = True
    places = np.arange(len(chains))
    up, depths = np.full(n_nodes, -1), np.zeros(n_nodes, np.int64)
    up[chains[~begins]] = chains[places[~begins] - 1]
    depths[chains] = places - np.maximum.accumulate(np.where(begins, places, 0)) + 1
    rows, listed = requests.index.to_numpy(), getattr(messages, "chains", None)
    lists = requests["conversation_index"].to_numpy() if listed is None else listed[rows]
    firsts, ends, counts = messages.firsts[lists], messages.firsts[lists + 1], requests["messages"].to_numpy()
    has_reply = (np.diff(workload.tokens.output_offsets)[rows] > 0) & (firsts + counts < ends)
    twins = np.where(ends > firsts, chains[np.maximum(ends - 1, 0)], -1 - lists)
    nodes = np.where(counts > 0, chains[firsts + counts - 1], -1)
    replies = np.where(has_reply, chains[np.minimum(firsts + counts, len(chains) - 1)], nodes)
    nodes, replies, twins = (_place(one, rows, n, -1) for one in (nodes, replies, twins))
    return Said(nodes, replies, up, depths, twins, roles, *(_place(one, rows, n, 0) for one in (firsts, counts)), runs)


def _read_rendered(rendered):
    """Return the Runs of the rows of calls, and their `nodes`, `replies`, `up` and `depths` of Said."""
    is_there = ~rendered["is_marked"].combine_chunks().is_null().to_numpy(zero_copy_only=False)
    is_known = to_array(fill_missing(rendered["is_marked"], False))
    firsts, stops = flat_lists(rendered["run_stops"])
    messages, writers = (flat_lists(rendered[name])[1] for name in ("run_messages", "run_writers"))
    runs = Runs(is_there, is_known, firsts, stops.astype(np.int64), messages.astype(np.int64), writers)
    before, prompts = (to_array(fill_missing(rendered[name], 0)) for name in ("said_before", "said_prompt"))
    listed = rendered["said_keys"].combine_chunks()
    keys, lengths = listed.flatten(), fill_missing(listed.value_lengths(), 0).to_numpy()
    keys = np.frombuffer(keys.buffers()[1], np.uint64)[2 * keys.offset :][: 2 * len(keys)].reshape(-1, 2)
    numbers, n_nodes = number_keys([keys])
    return runs, climb_lists(before, add_up(lengths), prompts, numbers, n_nodes)


@njit(cache=True, nogil=True)
def climb_lists(before, offsets, prompts, numbers, n_nodes):
    """Return the `nodes`, `replies`, `up` and `depths` of rows that list their messages after those of the row before.

    Parameters
    ----------
    before : (n_rows,) ndarray of int32
        Leading messages that are those of the row before.
    offsets : (n_rows + 1,) ndarray of int64
        The others of row r are ``numbers[offsets[r]:offsets[r + 1]]``.
    prompts : (n_rows,) ndarray of int32
        Messages of each row's prompt; what is left is its reply.
    numbers : ndarray of int32
        The node of each message.
    n_nodes : int

    Examples
    --------
    The second row goes on from the first one's prompt, with other words than its reply.

    >>> rows = [np.array(one, np.int32) for one in ([0, 1], [1, 2], [0, 1, 2, 3])]
    >>> climb_lists(rows[0], np.array([0, 2, 4]), rows[1], rows[2], 4)
    (array([0, 2]), array([1, 3]), array([-1,  0,  0,  2]), array([1, 2, 2, 3]))
    """
    n, deepest = len(before), 1
    for row in range(n):
        deepest = max(deepest, before[row] + offsets[row + 1] - offsets[row])
    stack, up, depths = np.full(deepest, -1), np.full(n_nodes, -1), np.zeros(n_nodes, np.int64)
    nodes, replies = np.full(n, -1), np.full(n, -1)
    for row in range(n):
        depth = before[row]
        for k in range(offsets[row], offsets[row + 1]):
            up[numbers[k]] = stack[depth - 1] if depth > 0 else -1
            stack[depth] = numbers[k]
            depth += 1
            depths[numbers[k]] = depth
        nodes[row] = stack[prompts[row] - 1] if prompts[row] > 0 else -1
        replies[row] = stack[depth - 1] if depth > 0 else -1
    return nodes, replies, up, depths


def _place(values, rows, n_rows, other):
    """Return values in the order of the rows."""
    placed = np.full(n_rows, other, values.dtype)
    placed[rows] = values
    return placed


def _read_roles(messages):
    """Return the writer of each message: by its first letter where the role stands first, as in a plain text."""
    starts = messages.stops[:-1]
    places = starts[:, None] + np.arange(len(_ROLE) + 1)
    heads = np.asarray(messages.content[np.minimum(places, len(messages.content) - 1)])
    by_letter = np.full(256, UNKNOWN, np.int8)
    by_letter[[ord(letter) for letter in _BY_LETTER]] = list(_BY_LETTER.values())
    is_plain = (heads[:, :-1] == np.frombuffer(_ROLE, np.uint8)).all(axis=1)
    roles = np.where(is_plain, by_letter[heads[:, -1]], UNKNOWN).astype(np.int8)
    for k in np.flatnonzero(~is_plain).tolist():
        said = json.loads(messages.content[starts[k] : messages.stops[k + 1] - 2].tobytes())
        if not isinstance(said, dict):
            continue
        made_by = TOOL if str(said.get("type")).endswith("_output") else ASSISTANT  # of an item without a role
        roles[k] = _BY_LETTER.get(said["role"][:1], UNKNOWN) if isinstance(said.get("role"), str) else made_by
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
