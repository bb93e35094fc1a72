"""The caches of several replicas, LRU as `rules.lru.replay_recent`, and which of them holds how much of a prompt."""

from typing import NamedTuple

import numpy as np
from numba import njit

BITS = 63  # replicas that one whole number tells of


class Caches(NamedTuple):
    """What the replicas hold.

    Attributes
    ----------
    last : (replicas, n_distinct) ndarray of int32
        One more than the request that accessed a block last on a replica; 0 if none did.
    holders : (n_distinct, words) ndarray of int64
        The replicas on which a block is resident, a bit each.
    left_from, kept_to : (n_requests,) ndarrays of int32
        The blocks of a request's path that are resident on its replica, and that it accessed last.
    following : (n_requests,) ndarray of int32
        The next request of the same replica, -1 if there is none yet.
    room, oldest, newest : (replicas,) ndarrays of int64
        Free blocks of each replica; its oldest request that may hold blocks, -1 if there is none, and its newest.
    """

    last: np.ndarray
    holders: np.ndarray
    left_from: np.ndarray
    kept_to: np.ndarray
    following: np.ndarray
    room: np.ndarray
    oldest: np.ndarray
    newest: np.ndarray


def make_caches(n_requests, n_distinct, replicas, capacity):
    """Make empty caches."""
    return Caches(
        last=np.zeros((replicas, n_distinct), np.int32), holders=np.zeros((n_distinct, -(-replicas // BITS)), np.int64),
        left_from=np.zeros(n_requests, np.int32), kept_to=np.zeros(n_requests, np.int32),
        following=np.full(n_requests, -1, np.int32), room=np.full(replicas, capacity), oldest=np.full(replicas, -1),
        newest=np.full(replicas, -1),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def find_matches(caches, path, found, left):
    """Find how many leading blocks of a path each replica holds, in `found`; `left` is room for a word per holder."""
    n, words = len(found), len(left)
    for word in range(words):
        left[word] = (1 << min(n - word * BITS, BITS)) - 1
    for k in range(len(path)):
        some = 0
        for word in range(words):
            gone = left[word] & ~caches.holders[path[k], word]
            left[word] &= ~gone
            some |= left[word]
            replica = word * BITS
            while gone:
                if gone & 1:
                    found[replica] = k
                gone >>= 1
                replica += 1
        if not some:
            return
    for replica in range(n):
        if left[replica // BITS] >> (replica % BITS) & 1:
            found[replica] = len(path)


@njit(cache=True, nogil=True)
def serve(caches, trace, now, own, hit):
    """Let a replica serve a request whose `hit` leading blocks it holds: it stores the others, and evicts for them."""
    ids, start, n_blocks = trace.ids, trace.offsets[now], trace.offsets[now + 1] - trace.offsets[now]
    last, word, bit = caches.last[own], own // BITS, 1 << (own % BITS)
    for k in range(hit):
        caches.left_from[last[ids[start + k]] - 1] = k + 1
        last[ids[start + k]] = now + 1
    room = caches.room[own]
    while room < n_blocks - hit and caches.oldest[own] >= 0:
        request = caches.oldest[own]
        kept = caches.kept_to[request]
        stretch = max(kept - caches.left_from[request], 0)
        freed = min(stretch, n_blocks - hit - room)
        for k in range(trace.offsets[request] + kept - freed, trace.offsets[request] + kept):
            caches.holders[ids[k], word] &= ~bit
        caches.kept_to[request] -= freed
        room += freed
        if freed == stretch:
            caches.oldest[own] = caches.following[request]
    stored = min(n_blocks, hit + room)
    for k in range(start + hit, start + stored):
        last[ids[k]] = now + 1
        caches.holders[ids[k], word] |= bit
    caches.room[own] = room - (stored - hit)
    caches.kept_to[now] = stored
    if caches.oldest[own] < 0:
        caches.oldest[own] = now
    else:
        caches.following[caches.newest[own]] = now
    caches.newest[own] = now
