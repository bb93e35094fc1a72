"""Several caches below one another, such as HBM, DRAM and SSD: what each tier hits, by when blocks go down.

The first tier is leaf-first LRU, whatever is below it: a block that a lower tier has is loaded, and then stored like a
computed one. What is below it is looked up behind the blocks that are hit in the tier above.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from kvprefix.cache.curve import count_hits_at, measure_distances
from kvprefix.cache.recent_blocks import make_queue, push, refresh, unlink
from kvprefix.cache.replay import check_capacity, limit_capacity
from kvprefix.files.checks import check_whole
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError
from kvprefix.files.words import count, guess


@dataclass(frozen=True, kw_only=True)
class Semantics:
    """When a block goes to a lower tier, and what refreshes it there.

    Attributes
    ----------
    name : str
        As a command or a call takes it; with its number, as in ``after:2``.
    definition : str
    source : str
        Whose rule it is, if it is a product's.
    replay : callable
        ``replay(blocks, capacities, looked_up, number)`` returns what `replay_tiers` does.
    most : int, optional
        Tiers for which it is defined.
    number : int, optional
        The default of its number, None if it has none.
    is_superset : bool
        Whether a lower tier holds what the one above it holds, so that it adds nothing if it is no larger.
    """

    name: str
    definition: str
    source: str = ""
    replay: Callable
    most: int | None = None
    number: int | None = None
    is_superset: bool = False


def replay_exclusive(blocks, capacities, looked_up, number):
    """Replay tiers that hold different blocks: one LRU stack, cut where each tier ends."""
    return count_hits_at(blocks, measure_distances(blocks), np.cumsum(capacities)).T


def replay_inclusive(blocks, capacities, looked_up, number):
    """Replay tiers that get each block at once and are refreshed by each access: the larger is LRU of its size."""
    return count_hits_at(blocks, measure_distances(blocks), np.maximum.accumulate(capacities)).T


def replay_offloading(blocks, capacities, looked_up, number):
    """Replay vLLM's offloading connector behind the first tier's LRU; replies are not offloaded."""
    first = _replay_first(blocks, capacities)
    below = offload_behind(blocks, np.minimum(first, looked_up), capacities[1], looked_up, number)
    return np.stack([first, below])


def offload_behind(blocks, first, capacity, looked_up, threshold=1):
    """Replay vLLM's offloading connector behind a first tier whose hits are known.

    Parameters
    ----------
    blocks : PrefixTrace
    first : (n_requests,) ndarray of int64
        Leading blocks of each prompt that the first tier hits.
    capacity : int
        Blocks of the second tier.
    looked_up : (n_requests,) ndarray of int64
        Blocks of each prompt.
    threshold : int
        A block is stored when it is offered for so many times.

    Returns
    -------
    (n_requests,) ndarray of int64
        Leading blocks that both tiers hit together.
    """
    return _offload(blocks.ids, blocks.offsets, looked_up, first, (blocks.n_distinct, int(capacity), threshold))


def replay_after(blocks, capacities, looked_up, number):
    """Replay a second tier to which a block goes once it was hit `number` times in the first."""
    first = _replay_first(blocks, capacities)
    sizes = blocks.n_distinct, capacities[1], number
    return np.stack([first, _write_after(blocks.ids, blocks.offsets, first, sizes)])


def _replay_first(blocks, capacities):
    return count_hits_at(blocks, measure_distances(blocks), capacities[:1])[:, 0]


@njit(cache=True, nogil=True)
def _offload(ids, offsets, looked_up, first, sizes):
    """Return the leading blocks that one of both tiers hits, of which the first tier hits `first`."""
    n_distinct, capacity, threshold = sizes
    queue, used = make_queue(n_distinct), 0
    offers, offered_by = np.zeros(n_distinct, np.int32), np.full(n_distinct, -1, np.int32)
    hits = first.copy()
    for i in range(len(first)):
        path, hit = ids[offsets[i] : offsets[i] + looked_up[i]], first[i]
        while hit < len(path) and queue[0, path[hit]] >= 0:
            hit += 1
        hits[i] = hit
        is_loaded = hit > first[i]
        new = kept = 0
        for block in path[hit if is_loaded else 0 :]:
            offers[block] += 1
            offered_by[block] = i
            kept += queue[0, block] >= 0
            new += queue[0, block] < 0 and offers[block] >= threshold
        is_stored, begin = new <= capacity - kept, first[i] if is_loaded else 0
        refresh(queue, path[begin:])
        while is_stored and used + new > capacity:
            block = queue[0, n_distinct]
            while offered_by[block] == i:
                block = queue[0, block]
            unlink(queue, block)
            used -= 1
        for block in path[begin:]:
            if is_stored and queue[0, block] < 0 and offered_by[block] == i and offers[block] >= threshold:
                push(queue, block)
                used += 1
        refresh(queue, path[begin:])
    return hits


@njit(cache=True, nogil=True)
def _write_after(ids, offsets, first, sizes):
    """Return the same for a tier that gets a block once it was hit often enough in the first."""
    n_distinct, capacity, threshold = sizes
    queue, used, uses = make_queue(n_distinct), 0, np.zeros(n_distinct, np.int32)
    hits = first.copy()
    for i in range(len(first)):
        path, hit = ids[offsets[i] : offsets[i + 1]], first[i]
        while hit < len(path) and queue[0, path[hit]] >= 0:
            hit += 1
        hits[i] = hit
        for k in range(len(path) - 1, -1, -1):
            block = path[k]
            uses[block] = uses[block] + 1 if k < first[i] else 0
            if queue[0, block] >= 0:
                unlink(queue, block)
                used -= 1
            elif uses[block] < threshold:
                continue
            push(queue, block)
            used += 1
        while used > capacity:
            unlink(queue, queue[0, n_distinct])
            used -= 1
    return hits


SEMANTICS = {
    one.name: one
    for one in (
        Semantics(
            name="exclusive", replay=replay_exclusive,
            definition="A block is in one tier: it goes down when the tier above evicts it, and leaves a tier when it "
            "is loaded back. The tiers together are one LRU cache of their total size.",
        ),
        Semantics(
            name="inclusive", replay=replay_inclusive, is_superset=True,
            definition="A block goes to all tiers when it is computed, and each access refreshes it in all: together "
            "they hit what LRU of the largest would. A tier that is no larger than one above it adds nothing.",
        ),
        Semantics(
            name="vllm", replay=replay_offloading, most=2, number=1, is_superset=True,
            source="vLLM 0.32: v1/kv_offload and kv_connector/v1/offloading",
            definition="As vLLM's offloading connector with its LRU: a prompt's blocks go down when they are "
            "computed. If the second tier is used, only the blocks that were loaded and those behind them are offered "
            "and refreshed, else all of them, the tail as the oldest; nothing is stored if there is no room. With a "
            "number, a block is stored when it is offered for the Nth time (`store_threshold`). Replies are not "
            "offloaded (`offload_prompt_only`).",
        ),
        Semantics(
            name="after", replay=replay_after, most=2, number=1,
            source="SGLang's HiCache: write_through_selective",
            definition="A block goes down once it was hit N times in the first tier since it was stored there; each "
            "access refreshes it below.",
        ),
    )
}  # fmt: skip


def find_semantics(name):
    """Return a Semantics by its name, or the one that was given.

    Raises
    ------
    InputError
        A name that is not known, or a number that is none or that it does not take.
    """
    if isinstance(name, Semantics):
        return name
    base, colon, text = str(name).partition(":")
    if base not in SEMANTICS:
        known = [f"{one.name}:N" if one.name == "after" else one.name for one in SEMANTICS.values()]
        raise InputError(f"semantics {name!r} is not known; known: {', '.join(known)}{guess(base, SEMANTICS)}")
    found = SEMANTICS[base]
    if not colon:
        return found
    if found.number is None:
        raise InputError(f"semantics {name!r} has no number; expected {base}")
    number = check_whole(read_number(text, int), f"semantics {base}", f"{base}:N with a whole number, 1 or more")
    return replace(found, name=f"{base}:{number}", number=number)


def check_tiers(capacities, semantics):
    """Return the capacities of tiers; raise InputError if there are too few or too many, or one is no size."""
    capacities = [check_capacity(one) for one in capacities]
    if len(capacities) < 2 or (semantics.most and len(capacities) > semantics.most):
        expected = f"{semantics.most}" if semantics.most else "2 or more"
        raise InputError(
            f"capacities of {count(len(capacities), 'tier')}; expected {expected}, the fastest first "
            f"(semantics {semantics.name})"
        )
    return capacities


def replay_tiers(blocks, capacities, semantics="exclusive", *, looked_up=None):
    """Replay a trace through tiers of caches.

    Parameters
    ----------
    blocks : PrefixTrace
    capacities : sequence of int
        Blocks of each tier, the fastest first.
    semantics : str or Semantics
        A name in SEMANTICS, such as ``exclusive`` or ``after:2``.
    looked_up : (n_requests,) ndarray of int64, optional
        Blocks of each prompt; the others are of its reply, and only stored. All are the prompt's if not given.

    Returns
    -------
    (n_tiers, n_requests) ndarray of int64
        Leading blocks of each prompt that the first tier hits, that the first two hit, and so on.

    Raises
    ------
    InputError
        A semantics that is not known, or one that is not defined for so many tiers; a capacity below 1.

    Examples
    --------
    One block above two: "2" and "3" push "1" down, and a victim cache still has it. The larger of two that both get
    every block at once has forgotten it.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> blocks = make_prefix_trace(make_trace_of([[1], [2], [3], [1]]), 1)
    >>> replay_tiers(blocks, [1, 2]).tolist(), replay_tiers(blocks, [1, 2], "inclusive").tolist()
    ([[0, 0, 0, 0], [0, 0, 0, 1]], [[0, 0, 0, 0], [0, 0, 0, 0]])
    """
    known = find_semantics(semantics)
    sizes = np.array([limit_capacity(blocks, one) for one in check_tiers(capacities, known)], np.int64)
    looked_up = blocks.blocks if looked_up is None else looked_up
    return np.minimum(known.replay(blocks, sizes, looked_up, known.number), looked_up)
