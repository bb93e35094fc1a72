"""KV bytes as a function of length: known numbers, every family's fields, a twin that counts token by token."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some
from places import CARRIED

from kvprefix.files.paths import InputError
from kvprefix.models.cache import read_cache
from kvprefix.models.layers import Layers, marginal_bytes, prefix_bytes, sequence_bytes
from kvprefix.models.memory import load_model

KNOWN = json.loads((CARRIED / "kvbytes.json").read_text())["models"]
GQA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
TOKEN = 2 * 8 * 128 * 2  # bytes of one of its layers
MLA = {"num_hidden_layers": 61, "num_attention_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
MAMBA = {"mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2}
MAMBA_STATE = 8192 * (16 + 3) * 2
MAMBA2 = {"mamba_n_heads": 128, "mamba_d_head": 64, "mamba_d_state": 256, "mamba_d_conv": 4, "mamba_n_groups": 1}
MAMBA2_STATE = (8192 * 256 + 3 * (8192 + 2 * 256)) * 2
DELTA = {"linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
         "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4}  # fmt: skip
DELTA_STATE = 32 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 32 * 128) * 2
N = 5000  # tokens: more than the windows and chunks below


@pytest.mark.parametrize("name", KNOWN)
def test_known_models(name):
    model, _, dtype = name.partition(" ")
    cache = load_model(model, dtype=dtype or None).cache
    row = KNOWN[name]
    assert cache.marginal_bytes == row["marginal_bytes_per_token_at_131072"]
    lengths = [key for key in row if key.isdigit()]
    assert len(lengths) == 9
    assert {key: cache.sequence_bytes(int(key)) for key in lengths} == {key: row[key] for key in lengths}


def keep(config, tokens=N, **options):
    return read_cache(config, **options).sequence_bytes(tokens)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"sliding_window": 100}, 32 * 100),
        ({"sliding_window": 100, "sliding_window_pattern": 6}, 5 * N + 27 * 100),  # 6, 12, ... 30 are full
        ({"sliding_window": 100, "sliding_window_pattern": "LLLG"}, 8 * N + 24 * 100),
        ({"sliding_window": 100, "use_sliding_window": True, "max_window_layers": 20}, 20 * N + 12 * 100),
        ({"sliding_window": 100, "layer_types": ["full_attention", "sliding_attention"] * 16}, 16 * (N + 100)),
        ({"attention_chunk_size": 300, "no_rope_layers": [1, 1, 1, 0] * 8}, 8 * N + 24 * 200),  # 4999 % 300 + 1
        ({"attention_chunk_size": 300, "no_rope_layers": []}, 8 * N + 24 * 200),
        ({"num_kv_shared_layers": 10}, 22 * N),
        ({"use_cla": True, "cla_share_factor": 2}, 16 * N),
        ({"block_configs": [{"attention": {"n_heads_in_group": 4}}, {"attention": {"no_op": True}}] * 16}, 16 * N),
        ({"num_key_value_heads": [8, 4] * 16}, 24 * N),
        ({"sliding_window": 100, "hybrid_layer_pattern": [0, 1] * 16, "swa_num_key_value_heads": 16}, 16 * (N + 200)),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_windows_chunks_and_shared_layers(fields, expected, nested):
    config = {"text_config": GQA | fields} if nested else GQA | fields
    assert keep(config) == TOKEN * expected


@pytest.mark.parametrize(
    ("fields", "full", "states", "state"),
    [
        (MAMBA | {"attn_layer_period": 8, "attn_layer_offset": 4}, 4, 28, MAMBA_STATE),
        (MAMBA2 | {"attn_layer_indices": [9, 18, 27]}, 3, 29, MAMBA2_STATE),
        (MAMBA2 | {"layer_types": ["mamba"] * 31 + ["attention"]}, 1, 31, MAMBA2_STATE),
        (MAMBA2 | {"mamba_d_ssm": 8192}, 32, 32, MAMBA2_STATE),  # Falcon-H1: both in every layer
        (MAMBA2 | {"layers_block_type": ["mamba"] * 31 + ["hybrid"]}, 1, 32, MAMBA2_STATE),
        (MAMBA2 | {"hybrid_override_pattern": "M-M*E" * 6 + "M-"}, 6, 13, MAMBA2_STATE),
        (MAMBA2 | {"mamba_d_head": "auto", "attn_layer_indices": [0]}, 1, 31, MAMBA2_STATE),
        (DELTA | {"full_attention_interval": 4}, 8, 24, DELTA_STATE),
        (DELTA | {"layer_types": ["linear_attention", "full_attention"] * 16}, 16, 16, DELTA_STATE),
        ({"conv_L_cache": 3, "layer_types": ["conv", "full_attention"] * 16}, 16, 16, 2 * 4096 * 2),
        ({"attn_type_list": [0, 1] * 16}, 16, 16, 32 * 128 * 128 * 2),
        (MAMBA | {"attn_layer_period": 8, "mamba_ssm_dtype": "float32"}, 4, 28, 8192 * (16 * 4 + 3 * 2)),
    ],
)
def test_recurrent_layers_keep_the_same_at_any_length(fields, full, states, state):
    cache = read_cache(GQA | fields)
    assert [cache.sequence_bytes(n) for n in (0, 1, N)] == [
        0, full * TOKEN + states * state, full * TOKEN * N + states * state
    ]  # fmt: skip
    half = read_cache(GQA | fields, dtype="fp8")  # of keys and values, not of states
    assert half.sequence_bytes(N) == full * TOKEN * N // 2 + states * state


def test_kimi_linear_counts_its_layers_from_one():
    own = {"full_attn_layers": [4, 8], "kda_layers": [1, 2, 3, 5, 6, 7], "num_heads": 32, "head_dim": 128}
    config = MLA | {"num_hidden_layers": 8, "linear_attn_config": own | {"short_conv_kernel_size": 4}}
    assert keep(config) == 2 * 576 * 2 * N + 6 * (32 * 128 * 128 * 4 + 3 * 3 * 32 * 128 * 2)


def test_recurrent_gemma_has_windows_and_states():
    config = GQA | {"block_types": ["recurrent", "recurrent", "attention"], "attention_window_size": 100}
    config |= {"lru_width": 2560, "conv1d_width": 4}
    assert keep(config) == TOKEN * 10 * 100 + 22 * 2560 * (4 + 3 * 2)


def test_a_model_without_attention_has_states_only():
    config = {"num_hidden_layers": 64, "hidden_size": 4096, "state_size": 128, "conv_kernel": 4, "num_heads": 128}
    cache = read_cache(config | {"head_dim": 64, "n_groups": 8, "expand": 2})
    assert cache.sequence_bytes(N) == 64 * (8192 * 128 + 3 * (8192 + 2 * 8 * 128)) * 2
    assert cache.attention == "none" and cache.marginal_bytes == 0 and cache.bytes_per_token > 0


def test_keys_and_values_of_different_size():
    assert keep(GQA | {"head_dim": 192, "v_head_dim": 128}) == 32 * 8 * (192 + 128) * 2 * N


def test_an_index_keeps_a_key_besides():
    config = MLA | {"index_head_dim": 128}
    assert keep(config, 1) == 61 * (576 * 2 + 128 + 4)
    assert keep(config, 1, dtype="fp8") == 61 * (512 + 4 * 4 + 64 * 2 + 128 + 4)  # vLLM's fp8_ds_mla
    assert keep(MLA, 1, dtype="fp8") == 61 * 576


@pytest.mark.parametrize(
    ("config", "ranks", "times"),
    [
        (GQA | {"sliding_window": 100}, 8, 1),
        (GQA | {"sliding_window": 100}, 16, 2),
        (MLA | {"index_head_dim": 128}, 8, 8),
        (GQA | DELTA | {"full_attention_interval": 32}, 8, 1),
    ],
)
def test_ranks(config, ranks, times):
    assert keep(config, tensor_parallel=ranks) == times * keep(config)


def test_groups_of_mamba_2_lie_on_every_rank():
    config = GQA | MAMBA2 | {"attn_layer_indices": []} | {"layer_types": ["mamba"] * 32}
    assert keep(config, tensor_parallel=4) == 32 * 2 * (8192 * 256 + 3 * (8192 + 2 * 4 * 256))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Gemma-3-4B's file says no heads: transformers' defaults do. 5 of 34 layers are full.
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "num_hidden_layers": 34,
          "hidden_size": 2560, "sliding_window": 1024}}, 2 * 4 * 256 * 2 * (5 * N + 29 * 1024)),
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 34, "sliding_window": 1024}},
         2 * 4 * 256 * 2 * (5 * N + 29 * 1024)),
        ({"model_type": "gemma2", "num_hidden_layers": 26, "num_key_value_heads": 4, "head_dim": 256},
         2 * 4 * 256 * 2 * (13 * N + 13 * 4096)),
        ({"model_type": "llama4", "text_config": {"model_type": "llama4_text", "num_hidden_layers": 48,
          "no_rope_layers": [], "attention_chunk_size": 300}}, 2 * 8 * 128 * 2 * (12 * N + 36 * 200)),
        ({"model_type": "qwen3_next", "num_hidden_layers": 48}, 2 * 2 * 256 * 2 * 12 * N + 36 * DELTA_STATE),
        ({"model_type": "jamba", "num_hidden_layers": 32, "hidden_size": 4096},
         4 * TOKEN * N + 28 * MAMBA_STATE),
        ({"model_type": "mistral", **GQA, "sliding_window": None}, 32 * TOKEN * N),
        ({"model_type": "qwen2", **GQA, "sliding_window": 100, "use_sliding_window": False}, 32 * TOKEN * N),
        ({"model_type": "no-such-model", **GQA}, 32 * TOKEN * N),
    ],
)  # fmt: skip
def test_fields_left_out_have_transformers_defaults(config, expected):
    assert keep(config) == expected


def test_what_is_assumed_is_said():
    config = {"model_type": "gemma3_text", "num_hidden_layers": 34, "sliding_window": 1024}
    assert {"num_attention_heads", "num_key_value_heads", "head_dim", "layer_types"} <= set(read_cache(config).assumed)
    assert read_cache(GQA).assumed == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GQA | {"layer_types": ["full_attention"] * 31}, "layer_types has 31 entries; .* num_hidden_layers is 32"),
        (GQA | {"layer_types": ["full_attention", "sliding_attention"] * 16}, "sliding_window is missing"),
        (GQA | {"layer_types": ["odd"] * 32}, "layer_types holds 'odd'; expected full_attention"),
        (GQA | {"layer_types": ["mamba"] * 32}, "a layer is recurrent, but no field says the size of its state"),
        (GQA | {"sliding_window": 0}, "sliding_window is 0; expected a whole number"),
        (GQA | {"sliding_window": 100, "sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
        (GQA | {"sliding_window": 100, "sliding_window_pattern": "abc"}, "sliding_window_pattern is .*; .* letters"),
        (GQA | {"attention_chunk_size": 8, "no_rope_layers": [1]}, "no_rope_layers has 1 entry;"),
        (GQA | {"num_kv_shared_layers": 32}, "num_kv_shared_layers is 32; expected fewer than the 32 layers"),
        (GQA | MAMBA, "mamba_d_state is set, but no field says which layers"),
        (GQA | DELTA, "linear_num_key_heads is set, but no field says which layers"),
        (GQA | MAMBA | {"attn_layer_period": 8, "attn_layer_offset": 8}, "attn_layer_offset is 8; expected 0 to 7"),
        (GQA | MAMBA2 | {"attn_layer_indices": [32]}, "attn_layer_indices is .32.; .*, 0 to 31"),
        (GQA | MAMBA2 | {"mamba_d_ssm": 8000}, "mamba_d_ssm is 8000; expected heads x head size, 8192"),
        (GQA | MAMBA2 | {"mamba_expand": 4, "attn_layer_indices": [0]}, "mamba_expand x hidden_size is 16384; .* 8192"),
        (GQA | {"index_head_dim": 128}, "index_head_dim is set without kv_lora_rank"),
        (GQA | {"ssm_cfg": {"layer": "Mamba2"}}, "ssm_cfg is set: what such layers keep is not known here"),
        (GQA | {"cross_attention_layers": [3]}, "cross_attention_layers is set"),
        (GQA | {"is_encoder_decoder": True}, "is_encoder_decoder is set"),
        (GQA | {"compress_ratios": [4, 128]}, "compress_ratios is set"),
        (GQA | {"num_hidden_layers": 20_000}, "num_hidden_layers is 20000; expected a whole number, 1 to 10,000"),
    ],
)
def test_contradictions_and_unknown_layers_are_named(config, message):
    with pytest.raises(InputError, match=message):
        read_cache(config)


def test_ranks_must_divide_the_heads_of_a_state():
    with pytest.raises(InputError, match="tensor_parallel is 64; expected a divisor of the 32 heads"):
        read_cache(GQA | DELTA | {"full_attention_interval": 4}, tensor_parallel=64)


def seen(one, position):
    """Return the earlier tokens and itself that a token sees in a layer; each token's keys are a state's part."""
    first = {"full": 0, "window": position - one.span + 1, "chunk": position - position % (one.span or 1)}[one.kind]
    return set(range(max(0, first), position + 1))


LAYERS = some.builds(Layers, some.sampled_from(["full", "window", "chunk"]), some.integers(1, 3), some.integers(1, 9),
                     some.integers(1, 7))  # fmt: skip


@given(layers=some.lists(LAYERS, max_size=4), tokens=some.integers(1, 30))
def test_bytes_are_those_of_the_tokens_that_the_last_one_sees(layers, tokens):
    assert sequence_bytes(layers, tokens) == sum(one.count * one.size * len(seen(one, tokens - 1)) for one in layers)
    # The next token needs itself, and of the prefix what it sees; a window keeps one more, whole.
    needed = {kind: sum(one.count * one.size * (len(seen(one, tokens)) - 1) for one in layers if one.kind == kind)
              for kind in ("full", "window", "chunk")}  # fmt: skip
    spare = sum(one.count * one.size * (min(tokens, one.span) - min(tokens, one.span - 1))
                for one in layers if one.kind == "window")  # fmt: skip
    assert prefix_bytes(layers, tokens) == sum(needed.values()) + spare
    assert prefix_bytes(layers, tokens) <= sequence_bytes(layers, tokens)


@given(layers=some.lists(LAYERS, max_size=4))
def test_marginal_bytes_are_the_growth_from_one_whole_chunk_to_the_next(layers):
    far = 5040  # a multiple of all spans
    assert sequence_bytes(layers, 2 * far) - sequence_bytes(layers, far) == far * marginal_bytes(layers)


def test_nothing_of_nothing():
    assert sequence_bytes([Layers("state", 1, 10)], 0) == prefix_bytes([Layers("state", 1, 10)], 0) == 0
