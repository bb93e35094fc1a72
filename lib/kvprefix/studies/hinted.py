"""The study of policies with hints: what each wins over LRU, and how much of what the optimum would win.

Hints are read off the workload: sessions and their turns, pauses, calls of tools, system prompts, and the priorities in
the bodies of a log of calls, as vLLM takes them (the lower, the more urgent; 0 if not given). A policy that they tell
nothing is left out.
"""

import json

import numpy as np

from kvprefix.cache.hinted import HINTED, list_hinted, make_hinted
from kvprefix.cache.hints import read_hints
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.studies.cache import has_settled_gains, measure_seeds, rate_policies
from kvprefix.studies.table import draw, draw_trace

HINTED_VERSION = 1  # raise when the meaning of a hint or of a policy changes


def study_hinted(workload, capacities):
    """Replay the policies with hints at some capacities, beside LRU and OPT, on the same traces.

    Parameters
    ----------
    workload : Workload or SessionExperiment
    capacities : sequence of int
        Blocks.

    Returns
    -------
    pandas.DataFrame
        As `study_policies`, for LRU, OPT and each of HINTED that the hints tell anything, with `closed`: the share of
        the token hits that OPT has more than LRU that the policy has more; NaN if there are none.
    """
    capacities = [int(one) for one in capacities]
    more = [(capacity,) for capacity in capacities]
    return measure_seeds(
        workload, "hinted", [HINTED_VERSION, capacities, list(HINTED)], measure_hinted, *more, enough=has_settled_gains
    )


def measure_hinted(workload, seed, capacity):
    """Replay policies with hints at one capacity on one draw; the rows of `study_hinted` for both."""
    accesses = draw(workload, workload.parameters.block_size, seed=seed)
    hints = read_hints(accesses, priority=read_priority(workload, seed))
    policies = [LRU, *(make_hinted(name, hints) for name in list_hinted(hints)), OPT]
    table, _ = rate_policies(workload, seed, accesses, capacity, policies)
    token = table["token"]
    gap = token.iloc[-1] - token.iloc[0]
    return table.assign(closed=(token - token.iloc[0]) / gap if gap > 0 else np.nan)


def read_priority(workload, seed):
    """Return the priority of each request of a draw, the higher the more urgent; None if the data are no log of calls.

    Parameters
    ----------
    workload : Workload or SessionExperiment
    seed : int
        Of the draw.
    """
    calls = getattr(workload, "workload", workload)  # of CallSessions
    heads = getattr(getattr(calls, "messages", None), "heads", None)
    if heads is None:
        return None
    distinct = heads.combine_chunks() if hasattr(heads, "combine_chunks") else heads
    given = [_read_priority(text) for text in distinct.dictionary.to_pylist()]
    return np.array(given)[distinct.indices.to_numpy()[draw_trace(calls, seed=seed).rows]]


def _read_priority(head):
    """Return how urgent a body is, of the JSON of its API and its fields; what is no whole number counts as 0."""
    value = None if head is None else json.loads(head)[1].get("priority")
    return -value if type(value) is int and abs(value) < 2**31 else 0
