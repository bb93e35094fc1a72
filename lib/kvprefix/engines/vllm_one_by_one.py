"""Requests that run one after the other through vLLM's pool, compiled. `vllm_steps` has those that run at once."""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.stretches import Paths
from kvprefix.engines.vllm_pool import hold_hits, look_up, release, store, take_new
from kvprefix.engines.vllm_runs import make_room


class Work(NamedTuple):
    """The requests of a replay.

    Attributes
    ----------
    paths : Paths
    prompts, computed : (n,) ndarray of int64
        Tokens: the prompt's, and with the generated ones when it is over.
    block_size : int
        Tokens.
    n_blocks : int
        Of the pool, the null block not counted.
    """

    paths: Paths
    prompts: np.ndarray
    computed: np.ndarray
    block_size: int
    n_blocks: int


@njit(cache=True, nogil=True)
def replay_one_by_one(pool, work, merge):
    """Replay requests, each of which finishes before the next starts.

    Parameters
    ----------
    pool : Pool
    work : Work
    merge : bool
        Keep no second block of equal content.

    Returns
    -------
    (hits, pool) : tuple
        The hit blocks of each request, -1 if it never fits; the pool at the end.
    """
    paths, size = work.paths, work.block_size
    hits = np.full(len(work.prompts), -1)
    for i in range(len(work.prompts)):
        prompt, computed = work.prompts[i], work.computed[i]
        if -(-prompt // size) > work.n_blocks:
            continue
        full, all_held = computed // size, -(-computed // size)
        pool = make_room(pool, full)
        nodes = paths.nodes[paths.offsets[i] : paths.offsets[i + 1]]
        ends = paths.ends[paths.offsets[i] : paths.offsets[i + 1]]
        hits[i], _ = look_up(pool, nodes, ends, (prompt - 1) // size)
        held = hold_hits(pool, nodes, ends, hits[i])
        take_new(pool, all_held - hits[i])
        held = store(pool, nodes, ends, hits[i], full, held, merge)
        release(pool, held, all_held - full)
    return hits, pool
