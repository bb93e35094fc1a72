import json

import numpy as np
import pytest

from kvprefix.files.paths import InputError
from kvprefix.models.fields import DTYPE_BYTES
from kvprefix.models.memory import kv_bytes_per_token, list_models, load_model, to_blocks, to_gib

GQA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
MLA = {"num_hidden_layers": 61, "num_attention_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
FALCON = {"num_hidden_layers": 32, "num_attention_heads": 71, "hidden_size": 4544, "multi_query": True}


def without(config, *fields):
    return {key: value for key, value in config.items() if key not in fields}


def quantised(**fields):
    return {"quantization_config": {"quant_method": "compressed-tensors", **fields}}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Llama-2-7B", 524_288),  # 2 * 32 layers * 32 heads * 128 * 2 bytes, MHA
        ("Llama-3.1-8B", 131_072),  # 2 * 32 * 8 * 128 * 2
        ("Llama-3.1-70B", 327_680),  # 2 * 80 * 8 * 128 * 2
        ("Llama-3.1-405B", 516_096),  # 2 * 126 * 8 * 128 * 2
        ("Qwen2.5-7B", 57_344),  # 2 * 28 * 4 * 128 * 2
        ("Qwen3-32B", 262_144),  # 2 * 64 * 8 * 128 * 2; its heads are wider than 5120 / 64 = 80
        ("Phi-4", 204_800),  # 2 * 40 * 10 * 128 * 2
        ("DeepSeek-V2-Lite", 31_104),  # 27 * (512 + 64) * 2, MLA
        ("DeepSeek-V3", 70_272),  # 61 * (512 + 64) * 2
    ],
)
def test_models_by_hand(name, expected):
    assert load_model(name).bytes_per_token == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (without(GQA, "num_key_value_heads"), 2 * 32 * 32 * 128 * 2),  # every head has its own keys and values
        (GQA | {"num_key_value_heads": None, "head_dim": None}, 2 * 32 * 32 * 128 * 2),  # null is absent
        (GQA | {"head_dim": 64}, 2 * 32 * 8 * 64 * 2),  # not 4096 / 32 = 128
        (GQA | {"kv_channels": 256}, 2 * 32 * 8 * 256 * 2),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, 2 * 12 * 12 * 64 * 2),
        ({"n_layer": 40, "n_head": 48, "n_embd": 6144, "multi_query": True}, 2 * 40 * 1 * 128 * 2),
        (FALCON | {"num_kv_heads": 71}, 2 * 32 * 1 * 64 * 2),  # multi_query goes before num_kv_heads ...
        (FALCON | {"num_kv_heads": 71, "multi_query": False}, 2 * 32 * 71 * 64 * 2),
        (
            {"num_hidden_layers": 60, "num_attention_heads": 128, "num_kv_heads": 8, "hidden_size": 8192}
            | {"multi_query": True, "new_decoder_architecture": True},  # ... but not in the newer architecture
            2 * 60 * 8 * 64 * 2,
        ),
        (without(GQA, "num_key_value_heads") | {"multi_query_group_num": 2}, 2 * 32 * 2 * 128 * 2),
        (GQA | {"kv_lora_rank": None, "qk_rope_head_dim": 0, "v_head_dim": 0}, 131_072),
        ({"hidden_size": 1, "num_hidden_layers": 1, "text_config": GQA}, 131_072),
        (GQA | {"layer_types": ["full_attention"] * 32, "sliding_window": None}, 131_072),
        (GQA | {"sliding_window": 131072, "use_sliding_window": False}, 131_072),
        (GQA | {"num_kv_shared_layers": 0, "is_encoder_decoder": False}, 131_072),
    ],
)
def test_forms_of_config(config, expected):
    assert kv_bytes_per_token(config) == expected


@pytest.mark.parametrize(
    ("config", "dtype", "number"),
    [
        (GQA, None, 2),
        (GQA | {"torch_dtype": "float32"}, None, 4),
        (GQA | {"dtype": "float32"}, None, 4),
        (GQA | {"torch_dtype": "float32"}, "fp8", 1),
        (GQA | {"torch_dtype": "unknown"}, "torch.float16", 2),  # the argument goes first
        ({"torch_dtype": "float32", "text_config": GQA}, None, 4),
        ({"torch_dtype": "float32", "text_config": GQA | {"dtype": "float16"}}, None, 2),
        *((GQA, dtype, number) for dtype, number in DTYPE_BYTES.items()),
        (GQA | quantised(kv_cache_scheme={"type": "float", "num_bits": 8, "dynamic": False}), None, 1),
        (GQA | quantised(kv_cache_scheme={"type": "float", "num_bits": 8}), "bf16", 2),
        (quantised(kv_cache_quant_algo="FP8") | {"text_config": GQA}, None, 1),
        ({"text_config": GQA | quantised(kv_cache_quant_algo="FP8")}, None, 1),
        (GQA | quantised(kv_cache_scheme=None, kv_cache_quant_algo=None), None, 2),
        (GQA | quantised(kv_cache_scheme={"type": "int", "num_bits": 4}), "fp8", 1),
    ],
)
def test_dtype(config, dtype, number):
    assert kv_bytes_per_token(config, dtype=dtype) == 2 * 32 * 8 * 128 * number


@pytest.mark.parametrize(
    ("config", "ranks", "times"),
    [
        (GQA, 1, 1),
        (GQA, 8, 1),  # 8 KV heads: one a rank
        (GQA, 16, 2),  # each KV head lies on two ranks
        (GQA, np.int64(32), 4),
        (MLA, 1, 1),
        (MLA, 8, 8),  # every rank holds the whole vector
        (FALCON, 4, 4),  # the one KV head lies on all ranks
    ],
)
def test_tensor_parallel(config, ranks, times):
    assert kv_bytes_per_token(config, tensor_parallel=ranks) == times * kv_bytes_per_token(config)


@pytest.mark.parametrize("ranks", [0, -1, 2.0, True, "2", None, 3, 12])
def test_wrong_tensor_parallel(ranks):
    with pytest.raises(InputError, match="tensor_parallel is .*; expected"):
        kv_bytes_per_token(GQA, tensor_parallel=ranks)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "num_hidden_layers is missing; expected a whole number, 1 or more"),
        (without(GQA, "num_attention_heads"), "num_attention_heads is missing"),
        (without(GQA, "hidden_size"), "hidden_size is missing"),
        (without(MLA, "qk_rope_head_dim"), "qk_rope_head_dim is missing"),
        (GQA | {"num_hidden_layers": 32.0}, "num_hidden_layers is 32.0; expected a whole number"),
        (GQA | {"num_hidden_layers": True}, "num_hidden_layers is True"),
        (GQA | {"num_key_value_heads": "8"}, "num_key_value_heads is '8'"),
        (GQA | {"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        (GQA | {"num_key_value_heads": [8, 4]}, "num_key_value_heads is .8, 4."),
        (GQA | {"num_key_value_heads": 5}, "num_key_value_heads is 5; expected a divisor of the 32 attention heads"),
        (GQA | {"hidden_size": 4100}, "hidden_size is 4100; expected a multiple of the 32 heads, or head_dim"),
        (GQA | {"head_dim": -1}, "head_dim is -1"),
        (GQA | {"v_head_dim": -64}, "v_head_dim is -64; expected a whole number"),
        (MLA | {"kv_lora_rank": 0}, "kv_lora_rank is 0"),
        ({"n_layer": 0}, "n_layer is 0"),
        (GQA | {"torch_dtype": "auto"}, "dtype is 'auto'; expected one of float32, bfloat16"),
        (GQA | quantised(kv_cache_quant_algo="NVFP4"), "kv_cache_quant_algo is 'NVFP4'; expected FP8, or a number"),
        ([GQA], "not a JSON object"),
        ({"text_config": [GQA]}, "not a JSON object"),
    ],
)
def test_wrong_fields_are_named(config, message):
    with pytest.raises(InputError, match=message):
        kv_bytes_per_token(config)


def test_load_a_file_or_its_folder(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(GQA | {"torch_dtype": "bfloat16", "vocab_size": 7}))
    model = load_model(folder)
    assert (model.name, model.bytes_per_token, model.source) == ("my-model", 131_072, str(folder / "config.json"))
    assert load_model(str(folder / "config.json")) == model
    assert load_model(folder, dtype="fp8", tensor_parallel=16).bytes_per_token == 131_072  # half the bytes, two copies
    (folder / "other.json").write_text(json.dumps(MLA))
    assert load_model(folder / "other.json").name == "other"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000])
def test_broken_json(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match="config.json: not JSON .*; expected"):
        load_model(tmp_path)


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(InputError, match="'no-such-model' is not known; .* Llama-2-7B, .*, Jamba-v0.1$"):
        load_model("no-such-model")
    with pytest.raises(InputError, match="config.json: No such file"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match=f"{tmp_path.name}/config.json: .* not a JSON object"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="^phi-4: tensor_parallel is 4; expected a divisor or a multiple of 10 KV"):
        load_model("phi-4", tensor_parallel=4)


def test_every_row_of_the_table_loads():
    table = list_models()
    assert len(table) >= 14 and table["model"].str.lower().is_unique
    for row in table.itertuples(index=False):
        model = load_model(row.model.upper())
        assert model == load_model(row.model)
        assert (model.name, model.bytes_per_token, model.source) == (row.model, row[5], row.source)
        assert row.source.startswith("https://huggingface.co/") and row.source.endswith("/blob/main/config.json")
        if "of" not in row.attention and row.model != "DeepSeek-V3.2":  # whose index keeps a key besides
            assert row[5] == (1 if row.attention == "MLA" else 2) * row.layers * row[2] * row[3] * 2
    assert set(table["attention"].str.split(",").str[0]) == {"MHA", "GQA", "MLA"}
    assert table.set_index("model")["attention"]["Gemma-3-27B"] == "GQA, 10 of 62 full"
    assert list(table) == [
        *("model", "layers", "KV heads", "head size", "attention"),
        *("bytes per token", "GiB for 100,000 tokens", "source"),
    ]


def test_gib_by_hand():
    # A block of 16 tokens of Llama-3.1-8B: 16 * 131,072 = 2 MiB; 40 GiB hold 40 * 512 = 20,480.
    assert to_gib(20_480, 16, 131_072) == 40
    assert to_blocks(40, 16, 131_072) == 20_480
    assert to_blocks([0, 0.001, 0.00390625], 16, 131_072).tolist() == [0, 0, 2]  # 1.024 MiB, 4 MiB
    gib = list_models().set_index("model")["GiB for 100,000 tokens"]
    assert gib["Llama-3.1-8B"] == pytest.approx(12.207, abs=5e-4)  # 100,000 * 131,072 / 2**30


def test_gib_and_back():
    blocks = np.random.default_rng(0).integers(0, 10**9, 10_000)
    for size in list_models()["bytes per token"]:
        for block_size in (1, 16, 100):
            back = to_blocks(to_gib(blocks, block_size, size), block_size, size)
            assert back.dtype == np.int64 and np.array_equal(back, blocks)
    assert to_gib(np.array([2**31 - 1], np.int32), 16, 131_072) == (2**31 - 1) / 512  # no 32-bit overflow
    assert to_blocks(np.array([4], np.int32), 16, 131_072) == 2048


@pytest.mark.parametrize("gib", [-1, float("nan"), float("inf"), [1, -1]])
def test_wrong_capacity(gib):
    with pytest.raises(InputError, match="GiB; expected numbers, 0 or more"):
        to_blocks(gib, 16, 131_072)


@pytest.mark.parametrize("convert", [to_gib, to_blocks])
def test_wrong_sizes(convert):
    with pytest.raises(InputError, match="block size is 0; expected"):
        convert(1, 0, 131_072)
    with pytest.raises(InputError, match="bytes per token is 1.5; expected"):
        convert(1, 16, 1.5)
