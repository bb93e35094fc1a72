"""Which messages the prompts of a workload hold, as numbers: who wrote each, and which are equal."""

import json
from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.hashing import fold, number_keys, read_only

WRITERS = ("template", "system", "user", "assistant", "tool", "message")
TEMPLATE, SYSTEM, USER, ASSISTANT, TOOL, UNKNOWN = range(len(WRITERS))
_BY_LETTER = {"s": SYSTEM, "d": SYSTEM, "u": USER, "a": ASSISTANT, "t": TOOL, "f": TOOL}  # developer, function
_ROLE = b'{"role": "'


class Said(NamedTuple):
    """Which messages each row of some tokens holds.

    Attributes
    ----------
    roles : (n_messages,) ndarray of int8
        The writers of all messages that are listed.
    chains : (n_messages,) ndarray of int64
        Equal numbers are equal messages (role and text) after equal messages: the whole list up to there.
    groups : (n_messages + 1,) ndarray of int64
        How many messages before each do not follow a tool's result as one more of them.
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
    groups: np.ndarray
    firsts: np.ndarray
    counts: np.ndarray
    has_reply: np.ndarray
    twins: np.ndarray


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
    follows = (roles[1:] == TOOL) & (roles[:-1] == TOOL)
    follows[messages.firsts[(messages.firsts > 0) & (messages.firsts < len(roles))] - 1] = False
    groups = np.cumsum(np.concatenate(([0], ~np.concatenate(([False], follows)))))
    return Said(roles, chains, groups, *(_place(one, rows) for one in (firsts, counts, has_reply, twins)))


def _place(values, rows):
    """Return values in the order of their rows."""
    placed = np.zeros(rows.max(initial=-1) + 1, values.dtype)
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
