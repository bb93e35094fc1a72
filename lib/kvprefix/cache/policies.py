"""The eviction policies: what each is, by whom, and its setting.

The scores by which a cache chooses the leaf to evict, and how to add one, are at the top of `prefixtree`; the rules
that all policies share in `cache`.
"""

from numbers import Real
from typing import NamedTuple

import numpy as np

from kvprefix.files.paths import InputError

LRU, FIFO, FIFO_FLAT, LFU, SLRU, S3FIFO, GDSF, TTL, OPT = range(9)
NEVER = np.iinfo(np.int32).max


class Policy(NamedTuple):
    """An eviction policy: its number in the compiled core, its name in figures, its setting and what it is."""

    code: int
    label: str
    setting: float | None
    definition: str


POLICIES = {
    "lru": Policy(LRU, "LRU", None, "Least recently used: the score is the last access (Mattson et al., 1970)."),
    "fifo": Policy(FIFO, "FIFO (leaf)", None, "First in, first out among leaves: the score is the time of storing."),
    "fifo_flat": Policy(
        FIFO_FLAT, "FIFO (flat)", None,
        "First in, first out as web caches do it: the block stored first goes, though resident ones may need it. "
        "A request's tail is stored first, so that its root stays longest.",
    ),
    "lfu": Policy(
        LFU, "LFU", None,
        "Least frequently used: the score is the number of accesses since the block was stored; of equal ones the "
        "least recently used goes first.",
    ),
    "slru": Policy(
        SLRU, "SLRU", 0.8,
        "Segmented LRU (Karedla, Love and Wherry, 1994): new blocks are on probation, a hit one is protected; "
        "the protected part is at most 'setting' of the capacity, and what overflows, least recently used first, goes "
        "back on probation as if just used. Leaves on probation go first, least recently used first.",
    ),
    "s3fifo": Policy(
        S3FIFO, "S3-FIFO", 0.1,
        "S3-FIFO (Yang et al., SOSP 2023): new blocks enter a small queue, at most 'setting' of the capacity before "
        "its oldest leaf goes; one hit twice meanwhile moves to the main queue instead. The main queue's oldest leaf "
        "goes unless it was hit, which puts it back (up to three times). A block evicted from the small queue is "
        "remembered, for as many evictions from that queue as the main queue is large, and enters the main queue when "
        "it comes back.",
    ),
    "gdsf": Policy(
        GDSF, "GDSF (FLOPs)", 3.3e-5,
        "Greedy-Dual-Size-Frequency (Cherkasova, 1998): the score is the accesses since storing times the cost of "
        "computing the block again, plus the score of the block evicted last. The cost is 1 + 'setting' * the "
        "position of the block's middle in tokens: attention over what is before it, relative to the rest (the default "
        "is Llama-3.1-8B's: 4 * 32 layers * 4096 FLOPs a token of context against 2 * 8.0e9).",
    ),
    "ttl": Policy(
        TTL, "TTL", 600.0,
        "Time to live: a block that was not accessed for more than 'setting' seconds is dropped; room is made as in "
        "LRU.",
    ),
    "opt": Policy(
        OPT, "OPT", None,
        "Belady's MIN (1966) with bypass: the leaf whose next access is farthest goes, and a block whose own is "
        "farther still is not stored. An access to a block accesses its ancestors, so the block with the farthest next "
        "access is always a leaf: no policy hits more blocks.",
    ),
}  # fmt: skip


def find_policy(name):
    """Return a policy by name, or raise InputError with the known ones."""
    if name not in POLICIES:
        raise InputError(f"policy {name!r} is not known; known: {', '.join(POLICIES)}")
    return POLICIES[name]


def check_setting(policy, setting=None):
    """Return a policy's setting, its default if none is given, or raise InputError where it is out of range."""
    default = find_policy(policy).setting
    if setting is None:
        return default
    if default is None:
        raise InputError(f"policy {policy} has no setting")
    most = 1.0 if policy in ("slru", "s3fifo") else float("inf")
    if isinstance(setting, bool) or not isinstance(setting, Real) or not 0 <= setting <= most:
        expected = "a share between 0 and 1" if most == 1.0 else "a number, 0 or more"
        raise InputError(f"policy {policy}: its setting is {setting!r}; expected {expected}")
    return setting
