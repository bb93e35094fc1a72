"""The cache study: what capacity, eviction and block size do to a workload, over several draws of its arrivals.

Each study is a table, kept in the derived folder under a key of everything that determines it. Drawing and sentences
are not made here. All are of the multi-turn mode, prompts only, cold start.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from kvprefix.accesses import make_accesses, select_requests
from kvprefix.cache import replay
from kvprefix.curves import (
    compute_lru_curve,
    count_hits_at,
    count_seen,
    measure_distances,
    rate_hits,
    rate_unbounded,
)
from kvprefix.files import atomic_path, derived_folder, resolve_input, sha256_file
from kvprefix.intervals import bootstrap_rates, interval
from kvprefix.policies import POLICIES
from kvprefix.workload import make_trace

SEEDS = 10  # draws of the arrival process
BLOCK_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
ACCESS_BUDGET = 200_000_000  # block accesses of a trace that is studied; its draws take about 30 bytes an access
STUDY_VERSION = 2  # raise when the meaning of a table changes


def spread_capacities(n_distinct, points, least=100):
    """Return capacities in blocks at equal ratios, from `least` (or 1) to all distinct blocks.

    >>> spread_capacities(10_000, 3)
    array([  100,  1000, 10000])
    """
    most = max(n_distinct, 1)
    return np.unique(np.geomspace(min(least, most), most, points).round().astype(np.int64))


def round_size(size):
    """Round a number of tokens to two digits, for a memory that reads well.

    >>> round_size(161_199)
    160000
    """
    return int(float(f"{size:.2g}"))


def draw_accesses(workload, block_size, seeds=SEEDS):
    """Yield (seed, Accesses) of the workload's multi-turn requests under several draws of its clock.

    The first seed is the workload's own. Blocks are identified once: other times only put requests in another order.
    """
    first = workload.parameters.seed
    yield from draw_variants(workload, block_size, {seed: {"seed": seed} for seed in range(first, first + seeds)})


def draw_variants(workload, block_size, variants):
    """Yield (name, Accesses) of the workload's multi-turn requests at the times that other parameters give.

    Parameters
    ----------
    workload : Workload
    block_size : int
    variants : dict of name to dict
        The parameters of the clock and the arrivals in which each variant differs.
    """
    first = make_trace(workload, "multi_turn")
    accesses = make_accesses(first, block_size)
    position = np.empty(len(workload.requests), np.int64)
    position[first.rows] = np.arange(len(first))
    for name, changes in variants.items():
        parameters = replace(workload.parameters, **changes)
        if parameters == workload.parameters:
            yield name, accesses
            continue
        trace = make_trace(replace(workload, parameters=parameters), "multi_turn")
        yield name, select_requests(accesses, position[trace.rows], trace.arrival_s)


def count_accesses(workload, block_size):
    """Return the number of block accesses of the workload's multi-turn requests."""
    return int((workload.requests["prompt_tokens"].to_numpy() // block_size).sum())


def fit_sizes(workload, sizes=BLOCK_SIZES):
    """Return the block sizes whose accesses are within the budget, as a list; the smaller the size, the more of them.

    A trace with more than ACCESS_BUDGET accesses would need too much memory: three draws of it are there at a time.
    """
    return [size for size in sizes if count_accesses(workload, size) <= ACCESS_BUDGET]


def count_threads(workload, block_size=None):
    """Return how many draws a study works on at a time: as many as there are cores, fewer where they are large."""
    accesses = count_accesses(workload, block_size or workload.parameters.block_size)
    return max(1, min(os.cpu_count() or 1, ACCESS_BUDGET // max(2 * accesses, 1)))


def study_lru(workload, *, points=60):
    """Measure LRU's hit rate over capacity, by one pass a seed.

    Returns
    -------
    pandas.DataFrame
        `seed`, `capacity_blocks`, `block`, `token`, `request_mean` and, for the first seed, `low` and `high`: the 95 %
        interval of the token hit rate over resampled conversations.
    """

    def measure(seed, accesses):
        capacities = spread_capacities(accesses.n_distinct, points)
        distances = measure_distances(accesses)
        rates = compute_lru_curve(accesses, distances).at(capacities)
        frame = pd.DataFrame({"seed": seed, "capacity_blocks": capacities, **rates, "low": np.nan, "high": np.nan})
        if seed == workload.parameters.seed:
            hits = accesses.hit_tokens(count_hits_at(accesses, distances, capacities))
            draws = bootstrap_rates(hits, accesses.prompt_tokens, accesses.conversation)
            frame["low"], frame["high"] = interval(draws)
        return frame

    threads = count_threads(workload)
    return keep_table(workload, "lru", [points], lambda: _over_seeds(workload, measure, threads=threads))


def study_needs(workload, shares=(0.5, 0.9, 0.95, 0.99)):
    """Find the fewest blocks with which LRU reaches shares of the unbounded token hit rate.

    Returns
    -------
    pandas.DataFrame
        `seed`, `share`, `capacity_blocks`.
    """

    def measure(seed, accesses):
        curve = compute_lru_curve(accesses)
        sizes = [curve.capacity_for(share) for share in shares]
        return pd.DataFrame({"seed": seed, "share": shares, "capacity_blocks": sizes})

    threads = count_threads(workload)
    return keep_table(workload, "needs", [list(shares)], lambda: _over_seeds(workload, measure, threads=threads))


def study_policies(workload, capacities, policies=tuple(POLICIES)):
    """Replay every policy at some capacities, on the same traces.

    Returns
    -------
    pandas.DataFrame
        `seed`, `policy`, `capacity_blocks`, `block`, `token`, `request_mean` and, for the first seed, 95 % intervals
        over resampled conversations: `low`, `high` of the token hit rate, `gain_low`, `gain_high` of its difference to
        LRU's.
    """
    capacities = [int(capacity) for capacity in capacities]

    def measure(seed, accesses):
        rows = []
        for capacity in capacities:
            hits = {policy: replay(accesses, capacity, policy) for policy in policies}
            rates = {policy: rate_hits(accesses, one) for policy, one in hits.items()}
            draws = None
            if seed == workload.parameters.seed:
                tokens = accesses.hit_tokens(np.column_stack(list(hits.values())))
                draws = bootstrap_rates(tokens, accesses.prompt_tokens, accesses.conversation)
            for k, policy in enumerate(policies):
                low, high = interval(draws[:, k]) if draws is not None else (np.nan, np.nan)
                gain = draws[:, k] - draws[:, policies.index("lru")] if draws is not None else [np.nan]
                gains = dict(zip(("gain_low", "gain_high"), interval(gain), strict=True))
                rows.append({"seed": seed, "policy": policy, "capacity_blocks": capacity, **rates[policy],
                             "low": low, "high": high, **gains})  # fmt: skip
        return pd.DataFrame(rows)

    settings, threads = {policy: POLICIES[policy].setting for policy in policies}, count_threads(workload)
    options = [capacities, settings]
    return keep_table(workload, "policies", options, lambda: _over_seeds(workload, measure, threads=threads))


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
        seed, `low` and `high` (95 % interval of the token hit rate over resampled conversations). Where unbounded,
        `blocks` (full blocks a request, each hashed and looked up) and `lost_tokens` (cached tokens a request fewer
        than with the first size).
    """
    memories, sizes = [int(memory) for memory in memories], fit_sizes(workload, sizes)

    def measure():
        frames, cached = [], {}
        bar = tqdm(total=len(sizes) * SEEDS, desc="block sizes", leave=False, disable=None)
        for size in sizes:

            def measure_seed(seed, accesses, size=size):
                capacities = [max(memory // size, 1) for memory in memories]
                hits = count_hits_at(accesses, measure_distances(accesses), capacities)
                rates = [rate_hits(accesses, hits[:, k]) for k in range(len(capacities))]
                frame = pd.DataFrame(rates).assign(block_size=size, seed=seed, memory_tokens=memories)
                bar.update()
                if seed != workload.parameters.seed:
                    return frame
                whole = rate_unbounded(accesses)
                mean = whole["token"] * accesses.prompt_tokens.mean()
                cached[size] = mean
                row = {**whole, "block_size": size, "seed": seed, "memory_tokens": np.nan,
                       "blocks": accesses.blocks.mean(), "lost_tokens": cached[sizes[0]] - mean}  # fmt: skip
                frame = pd.concat([pd.DataFrame([row]), frame])
                seen = count_seen(accesses.ids, accesses.offsets)
                tokens = accesses.hit_tokens(np.column_stack([seen, hits]))
                draws = bootstrap_rates(tokens, accesses.prompt_tokens, accesses.conversation)
                return frame.assign(**dict(zip(("low", "high"), interval(draws), strict=True)))

            threads = 1 if size < 4 else count_threads(workload, size)
            frames.append(_over_seeds(workload, measure_seed, size, threads=threads, quiet=True))
        bar.close()
        return pd.concat(frames, ignore_index=True)

    return keep_table(workload, "block-sizes", [list(sizes), memories], measure, block_size=None)


def _over_seeds(workload, measure, block_size=None, *, threads=None, quiet=False):
    """Call `measure(seed, accesses)` for each seed, on all cores, and join the tables in the seeds' order."""
    draws = draw_accesses(workload, block_size or workload.parameters.block_size)
    threads = threads or os.cpu_count() or 1
    bar = tqdm(total=SEEDS, desc="seeds", leave=False, disable=True if quiet else None)
    frames, running = [], []
    with bar, ThreadPoolExecutor(threads) as pool:
        for seed, accesses in draws:
            running.append(pool.submit(measure, seed, accesses))
            if len(running) > threads:  # no more traces in memory than are worked on
                frames.append(running.pop(0).result())
                bar.update()
        for one in running:
            frames.append(one.result())
            bar.update()
    return pd.concat(frames, ignore_index=True)


def keep_table(workload, name, options, make, **changes):
    """Return a study's table from the derived folder, made first where it is not there."""
    known = {**workload.parameters.as_dict(), "data": workload.dataset["sha256"], **changes}
    known.pop("kv_model", None)
    known["files"] = [sha256_file(resolve_input(file)) for file in workload.parameters.timing_files()]
    parts = [STUDY_VERSION, SEEDS, name, known, workload.tokenizer["sha256"], options]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    path = derived_folder() / f"study-{name}-{key}.parquet"
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError):  # not there, or cut: pyarrow's errors are ValueErrors
        frame = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)
    return frame
