"""The study of hybrid models: what vLLM caches if half of the layers have a window, by what it retains.

The layers are those of gpt-oss: every other one has a window of 128 tokens, so that there are two groups. A block of a
group is half as large as one of all layers, so the same memory holds twice as many.
"""

import numpy as np
import pandas as pd

from kvprefix.engines.groups import name_groups
from kvprefix.engines.vllm import VLLM
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.studies.draws import list_rounds
from kvprefix.studies.engines import Case, draw_paths, rate_cases
from kvprefix.studies.table import measure_table

HYBRID_STUDY_VERSION = 1  # raise when the meaning of the table changes
HYBRID_SEEDS = 4  # the draws of the clock; block by block a replay costs more than by runs of blocks
MODEL, WINDOW = "gpt-oss", 128  # tokens
UNBOUNDED = 0  # the pool without a bound, in tables
HYBRIDS = {case.name: case for case in (
    Case(name="full", label="full attention", look={"facecolor": "#10507A", "hatch": ""}),
    Case(
        name="all", label="half windows, retention none", base="full", options={"retention": None},
        cause="windows keep every block", look={"facecolor": "#6FA8C9", "hatch": ""},
    ),
    Case(
        name="ends", label="half windows, retention 0", base="full", options={"retention": 0},
        cause="windows keep the ends of prompts", look={"facecolor": "#E08A00", "hatch": "////"},
    ),
)}  # fmt: skip


def name_pool(pool):
    """Return a pool's name, in tables and figures.

    >>> name_pool(2500), name_pool(0)
    ('2,500', 'no bound')
    """
    return "no bound" if pool == UNBOUNDED else f"{pool:,}"


def study_hybrids(workload, pools):
    """Replay the workload through vLLM as a model with full attention and as a hybrid, at equal memory.

    Parameters
    ----------
    workload : Workload
    pools : sequence of int
        Blocks of all layers that can hold tokens; UNBOUNDED is no bound.

    Returns
    -------
    pandas.DataFrame
        `seed`, `pool`, `case` (of `HYBRIDS`), `token` (token hit rate), `never_fit` (prompts larger than the pool); for
        the first seed `low` and `high` (95 % interval over resampled conversations), and `step_low` and `step_high`
        (of the difference from full attention).
    """
    pools = [int(pool) for pool in pools]
    options = [HYBRID_STUDY_VERSION, HYBRID_SEEDS, pools, MODEL, WINDOW]
    rounds = [[(seed, pools) for seed in seeds] for seeds in list_rounds(workload, HYBRID_SEEDS)]
    return measure_table(workload, "hybrids", options, measure_hybrids, rounds)


def measure_hybrids(workload, seed, pools):
    """Measure all cases on one draw of the clock; the rows of `study_hybrids` for one seed."""
    draw = draw_paths(workload, seed)
    size = draw.parameters.block_size
    groups, conversations = name_groups(MODEL, WINDOW, size), draw.trace.requests["conversation_index"].to_numpy()
    frames = []
    for pool in pools:
        many = None if pool == UNBOUNDED else pool * len(groups) + VLLMHybrid.null_blocks
        engines = {name: VLLMHybrid(groups, blocks=many, **case.options) for name, case in HYBRIDS.items() if case.base}
        one_group = VLLM(block_size=size, blocks=None if pool == UNBOUNDED else pool + VLLM.null_blocks)
        engines = {"full": one_group} | engines
        hits = {name: engine.replay(draw.trace, draw.paths[size]).hit_tokens for name, engine in engines.items()}
        cached = {name: np.maximum(one, 0) for name, one in hits.items()}
        frame = rate_cases(HYBRIDS, cached, draw.prompts, conversations if seed == workload.parameters.seed else None)
        frame = frame[["case", "token", "low", "high", "step_low", "step_high"]]
        frames.append(frame.assign(seed=seed, pool=pool, never_fit=[int((one < 0).sum()) for one in hits.values()]))
    return pd.concat(frames, ignore_index=True)
