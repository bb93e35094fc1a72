"""The engine study: from the unbounded accounting to what an engine hits, a cause at a time, at several pool sizes.

Each case differs from its base in one thing, so the differences are what that thing costs or wins; those of the chain
add up. All are of the multi-turn mode, cold start, on the same traces.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kvprefix.blocks.identify import identify_blocks
from kvprefix.blocks.sharing import count_hits
from kvprefix.cache.curve import count_seen
from kvprefix.engines.sglang import replay_sglang
from kvprefix.engines.vllm import Overlap, replay_vllm
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.studies.table import list_seeds, measure_table
from kvprefix.traces.workload import make_trace

ENGINE_STUDY_VERSION = 2  # raise when the meaning of the table changes
ENGINE_SEEDS = 5  # draws of the clock; an engine's replay costs more than a policy's


@dataclass(frozen=True)
class Case:
    """One replay of the study: what it adds to its base (None: the start)."""

    label: str
    base: str | None
    cause: str = ""


CHAIN = {
    "seen": Case("every full block seen before", None),
    "last_token": Case("last token computed", "seen", "an engine computes at least the last token of a prompt"),
    "outputs": Case("generated tokens cached", "last_token", "the reply stays in the cache for the next turn"),
    "bounded": Case("evictions", "outputs", "the pool holds so many blocks"),
    "vllm": Case("duplicates", "bounded", "vLLM keeps equal blocks twice"),
    "overlap": Case("running at once", "vllm", "requests hold blocks while they run, and wait where there are none"),
}
ENGINES = {
    "vllm": Case("vLLM 0.32", None),
    "vllm_prompts": Case("vLLM 0.32, nothing generated", "vllm"),
    "vllm_legacy": Case("vLLM up to 0.22", "vllm"),
    "sglang_page": Case("SGLang, pages as large", "vllm"),
    "sglang_token": Case("SGLang, pages of one token", "vllm"),
}


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
        `seed`, `pool`, `case` (of CHAIN and ENGINES), `token` (token hit rate); for the first seed `low` and `high`
        (95 % interval over resampled conversations), and `step_low` and `step_high` (of the difference to the case's
        base). Of `overlap` also `waited` (share of the requests that did), `wait_mean_s`, `wait_p99_s` and
        `preemptions`. `never_fit` counts prompts larger than the pool.
    """
    pools = [int(pool) for pool in pools]

    options, seeds = [ENGINE_STUDY_VERSION, ENGINE_SEEDS, pools], list_seeds(workload, ENGINE_SEEDS)
    return measure_table(workload, "engines", options, measure_engines, [(seed, pools) for seed in seeds])


def measure_engines(workload, seed, pools):
    """Measure all cases on one draw of the clock; the frame of `study_engines` for one seed."""
    parameters = replace(workload.parameters, seed=seed)
    trace = make_trace(replace(workload, parameters=parameters), "multi_turn")
    prompts = trace.requests["prompt_tokens"].to_numpy()
    intervals = seed == workload.parameters.seed
    blocks = {outputs: identify_blocks(trace, parameters.block_size, outputs=outputs) for outputs in (False, True)}
    hits = {
        "seen": count_seen(blocks[False].ids, blocks[False].offsets),
        "last_token": count_hits(blocks[False], prompts),
        "outputs": count_hits(blocks[True], prompts),
    }
    whole = {case: one * parameters.block_size for case, one in hits.items()}
    frames = []
    for pool in pools:
        cached, overlapping = _replay_pool(trace, parameters, blocks, pool)
        frame = _rate(whole | cached, prompts, trace.requests["conversation_index"].to_numpy(), intervals)
        waits = overlapping.waited_s[np.isfinite(overlapping.waited_s)]
        of_overlap = {
            "waited": (waits > 0).mean() if len(waits) else 0.0,
            "wait_mean_s": waits.mean() if len(waits) else 0.0,
            "wait_p99_s": np.percentile(waits, 99) if len(waits) else 0.0,
            "preemptions": overlapping.preemptions.sum(),
        }
        for name, value in of_overlap.items():
            frame.loc[frame["case"] == "overlap", name] = float(value)
        frames.append(frame.assign(seed=seed, pool=pool, never_fit=int((overlapping.cached_tokens < 0).sum())))
    return pd.concat(frames, ignore_index=True)


def _replay_pool(trace, parameters, blocks, pool):
    """Return the cached tokens of each request in every case with a bound, and the overlapping replay."""
    size = parameters.block_size

    def replay(outputs=True, **options):
        return replay_vllm(trace, size, pool + 1, outputs=outputs, blocks=blocks[outputs], **options)

    times = {"first_token_s": max(parameters.ttft_s, 1e-3),
             "time_per_token_s": max(parameters.time_per_output_token_s, 1e-6)}  # fmt: skip
    overlapping = replay(overlap=Overlap(trace.arrival_s, **times))
    replayed = {
        "bounded": replay(merge_duplicates=True),
        "vllm": replay(),
        "overlap": overlapping,
        "vllm_prompts": replay(outputs=False),
        "vllm_legacy": replay(legacy_free=True),
        "sglang_page": replay_sglang(trace, size, capacity_tokens=pool * size),
        "sglang_token": replay_sglang(trace, 1, capacity_tokens=pool * size),
    }
    return {case: np.maximum(result.cached_tokens, 0) for case, result in replayed.items()}, overlapping


def _rate(cached, prompt_tokens, conversations, intervals):
    """Return a row a case: its rate and, if wanted, the intervals of rate and step."""
    cases = list(cached)
    total = max(prompt_tokens.sum(), 1)
    frame = pd.DataFrame({"case": cases, "token": [cached[case].sum() / total for case in cases]})
    for name in ("low", "high", "step_low", "step_high", "waited", "wait_mean_s", "wait_p99_s", "preemptions"):
        frame[name] = np.nan
    if not intervals:
        return frame
    draws = bootstrap_rates(np.column_stack(list(cached.values())), prompt_tokens, conversations)
    frame["low"], frame["high"] = interval(draws)
    known = CHAIN | {case: ENGINES[case] for case in ENGINES if case not in CHAIN}
    for k, case in enumerate(cases):
        if known[case].base:
            step = draws[:, k] - draws[:, cases.index(known[case].base)]
            frame.loc[k, ["step_low", "step_high"]] = interval(step)
    return frame
