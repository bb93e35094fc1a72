"""Replay requests through a real engine's prefix cache: token ids in, the cached tokens of each request out.

What vLLM (V1, full attention) does, block by block:

- A block is known by its whole token prefix, and by the request's cache salt and LoRA adapter.
- A request hits its leading run of cached full blocks, but never all of its tokens: at most floor((L-1)/B) blocks.
- It is admitted if its new blocks, and its hits that nobody holds, are no more than the free blocks. Then its full
  prompt blocks are visible at once, and its new ones are taken from the head of the free queue.
- Of K generated tokens the last one's KV is never computed: a finished request leaves floor((P+K-1)/B) full blocks.
- On finish its blocks join the free queue's tail, last block first; what holds no full block goes to the head and is
  used first (up to vLLM 0.22: to the tail like the others).
- Equal blocks are not merged: each keeps its place in the queue, and a lookup finds the oldest.
- One block of the pool, the null block, is never used.
- Requests one at a time, or at once: `overlap` says how vLLM's synchronous scheduler runs them.

Not modelled: limits on the requests or tokens of a step, chunked prefill, sliding windows, images.
"""

import struct
from dataclasses import dataclass, field

import numpy as np

from kvprefix.blocks.identify import identify_blocks
from kvprefix.engines.overlap import Overlap as Overlap  # callers take it from here
from kvprefix.engines.vllm_pool import replay_one_by_one
from kvprefix.engines.vllm_steps import replay_steps
from kvprefix.files.checks import check_block_size
from kvprefix.files.paths import InputError
from kvprefix.traces.trace import Tokens


@dataclass(frozen=True)
class Requests:
    """Requests in the order in which they arrive, as `make_requests` makes them.

    Attributes
    ----------
    tokens : Tokens
    rows : (n,) ndarray of int64
        The row of each request in `tokens`.
    contexts : (n,) ndarray of int64
        Only requests of equal context can share blocks: 0, 1, ... for each salt and adapter.
    """

    tokens: Tokens
    rows: np.ndarray
    contexts: np.ndarray

    def __len__(self):
        return len(self.rows)


@dataclass(frozen=True)
class Replayed:
    """What a replay gave.

    Attributes
    ----------
    cached_tokens : (n,) ndarray of int64
        Each request's cached prompt tokens when it was first admitted; -1 for a prompt that never fits.
    prompt_tokens : (n,) ndarray of int64
    block_size : int
    num_gpu_blocks : int or None
        The null block counted; None is unlimited.
    cached_hashes, blocks_with_hash : int
        Distinct full blocks in the cache at the end, and the physical blocks that hold them.
    outputs_cut : int
        Requests whose generation would outgrow the whole pool: it ends where the pool is full.
    admitted_s, finished_s, waited_s : (n,) ndarray of float64, optional
        Of overlapping requests; NaN where the prompt never fits. A wait begins with the first step after the arrival.
    preemptions : (n,) ndarray of int64, optional
        How often each overlapping request lost its blocks to an earlier one and was computed again.
    steps, tokens_again, cached_again : int, optional
        Of overlapping requests: the steps in which one ran or more; the tokens of the requests that were admitted again
        after a preemption, and how many of them were cached.
    """

    cached_tokens: np.ndarray
    prompt_tokens: np.ndarray
    block_size: int
    num_gpu_blocks: int | None
    cached_hashes: int
    blocks_with_hash: int
    outputs_cut: int
    admitted_s: np.ndarray | None = field(default=None, repr=False)
    finished_s: np.ndarray | None = field(default=None, repr=False)
    waited_s: np.ndarray | None = field(default=None, repr=False)
    preemptions: np.ndarray | None = field(default=None, repr=False)
    steps: int | None = None
    tokens_again: int | None = None
    cached_again: int | None = None


def make_requests(prompts, outputs=None, *, cache_salts=None, lora_names=None):
    """Make requests of token ids.

    Parameters
    ----------
    prompts, outputs : sequence of sequence of int
        A prompt and an output a request, 0 <= id < 2**31; no outputs are empty ones.
    cache_salts, lora_names : sequence of str or None, optional
        Of each request; None and "" are no salt, no adapter.

    Raises
    ------
    InputError
        A token id that is no whole number of 31 bits; lists of different lengths.
    """
    n = len(prompts)
    columns = {"outputs": outputs, "cache_salts": cache_salts, "lora_names": lora_names}
    for name, column in columns.items():
        if column is not None and len(column) != n:
            raise InputError(f"{name} has {len(column)} entries for {n} prompts; expected one a prompt")
    own_offsets, own = _flatten(prompts, "prompt")
    output_offsets, output = _flatten([()] * n if outputs is None else outputs, "output")
    no_parents = np.full(n, -1), np.zeros(n, np.int64)
    tokens = Tokens(*no_parents, own_offsets, own, np.zeros(len(own), bool), output_offsets, output)
    return Requests(tokens, np.arange(n), number_contexts(n, cache_salts, lora_names))


def number_contexts(n, *columns):
    """Number the distinct combinations of n requests' salts, adapters, ...: 0, 1, ... as first seen.

    >>> number_contexts(4, ["x", None, "x", ""], None)
    array([0, 1, 0, 1])
    """
    given = [[value or None for value in column] for column in columns if column is not None]
    if not given:
        return np.zeros(n, np.int64)
    codes = {}
    return np.array([codes.setdefault(key, len(codes)) for key in zip(*given, strict=True)], np.int64)


def _flatten(lists, name):
    """Return lists of token ids as (offsets, ids)."""
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in lists], dtype=np.int64))).astype(np.int64)
    ids = np.empty(offsets[-1], np.int32)
    for i, one in enumerate(lists):
        try:
            struct.pack_into(f"{len(one)}i", ids, 4 * int(offsets[i]), *one)  # the fastest way there is for a list
        except struct.error as error:
            raise InputError(f"{name} {i}: {error}; expected token ids, whole numbers from 0 to 2**31 - 1") from error
    if len(ids) and ids.min() < 0:
        raise InputError(f"{name}s hold the token id {ids.min()}; expected whole numbers from 0 to 2**31 - 1")
    return offsets, ids


def replay_vllm(
    requests, block_size, num_gpu_blocks=None, *, outputs=True, legacy_free=False, overlap=None, merge_duplicates=False,
    blocks=None,
):  # fmt: skip
    """Replay requests through vLLM's prefix cache.

    Parameters
    ----------
    requests : Requests or Trace
    block_size : int
        Tokens.
    num_gpu_blocks : int, optional
        Blocks of the pool, the null block counted: one less is usable. Unlimited if not given.
    outputs : bool
        Whether tokens are generated (and cached); otherwise a request is over when its prompt is computed.
    legacy_free : bool
        Free as vLLM up to 0.22 did.
    overlap : Overlap, optional
        When requests arrive and how long they run; without it each one finishes before the next starts.
    merge_duplicates : bool
        Keep one block of equal ones, which vLLM does not, to measure what they cost. Not with `overlap`.
    blocks : Blocks, optional
        Of ``identify_blocks(requests, block_size, outputs=outputs)``, where they are known already.

    Returns
    -------
    Replayed

    Raises
    ------
    InputError
        A block size or a number of blocks out of range; arrivals that go backwards.

    Examples
    --------
    Blocks of 2 tokens. The second request hits one block, for its last token must be computed; that leaves a second
    copy of (3, 4). The third hits both.

    >>> requests = make_requests([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5]])
    >>> result = replay_vllm(requests, 2)
    >>> result.cached_tokens, result.cached_hashes, result.blocks_with_hash
    (array([0, 2, 4]), 2, 3)
    """
    block_size, num_gpu_blocks = check_block_size(block_size), check_num_gpu_blocks(num_gpu_blocks)
    if merge_duplicates and overlap is not None:
        raise ValueError("duplicates are merged only where requests do not overlap")
    if blocks is None:
        blocks = identify_blocks(requests, block_size, outputs=outputs)
    ids, n_distinct = _separate_contexts(blocks, getattr(requests, "contexts", None))
    tokens, rows = requests.tokens, requests.rows
    prompts = tokens.prompt_lengths()[rows]
    generated = np.diff(tokens.output_offsets)[rows] if outputs else np.zeros(len(rows), np.int64)
    wanted = prompts + np.maximum(generated - 1, 0)
    n_blocks = min(num_gpu_blocks or 2**31, 1 + int((-(-wanted // block_size)).sum()))
    if n_blocks >= 2**31:
        raise InputError("the requests hold 2**31 blocks or more; expected fewer")
    computed = np.minimum(wanted, np.maximum((n_blocks - 1) * block_size, prompts))
    arrays = ids, blocks.offsets, prompts, computed, block_size, n_blocks, n_distinct, legacy_free
    if overlap is None:
        hits, counts = replay_one_by_one(*arrays, merge_duplicates)
        of_overlap = {}
    else:
        arrivals, prefill_steps = overlap.count_steps(len(rows))
        ran, state, counts = replay_steps(*arrays, arrivals, prefill_steps)
        hits, of_overlap = ran["hits"], overlap.read_steps(arrivals, ran["admitted"], ran["finished"]) | {
            "preemptions": ran["preemptions"], "steps": int(state["steps"]), "tokens_again": int(state["tokens_again"]),
            "cached_again": int(state["hits_again"]) * block_size,
        }  # fmt: skip
    cached, cut = np.where(hits < 0, -1, hits * block_size), int(((computed < wanted) & (hits >= 0)).sum())
    return Replayed(cached, prompts, block_size, num_gpu_blocks, *counts, cut, **of_overlap)


def check_num_gpu_blocks(num_gpu_blocks):
    """Return a number of blocks of 2 or more, or None for unlimited, or raise InputError."""
    if num_gpu_blocks is None:
        return None
    whole = isinstance(num_gpu_blocks, int | np.integer) and not isinstance(num_gpu_blocks, bool)
    if not whole or num_gpu_blocks < 2:
        raise InputError(
            f"number of GPU blocks is {num_gpu_blocks!r}; expected a whole number, 2 or more (one is the null block), "
            "or unlimited"
        )
    return int(num_gpu_blocks)


def _separate_contexts(blocks, contexts):
    """Return (ids, how many are distinct) with the blocks of different contexts told apart."""
    if contexts is None or not len(contexts) or contexts.max() == 0:
        return blocks.ids, blocks.n_distinct
    of_block = np.repeat(contexts, np.diff(blocks.offsets))
    distinct, ids = np.unique(blocks.ids + blocks.n_distinct * of_block, return_inverse=True)
    return ids.astype(np.int32), len(distinct)
