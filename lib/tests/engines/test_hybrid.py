"""vLLM's cache of hybrid models: hand cases, what vLLM answered, and a twin in plain Python."""

import json

import numpy as np
import pytest
from hybrid_twin import HybridTwin, hybrid_models
from hypothesis import given, settings
from hypothesis import strategies as st
from places import CARRIED, SHARED

from kvprefix.engines.groups import Group, name_groups
from kvprefix.engines.vllm import VLLM
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.studies.verify import make_hybrid, make_recorded, make_small_hybrid, read_lines, rebuild
from kvprefix.traces.trace import make_trace_of

FIXTURES = SHARED / "fixtures" / "hybrid"
CASES = json.loads((CARRIED / "hand_hybrid.json").read_text(encoding="utf-8"))


# ---- By hand, and what vLLM answered


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_hand_cases(case):
    engine = make_hybrid(case)
    for n in range(1, len(case["requests"]) + 1):
        result = engine.replay(make_recorded(case["requests"][:n]))
        cached = [None if tokens < 0 else tokens for tokens in result.hit_tokens.tolist()]
        assert cached == case["expected_num_cached_tokens"][:n]
        assert result.details["hashed_blocks_at_end"] == case["hashed_blocks_by_group_after"][n - 1]


def check_recorded(trace, path):
    """Compare 893 requests, and the blocks that hold something in the end."""
    *lines, totals = read_lines(path)
    recorded = totals["totals"]
    result = make_hybrid(recorded).replay(trace)
    theirs = np.array([line["num_cached_tokens"] for line in lines])
    assert len(theirs) == 893 and (result.hit_tokens != theirs).sum() == 0
    assert result.details["hashed_blocks_at_end"] == recorded["hashed_blocks_at_end"]


@pytest.fixture(scope="module")
def requests():
    return make_recorded(list(rebuild(read_lines(CARRIED / "sharegpt200_close.outline.jsonl.gz"))))


CARRIED_ANSWERS = sorted(CARRIED.glob("sharegpt200_close.*.ret*.expected.jsonl.gz"))


@pytest.mark.parametrize("path", CARRIED_ANSWERS, ids=lambda path: path.name.removesuffix(".expected.jsonl.gz"))
def test_requests_hit_what_they_hit_in_vllm(requests, path):
    check_recorded(requests, path)


def test_one_model_of_each_kind_is_carried():
    assert [path.name.split(".")[1] for path in CARRIED_ANSWERS] == ["gemma3", "gptoss", "llama4", "mamba-align"]


@pytest.mark.skipif(not FIXTURES.exists(), reason="the recordings are not part of the repository")
def test_all_recordings_agree(requests):
    assert json.loads((FIXTURES / "hand_hybrid.json").read_text(encoding="utf-8")) == CASES
    paths = sorted(FIXTURES.glob("*.expected.jsonl.gz"))
    assert len(paths) >= 9
    for path in paths:
        check_recorded(requests, path)


def test_small_runs_hit_what_they_hit_in_vllm():
    # Groups of all kinds, block sizes that differ, small pools, prompts in several steps, a dropped unit.
    runs = read_lines(CARRIED / "small_hybrids.jsonl.gz")
    assert len(runs) == 80
    for run in runs:
        engine, trace = make_small_hybrid(run)
        result = engine.replay(trace)
        assert [None if hit < 0 else hit for hit in result.hit_tokens.tolist()] == run["num_cached_tokens"]
        assert result.details["hashed_blocks_at_end"] == run["hashed_blocks_at_end"]


def test_salts_and_adapters_keep_prefixes_apart():
    groups = Group("full", None, 2), Group("window", 3, 2)
    salts = ["a", "b", "a", None]
    trace = make_trace_of([[1, 2, 3, 4, 5]] * 4, cache_salts=salts)
    assert VLLMHybrid(groups).replay(trace).hit_tokens.tolist() == [0, 0, 4, 0]


def test_no_requests_at_all():
    result = VLLMHybrid(name_groups("mamba-align")).replay(make_trace_of([]))
    assert (len(result), result.details["hashed_blocks_at_end"], result.evictions) == (0, [0] * 4, 0)


# ---- What it says


def test_sharing_that_is_shorter_than_a_unit_is_said():
    prompts = [[*range(700), k] for k in range(800, 810)]
    states = [Group("full", block_size=784), Group("state", block_size=784)]
    result = VLLMHybrid(states).replay(make_trace_of(prompts))
    assert result.hit_tokens.sum() == 0
    said = "your sharing is shorter than one block: of 9 requests that share 16 tokens or more with an earlier one, "
    assert result.details["note"] == said + "9 share fewer than 784, the unit of hits"
    assert "note" not in VLLMHybrid(name_groups("mamba-align")).replay(make_trace_of(prompts)).details
    assert "note" not in VLLMHybrid(states).replay(make_trace_of([[k] * 900 for k in range(9)])).details


def test_a_prompt_that_never_fits_is_explained():
    # 10 tokens are 5 blocks of 2 in full attention, and at most 4 in a window of 3 at 3 tokens a step (2 + 3 tokens).
    engine = VLLMHybrid([Group("full", None, 2), Group("window", 3, 2)], blocks=9, step_tokens=3)
    assert engine.replay(make_trace_of([[*range(10)]])).hit_tokens.tolist() == [-1]
    assert engine.explain_refusal(10) == "the prompt needs up to 9 blocks in 2 groups and the pool has 8"


# ---- The twin


@st.composite
def small_traces(draw):
    """Draw prompts and outputs that often continue one another."""
    prompts, outputs = [], []
    for _ in range(draw(st.integers(1, 7))):
        before = draw(st.sampled_from([[], *[a + b for a, b in zip(prompts, outputs, strict=True)]]))
        kept = before[: draw(st.integers(0, len(before)))] if draw(st.booleans()) else before
        prompts.append((kept + draw(st.lists(st.integers(0, 1), max_size=9)))[:30] or [0])
        outputs.append(draw(st.lists(st.integers(0, 1), max_size=12)))
    return prompts, outputs


@given(small_traces(), hybrid_models(), st.integers(2, 60), st.sampled_from([0, 0, None, 1, 2, 4]), st.integers(2, 40))
@settings(max_examples=300, deadline=None)
def test_small_runs_agree_with_the_twin(trace, model, size, retention, step_tokens):
    prompts, outputs = trace
    groups, drop = model
    unit = int(np.lcm.reduce([group.block_size for group in groups]))
    if retention:
        sparse = any(group.kind in ("window", "state") for group in groups)
        retention = retention * unit if sparse else 0
    twin = HybridTwin(groups, size, retention, drop, step_tokens)
    options = {"blocks": size, "retention": retention, "drop_last_unit": drop, "step_tokens": step_tokens}
    result = VLLMHybrid(groups, **options).replay(make_trace_of(prompts, outputs=outputs))
    hits = [twin.run(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)]
    assert result.hit_tokens.tolist() == hits
    assert result.details["hashed_blocks_at_end"] == twin.count()
    assert (result.cached_hashes, result.evictions) == (len(set(twin.keys.values())), twin.evictions)
    assert result.outputs_cut == twin.outputs_cut


@given(small_traces(), st.integers(1, 4), st.integers(2, 16))
@settings(deadline=None)
def test_one_group_of_full_attention_is_the_engine_without_groups(trace, block_size, size):
    prompts, outputs = trace
    trace = make_trace_of(prompts, outputs=outputs)
    plain = VLLM(block_size=block_size, blocks=size).replay(trace)
    result = VLLMHybrid([Group("full", block_size=block_size)], blocks=size).replay(trace)
    assert result.hit_tokens.tolist() == plain.hit_tokens.tolist()
    names = "cached_hashes", "blocks_with_hash", "evictions", "outputs_cut"
    assert [getattr(result, name) for name in names] == [getattr(plain, name) for name in names]
