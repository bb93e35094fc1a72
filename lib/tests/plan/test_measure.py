"""Measured plans: engines' replays, plain loops and plain queues beside them."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from cache_twin import Small
from cluster_twin import route_twin
from engine_twin import twin_one_by_one
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import SHARED
from plans import make_blocks, make_requests, make_setup, small_days, walk_paths

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.cache.cluster.below import replay_tiers_below
from kvprefix.cache.cluster.replay import route_requests
from kvprefix.cache.replay import replay
from kvprefix.engines.vllm import VLLM
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.formats.mooncake import read_mooncake
from kvprefix.plan.measure import measure_cells
from kvprefix.plan.traffic import Traffic
from kvprefix.traces.trace import make_trace_of

MOONCAKE = SHARED / "data" / "mooncake_conversation_trace.jsonl.gz"

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def setups(tmp_path_factory):
    """Return a function that makes Setups, each card once."""
    folder, known = tmp_path_factory.mktemp("cards"), {}

    def find(blocks, kv_model="Llama-3.1-8B", **changes):
        key = blocks, kv_model, *sorted(changes.items())
        if key not in known:
            known[key] = make_setup(folder, blocks, kv_model, **changes)
        return known[key]

    return find


def measure(traffic, setup, replicas, router="rr", tiers=(0.0,)):
    return measure_cells(traffic, setup, replicas, [router], tiers, with_intervals=False)


def size_dram(setup, blocks):
    """Return the GiB in which so many blocks of 16 tokens fit."""
    return (blocks + 0.5) * setup.token_bytes * 16 / 2**30


# ---- Hits


@given(small_days(), st.integers(8, 14), st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_replica_is_the_engine_s_replay(setups, day, blocks, data):
    paths, arrival_s = day
    replies = data.draw(st.lists(st.text("ab", max_size=2), min_size=len(paths), max_size=len(paths)))
    _, _, traffic = make_requests(paths, replies, arrival_s)
    setup = setups(blocks)
    assert setup.pool().blocks == blocks
    (row,) = measure(traffic, setup, 1).to_dict("records")
    assert row["hit_tokens"] == VLLM(blocks=blocks).replay(traffic.trace).hit_tokens.sum()
    assert row["token"] == row["hit_tokens"] / traffic.prompts.sum() and row["never_fit"] == 0


@pytest.mark.parametrize("router", ["rr", "random"])
@given(small_days(), st.integers(8, 12), st.integers(2, 4), st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_replicas_are_so_many_engines(setups, router, day, blocks, replicas, data):
    paths, arrival_s = day
    replies = data.draw(st.lists(st.text("ab", max_size=2), min_size=len(paths), max_size=len(paths)))
    prompts, outputs, traffic = make_requests(paths, replies, arrival_s)
    draw = random.Random(0).randrange
    places = [draw(replicas) if router == "random" else i % replicas for i in range(len(paths))]
    expected = 0
    for replica in range(replicas):
        own = [i for i in range(len(paths)) if places[i] == replica]
        texts = [prompts[i] for i in own], [outputs[i] for i in own], [0] * len(own)
        expected += sum(twin_one_by_one(*texts, 16, blocks, False)[0])
    assert measure(traffic, setups(blocks), replicas, router)["hit_tokens"].tolist() == [expected]


@pytest.mark.parametrize("router", ["session", "longest", "cache-aware-load", "dynamo"])
def test_each_replica_replays_what_its_router_sent(setups, router):
    prompts, outputs, traffic = make_requests(walk_paths(1), walk_paths(2, most=3))
    expected = 0
    places = route_requests(traffic.blocks, 30, router, 3, looked_up=traffic.looked_up).places
    for replica in np.unique(places):
        own = np.flatnonzero(places == replica)
        sent = make_trace_of([prompts[i] for i in own], None, [outputs[i] for i in own])
        expected += VLLM(blocks=30).replay(sent).hit_tokens.sum()
    assert 0 < measure(traffic, setups(30), 3, router)["hit_tokens"].iloc[0] == expected


def test_a_hybrid_model_is_replayed_by_its_groups(setups):
    _, _, traffic = make_requests(walk_paths(3), walk_paths(4, most=3))
    setup = setups(120, "gpt-oss-20b")
    assert [one.label for one in setup.groups()] == ["window 128", "full"] and setup.pool().blocks == 120
    engine = VLLMHybrid(setup.groups(), blocks=120)
    expected = engine.replay(traffic.trace).hit_tokens
    (row,) = measure(traffic, setup, 1).to_dict("records")
    assert row["hit_tokens"] == np.maximum(expected, 0).sum() > 0
    assert row["hit_tokens"] < VLLM(blocks=60).replay(traffic.trace).hit_tokens.sum()  # the window keeps ends only


@given(small_days(), st.integers(7, 12), st.integers(1, 3))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_block_ids_are_lru_on_each_replica(setups, day, blocks, replicas):
    traffic = make_blocks(day[0], arrival_s=day[1])
    (row,) = measure(traffic, setups(blocks), replicas, "longest").to_dict("records")
    replied = replace(traffic.blocks, output_tokens=np.zeros(len(traffic), np.int64))
    twin = route_twin(Small(day[0], replied), blocks, "longest", replicas, 0)
    hits, anywhere = (16 * sum(one[k] for one in twin) for k in (0, 1))
    assert (row["hit_tokens"], row["routing_loss"]) == (hits, (anywhere - hits) / traffic.prompts.sum())
    assert row["captured"] == pytest.approx(hits / anywhere if anywhere else np.nan, nan_ok=True)
    if replicas == 1:
        assert hits == traffic.blocks.hit_tokens(replay(traffic.blocks, blocks)).sum()


def test_prompts_that_never_fit_are_refused_and_count_nowhere(setups):
    paths = ["abcd", "abcdefghij", "abcd", "abcdefghij", "abce"]
    for traffic in (make_blocks(paths), make_requests(paths)[2]):
        (row,) = measure(traffic, setups(8), 1, tiers=(0.0,)).to_dict("records")
        below = measure(traffic, setups(8), 1, tiers=(0.0, size_dram(setups(8), 50)))
        assert (row["never_fit"], row["refused"]) == (2, 0.4)
        assert row["hit_tokens"] == 7 * 16 and row["token"] == 7 * 16 / (3 * 65)
        assert below["hit_tokens"].tolist() == [7 * 16, 7 * 16]  # nor does DRAM get their blocks


# ---- The second tier


@given(small_days(), st.integers(7, 12), st.integers(1, 30), st.integers(1, 3), st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dram_below_lru_is_the_routed_tiers(setups, day, blocks, more, replicas, data):
    partial = data.draw(st.lists(st.booleans(), min_size=len(day[0]), max_size=len(day[0])))
    cut = [(5, 16 * len(path) - 11) if one and path else (16, 16 * len(path) + 1)
           for one, path in zip(partial, day[0], strict=True)]  # fmt: skip
    last, prompts = zip(*cut, strict=True)
    traffic = make_blocks(day[0], arrival_s=day[1], last_weight=last, prompt_tokens=prompts)
    setup = setups(blocks)
    found = measure(traffic, setup, replicas, "rr", (0.0, size_dram(setup, more)))
    places = np.arange(len(traffic)) % replicas
    hits = replay_tiers_below(traffic.blocks, [blocks, more], places, "vllm")
    assert found["hit_tokens"].tolist() == traffic.blocks.hit_tokens(hits.T).sum(axis=0).tolist()
    assert (found["hbm_token"] == found["token"].iloc[0]).all()


def test_dram_behind_an_engine_begins_where_its_hits_end(setups):
    # A pool of 5 blocks, one unused: the four of "xyz" and its last token evict "ab", which the second tier still has.
    _, _, traffic = make_requests(["ab", "xyz", "ab"])
    found = measure(traffic, setups(5), 1, tiers=(0.0, size_dram(setups(5), 5)))
    assert found["hit_tokens"].tolist() == [0, 32]
    assert found["hbm_token"].tolist() == [found["token"].iloc[0]] * 2


@given(small_days(), st.integers(7, 10), st.integers(1, 3))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_more_memory_never_hits_less_under_lru(setups, day, blocks, replicas):
    traffic, tokens = make_blocks(day[0], arrival_s=day[1]), []
    for size in (blocks, blocks + 1, blocks + 5):
        setup = setups(size)
        found = measure(traffic, setup, replicas, "rr", [0.0, *(size_dram(setup, n) for n in (size, size + 40))])
        assert found["token"].is_monotonic_increasing
        assert found["token"].iloc[0] == found["token"].iloc[1]  # a tier no larger than the pool adds nothing
        tokens.append(found["token"].iloc[0])
    assert tokens == sorted(tokens)


# ---- Time and money


def test_times_by_a_plain_queue(setups):
    paths = walk_paths(5, n=60)
    traffic = make_blocks(paths, arrival_s=np.sort(np.random.default_rng(0).uniform(0, 6, 60)))
    setup = setups(40, fixed_s=0.1, load_gib_per_s=0.05, prefill_share=0.25)
    (row,) = measure(traffic, setup, 2, "rr", [size_dram(setup, 100)]).to_dict("records")
    places = np.arange(60) % 2
    first, both = traffic.blocks.hit_tokens(replay_tiers_below(traffic.blocks, [40, 100], places, "vllm").T).T
    free, ttft, work, decoding = [0.0, 0.0], [], [0.0, 0.0], 0.0
    for i, arrival in enumerate(traffic.blocks.arrival_s):
        # 8.03e9 parameters, 32 layers of 4,096 numbers; 131,072 bytes of KV per token.
        prompt, cached = int(traffic.prompts[i]), int(both[i])
        operations = 2 * 8.03e9 * (prompt - cached) + 2 * 32 * 4096 * (prompt**2 - cached**2)
        takes = 0.1 + operations / (1e15 * 0.5) + (cached - int(first[i])) * 131_072 / (0.05 * 2**30)
        begin = max(free[i % 2], arrival)
        free[i % 2] = begin + takes
        ttft.append(begin + takes - arrival)
        whole = 0.1 + (2 * 8.03e9 * prompt + 2 * 32 * 4096 * prompt**2) / (1e15 * 0.5)
        work[i % 2] += takes * (15 <= i < 45)
        decoding += 3 * whole * (15 <= i < 45)  # prefill would take a quarter of the time
    lasts = np.ptp(traffic.blocks.arrival_s[15:45])
    assert both.sum() > first.sum() and row["busiest_load"] == pytest.approx(max(work) / lasts) and max(work) < lasts
    for rank in (50, 90, 99):
        assert row[f"ttft_p{rank}"] == pytest.approx(np.percentile(ttft, rank))
    assert row["gpu_s_per_hour"] == pytest.approx(3600 * sum(work) / lasts)
    assert row["gpu_load"] == pytest.approx((sum(work) + decoding) / lasts / 2)
    computed = traffic.prompts - both
    by_replica = [computed[::2].sum(), computed[1::2].sum()]
    assert row["imbalance_computed"] == pytest.approx(max(by_replica) / np.mean(by_replica))
    assert row["computed_per_s"] == pytest.approx(computed[15:45].sum() / lasts)
    assert row["usd_per_hour"] == pytest.approx(2 * (3.6 + size_dram(setup, 100) * 0.004))
    assert row["gib"] == pytest.approx(2 * (setup.pool().gib + size_dram(setup, 100)))


def test_no_time_is_given_for_a_queue_that_grows(setups):
    traffic = make_blocks(walk_paths(5, n=60), arrival_s=np.arange(60) / 10)
    rows = measure(traffic, setups(40, fixed_s=0.15), 1)
    assert rows["busiest_load"].iloc[0] > 1.5 and rows[["ttft_p50", "ttft_p90", "ttft_p99"]].isna().all(axis=None)
    assert measure(traffic, setups(40, fixed_s=0.15), 2)["ttft_p99"].notna().all()


@pytest.mark.parametrize("paths", [["ab"], ["ab"] * 9, ["", ""]])
def test_requests_at_one_moment_have_no_rates(setups, paths):
    traffic = make_blocks(paths, arrival_s=[5.0] * len(paths))
    rows = measure_cells(traffic, setups(9), 2, ["rr", "dynamo"], (0.0, 1.0))
    assert rows[["computed_per_s", "gpu_s_per_hour", "busiest_load"]].isna().all(axis=None)
    assert rows["ttft_p99"].notna().all() and rows["low"].notna().all()


def test_rows_are_those_of_each_router_and_tier(setups):
    traffic = make_blocks(walk_paths(6))
    whole = measure_cells(traffic, setups(30), 2, ["rr", "longest"], (0.0, 0.5))
    assert whole[["router", "dram_gib"]].values.tolist() == [["rr", 0], ["rr", 0.5], ["longest", 0], ["longest", 0.5]]
    for k, router in enumerate(("rr", "longest")):
        alone = measure_cells(traffic, setups(30), 2, [router], (0.5,))
        assert alone.iloc[0].equals(whole.iloc[2 * k + 1])
    assert (whole["low"] < whole["token"]).all() and (whole["token"] < whole["high"]).all()


def test_in_front_of_one_replica_all_routers_are_the_same(setups):
    _, _, traffic = make_requests(walk_paths(9), walk_paths(10, most=3))
    names = ["rr", "longest", "llm-d", "cache-aware-tree"]
    whole = measure_cells(traffic, setups(30), 1, names, (0.0, 0.01))
    for k, router in enumerate(names):
        alone = measure_cells(traffic, setups(30), 1, [router], (0.0, 0.01))
        assert alone.equals(whole.iloc[2 * k : 2 * k + 2].reset_index(drop=True)) and set(alone["router"]) == {router}


def test_blocks_of_a_trace_that_are_larger_than_an_engine_s(setups):
    # 13 blocks of 16 tokens hold 3 of 64: "acd" pushes out what lies behind "a", so "a" is hit twice.
    prompts = [[ord(one) * 64 + k for one in path for k in range(64)] + [1] for path in ("ab", "acd", "ab")]
    trace = make_trace_of(prompts)
    blocks = make_prefix_trace(trace, 64)
    (row,) = measure(Traffic(blocks=blocks, looked_up=blocks.blocks), setups(13), 1).to_dict("records")
    assert row["hit_tokens"] == blocks.hit_tokens(replay(blocks, 3)).sum() == 128 and row["never_fit"] == 0


def test_below_a_hybrid_model_whole_units_are_kept(setups):
    # Qwen3-Next's states make blocks of 1,056 tokens, 66 of 16: 100 common blocks are one unit, found in DRAM.
    setup = setups(12, "Qwen3-Next-80B-A3B")
    shared = "".join(chr(0x4E00 + k) for k in range(100))
    _, _, traffic = make_requests([shared + "a", shared[:40] + "b", shared + "c", shared + "d"])
    assert setup.find_unit() == 1056
    found = measure(traffic, setup, 2, tiers=(0.0, size_dram(setup, 500)))
    assert found["hbm_token"].tolist() == [found["token"].iloc[0]] * 2
    assert found["hit_tokens"].tolist()[1] == 1056 and (found["routing_loss"] == 1056 / traffic.prompts.sum()).all()


@pytest.mark.skipif(not MOONCAKE.exists(), reason="the trace is not beside the project")
def test_true_numbers_of_a_cluster(setups):
    rates = json.loads((SHARED / "expected" / "cluster.json").read_text())["mooncake_conversation"]["N=8 C=5859"]
    blocks = read_mooncake(MOONCAKE, outputs=True)
    setup = setups(5859 * 32, flops=989e12)  # 5,859 blocks of 512 tokens
    names = {"hash1024": "hash:1024", "sgl_load": "cache-aware-load", "dynamo": "dynamo", "llmd": "llm-d", "rr": "rr"}
    traffic = Traffic(blocks=blocks, looked_up=blocks.blocks)
    found = measure_cells(traffic, setup, 8, list(names.values()), (0.0,), with_intervals=False).set_index("router")
    for name, router in names.items():
        row, expected = found.loc[router], rates[name]
        assert row["hit_tokens"] == expected["hit_tokens"]
        assert row["routing_loss"] == pytest.approx(expected["routing_loss"], abs=1e-6)
        for key in ("imbalance_computed", "max_share_requests", "ttft_p50", "ttft_p90", "ttft_p99"):
            assert row[key] == pytest.approx(expected[key], rel=1e-4, abs=6e-5), (router, key)
    longest = measure(traffic, setup, 8, "longest").iloc[0]
    assert longest["hit_tokens"] == rates["longest"]["hit_tokens"] and np.isnan(longest["ttft_p90"])
