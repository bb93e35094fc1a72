"""The policies with hints: what a cache wins that is told more than the block accesses.

Each is made for one trace and its `hints.Hints`, and can be used wherever a Policy can. The time to live, which a hit
renews, needs no hint: it is among the policies that all have.
"""

import numpy as np

from kvprefix.cache.hints import Hints
from kvprefix.cache.rules.classes import make_priority_policy, make_session_policy, make_tool_policy
from kvprefix.cache.rules.pin import make_pin_policy
from kvprefix.cache.rules.ttl import TTL
from kvprefix.files.paths import InputError
from kvprefix.files.words import guess

HINTED = {
    "ttl": lambda hints: TTL, "pin": make_pin_policy, "session": make_session_policy, "tool": make_tool_policy,
    "priority": make_priority_policy,
}  # fmt: skip
DESCRIBED = {name: make(Hints(*(np.zeros(0, np.int64) for _ in Hints._fields))) for name, make in HINTED.items()}


def make_hinted(name, hints):
    """Return a policy with hints by its name.

    Parameters
    ----------
    name : str
        In HINTED.
    hints : Hints
        Of the trace that is to be replayed.

    Raises
    ------
    InputError
        A policy that is not known.

    Examples
    --------
    Room for two blocks: LRU evicts the system prompt "1" for the third request, which the fourth begins with.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.cache.hints import read_hints
    >>> from kvprefix.cache.replay import replay
    >>> from kvprefix.traces.trace import make_trace_of
    >>> blocks = make_prefix_trace(make_trace_of([[1], [2], [3], [1]]), 1)
    >>> pinned = make_hinted("pin", read_hints(blocks, system_blocks=[1, 0, 0, 1]))
    >>> replay(blocks, 2, pinned, setting=0.5), replay(blocks, 2, "lru")
    (array([0, 0, 0, 1]), array([0, 0, 0, 0]))
    """
    if name not in HINTED:
        raise InputError(f"policy {name!r} is not known; known with hints: {', '.join(HINTED)}{guess(name, HINTED)}")
    return HINTED[name](hints)


def list_hinted(hints):
    """Return the names of the policies that a trace's hints tell anything: of the others, each is LRU."""
    told = {
        "ttl": True, "pin": hints.system_blocks.any(), "session": hints.turn_class.any(),
        "tool": len(np.unique(hints.calls_tool)) > 1, "priority": len(np.unique(hints.priority)) > 1,
    }  # fmt: skip
    return [name for name, is_told in told.items() if is_told]
