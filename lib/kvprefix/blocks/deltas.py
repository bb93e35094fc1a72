"""Make whole prompts of requests that list only what is new in their conversation.

A conversation is one stream of tokens: of each request what it lists, then its reply. A prompt is all of the stream up
to the request's reply. What a request lists is ids of blocks of its own tokens, the last one perhaps partial, so in the
stream they lie across the blocks of the prompts; the tokens themselves are not known, only which are the same.
"""

import numpy as np
from numba import njit

from kvprefix.blocks.hashing import fold, number_keys

_REPLY = np.int64(-(2**62))  # what stands for the reply of request i is _REPLY + i: no other tokens are the same


def join_deltas(ids, offsets, lengths, replies, conversation, block_size):
    """Return the blocks of whole prompts.

    Parameters
    ----------
    ids : (total,) ndarray of int64
        0 or more. What each request lists, request after request: blocks of its own new tokens.
    offsets : (n + 1,) ndarray of int64
    lengths : (n,) ndarray of int64
        New tokens of each request: its last block holds what is left of them.
    replies : (n,) ndarray of int64
        Tokens that follow each request's prompt in the conversation; 0 if the next request lists them.
    conversation : (n,) ndarray of int64
        The requests of a conversation stand together, in their order.
    block_size : int

    Returns
    -------
    ids : (new total,) ndarray of int64
        The blocks of each whole prompt, its partial last one too; equal ids are equal prefixes.
    offsets : (n + 1,) ndarray of int64
    prompt_tokens : (n,) ndarray of int64

    Examples
    --------
    Two tokens a block, one of reply: the second prompt has the tokens 7, 7, 8, a reply, 9 and 9.

    >>> join_deltas(np.array([7, 8, 9]), np.array([0, 2, 3]), np.array([3, 2]), np.array([1, 0]), np.array([0, 0]), 2)
    (array([0, 3, 0, 1, 2]), array([0, 2, 5]), array([3, 6]))
    """
    ends = np.cumsum(lengths + replies)
    first = np.concatenate(([True], conversation[1:] != conversation[:-1])) if len(conversation) else np.zeros(0, bool)
    begins = np.concatenate(([0], ends[:-1]))
    prompt_tokens = begins + lengths - np.maximum.accumulate(np.where(first, begins, 0))
    most = int(np.ceil((lengths + replies) / block_size).sum()) + 2 * len(lengths)
    keys, starts, last = _hash(ids, offsets, lengths, replies, first, block_size, most)
    numbers, _ = number_keys([keys])
    new_offsets = np.concatenate(([0], np.cumsum(-(-prompt_tokens // block_size))))
    return _lay_out(numbers.astype(np.int64), starts, last, new_offsets), new_offsets, prompt_tokens


@njit(cache=True, nogil=True)
def _hash(ids, offsets, lengths, replies, first, block_size, most):
    """Return keys of blocks, of each request where its conversation's full blocks start, and its partial block or -1.

    The full blocks of a conversation stand together, then the partial ones.
    """
    n = len(lengths)
    full, partial = np.empty((most, 2), np.uint64), np.empty((n, 2), np.uint64)
    starts, last = np.empty(n, np.int64), np.full(n, -1)
    n_full, n_partial, filled, start = 0, 0, 0, 0
    a, b = np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344)
    root = a, b
    for i in range(n):
        if first[i]:
            (a, b), filled, start = root, 0, n_full
        starts[i] = start
        left = lengths[i]
        for k in range(offsets[i], offsets[i + 1]):
            a, b, filled, n_full = _feed(ids[k], min(left, block_size), a, b, filled, full, n_full, block_size)
            left -= block_size
        if filled:
            last[i] = n_partial
            partial[n_partial, 0], partial[n_partial, 1] = fold(a, b, filled)
            n_partial += 1
        a, b, filled, n_full = _feed(_REPLY + i, replies[i], a, b, filled, full, n_full, block_size)
    last = np.where(last < 0, last, last + n_full)
    return np.concatenate((full[:n_full], partial[:n_partial])), starts, last


@njit(cache=True, nogil=True)
def _feed(piece, length, a, b, filled, full, n_full, block_size):
    """Append the tokens of a piece to the stream: each block that they fill gets its key."""
    at = 0
    while at < length:
        taken = min(length - at, block_size - filled)
        a, b = fold(a, b, piece)
        a, b = fold(a, b, (np.int64(at) << np.int64(32)) | np.int64(taken))
        at, filled = at + taken, filled + taken
        if filled == block_size:
            a, b = fold(a, b, 0)
            full[n_full, 0], full[n_full, 1] = a, b
            n_full, filled = n_full + 1, 0
    return a, b, filled, n_full


@njit(cache=True, nogil=True)
def _lay_out(numbers, starts, last, offsets):
    ids = np.empty(offsets[-1], np.int64)
    for i in range(len(starts)):
        n_full = offsets[i + 1] - offsets[i] - (last[i] >= 0)
        ids[offsets[i] : offsets[i] + n_full] = numbers[starts[i] : starts[i] + n_full]
        if last[i] >= 0:
            ids[offsets[i + 1] - 1] = numbers[last[i]]
    return ids
