"""LRU at every capacity from stretches of blocks: what `curve` measures block by block, with a tenth of the steps.

All blocks of a stretch have the same history, and the stack distance grows by one from each to the next. So one number
per stretch says it all: its *depth of recency*, the stack distance of a block less the block's 1-based depth.
"""

import numpy as np
from numba import njit

from kvprefix.cache.curve import Curve, make_rates

NEVER = np.iinfo(np.int32).max  # of stretches that were never accessed before


def measure_recency(trace):
    """Measure how recent each accessed stretch is, in tree order as `curve.measure_distances`.

    Parameters
    ----------
    trace : StretchTrace

    Returns
    -------
    (total,) ndarray of int32
        For each of the trace's stretches the stack distance of its blocks, less their 1-based depth; NEVER if none.
    """
    return _measure(trace.paths)


@njit(cache=True, nogil=True)
def _measure(paths):
    """Sum up blocks by the request that accessed them last, in a Fenwick tree over requests."""
    nodes, ends, offsets = paths.nodes, paths.ends, paths.offsets
    n = len(offsets) - 1
    tree, left_from = np.zeros(n + 1, np.int32), np.zeros(n, np.int32)
    last, recency = np.full(paths.n_nodes, -1, np.int32), np.empty(len(nodes), np.int32)
    distinct = 0
    for i in range(n):
        k, stop, start = offsets[i], offsets[i + 1], 0
        while k < stop and last[nodes[k]] >= 0:
            request = last[nodes[k]]
            at, as_old = request + 1, 0
            while at > 0:
                as_old += tree[at]
                at &= at - 1
            before, first = distinct - as_old - left_from[request], start
            while k < stop and last[nodes[k]] == request:
                recency[k], last[nodes[k]], start = before, i, ends[k]
                k += 1
            left_from[request] += start - first
            at = request + 1
            while at <= n:
                tree[at] -= start - first
                at += at & -at
        while k < stop:
            recency[k], last[nodes[k]] = NEVER, i
            distinct += ends[k] - start
            start = ends[k]
            k += 1
        at = i + 1
        while at <= n:
            tree[at] += start
            at += at & -at
    return recency


def count_hits(trace, recency, capacities):
    """Return each request's hit blocks under LRU at several capacities, (n_requests, n_capacities) int64."""
    capacities = np.asarray(capacities, np.int64)
    order = np.argsort(capacities, kind="stable")
    hits = _count_at(trace.paths, recency, capacities[order])
    return hits[:, np.argsort(order, kind="stable")]


@njit(cache=True, nogil=True)
def _count_at(paths, recency, capacities):
    hits = np.zeros((len(paths.offsets) - 1, len(capacities)), np.int64)
    for i in range(len(hits)):
        k, stop, run = paths.offsets[i], paths.offsets[i + 1], 0
        for c in range(len(capacities)):
            while k < stop and recency[k] != NEVER and capacities[c] - recency[k] >= paths.ends[k]:
                run = paths.ends[k]
                k += 1
            if k < stop and recency[k] != NEVER:
                run = max(run, capacities[c] - recency[k])
            hits[i, c] = run
    return hits


def count_seen(trace, recency):
    """Return each request's leading blocks that an earlier request accessed, (n_requests,) int64."""
    return _count_seen(trace.paths, recency)


@njit(cache=True, nogil=True)
def _count_seen(paths, recency):
    hits = np.zeros(len(paths.offsets) - 1, np.int64)
    for i in range(len(hits)):
        for k in range(paths.offsets[i], paths.offsets[i + 1]):
            if recency[k] == NEVER:
                break
            hits[i] = paths.ends[k]
    return hits


def lru_curve(trace, recency):
    """Compute the hit rate of an LRU cache at every capacity, as `curve.lru_curve`.

    If requests access blocks of replies too, only those of their prompts count.

    Returns
    -------
    Curve
    """
    blocks = trace.prompt_blocks
    size = _find_largest(trace.paths, recency, blocks) + 1
    sums = _weigh(trace.paths, recency, blocks, trace.last_weight, trace.prompt_tokens, trace.block_size, size)
    return Curve(**make_rates(trace.prompt_tokens, blocks.sum(), *map(np.cumsum, sums)), block_size=trace.block_size)


@njit(cache=True, nogil=True)
def _find_largest(paths, recency, blocks):
    """Return the largest stack distance of a prompt's block."""
    largest = 0
    for i in range(len(blocks)):
        k, stop, start = paths.offsets[i], paths.offsets[i + 1], 0
        while k < stop and recency[k] != NEVER and start < blocks[i]:
            largest, start = max(largest, recency[k] + min(paths.ends[k], blocks[i])), paths.ends[k]
            k += 1
    return largest


@njit(cache=True, nogil=True)
def _weigh(paths, recency, blocks, last_weight, prompt_tokens, block_size, size):
    """Return what is hit at each stack distance: blocks, tokens, and shares of a prompt."""
    block, token, share = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size)
    for i in range(len(blocks)):
        k, stop, start = paths.offsets[i], paths.offsets[i + 1], 0
        while k < stop and recency[k] != NEVER and start < blocks[i]:
            end = min(paths.ends[k], blocks[i])
            first, last, part = recency[k] + start + 1, recency[k] + end, block_size / prompt_tokens[i]
            for distance in range(first, last):
                block[distance] += 1
                token[distance] += block_size
                share[distance] += part
            weight = last_weight[i] if end == blocks[i] else block_size
            block[last] += 1
            token[last] += weight
            share[last] += weight / prompt_tokens[i]
            start = paths.ends[k]
            k += 1
    return block, token, share
