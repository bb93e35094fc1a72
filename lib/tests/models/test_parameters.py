"""Parameters counted from a config, against what publishers say."""

import pytest

from kvprefix.files.paths import InputError
from kvprefix.models.parameters import count_config


def case(total, active, model_type, **config):
    return pytest.param({"model_type": model_type, **config}, total, active, id=f"{model_type}-{total:g}")


LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
         "intermediate_size": 14336, "tie_word_embeddings": False}  # fmt: skip
MLA = {"num_hidden_layers": 61, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
       "n_shared_experts": 1, "num_experts_per_tok": 8, "kv_lora_rank": 512, "q_lora_rank": 1536,
       "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "tie_word_embeddings": False}  # fmt: skip
MAMBA2 = {"mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1,
          "mamba_n_heads": 128}  # fmt: skip
CASES = [  # billions, as the publishers' cards and the models' own files say
    case(8.03, 8.03, "llama", **LLAMA, vocab_size=128256),
    case(8.19, 8.19, "qwen3", **LLAMA | {"num_hidden_layers": 36, "intermediate_size": 12288, "vocab_size": 151936}),
    case(14.66, 14.66, "phi3", num_hidden_layers=40, num_attention_heads=40, num_key_value_heads=10, hidden_size=5120,
         intermediate_size=17920, vocab_size=100352, tie_word_embeddings=False),
    case(27.0, 27.0, "gemma3_text", num_hidden_layers=62, num_attention_heads=32, num_key_value_heads=16, head_dim=128,
         hidden_size=5376, intermediate_size=21504, vocab_size=262208, sliding_window=1024),  # without its eyes
    case(46.7, 12.75, "mixtral", **LLAMA, vocab_size=32000, num_local_experts=8, num_experts_per_tok=2),
    case(671.0, 36.6, "deepseek_v3", **MLA, num_attention_heads=128, n_routed_experts=256, first_k_dense_replace=3,
         vocab_size=129280),
    case(1026.4, 31.7, "kimi_k2", **MLA, num_attention_heads=64, n_routed_experts=384, first_k_dense_replace=1,
         vocab_size=163840),
    case(20.91, 3.61, "gpt_oss", num_hidden_layers=24, num_attention_heads=64, num_key_value_heads=8, head_dim=64,
         hidden_size=2880, intermediate_size=2880, num_local_experts=32, num_experts_per_tok=4, vocab_size=201088,
         sliding_window=128),
    case(79.67, 3.56, "qwen3_next", num_hidden_layers=48, num_attention_heads=16, num_key_value_heads=2, head_dim=256,
         hidden_size=2048, intermediate_size=5120, moe_intermediate_size=512, num_experts=512, num_experts_per_tok=10,
         shared_expert_intermediate_size=512, vocab_size=151936, full_attention_interval=4),
    case(51.57, 11.84, "jamba", **LLAMA, num_experts=16, num_experts_per_tok=2, mamba_dt_rank=256, vocab_size=65536),
    case(107.77, 16.14, "llama4_text", num_hidden_layers=48, num_attention_heads=40, num_key_value_heads=8,
         head_dim=128, hidden_size=5120, intermediate_size=8192, intermediate_size_mlp=16384, num_local_experts=16,
         num_experts_per_tok=1, interleave_moe_layer_step=1, vocab_size=202048),
    case(9.78, 9.78, "bamba", **LLAMA, **MAMBA2, vocab_size=128256, attn_layer_indices=[9, 18, 27]),
    case(7.59, 7.59, "falcon_h1", **LLAMA | MAMBA2 | {
        "hidden_size": 3072, "num_hidden_layers": 44, "num_attention_heads": 12, "num_key_value_heads": 2,
        "head_dim": 128, "intermediate_size": 12288, "mamba_d_head": 128, "mamba_d_ssm": 3072, "mamba_d_state": 256,
        "mamba_n_heads": 24, "vocab_size": 130049}),
]  # fmt: skip


@pytest.mark.parametrize(("config", "total", "active"), CASES)
def test_parameters_of_known_models(config, total, active):
    found = count_config(config)
    assert found.total / 1e9 == pytest.approx(total, rel=2e-3)
    assert found.active / 1e9 == pytest.approx(active, rel=5e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2", "n_layer": 12}, "how many parameters its layers have is not known"),
        (LLAMA, "vocab_size is missing"),
        ({key: value for key, value in LLAMA.items() if key != "intermediate_size"} | {"vocab_size": 9},
         "intermediate_size is missing"),
        (LLAMA | {"vocab_size": 9, "num_experts": 8}, "num_experts_per_tok is missing"),
        (LLAMA | {"vocab_size": 9, "lru_width": 9, "block_types": ["recurrent"]}, "recurrent layers have is not known"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_said(config, message):
    with pytest.raises(InputError, match=message):
        count_config(config)
