"""Put the token ids of pieces together to prompts and replies: compiled loops over flat arrays.

Pieces are numbered; piece k has the ids ``ids[stops[k]:stops[k + 1]]``. It knows no texts.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def assemble_prompts(pieces, offsets, kept, is_first, ids, stops, is_template):
    """Return what each prompt adds to the one before it.

    Parameters
    ----------
    pieces : ndarray of int32
        The numbers of the pieces of each prompt after the ones that are known to be the previous prompt's.
    offsets : (n + 1,) ndarray of int64
        Where those of each prompt begin in `pieces`.
    kept : (n,) ndarray of int32
        How many pieces are known to be the previous prompt's.
    is_first : (n,) ndarray of bool
        Whether a prompt has none before it.
    ids : ndarray of int32
    stops : ndarray of int64
    is_template : ndarray of bool
        Like `ids`.

    Returns
    -------
    shared : (n,) ndarray of int32
        Leading tokens equal to the previous prompt's: those of equal pieces, and equal ones of the first other piece.
    lengths : (n,) ndarray of int64
        Number of the prompt's own tokens, those after `shared`.
    own, own_is_template : ndarray of int32, of bool
        The own tokens of all prompts, one after the other.
    """
    n = len(kept)
    size, depth = 0, 0
    for p in range(n):
        depth = max(depth, kept[p] + offsets[p + 1] - offsets[p])
    for k in range(len(pieces)):
        size += stops[pieces[k] + 1] - stops[pieces[k]]
    shared, lengths = np.empty(n, np.int32), np.empty(n, np.int64)
    own, own_is_template = np.empty(size, np.int32), np.empty(size, np.bool_)
    stack, upto = np.empty(depth, np.int32), np.zeros(depth + 1, np.int64)  # the prompt's pieces, tokens up to each
    before, filled = 0, 0
    for p in range(n):
        added, first = pieces[offsets[p] : offsets[p + 1]], kept[p]
        before = 0 if is_first[p] else before
        k, last = first, first + len(added) - 1
        while k < min(before, last) and stack[k] == added[k - first]:
            k += 1
        within = 0
        if k < before:
            a, b = stack[k], added[k - first]
            within = _count_common(ids[stops[a] : stops[a + 1]], ids[stops[b] : stops[b + 1]])
        shared[p], start = upto[k] + within, filled
        for j in range(k, last + 1):
            piece = added[j - first]
            begin, end = stops[piece] + (within if j == k else 0), stops[piece + 1]
            own[filled : filled + end - begin] = ids[begin:end]
            own_is_template[filled : filled + end - begin] = is_template[begin:end]
            filled += end - begin
            stack[j], upto[j + 1] = piece, upto[j] + end - stops[piece]
        lengths[p], before = filled - start, last + 1
    return shared, lengths, own[:filled], own_is_template[:filled]


@njit(cache=True, nogil=True)
def mark_frames(heads, tails, is_constant, ids, stops):
    """Return which tokens the template wrote: those equal to the frame's at both ends of a piece, and constants.

    Parameters
    ----------
    heads, tails : ndarray of int32
        For each piece, the piece that is the text before its message, and the one after it; -1 for none.
    is_constant : ndarray of bool
        For each piece, whether the template wrote all of it.
    ids : ndarray of int32
    stops : ndarray of int64

    Returns
    -------
    ndarray of bool
        Like `ids`. A token that merges template and message is the message's.
    """
    marks = np.zeros(len(ids), np.bool_)
    for k in range(len(is_constant)):
        start, stop = stops[k], stops[k + 1]
        if is_constant[k]:
            marks[start:stop] = True
        if heads[k] >= 0:
            marks[start : start + _count_common(ids[stops[heads[k]] : stops[heads[k] + 1]], ids[start:stop])] = True
        if tails[k] >= 0:
            tail = ids[stops[tails[k]] : stops[tails[k] + 1]]
            marks[stop - _count_common(tail[::-1], ids[start:stop][::-1]) : stop] = True
    return marks


@njit(cache=True, nogil=True)
def gather_replies(last, whole, reply, ids, stops, end):
    """Return the tokens of each reply: those after the prompt's end if the two are one piece later, else its own.

    Parameters
    ----------
    last : (n,) ndarray of int32
        The last piece of each prompt.
    whole : (n,) ndarray of int32
        The piece that is the last one and the reply; -1 for none.
    reply : (n,) ndarray of int32
        The piece that is the reply alone; -1 for none.
    ids : ndarray of int32
    stops : ndarray of int64
    end : ndarray of int32
        What ends every reply.

    Returns
    -------
    lengths : (n,) ndarray of int64
        Of each reply with its end; 0 if there is none; -1 if it merges with the prompt's end and is no piece alone.
    tokens : ndarray of int32
        Those of all replies, one after the other.
    """
    size = 0
    for p in range(len(last)):
        for piece in (whole[p], reply[p]):
            size += stops[piece + 1] - stops[piece] + len(end) if piece >= 0 else 0
    lengths, tokens, filled = np.zeros(len(last), np.int64), np.empty(size, np.int32), 0
    for p in range(len(last)):
        if whole[p] < 0 and reply[p] < 0:
            continue
        piece, skipped = reply[p], 0
        if whole[p] >= 0:
            a, b = last[p], whole[p]
            n = stops[a + 1] - stops[a]
            if _count_common(ids[stops[a] : stops[a + 1]], ids[stops[b] : stops[b + 1]]) == n:
                piece, skipped = b, n
        if piece < 0:
            lengths[p] = -1
            continue
        start = filled
        for part in (ids[stops[piece] + skipped : stops[piece + 1]], end):
            tokens[filled : filled + len(part)] = part
            filled += len(part)
        lengths[p] = filled - start
    return lengths, tokens[:filled]


@njit(cache=True, nogil=True)
def _count_common(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n
