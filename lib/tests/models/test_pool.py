"""From a card's memory to vLLM's number of KV blocks, and models that do not fit."""

import json
import re

import pytest

from kvprefix.files.paths import InputError
from kvprefix.models.cards import Card
from kvprefix.models.memory import load_model
from kvprefix.models.pool import _measure_block, count_gpu_blocks, list_fits, plan_pool
from kvprefix.models.weights import count_parameters, weights_bytes, weights_dtype

GIB = 2**30


def test_blocks_by_hand():
    # 100 GiB of which 0.9 may be taken, 2 GiB of overhead, 8.03e9 * 2 bytes of weights; a block takes 16 * 131,072.
    card = Card("hand", 102_400, {"bf16": 1e12}, 1e12)
    found = plan_pool("Llama-3.1-8B", card, utilisation=0.9, overhead_gib=2)
    assert found.weights_bytes == 16_060_000_000 and found.block_bytes == 2 * 2**20
    assert found.blocks == (88 * GIB - 16_060_000_000) // (2 * 2**20) and found.tokens == 16 * found.blocks
    assert (found.groups, found.block_size) == (1, 16)


def test_a_real_server_s_log():
    # vLLM said of Llama-3-8B on an H100 at 0.9: weights 14.96 GiB, 53.29 GiB for KV (its pull request 10511).
    found = plan_pool("Llama-3.1-8B", "H100-80G", utilisation=0.9)
    assert found.weights_bytes / GIB == pytest.approx(14.96, abs=0.005)
    assert found.kv_bytes / GIB == pytest.approx(53.29, abs=0.1)


def test_cards_share_weights_and_heads():
    one, two = (plan_pool("Llama-3.1-8B", "H100-80G", n) for n in (1, 2))
    assert two.block_bytes == one.block_bytes // 2 and two.weights_bytes == one.weights_bytes // 2
    assert two.blocks > 2 * one.blocks  # the second card brings no second copy of the weights
    lite, doubled = (plan_pool("DeepSeek-V2-Lite", "H100-80G", n) for n in (1, 2))
    assert doubled.block_bytes == lite.block_bytes  # every rank holds all of MLA


def test_a_smaller_type_of_keys_and_values_gives_more_blocks():
    wide, narrow = (count_gpu_blocks("Llama-3.1-8B", "H100-80G", kv_dtype=dtype) for dtype in ("bf16", "fp8"))
    assert narrow in (2 * wide, 2 * wide + 1)
    assert count_gpu_blocks("Llama-3.1-8B", "H100-80G", weights_dtype="fp8") > wide


@pytest.mark.parametrize(
    ("name", "block_size", "groups", "layers"),
    [
        ("Gemma-3-27B", 16, 1 + 6, 10),  # 10 full, 52 window: ceil(52 / 10) groups
        ("gpt-oss-20b", 16, 2, 12),
        ("Llama-4-Scout", 16, 1 + 3, 12),
        ("Mistral-7B-v0.1", 16, 1, 32),
        ("Qwen3-Next-80B-A3B", 1056, 1 + 3, 12),  # 2,146,304 bytes of state / 2,048 per token = 1,048
    ],
)
def test_blocks_of_hybrids_are_pages_of_a_group(name, block_size, groups, layers):
    cache = load_model(name).cache
    token = next(one.size for one in cache.layers if one.kind != "state")
    assert _measure_block(cache, 16) == (block_size, layers * block_size * token, groups)


def test_a_block_that_was_reported(tmp_path):
    # vLLM's issue 24280: 672 tokens for Nemotron-Nano-9B-v2, whose states were in bfloat16 then.
    layers = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
    config = {"num_hidden_layers": 56, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
              "hybrid_override_pattern": layers, "mamba_num_heads": 128, "mamba_head_dim": 80, "ssm_state_size": 128,
              "conv_kernel": 4, "n_groups": 8}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert _measure_block(load_model(tmp_path).cache, 16)[0] == 672


def test_layers_of_nearly_the_same_number_make_two_groups(tmp_path):
    kinds = ["full_attention"] * 10 + ["sliding_attention"] * 14  # 14 < 1.5 * 10: groups of 14, one padded
    config = {"num_hidden_layers": 24, "num_attention_heads": 8, "head_dim": 64, "layer_types": kinds}
    (tmp_path / "config.json").write_text(json.dumps(config | {"sliding_window": 100}))
    assert _measure_block(load_model(tmp_path).cache, 16) == (16, 14 * 16 * 2 * 8 * 64 * 2, 2)


@pytest.mark.parametrize(
    ("model", "card", "gpus", "message"),
    [
        ("Llama-3.1-70B", "H100-80G", 1, "131.5 GiB of weights .* expected 2 H100-80G or 1 B200-180G"),
        ("Llama-3.1-405B", "H100-80G", 8, "8 H100-80G: 94.5 GiB of weights per card .* 16 H100-80G or 8 H200"),
        ("Kimi-K2", "T4-16G", 1, "no number up to 64 of T4-16G holds it; no card of the table does in that number; "
         "expected 8 H200-141G"),
        ("Llama-3.1-405B", "H100-80G", 1, "no card of the table does in that number; expected 16 H100-80G$"),
        ("Llama-3.1-8B", Card("tiny", 100, {"bf16": 1e12}, 1e12), 1, "1 tiny: .* more than the 0.0 GiB that are left "
         "for them; no number up to 64 of tiny holds it; expected 1 A10-24G$"),
        ("Qwen2.5-7B", "T4-16G", 1, "14.2 GiB of weights .* more than the 10.3 GiB .* expected 2 T4-16G or 1 A10-24G"),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(model, card, gpus, message):
    with pytest.raises(InputError, match=message):
        count_gpu_blocks(model, card, gpus)


def test_what_no_card_holds_is_said():
    with pytest.raises(InputError, match="; expected fewer parameters, .*: no number of any card holds it$"):
        count_gpu_blocks("Llama-3.1-8B", "H100-80G", parameters=1e15)


@pytest.mark.parametrize("wrong", [None, 7, "", "H100"])
def test_a_card_or_a_model_that_is_none_is_named(wrong):
    with pytest.raises(InputError, match=f"card '{wrong}' is not known; expected a JSON file"):
        count_gpu_blocks("Llama-3.1-8B", wrong)
    with pytest.raises(InputError, match=f"model '{wrong}' is not known; expected a config.json"):
        count_gpu_blocks(wrong, "H100-80G")


def test_the_number_of_cards_that_is_named_does_fit():
    with pytest.raises(InputError, match="expected 2 H100-80G"):
        count_gpu_blocks("Llama-3.1-70B", "H100-80G")
    assert count_gpu_blocks("Llama-3.1-70B", "H100-80G", 2) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"utilisation": 0}, "utilisation is 0; expected a share of the memory"),
        ({"utilisation": 1.2}, "utilisation is 1.2"),
        ({"gpus": 0}, "gpus is 0; expected a whole number of cards"),
        ({"gpus": 3}, "tensor_parallel is 3; expected a divisor or a multiple of 8 KV heads"),
        ({"block_size": 0}, "block size is 0"),
        ({"kv_dtype": "fp9"}, "dtype is 'fp9'"),
        ({"overhead_gib": -1}, "overhead_gib is -1"),
        ({"parameters": 0}, "parameters is 0"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(InputError, match=message):
        count_gpu_blocks(**{"model": "Llama-3.1-8B", "card": "H100-80G"} | change)


def test_weights_of_a_config(tmp_path):
    config = {"num_hidden_layers": 2, "num_attention_heads": 8, "head_dim": 64, "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load_model(tmp_path)
    with pytest.raises(InputError, match="how many parameters .* not known .hidden_size is missing.*expected their"):
        weights_bytes(model)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))}/config.json: "):
        plan_pool(tmp_path, "H100-80G")
    assert weights_bytes(model, parameters=1000) == 4000
    assert count_gpu_blocks(str(tmp_path), "L4-24G", parameters=1e9) > 0
    index = {"metadata": {"total_size": 12_345}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights_bytes(model) == 12_345


def test_weights_that_a_config_adds_up_to(tmp_path):
    config = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
              "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    own, known = count_gpu_blocks(str(tmp_path), "H100-80G"), count_gpu_blocks("Llama-3.1-8B", "H100-80G")
    assert own == pytest.approx(known, rel=1e-4)
    for method, size in (("fp8", 1), ("awq", None)):
        (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
        if size:
            assert weights_bytes(load_model(tmp_path)) == pytest.approx(8.03e9, rel=1e-3)
        else:
            with pytest.raises(InputError, match="weights are quantised by awq; expected their number type"):
                weights_bytes(load_model(tmp_path))
            assert weights_bytes(load_model(tmp_path), dtype="bf16") == pytest.approx(2 * 8.03e9, rel=1e-3)


def test_layers_of_one_kind_are_one_group_whatever_their_heads(tmp_path):
    config = {"num_transformer_layers": 3, "num_query_heads": [12, 16, 20], "num_kv_heads": [3, 4, 5], "head_dim": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert _measure_block(load_model(tmp_path).cache, 16) == (16, 16 * 2 * 12 * 64 * 2, 1)


def test_weights_that_are_published_in_another_type():
    assert weights_bytes(load_model("gpt-oss-20b")) == round(12.8 * GIB)
    deepseek = load_model("DeepSeek-V3")
    assert weights_dtype(deepseek) == "fp8" and weights_bytes(deepseek) == 671e9
    assert count_parameters(deepseek, active=True) == 37e9


def test_a_pool_of_one_block_is_no_fit():
    # An A10-24G leaves about 2.2 GiB for Llama-3.1-8B: one block of 16,384 tokens (2 GiB), which is the null block.
    assert count_gpu_blocks("Llama-3.1-8B", "A10-24G", block_size=16_384) == 1
    assert "A10-24G" not in {fit.card for fit in list_fits("Llama-3.1-8B", 16_384)}
