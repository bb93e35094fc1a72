"""The block accesses of a trace by stretches: the blocks of a prefix tree's node, which the same requests access.

A trace has about ten times fewer stretches than block accesses, and as many at any block size. What depends on nothing
but the order of accesses, LRU above all, is measured by stretches; other replays need a PrefixTrace, block by block.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.prefix_trace import PrefixTrace, finish_times
from kvprefix.blocks.prefix_tree import make_prefix_tree
from kvprefix.tokens.arrays import MessageTokens, check_parents, strip_template


class Paths(NamedTuple):
    """The stretches of each request, from the root on.

    Attributes
    ----------
    nodes : (total,) ndarray of int32
        Stretches, request after request, numbered as first seen; each has a block or more.
    ends : (total,) ndarray of int32
        The number of blocks up to each stretch's end.
    offsets : (n_requests + 1,) ndarray of int64
        Request i's stretches are ``nodes[offsets[i]:offsets[i + 1]]``.
    n_nodes, n_distinct : int
        Distinct stretches, and the distinct blocks of all of them.
    """

    nodes: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    n_nodes: int
    n_distinct: int


@dataclass(frozen=True, kw_only=True)
class StretchTrace:
    """The block accesses of a trace's requests, in arrival order, by stretches.

    Attributes
    ----------
    block_size : int
        Tokens per block.
    paths : Paths
    offsets : (n_requests + 1,) ndarray of int64
        Where each request's blocks start among all accesses.
    info : dict
        What made the trace.
    last_weight, prompt_tokens, arrival_s, finish_s, conversation : (n_requests,) ndarrays
        As in `PrefixTrace`.
    """

    block_size: int
    paths: Paths
    offsets: np.ndarray
    info: dict
    last_weight: np.ndarray
    prompt_tokens: np.ndarray
    arrival_s: np.ndarray
    finish_s: np.ndarray
    conversation: np.ndarray

    def __len__(self):
        return len(self.prompt_tokens)

    n_distinct = property(lambda self: self.paths.n_distinct)
    blocks, hit_tokens = PrefixTrace.blocks, PrefixTrace.hit_tokens

    @property
    def prompt_blocks(self):
        """Blocks of each prompt alone, (n_requests,) int64: full ones, and a partial last one that a trace lists."""
        partial = (self.last_weight > 0) & (self.last_weight < self.block_size)
        return np.minimum(self.blocks, self.prompt_tokens // self.block_size + partial)

    def list_blocks(self):
        """Return the same accesses block by block, as a PrefixTrace."""
        ids, parent, depth = _list_blocks(self.paths, self.offsets)
        shared = {name: value for name, value in vars(self).items() if name != "paths"}
        return PrefixTrace(ids=ids, parent=parent, depth=depth, **shared)


def list_paths(accesses):
    """Return the Paths of a StretchTrace, or those of a PrefixTrace: each of its blocks is a stretch of its own."""
    if isinstance(accesses, StretchTrace):
        return accesses.paths
    n = accesses.n_distinct
    return Paths(accesses.ids, accesses.depth[accesses.ids] + np.int32(1), accesses.offsets, n, n)


def cut_trace(tree, trace, block_size):
    """Cut a trace's paths through the prefix tree of its tokens into blocks.

    Parameters
    ----------
    tree : PrefixTree
        Of ``trace.tokens``; with outputs, if a request is to access the blocks of its reply too.
    trace : Trace
    block_size : int
        Tokens per block.

    Returns
    -------
    StretchTrace
    """
    paths = cut_paths(tree, trace.rows, block_size, trace.contexts)
    prompt_tokens = trace.column("prompt_tokens")
    return StretchTrace(
        block_size=block_size, paths=paths, offsets=_count_blocks(paths.ends, paths.offsets), info=trace.info,
        last_weight=np.where(prompt_tokens % block_size, block_size, 0), prompt_tokens=prompt_tokens,
        arrival_s=trace.arrival_s, finish_s=finish_times(trace),
        conversation=trace.column("conversation_index"),
    )  # fmt: skip


def find_paths(trace, block_size, *, outputs=False):
    """Return the Paths of a trace's requests; with `outputs` they go on through the replies, see `make_prefix_tree`."""
    tokens = trace.tokens
    check_parents(tokens)
    tokens = strip_template(tokens.source) if isinstance(tokens, MessageTokens) else tokens
    return cut_paths(make_prefix_tree(tokens, outputs=outputs), trace.rows, block_size, trace.contexts)


def cut_paths(tree, rows, block_size, contexts=None):
    """Cut the paths of some rows of a prefix tree into blocks.

    Parameters
    ----------
    tree : PrefixTree
    rows : (n_requests,) ndarray of int64
    block_size : int
        Tokens per block.
    contexts : (n_requests,) ndarray of int64, optional
        Requests of different contexts have different stretches.

    Returns
    -------
    Paths
    """
    paths = Paths(*_cut(tree, rows, block_size))
    if contexts is None:
        return paths
    keys = paths.nodes + paths.n_nodes * np.repeat(contexts, np.diff(paths.offsets))
    _, first, nodes = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    paths = paths._replace(nodes=rank[nodes].astype(np.int32), n_nodes=len(first))
    return paths._replace(n_distinct=int(describe_stretches(paths).lengths.sum()))


class Stretches(NamedTuple):
    """The distinct stretches of some Paths, (n_nodes,) ndarrays of int32.

    Attributes
    ----------
    parent : ndarray
        The stretch before each, -1 for one at the root.
    start, end : ndarray
        The depths of its blocks, [start, end).
    """

    parent: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @property
    def lengths(self):
        """Blocks of each stretch."""
        return self.end - self.start


def describe_stretches(paths):
    """Return the Stretches of some Paths."""
    return Stretches(*_describe(paths))


@njit(cache=True, nogil=True)
def _describe(paths):
    n = paths.n_nodes
    parent, start, end = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    for i in range(len(paths.offsets) - 1):
        last, at = -1, 0
        for k in range(paths.offsets[i], paths.offsets[i + 1]):
            node = paths.nodes[k]
            parent[node], start[node], end[node] = last, at, paths.ends[k]
            last, at = node, paths.ends[k]
    return parent, start, end


def count_leading(paths, limits):
    """Count each request's leading blocks that an earlier request accessed, at most `limits`, (n_requests,) int64."""
    return _count_leading(paths, limits)


@njit(cache=True, nogil=True)
def _count_leading(paths, limits):
    """Stretches are numbered as first seen, so one was seen before if its number is below the count before."""
    hits, seen = np.zeros(len(limits), np.int64), 0
    for i in range(len(limits)):
        k, stop, before = paths.offsets[i], paths.offsets[i + 1], seen
        while k < stop and paths.nodes[k] < before:
            hits[i] = min(paths.ends[k], limits[i])
            k += 1
        while k < stop:
            seen = max(seen, paths.nodes[k] + 1)
            k += 1
    return hits


@njit(cache=True, nogil=True)
def _cut(tree, rows, block_size):
    """Number the nodes that end a block, in the order of the requests."""
    total = 0
    for row in rows:
        total += tree.offsets[row + 1] - tree.offsets[row]
    number = np.full(len(tree.start), -1, np.int32)
    nodes, ends, offsets = np.empty(total, np.int32), np.empty(total, np.int32), np.zeros(len(rows) + 1, np.int64)
    n, n_nodes, n_distinct = 0, 0, 0
    for i in range(len(rows)):
        before = 0
        for k in range(tree.offsets[rows[i]], tree.offsets[rows[i] + 1]):
            node = tree.nodes[k]
            end = tree.end[node] // block_size
            if end == before:
                continue
            if number[node] < 0:
                number[node] = n_nodes
                n_nodes += 1
                n_distinct += end - before
            nodes[n], ends[n] = number[node], end
            n, before = n + 1, end
        offsets[i + 1] = n
    return nodes[:n].copy(), ends[:n].copy(), offsets, n_nodes, n_distinct


@njit(cache=True, nogil=True)
def _count_blocks(ends, offsets):
    blocks = np.zeros(len(offsets), np.int64)
    for i in range(len(offsets) - 1):
        blocks[i + 1] = blocks[i] + (ends[offsets[i + 1] - 1] if offsets[i + 1] > offsets[i] else 0)
    return blocks


@njit(cache=True, nogil=True)
def _list_blocks(paths, offsets):
    """Number the blocks of each stretch when it is first seen."""
    first = np.full(paths.n_nodes, -1, np.int32)
    ids = np.empty(offsets[-1], np.int32)
    parent, depth = np.empty(paths.n_distinct, np.int32), np.empty(paths.n_distinct, np.int32)
    count = 0
    for i in range(len(offsets) - 1):
        at, last = 0, -1
        for k in range(paths.offsets[i], paths.offsets[i + 1]):
            node, end = paths.nodes[k], paths.ends[k]
            if first[node] < 0:
                first[node] = count
                for place in range(at, end):
                    parent[count], depth[count] = last if place == at else count - 1, place
                    count += 1
            start = first[node] - at
            for place in range(at, end):
                ids[offsets[i] + place] = start + place
            at, last = end, start + end - 1
    return ids, parent, depth
