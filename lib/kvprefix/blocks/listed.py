"""Traces that list every prompt's blocks, the partial last one too, as Mooncake and Bailian publish them.

They are made from a trace with tokens or from given ids. Blocks can be made coarser, and ids that name only a block's
own tokens can be made to name the whole prefix.
"""

from dataclasses import replace

import numpy as np
from numba import njit

from kvprefix.blocks.identify import identify_rows
from kvprefix.blocks.prefix_trace import PrefixTrace, number_blocks
from kvprefix.files.checks import check_block_size
from kvprefix.files.paths import InputError
from kvprefix.tokens.arrays import Tokens


def make_listed(*, block_size, ids, offsets, parent, depth, prompt_tokens, arrival_s, previous=None, **more):
    """Make a PrefixTrace that lists partial blocks too; weights and conversations follow from the rest.

    Parameters
    ----------
    block_size, ids, offsets, parent, depth, prompt_tokens, arrival_s, previous
        As in `PrefixTrace`. A prompt of L tokens has ceil(L / block_size) blocks.
    **more
        Other fields of PrefixTrace: `info`, `output_tokens`, `turn`, `types`.

    Returns
    -------
    PrefixTrace
        A hit of a prompt's last block saves all tokens that it holds. No clock is known, so a request finishes when it
        arrives. Requests that continue one another are a conversation; without `previous` each request is one.
    """
    conversation = np.arange(len(prompt_tokens)) if previous is None else number_conversations(previous)
    return PrefixTrace(
        block_size=block_size, ids=ids, offsets=offsets, parent=parent, depth=depth, prompt_tokens=prompt_tokens,
        last_weight=_weigh_last(prompt_tokens, offsets, block_size), arrival_s=arrival_s, finish_s=arrival_s,
        conversation=conversation, previous=previous, **more,
    )  # fmt: skip


def _weigh_last(prompt_tokens, offsets, block_size):
    blocks = np.diff(offsets)
    return np.where(blocks > 0, prompt_tokens - block_size * (blocks - 1), 0)


def number_conversations(previous):
    """Return the conversation of each request, 0, 1, ... as first seen: requests that continue one another.

    >>> number_conversations(np.array([-1, 0, -1, 1]))
    array([0, 0, 1, 0])
    """
    if (previous < 0).all():
        return np.arange(len(previous))
    numbers, count = [], 0
    for before in previous.tolist():
        numbers.append(numbers[before] if before >= 0 else count)
        count += before < 0
    return np.array(numbers, np.int64)


def check_listed(trace):
    """Raise InputError if a trace lists only the full blocks of some prompt, or has an engine's weights."""
    weights = _weigh_last(trace.prompt_tokens, trace.offsets, trace.block_size)
    whole = np.array_equal(trace.blocks, -(-trace.prompt_tokens // trace.block_size))
    if not whole or not np.array_equal(trace.last_weight, weights):
        raise InputError(
            "the trace lists only the full blocks of its prompts; expected the partial last ones too, as `list_blocks` "
            "makes them of tokens"
        )


def complete_blocks(trace):
    """Return a trace that lists the partial last block of each prompt too.

    Of a prompt that lists its full blocks alone, what is left gets a block of its own, which is never hit: it is not
    known which of these are the same.

    Parameters
    ----------
    trace : PrefixTrace
    """
    missing = -(-trace.prompt_tokens // trace.block_size) - trace.blocks
    if not missing.any():
        return trace
    offsets = trace.offsets + np.concatenate(([0], np.cumsum(missing)))
    ids = np.empty(offsets[-1], np.int64)
    is_new = np.zeros(len(ids), bool)
    is_new[offsets[1:][missing > 0] - 1] = True
    ids[~is_new], ids[is_new] = trace.ids, trace.n_distinct + np.arange(int(is_new.sum()))
    ids, parent, depth = number_blocks(ids, offsets)
    last_weight = _weigh_last(trace.prompt_tokens, offsets, trace.block_size)
    return replace(trace, ids=ids, offsets=offsets, parent=parent, depth=depth, last_weight=last_weight)


def list_blocks(trace, block_size):
    """List the blocks of a trace with tokens, with the partial last block of each prompt.

    Parameters
    ----------
    trace : Trace
    block_size : int
        Tokens per block.

    Returns
    -------
    PrefixTrace
        With `output_tokens`, `previous` and `turn`. A partial block is never a full one that begins alike.

    Examples
    --------
    Prompts of 5, 4 and 5 tokens in blocks of 2: equal partial blocks (5) after equal tokens are one block, and it
    differs from the full block (5, 6).

    >>> from kvprefix.traces.trace import make_trace_of
    >>> trace = make_trace_of([[1, 2, 3, 4, 5], [1, 2, 5, 6], [1, 2, 3, 4, 5]])
    >>> list_blocks(trace, 2).ids
    array([0, 1, 2, 0, 3, 0, 1, 2], dtype=int32)
    """
    block_size = check_block_size(block_size)
    blocks = identify_rows(pad_prompts(trace.tokens, block_size), trace.rows, block_size)
    return make_listed(
        block_size=block_size, ids=blocks.ids, offsets=blocks.offsets, parent=blocks.parent, depth=blocks.depth,
        prompt_tokens=trace.column("prompt_tokens"), arrival_s=trace.arrival_s,
        previous=_find_previous(trace.column("conversation_index").tolist(), trace.column("turn").tolist()),
        output_tokens=trace.column("output_tokens"), turn=trace.column("turn"), info={"notes": []},
    )  # fmt: skip


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

    A prompt shares only real tokens of its parent, never the fill, so nothing else changes.
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


def number_chains(ids, offsets):
    """Number blocks by their id and all ids before it in their request, densely, as first seen.

    For ids that name only a block's own tokens: the same id after another block becomes another block.

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
    blocks = identify_rows(tokens, np.arange(n), 1)
    return blocks.ids, blocks.parent, blocks.depth


def coarsen_blocks(trace, block_size):
    """Return a trace of larger blocks, each named by the last of its finer blocks.

    Parameters
    ----------
    trace : PrefixTrace
        One that lists partial blocks too.
    block_size : int
        Tokens, a multiple of the trace's own block size.

    Raises
    ------
    InputError
        A block size that is no multiple of the trace's, or a trace that lists only full blocks.

    Notes
    -----
    An id names the whole prefix up to its block's end, so the id of the last finer block names the coarser block. A
    prompt's last, partial block may have fewer finer blocks.
    """
    times, rest = divmod(check_block_size(block_size), trace.block_size)
    if rest or not times:
        raise InputError(
            f"block size is {block_size}; a trace that lists blocks of {trace.block_size} tokens can only be written "
            f"with a multiple of that, such as {trace.block_size} or {2 * trace.block_size}"
        )
    check_listed(trace)
    if times == 1:
        return trace
    fine = np.diff(trace.offsets)
    offsets = np.concatenate(([0], np.cumsum(-(-fine // times))))
    request = np.repeat(np.arange(len(fine)), np.diff(offsets))
    position = (np.arange(offsets[-1]) - offsets[request] + 1) * times  # the next finer block after the coarser one
    last = np.minimum(position, fine[request]) - 1
    ids, parent, depth = number_blocks(trace.ids[trace.offsets[request] + last].astype(np.int64), offsets)
    last_weight = _weigh_last(trace.prompt_tokens, offsets, block_size)
    return replace(
        trace, block_size=block_size, ids=ids, offsets=offsets, parent=parent, depth=depth, last_weight=last_weight
    )
