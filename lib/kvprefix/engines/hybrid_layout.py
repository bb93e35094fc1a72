"""The groups of layers of a hybrid model, and the sizes that vLLM's rules take from them, for compiled code."""

from typing import NamedTuple

import numpy as np

from kvprefix.engines.groups import KINDS

FULL, WINDOW, CHUNK, STATE = range(len(KINDS))

_GROUP = np.dtype([(name, np.int64) for name in (
    "kind",
    "span",  # tokens of the window or chunk
    "size",  # tokens of a block
    "need",  # blocks that a window needs for a hit
    "cap",  # blocks that a request is counted with at most when it is admitted
    "scale",  # units of hashing in a block
)])  # fmt: skip


class Layout(NamedTuple):
    """The groups of a model, as arrays and numbers for compiled code.

    Attributes
    ----------
    groups : (n_groups,) ndarray of _GROUP
        In the order in which they take blocks.
    members, offsets : ndarrays of int64
        Groups that are looked up together, those of full attention first: ``members[offsets[k]:offsets[k + 1]]``.
    unit : int
        Tokens: hits are multiples of it; the least common multiple of the block sizes.
    hashed : int
        Tokens: the greatest common divisor of the block sizes.
    retention : int
        Tokens between the checkpoints of windows and recurrent states; 0 keeps the ends of prompts only, -1 all.
    drop : int
        Units at the end of a hit that are computed again: 0 or 1.
    step_tokens : int
        That a step computes at most.
    state_size : int
        Tokens of a recurrent group's block, 0 if there is none.
    """

    groups: np.ndarray
    members: np.ndarray
    offsets: np.ndarray
    unit: int
    hashed: int
    retention: int
    drop: int
    step_tokens: int
    state_size: int


def make_layout(groups, retention, drop_last_unit, step_tokens):
    """Return the Layout of some Groups; a retention of None keeps everything."""
    sizes = [group.block_size for group in groups]
    hashed = int(np.gcd.reduce(sizes))
    table = np.array([_measure(group, step_tokens, hashed) for group in groups], _GROUP)
    known = sorted(dict.fromkeys(groups), key=lambda group: group.kind != "full")
    members = [[g for g, group in enumerate(groups) if group == one] for one in known]
    return Layout(
        table, np.concatenate(members), np.cumsum([0, *map(len, members)]), int(np.lcm.reduce(sizes)), hashed,
        -1 if retention is None else int(retention), int(drop_last_unit), int(step_tokens),
        next((group.block_size for group in groups if group.kind == "state"), 0),
    )  # fmt: skip


def _measure(group, step_tokens, hashed):
    """Return a group's row of the table."""
    kind, size, span = KINDS.index(group.kind), group.block_size, group.span or 0
    need, cap = -(-max(span - 1, 0) // size), 2**62
    if kind == WINDOW:
        cap = -(-(span - 1 + step_tokens) // size) + 1  # it may begin within a block
    if kind == CHUNK:
        cap = -(-(span + step_tokens) // size)
    return kind, span, size, need, cap, size // hashed
