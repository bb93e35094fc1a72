"""What a plan is made for: checks of what is given, and every assumption with its source."""

import argparse
import json
import pickle
from dataclasses import fields

import pytest

from kvprefix.commands.plan import add_options
from kvprefix.files.paths import InputError
from kvprefix.models.pool import plan_pool
from kvprefix.plan.choose import find_break_even
from kvprefix.plan.setup import Setup, list_assumptions, read_setup
from kvprefix.traces.parameters import Parameters


def test_the_pool_is_that_of_the_cards():
    setup = Setup(kv_model="Llama-3.1-70B", gpus_per_replica=4, utilisation=0.9, kv_dtype="fp8", overhead_gib=2.0)
    assert setup.pool() == plan_pool("Llama-3.1-70B", "H100-80G", 4, 0.9, "fp8", overhead_gib=2.0)
    assert setup.token_bytes == 80 * 2 * 8 * 128 / 4  # a card's quarter of 163,840 bytes
    assert setup.count_blocks(1.0, 16) == 2**30 // (163_840 * 16)
    assert setup.time_loading(25 * 2**30 / setup.token_bytes) == pytest.approx(1.0)


def test_quantised_weights_take_less_and_are_multiplied_faster():
    usual, small = (Setup(kv_model="Qwen3-32B", weights_dtype=one) for one in (None, "fp8"))
    assert small.pool() == plan_pool("Qwen3-32B", "H100-80G", weights_dtype="fp8")
    assert small.pool().weights_bytes == usual.pool().weights_bytes // 2 and small.pool().blocks > usual.pool().blocks
    work = [one.time_prefill(0, 4096) - one.fixed_s for one in (usual, small)]
    assert work[0] / work[1] == pytest.approx(1979 / 989)  # the card's rates
    rates = [find_break_even(one)["gib_per_s"].iloc[0] for one in (usual, small)]
    assert rates[1] / rates[0] == pytest.approx(1979 / 989)
    assert {one.name: one.value for one in list_assumptions(small)}["weights_dtype"] == "fp8"


def test_price_of_replicas_by_hand():
    setup = Setup(gpus_per_replica=2, gpu_price=3.0, dram_price=0.01)
    assert setup.price(4, 100.0) == 4 * (2 * 3.0 + 1.0)


def test_lists_are_ordered_once_and_none_is_always_there():
    setup = Setup(replicas=(4, 1, 4), routers=("rr", "hash:64", "rr"), dram=(512, 0, 64.0))
    assert (setup.replicas, setup.routers, setup.tiers) == ((4, 1), ("rr", "hash:64"), (0.0, 64.0, 512.0))
    assert read_setup(Parameters(replicas="2, 3", routers="rr", dram="0")).tiers == (0.0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicas": (0,)}, "replicas is 0; expected a whole number, 1 to 1023"),
        ({"replicas": (1024,)}, "replicas is 1024; expected"),
        ({"replicas": ()}, "at least one number of replicas"),
        ({"routers": ("rrr",)}, "router 'rrr' is not known"),
        ({"dram": (-1,)}, "dram is -1; expected GiB per replica, 0 to 1e"),
        ({"dram": (1e300,)}, "dram is 1e.300; expected"),
        ({"slo_ttft": 0}, "slo_ttft is 0; expected seconds, above 0"),
        ({"slo_percentile": 95}, "slo_percentile is 95; known: 50, 90, 99"),
        ({"mfu": 0}, "mfu is 0; expected a share above 0"),
        ({"mfu": 2}, "mfu is 2; expected a share above 0"),
        ({"mfu": True}, "mfu is True"),
        ({"pool_share": 0}, "pool_share is 0"),
        ({"prefill_share": float("nan")}, "prefill_share is nan"),
        ({"gpu_price": -1}, "gpu_price is -1; expected a price in dollars"),
        ({"dram_price": float("inf")}, "dram_price is inf"),
        ({"load_gib_per_s": 0}, "load_gib_per_s is 0"),
        ({"fixed_s": 1e300}, "fixed_s is 1e.300; expected seconds, 0 to 3600"),
        ({"gpus_per_replica": 1.5}, "gpus_per_replica is 1.5"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(InputError, match=message):
        Setup(**change)


def test_every_assumption_has_a_source_and_says_what_was_given():
    usual = {one.name: one for one in list_assumptions(Setup())}
    own = {one.name for one in fields(Setup) if "label" in one.metadata}
    assert set(usual) == own and all(one.label and one.value and one.source for one in usual.values())
    assert usual["weights_dtype"].value == "bfloat16"
    assert usual["kv_dtype"].value == "the weights' type" and usual["gpu_price"].shown == "3.99 $ per hour"
    given = {one.name: one for one in list_assumptions(Setup(mfu=0.4, gpu_price=2.5, kv_dtype="fp8"))}
    assert [given[name].source for name in ("mfu", "gpu_price", "kv_dtype")] == ["given"] * 3
    assert given["gpu_price"].shown == "2.5 $ per hour" and given["fixed_s"] == usual["fixed_s"]


def test_a_checkpoint_whose_cache_is_fp8_says_so(tmp_path):
    config = {"num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 512, "intermediate_size": 1024,
              "vocab_size": 1000, "quantization_config": {"kv_cache_quant_algo": "FP8"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    setup = Setup(kv_model=str(tmp_path))
    assert setup.model.bytes_per_token == 2 * 2 * 512
    assert {one.name: one.value for one in list_assumptions(setup)}["kv_dtype"] == "fp8"


def test_assumptions_are_numbers_with_a_unit_beside():
    found = {one.name: one for one in list_assumptions(Setup(gpu="GH200-96G", load_gib_per_s=1250.0))}
    types = {name for name, one in found.items() if isinstance(one.value, str)}
    assert types == {"weights_dtype", "kv_dtype"} and found["mfu"][2:4] == (0.5, "")
    assert found["load_gib_per_s"][2:4] == (1250.0, "GiB/s") and found["load_gib_per_s"].shown == "1,250 GiB/s"
    assert found["gpu_price"].value is None and found["gpu_price"].shown == "not known"  # the table has no price


def test_what_is_compared_and_aimed_at_changes_no_costs(tmp_path):
    costs = Setup().describe_costs()
    assert Setup(slo_ttft=1, slo_percentile=50, dram=(1.0,), replicas=(3,), routers=("rr",)).describe_costs() == costs
    assert Setup(prefill_share=0.4).describe_costs() != costs != Setup(mfu=0.4).describe_costs()
    assert Setup(kv_dtype="fp8").describe_costs() != costs != Setup(dram_price=0.1).describe_costs()
    config = {"num_hidden_layers": 2, "num_attention_heads": 8, "head_dim": 64, "hidden_size": 512,
              "intermediate_size": 1024, "vocab_size": 1000}  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    before = Setup(kv_model=str(path)).describe_costs()
    path.write_text(json.dumps(config | {"intermediate_size": 2048}))
    assert Setup(kv_model=str(path)).describe_costs() != before


def test_a_setup_travels_without_its_files(tmp_path):
    config = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 8, "hidden_size": 512,
              "intermediate_size": 1024, "vocab_size": 1000, "architectures": ["LlamaForCausalLM"]}  # fmt: skip
    card = {"memory_mib": 8192, "flops": {"bf16": 1e12}, "bytes_per_s": 1e12}
    for name, content in (("config.json", config), ("card.json", card)):
        (tmp_path / name).write_text(json.dumps(content))
    setup = Setup(kv_model=str(tmp_path / "config.json"), gpu=str(tmp_path / "card.json"))
    known = setup.describe_costs(), setup.pool(32), setup.token_bytes
    sent = pickle.dumps(setup)
    for name in ("config.json", "card.json"):
        (tmp_path / name).unlink()
    there = pickle.loads(sent)
    assert (there.describe_costs(), there.pool(32), there.token_bytes) == known
    assert there.time_prefill(0, 100) > 0 and there.groups(32)[0].block_size == 32


def test_each_assumption_is_an_option_of_the_command():
    parser = argparse.ArgumentParser()
    add_options(parser)
    known = {action.dest for action in parser._actions}
    assert {one.name for one in list_assumptions(Setup())} <= known
