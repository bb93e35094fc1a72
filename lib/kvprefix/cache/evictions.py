"""What a policy evicts: each eviction of a replay, with the depth, age and turn of the block, and what it costs."""

from dataclasses import dataclass

import numpy as np

from kvprefix.cache.own import count_turns
from kvprefix.cache.policies import find_policy
from kvprefix.cache.replay import replay_on_tree
from kvprefix.files.paths import InputError


@dataclass(frozen=True)
class Evictions:
    """The evictions of a replay, in order.

    Attributes
    ----------
    block, request : (n,) ndarrays of int32
        What was evicted, and the position of the request that caused it.
    depth, age, turn : (n,) ndarrays of int64
        The block's 0-based position in its prompts; the requests since its last access; the 0-based turn of the request
        that accessed it last.
    again : (n,) ndarray of bool
        Whether a later request accesses the block: an eviction that costs a hit.
    left_out : int
        Missing blocks that were not stored at all, each access counted.
    """

    block: np.ndarray
    request: np.ndarray
    depth: np.ndarray
    age: np.ndarray
    turn: np.ndarray
    again: np.ndarray
    left_out: int

    def __len__(self):
        return len(self.block)


def record_evictions(trace, capacity, policy="lru"):
    """Replay a trace through a bounded cache and record what is evicted.

    Parameters
    ----------
    trace, capacity, policy
        As in `replay.replay`.

    Returns
    -------
    Evictions

    Raises
    ------
    InputError
        As `replay.replay`, and for a policy that knows no tree.

    Examples
    --------
    Room for one block: the request for block 2 evicts block 1, which the next request accesses again.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> found = record_evictions(make_prefix_trace(make_trace_of([[1], [2], [1]]), 1), 1)
    >>> found.block, found.request, found.age, found.again
    (array([0, 1], dtype=int32), array([1, 2], dtype=int32), array([1, 1]), array([ True, False]))
    """
    known = find_policy(policy)
    if known.make_rule is None:
        raise InputError(f"policy {known.name} knows no tree; expected one whose evictions of leaves can be recorded")
    hits, cache = replay_on_tree(trace, capacity, known, record=True)
    block, request, last = cache.left[: cache.evicted[0]].T.copy()
    final = np.zeros(trace.n_distinct, np.int64)
    final[trace.ids] = np.repeat(np.arange(len(trace)), trace.blocks)  # of several requests the last one stays
    stored = cache.evicted[0] + cache.resident[0]
    return Evictions(
        block=block, request=request, depth=trace.depth[block].astype(np.int64),
        age=request.astype(np.int64) - last, turn=count_turns(trace.conversation)[last], again=final[block] > request,
        left_out=int(len(trace.ids) - hits.sum() - stored),
    )  # fmt: skip
