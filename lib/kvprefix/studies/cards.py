"""The study of cards: what vLLM hits in the KV blocks that well-known cards leave for a model after its weights.

Replies are cached and requests run one at a time, as in the engine's curve (`engines.study_engine_curve`). A model with
windows or states is replayed in its groups of layers, with vLLM's default retention.
"""

import math

import numpy as np
import pandas as pd

from kvprefix.engines.group_layers import group_layers
from kvprefix.engines.groups import check_groups
from kvprefix.engines.vllm import VLLM
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.files.paths import InputError
from kvprefix.models.memory import load_model
from kvprefix.models.pool import USUAL, list_fits
from kvprefix.studies.draws import FIRST_DRAWS, list_rounds
from kvprefix.studies.engines import draw_paths
from kvprefix.studies.table import measure_table

CARD_STUDY_VERSION = 1  # raise when the meaning of the table changes
CARD_SEEDS = FIRST_DRAWS  # as many as of a plan, so that both say the same of one replica


def find_fits(kv_model, block_size, usual=USUAL):
    """Return the cards that hold a model (`models.pool.list_fits`), and if there are none, why, as one line."""
    try:
        return list_fits(kv_model, block_size, usual=usual), ""
    except InputError as error:
        return [], str(error)


def study_cards(workload, kv_model, fits):
    """Replay the workload through vLLM with the blocks that cards leave.

    Parameters
    ----------
    workload : Workload
    kv_model : str or path-like
        As in `models.memory.load_model`.
    fits : list of models.pool.Fit

    Returns
    -------
    pandas.DataFrame
        `seed`, `fit` (the place in `fits`), `token` (token hit rate) and `never_fit` (prompts larger than the pool);
        no rows if vLLM does not run the model's groups of layers together.
    """
    config, pools = load_model(kv_model).row["config"], []
    for fit in fits:
        groups = group_layers(config, block_size=fit.pool.block_size)
        try:
            check_groups(groups, 0)
        except InputError:
            return pd.DataFrame(columns=["seed", "fit", "token", "never_fit"])
        pools.append((fit.pool.blocks, groups))
    options = [CARD_STUDY_VERSION, CARD_SEEDS, [[n, [[one.label, one.block_size] for one in of]] for n, of in pools]]
    rounds = [[(seed, pools) for seed in seeds] for seeds in list_rounds(workload, CARD_SEEDS)]
    return measure_table(workload, "cards", options, measure_cards, rounds)


def measure_cards(workload, seed, pools):
    """Measure all pools on one draw of the clock; the rows of `study_cards` for its seed."""
    units = [math.gcd(*(one.block_size for one in groups)) for _, groups in pools]
    draw, rows = draw_paths(workload, seed, units), []
    for place, ((blocks, groups), unit) in enumerate(zip(pools, units, strict=True)):
        alone = len(groups) == 1 and groups[0].kind == "full"
        engine = VLLM(block_size=unit, blocks=blocks) if alone else VLLMHybrid(groups, blocks=blocks)
        hits = engine.replay(draw.trace, draw.paths[unit]).hit_tokens
        rate = np.maximum(hits, 0).sum() / max(draw.prompts.sum(), 1)
        rows.append({"seed": seed, "fit": place, "token": rate, "never_fit": int((hits < 0).sum())})
    return pd.DataFrame(rows)
