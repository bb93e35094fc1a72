"""The result of an engine's replay, with what other replays do not have."""

from dataclasses import dataclass, field

import numpy as np

from kvprefix.stats.replayed import Replayed


@dataclass(frozen=True, kw_only=True, repr=False)
class EngineReplayed(Replayed):
    """The result of an engine's replay.

    `hit_tokens` are those of a request's first admission, `evictions` the blocks (SGLang: pages) that lost what they
    held. ``details["note"]``, if it is there, is a caveat on the rules.

    Attributes
    ----------
    block_size : int
        Tokens; SGLang's page size.
    blocks : int or None
        Of the pool, vLLM's null block counted; None is unlimited.
    cached_hashes, blocks_with_hash : int
        Distinct full blocks in the cache at the end, and the physical blocks that hold them.
    rules : NamedTuple
        Of the version, see `versions`.
    outputs_cut : int
        Requests whose generation would outgrow the whole pool: it ends when the pool is full.
    admitted_s, finished_s : (n,) ndarray of float64, optional
        Of overlapping requests, as `waited_s`; NaN if the prompt never fits. A wait begins with the first step after
        the arrival.
    preemptions : (n,) ndarray of int64, optional
        How often each overlapping request lost its blocks to an earlier one and was computed again.
    steps, tokens_again, cached_again : int, optional
        Of overlapping requests: the steps in which one ran or more; the tokens of the requests that were admitted again
        after a preemption, and how many of them were cached.
    """

    block_size: int
    blocks: int | None
    cached_hashes: int
    blocks_with_hash: int
    outputs_cut: int
    rules: tuple = ()
    admitted_s: np.ndarray | None = field(default=None, repr=False)
    finished_s: np.ndarray | None = field(default=None, repr=False)
    preemptions: np.ndarray | None = field(default=None, repr=False)
    steps: int | None = None
    tokens_again: int | None = None
    cached_again: int | None = None
