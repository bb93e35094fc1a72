"""What a policy may be told beyond the block accesses: who asks, what is a system prompt, what the answer does."""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.sessions import TOOL
from kvprefix.files.paths import InputError

SYSTEM_SHARE = 0.01  # of the sessions, which must begin with a block for it to count as a system prompt's
TURN_CLASSES = (0, 1, 2, 4, 8)  # turns from which on a class of `turn_class` begins


class Hints(NamedTuple):
    """What is known of each request when it is answered, (n_requests,) ndarrays.

    Attributes
    ----------
    system_blocks : ndarray of int64
        Its leading blocks that are a system prompt's.
    turn_class : ndarray of int8
        How far its conversation is: the class of its turn, see TURN_CLASSES.
    calls_tool : ndarray of int8
        1 if its answer calls a tool, so that the next request comes without a person.
    priority : ndarray of int64
        As the log gives it; the higher, the longer its blocks stay.
    gap_s : ndarray of float64
        Seconds from its arrival to that of the request that continues it, NaN if none does. Policies are told the
        distribution of these alone, not which request has which.
    """

    system_blocks: np.ndarray
    turn_class: np.ndarray
    calls_tool: np.ndarray
    priority: np.ndarray
    gap_s: np.ndarray


def read_hints(accesses, *, system_blocks=None, calls_tool=None, priority=None):
    """Return the Hints of a trace; what is not given is read off the trace as far as it can be.

    Parameters
    ----------
    accesses : PrefixTrace
    system_blocks, calls_tool, priority : (n_requests,) array_like, optional
        As in Hints. If not given: the leading blocks with which at least two sessions, and SYSTEM_SHARE of them, begin;
        whether the request that continues it is `after` a tool; 0 for all.

    Returns
    -------
    Hints

    Raises
    ------
    InputError
        A hint that is not one number per request.
    """
    n, following = len(accesses), find_following(accesses)
    if calls_tool is None:
        after = np.zeros(n, np.int8) if accesses.after is None else accesses.after
        calls_tool = (following >= 0) & (after[following] == TOOL)
    if system_blocks is None:
        session = np.unique(accesses.conversation, return_inverse=True)[1]
        most = max(2, SYSTEM_SHARE * (session.max(initial=-1) + 1))
        system_blocks = _count_common(accesses.ids, accesses.offsets, session, accesses.n_distinct, most)
    priority = np.zeros(n) if priority is None else priority
    given = {"system_blocks": system_blocks, "calls_tool": calls_tool, "priority": priority}
    given = {name: np.asarray(one) for name, one in given.items()}
    for name, one in given.items():
        if one.shape != (n,) or one.dtype.kind not in "biuf":
            raise InputError(f"hint {name} has shape {one.shape}; expected a number for each of {n:,} requests")
    arrival_s = accesses.arrival_s
    return Hints(
        system_blocks=given["system_blocks"].astype(np.int64),
        turn_class=(np.searchsorted(TURN_CLASSES, count_before(following), side="right") - 1).astype(np.int8),
        calls_tool=given["calls_tool"].astype(np.int8), priority=given["priority"].astype(np.int64),
        gap_s=np.where(following >= 0, arrival_s[following] - arrival_s, np.nan),
    )  # fmt: skip


def find_following(accesses):
    """Return the request that continues each one, -1 if none does: its agent's next, or else its conversation's.

    Parameters
    ----------
    accesses : PrefixTrace
    """
    following = np.full(len(accesses), -1)
    if accesses.previous is not None:
        later = np.flatnonzero(accesses.previous >= 0)
        following[accesses.previous[later]] = later
        return following
    order = np.lexsort((np.arange(len(accesses)), accesses.conversation))
    same = np.flatnonzero(np.diff(accesses.conversation[order]) == 0)
    following[order[same]] = order[same + 1]
    return following


def count_before(following):
    """Return how many requests each one continues.

    >>> count_before(np.array([1, 3, -1, -1]))
    array([0, 1, 0, 2])
    """
    turns = np.zeros(len(following), np.int64)
    for i in np.flatnonzero(following >= 0):
        turns[following[i]] = turns[i] + 1
    return turns


@njit(cache=True, nogil=True)
def _count_common(ids, offsets, session, n_distinct, most):
    """Return how many leading blocks of each request at least `most` sessions begin with."""
    sessions, last = np.zeros(n_distinct, np.int64), np.full(n_distinct, -1, np.int64)
    for i in np.argsort(session, kind="mergesort"):
        for block in ids[offsets[i] : offsets[i + 1]]:
            sessions[block] += last[block] != session[i]
            last[block] = session[i]
    common = np.zeros(len(session), np.int64)
    for i in range(len(session)):
        for block in ids[offsets[i] : offsets[i + 1]]:
            if sessions[block] < most:
                break
            common[i] += 1
    return common
