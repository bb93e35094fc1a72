"""Traces that list the blocks of each prompt, without tokens or texts: what Mooncake and Bailian publish.

Made of a trace with tokens, or read from a file (`mooncake`, `bailian`); made coarser; turned into what the caches see.
"""

import functools
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.identify import identify_blocks
from kvprefix.blocks.prefix_trace import PrefixTrace, number_blocks
from kvprefix.files.checks import check_block_size
from kvprefix.files.paths import InputError
from kvprefix.tokens.arrays import Tokens


@dataclass(frozen=True)
class BlockTrace:
    """Requests in arrival order, each known by the blocks of its prompt.

    Attributes
    ----------
    block_size : int
        Tokens a block. A prompt of L tokens has ceil(L / block_size) blocks. Its last one may be partial, and is then
        another block than a full one that begins alike.
    arrival_s : (n,) ndarray of float64
        Seconds, ascending.
    prompt_tokens, output_tokens : (n,) ndarray of int64
    ids : (total,) ndarray of int32
        Request after request, from the root on. An id names the whole prefix; dense, numbered as first seen.
    offsets : (n + 1,) ndarray of int64
        Request i's blocks are ``ids[offsets[i]:offsets[i + 1]]``.
    parent, depth : (n_distinct,) ndarrays of int32
        As in `PrefixTrace`.
    previous : (n,) ndarray of int64
        The request that each one goes on from, always an earlier one; -1 for none, or where that is not known.
    turn : (n,) ndarray of int64
        0-based.
    types : list of str
        What Bailian says of each request: text, search, image, file, ...
    info : dict
        Where it comes from: `trace` (a name), and `notes` on what was put right.
    """

    block_size: int
    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    previous: np.ndarray
    turn: np.ndarray
    types: list = field(repr=False)
    info: dict

    def __len__(self):
        return len(self.prompt_tokens)

    @functools.cached_property
    def conversation(self):
        """The conversation of each request, 0, 1, ... as first seen: what goes on from one another, (n,) int64."""
        if (self.previous < 0).all():
            return np.arange(len(self))
        numbers, count = [], 0
        for before in self.previous.tolist():
            numbers.append(numbers[before] if before >= 0 else count)
            count += before < 0
        return np.array(numbers, np.int64)

    def make_prefix_trace(self):
        """Return what a cache sees, as `PrefixTrace`: no clock is known, so a request finishes as it arrives."""
        blocks = np.diff(self.offsets)
        last_weight = np.where(blocks > 0, self.prompt_tokens - self.block_size * (blocks - 1), 0)
        return PrefixTrace(
            block_size=self.block_size, ids=self.ids, offsets=self.offsets, parent=self.parent, depth=self.depth,
            last_weight=last_weight, prompt_tokens=self.prompt_tokens, arrival_s=self.arrival_s,
            finish_s=self.arrival_s, conversation=self.conversation, info=self.info,
        )  # fmt: skip


def make_block_trace(trace, block_size):
    """List the blocks of a trace with tokens, the partial last one of each prompt included.

    Parameters
    ----------
    trace : Trace
    block_size : int
        Tokens a block.

    Returns
    -------
    BlockTrace

    Examples
    --------
    Prompts of 5, 4 and 5 tokens in blocks of 2: equal partial blocks after equal tokens are one block, (5), and another
    one than the full (5, 6).

    >>> from kvprefix.traces.trace import make_trace_of
    >>> trace = make_trace_of([[1, 2, 3, 4, 5], [1, 2, 5, 6], [1, 2, 3, 4, 5]])
    >>> make_block_trace(trace, 2).ids
    array([0, 1, 2, 0, 3, 0, 1, 2], dtype=int32)
    """
    block_size = check_block_size(block_size)
    blocks = identify_blocks(_Rows(pad_prompts(trace.tokens, block_size), trace.rows), block_size)
    requests = trace.requests
    previous = _find_previous(requests["conversation_index"].tolist(), requests["turn"].tolist())
    return BlockTrace(
        block_size, trace.arrival_s, requests["prompt_tokens"].to_numpy(), requests["output_tokens"].to_numpy(),
        blocks.ids, blocks.offsets, blocks.parent, blocks.depth, previous, requests["turn"].to_numpy(),
        ["text"] * len(trace), {"notes": []},
    )  # fmt: skip


class _Rows(NamedTuple):
    """What `identify_blocks` reads of a trace."""

    tokens: Tokens
    rows: np.ndarray


def number_chains(ids, offsets):
    """Number blocks by what they hold and all that precedes them in their request, densely, as first seen.

    For ids that name a block's own tokens only: the same id after another block becomes another block.

    Parameters
    ----------
    ids : (total,) ndarray of int64
    offsets : (n_requests + 1,) ndarray of int64

    Returns
    -------
    ids, parent, depth : ndarrays of int32

    Examples
    --------
    >>> number_chains(np.array([7, 9, 8, 9]), np.array([0, 2, 4]))[0]
    array([0, 1, 2, 3], dtype=int32)
    """
    contents = np.unique(ids, return_inverse=True)[1].astype(np.int32)
    n, nothing = len(offsets) - 1, np.zeros(len(offsets), np.int64)
    flags = np.zeros(len(ids), bool)
    tokens = Tokens(np.full(n, -1), nothing[:-1], offsets, contents, flags, nothing, contents[:0])
    blocks = identify_blocks(_Rows(tokens, np.arange(n)), 1)
    return blocks.ids, blocks.parent, blocks.depth


def _find_previous(conversations, turns):
    """Return each request's previous turn: the last request of its conversation before it, if that has a lower turn."""
    latest, previous = {}, np.full(len(turns), -1)
    for i, (conversation, turn) in enumerate(zip(conversations, turns, strict=True)):
        before = latest.get((conversation, turn - 1), latest.get(conversation, -1))
        previous[i] = before if before >= 0 and turns[before] < turn else -1
        latest[conversation] = latest[conversation, turn] = i
    return previous


def pad_prompts(tokens, block_size):
    """Return Tokens whose prompts are filled up to whole blocks with -1, which is no token.

    A prompt that shares another's beginning shares none of what fills that up, so nothing else changes.
    """
    missing = -tokens.prompt_lengths() % block_size
    own_offsets = tokens.own_offsets + np.concatenate(([0], np.cumsum(missing)))
    own = _fill(tokens.own, tokens.own_offsets, own_offsets)
    flags = np.zeros(len(own), bool)
    return Tokens(tokens.parent, tokens.shared, own_offsets, own, flags, tokens.output_offsets, tokens.output)


@njit(cache=True, nogil=True)
def _fill(own, offsets, new_offsets):
    out = np.full(new_offsets[-1], -1, np.int32)
    for row in range(len(offsets) - 1):
        length = offsets[row + 1] - offsets[row]
        out[new_offsets[row] : new_offsets[row] + length] = own[offsets[row] : offsets[row + 1]]
    return out


def coarsen_blocks(trace, block_size):
    """Return a trace of larger blocks: each is named by the last of the finer ones that it is made of.

    Parameters
    ----------
    trace : BlockTrace
    block_size : int
        Tokens, a multiple of the trace's own block size.

    Raises
    ------
    InputError
        A finer block size, or one that is no multiple.

    Notes
    -----
    An id names the whole prefix up to its block's end, so the last finer block of a coarser one names what all of them
    name. A prompt's last, partial block may be made of fewer finer ones.
    """
    times, rest = divmod(check_block_size(block_size), trace.block_size)
    if rest or not times:
        raise InputError(
            f"block size is {block_size}; a trace that lists blocks of {trace.block_size} tokens can only be written "
            f"with a multiple of that, such as {trace.block_size} or {2 * trace.block_size}"
        )
    if times == 1:
        return trace
    fine = np.diff(trace.offsets)
    offsets = np.concatenate(([0], np.cumsum(-(-fine // times))))
    request = np.repeat(np.arange(len(fine)), np.diff(offsets))
    position = (np.arange(offsets[-1]) - offsets[request] + 1) * times  # of the finer block after the coarser one
    last = np.minimum(position, fine[request]) - 1
    ids, parent, depth = number_blocks(trace.ids[trace.offsets[request] + last].astype(np.int64), offsets)
    return replace(trace, block_size=block_size, ids=ids, offsets=offsets, parent=parent, depth=depth)
