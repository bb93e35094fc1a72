"""Prefill time against public measurements, the bandwidth at which loading pays, and the gain of throughput."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from places import CARRIED

from kvprefix.files.paths import InputError
from kvprefix.models.cards import load_card
from kvprefix.models.layers import Layers
from kvprefix.models.memory import Model, load_model
from kvprefix.models.prefill import (
    _count_pairs,
    break_even_bandwidth,
    implied_mfu,
    implied_prefill_share,
    prefill_seconds,
    prefill_work,
    throughput_gain,
)

TTFT = json.loads((CARRIED / "ttft.json").read_text())
H100, LLAMA = load_card("H100-80G"), load_model("Llama-3.1-8B")


@pytest.mark.parametrize(
    ("point", "tokens", "dtype", "card"),
    [(0, 5000, "fp8", "H100-80G"), (1, 500, "fp8", "H100-80G"), (2, 10_000, "bf16", "GH200-96G")],
)
def test_public_measurements_imply_these_efficiencies(point, tokens, dtype, card):
    known, llama, card = TTFT["points"][point], load_model("Llama-3.1-70B"), load_card(card)  # as large as 3.3
    mfu = implied_mfu(known["TTFT_s"], 0, tokens, llama, card, 2, dtype=dtype)
    assert round(mfu, 3) == known["implied_mfu_if_t0=0"]
    assert prefill_seconds(0, tokens, llama, card, 2, mfu, dtype=dtype) == pytest.approx(known["TTFT_s"])


@pytest.mark.parametrize(("name", "model", "gpus"), [("8B 1x", LLAMA, 1), ("70B 8x", load_model("Llama-3.1-70B"), 8)])
def test_bandwidth_at_which_loading_pays(name, model, gpus):
    known = TTFT["break_even_GiB_per_s (mfu 0.5, whole prompt cached)"][f"Llama-3.1-{name}H100"]
    for tokens, row in known.items():
        assert prefill_seconds(0, int(tokens), model, H100, gpus) == pytest.approx(row["compute_s"], abs=5e-5)
        assert break_even_bandwidth(int(tokens), model, H100, gpus) / 2**30 == pytest.approx(row["GiB/s"], abs=5e-4)


def test_gains_of_throughput_that_were_measured():
    one, other = TTFT["vllm_9668"], TTFT["vllm_53395"]
    assert throughput_gain(one["hit"], 1.0) == pytest.approx(one["bound 1/(1-hit)"], abs=5e-5)
    assert one["measured_input_throughput_ratio"] / throughput_gain(one["hit"], 1) == pytest.approx(0.9223, abs=5e-5)
    assert throughput_gain(other["hit"], 1.0) == pytest.approx(other["bound"], abs=5e-3)
    gain = np.mean(other["measured_throughput_gain"])
    assert implied_prefill_share(float(gain), other["hit"]) == pytest.approx(0.060, abs=1e-3)
    assert throughput_gain(1.0, 1.0) == float("inf") and throughput_gain(0.9, 0.0) == 1


@given(hit=some.floats(0.01, 1), share=some.floats(0, 0.99))
def test_the_implied_share_is_the_inverse(hit, share):
    assert implied_prefill_share(throughput_gain(hit, share), hit) == pytest.approx(share, abs=1e-9)


@given(some.sampled_from(["full", "window", "chunk", "state"]), some.integers(0, 40), some.integers(1, 9))
def test_pairs_are_those_of_tokens_that_see_each_other(kind, tokens, span):
    seen = {"full": lambda k: k + 1, "window": lambda k: min(k + 1, span), "chunk": lambda k: k % span + 1,
            "state": lambda k: 0}[kind]  # fmt: skip
    counted = sum(seen(k) for k in range(tokens))
    halves = 0.5 * {"full": tokens, "window": min(tokens, span), "chunk": tokens, "state": 0}[kind]
    assert _count_pairs(Layers(kind, 1, 1, span, 1), float(tokens)) == counted - halves  # a token sees half of itself


def test_work_by_hand_and_of_many_prompts():
    # 2 * 8.03e9 * 500 tokens, and 2 * 32 layers * 4096 * (1000**2 - 500**2)
    assert prefill_work(500, 1000, LLAMA) == 2 * 8.03e9 * 500 + 2 * 32 * 4096 * 750_000
    many = prefill_seconds([0, 500], [1000, 1000], LLAMA, H100, fixed_s=0.02)
    assert many.shape == (2,) and many[1] == pytest.approx(0.02 + prefill_work(500, 1000, LLAMA) / (989e12 / 2))
    assert prefill_seconds(1000, 1000, LLAMA, H100, fixed_s=0.02) == 0.02


def test_experts_that_a_token_uses_count():
    mixtral = load_model("Mixtral-8x7B")
    assert prefill_work(0, 1, mixtral) == pytest.approx(2 * 12.9e9, rel=1e-3)
    assert prefill_work(0, 1, mixtral, parameters=46.7e9) > 3 * prefill_work(0, 1, mixtral)


def test_a_window_costs_less_than_full_attention():
    short, long = (prefill_work(0, n, load_model("Gemma-3-27B")) / n for n in (1024, 131_072))
    full = 2 * 62 * 32 * 128 * 131_072  # per token of 62 full layers at 131,072 tokens
    assert long - short < 0.2 * full


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mfu": 0}, "mfu is 0; expected a share above 0"),
        ({"mfu": 1.5}, "mfu is 1.5"),
        ({"gpus": 0}, "gpus is 0; expected a whole number of cards"),
        ({"cached": 1001}, "cached tokens must be"),
        ({"cached": -1}, "cached tokens must be"),
        ({"fixed_s": -1}, "fixed_s is -1; expected seconds"),
        ({"model": Model("m", 1, "m", LLAMA.cache, {"config": {}})}, "m: how many parameters it has is not known"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    given = {"cached": 0, "prompt": 1000, "model": LLAMA, "card": H100} | change
    with pytest.raises(InputError, match=message):
        prefill_seconds(**given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: throughput_gain(1.1, 0.5), "token hit rate is 1.1"),
        (lambda: throughput_gain(0.5, -0.1), "share of prefill in GPU time is -0.1"),
        (lambda: implied_prefill_share(0.9, 0.5), "gain is 0.9; expected a ratio of throughputs, 1 or more"),
        (lambda: implied_mfu(0.01, 0, 100, LLAMA, H100, fixed_s=0.02), "seconds is 0.01; expected more than fixed_s"),
        (lambda: break_even_bandwidth(0, LLAMA, H100), "tokens is 0"),
    ],
)
def test_shares_and_gains_are_checked(call, message):
    with pytest.raises(InputError, match=message):
        call()
