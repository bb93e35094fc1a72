"""The study of a policy of one's own: how much of the gap between LRU and OPT it closes, and what each of them evicts.

A policy that a notebook defines is known to its process alone, so the tasks run there, whatever the scheduler.
"""

import numpy as np
import pandas as pd

from kvprefix.cache.evictions import record_evictions
from kvprefix.cache.own import fingerprint
from kvprefix.cache.policies import find_policy
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.stats.intervals import interval
from kvprefix.studies.cache import has_settled_gains, measure_seeds, replay_policies
from kvprefix.studies.table import draw, measure_table

BY = ("depth", "age", "turn")  # attributes of `cache.evictions.Evictions`
LEFT_OUT = "left_out"  # in the column of the same kind: blocks that were not stored


def study_own_policy(workload, capacities, policy):
    """Replay LRU, a policy and OPT at some capacities, on the same traces.

    Parameters
    ----------
    workload : Workload
    capacities : sequence of int
        Blocks.
    policy : str or Policy

    Returns
    -------
    pandas.DataFrame
        As `studies.cache.study_policies`, and for the policy's rows of the first seed `closed_low` and `closed_high`:
        the 95 % interval of the share of the gap that it closes (NaN if there is no gap in some resample).
    """
    capacities, mine = [int(capacity) for capacity in capacities], find_policy(policy)
    more = [(capacity, mine) for capacity in capacities]
    return measure_seeds(
        workload, "own-policy", [capacities, *_identify(mine)], measure_own_policy, *more, enough=has_settled_gains,
        scheduler="threads",
    )  # fmt: skip


def measure_own_policy(workload, seed, capacity, policy):
    """Replay the three policies at one capacity on one draw; the rows of `study_own_policy` for both."""
    frame, draws = replay_policies(workload, seed, capacity, (LRU, policy, OPT))
    frame[["closed_low", "closed_high"]] = np.nan
    if draws is not None:
        lru, mine, opt = draws.T
        ends = interval(share_closed(lru, mine, opt))
        frame.loc[1, ["closed_low", "closed_high"]] = ends
    return frame


def share_closed(lru, mine, opt):
    """Return the share of the gap between LRU and OPT that a policy closes; NaN where there is no gap.

    >>> share_closed(np.array([0.25, 0.5]), np.array([0.5, 0.5]), np.array([0.75, 0.5]))
    array([0.5, nan])
    """
    gap = np.asarray(opt) - lru
    return np.divide(np.asarray(mine) - lru, gap, out=np.full(np.shape(gap), np.nan), where=gap > 0)


def study_evictions(workload, capacity, policy):
    """Record what LRU, a policy and OPT evict at one capacity, on the workload's own draw.

    Returns
    -------
    pandas.DataFrame
        A row per policy and value: `policy`; `by` (one of BY, or LEFT_OUT); `value` (ages are rounded to two digits);
        `evictions`; `again`, how many of them evict a block that a later request accesses.
    """
    capacity, mine = int(capacity), find_policy(policy)
    options = [capacity, *_identify(mine)]
    return measure_table(
        workload, "evictions", options, measure_evictions, [[(capacity, mine)]], at_once=lambda *_: 1,
        scheduler="threads",
    )  # fmt: skip


def measure_evictions(workload, capacity, policy):
    """Record the evictions; the frame of `study_evictions`."""
    accesses, frames = draw(workload, workload.parameters.block_size), []
    for one in (LRU, policy, OPT):
        found = record_evictions(accesses, capacity, one)
        frames += [_count(one.name, by, getattr(found, by), found.again) for by in BY]
        left = {"policy": [one.name], "by": LEFT_OUT, "value": 0, "evictions": found.left_out, "again": 0}
        frames.append(pd.DataFrame(left))
    return pd.concat(frames, ignore_index=True)


def _count(name, by, values, again):
    values = round_ages(np.arange(values.max(initial=0) + 1))[values] if by == "age" else values
    every = np.bincount(values)
    needed, values = np.bincount(values[again], minlength=len(every)), np.flatnonzero(every)
    return pd.DataFrame(
        {"policy": name, "by": by, "value": values, "evictions": every[values], "again": needed[values]}
    )


def round_ages(ages):
    """Round whole numbers to two digits.

    >>> round_ages(np.array([7, 93, 1234, 98765])).tolist()
    [7, 93, 1200, 99000]
    """
    scale = 10 ** np.maximum(np.floor(np.log10(np.maximum(ages, 1))).astype(np.int64) - 1, 0)
    return (ages + scale // 2) // scale * scale


def _identify(policy):
    """Return what tells a policy apart in the key of a study: its name, and its setting or its function."""
    return [policy.name, policy.default if policy.score is None else fingerprint(policy.score)]
