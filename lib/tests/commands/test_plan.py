"""`kvprefix plan`: one clear line for what is wrong, and the same hits as an engine's replay of the same requests."""

import json
import re

import pytest
from places import SAMPLE
from plans import make_requests, make_setup, walk_paths

from kvprefix.__main__ import main

CARD = {"memory_mib": 81559, "flops": {"bf16": 9e14}, "bytes_per_s": 1e12}
CONFIG = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 16, "head_dim": 64}
ONE = ["--replicas", "1", "--routers", "rr", "--dram", "0"]


def ask(capsys, data, *words):
    code = main(["plan", str(data), *words])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kv-model", "Llama-3.1-70B"], "131.5 GiB of weights .* expected 2 H100-80G or 1 B200-180G"),
        (["--kv-model", "Kimi-K2", "--gpu", "T4-16G"], "no number up to 64 of T4-16G holds .* expected 8 H200-141G"),
        (["--overhead-gib", "1000"], "than the 0.0 GiB that are left .* a higher utilisation or a lower over"),
        (["--kv-model", "nowhere"], "model 'nowhere' is not known"),
        (["--gpu", "nowhere"], "card 'nowhere' is not known"),
        (["--routers", "rrr"], "router 'rrr' is not known"),
        (["--routers", "hash"], "router 'hash' lacks its number"),
        (["--replicas", "0"], "replicas is 0; expected a whole number, 1 to 1023"),
        (["--replicas", "1,,2"], "replicas is '1,,2'; expected values, comma-separated"),
        (["--replicas", "many"], "replicas is 'many'; expected a whole number"),
        (["--replicas", "1000000000"], "replicas is 1000000000; expected"),
        (["--dram", "-1"], "dram is -1.0; expected GiB per replica"),
        (["--dram", "1e308"], r"dram is 1e\+308; expected GiB per replica"),
        (["--slo-ttft", "0"], "slo_ttft is 0.0; expected"),
        (["--slo-percentile", "95"], "slo_percentile is 95; known: 50, 90, 99"),
        (["--slo-percentile", "most"], "slo_percentile is 'most'; known: 50, 90, 99"),
        (["--mfu", "0"], "mfu is 0.0; expected a share"),
        (["--mfu", "2"], "mfu is 2.0; expected a share"),
        (["--gpu-price", "-1"], "gpu_price is -1.0; expected a price in dollars"),
        (["--gpu-price", "cheap"], "gpu_price is 'cheap'; expected a price in dollars"),
        (["--dram-price", "-1"], "dram_price is -1.0; expected a price in dollars"),
        (["--gpus-per-replica", "3"], "tensor_parallel is 3; expected a divisor or a multiple of 8 KV heads"),
        (["--kv-dtype", "fp9"], "dtype is 'fp9'"),
        (["--weights-dtype", "fp9"], "dtype is 'fp9'"),
        (["--pool-share", "0.00001"], "no prompt fits into a replica's pool of 4 tokens; the shortest has 25 tokens"),
    ],
)
def test_what_is_wrong_is_one_line(capsys, words, message):
    code, out, error = ask(capsys, SAMPLE, *words)
    assert code == 2 and len(error.splitlines()) == 1 and "tokens per second" not in out
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("option", "name", "content", "message"),
    [
        ("--gpu", "card.json", CARD | {"flops": {"bf16": 0}}, "card.json: flops.bf16 is 0; expected a number above 0"),
        ("--gpu", "card.json", CARD | {"speed": 3}, "card.json: a card's field speed is not known"),
        ("--gpu", "card.json", [1], "card.json: holds no JSON object"),
        ("--kv-model", "config.json", CONFIG, "num_key_value_heads is 16; expected a divisor of the 8 attention heads"),
    ],
)
def test_files_that_contradict_themselves(capsys, tmp_path, option, name, content, message):
    (tmp_path / name).write_text(json.dumps(content))
    code, _, error = ask(capsys, SAMPLE, option, str(tmp_path / name))
    assert code == 2 and len(error.splitlines()) == 1 and message in error


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("[]", "no usable conversation"), ("{", "line 1")])
def test_data_without_a_request(capsys, tmp_path, text, message):
    (tmp_path / "data.json").write_text(text)
    code, _, error = ask(capsys, tmp_path / "data.json")
    assert code == 2 and message in error and "Traceback" not in error


def test_the_hits_are_those_of_the_command_replay(capsys, tmp_path):
    prompts, outputs, _ = make_requests(walk_paths(8, n=60))
    rows = [{"request_id": str(k), "timestamp": 500 * k, "prompt_token_ids": prompt, "output_token_ids": output}
            for k, (prompt, output) in enumerate(zip(prompts, outputs, strict=True))]  # fmt: skip
    data = tmp_path / "requests.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = make_setup(tmp_path, 40).gpu
    options = ["--gpu", card, "--utilisation", "1", "--overhead-gib", "0", *ONE, "--format", "json"]
    code, out, _ = ask(capsys, data, *options)
    found = json.loads(out)
    assert code == 0 and found["pool"]["num_gpu_blocks"] == 40
    longer = json.loads(ask(capsys, data, *options, "--ttft-s", "50")[1])["traffic"]
    assert longer["running_tokens"] > 10 * found["traffic"]["running_tokens"] > 0  # as long as requests run
    answers = tmp_path / "answers.jsonl"
    main(["replay", str(data), "--engine", "vllm", "--num-gpu-blocks", "40", "--out", str(answers)])
    cached = sum(json.loads(line).get("num_cached_tokens", 0) for line in answers.read_text().splitlines())
    assert 0 < cached == found["plans"][0]["hit_tokens"]


def test_a_card_without_a_price_has_no_dollars(capsys, tmp_path):
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    code, out, _ = ask(capsys, SAMPLE, "--gpu", str(tmp_path / "card.json"), *ONE)
    choice = out.split("\n\n")[1]
    assert code == 0 and choice.startswith("The smallest of 1 plan that keeps") and "$" not in choice


def test_calls_with_times_of_their_own(capsys):
    code, out, _ = ask(capsys, SAMPLE.with_name("calls.jsonl"), *ONE, "--format", "json")
    found = json.loads(out)
    assert code == 0 and found["seeds"] == [0] and found["traffic"]["requests_per_s"] > 0


def test_hybrid_models_say_in_what_units_they_hit(capsys):
    for model, gpus, unit in (("gpt-oss-20b", "1", "16"), ("Qwen3-Next-80B-A3B", "4", "528")):
        code, out, error = ask(capsys, SAMPLE, "--kv-model", model, "--gpus-per-replica", gpus, *ONE)
        assert code == 0 and "sure to fit" in out
        assert f"groups of layers, and its hits are multiples of {unit} tokens" in error
