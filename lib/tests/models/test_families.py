"""Configs of many families, with the fields that their files have: which layers keep what, a layer each by hand."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kvprefix.files.paths import InputError
from kvprefix.models.cache import read_cache
from kvprefix.models.memory import load_model
from kvprefix.models.parameters import count_config


def case(expected, model_type, **config):
    return pytest.param({"model_type": model_type, **config}, expected, id=model_type)


MAMBA2 = {"mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1,
          "mamba_n_heads": 128}  # fmt: skip
MAMBA2_STATE = (3 * (8192 + 2 * 128) + 8192 * 128) * 2
MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
SIZES = {"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
GQA_TOKEN = 2 * 8 * 128 * 2


CASES = [
    # a bare `text_config`, as LLaVA's files have it: Llama's defaults, 32 layers of 32 heads
    case({"full": (32, 2 * 32 * 128 * 2)}, "llava", text_config={"model_type": "llama", "vocab_size": 32064}),
    case({"full": (28, 2 * 4 * 128 * 2)}, "qwen2_5_omni", thinker_config={
        "text_config": {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
                        "hidden_size": 3584}}),
    case({"full": (2, GQA_TOKEN)}, "chatglm", num_layers=2, multi_query_group_num=8, kv_channels=128, **SIZES),
    case({"full": (40, GQA_TOKEN)}, "dbrx", n_layers=40, n_heads=48, d_model=6144, attn_config={"kv_n_heads": 8}),
    case({"window": (32, 2 * 32 * 96 * 2, 2047)}, "phi3", num_hidden_layers=32, num_attention_heads=32,
         hidden_size=3072, sliding_window=2047),
    case({"full": (16, GQA_TOKEN), "window": (48, GQA_TOKEN, 4096)}, "exaone4", num_hidden_layers=64,
         num_attention_heads=40, num_key_value_heads=8, head_dim=128, sliding_window=4096,
         sliding_window_pattern="LLLG", layer_types=None),
    case({"full": (8, GQA_TOKEN), "window": (24, GQA_TOKEN, 4096)}, "cohere2", num_hidden_layers=32, **SIZES,
         sliding_window=4096, sliding_window_pattern=4),
    case({"full": (4, 2 * 2 * 256 * 2), "window": (16, 2 * 2 * 256 * 2, 512)}, "gemma3n", text_config={
        "num_hidden_layers": 35, "num_key_value_heads": 2, "head_dim": 256, "num_kv_shared_layers": 15,
        "sliding_window": 512}),
    # full layers have 4 heads of 512, windows 16 of 256
    case({"full": (10, 2 * 4 * 512 * 2), "window": (50, 2 * 16 * 256 * 2, 1024)}, "gemma4", text_config={
        "model_type": "gemma4_text", "num_hidden_layers": 60, "num_attention_heads": 32, "num_key_value_heads": 16,
        "head_dim": 256, "global_head_dim": 512, "num_global_key_value_heads": 4, "sliding_window": 1024,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10}),
    # keys of 192 and values of 128 numbers
    case({"full": (9, 4 * (192 + 128) * 2), "window": (39, 8 * (192 + 128) * 2, 128)}, "mimo_v2_flash",
         num_hidden_layers=48, num_attention_heads=64, num_key_value_heads=4, head_dim=192, v_head_dim=128,
         swa_num_key_value_heads=8, swa_head_dim=192, swa_v_head_dim=128, sliding_window=128,
         hybrid_layer_pattern=[0, *[1, 1, 1, 1, 0] * 7, *[1] * 11, 0]),
    case({"full": (3, GQA_TOKEN), "state": (29, MAMBA2_STATE)}, "bamba", attn_layer_indices=[9, 18, 27],
         num_hidden_layers=32, **SIZES, **MAMBA2),
    case({"full": (4, GQA_TOKEN), "state": (36, MAMBA2_STATE)}, "granitemoehybrid", num_hidden_layers=40, **SIZES,
         layer_types=(["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4, **MAMBA2),
    case({"full": (44, 2 * 2 * 128 * 2), "state": (44, (3 * (3072 + 2 * 256) + 3072 * 256) * 2)}, "falcon_h1",
         hidden_size=3072, num_hidden_layers=44, num_attention_heads=12, num_key_value_heads=2, head_dim=128,
         mamba_d_conv=4, mamba_d_head=128, mamba_d_ssm=3072, mamba_d_state=256, mamba_n_groups=1, mamba_n_heads=24),
    case({"full": (9, 2 * 32 * 160 * 2), "state": (54, (3 * (5120 + 2 * 64) + 5120 * 64) * 2)}, "zamba2",
         hidden_size=2560, num_hidden_layers=54, num_attention_heads=32, num_key_value_heads=32,
         attention_head_dim=160, hybrid_layer_ids=[6, 12, 18, 24, 30, 36, 42, 47, 51], mamba_d_conv=4,
         mamba_d_state=64, mamba_expand=2, mamba_headdim=64, mamba_ngroups=1, n_mamba_heads=80),
    case({"full": (4, GQA_TOKEN), "state": (24, (3 * (8192 + 2 * 8 * 128) + 8192 * 128) * 2)}, "nemotron_h",
         num_hidden_layers=52, hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
         hybrid_override_pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-", mamba_num_heads=128,
         mamba_head_dim=64, ssm_state_size=128, conv_kernel=4, n_groups=8, mamba_ssm_cache_dtype="bfloat16"),
    case({"full": (7, 576 * 2), "state": (20, 3 * 3 * 32 * 128 * 2 + 32 * 128 * 128 * 4)}, "kimi_linear",
         num_hidden_layers=27, num_attention_heads=32, head_dim=72, **MLA, linear_attn_config={
             "full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "head_dim": 128, "num_heads": 32,
             "kda_layers": [k for k in range(1, 27) if k % 4], "short_conv_kernel_size": 4}),
    case({"full": (16, 2 * 4 * 256 * 2), "state": (48, 3 * (2 * 16 + 48) * 128 * 2 + 48 * 128 * 128 * 4)}, "qwen3_5",
         text_config={"num_hidden_layers": 64, "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256,
                      "linear_num_key_heads": 16, "linear_num_value_heads": 48, "mamba_ssm_dtype": "float32"}),
    case({"full": (6, 2 * 8 * 64 * 2), "state": (10, 2 * 2048 * 2)}, "lfm2", num_hidden_layers=16, hidden_size=2048,
         num_attention_heads=32, num_key_value_heads=8, conv_L_cache=3, full_attn_idxs=[2, 5, 8, 10, 12, 14]),
    case({"full": (10, GQA_TOKEN), "state": (70, 64 * 128 * 128 * 2)}, "minimax_text_01", num_hidden_layers=80,
         num_attention_heads=64, num_key_value_heads=8, head_dim=128, attn_type_list=([0] * 7 + [1]) * 10),
    # two attentions in each of 28 layers
    case({"full": (56, 576 * 2)}, "longcat_flash", num_layers=28, num_attention_heads=64, zero_expert_num=256, **MLA),
    case({"full": (1, GQA_TOKEN)}, "nemotron-nas", num_hidden_layers=2, **SIZES, block_configs=[
        {"attention": {"n_heads_in_group": 4, "no_op": False}, "ffn": {}},
        {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {}}]),
]  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), CASES)
def test_layers_of_a_family(config, expected):
    found = read_cache(config)
    assert {one.kind: (one.count, one.size, *([one.span] * (one.span > 0))) for one in found.layers} == expected
    assert len(found.layers) == len(expected)


ODD = [0, -1, 1.5, True, "x", [], [1], [None], ["a"] * 32, [-1] * 32, {}, {"a": 1}, 10**30, float("nan")]


@given(some.sampled_from([one.values[0] for one in CASES]), some.integers(0, 99), some.sampled_from(ODD))
def test_an_odd_value_is_read_or_refused(config, place, value):
    own = {key: value for key, value in config.items() if key != "model_type"}
    own[list(own)[place % len(own)]] = value
    for read in (read_cache, count_config):
        with contextlib.suppress(InputError):
            read(own)


FAMILIES = {case.id: case.values[0] for case in CASES}


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("cohere2", {"sliding_window_pattern": -1}, "sliding_window_pattern is -1; expected a whole number"),
        ("exaone4", {"sliding_window_pattern": True}, "sliding_window_pattern is True"),
        ("mimo_v2_flash", {"hybrid_layer_pattern": "x"}, "hybrid_layer_pattern is 'x'; expected a list of 0 and 1"),
        ("zamba2", {"hybrid_layer_ids": 3}, "hybrid_layer_ids is 3; expected numbers of layers, 0 to 53"),
        ("dbrx", {"attn_config": "x"}, "attn_config is 'x'; expected an object"),
        ("dbrx", {"attn_config": {"kv_n_heads": -8}}, "kv_n_heads is -8; expected a whole number"),
        ("nemotron-nas", {"num_attention_heads": 2}, "n_heads_in_group is 4; expected a divisor of the 2 attention"),
        ("zamba2", {"n_mamba_heads": 0}, "mamba heads is 0; expected a whole number"),
    ],
)
def test_a_field_that_decides_is_read_as_the_file_has_it(family, fields, message):
    """transformers would make layers of some wrong values without a word."""
    with pytest.raises(InputError, match=message):
        read_cache(FAMILIES[family] | fields)


def test_layers_that_differ_in_heads():
    config = {"model_type": "openelm", "num_transformer_layers": 3, "num_query_heads": [12, 16, 20]}
    layers = read_cache(config | {"num_kv_heads": [3, 4, 5], "head_dim": 64}).layers
    assert [one.size for one in layers] == [2 * heads * 64 * 2 for heads in (3, 4, 5)]


def test_a_file_of_a_multimodal_model(tmp_path):
    text = {"num_hidden_layers": 61, "num_attention_heads": 64, **MLA}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "kimi_k25", "text_config": text}))
    assert load_model(tmp_path).cache.sequence_bytes(10) == load_model("Kimi-K2").cache.sequence_bytes(10)
