"""What of each prompt was there before, token by token: one walk down the prefix tree of all prompts and replies.

All lengths are of leading tokens. Whatever was there before was there from the root on, so a length tells all.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.prefix_tree import PrefixTree, make_prefix_tree
from kvprefix.blocks.stretches import cut_trace
from kvprefix.tokens.arrays import check_parents

NONE, SAMPLED, REPLIED, PROMPTED = range(4)  # how a node was seen: as a last sampled token, in a reply, in a prompt


class Walks(NamedTuple):
    """The ways of a trace's requests through the prefix tree: prompt, reply but its last token, last token.

    Attributes
    ----------
    nodes : (total,) ndarray of int32
        Nodes of the tree, request after request, from the root on.
    apart : (total,) ndarray of int32
        The same, but other numbers in each context (salt, adapter); `nodes` itself if there is one context.
    ends : (total,) ndarray of int64
        Tokens up to each node's end.
    offsets : (n_requests + 1,) ndarray of int64
    prompt_stop, kept_stop : (n_requests,) ndarrays of int64
        Where the nodes of each prompt end in `nodes`, and those of what is computed: the reply without its last token.
    prompt_tokens, kept_tokens : (n_requests,) ndarrays of int64
        Tokens of both.
    tree : PrefixTree
    n_nodes, n_apart : int
    """

    nodes: np.ndarray
    apart: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    prompt_stop: np.ndarray
    kept_stop: np.ndarray
    prompt_tokens: np.ndarray
    kept_tokens: np.ndarray
    tree: PrefixTree
    n_nodes: int
    n_apart: int


class Repeats(NamedTuple):
    """How many leading tokens of each prompt were there before, (n_requests,) ndarrays of int64.

    Each may be all of the prompt.

    Attributes
    ----------
    stored : ndarray
        In an earlier prompt of the same context; with outputs, in an earlier prompt and what was computed of its reply.
    anywhere : ndarray
        The same in any context.
    replied : ndarray
        In an earlier prompt, of any context, and its reply without the last token.
    sampled : ndarray
        In an earlier prompt, of any context, and its whole reply.
    """

    stored: np.ndarray
    anywhere: np.ndarray
    replied: np.ndarray
    sampled: np.ndarray


def make_walks(trace):
    """Make the Walks of a trace's requests.

    Parameters
    ----------
    trace : Trace

    Returns
    -------
    Walks
    """
    check_parents(trace.tokens)
    tree = make_prefix_tree(trace.tokens, outputs=True, sampled=True)
    prompt_tokens = trace.tokens.prompt_lengths()
    kept_tokens = prompt_tokens + np.maximum(np.diff(trace.tokens.output_offsets) - 1, 0)
    gathered = _gather(tree, trace.rows, prompt_tokens, kept_tokens)
    apart, n_apart = gathered[0], len(tree.start)
    if trace.contexts is not None:
        keys = apart + np.int64(n_apart) * np.repeat(trace.contexts, np.diff(gathered[2]))
        distinct, apart = np.unique(keys, return_inverse=True)
        apart, n_apart = apart.astype(np.int32), len(distinct)
    nodes, *rest = gathered
    return Walks(
        nodes, apart, *rest, prompt_tokens[trace.rows], kept_tokens[trace.rows], tree, len(tree.start), n_apart
    )


@njit(cache=True, nogil=True)
def _gather(tree, rows, prompt_tokens, kept_tokens):
    offsets = np.zeros(len(rows) + 1, np.int64)
    for i in range(len(rows)):
        offsets[i + 1] = offsets[i] + tree.offsets[rows[i] + 1] - tree.offsets[rows[i]]
    nodes, ends = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int64)
    prompt_stop, kept_stop = offsets[:-1].copy(), offsets[:-1].copy()
    for i in range(len(rows)):
        row, first = rows[i], tree.offsets[rows[i]]
        for k in range(offsets[i], offsets[i + 1]):
            nodes[k] = tree.nodes[first + k - offsets[i]]
            ends[k] = tree.end[nodes[k]]
            prompt_stop[i] += ends[k] <= prompt_tokens[row]
            kept_stop[i] += ends[k] <= kept_tokens[row]
    return nodes, ends, offsets, prompt_stop, kept_stop


def cut_blocks(walks, trace, block_size, *, outputs=False):
    """Cut the walks into the blocks that requests store: a StretchTrace.

    Parameters
    ----------
    walks : Walks
    trace : Trace
        Of which they are.
    block_size : int
    outputs : bool
        Whether what is computed of the replies is stored too.
    """
    lengths = np.zeros(len(walks.tree.offsets) - 1, np.int64)
    lengths[trace.rows] = walks.kept_tokens if outputs else walks.prompt_tokens
    return cut_trace(walks.tree._replace(**_limit(walks.tree, lengths)), trace, block_size)


def _limit(tree, lengths):
    """Return the nodes of each row up to a length, and their offsets, by name."""
    row = np.repeat(np.arange(len(lengths)), np.diff(tree.offsets))
    kept = tree.end[tree.nodes] <= lengths[row]
    counts = np.bincount(row[kept], minlength=len(lengths))
    return {"nodes": tree.nodes[kept], "offsets": np.concatenate(([0], np.cumsum(counts)))}


def find_repeats(walks, *, outputs=False):
    """Find how much of each prompt was there before, see Repeats.

    Examples
    --------
    The second prompt has the first one and two of the three tokens of its reply.

    >>> from kvprefix.traces.trace import make_trace_of
    >>> trace = make_trace_of([[1, 2], [1, 2, 3, 4, 9]], outputs=[[3, 4, 5], []])
    >>> [int(one[1]) for one in find_repeats(make_walks(trace))]
    [2, 2, 4, 4]
    """
    return Repeats(*_find_repeats(walks, outputs))


@njit(cache=True, nogil=True)
def _find_repeats(walks, outputs):
    n, ends = len(walks.prompt_stop), walks.ends
    stored, anywhere = np.zeros(n, np.int64), np.zeros(n, np.int64)
    replied, sampled = np.zeros(n, np.int64), np.zeros(n, np.int64)
    is_stored, seen = np.zeros(walks.n_apart, np.bool_), np.zeros(walks.n_nodes, np.int8)
    least = REPLIED if outputs else PROMPTED
    for i in range(n):
        for k in range(walks.offsets[i], walks.prompt_stop[i]):
            how = seen[walks.nodes[k]]
            if how == NONE:
                break
            sampled[i] = ends[k]
            if how >= REPLIED:
                replied[i] = ends[k]
            if how >= least:
                anywhere[i] = ends[k]
            if is_stored[walks.apart[k]]:
                stored[i] = ends[k]
        for k in range(walks.offsets[i], walks.offsets[i + 1]):
            how = PROMPTED if k < walks.prompt_stop[i] else REPLIED if k < walks.kept_stop[i] else SAMPLED
            seen[walks.nodes[k]] = max(seen[walks.nodes[k]], how)
            if how >= least:
                is_stored[walks.apart[k]] = True
    return stored, anywhere, replied, sampled
