"""Tiers beside each other: the true numbers of a trace beside the project, and what is said of small tiers."""

import json

import pytest
from cache_twin import make_small
from places import SHARED

from kvprefix.formats.mooncake import read_mooncake
from kvprefix.studies.tiers import format_tiers, measure_tiers

MOONCAKE = SHARED / "data" / "mooncake_conversation_trace.jsonl.gz"


@pytest.mark.skipif(not MOONCAKE.exists(), reason="the trace is not beside the project")
def test_a_trace_of_block_ids():
    expected = json.loads((SHARED / "expected" / "tiers.json").read_text())["mooncake_conversation"]
    blocks = read_mooncake(MOONCAKE)
    for name, wanted in expected.items():
        assert wanted.pop("prompt_tokens") == blocks.prompt_tokens.sum()
        wanted = {{"vllm032": "vllm", "on_evict": "exclusive"}.get(one, one): rates for one, rates in wanted.items()}
        found = measure_tiers(blocks, [int(size) for size in name.split("+")], list(wanted))["semantics"]
        measured = {one: {"gpu": of["tiers"][0]["hit_tokens"], "total": of["hit_tokens"]} for one, of in found.items()}
        assert measured == wanted


def test_a_tier_that_adds_nothing_is_said():
    blocks = make_small(["ab", "cd", "ab", "cd"]).accesses
    found = measure_tiers(blocks, [4, 2], ["exclusive", "inclusive"])
    assert found["notes"] == [
        "inclusive: tier 2 (2 blocks) is no larger than one above it, which holds the same: it adds nothing"
    ]
    assert found["semantics"]["inclusive"]["tiers"][1]["hit_tokens"] == 0
    shares = found["semantics"]["exclusive"]
    assert shares["token_hit"] == shares["hit_tokens"] / 20 == 8 / 20
    assert "| exclusive " in format_tiers(found) and "tier 2 (2 blocks)" in format_tiers(found)
