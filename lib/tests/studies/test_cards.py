"""The study of cards on a small workload: each pool against a replay made alone, and models that no card holds."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from kvprefix.engines.groups import Group
from kvprefix.engines.vllm import VLLM
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.models.pool import Fit, Pool, list_fits, plan_pool
from kvprefix.studies.cards import find_fits, study_cards
from kvprefix.traces.workload import make_trace


def make_fit(blocks, block_size=16, groups=1):
    return Fit("Tiny", Pool(blocks, block_size, 2**20, groups, blocks * 2**20, 2**30, 1), blocks * block_size // groups)


def rate(engine, workload, seed):
    workload = replace(workload, parameters=replace(workload.parameters, seed=seed))
    replayed = engine.replay(make_trace(workload, "multi_turn"))
    return np.maximum(replayed.hit_tokens, 0).sum() / replayed.prompt_tokens.sum()


def test_pools_are_those_replays(bundled_workload):
    frame = study_cards(bundled_workload, "Llama-3.1-8B", [make_fit(3), make_fit(601), make_fit(10**6)])
    rates = frame.pivot(index="seed", columns="fit", values="token")
    assert rates[1][2] == pytest.approx(rate(VLLM(blocks=601), bundled_workload, 2))
    assert (rates[0] < 0.001).all() and (rates[0] < rates[1]).all() and (rates[1] < rates[2]).all()
    assert rates[2][0] == pytest.approx(rate(VLLM(), bundled_workload, 0))
    assert (frame[frame["fit"] == 0]["never_fit"] > 0).all() and not frame[frame["fit"] == 2]["never_fit"].any()


def test_a_hybrid_is_replayed_in_its_groups(bundled_workload):
    frame = study_cards(bundled_workload, "gpt-oss-20b", [make_fit(1201, groups=2)]).set_index("seed")
    groups = Group("window", 128), Group("full")
    assert frame["token"][1] == pytest.approx(rate(VLLMHybrid(groups, blocks=1201), bundled_workload, 1))
    states = study_cards(bundled_workload, "Qwen3-Next-80B-A3B", [make_fit(90, 544, groups=4)]).set_index("seed")
    groups = *[Group("state", None, 544)] * 3, Group("full", None, 544)
    assert states["token"][1] == pytest.approx(rate(VLLMHybrid(groups, blocks=90), bundled_workload, 1))


def test_groups_that_do_not_align_have_no_rates(bundled_workload, tmp_path):
    # A chunk's token takes half as much as one of full attention: its blocks would hold twice as many.
    path = tmp_path / "config.json"
    path.write_text(
        '{"num_hidden_layers": 2, "layer_types": ["chunked_attention", "full_attention"], "attention_chunk_size": 64, '
        '"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 16}'
    )
    assert not len(study_cards(bundled_workload, path, [make_fit(100, groups=2)]))


def test_the_cards_that_hold_a_model():
    fits = list_fits("Llama-3.1-8B")
    assert [(fit.card, fit.pool.gpus) for fit in fits] == [
        ("A10-24G", 1), ("H100-80G", 1), ("H100-80G", 2), ("H100-80G", 4),
    ]  # fmt: skip
    assert fits[1].pool == plan_pool("Llama-3.1-8B", "H100-80G") and fits[1].tokens == fits[1].pool.tokens
    assert [(fit.card, fit.pool.gpus) for fit in list_fits("Llama-3.1-405B")] == [
        ("H100-80G", 16), ("H100-80G", 32), ("H100-80G", 64),
    ]  # fmt: skip
    # 12 layers of 2,048 bytes per token, and 12 that keep 128 of 8,192 tokens: 24,576 + 384 bytes.
    (fit,) = list_fits("gpt-oss-20b", usual="L40S-48G", numbers=1)[1:]
    assert fit.tokens == fit.pool.kv_bytes // 24960 > fit.pool.tokens


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "how many parameters it has is not known .* expected their number"),
        ({"hidden_size": 2**20, "intermediate_size": 2**22, "vocab_size": 2**20}, "does not fit on 1 H100-80G: .*no"),
    ],
)
def test_why_no_card_is_known_is_said(tmp_path, fields, said):
    config = {"num_hidden_layers": 100, "num_attention_heads": 8, "head_dim": 64, **fields}
    (tmp_path / "config.json").write_text(json.dumps(config))
    fits, reason = find_fits(tmp_path, 16)
    assert fits == [] and "\n" not in reason
    assert re.search(said, reason)
