"""The whole LRU curve in one pass, and rates at every capacity.

A block's *stack distance* is how many distinct blocks were accessed since its own last access, itself included: an LRU
cache of that many blocks, or more, hits it (Mattson et al., 1970). Other policies are replayed, see `replay`.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from kvprefix.blocks.prefix_trace import PrefixTrace
from kvprefix.files.checks import check_share, check_type
from kvprefix.files.shown import Shown, show_rate


def measure_distances(accesses):
    """Measure every access's LRU stack distance, in tree order.

    Within a request the root is the most recent and the tail the oldest; a request looks all its blocks up before any
    is updated. So a block is never more recent than its parent, and a request's hits at any capacity are a leading run.

    Parameters
    ----------
    accesses : PrefixTrace

    Returns
    -------
    (total,) ndarray of int32
        Distinct blocks, 1 or more, for each access; 0 if the block was never accessed before.

    Notes
    -----
    The blocks of an earlier request that were not accessed since are a stretch of its path that ends at its tail. So a
    Fenwick tree over *requests* (not accesses) suffices: one query and one update per stretch.

    Examples
    --------
    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> measure_distances(make_prefix_trace(make_trace_of([[1, 2], [1, 3], [1, 2]]), 1))
    array([0, 0, 1, 0, 1, 3], dtype=int32)
    """
    return _measure(accesses.ids, accesses.offsets, accesses.n_distinct)


@njit(cache=True, nogil=True)
def _measure(ids, offsets, n_distinct):
    n = len(offsets) - 1
    tree = np.zeros(n + 1, np.int64)  # Fenwick: blocks by the request that accessed them last
    last, left_from = np.full(n_distinct, -1, np.int32), np.zeros(n, np.int32)
    distances = np.zeros(len(ids), np.int32)
    distinct = 0
    for i in range(n):
        start, stop = offsets[i], offsets[i + 1]
        k = start
        while k < stop and last[ids[k]] >= 0:
            request = last[ids[k]]
            at, as_old = request + 1, 0
            while at > 0:
                as_old += tree[at]
                at -= at & -at
            more_recent, first = distinct - as_old, k
            while k < stop and last[ids[k]] == request:
                distances[k] = more_recent + (k - start) - left_from[request] + 1
                last[ids[k]] = i
                k += 1
            left_from[request] += k - first
            at = request + 1
            while at <= n:
                tree[at] -= k - first
                at += at & -at
        distinct += stop - k
        while k < stop:
            last[ids[k]] = i
            k += 1
        at = i + 1
        while at <= n:
            tree[at] += stop - start
            at += at & -at
    return distances


@dataclass(frozen=True, repr=False)
class Curve(Shown):
    """Hit rates at every capacity from 0 blocks up; the last value holds for every larger one.

    Attributes
    ----------
    block : (n,) ndarray of float64
        Hit blocks over block accesses. A full block that ends its prompt counts, though an engine computes its last
        token again: without a bound this is the block reuse rate.
    token : (n,) ndarray of float64
        Tokens of hit blocks over prompt tokens.
    request_mean : (n,) ndarray of float64
        Mean over requests of each one's tokens of hit blocks over its prompt tokens.
    block_size : int, optional
        Tokens per block.
    warmup : float
        The share of the requests that only filled the cache.
    """

    block: np.ndarray
    token: np.ndarray
    request_mean: np.ndarray
    block_size: int | None = None
    warmup: float = 0.0

    def describe(self):
        """Return the ceiling and the capacities that reach most of it."""
        rates = {"token": "by prompt token", "block": "by block access", "request_mean": "mean over requests"}
        ceilings = ", ".join(f"{show_rate(getattr(self, name)[-1])} {label}" for name, label in rates.items())
        enough = ", ".join(f"{self.capacity_for(share):,} for {100 * share:.0f} % of it" for share in (0.5, 0.9, 1.0))
        size = f" of {self.block_size} tokens" if self.block_size else ""
        return {
            "what": "LRU hit rate at every capacity",
            "without a bound": ceilings,
            "blocks": f"{enough} (by token; blocks{size})",
            "counted": describe_warmup(self.warmup),
        }

    def to_frame(self, points=200):
        """Return a row per capacity: `capacity_blocks` (spread by ratio), `block`, `token`, `request_mean`."""
        import pandas as pd

        most = max(len(self.block) - 1, 1)
        capacities = np.unique(np.geomspace(1, most, points).round().astype(np.int64))
        return pd.DataFrame({"capacity_blocks": capacities, **self.at(capacities)})

    def at(self, capacities):
        """Return {"block": ..., "token": ..., "request_mean": ...} at the given capacities in blocks."""
        index = np.minimum(np.asarray(capacities), len(self.block) - 1)
        return {name: getattr(self, name)[index] for name in ("block", "token", "request_mean")}

    def capacity_for(self, share, weighting="token"):
        """Return the fewest blocks that reach a share of the ceiling; 0 if nothing is ever hit."""
        rates = getattr(self, weighting)
        return int(np.searchsorted(rates, share * rates[-1] * (1 - 1e-12)))

    def tiers(self, sizes, weighting="token"):
        """Return the hit rate of each tier of an exclusive hierarchy of LRU caches, and of what is in none.

        An accessed block moves to the first tier and pushes others down: the tiers together are one LRU stack, cut at
        sizes[0], sizes[0] + sizes[1], ...

        Parameters
        ----------
        sizes : sequence of int
            Blocks of each tier, the fastest first.

        Returns
        -------
        (len(sizes) + 1,) ndarray of float64
            The rates add to the ceiling; the last is what a larger hierarchy would still hit.
        """
        rates = self.at(np.cumsum(np.asarray(sizes, np.int64)))[weighting]
        return np.diff(np.concatenate(([0.0], rates, [getattr(self, weighting)[-1]])))


def lru_curve(accesses, distances=None, *, warmup=0.0):
    """Compute the hit rate of an LRU cache at every capacity, in one pass.

    Parameters
    ----------
    accesses : PrefixTrace
    distances : ndarray, optional
        Of `measure_distances`; measured if not given.
    warmup : float
        The share of the requests that fill the cache before any is counted, in [0, 1): 0 a cold start, 0.5 the last
        half.

    Returns
    -------
    Curve
    """
    check_type(accesses, PrefixTrace, "trace")
    distances = measure_distances(accesses) if distances is None else distances
    start = first_counted(accesses, warmup)
    size = int(distances.max(initial=0)) + 1
    block, token, share = _weigh(
        distances, accesses.offsets, accesses.last_weight, accesses.prompt_tokens, accesses.block_size, start, size
    )
    rates = _rates(accesses, start, np.cumsum(block), np.cumsum(token), np.cumsum(share))
    return Curve(**rates, block_size=accesses.block_size, warmup=warmup)


@njit(cache=True, nogil=True)
def _weigh(distances, offsets, last_weight, prompt_tokens, block_size, start, size):
    block, token, share = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size)
    for i in range(start, len(prompt_tokens)):
        for k in range(offsets[i], offsets[i + 1]):
            if distances[k] == 0:
                break
            weight = last_weight[i] if k == offsets[i + 1] - 1 else block_size
            block[distances[k]] += 1
            token[distances[k]] += weight
            share[distances[k]] += weight / prompt_tokens[i]
    return block, token, share


def describe_warmup(warmup):
    """Say which requests count.

    >>> describe_warmup(0.5)
    'the last 50 % of the requests'
    """
    return f"the last {100 * (1 - warmup):.0f} % of the requests" if warmup else "all requests, from an empty cache on"


def first_counted(accesses, warmup):
    """Return the position of the first request that counts after a warm-up of a share of the requests."""
    check_share(warmup, "warmup", "a share of the requests, 0 or more and below 1")
    return int(len(accesses) * warmup)


def rate_hits(accesses, hit_blocks, *, warmup=0.0):
    """Rate a replay's hits.

    Parameters
    ----------
    accesses : PrefixTrace
    hit_blocks : (n_requests,) ndarray of int64
        As `cache.replay` returns them.
    warmup : float

    Returns
    -------
    dict
        `block`, `token`, `request_mean`, as in `Curve`; 0 if there is nothing to hit.
    """
    start = first_counted(accesses, warmup)
    tokens = accesses.hit_tokens(hit_blocks)
    shares = tokens / np.maximum(accesses.prompt_tokens, 1)
    return {
        name: float(value)
        for name, value in _rates(
            accesses, start, hit_blocks[start:].sum(), tokens[start:].sum(), shares[start:].sum()
        ).items()
    }


def rate_unbounded(accesses, *, warmup=0.0):
    """Rate a cache that never evicts: the ceiling of every policy and capacity."""
    return rate_hits(accesses, count_seen(accesses.ids, accesses.offsets), warmup=warmup)


@njit(cache=True, nogil=True)
def count_seen(ids, offsets):
    """Return each request's leading blocks that an earlier request accessed; ids are numbered as first seen."""
    hits, seen = np.zeros(len(offsets) - 1, np.int64), 0
    for i in range(len(hits)):
        for k in range(offsets[i], offsets[i + 1]):
            if ids[k] >= seen:
                break
            hits[i] += 1
        if offsets[i + 1] > offsets[i]:
            seen = max(seen, ids[offsets[i + 1] - 1] + 1)
    return hits


def _rates(accesses, start, block, token, share):
    accessed = accesses.offsets[-1] - accesses.offsets[start]
    return make_rates(accesses.prompt_tokens[start:], accessed, block, token, share)


def make_rates(prompt_tokens, accessed, block, token, share):
    """Return hit blocks over accessed ones, hit tokens over all, and the mean over requests of hit shares, by name."""
    counted = np.count_nonzero(prompt_tokens)
    return {
        "block": block / max(accessed, 1),
        "token": token / max(prompt_tokens.sum(), 1),
        "request_mean": share / max(counted, 1),
    }


def count_hits_at(accesses, distances, capacities):
    """Return each request's hit blocks under LRU at several capacities, (n_requests, n_capacities) int64."""
    capacities = np.asarray(capacities, np.int64)
    order = np.argsort(capacities, kind="stable")
    hits = _count_at(distances, accesses.offsets, capacities[order])
    return hits[:, np.argsort(order, kind="stable")]


@njit(cache=True, nogil=True)
def _count_at(distances, offsets, capacities):
    hits = np.zeros((len(offsets) - 1, len(capacities)), np.int64)
    for i in range(len(hits)):
        run = 0
        for c in range(len(capacities)):
            while offsets[i] + run < offsets[i + 1]:
                distance = distances[offsets[i] + run]
                if distance == 0 or distance > capacities[c]:
                    break
                run += 1
            hits[i, c] = run
    return hits
