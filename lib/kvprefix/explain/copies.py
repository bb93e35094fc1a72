"""Whose the cached blocks are that a request hits: who computed the resident copy, and who had it since."""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.stretches import list_paths

HOLDERS = ("own_only", "both", "other_only")
FIRSTS = ("self", "duplicate", "other")
OWN_ONLY, BOTH, OTHER_ONLY = range(3)
SELF, DUPLICATE, OTHER = range(3)


class Copies(NamedTuple):
    """The leading hit blocks of each request, cut where it changes whose they are.

    Attributes
    ----------
    offsets : (n_requests + 1,) ndarray of int64
        Request i's parts are ``offsets[i]`` up to ``offsets[i + 1]``.
    ends : (n_parts,) ndarray of int64
        Up to which block of the prompt each goes.
    holders : (n_parts,) ndarray of int8
        Of HOLDERS: which conversations had accessed the resident copy, the request's own or others.
    firsts : (n_parts,) ndarray of int8
        Of FIRSTS: which conversation computed it.
    """

    offsets: np.ndarray
    ends: np.ndarray
    holders: np.ndarray
    firsts: np.ndarray

    @property
    def requests(self):
        """The request of each part, (n_parts,) int64."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def find_copies(accesses, hits, counted, conversation, twins):
    """Find whose the blocks are that each request hits.

    A block that a request misses is computed by it; nothing else makes a copy.

    Parameters
    ----------
    accesses : StretchTrace or PrefixTrace
        By stretches only if each is hit whole or not at all.
    hits : (n_requests,) ndarray of int64
        Leading blocks that are resident.
    counted : (n_requests,) ndarray of int64
        How many of these count as hits.
    conversation : (n_requests,) ndarray of int64
        0 or more.
    twins : (n_conversations,) ndarray of int64
        Equal for conversations that count as duplicates.

    Returns
    -------
    Copies

    Examples
    --------
    Conversations 0, 1 and 0 again: the third request's first block is both's, its second its own.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> trace = make_prefix_trace(make_trace_of([[1, 2, 3], [1, 9], [1, 2, 4]]), 1)
    >>> found = find_copies(trace, np.array([0, 1, 2]), np.array([0, 1, 2]), np.array([0, 1, 0]), np.arange(2))
    >>> [HOLDERS[k] for k in found.holders], [FIRSTS[k] for k in found.firsts]
    (['other_only', 'both', 'own_only'], ['other', 'self', 'self'])
    """
    paths, order = list_paths(accesses), np.argsort(conversation, kind="stable")
    before = _find_own_before(paths, conversation, order)
    return Copies(*_find_copies(paths, before, (hits, counted), conversation, twins))


@njit(cache=True, nogil=True)
def _find_own_before(paths, conversation, order):
    """Return, for each access, the last request before it of its conversation that accessed the same; -1 for none."""
    last, before = np.full(paths.n_nodes, -1, np.int32), np.empty(len(paths.nodes), np.int32)
    for i in order:
        for k in range(paths.offsets[i], paths.offsets[i + 1]):
            request = last[paths.nodes[k]]
            before[k] = request if request >= 0 and conversation[request] == conversation[i] else -1
            last[paths.nodes[k]] = i
    return before


@njit(cache=True, nogil=True)
def _find_copies(paths, own_before, kept, conversation, twins):
    hits, counted = kept
    computed = np.full(paths.n_nodes, -1, np.int32)
    has_others = np.zeros(paths.n_nodes, np.bool_)  # conversations that accessed the copy, beside the one that made it
    offsets, count, most = np.zeros(len(hits) + 1, np.int64), 0, len(paths.nodes)
    ends, holders, firsts = np.empty(most, np.int64), np.empty(most, np.int8), np.empty(most, np.int8)
    for i in range(len(hits)):
        start = 0
        for k in range(paths.offsets[i], paths.offsets[i + 1]):
            node = paths.nodes[k]
            if paths.ends[k] > hits[i]:
                computed[node], has_others[node] = i, False
                continue
            maker = conversation[computed[node]]
            if start < counted[i]:
                is_own = own_before[k] >= computed[node]
                is_other = has_others[node] or maker != conversation[i]
                holder = BOTH if is_own and is_other else OWN_ONLY if is_own else OTHER_ONLY
                is_twin = twins[maker] == twins[conversation[i]]
                first = SELF if maker == conversation[i] else DUPLICATE if is_twin else OTHER
                if start == 0 or firsts[count - 1] != first or holders[count - 1] != holder:
                    holders[count], firsts[count] = holder, first
                    count += 1
                ends[count - 1] = min(paths.ends[k], counted[i])
            start = paths.ends[k]
            has_others[node] |= maker != conversation[i]
        offsets[i + 1] = count
    return offsets, ends[:count].copy(), holders[:count].copy(), firsts[:count].copy()
