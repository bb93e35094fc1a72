"""`kvprefix memory`: bytes of a model's KV cache as a function of length."""

import json
import re

import pytest

from kvprefix.__main__ import main


def ask(capsys, *words):
    code = main(["memory", *words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_bytes_by_length(capsys):
    code, out, _ = ask(capsys, "gemma-3-27b", "--tokens", "1,8192,131072", "--format", "json")
    found = json.loads(out)
    assert code == 0 and found["model"] == "Gemma-3-27B"
    assert found["bytes"] == {"1": 507904, "8192": 1107296256, "131072": 11173625856}
    assert found["resumable_prefix_bytes"] == found["bytes"]  # 10 full layers, and windows of 1,024 tokens
    assert found["marginal_bytes_per_token"] == 81920


def test_a_prefix_that_ends_with_a_chunk_needs_none_of_it(capsys):
    found = json.loads(ask(capsys, "Llama-4-Scout", "--tokens", "8000,8192", "--format", "json")[1])
    assert found["bytes"]["8192"] == 1610612736
    assert found["resumable_prefix_bytes"] == {"8000": found["bytes"]["8000"], "8192": 12 * 4096 * 8192}


def test_a_config_of_ones_own(tmp_path, capsys):
    config = {"model_type": "gemma3_text", "num_hidden_layers": 34, "hidden_size": 2560, "sliding_window": 1024}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, out, _ = ask(capsys, str(tmp_path), "--tokens", "8192", "--dtype", "fp8", "--tensor-parallel", "8")
    assert code == 0 and "289,406,976" in out  # half as many bytes of 4 KV heads, each on two ranks
    assert "5 full, 29 of a window of 1,024" in out and "all 8 ranks" in out
    assert "transformers' defaults: num_attention_heads, num_key_value_heads, head_dim, layer_types" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Gema-3-27B"], "model 'Gema-3-27B' is not known; .* did you mean Gemma-3-27B?"),
        (["Phi-4", "--tokens", "1,x"], "number of tokens is 'x'; expected whole numbers"),
        (["Phi-4", "--tokens", "-1"], "number of tokens is -1; expected whole numbers"),
        (["Phi-4", "--dtype", "fp9"], "Phi-4: dtype is 'fp9'; expected one of float32"),
        (["Phi-4", "--tensor-parallel", "4"], "Phi-4: tensor_parallel is 4; expected a divisor or a multiple of 10"),
    ],
)
def test_what_is_wrong_is_named(capsys, words, message):
    code, out, error = ask(capsys, *words)
    assert code == 2 and not out and len(error.splitlines()) == 1
    assert re.search(message, error)
