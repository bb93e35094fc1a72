"""The second central type: the block accesses of a trace, with ids, parents, times and weights in tokens.

All bounded replays and curves read this form. It is made from our own trace, or from one that lists block ids. It knows
no cache.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numba import njit

from kvprefix.blocks.identify import identify_blocks
from kvprefix.files.checks import check_type
from kvprefix.files.paths import InputError
from kvprefix.files.shown import Shown
from kvprefix.traces.clock import find_service
from kvprefix.traces.trace import Trace


@dataclass(frozen=True, kw_only=True, repr=False)
class PrefixTrace(Shown):
    """The block accesses of a trace's requests, in arrival order, as flat arrays.

    Attributes
    ----------
    block_size : int
        Tokens per block.
    ids : (total,) ndarray of int32
        The blocks of each prompt from the root on, request after request. Dense, numbered as first seen.
    offsets : (n_requests + 1,) ndarray of int64
        Request i's blocks are ``ids[offsets[i]:offsets[i + 1]]``.
    last_weight : (n_requests,) ndarray of int64
        Tokens that a hit of a request's last block saves; every other block saves `block_size`. 0 if the last full
        block ends the prompt, because an engine computes at least the last token; below `block_size` for a partial
        block.
    prompt_tokens : (n_requests,) ndarray of int64
    parent, depth : (n_distinct,) ndarrays of int32
        The block before each block (-1 for a first block), and its 0-based position in its prompts.
    arrival_s, finish_s : (n_requests,) ndarrays of float64
        Seconds; a request runs from its arrival until its finish.
    conversation : (n_requests,) ndarray of int64
        The conversation of each request; resampling for intervals keeps its requests together.
    info : dict
        What made the trace.
    output_tokens : (n_requests,) ndarray of int64, optional
        Generated tokens. This field and the next ones are None if unknown or not needed.
    previous : (n_requests,) ndarray of int64, optional
        The request that each one continues, always an earlier one; -1 for none.
    turn : (n_requests,) ndarray of int64, optional
        0-based.
    after : (n_requests,) ndarray of int8, optional
        What each request follows, of `blocks.sessions`: NOTHING, a TOOL's result, a PERSON's message, UNKNOWN.
    types : list of str, optional
        Bailian's type of each request: text, search, image, file, ...
    """

    block_size: int
    ids: np.ndarray
    offsets: np.ndarray
    last_weight: np.ndarray
    prompt_tokens: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    arrival_s: np.ndarray
    finish_s: np.ndarray
    conversation: np.ndarray
    info: dict = field(default_factory=dict)
    output_tokens: np.ndarray | None = None
    previous: np.ndarray | None = None
    turn: np.ndarray | None = None
    after: np.ndarray | None = None
    types: list | None = field(default=None, repr=False)

    def __len__(self):
        return len(self.prompt_tokens)

    def describe(self):
        """Return the sizes of the trace in words."""
        notes = self.info.get("notes", [])
        return {
            "what": f"Trace of {len(self):,} requests in blocks of {self.block_size} tokens",
            "block accesses": f"{len(self.ids):,} of {self.n_distinct:,} distinct blocks",
            "prompt tokens": f"{self.prompt_tokens.sum():,}",
            **({"notes": "; ".join(notes)} if notes else {}),
        }

    @property
    def n_distinct(self):
        """Number of distinct blocks."""
        return len(self.parent)

    @property
    def blocks(self):
        """Number of blocks of each request, (n_requests,) int64."""
        return np.diff(self.offsets)

    def hit_tokens(self, hit_blocks):
        """Return the tokens that each request's leading hit blocks save, int64 of the same shape.

        Parameters
        ----------
        hit_blocks : (n_requests, ...) ndarray of int64
            Numbers of blocks.
        """
        shape = (-1,) + (1,) * (hit_blocks.ndim - 1)
        blocks, last = self.blocks.reshape(shape), self.last_weight.reshape(shape)
        return hit_blocks * self.block_size - np.where((hit_blocks == blocks) & (blocks > 0), self.block_size - last, 0)


def make_prefix_trace(trace, block_size):
    """Make the PrefixTrace of our own trace's full prompt blocks.

    Parameters
    ----------
    trace : Trace
    block_size : int
        Tokens per block.

    Returns
    -------
    PrefixTrace
        Without a clock in ``trace.info``, a request finishes when it arrives.

    Examples
    --------
    A prompt of two full blocks saves 2 of its 4 tokens at most: its last token is computed.

    >>> from kvprefix.traces.trace import make_trace_of
    >>> accesses = make_prefix_trace(make_trace_of([[1, 2, 3, 4], [1, 2, 3, 4, 5]]), 2)
    >>> accesses.hit_tokens(np.array([2, 2]))
    array([2, 4])
    """
    check_type(trace, Trace, "trace")
    blocks = identify_blocks(trace, block_size)
    prompt_tokens = trace.column("prompt_tokens")
    return PrefixTrace(
        block_size=blocks.block_size, ids=blocks.ids, offsets=blocks.offsets, parent=blocks.parent, depth=blocks.depth,
        last_weight=np.where(prompt_tokens % block_size, block_size, 0), prompt_tokens=prompt_tokens,
        arrival_s=trace.arrival_s, finish_s=finish_times(trace),
        conversation=trace.column("conversation_index"), info=trace.info,
    )  # fmt: skip


def finish_times(trace):
    """Return when each request of our own trace finishes, by the log or its clock, in seconds, (n,) float64."""
    parameters = trace.info.get("parameters", {})
    columns = {name: trace.column(name) for name in ("output_tokens", "service_s") if trace.has(name)}
    times = (parameters.get(name, 0.0) for name in ("ttft_s", "time_per_output_token_s"))
    return trace.arrival_s + find_service(columns, *times)


def number_blocks(ids, offsets):
    """Number block ids densely as first seen, and find each block's parent.

    Parameters
    ----------
    ids : (total,) ndarray of int64
        Any whole numbers; each request's blocks from the root on, request after request.
    offsets : (n_requests + 1,) ndarray of int64

    Returns
    -------
    ids, parent, depth : ndarrays of int32

    Raises
    ------
    PrefixError
        If a block follows two different blocks, so that its id does not name a whole prefix.
    """
    if len(ids) >= 2**31:
        raise InputError(f"{len(ids):,} block accesses are more than one trace can hold (2**31)")
    low, high = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
    if high - low < 4 * len(ids):
        found = _number(ids, low, high - low + 1, offsets)
    else:
        found = _number(*_find_slots(ids), offsets)
    dense, parent, depth, conflict = found
    if conflict >= 0:
        request = int(np.searchsorted(offsets, conflict, side="right")) - 1
        raise PrefixError(request, int(ids[conflict]))
    return dense, parent, depth


class PrefixError(InputError):
    """A block id follows two different blocks; `request` is the 0-based request that shows it, `block` the id."""

    def __init__(self, request, block):
        super().__init__(
            f"block id {block} follows another block than in an earlier request (or stands twice in one): "
            "in a prefix trace an id names the whole prefix up to the block's end"
        )
        self.request, self.block = request, block


@njit(cache=True, nogil=True)
def _find_slots(ids):
    """Return a number for each id, equal for equal ids alone; also the least one, 0, and how many there may be."""
    size = 16
    while size < 2 * len(ids):
        size *= 2
    table, is_taken, mask = np.empty(size, np.int64), np.zeros(size, np.bool_), np.uint64(size - 1)
    slots = np.empty(len(ids), np.int64)
    for k in range(len(ids)):
        h = np.uint64(ids[k]) * np.uint64(0x9E3779B97F4A7C15)
        slot = (h ^ (h >> np.uint64(32))) & mask
        while is_taken[slot] and table[slot] != ids[k]:
            slot = (slot + np.uint64(1)) & mask
        table[slot], is_taken[slot] = ids[k], True
        slots[k] = slot
    return slots, 0, size


@njit(cache=True, nogil=True)
def _number(ids, low, size, offsets):
    """Number ids from `low` to below `low + size`; the last value is where one follows two others, else -1."""
    table = np.full(size, -1, np.int32)
    dense = np.empty(len(ids), np.int32)
    parent, depth = np.empty(len(ids), np.int32), np.empty(len(ids), np.int32)
    count = 0
    for i in range(len(offsets) - 1):
        last = -1
        for k in range(offsets[i], offsets[i + 1]):
            block = table[ids[k] - low]
            if block < 0:
                block = table[ids[k] - low] = count
                parent[block], depth[block] = last, k - offsets[i]
                count += 1
            elif parent[block] != last:
                return dense, parent, depth, k
            dense[k] = block
            last = block
    return dense, parent[:count].copy(), depth[:count].copy(), -1


def select_requests(accesses, requests, arrival_s=None):
    """Return some of the requests, in any order, as a PrefixTrace of their own.

    Parameters
    ----------
    accesses : PrefixTrace
    requests : (n,) ndarray of int64
        Positions, in the new order of arrival.
    arrival_s : (n,) ndarray of float64, optional
        New arrival times in seconds, ascending; the old ones if not given. Service times stay the same.

    Returns
    -------
    PrefixTrace
        Blocks are numbered again, as first seen. `previous` is None: continued requests may be missing.
    """
    lengths = accesses.blocks[requests]
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    ids, parent, depth = _gather(accesses.ids, accesses.offsets, accesses.parent, accesses.depth, requests, offsets)
    runs_s = (accesses.finish_s - accesses.arrival_s)[requests]
    arrival_s = accesses.arrival_s[requests] if arrival_s is None else arrival_s
    return replace(
        accesses, ids=ids, offsets=offsets, last_weight=accesses.last_weight[requests],
        prompt_tokens=accesses.prompt_tokens[requests], parent=parent, depth=depth, arrival_s=arrival_s,
        finish_s=arrival_s + runs_s, conversation=accesses.conversation[requests], previous=None,
        output_tokens=None if accesses.output_tokens is None else accesses.output_tokens[requests],
        turn=None if accesses.turn is None else accesses.turn[requests],
        after=None if accesses.after is None else accesses.after[requests],
        types=None if accesses.types is None else [accesses.types[i] for i in requests],
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _gather(ids, offsets, parent, depth, requests, new_offsets):
    renamed = np.full(len(parent), -1, np.int32)
    new_ids = np.empty(new_offsets[-1], np.int32)
    new_parent, new_depth = np.empty(len(parent), np.int32), np.empty(len(parent), np.int32)
    count = 0
    for i in range(len(requests)):
        start = offsets[requests[i]]
        for k in range(new_offsets[i + 1] - new_offsets[i]):
            block = ids[start + k]
            if renamed[block] < 0:
                renamed[block] = count
                new_depth[count] = depth[block]
                new_parent[count] = renamed[parent[block]] if parent[block] >= 0 else -1
                count += 1
            new_ids[new_offsets[i] + k] = renamed[block]
    return new_ids, new_parent[:count].copy(), new_depth[:count].copy()
