"""The prefix tree of many requests' tokens: each node is a stretch of tokens that the same requests have.

Requests share what they share at any block size, so one tree serves all sizes: see `stretches`. It is built by
comparing shared tokens, without hashes, and holds a few numbers per request, however long the prompts are.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.files.mapped import read_only


class PrefixTree(NamedTuple):
    """The tree, and the path of each row.

    Attributes
    ----------
    start, end : (n_nodes,) ndarrays of int64
        Each node holds the tokens [start, end) of its rows, 0-based positions. Node 0, the root, holds none.
    nodes : (total,) ndarray of int32
        The nodes from below the root on, row after row; each row ends at the end of its last node.
    offsets : (n_rows + 1,) ndarray of int64
        Row r's nodes are ``nodes[offsets[r]:offsets[r + 1]]``.
    """

    start: np.ndarray
    end: np.ndarray
    nodes: np.ndarray
    offsets: np.ndarray


def make_prefix_tree(tokens, *, outputs=False, sampled=False):
    """Make the prefix tree of all rows of some tokens.

    Parameters
    ----------
    tokens : Tokens
    outputs : bool
        A row's prompt is followed by its generated tokens but the last, whose KV is never computed.
    sampled : bool
        With outputs: these are followed by the last one too. Nodes end where a prompt does, and before its last token.

    Returns
    -------
    PrefixTree

    Examples
    --------
    >>> from kvprefix.tokens.arrays import make_tokens
    >>> tree = make_prefix_tree(make_tokens([[1, 2, 3], [1, 2, 4, 5], [1, 2]], [[]] * 3))
    >>> paths = np.split(tree.nodes, tree.offsets[1:-1])
    >>> [list(zip(tree.start[path].tolist(), tree.end[path].tolist(), strict=True)) for path in paths]
    [[(0, 2), (2, 3)], [(0, 2), (2, 4)], [(0, 2)]]
    """
    arrays = tokens.parent, tokens.shared, tokens.own_offsets, tokens.own, tokens.output_offsets, tokens.output
    parent, start, end, last = _grow(*map(read_only, arrays), outputs, sampled)
    return PrefixTree(start, end, *_list_paths(parent, last))


class _Growing(NamedTuple):
    """A tree while it grows: `text` is where a node's tokens begin in `own`, or past its end in `output`.

    `keys` and `children` are an open-addressing table of the node and the token that lead to a child. `count` is the
    number of nodes.
    """

    own: np.ndarray
    output: np.ndarray
    parent: np.ndarray
    start: np.ndarray
    end: np.ndarray
    text: np.ndarray
    keys: np.ndarray
    children: np.ndarray
    count: np.ndarray


@njit(cache=True, nogil=True)
def _grow(row_parent, shared, own_offsets, own, output_offsets, output, outputs, sampled):
    """Add row after row; return the parent, start and end of each node, and the last node of each row."""
    n = len(shared)
    most, size = (4 if sampled else 3) * n + 1, 16  # a row adds nodes, or cuts some, where its tokens end or part
    while size < 2 * most:
        size *= 2
    tree = _Growing(
        own, output, np.zeros(most, np.int32), np.zeros(most, np.int64), np.zeros(most, np.int64),
        np.zeros(most, np.int64), np.empty(size, np.uint64), np.full(size, -1, np.int32), np.ones(1, np.int64),
    )  # fmt: skip
    prompt_last, last = np.zeros(n, np.int32), np.zeros(n, np.int32)
    for row in range(n):
        node, at = 0, shared[row]
        if at:
            node = prompt_last[row_parent[row]]
            while tree.start[node] >= at:
                node = tree.parent[node]
        node, at = _add(tree, node, at, own_offsets[row], own_offsets[row + 1])
        node = prompt_last[row] = _cut(tree, node, at)
        if outputs:
            first, stop = output_offsets[row] + len(own), output_offsets[row + 1] + len(own) - 1
            node, at = _add(tree, node, at, first, stop)
            node = _cut(tree, node, at)
            if sampled and stop >= first:
                node, at = _add(tree, node, at, stop, stop + 1)
                node = _cut(tree, node, at)
        last[row] = node
    count = tree.count[0]
    return tree.parent[:count].copy(), tree.start[:count].copy(), tree.end[:count].copy(), last


@njit(nogil=True)
def _read(tree, at):
    return tree.own[at] if at < len(tree.own) else tree.output[at - len(tree.own)]


@njit(nogil=True)
def _count_equal(tree, one, other, most):
    """Return how many tokens are equal from two places of the texts on."""
    left, right = tree.own, tree.own
    if one >= len(tree.own):
        left, one = tree.output, one - len(tree.own)
    if other >= len(tree.own):
        right, other = tree.output, other - len(tree.own)
    left, right, n = left[one : one + most], right[other : other + most], 0
    while n < most and left[n] == right[n]:
        n += 1
    return n


@njit(nogil=True)
def _find_slot(tree, node, token):
    """Return the slot of a child in the table, or the empty slot where it belongs, and its key."""
    key, mask = (np.uint64(node) << np.uint64(32)) | np.uint64(token), np.uint64(len(tree.keys) - 1)
    slot = key * np.uint64(0x9E3779B97F4A7C15)
    slot = (slot ^ (slot >> np.uint64(32))) & mask
    while tree.children[slot] >= 0 and tree.keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot, key


@njit(nogil=True)
def _add(tree, node, at, text, stop):
    """Follow the tokens text[text:stop] from a position of a node on; add a node for the rest. Return the position."""
    while text < stop:
        if at < tree.end[node]:
            known, most = tree.text[node] + at - tree.start[node], min(tree.end[node] - at, stop - text)
            equal = _count_equal(tree, known, text, most)
            at, text = at + equal, text + equal
            if at == tree.end[node] or text == stop:
                continue
            node = _cut(tree, node, at)
        slot, key = _find_slot(tree, node, _read(tree, text))
        if tree.children[slot] < 0:
            new = tree.count[0]
            tree.count[0] += 1
            tree.keys[slot], tree.children[slot] = key, new
            tree.parent[new], tree.start[new], tree.end[new], tree.text[new] = node, at, at + stop - text, text
            return new, at + stop - text
        node = tree.children[slot]
    return node, at


@njit(nogil=True)
def _cut(tree, node, at):
    """Cut a node so that one ends at a position; return that one. The lower part stays `node`, so its rows keep it."""
    if at == tree.end[node]:
        return node
    upper, above, first, text = tree.count[0], tree.parent[node], tree.start[node], tree.text[node]
    tree.count[0] += 1
    tree.parent[upper], tree.start[upper], tree.end[upper], tree.text[upper] = above, first, at, text
    tree.parent[node], tree.start[node], tree.text[node] = upper, at, text + at - first
    slot, _ = _find_slot(tree, above, _read(tree, text))
    tree.children[slot] = upper
    slot, key = _find_slot(tree, upper, _read(tree, text + at - first))
    tree.keys[slot], tree.children[slot] = key, node
    return upper


@njit(cache=True, nogil=True)
def _list_paths(parent, last):
    """Return the nodes of each row's path, from below the root on, and where each row's begin."""
    offsets = np.zeros(len(last) + 1, np.int64)
    for row in range(len(last)):
        node, offsets[row + 1] = last[row], offsets[row]
        while node:
            offsets[row + 1] += 1
            node = parent[node]
    nodes = np.empty(offsets[-1], np.int32)
    for row in range(len(last)):
        node, k = last[row], offsets[row + 1]
        while node:
            k -= 1
            nodes[k] = node
            node = parent[node]
    return nodes, offsets
