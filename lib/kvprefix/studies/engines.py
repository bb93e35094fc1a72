"""The engine study: from the unbounded accounting to what an engine hits, one cause at a time, at several pool sizes.

Each case differs from its base in one thing, so the differences are what that thing costs or wins; those of the chain
add up. All are of the multi-turn mode, cold start, on the same traces.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from kvprefix.blocks.stretches import Paths, count_leading, cut_paths
from kvprefix.engines.overlap import Overlap
from kvprefix.engines.registry import ENGINES
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.studies.cache import spread_capacities
from kvprefix.studies.draws import is_settled, list_rounds
from kvprefix.studies.table import draw_trace, find_tree, measure_table
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.trace import Trace

ENGINE_STUDY_VERSION = 3  # raise when the meaning of the table changes
ENGINE_SEEDS = 6  # the most draws of the clock; an engine's replay costs more than a policy's
CURVE_SEEDS = 3  # of the engine's curve, which has many pools
LEAST_TOKENS = 8192  # of the curve's smallest pool: a usual prompt fits


@dataclass(frozen=True, kw_only=True)
class Case:
    """One replay of the study.

    Attributes
    ----------
    name, label : str
        In the table, and for readers.
    base : str or None
        The case that it is compared with; None if it is the start.
    cause : str
        What it adds to its base, a clause.
    engine : str
        A name in `engines.registry`; not used with a `count`.
    options : dict
        Of the engine. `overlap` is True for requests that run at once, with the times of the parameters.
    count : callable, optional
        Counts the hit blocks of each request of a `Draw`, whatever the pool; no engine replays then.
    look : dict, optional
        `facecolor` and `hatch` of its bars.
    """

    name: str
    label: str
    base: str | None = None
    cause: str = ""
    engine: str = "vllm"
    options: dict = field(default_factory=dict)
    count: Callable | None = None
    look: dict | None = None


class Draw(NamedTuple):
    """One draw of the clock: its trace, and its requests' paths.

    Attributes
    ----------
    trace : Trace
    parameters : Parameters
    asked : Paths
        Of the prompts.
    paths : dict of int to Paths
        With the generated tokens, by block size.
    """

    trace: Trace
    parameters: Parameters
    asked: Paths
    paths: dict

    @property
    def prompts(self):
        """Prompt tokens, (n,) int64."""
        return self.trace.requests["prompt_tokens"].to_numpy()

    @property
    def limits(self):
        """Blocks before the one that holds each prompt's last token, (n,) int64."""
        return np.maximum(self.prompts - 1, 0) // self.parameters.block_size


CHAIN = {case.name: case for case in (
    Case(
        name="seen", label="every full block seen before",
        count=lambda draw: count_leading(draw.asked, draw.prompts),
    ),
    Case(
        name="last_token", label="last token computed", base="seen",
        cause="an engine computes at least the last token of a prompt",
        count=lambda draw: count_leading(draw.asked, draw.limits),
    ),
    Case(
        name="outputs", label="generated tokens cached", base="last_token",
        cause="the reply stays in the cache for the next turn",
        count=lambda draw: count_leading(draw.paths[draw.parameters.block_size], draw.limits),
    ),
    Case(
        name="bounded", label="evictions", base="outputs", cause="the pool holds so many blocks",
        options={"merge_duplicates": True},
    ),
    Case(name="vllm", label="duplicates", base="bounded", cause="vLLM keeps equal blocks twice"),
    Case(
        name="overlap", label="running at once", base="vllm", options={"overlap": True},
        cause="requests hold blocks while they run, and wait where there are none",
    ),
)}  # fmt: skip


def list_engines():
    """Return the cases that compare engines at equal memory, by name: each engine's variants, based on the first."""
    pairs = [(engine, variant) for engine in ENGINES.values() for variant in engine.list_variants()]
    return {
        one.name: Case(
            name=one.name, label=one.label, base=pairs[0][1].name if k else None, engine=engine.name,
            options=one.options, look=one.look,
        )
        for k, (engine, one) in enumerate(pairs)
    }  # fmt: skip


def study_engines(workload, pools):
    """Replay the workload through engines at several pool sizes.

    Parameters
    ----------
    workload : Workload
    pools : sequence of int
        Blocks that can hold tokens; vLLM's null block comes on top.

    Returns
    -------
    pandas.DataFrame
        `seed`, `pool`, `case` (of `CHAIN` and `list_engines`), `token` (token hit rate); for the first seed `low` and
        `high` (95 % interval over resampled conversations), and `step_low` and `step_high` (of the difference from
        the case's base). Of `overlap` also `waited` (share of the requests that did), `wait_mean_s`, `wait_p99_s` and
        `preemptions`. `never_fit` counts prompts larger than the pool.
    """
    pools = [int(pool) for pool in pools]
    engines = [[case.name, case.engine, sorted(case.options.items())] for case in list_engines().values()]
    options = [ENGINE_STUDY_VERSION, ENGINE_SEEDS, pools, engines]
    rounds = [[(seed, [pool]) for seed in seeds for pool in pools] for seeds in list_rounds(workload, ENGINE_SEEDS)]
    return measure_table(workload, "engines", options, measure_engines, rounds, enough=_has_settled_steps)


def _has_settled_steps(table):
    """Say whether the draws are enough for each case's rate, and for its difference from its base's."""
    bases, keys = {name: case.base or name for name, case in (list_engines() | CHAIN).items()}, ["pool", "case"]

    def find_bases(rows):
        rates = rows.set_index(keys)["token"]
        return rates[list(zip(rows["pool"], rows["case"].map(bases), strict=True))]

    return is_settled(table, keys) and is_settled(table, keys, "step_low", "step_high", find_bases)


def measure_engines(workload, seed, pools):
    """Measure all cases on one draw of the clock; the rows of `study_engines` for one seed and some pools."""
    cases = list_engines() | CHAIN  # in a chain a case has another base
    cases = {name: cases[name] for name in [*CHAIN, *cases]}
    draw = draw_paths(workload, seed, {case.options.get("block_size") for case in cases.values()} - {None})
    counted = {name: case.count(draw) * draw.parameters.block_size for name, case in cases.items() if case.count}
    conversations = draw.trace.requests["conversation_index"].to_numpy()
    frames = []
    for pool in pools:
        replayed = {name: _replay(case, draw, pool) for name, case in cases.items() if not case.count}
        cached = counted | {name: np.maximum(one.hit_tokens, 0) for name, one in replayed.items()}
        frame = rate_cases(cases, cached, draw.prompts, conversations if seed == workload.parameters.seed else None)
        for name, value in _describe_waits(replayed["overlap"]).items():
            frame.loc[frame["case"] == "overlap", name] = float(value)
        never_fit = int((replayed["overlap"].hit_tokens < 0).sum())
        frames.append(frame.assign(seed=seed, pool=pool, never_fit=never_fit))
    return pd.concat(frames, ignore_index=True)


def study_engine_curve(workload, *, points=12):
    """Replay the workload through vLLM, replies cached, over the size of its pool.

    Parameters
    ----------
    workload : Workload
    points : int
        Pools, at equal ratios from LEAST_TOKENS up to all distinct blocks, those of generated tokens among them.

    Returns
    -------
    pandas.DataFrame
        `seed`, `capacity_blocks` (that can hold tokens), `distinct_blocks` (of the trace), `token` (token hit rate),
        `unbounded` (that of a pool without a bound), `never_fit` (prompts larger than the pool) and, for the first
        seed, `low` and `high` (95 % interval over resampled conversations).
    """
    options = [ENGINE_STUDY_VERSION, CURVE_SEEDS, points, LEAST_TOKENS, next(iter(list_engines().values())).label]
    rounds = [[(seed, points) for seed in seeds] for seeds in list_rounds(workload, CURVE_SEEDS)]
    return measure_table(workload, "engine-curve", options, measure_engine_curve, rounds)


def measure_engine_curve(workload, seed, points):
    """Measure the engine's curve on one draw of the clock; the rows of `study_engine_curve` for its seed."""
    draw = draw_paths(workload, seed)
    size, total = draw.parameters.block_size, max(draw.prompts.sum(), 1)
    n_distinct = draw.paths[size].n_distinct
    pools = spread_capacities(n_distinct, points, max(LEAST_TOKENS // size, 1))
    replayed = [_replay(CHAIN["vllm"], draw, int(pool)).hit_tokens for pool in pools]
    cached = np.maximum(np.column_stack(replayed), 0)
    frame = pd.DataFrame({
        "seed": seed, "capacity_blocks": pools, "distinct_blocks": n_distinct, "token": cached.sum(0) / total,
        "unbounded": CHAIN["outputs"].count(draw).sum() * size / total,
        "never_fit": [int((hits < 0).sum()) for hits in replayed], "low": np.nan, "high": np.nan,
    })  # fmt: skip
    if seed == workload.parameters.seed:
        conversations = draw.trace.requests["conversation_index"].to_numpy()
        frame["low"], frame["high"] = interval(bootstrap_rates(cached, draw.prompts, conversations))
    return frame


def draw_paths(workload, seed, more_sizes=()):
    """Return the draw of a seed, with paths for the workload's block size and for more."""
    trace, parameters = draw_trace(workload, seed=seed), replace(workload.parameters, seed=seed)
    asked, tree = find_tree(workload.tokens), find_tree(workload.tokens, outputs=True)
    paths = {one: cut_paths(tree, trace.rows, one) for one in {parameters.block_size, *more_sizes}}
    return Draw(trace, parameters, cut_paths(asked, trace.rows, parameters.block_size), paths)


def _replay(case, draw, pool):
    """Replay the trace through a case's engine with a pool of as many tokens as `pool` blocks of the report."""
    engine, size = ENGINES[case.engine], draw.parameters.block_size
    options = {"block_size": size, "outputs": True, **case.options}
    if options.get("overlap"):
        options["overlap"] = Overlap(
            first_token_s=max(draw.parameters.ttft_s, 1e-3),
            time_per_token_s=max(draw.parameters.time_per_output_token_s, 1e-6),
        )
    replayer = engine.make(blocks=pool * size // options["block_size"] + engine.load().null_blocks, **options)
    if engine.takes_paths:
        return replayer.replay(draw.trace, draw.paths[options["block_size"]])
    return replayer.replay(draw.trace)


def _describe_waits(replayed):
    """Return the share of the requests that waited, how long they waited, and the number of preemptions."""
    waits = replayed.waited_s[np.isfinite(replayed.waited_s)]
    return {
        "waited": (waits > 0).mean() if len(waits) else 0.0,
        "wait_mean_s": waits.mean() if len(waits) else 0.0,
        "wait_p99_s": np.percentile(waits, 99) if len(waits) else 0.0,
        "preemptions": replayed.preemptions.sum(),
    }


def rate_cases(cases, cached, prompt_tokens, conversations):
    """Return a row per case: its rate and, if conversations are given, the intervals of rate and step."""
    total, names = max(prompt_tokens.sum(), 1), list(cases)
    frame = pd.DataFrame({"case": names, "token": [cached[name].sum() / total for name in names]})
    for name in ("low", "high", "step_low", "step_high", "waited", "wait_mean_s", "wait_p99_s", "preemptions"):
        frame[name] = np.nan
    if conversations is None:
        return frame
    draws = bootstrap_rates(np.column_stack([cached[name] for name in names]), prompt_tokens, conversations)
    frame["low"], frame["high"] = interval(draws)
    for k, case in enumerate(cases.values()):
        if case.base:
            step = draws[:, k] - draws[:, names.index(case.base)]
            frame.loc[k, ["step_low", "step_high"]] = interval(step)
    return frame
