"""The compiled core of vLLM's synchronous scheduler: requests that run at the same time, in whole steps.

A step is what `schedule` and `update_from_output` do (`vllm/v1/core/sched/scheduler.py`). Requests whose last token
came end; then every running request, in the order of admission, computes a token; then waiting ones are admitted, if no
running one was preempted in this step. Steps that change no block are skipped. `overlap` has the
times, `vllm` the rules and the interface, `vllm_pool` the pool.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.engines.vllm_pool import hold_hits, look_up, release, store, store_next, take_new
from kvprefix.engines.vllm_runs import borrowed, make_room

_NEVER = np.iinfo(np.int64).max
_REQUEST = np.dtype([(name, np.int64) for name in (
    "arrival",  # step
    "prompt", "computed",  # tokens: the prompt's, and with the generated ones when it is over
    "held",  # the first of its holds, 0: none
    "n_open",  # blocks that it holds besides, which are not full
    "depth", "place",  # of the block that is filled next; of this block's stretch in the paths, or of an earlier one
    "known",  # tokens when it was last admitted, or will be
    "began",  # the step that computes the token after these
    "hits", "admitted", "finished", "preemptions",  # blocks and step of the first admission, -1: never; step; times
)])  # fmt: skip
_STATE = np.dtype([(name, np.int64) for name in (
    "block_size", "n_blocks", "prefill_steps",
    "n_running", "n_preempted",  # of the Lists; the request preempted last is admitted next
    "n_planned",  # blocks that the running requests fill until they end
    "next_end", "first", "n_arrived",  # the first request that was never admitted, and how many arrived
    "steps", "tokens_again", "hits_again",  # those with a running request; of the admissions after a preemption
)])  # fmt: skip


class _Lists(NamedTuple):
    """The requests that run, in the order of admission, and those that were preempted; (n,) ndarrays of int64.

    Attributes
    ----------
    running, preempted : ndarray
    due : ndarray
        Of each running one, the next step that takes or fills a block, or in which it ends.
    end : ndarray
        Of each running one, the step before which it is over, if it is not preempted.
    """

    running: np.ndarray
    preempted: np.ndarray
    due: np.ndarray
    end: np.ndarray


def replay_steps(pool, work, arrivals, prefill_steps):
    """Replay requests that arrive in given steps and whose first token takes `prefill_steps`.

    Returns
    -------
    (requests, pool, state) : tuple
        `hits`, `admitted`, `finished` and `preemptions` of each request; the pool at the end; `steps`, `tokens_again`
        and `hits_again`.
    """
    n = len(work.prompts)
    requests, state = np.zeros(n, _REQUEST), np.zeros(1, _STATE)
    requests["arrival"], requests["prompt"], requests["computed"] = arrivals, work.prompts, work.computed
    requests["known"] = work.prompts
    requests["hits"] = requests["admitted"] = requests["finished"] = -1
    state["block_size"], state["prefill_steps"], state["n_blocks"] = work.block_size, prefill_steps, work.n_blocks
    pool = _replay(pool, work.paths, _Lists(*np.empty((4, n), np.int64)), state, requests)
    return requests, pool, state[0]


@njit(cache=True, nogil=True)
def _replay(pool, paths, lists, state, requests):
    """Go from step to step, to the end; return the pool."""
    now, n, step = state[0], len(requests), np.int64(0)
    while step < _NEVER:
        while now.n_arrived < n and requests[now.n_arrived].arrival <= step:
            now.n_arrived += 1
        if step >= now.next_end:
            _let_go(pool, lists, now, requests, step)
        if _compute_tokens(pool, paths, lists, now, requests, step):
            following = step + 1
        else:
            while now.n_preempted or now.first < now.n_arrived:
                again = now.n_preempted > 0
                i = lists.preempted[now.n_preempted - 1] if again else now.first
                pool = make_room(pool, now.n_planned + requests[i].computed // now.block_size)
                if not _admit(pool, paths, lists, now, requests[i], i, again, step):
                    break
            following = _NEVER
            for k in range(now.n_running):
                following = min(following, lists.due[k])
        if now.n_arrived < n:
            following = min(following, requests[now.n_arrived].arrival)
        if now.n_running:
            now.steps += following - step
        step = following
    return pool


@borrowed
def _let_go(pool, lists, now, requests, step):
    """End the requests whose last token came in the step before."""
    n_left, now.next_end = 0, _NEVER
    for k in range(now.n_running):
        if lists.end[k] == step:
            one = requests[lists.running[k]]
            release(pool, one.held, one.n_open)
            now.n_planned -= one.computed // now.block_size
            one.finished = step
        else:
            lists.running[n_left], lists.due[n_left], lists.end[n_left] = lists.running[k], lists.due[k], lists.end[k]
            n_left += 1
            now.next_end = min(now.next_end, lists.end[k])
    now.n_running = n_left


@borrowed
def _compute_tokens(pool, paths, lists, now, requests, step):
    """Compute a token of each running request; return whether any was preempted."""
    n_preempted, k = now.n_preempted, 0
    while k < now.n_running:
        if lists.due[k] == step:
            _compute_token(pool, paths, lists, now, requests, k, step)
        k += 1
    return now.n_preempted > n_preempted


@borrowed
def _compute_token(pool, paths, lists, now, requests, k, step):
    """Compute a token that begins or fills a block; for a new block, preempt the request admitted last if need be."""
    one = requests[lists.running[k]]
    if not one.n_open:
        while pool.state[0].free == 0:
            _preempt_last(pool, lists, now, requests, step)
            if now.n_running == k:
                return
        take_new(pool, 1)
        one.n_open = 1
        if now.block_size > 1:
            lists.due[k] += min(now.block_size - 1, lists.end[k] - step)
            return
    while paths.ends[one.place] <= one.depth:
        one.place += 1
    one.held, one.n_open = store_next(pool, paths.nodes[one.place], one.depth, one.held), 0
    one.depth += 1
    lists.due[k] += 1


@borrowed
def _preempt_last(pool, lists, now, requests, step):
    """Take the blocks of the request that was admitted last and put it first in the queue."""
    now.n_running -= 1
    i = lists.running[now.n_running]
    one = requests[i]
    release(pool, one.held, one.n_open)
    now.n_planned -= one.computed // now.block_size
    if step >= one.began:
        one.known += step - one.began + 1
    one.preemptions += 1
    lists.preempted[now.n_preempted] = i
    now.n_preempted += 1


@borrowed
def _admit(pool, paths, lists, now, one, i, again, step):
    """Admit a waiting request, or refuse it for good; return False if there is no room."""
    block_size = now.block_size
    if again or -(-one.prompt // block_size) <= now.n_blocks:
        hit = _take_room(pool, paths, one, i, block_size)
        if hit < 0:
            return False
        one.began = step + now.prefill_steps
        k, end = now.n_running, one.began + one.computed - one.known
        fills = -one.known % block_size  # tokens until its last block is full
        due = min(one.began + max(fills - 1, 0), end)
        lists.running[k], lists.due[k], lists.end[k] = i, due, end
        now.n_running += 1
        now.n_planned += one.computed // block_size
        now.next_end = min(now.next_end, end)
        if again:
            now.tokens_again += one.known
            now.hits_again += hit
        else:
            one.hits, one.admitted = hit, step
    if again:
        now.n_preempted -= 1
    else:
        now.first += 1
    return True


@borrowed
def _take_room(pool, paths, one, i, block_size):
    """Take the blocks of all tokens that a request has, cached or new; return the hit blocks, -1 if no room."""
    nodes = paths.nodes[paths.offsets[i] : paths.offsets[i + 1]]
    ends = paths.ends[paths.offsets[i] : paths.offsets[i + 1]]
    n_needed, full = -(-one.known // block_size), one.known // block_size
    hit, idle = look_up(pool, nodes, ends, (one.known - 1) // block_size)
    if n_needed - hit + idle > pool.state[0].free:
        return -1
    held = hold_hits(pool, nodes, ends, hit)
    take_new(pool, n_needed - hit)
    one.held = store(pool, nodes, ends, hit, full, held, False)
    one.n_open, one.depth, one.place = n_needed - full, full, paths.offsets[i]
    return hit
