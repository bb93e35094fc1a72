"""Replicas behind routers: against a plain-Python twin, the plain replay, and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from cache_twin import make_small, small_traces
from cluster_twin import route_twin
from hypothesis import given, settings
from hypothesis import strategies as st

from kvprefix.cache.cluster.below import replay_tiers_below
from kvprefix.cache.cluster.replay import route_requests
from kvprefix.cache.cluster.routers import ROUTERS, check_replicas, find_router, keep_places
from kvprefix.cache.replay import replay
from kvprefix.cache.tiers import SEMANTICS, replay_tiers
from kvprefix.files.paths import InputError

NAMES = [name for name in ROUTERS if name != "hash"] + ["hash:1", "hash:3"]


@st.composite
def small_days(draw):
    """Draw a small trace whose requests have outputs and conversations; some finishes are known."""
    small = draw(small_traces())
    n = len(small.paths)
    outputs, talks = (np.array(draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))) for _ in range(2))
    finish_s = np.where(outputs % 2, small.accesses.finish_s, small.accesses.arrival_s)
    return small._replace(
        accesses=replace(small.accesses, output_tokens=outputs, conversation=talks, finish_s=finish_s)
    )


@pytest.mark.parametrize("router", NAMES)
@given(small_days(), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=60)
def test_small_traces_agree_with_the_twin(router, small, capacity, replicas):
    found = route_requests(small.accesses, capacity, router, replicas, seed=3)
    assert list(zip(*map(np.ndarray.tolist, found), strict=True)) == route_twin(small, capacity, router, replicas, 3)


@pytest.mark.parametrize("router", NAMES)
@given(small_days(), st.integers(1, 9))
@settings(max_examples=20)
def test_one_replica_is_the_plain_replay(router, small, capacity):
    found = route_requests(small.accesses, capacity, router, 1)
    assert found.hits.tolist() == found.anywhere.tolist() == replay(small.accesses, capacity).tolist()


@given(small_days(), st.integers(1, 9), st.integers(1, 4))
def test_more_memory_never_hits_less_where_places_do_not_depend_on_it(small, capacity, replicas):
    for router in ("rr", "session", "hash:1", "cache-aware-tree", "cache-aware-load"):
        less, more = (route_requests(small.accesses, c, router, replicas) for c in (capacity, capacity + 1))
        assert (less.hits <= more.hits).all() and (less.places == more.places).all()


@pytest.mark.parametrize("semantics", SEMANTICS)
@given(small_days(), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=20)
def test_tiers_of_replicas(semantics, small, capacity, replicas):
    routed = route_requests(small.accesses, capacity, "llm-d", replicas)
    found = replay_tiers_below(small.accesses, [capacity, 6], routed.places, semantics)
    assert found[0].tolist() == routed.hits.tolist() and (found[1] >= found[0]).all()
    if replicas == 1:
        assert found.tolist() == replay_tiers(small.accesses, [capacity, 6], semantics).tolist()
    if semantics == "exclusive":
        one = route_requests(small.accesses, capacity + 6, keep_places(routed.places), replicas)
        assert found[1].tolist() == one.hits.tolist()


def test_many_replicas():
    # 130 replicas need three words of 63 bits: each gets a path of its own, then the same again in reverse.
    names = [f"{chr(33 + k // 10)}{chr(200 + k % 10)}" for k in range(130)]
    blocks = make_small([*names, *names[::-1]]).accesses
    places = [*range(130), *range(129, -1, -1)]
    found = route_requests(blocks, 2, keep_places(places), 130)
    assert found.hits.tolist() == [0] * 130 + [2] * 130
    moved = route_requests(blocks, 2, keep_places([*range(130), *[0] * 130]), 130)
    assert moved.anywhere[130:-1].tolist() == [2] * 129 and moved.hits[130:].max() == 1  # but for replica 0's own path


@pytest.mark.parametrize("router", ["cache-aware-tree", "cache-aware-load"])
def test_the_idlest_replica_helps_when_one_has_over_64_outstanding_requests_more(router):
    # All at once, all alike: 65 go to replica 0, then 65 - 0 > 64 sends one to replica 1, whose tree is the latest.
    found = route_requests(make_small(["a"] * 140, arrival_s=[0] * 140).accesses, 9, router, 2)
    assert found.places[:65].tolist() == [0] * 65 and found.places[65:131].tolist() == [1] * 66
    # 65 to 66: balanced, and replica 1 got the prefix last.
    assert found.places[131:].tolist() == [1] * 9


def test_a_router_that_nobody_tells_of_evictions_sends_a_prompt_where_its_blocks_are_gone():
    # Room for one block: "b" evicted "a" on replica 0; "a" goes there again and misses.
    small = make_small(["a", "b", "c", "a"], arrival_s=[0, 9, 18, 27])
    routed = route_requests(small.accesses, 1, "cache-aware-load", 2)
    assert routed.places.tolist() == [0, 0, 0, 0] and routed.hits.tolist() == [0, 0, 0, 0]


def test_of_equal_scores_the_replica_with_fewer_outstanding_requests_gets_the_prompt():
    # "ab" runs on replica 0, which holds 2 of 3 blocks of "abc": 3 * 2/3 + 2 * 0 there, 3 * 0 + 2 * 1 on the idle one.
    found = route_requests(make_small(["ab", "abc"], arrival_s=[0, 0]).accesses, None, "llm-d", 2)
    assert found.places.tolist() == [0, 1]


def test_routes_of_nothing():
    blocks = make_small([]).accesses
    for router in NAMES:
        assert len(route_requests(blocks, 1, router, 2).hits) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("longst", "known: rr, random, session, hash:TOKENS, longest, .* did you mean longest"),
        ("hash", "lacks its number; expected hash:N"), ("hash:", "lacks its number"),
        ("hash:many", "router hash is 'many'; expected hash:N with a whole number of tokens"),
        ("hash:0", "router hash is 0; expected hash:N"), ("rr:4", "router 'rr:4' has no number; expected rr"),
    ],
)  # fmt: skip
def test_wrong_routers_are_refused(name, said):
    with pytest.raises(InputError, match=said):
        find_router(name)


@pytest.mark.parametrize("replicas", [0, -1, 1025, 2.5, True, "two"])
def test_wrong_numbers_of_replicas_are_refused(replicas):
    with pytest.raises(InputError, match="replicas is .*; expected a whole number, 1 to 1024"):
        check_replicas(replicas)
