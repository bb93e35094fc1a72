"""Replay requests through vLLM's prefix cache: token ids in, the cached tokens of each request out.

What vLLM (V1, full attention) does, block by block:

- A block is known by its whole token prefix, and by the request's cache salt and LoRA adapter.
- A request hits its leading run of cached full blocks, but never all of its tokens: at most floor((L-1)/B) blocks.
- It is admitted if its new blocks, plus its hits that no request holds, are no more than the free blocks. Then its full
  prompt blocks are visible at once, and its new ones are taken from the head of the free queue.
- Of K generated tokens the last one's KV is never computed: a finished request leaves floor((P+K-1)/B) full blocks.
- On finish its blocks join the free queue's tail, last block first; those that are not full go to the head and are
  used first (in versions with `legacy_free`: to the tail like the others).
- Equal blocks are not merged: each keeps its place in the queue, and a lookup finds the oldest.
- One block of the pool, the null block, is never used.
- Requests run one at a time, or at once: `overlap` says how vLLM's synchronous scheduler runs them.

`versions` says what differs between versions. Not modelled: limits on the requests or tokens of a step, chunked
prefill, images. `vllm_hybrid` has models with sliding windows and other groups of layers.
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

from kvprefix.blocks.stretches import find_paths
from kvprefix.engines.overlap import Overlap
from kvprefix.engines.replayed import EngineReplayed
from kvprefix.engines.versions import VLLM_VERSIONS, find_rules
from kvprefix.engines.vllm_one_by_one import Work, replay_one_by_one
from kvprefix.engines.vllm_runs import count_cached, make_pool
from kvprefix.engines.vllm_steps import replay_steps
from kvprefix.files.checks import check_block_size, check_whole
from kvprefix.files.paths import InputError


@dataclass(frozen=True)
class VLLM:
    """vLLM's prefix cache.

    Attributes
    ----------
    version : str
        Of `VLLM_VERSIONS`, or between them.
    block_size : int
        Tokens.
    blocks : int, optional
        Of the pool, the null block counted: one less is usable. Unlimited if not given.
    outputs : bool
        Whether tokens are generated (and cached); otherwise a request is over when its prompt is computed.
    overlap : Overlap, optional
        How long requests run: they then arrive at their `arrival_s` and run at once. Without it each one finishes
        before the next starts.
    merge_duplicates : bool
        Keep one block of equal ones, which vLLM does not, to measure what they cost. Not with `overlap`.

    Raises
    ------
    InputError
        No version, or one that is too old; a block size or a number of blocks out of range.

    Examples
    --------
    Blocks of 2 tokens. The second request hits one block, since its last token must be computed; that leaves a second
    copy of (3, 4). The third hits both.

    >>> from kvprefix.traces.trace import make_trace_of
    >>> result = VLLM(block_size=2).replay(make_trace_of([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5]]))
    >>> result.hit_tokens, result.cached_hashes, result.blocks_with_hash
    (array([0, 2, 4]), 2, 3)
    """

    null_blocks: ClassVar[int] = 1  # of a pool, never used

    version: str = VLLM_VERSIONS.newest
    _: KW_ONLY
    block_size: int = 16
    blocks: int | None = None
    outputs: bool = True
    overlap: Overlap | None = None
    merge_duplicates: bool = False

    def __post_init__(self):
        find_rules(VLLM_VERSIONS, self.version)
        check_block_size(self.block_size)
        check_blocks(self.blocks)
        if self.merge_duplicates and self.overlap is not None:
            raise ValueError("duplicates are merged only if requests do not overlap")

    @property
    def label(self):
        """Name and version."""
        return f"vLLM {self.version}"

    def replay(self, trace, paths=None):
        """Replay a trace.

        Parameters
        ----------
        trace : Trace
        paths : Paths, optional
            Of ``find_paths(trace, block_size, outputs=True)``, if they are known already.

        Returns
        -------
        EngineReplayed

        Raises
        ------
        InputError
            With `overlap`, arrivals that go backwards.
        """
        paths = find_paths(trace, self.block_size, outputs=self.outputs) if paths is None else paths
        prompts, computed, wanted, n_blocks = self._plan(trace)
        known = find_rules(VLLM_VERSIONS, self.version)
        work = Work(paths, prompts, computed, int(self.block_size), n_blocks - 1)
        pool, of_overlap = make_pool(n_blocks - 1, paths.n_nodes, known.rules), {}
        if self.overlap is None:
            hits, pool = replay_one_by_one(pool, work, self.merge_duplicates)
        else:
            hits, pool, of_overlap = self._run_at_once(pool, work, trace.arrival_s)
        cached_hashes, blocks_with_hash = count_cached(pool, paths)
        return EngineReplayed(
            hit_tokens=np.where(hits < 0, -1, hits * self.block_size), prompt_tokens=prompts,
            evictions=int(pool.state["evictions"][0]), label=self.label,
            details={"note": known.note} if known.note else {}, block_size=self.block_size, blocks=self.blocks,
            rules=known.rules, cached_hashes=cached_hashes, blocks_with_hash=blocks_with_hash,
            outputs_cut=int(((computed < wanted) & (hits >= 0)).sum()), **of_overlap,
        )  # fmt: skip

    def explain_refusal(self, prompt_tokens):
        """Say why a prompt of this many tokens never fits."""
        return f"the prompt needs {-(-prompt_tokens // self.block_size)} blocks and the pool has {self.blocks - 1}"

    def _plan(self, trace):
        """Return each request's prompt, the tokens that it computes, those of an unlimited pool, and the pool's blocks.

        The null block is one of these.
        """
        size = int(self.block_size)
        prompts, wanted = count_tokens(trace, self.outputs)
        n_blocks = min(self.blocks or 2**31, 1 + int((-(-wanted // size)).sum()))
        if n_blocks >= 2**31:
            raise InputError("the requests hold 2**31 blocks or more; expected fewer")
        computed = np.minimum(wanted, np.maximum((n_blocks - 1) * size, prompts))
        return prompts, computed, wanted, n_blocks

    def _run_at_once(self, pool, work, arrival_s):
        """Return the hit blocks of each request, the pool at the end, and the further results of such requests."""
        arrivals, prefill_steps = self.overlap.count_steps(arrival_s, len(work.prompts))
        ran, pool, state = replay_steps(pool, work, arrivals, prefill_steps)
        of_overlap = self.overlap.read_steps(arrival_s, arrivals, ran["admitted"], ran["finished"]) | {
            "preemptions": ran["preemptions"], "steps": int(state["steps"]), "tokens_again": int(state["tokens_again"]),
            "cached_again": int(state["hits_again"]) * self.block_size,
        }  # fmt: skip
        return ran["hits"], pool, of_overlap


def count_tokens(trace, outputs):
    """Return the tokens of each request's prompt, and those that it computes: all but the last generated one."""
    tokens, rows = trace.tokens, trace.rows
    prompts = tokens.prompt_lengths()[rows]
    generated = np.diff(tokens.output_offsets)[rows] if outputs else np.zeros(len(rows), np.int64)
    return prompts, prompts + np.maximum(generated - 1, 0)


def check_blocks(blocks):
    """Raise InputError unless a number of blocks is 2 or more, or None for unlimited."""
    if blocks is not None:
        expected = "a whole number, 2 or more (one is the null block), or unlimited"
        check_whole(blocks, "number of GPU blocks", expected, least=2, most=float("inf"))
