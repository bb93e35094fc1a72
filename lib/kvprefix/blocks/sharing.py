"""Count what an unbounded cache would share: hits per request, accesses per block, gaps between accesses.

It knows no eviction and no engine; a block stays cached from its first access on.
"""

import functools
from dataclasses import dataclass

import numpy as np

from kvprefix.blocks.identify import identify_blocks
from kvprefix.blocks.reuse import Reuse, find_reuse, reuse_of
from kvprefix.blocks.runs import BlockRuns, GapRuns, TimedRuns, find_block_runs, find_gap_runs
from kvprefix.files.checks import check_type
from kvprefix.files.shown import Shown, show_rate
from kvprefix.traces.trace import Trace


@dataclass(frozen=True, repr=False)
class Sharing(Shown):
    """What a cache without a bound would share of a trace's prompts, at one block size.

    It holds a few numbers per request. Arrays with a number per block or per reuse are made when they are asked for.

    Attributes
    ----------
    trace : Trace
    block_size : int
        Tokens.
    reuse : Reuse
        What each request takes from earlier ones.
    prompt_tokens : (n_requests,) ndarray of int64
    hit_blocks : (n_requests,) ndarray of int64
        Leading run of cached blocks, at most floor((L - 1) / B) for a prompt of L tokens and blocks of B: an engine
        computes at least the last token.
    block_runs : BlockRuns
        All blocks, in the order of their first access.
    gap_runs : GapRuns
        All reuses, in the order of the later access.
    """

    trace: Trace
    block_size: int
    reuse: Reuse
    prompt_tokens: np.ndarray
    hit_blocks: np.ndarray
    block_runs: BlockRuns
    gap_runs: GapRuns

    label = "unbounded"

    def __len__(self):
        return len(self.prompt_tokens)

    @functools.cached_property
    def blocks(self):
        """The Blocks of every request, identified when first asked for."""
        return identify_blocks(self.trace, self.block_size)

    @property
    def prompt_blocks(self):
        """Full prompt blocks of each request, (n_requests,) int64."""
        return self.reuse.blocks

    @property
    def n_accesses(self):
        """Number of block accesses."""
        return int(self.reuse.blocks.sum())

    @property
    def n_distinct(self):
        """Number of distinct blocks."""
        return self.n_accesses - int(self.reuse.reused.sum())

    @property
    def request_gaps(self):
        """Number of gaps that end at each request, (n_requests,) int64."""
        return self.reuse.reused

    def time_block_runs(self, start=0, stop=None):
        """Return the TimedRuns of some of `block_runs`: all, or those from `start` to `stop`."""
        runs = BlockRuns(*(field[start:stop] for field in self.block_runs))
        times = self.trace.arrival_s[runs.first], self.trace.arrival_s[runs.last]
        return TimedRuns(int(self.block_runs.lengths[:start].sum()), *runs[:3], *times)

    @property
    def accesses(self):
        """Number of accesses of each block, the first included, (n_distinct,) int64."""
        return np.repeat(self.block_runs.accesses, self.block_runs.lengths)

    @property
    def first_access_s(self):
        """Time of each block's first access, in seconds, (n_distinct,) float64."""
        return np.repeat(self.trace.arrival_s[self.block_runs.first], self.block_runs.lengths)

    @property
    def last_access_s(self):
        """Time of each block's last access, in seconds, (n_distinct,) float64."""
        return np.repeat(self.trace.arrival_s[self.block_runs.last], self.block_runs.lengths)

    @property
    def run_gap_s(self):
        """The gap of each run of `gap_runs`, in seconds, (n_runs,) float64."""
        return self.trace.arrival_s[self.gap_runs.request] - self.trace.arrival_s[self.gap_runs.last]

    @property
    def gap_s(self):
        """Reuse gaps: seconds between consecutive accesses of one block, (accesses - distinct,) float64.

        In the order of the later access.
        """
        return np.repeat(self.run_gap_s, self.gap_runs.lengths)

    @property
    def gap_new_blocks(self):
        """Distinct blocks stored for the first time between those accesses, of the shape of `gap_s`, int64.

        The block survives only in a cache with room for at least this many others.
        """
        stored, runs = self.reuse.stored, self.gap_runs
        return np.repeat(stored[runs.request] - stored[runs.last + 1], runs.lengths)

    @property
    def hit_tokens(self):
        """Cached tokens of each request: block size times hit blocks, (n_requests,) int64."""
        return self.hit_blocks * self.block_size

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
        return _ratio(self.reuse.reused.sum(), self.n_accesses)

    @property
    def blocks_reused_fraction(self):
        """Distinct blocks accessed twice or more over all distinct blocks; None without blocks."""
        return _ratio(self.block_runs.lengths[self.block_runs.accesses > 1].sum(), self.n_distinct)

    def describe(self):
        """Return the rates in words, and how they were counted."""
        cached, tokens = self.hit_tokens.sum(), self.prompt_tokens.sum()
        mean = self.sharing_fraction.mean() if len(self) else None
        return {
            "what": f"Prefix sharing in a cache without a bound, blocks of {self.block_size} tokens",
            "requests": f"{len(self):,}",
            "token hit rate": f"{show_rate(self.token_hit_rate)} ({cached:,} of {tokens:,} prompt tokens)",
            "mean sharing fraction": f"{show_rate(mean)} (each request counts once)",
            "block reuse rate": f"{show_rate(self.block_reuse_rate)} (of {self.n_accesses:,} block accesses)",
            "counted": "all requests, from an empty cache on; prompts only; a prompt's last token is always computed",
        }

    def to_frame(self):
        """Return a DataFrame with one row per request: `prompt_tokens`, `hit_tokens`, `sharing_fraction`."""
        import pandas as pd

        names = ("prompt_tokens", "hit_tokens", "sharing_fraction")
        return pd.DataFrame({name: getattr(self, name) for name in names})

    @property
    def run_weights(self):
        """Weight of each gap of a run by which each request counts once, however many blocks it reuses; float64."""
        return 1.0 / self.reuse.reused[self.gap_runs.request]

    @property
    def gap_weights(self):
        """These weights for each of `gap_s`, float64."""
        return np.repeat(self.run_weights, self.gap_runs.lengths)


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
    reuse, prompt_tokens = find_trace_reuse(trace, block_size), trace.column("prompt_tokens")
    hits = limit_hits(reuse.reused, prompt_tokens, block_size)
    return Sharing(trace, block_size, reuse, prompt_tokens, hits, find_block_runs(reuse), find_gap_runs(reuse))


def find_trace_reuse(trace, block_size, *, outputs=False):
    """Return the Reuse of a trace's requests."""
    if trace.contexts is None:
        return find_reuse(trace.tokens, trace.rows, block_size, outputs=outputs)
    blocks = identify_blocks(trace, block_size, outputs=outputs)
    return reuse_of(blocks.ids, blocks.offsets)


def limit_hits(reused, prompt_tokens, block_size):
    """Return how many of the blocks that each request reuses are hits: at most floor((L - 1) / B), (n,) int64."""
    return np.minimum(reused, np.maximum(prompt_tokens - 1, 0) // block_size)


def count_history_hits(trace, sharing):
    """Return how many of each request's hit blocks come from its own conversation, (n_requests,) int64.

    These blocks lie within the tokens that its prompt shares with the previous turn's; the other hits come from other
    conversations. 0 for a first turn.
    """
    return np.minimum(trace.tokens.shared[trace.rows] // sharing.block_size, sharing.hit_blocks)


def measure_hits_with_outputs(trace, block_size):
    """Return the hit blocks of each request if generated tokens are cached too, (n_requests,) int64.

    A request's generated blocks count as cached from its arrival on. That is earlier than in an engine, but its own
    next turn sees no difference: under a causal clock it comes after the reply.
    """
    reuse = find_trace_reuse(trace, block_size, outputs=True)
    return limit_hits(reuse.reused, trace.column("prompt_tokens"), block_size)


def count_hits(blocks, prompt_tokens):
    """Count each request's leading run of blocks seen in earlier requests, at most floor((L - 1) / B), (n,) int64."""
    return limit_hits(reuse_of(blocks.ids, blocks.offsets).reused, prompt_tokens, blocks.block_size)
