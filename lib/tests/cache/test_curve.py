import gzip
import json
from fractions import Fraction

import numpy as np
import pytest
from cache_twin import count_unbounded, list_distances, make_random, make_small, rate_twin, small_traces
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHARED

from kvprefix.blocks.prefix_trace import PrefixTrace, make_prefix_trace, number_blocks
from kvprefix.cache.curve import (
    Curve,
    count_hits_at,
    count_seen,
    lru_curve,
    measure_distances,
    rate_hits,
    rate_unbounded,
)
from kvprefix.cache.policies import POLICIES
from kvprefix.cache.replay import replay
from kvprefix.files.paths import InputError
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import make_trace

WEIGHTINGS = ("block", "token", "request_mean")
WARMUPS = st.sampled_from([0, 0.0, 0.25, 0.5, 0.99])
NOTHING_TO_HIT = [[], [""], ["", "", ""], ["a", "b", "cd", "e"]]


def assert_equals_replays(accesses, capacities, warmup):
    """Compare the curve with an LRU cache of each of the capacities."""
    distances = measure_distances(accesses)
    curve = lru_curve(accesses, distances, warmup=warmup)
    at, counts = curve.at(capacities), count_hits_at(accesses, distances, capacities)
    for column, capacity in enumerate(capacities):
        hits = replay(accesses, capacity, "lru")
        assert counts[:, column].tolist() == hits.tolist()
        rates = rate_hits(accesses, hits, warmup=warmup)
        assert (at["block"][column], at["token"][column]) == (rates["block"], rates["token"])
        assert at["request_mean"][column] == pytest.approx(rates["request_mean"], rel=1e-12)


# ---- Stack distances


def test_distances_by_hand():
    # ab: both new, stack a ab. ac: a is 1st, ac new, stack a ac ab. ab: a is 1st, ab 3rd, stack a ab ac.
    # b: new, stack b a ab ac. ac: a is 2nd, ac 4th
    accesses = make_small(["ab", "ac", "ab", "b", "", "ac"]).accesses
    assert measure_distances(accesses).tolist() == [0, 0, 1, 0, 1, 3, 0, 2, 4]
    # a request looks all its blocks up before any is updated: abc again has its distances 1, 2, 3
    assert measure_distances(make_small(["abc", "abc"]).accesses).tolist() == [0, 0, 0, 1, 2, 3]


@given(small_traces(max_requests=20))
def test_distances_of_small_traces_agree_with_the_twin(small):
    assert measure_distances(small.accesses).tolist() == list_distances(small.paths)


@pytest.mark.parametrize("seed", range(3))
def test_distances_of_longer_traces_agree_with_the_twin(seed):
    small = make_random(seed)
    assert measure_distances(small.accesses).tolist() == list_distances(small.paths)


# ---- The LRU curve


@given(small_traces(), WARMUPS)
@settings(max_examples=100)
def test_curve_equals_replays_at_every_capacity(small, warmup):
    assert_equals_replays(small.accesses, list(range(1, small.accesses.n_distinct + 3)), warmup)


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_curve_of_a_longer_trace_equals_replays(warmup):
    accesses = make_random(seed=0).accesses
    assert_equals_replays(accesses, list(range(1, accesses.n_distinct + 3)), warmup)


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_curve_of_bundled_conversations_equals_replays(bundled_workload, warmup):
    accesses = make_prefix_trace(make_trace(bundled_workload, "multi_turn"), 16)
    assert_equals_replays(accesses, [1, 30, 300, 3_000, 10_000, 30_000, accesses.n_distinct], warmup)


@given(small_traces(), WARMUPS)
@settings(max_examples=100)
def test_curve_rises_from_nothing_to_the_ceiling(small, warmup):
    curve = lru_curve(small.accesses, warmup=warmup)
    ceiling = rate_unbounded(small.accesses, warmup=warmup)
    for name in WEIGHTINGS:
        rates = getattr(curve, name)
        assert rates[0] == 0
        assert (np.diff(rates) >= 0).all()
        assert rates[-1] == pytest.approx(ceiling[name], rel=1e-12)
        assert rates[-1] <= 1 + 1e-12


def test_hits_at_capacities_by_hand():
    # ab ac ab b: distances 0 0 | 1 0 | 1 3 | 0: the third request hits a from 1 block on, ab from 3 on
    accesses = make_small(["ab", "ac", "ab", "b"]).accesses
    counts = count_hits_at(accesses, measure_distances(accesses), [0, 1, 2, 3, 9])
    assert counts.tolist() == [[0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [0, 1, 1, 2, 2], [0, 0, 0, 0, 0]]


# ---- Rates


def test_weights_of_the_last_block_by_hand():
    # blocks of 4, the same two three times: the second prompt ends with its last block (0), the third's holds 3 tokens
    small = make_small(["ab", "ab", "ab"], block_size=4, last_weight=[4, 0, 3], prompt_tokens=[9, 8, 7])
    rates = rate_unbounded(small.accesses)
    assert rates["block"] == 4 / 6
    assert rates["token"] == (4 + 0 + 4 + 3) / (9 + 8 + 7)
    assert rates["request_mean"] == pytest.approx((0 / 9 + 4 / 8 + 7 / 7) / 3)
    curve = lru_curve(small.accesses)
    assert curve.block.tolist() == [0, 2 / 6, 4 / 6]  # one block of room hits a, two hit ab
    assert curve.token.tolist() == [0, (4 + 4) / 24, (4 + 7) / 24]
    # the last half of three requests is the last two: int(3 * 0.5) = 1 is left out
    assert rate_unbounded(small.accesses, warmup=0.5)["token"] == 11 / 15
    assert rate_unbounded(small.accesses, warmup=0.5)["block"] == 4 / 4


@given(small_traces(), WARMUPS, st.integers(1, 12))
@settings(max_examples=100)
def test_rates_agree_with_the_twin(small, warmup, capacity):
    unbounded = count_unbounded(small.paths)
    assert count_seen(small.accesses.ids, small.accesses.offsets).tolist() == unbounded
    assert rate_unbounded(small.accesses, warmup=warmup) == pytest.approx(rate_twin(small, unbounded, warmup))
    hits = replay(small.accesses, capacity, "fifo")
    assert rate_hits(small.accesses, hits, warmup=warmup) == pytest.approx(rate_twin(small, hits.tolist(), warmup))


@pytest.mark.parametrize("paths", NOTHING_TO_HIT)
@pytest.mark.parametrize("warmup", [0, 0.5])
def test_nothing_to_hit_rates_zero(paths, warmup):
    accesses = make_small(paths).accesses
    assert rate_unbounded(accesses, warmup=warmup) == dict.fromkeys(WEIGHTINGS, 0.0)
    curve = lru_curve(accesses, warmup=warmup)
    for name in WEIGHTINGS:
        assert getattr(curve, name).tolist() == [0.0]
        assert curve.at([0, 7])[name].tolist() == [0.0, 0.0]
        assert curve.tiers([2, 3], name).tolist() == [0.0, 0.0, 0.0]
        assert curve.capacity_for(0.9, name) == 0
    assert count_hits_at(accesses, measure_distances(accesses), [1, 5]).tolist() == [[0, 0]] * len(paths)


def test_prompts_without_tokens_do_not_count_in_the_mean():
    # two requests of 3 tokens, the second hits its one block of 2: (0 + 2 / 3) / 2; the empty ones are left out
    small = make_small(["", "a", "", "a"], prompt_tokens=[0, 3, 0, 3])
    assert rate_unbounded(small.accesses)["request_mean"] == pytest.approx(1 / 3)
    assert lru_curve(small.accesses).request_mean == pytest.approx([0, 1 / 3])


@pytest.mark.parametrize("warmup", [1, 1.0, 1.5, -0.1, True, False, float("nan"), "0.5", None])
def test_warmup_is_checked(warmup):
    accesses = make_small(["a", "a"]).accesses
    for compute in (lru_curve, rate_unbounded):
        with pytest.raises(InputError, match="expected a share of the requests, 0 or more and below 1"):
            compute(accesses, warmup=warmup)


# ---- What a curve answers

STEPS = Curve(np.array([0, 0.2, 0.2, 0.6, 0.8]), np.array([0, 0.1, 0.1, 0.4, 0.4]), np.array([0, 0.3, 0.5, 0.5, 0.6]))


def test_rates_at_capacities_by_hand():
    at = STEPS.at([0, 3, 4, 5, 10**9])
    assert at["block"].tolist() == [0, 0.6, 0.8, 0.8, 0.8]  # the last value holds beyond the end
    assert at["token"].tolist() == [0, 0.4, 0.4, 0.4, 0.4]
    assert at["request_mean"].tolist() == [0, 0.5, 0.6, 0.6, 0.6]
    assert STEPS.at(3) == {"block": 0.6, "token": 0.4, "request_mean": 0.5}


def test_capacity_for_a_share_by_hand():
    # token ceiling 0.4: a quarter is 0.1, reached at 1; more than that at 3. Block ceiling 0.8: three quarters at 3
    assert [STEPS.capacity_for(share) for share in (0, 0.25, 0.26, 1)] == [0, 1, 3, 3]
    assert [STEPS.capacity_for(share, "block") for share in (0.25, 0.75, 0.76, 1)] == [1, 3, 4, 4]
    assert STEPS.capacity_for(0.5, "request_mean") == 1


def test_tiers_by_hand():
    # cut at 1 and 1 + 2 = 3 blocks: 0.2, 0.6 - 0.2, and 0.8 - 0.6 that are in neither
    assert STEPS.tiers([1, 2], "block") == pytest.approx([0.2, 0.4, 0.2])
    assert STEPS.tiers([1, 2]) == pytest.approx([0.1, 0.3, 0])
    assert STEPS.tiers([3, 100], "block") == pytest.approx([0.6, 0.2, 0])


@given(small_traces(), st.integers(0, 8))
@settings(max_examples=100)
def test_capacity_for_a_share_is_the_fewest_blocks(small, eighths):
    n_accesses = int(small.accesses.offsets[-1])
    curve = lru_curve(small.accesses)
    hits = [round(rate * n_accesses) for rate in curve.block.tolist()]
    share = Fraction(eighths, 8)
    expected = next(capacity for capacity, count in enumerate(hits) if count >= share * hits[-1])
    assert curve.capacity_for(float(share), "block") == expected


@given(small_traces(), st.lists(st.integers(0, 6), min_size=1, max_size=4), st.sampled_from(WEIGHTINGS), WARMUPS)
@settings(max_examples=100)
def test_tiers_add_up_to_the_ceiling(small, sizes, weighting, warmup):
    curve = lru_curve(small.accesses, warmup=warmup)
    tiers = curve.tiers(sizes, weighting)
    assert len(tiers) == len(sizes) + 1
    assert (tiers >= 0).all()
    assert tiers.sum() == pytest.approx(getattr(curve, weighting)[-1])
    for n in range(len(sizes) + 1):  # the first n tiers hit what one cache of their size does
        assert tiers[:n].sum() == pytest.approx(curve.at(sum(sizes[:n]))[weighting])


# ---- A trace that lists block ids, its last block partial, as Mooncake's does


def make_listed(lines, block_size=512):
    """Make accesses of Mooncake's lines: the last block weighs what the others leave of the input."""
    blocks = np.array([len(line["hash_ids"]) for line in lines])
    offsets = np.concatenate(([0], np.cumsum(blocks)))
    ids, parent, depth = number_blocks(np.array([i for line in lines for i in line["hash_ids"]], np.int64), offsets)
    tokens = np.array([line["input_length"] for line in lines])
    arrival_s = np.array([line["timestamp"] for line in lines]) / 1000
    return PrefixTrace(
        block_size=block_size, ids=ids, offsets=offsets, parent=parent, depth=depth,
        last_weight=tokens - block_size * (blocks - 1), prompt_tokens=tokens, arrival_s=arrival_s, finish_s=arrival_s,
        conversation=np.arange(len(lines)),
    )  # fmt: skip


def test_listed_ids_by_hand():
    requests = [([0, 1, 2], 1200), ([0, 1, 3], 1536), ([0, 1, 2], 1200), ([4], 300), ([0, 1, 3], 1536)]
    accesses = make_listed([{"timestamp": 0, "hash_ids": ids, "input_length": tokens} for ids, tokens in requests])
    # blocks weigh 512, the last of 1200 tokens 1200 - 2 * 512 = 176, the last of 1536 all 512.
    # Unbounded hits 0 2 3 0 3 of 13 accesses; tokens 0 + 1024 + 1200 + 0 + 1536 of 5772
    rates = rate_unbounded(accesses)
    assert (rates["block"], rates["token"]) == (8 / 13, 3760 / 5772)
    assert rates["request_mean"] == pytest.approx((1024 / 1536 + 1 + 1) / 5)
    # int(5 * 0.5) = 2 requests are left out: hits 3 0 3 of 7, tokens 1200 + 1536 of 3036
    rates = rate_unbounded(accesses, warmup=0.5)
    assert (rates["block"], rates["token"]) == (6 / 7, 2736 / 3036)
    assert rates["request_mean"] == pytest.approx(2 / 3)
    # stack distances 0 0 0 | 1 2 0 | 1 2 4 | 0 | 2 3 5: hits at 1 to 5 blocks of room
    assert (lru_curve(accesses).block * 13).tolist() == pytest.approx([0, 2, 5, 6, 7, 8])
    # room for 3: all evict the one leaf (2, 3, 2 and 4 in turn), hits 0 2 2 0 2; flat FIFO 2 (1 0 follow), then 2;
    # OPT stores neither 3 nor 4, hits 0 2 3 0 2
    totals = {policy: replay(accesses, 3, policy).sum() for policy in POLICIES}
    assert totals == dict.fromkeys(POLICIES, 6) | {"opt": 7}
    assert [replay(accesses, capacity, "opt").sum() for capacity in (1, 2, 3, 4)] == [3, 6, 7, 8]


@pytest.fixture(scope="module")
def anchors():
    path = SHARED / "anchors.json"
    if not path.exists():
        pytest.skip("the anchors are not part of the repository")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def mooncake(anchors):
    with gzip.open(SHARED / "data" / "mooncake_conversation_trace.jsonl.gz", "rt") as file:
        return make_listed([json.loads(line) for line in file])


def test_mooncake_ceiling_equals_the_anchors(anchors, mooncake):
    assert len(mooncake) == anchors["requests"]
    assert len(mooncake.ids) == anchors["block_accesses"]
    assert mooncake.n_distinct == anchors["distinct_blocks"]
    assert round(mooncake.prompt_tokens.mean()) == anchors["mean_input_tokens"]
    expected, cold, late = anchors["unbounded"], rate_unbounded(mooncake), rate_unbounded(mooncake, warmup=0.5)
    assert round(cold["block"], 5) == expected["block_hit_rate"]
    assert round(cold["token"], 5) == expected["token_hit_rate_min_512k_L"]
    assert round(cold["request_mean"], 5) == expected["request_mean_token_fraction"]
    assert round(late["token"], 5) == expected["token_hit_rate_last_half_of_requests"]
    assert round(late["block"], 5) == expected["block_hit_rate_last_half"]


def test_mooncake_lru_equals_the_anchors(anchors, mooncake):
    curve = lru_curve(mooncake)
    for capacity, expected in anchors["lru_leaf_first_block_hit_rate"].items():
        assert round(float(curve.at(int(capacity))["block"]), 5) == expected
        assert round(rate_hits(mooncake, replay(mooncake, int(capacity), "lru"))["block"], 5) == expected


@pytest.mark.parametrize(
    ("policy", "anchor", "tolerance"),
    [
        ("opt", "opt_bypass_block_hit_rate", 0.000005),
        ("fifo", "fifo_leaf_block_hit_rate", 0.001),
        ("fifo_flat", "fifo_flat_block_hit_rate", 0.001),
        ("lfu", "lfu_leaf_in_cache_count_block_hit_rate", 0.001),
    ],
)
def test_mooncake_policies_equal_the_anchors(anchors, mooncake, policy, anchor, tolerance):
    for capacity, expected in anchors[anchor].items():
        rate = rate_hits(mooncake, replay(mooncake, int(capacity), policy))["block"]
        assert rate == pytest.approx(expected, abs=tolerance)


def test_hits_come_in_the_order_of_the_capacities_asked_for():
    accesses = make_prefix_trace(make_trace_of([[1, 2], [1, 3], [1, 2]]), 1)
    hits = count_hits_at(accesses, measure_distances(accesses), [3, 1])
    assert hits.tolist() == [[0, 0], [1, 1], [2, 1]]
