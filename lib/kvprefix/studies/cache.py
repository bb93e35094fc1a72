"""The cache study: what capacity, eviction and block size do to a workload, over several draws of its arrivals.

Each study is a table, kept in the derived folder under a key of everything that determines it, and measured as tasks
(`table`). Figures and sentences are not made here. All are of the multi-turn mode, prompts only, cold start.
"""

import os

import numpy as np
import pandas as pd

from kvprefix.cache.curve import rate_hits
from kvprefix.cache.own import fingerprint
from kvprefix.cache.policies import POLICIES, find_policy
from kvprefix.cache.recency import count_hits, count_seen, lru_curve, measure_recency
from kvprefix.cache.replay import replay, replay_each
from kvprefix.cache.rules.lru import LRU
from kvprefix.files.paths import InputError
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.studies.draws import SEEDS, is_known, is_settled, list_rounds
from kvprefix.studies.table import draw, draw_stretches, measure_table

FINE_SEEDS = 3  # of the policies that are replayed at many capacities
BLOCK_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
ACCESS_BUDGET = 200_000_000  # the most block accesses of a studied trace; a draw takes about 30 bytes per access


def spread_capacities(n_distinct, points, least=None):
    """Return capacities in blocks at equal ratios, from `least` to all distinct blocks.

    If not given, `least` is 100, or a hundredth of the blocks if that is less.

    >>> spread_capacities(10_000, 3), spread_capacities(64, 3)
    (array([  100,  1000, 10000]), array([ 1,  8, 64]))
    """
    most = max(n_distinct, 1)
    least = max(min(100, most // 100), 1) if least is None else least
    return np.unique(np.geomspace(min(least, most), most, points).round().astype(np.int64))


def round_size(size):
    """Round a number of tokens to two digits, for a memory that reads well.

    >>> round_size(161_199)
    160000
    """
    return int(float(f"{size:.2g}"))


def draw_accesses(workload, block_size, seeds=SEEDS):
    """Yield (seed, PrefixTrace) of the multi-turn requests under several draws of the clock, its own first."""
    first = workload.parameters.seed
    for seed in range(first, first + seeds):
        yield seed, draw(workload, block_size, seed=seed)


def count_accesses(workload, block_size):
    """Return the number of block accesses of the workload's multi-turn requests."""
    return int((workload.requests["prompt_tokens"].to_numpy() // block_size).sum())


def fit_sizes(workload, sizes=BLOCK_SIZES):
    """Return the block sizes whose accesses are within the budget, as a list; smaller blocks mean more accesses.

    A trace with more than ACCESS_BUDGET accesses would need too much memory: three draws of it are there at a time.
    """
    return [size for size in sizes if count_accesses(workload, size) <= ACCESS_BUDGET]


def count_threads(workload, block_size=None):
    """Return how many draws a study works on at a time: as many as there are cores, fewer if they are large."""
    accesses = count_accesses(workload, block_size or workload.parameters.block_size)
    return max(1, min(os.cpu_count() or 1, ACCESS_BUDGET // max(2 * accesses, 1)))


def measure_seeds(workload, name, options, measure, *more, enough, scheduler=None):
    """Return a study's table of `measure(workload, seed, *argument)`, seed after seed, for each of the arguments.

    `enough` says whether a table's draws are enough, see `draws`.
    """
    rounds = [[(seed, *one) for seed in seeds for one in more or [()]] for seeds in list_rounds(workload)]
    threads = count_threads(workload)
    return measure_table(
        workload, name, options, measure, rounds, enough=enough, at_once=lambda *_: threads, scheduler=scheduler
    )


def study_lru(workload, *, points=60):
    """Measure LRU's hit rate over capacity, by one pass per seed.

    Returns
    -------
    pandas.DataFrame
        `seed`, `capacity_blocks`, `block`, `token`, `request_mean` and, for the first seed, `low` and `high`: the 95 %
        interval of the token hit rate over resampled conversations.
    """
    return measure_seeds(
        workload, "lru", [points], measure_lru, (points,), enough=lambda table: is_settled(table, ["capacity_blocks"])
    )


def measure_lru(workload, seed, points):
    """Measure LRU on one draw; the rows of `study_lru` for its seed."""
    accesses = draw_stretches(workload, workload.parameters.block_size, seed=seed)
    capacities = spread_capacities(accesses.n_distinct, points)
    recency = measure_recency(accesses)
    rates = lru_curve(accesses, recency).at(capacities)
    frame = pd.DataFrame({"seed": seed, "capacity_blocks": capacities, **rates, "low": np.nan, "high": np.nan})
    if seed == workload.parameters.seed:
        hits = accesses.hit_tokens(count_hits(accesses, recency, capacities))
        draws = bootstrap_rates(hits, accesses.prompt_tokens, accesses.conversation)
        frame["low"], frame["high"] = interval(draws)
    return frame


def study_needs(workload, shares=(0.5, 0.9, 0.95, 0.99)):
    """Find the fewest blocks with which LRU reaches shares of the unbounded token hit rate.

    Returns
    -------
    pandas.DataFrame
        `seed`, `share`, `capacity_blocks`.
    """
    return measure_seeds(
        workload, "needs", [list(shares)], measure_needs, (shares,),
        enough=lambda table: is_known(table, ["share"], "capacity_blocks"),
    )  # fmt: skip


def measure_needs(workload, seed, shares):
    """Measure needs on one draw; the rows of `study_needs` for its seed."""
    accesses = draw_stretches(workload, workload.parameters.block_size, seed=seed)
    curve = lru_curve(accesses, measure_recency(accesses))
    sizes = [curve.capacity_for(share) for share in shares]
    return pd.DataFrame({"seed": seed, "share": shares, "capacity_blocks": sizes})


def study_policies(workload, capacities, policies=None):
    """Replay every policy at some capacities, on the same traces.

    Parameters
    ----------
    workload : Workload
    capacities : sequence of int
        Blocks.
    policies : sequence of str or Policy, optional
        LRU, with which the others are compared, and others; all that are known if not given.

    Returns
    -------
    pandas.DataFrame
        `seed`, `policy`, `capacity_blocks`, `block`, `token`, `request_mean` and, for the first seed, 95 % intervals
        over resampled conversations: `low`, `high` of the token hit rate, `gain_low`, `gain_high` of its difference
        from LRU's.
    """
    capacities = [int(capacity) for capacity in capacities]
    found = [find_policy(one) for one in (POLICIES if policies is None else policies)]
    if LRU not in found:
        raise InputError(f"policies are {[one.name for one in found]}; expected lru among them, to compare with")
    settings = {one.name: one.default if one.score is None else fingerprint(one.score) for one in found}
    handed = tuple(one.name if one.score is None else one for one in found)
    more = [(capacity, handed) for capacity in capacities]
    return measure_seeds(
        workload, "policies", [capacities, settings], measure_policies, *more, enough=has_settled_gains
    )


def has_settled_gains(table):
    """Say whether the draws are enough for each policy's rate, and for its difference from LRU's."""
    keys = ["capacity_blocks", "policy"]

    def find_lru(rows):
        rates = rows[rows["policy"] == LRU.name].set_index("capacity_blocks")["token"]
        return rows["capacity_blocks"].map(rates)

    return is_settled(table, keys) and is_settled(table, keys, "gain_low", "gain_high", find_lru)


def measure_policies(workload, seed, capacity, policies):
    """Replay policies at one capacity on one draw; the rows of `study_policies` for both."""
    return replay_policies(workload, seed, capacity, policies)[0]


def replay_policies(workload, seed, capacity, policies):
    """Return the rows of `measure_policies`, and what `rate_policies` returns second."""
    return rate_policies(workload, seed, draw(workload, workload.parameters.block_size, seed=seed), capacity, policies)


def rate_policies(workload, seed, accesses, capacity, policies):
    """Return these rows of a drawn PrefixTrace, and for the first seed the resampled rates, (draws, policies)."""
    names = [find_policy(one).name for one in policies]
    hits = {name: replay(accesses, capacity, one) for name, one in zip(names, policies, strict=True)}
    frame = pd.DataFrame({"seed": seed, "policy": names, "capacity_blocks": capacity})
    frame = frame.join(pd.DataFrame([rate_hits(accesses, one) for one in hits.values()]))
    frame[["low", "high", "gain_low", "gain_high"]] = np.nan
    if seed != workload.parameters.seed:
        return frame, None
    tokens = accesses.hit_tokens(np.column_stack(list(hits.values())))
    draws = bootstrap_rates(tokens, accesses.prompt_tokens, accesses.conversation)
    frame["low"], frame["high"] = interval(draws)
    frame["gain_low"], frame["gain_high"] = interval(draws - draws[:, [names.index(LRU.name)]])
    return frame, draws


def study_fine(workload, capacities, *, points=17):
    """Replay the policies whose curve is cheap at more capacities: LRU, those that need no tree, and the bounds.

    Parameters
    ----------
    workload : Workload
    capacities : sequence of int
        Blocks, which are among those of the curve.
    points : int
        Capacities, at equal ratios from the least to the largest of these.

    Returns
    -------
    pandas.DataFrame
        `seed`, `policy`, `capacity_blocks`, `block`, `token`, `request_mean`.
    """
    least, most = min(capacities), max(capacities)
    capacities = np.union1d(capacities, spread_capacities(most, points, least)).tolist()
    names = [one.name for one in POLICIES.values() if one is LRU or one.replay_free or one.is_bound]
    settings = {name: POLICIES[name].default for name in names}
    rounds = [[(seed, capacities, names) for seed in seeds] for seeds in list_rounds(workload, FINE_SEEDS)]
    threads = count_threads(workload)
    return measure_table(
        workload, "fine", [FINE_SEEDS, capacities, settings], measure_fine, rounds, at_once=lambda *_: threads
    )


def measure_fine(workload, seed, capacities, names):
    """Replay policies at all capacities on one draw; the rows of `study_fine` for its seed."""
    accesses = draw(workload, workload.parameters.block_size, seed=seed)
    rates = {name: [rate_hits(accesses, hits) for hits in replay_each(accesses, capacities, name)] for name in names}
    rows = [
        {"policy": name, "capacity_blocks": capacity, "seed": seed, **rates[name][k]}
        for k, capacity in enumerate(capacities) for name in names
    ]  # fmt: skip
    return pd.DataFrame(rows)


def study_block_sizes(workload, memories, sizes=BLOCK_SIZES):
    """Measure block sizes from the same tokens: unbounded, and LRU at equal memory.

    Parameters
    ----------
    workload : Workload
    memories : sequence of int
        Tokens that the cache holds; a capacity is their number over the block size.
    sizes : sequence of int
        Those that are too small for a workload this large are left out, see `fit_sizes`.

    Returns
    -------
    pandas.DataFrame
        `block_size`, `seed`, `memory_tokens` (NaN: unbounded), `token`, `request_mean`, `block` and, for the first
        seed, `low` and `high` (95 % interval of the token hit rate over resampled conversations). Unbounded
        rows also have `blocks` (full blocks per request, each hashed and looked up) and `lost_tokens` (how many fewer
        cached tokens per request than with the first size).
    """
    memories, sizes = [int(memory) for memory in memories], fit_sizes(workload, sizes)
    rounds = [[(seed, sizes, memories) for seed in seeds] for seeds in list_rounds(workload)]
    return measure_table(
        workload, "block-sizes", [sizes, memories], measure_block_sizes, rounds,
        enough=lambda table: is_settled(table, ["block_size", "memory_tokens"]),
        finish=_compare_sizes, block_size=None,
    )  # fmt: skip


def measure_block_sizes(workload, seed, sizes, memories):
    """Measure block sizes on one draw; the rows of `study_block_sizes` for its seed, before sizes are compared."""
    frames, cached, is_first = [], [], seed == workload.parameters.seed
    for size in sizes:
        accesses = draw_stretches(workload, size, seed=seed)
        recency, blocks = measure_recency(accesses), [max(memory // size, 1) for memory in memories]
        hits = count_hits(accesses, recency, blocks)
        if is_first:
            hits = np.column_stack([count_seen(accesses, recency), hits])
            cached.append(accesses.hit_tokens(hits))
        frame = pd.DataFrame([rate_hits(accesses, one) for one in hits.T])
        frame = frame.assign(block_size=size, seed=seed, memory_tokens=[np.nan, *memories] if is_first else memories)
        if is_first:
            frame.loc[0, "blocks"] = accesses.blocks.mean()
            frame.loc[0, "lost_tokens"] = frame["token"][0] * accesses.prompt_tokens.mean()
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    if is_first:
        draws = bootstrap_rates(np.hstack(cached), accesses.prompt_tokens, accesses.conversation)
        table["low"], table["high"] = interval(draws)
    return table


def _compare_sizes(frame):
    """Put the rows of each size together, and turn its cached tokens into what it loses against the first."""
    frame = frame.iloc[np.argsort(pd.factorize(frame["block_size"])[0], kind="stable")].reset_index(drop=True)
    cached = frame["lost_tokens"].dropna()
    return frame.assign(lost_tokens=cached.iloc[0] - frame["lost_tokens"]) if len(cached) else frame
