"""The compiled core of vLLM's synchronous scheduler: requests that run at the same time, in whole steps.

A step is what `schedule` and `update_from_output` do (`vllm/v1/core/sched/scheduler.py`). Requests whose last token
came end; then every running request, in the order of admission, computes a token; then waiting ones are admitted, if no
running one was preempted in this step. Steps that change no block are skipped. `overlap` has the
times, `vllm` the rules and the interface, `vllm_pool` the pool.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.engines.vllm_pool import Pool, borrowed, look_up, release, store, take_hits, take_new

_NEVER = np.iinfo(np.int64).max
_REQUEST = np.dtype([(name, np.int64) for name in (
    "arrival",  # step
    "prompt", "computed",  # tokens: the prompt's, and with the generated ones when it is over
    "first_id", "first_held",  # where its part of `ids` and of `tables` begins
    "n_held",  # physical blocks
    "known",  # tokens when it was last admitted, or will be
    "began",  # the step that computes the token after these
    "hits", "admitted", "finished", "preemptions",  # blocks and step of the first admission, -1: never; step; times
)])  # fmt: skip
_STATE = np.dtype([(name, np.int64) for name in (
    "block_size", "prefill_steps",
    "n_running", "n_preempted",  # of the Lists; the request preempted last is admitted next
    "next_end", "first", "n_arrived",  # the first request that was never admitted, and how many arrived
    "evictions",  # blocks that lost what they held
    "steps", "tokens_again", "hits_again",  # those with a running request; of the admissions after a preemption
)])  # fmt: skip


class _Memory(NamedTuple):
    """The blocks, and who fills and holds which: arrays of int32, one request's part behind the other's.

    Attributes
    ----------
    pool : Pool
    ids : ndarray of int32
        The contents that the requests give their blocks.
    tables : ndarray of int32
        The physical blocks that they hold.
    """

    pool: Pool
    ids: np.ndarray
    tables: np.ndarray


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
    (requests, state) : tuple
        `hits`, `admitted`, `finished` and `preemptions` of each request; `evictions`, `steps`, `tokens_again` and
        `hits_again`.
    """
    n, ends = len(work.prompts), np.cumsum(-(-work.computed // work.block_size))
    requests, state = np.zeros(n, _REQUEST), np.zeros(1, _STATE)
    requests["arrival"], requests["prompt"], requests["computed"] = arrivals, work.prompts, work.computed
    requests["first_id"], requests["first_held"][1:], requests["known"] = work.offsets[:n], ends[:-1], work.prompts
    requests["hits"] = requests["admitted"] = requests["finished"] = -1
    state["block_size"], state["prefill_steps"] = work.block_size, prefill_steps
    memory = _Memory(pool, work.ids, np.empty(ends[-1] if n else 0, np.int32))
    _replay(memory, _Lists(*np.empty((4, n), np.int64)), state, requests)
    return requests, state[0]


@njit(cache=True, nogil=True)
def _replay(memory, lists, state, requests):
    """Go from step to step, to the end."""
    now, n, step = state[0], len(requests), np.int64(0)
    while step < _NEVER:
        while now.n_arrived < n and requests[now.n_arrived].arrival <= step:
            now.n_arrived += 1
        if step >= now.next_end:
            _let_go(memory, lists, now, requests, step)
        if _compute_tokens(memory, lists, now, requests, step):
            following = step + 1
        else:
            if now.n_preempted or now.first < now.n_arrived:
                _admit(memory, lists, now, requests, step)
            following = _NEVER
            for k in range(now.n_running):
                following = min(following, lists.due[k])
        if now.n_arrived < n:
            following = min(following, requests[now.n_arrived].arrival)
        if now.n_running:
            now.steps += following - step
        step = following


@borrowed
def _let_go(memory, lists, now, requests, step):
    """End the requests whose last token came in the step before."""
    n_left, now.next_end = 0, _NEVER
    for k in range(now.n_running):
        if lists.end[k] == step:
            one = requests[lists.running[k]]
            release(memory.pool, _table(memory, one))
            one.finished = step
        else:
            lists.running[n_left], lists.due[n_left], lists.end[n_left] = lists.running[k], lists.due[k], lists.end[k]
            n_left += 1
            now.next_end = min(now.next_end, lists.end[k])
    now.n_running = n_left


@borrowed
def _compute_tokens(memory, lists, now, requests, step):
    """Compute a token of each running request; return whether any was preempted."""
    n_preempted, k = now.n_preempted, 0
    while k < now.n_running:
        if lists.due[k] == step:
            _compute_token(memory, lists, now, requests, k, step)
        k += 1
    return now.n_preempted > n_preempted


@borrowed
def _compute_token(memory, lists, now, requests, k, step):
    """Compute a token that begins or fills a block; for a new block, preempt the request admitted last if need be."""
    pool, one, block_size = memory.pool, requests[lists.running[k]], now.block_size
    position = one.known + step - one.began
    if position % block_size == 0:
        while pool.blocks[0].held == 0:
            _preempt_last(memory, lists, now, requests, step)
            if now.n_running == k:
                return
        one.n_held += 1
        now.evictions += take_new(pool, _table(memory, one)[-1:])
    if (position + 1) % block_size == 0:
        at = one.first_id + position // block_size
        store(pool, memory.ids[at : at + 1], _table(memory, one)[-1:])
    lists.due[k] += _count_to_change(position, one.computed, block_size)


@borrowed
def _preempt_last(memory, lists, now, requests, step):
    """Take the blocks of the request that was admitted last and put it first in the queue."""
    now.n_running -= 1
    i = lists.running[now.n_running]
    one = requests[i]
    release(memory.pool, _table(memory, one))
    if step >= one.began:
        one.known += step - one.began + 1
    one.preemptions += 1
    lists.preempted[now.n_preempted] = i
    now.n_preempted += 1


@borrowed
def _admit(memory, lists, now, requests, step):
    """Admit waiting requests in order until one finds no room."""
    while now.n_preempted or now.first < now.n_arrived:
        again = now.n_preempted > 0
        i = lists.preempted[now.n_preempted - 1] if again else now.first
        one = requests[i]
        if again or -(-one.prompt // now.block_size) < len(memory.pool.blocks):
            hit = _take_room(memory, now, one)
            if hit < 0:
                break
            one.began = step + now.prefill_steps
            k, end = now.n_running, one.began + one.computed - one.known
            due = one.began - 1 + _count_to_change(one.known - 1, one.computed, now.block_size)
            lists.running[k], lists.due[k], lists.end[k] = i, due, end
            now.n_running += 1
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


@borrowed
def _take_room(memory, now, one):
    """Take the blocks of all tokens that a request has, cached or new; return the hit blocks, -1 if no room."""
    pool, block_size = memory.pool, now.block_size
    n_needed = -(-one.known // block_size)
    own = memory.ids[one.first_id : one.first_id + one.known // block_size]
    hit, idle = look_up(pool, own, (one.known - 1) // block_size)
    if n_needed - hit + idle > pool.blocks[0].held:
        return -1
    one.n_held = n_needed
    table = _table(memory, one)
    take_hits(pool, own[:hit], table)
    now.evictions += take_new(pool, table[hit:])
    store(pool, own[hit:], table[hit:])
    return hit


@njit(inline="always")
def _table(memory, one):
    """Return the blocks that a request holds."""
    return memory.tables[one.first_held : one.first_held + one.n_held]


@borrowed
def _count_to_change(position, computed, block_size):
    """Return the number of tokens from `position` to the next one that begins or fills a block, or to the end."""
    last = position - position % block_size + block_size - 1
    return min(position + 1 if position == last else last, computed) - position
