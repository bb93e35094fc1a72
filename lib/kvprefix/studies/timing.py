"""The timing study: what the clock, the rate and the burstiness of arrivals do to a cache of any size.

The requests stay the same and only their times differ, so blocks are identified once. Multi-turn mode, prompts only,
cold start.
"""

import warnings

import numpy as np
import pandas as pd

from kvprefix.cache.characteristic import compare_characteristic
from kvprefix.cache.recency import count_hits, measure_recency
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.studies.cache import count_threads, spread_capacities
from kvprefix.studies.draws import is_settled, list_rounds
from kvprefix.studies.table import draw_stretches, measure_table
from kvprefix.traces.table import TABLE

TIMING_STUDY_VERSION = 1  # raise when the meaning of a table changes
CLOCKS = {
    "all turns at once": {"clock": "at_once"},
    "back to back": {"clock": "back_to_back"},
    "exponential think time": {"clock": "causal", "think": "exponential"},
    "causal": {"clock": "causal", "think": "lognormal"},
}
RATES = {f"{rate:g} /s": {"arrivals": "poisson", "arrival_rate": rate} for rate in (0.1, 0.5, 2.0, 5.0, 20.0)}
BURSTS = {f"CV {cv:g}": {"arrivals": f"gamma:{cv:g}"} for cv in (10, 5, 2, 1)}  # the last is Poisson
LOGGED = "the log's own times"
AGENTS = "agents' pauses"


def list_changes(workload):
    """Return the clocks, rates and bursts that fit a workload: CLOCKS, RATES and BURSTS, or more for a log with times.

    Such a log's own times are the last clock, beside modelled ones at its mean rate; and, if it has results of tools,
    a clock with an agent's pauses. Its rates stand to the mean rate as those of RATES to 2 per second.

    Parameters
    ----------
    workload : Experiment

    Returns
    -------
    tuple of dict
        For `study_timing`.
    """
    if not workload.parameters.make("arrivals").of_requests:
        return CLOCKS, RATES, BURSTS
    rate = measure_start_rate(workload.requests)
    rate = float(f"{rate:.3g}")
    modelled = {"arrivals": "poisson", "arrival_rate": rate}
    clocks = {name: {**modelled, **change} for name, change in CLOCKS.items()}
    if workload.requests["after_tool"].any():
        clocks[AGENTS] = {**modelled, "clock": "causal", "think": "agent"}
    clocks[LOGGED] = {"arrivals": "data"}
    rates = {f"{rate * times:.3g} /s": {**modelled, "arrival_rate": rate * times} for times in (0.05, 0.25, 1, 2.5, 10)}
    return clocks, rates, {name: {**change, "arrival_rate": rate} for name, change in BURSTS.items()}


def measure_start_rate(requests):
    """Return how many conversations start per second on average, from a log's `start_s`; 2 if all start together.

    >>> measure_start_rate(pd.DataFrame({"conversation_index": [0, 0, 1, 2], "start_s": [7.0, 9.0, 9.0, 11.0]}))
    0.5
    """
    starts = requests.groupby("conversation_index")["start_s"].min()
    span = starts.max() - starts.min()
    allowed = TABLE["arrival_rate"]
    return float(np.clip((len(starts) - 1) / span, allowed.least, allowed.most)) if span else allowed.default


def study_timing(workload, changes, *, points=24):
    """Measure LRU over capacity under other clocks.

    Parameters
    ----------
    workload : Workload
    changes : dict of str to dict
        For each variant's name, the parameters in which it differs: CLOCKS, RATES or BURSTS.
    points : int
        Capacities, at equal ratios up to all distinct blocks.

    Returns
    -------
    pandas.DataFrame
        `variant`, `seed`, `capacity_blocks`, `token` (token hit rate) and, for the first seed, `low` and `high` (95 %
        interval over resampled conversations), `base_low` and `base_high` (of the difference from the last variant),
        and the columns of `cache.characteristic.compare_characteristic` (`holds` as 0 or 1).
    """
    rounds = [[(seed, changes, points) for seed in seeds] for seeds in list_rounds(workload)]
    threads = count_threads(workload)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the clock .* lets turns arrive sooner")  # that is what is studied
        return measure_table(
            workload, "timing", [TIMING_STUDY_VERSION, list(changes.items()), points], measure_timing, rounds,
            at_once=lambda *_: threads, enough=_has_settled_changes,
        )  # fmt: skip


def _has_settled_changes(table):
    """Say whether the draws are enough for each variant's rates, and for their differences from the last variant's."""
    keys = ["variant", "capacity_blocks"]

    def find_last(rows):
        rates = rows[rows["variant"] == rows["variant"].iloc[-1]].set_index("capacity_blocks")["token"]
        return rows["capacity_blocks"].map(rates)

    return is_settled(table, keys) and is_settled(table, keys, "base_low", "base_high", find_last)


def measure_timing(workload, seed, changes, points):
    """Measure all variants with one seed; the rows of `study_timing` for it."""
    frames, cached, first = [], [], seed == workload.parameters.seed
    for name, change in changes.items():
        accesses = draw_stretches(workload, workload.parameters.block_size, **{**change, "seed": seed})
        capacities = spread_capacities(accesses.n_distinct, points)
        hits = count_hits(accesses, measure_recency(accesses), capacities)
        tokens = accesses.hit_tokens(hits)
        rates = tokens.sum(axis=0) / max(accesses.prompt_tokens.sum(), 1)
        frame = pd.DataFrame({"variant": name, "seed": seed, "capacity_blocks": capacities, "token": rates})
        if first:
            compared = compare_characteristic(accesses, capacities, hits).astype({"holds": float})
            frame = frame.merge(compared, on="capacity_blocks")
            cached.append(_sum_by_conversation(accesses, tokens))
        frames.append(frame)
    if first:
        prompts = _sum_by_conversation(accesses, accesses.prompt_tokens[:, None])[:, 0]
        draws = bootstrap_rates(np.hstack(cached), prompts, np.arange(len(prompts)))
        draws = np.split(draws, len(changes), axis=1)
        for frame, drawn in zip(frames, draws, strict=True):
            frame["low"], frame["high"] = interval(drawn)
            frame["base_low"], frame["base_high"] = interval(drawn - draws[-1])
    return pd.concat(frames, ignore_index=True)


def _sum_by_conversation(accesses, values):
    """Sum the rows of each conversation, in the order of the conversations."""
    _, group = np.unique(accesses.conversation, return_inverse=True)
    n = int(group.max(initial=-1)) + 1
    return np.column_stack([np.bincount(group, values[:, k], n) for k in range(values.shape[1])])
