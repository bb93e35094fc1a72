"""Count what an unbounded cache would share: hits per request, accesses per block, gaps between accesses.

It knows no eviction and no engine; a block stays cached from its first access on.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from kvprefix.blocks.identify import Blocks, identify_blocks
from kvprefix.files.checks import check_type
from kvprefix.files.shown import Shown, show_rate
from kvprefix.traces.trace import Trace


@dataclass(frozen=True, repr=False)
class Sharing(Shown):
    """What a cache without a bound would share of a trace's prompts, at one block size.

    Attributes
    ----------
    blocks : Blocks
    prompt_tokens : (n_requests,) ndarray of int64
    hit_blocks : (n_requests,) ndarray of int64
        Leading run of cached blocks, at most floor((L - 1) / B) for a prompt of L tokens and blocks of B: an engine
        computes at least the last token.
    accesses : (n_distinct,) ndarray of int64
        Number of accesses of each block, the first included.
    first_access_s, last_access_s : (n_distinct,) ndarray of float64
        Seconds.
    gap_s : (accesses - distinct,) ndarray of float64
        Reuse gaps: seconds between consecutive accesses of one block, in the order of the later access.
    gap_new_blocks : (accesses - distinct,) ndarray of int64
        Distinct blocks stored for the first time between those accesses: the block survives only in a cache with room
        for at least this many others.
    request_gaps : (n_requests,) ndarray of int64
        Number of gaps that end at each request.
    """

    blocks: Blocks
    prompt_tokens: np.ndarray
    hit_blocks: np.ndarray
    accesses: np.ndarray
    first_access_s: np.ndarray
    last_access_s: np.ndarray
    gap_s: np.ndarray
    gap_new_blocks: np.ndarray
    request_gaps: np.ndarray

    label = "unbounded"

    def __len__(self):
        return len(self.prompt_tokens)

    @property
    def hit_tokens(self):
        """Cached tokens of each request: block size times hit blocks, (n_requests,) int64."""
        return self.hit_blocks * self.blocks.block_size

    @property
    def sharing_fraction(self):
        """Cached tokens over prompt tokens of each request, in [0, 1); 0 for an empty prompt."""
        return self.hit_tokens / np.maximum(self.prompt_tokens, 1)

    @property
    def token_hit_rate(self):
        """Sum of cached tokens over sum of prompt tokens, from an empty cache on; None without tokens."""
        return _ratio(self.hit_tokens.sum(), self.prompt_tokens.sum())

    @property
    def block_reuse_rate(self):
        """(N - U) / N for N block accesses of U distinct blocks; None without blocks."""
        total = self.accesses.sum()
        return _ratio(total - len(self.accesses), total)

    @property
    def blocks_reused_fraction(self):
        """Distinct blocks accessed twice or more over all distinct blocks; None without blocks."""
        return _ratio((self.accesses > 1).sum(), len(self.accesses))

    def describe(self):
        """Return the rates in words, and how they were counted."""
        cached, tokens = self.hit_tokens.sum(), self.prompt_tokens.sum()
        mean = self.sharing_fraction.mean() if len(self) else None
        return {
            "what": f"Prefix sharing in a cache without a bound, blocks of {self.blocks.block_size} tokens",
            "requests": f"{len(self):,}",
            "token hit rate": f"{show_rate(self.token_hit_rate)} ({cached:,} of {tokens:,} prompt tokens)",
            "mean sharing fraction": f"{show_rate(mean)} (each request counts once)",
            "block reuse rate": f"{show_rate(self.block_reuse_rate)} (of {self.accesses.sum():,} block accesses)",
            "counted": "all requests, from an empty cache on; prompts only; a prompt's last token is always computed",
        }

    def to_frame(self):
        """Return a DataFrame with one row per request: `prompt_tokens`, `hit_tokens`, `sharing_fraction`."""
        import pandas as pd

        names = ("prompt_tokens", "hit_tokens", "sharing_fraction")
        return pd.DataFrame({name: getattr(self, name) for name in names})

    @property
    def gap_weights(self):
        """Weights of `gap_s` by which each request counts once, however many blocks it reuses; float64 of its shape."""
        return np.repeat(1.0 / np.maximum(self.request_gaps, 1), self.request_gaps)


def _ratio(part, whole):
    return float(part / whole) if whole else None


def share(trace, block_size):
    """Count what an unbounded cache of prompt blocks would share of a trace.

    Parameters
    ----------
    trace : Trace
    block_size : int
        Tokens per block.

    Returns
    -------
    Sharing

    Examples
    --------
    Three prompts of two blocks; the second shares its first block with the first.

    >>> from kvprefix.traces.trace import make_trace_of
    >>> share(make_trace_of([[1, 2, 3, 4], [1, 2, 5, 6], [8, 9, 3, 4]]), 2).hit_blocks
    array([0, 1, 0])
    """
    check_type(trace, Trace, "trace")
    blocks = identify_blocks(trace, block_size)
    prompt_tokens = trace.requests["prompt_tokens"].to_numpy()
    counted = _count_accesses(blocks.ids, blocks.offsets, trace.arrival_s, blocks.n_distinct)
    return Sharing(blocks, prompt_tokens, count_hits(blocks, prompt_tokens), *counted)


def count_history_hits(trace, sharing):
    """Return how many of each request's hit blocks come from its own conversation, (n_requests,) int64.

    These blocks lie within the tokens that its prompt shares with the previous turn's; the other hits come from other
    conversations. 0 for a first turn.
    """
    return np.minimum(trace.tokens.shared[trace.rows] // sharing.blocks.block_size, sharing.hit_blocks)


def measure_hits_with_outputs(trace, block_size):
    """Return the hit blocks of each request if generated tokens are cached too, (n_requests,) int64.

    A request's generated blocks count as cached from its arrival on. That is earlier than in an engine, but its own
    next turn sees no difference: under a causal clock it comes after the reply.
    """
    blocks = identify_blocks(trace, block_size, outputs=True)
    return count_hits(blocks, trace.requests["prompt_tokens"].to_numpy())


def count_hits(blocks, prompt_tokens):
    """Count each request's leading run of blocks seen in earlier requests, at most floor((L - 1) / B), (n,) int64."""
    limits = np.maximum(prompt_tokens - 1, 0) // blocks.block_size
    return _leading_runs(blocks.ids, blocks.offsets, limits)


@njit(cache=True, nogil=True)
def _leading_runs(ids, offsets, limits):
    """Ids are numbered as first seen, so a block was seen before if its id is below the count before the request."""
    hits = np.zeros(len(limits), np.int64)
    seen = 0
    for i in range(len(limits)):
        run = 0
        while run < limits[i] and ids[offsets[i] + run] < seen:
            run += 1
        hits[i] = run
        for k in range(offsets[i], offsets[i + 1]):
            seen = max(seen, ids[k] + 1)
    return hits


@njit(cache=True, nogil=True)
def _count_accesses(ids, offsets, arrival_s, n_distinct):
    accesses = np.zeros(n_distinct, np.int64)
    first, last = np.empty(n_distinct), np.empty(n_distinct)
    seen_at_last = np.empty(n_distinct, np.int64)
    gaps, new_blocks = np.empty(len(ids) - n_distinct), np.empty(len(ids) - n_distinct, np.int64)
    request_gaps = np.zeros(len(arrival_s), np.int64)
    count, seen = 0, 0
    for i in range(len(arrival_s)):
        seen_before = seen
        for k in range(offsets[i], offsets[i + 1]):
            seen = max(seen, ids[k] + 1)
        for k in range(offsets[i], offsets[i + 1]):
            block = ids[k]
            if accesses[block]:
                gaps[count] = arrival_s[i] - last[block]
                new_blocks[count] = seen_before - seen_at_last[block]
                count += 1
                request_gaps[i] += 1
            else:
                first[block] = arrival_s[i]
            last[block], seen_at_last[block] = arrival_s[i], seen
            accesses[block] += 1
    return accesses, first, last, gaps, new_blocks, request_gaps
