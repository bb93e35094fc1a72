"""Tiers of caches: against plain-Python twins, a plain cache of their size, and by hand."""

import numpy as np
import pytest
from cache_twin import count_leading, make_small, replay_twin, small_traces, split_path
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.cache.replay import replay
from kvprefix.cache.tiers import SEMANTICS, find_semantics, replay_tiers
from kvprefix.files.paths import InputError

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 9))


def replay_offloading_twin(small, capacities, threshold=1):
    """Return what both tiers hit under vLLM's rule: `below` lists the blocks of the second tier, the oldest first."""
    first, below, offers, hits = replay_twin(small, capacities[0], "lru"), [], {}, []
    for path, above in zip(small.paths, first, strict=True):
        blocks = split_path(path)
        loaded = blocks[above : above + count_leading(blocks[above:], below)]
        hits.append(above + len(loaded))
        offered = blocks[hits[-1] :] if loaded else blocks
        for block in offered:
            offers[block] = offers.get(block, 0) + 1
        recorded = loaded + offered
        below = [one for one in below if one not in recorded] + [one for one in recorded[::-1] if one in below]
        new = [one for one in offered if one not in below and offers[one] >= threshold]
        if len(new) > capacities[1] - sum(one in below for one in offered):
            continue  # no room: nothing is stored
        while len(below) + len(new) > capacities[1]:
            below.remove(next(one for one in below if one not in offered))
        kept = [one for one in recorded[::-1] if one in below or one in new]
        below = [one for one in below if one not in kept] + kept
    return hits


def replay_after_twin(small, capacities, times):
    """Return what both tiers hit if a block goes down once it was hit so often in the first."""
    first, below, uses, hits = replay_twin(small, capacities[0], "lru"), [], {}, []
    for path, above in zip(small.paths, first, strict=True):
        blocks = split_path(path)
        hits.append(above + count_leading(blocks[above:], below))
        for place, block in enumerate(blocks):
            uses[block] = uses.get(block, 0) + 1 if place < above else 0
        kept = [one for one in blocks[::-1] if one in below or uses[one] >= times]
        below = ([one for one in below if one not in kept] + kept)[-capacities[1] :]
    return hits


@given(small_traces(), SIZES, st.integers(1, 3))
def test_small_traces_agree_with_the_twins(small, capacities, number):
    for name, twin in {"vllm": replay_offloading_twin, "after": replay_after_twin}.items():
        found = replay_tiers(small.accesses, capacities, f"{name}:{number}")
        assert found.tolist() == [replay_twin(small, capacities[0], "lru"), twin(small, capacities, number)]


@given(small_traces(), st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_exclusive_tiers_are_one_cache_of_their_sum_and_inclusive_ones_of_the_largest(small, capacities):
    one, other = (replay_tiers(small.accesses, capacities, name).tolist() for name in ("exclusive", "inclusive"))
    for k in range(len(capacities)):
        assert one[k] == replay(small.accesses, sum(capacities[: k + 1])).tolist()
        assert other[k] == replay(small.accesses, max(capacities[: k + 1])).tolist()


@given(small_traces(), SIZES)
def test_stored_when_computed_a_tier_no_larger_than_the_first_adds_nothing(small, capacities):
    large, small_ = max(capacities), min(capacities)
    hits = replay_tiers(small.accesses, [large, small_], "inclusive")
    assert hits[0].tolist() == hits[1].tolist()


def test_what_was_hit_once_goes_down():
    small = make_small(["ab", "abc", "d", "abc", "ad", "abc"])
    found = [replay_tiers(small.accesses, [2, 4], name) for name in ("inclusive", "after:1")]
    # "ab" is hit once in the first tier, by the second request: it goes down then, and the fourth finds it there.
    assert found[1].tolist() == [[0, 2, 0, 1, 1, 1], [0, 2, 0, 2, 1, 2]]
    assert (found[0] >= found[1]).all()


def test_vllm_refreshes_only_what_it_loads():
    # One block above two. The third request finds "a" below, and "b" above: nothing below "b" is refreshed ...
    small = make_small(["a", "b", "a"])
    assert replay_tiers(small.accesses, [1, 2], "vllm").tolist() == [[0, 0, 0], [0, 0, 1]]
    # ... and a prompt with more new blocks than the tier has room for is not stored at all.
    long = make_small(["abc", "abc"])
    assert replay_tiers(long.accesses, [1, 2], "vllm").tolist() == [[0, 1], [0, 1]]
    assert replay_tiers(long.accesses, [1, 3], "vllm").tolist() == [[0, 1], [0, 3]]


def test_replies_are_stored_in_all_but_vllms_tier_and_never_count():
    # "ab" of which "b" is a reply: the second request's prompt is "ab".
    blocks = make_small(["ab", "c", "ab"]).accesses
    looked_up = np.array([1, 1, 2])
    found = {name: replay_tiers(blocks, [1, 3], name, looked_up=looked_up)[1].tolist() for name in SEMANTICS}
    assert found == {"exclusive": [0, 0, 2], "inclusive": [0, 0, 2], "vllm": [0, 0, 1], "after": [0, 0, 0]}


@pytest.mark.parametrize(
    ("capacities", "semantics", "said"),
    [
        ([5], "exclusive", "capacities of 1 tier; expected 2 or more, the fastest first"),
        ([1, 2, 3], "vllm", "capacities of 3 tiers; expected 2, the fastest first .semantics vllm."),
        ([5, 0], "inclusive", "capacity is 0; expected"), ([-1, 5], "inclusive", "capacity is -1; expected"),
        ([1, 2], "inclusiv", "known: exclusive, inclusive, vllm, after:N; did you mean inclusive"),
        ([1, 2], "after:0", "semantics after is 0; expected after:N"),
        ([1, 2], "exclusive:2", "semantics 'exclusive:2' has no number; expected exclusive"),
    ],
)  # fmt: skip
def test_wrong_tiers_are_refused(capacities, semantics, said):
    with pytest.raises(InputError, match=said):
        replay_tiers(make_small(["a"]).accesses, capacities, semantics)


def test_huge_tiers_and_empty_traces():
    assert replay_tiers(make_small([]).accesses, [1, 10**30], "vllm").shape == (2, 0)
    small = make_small(["ab", "ab"])
    for name in SEMANTICS:
        assert replay_tiers(small.accesses, [1, 10**400], name)[0].tolist() == [0, 1]
    assert find_semantics(find_semantics("after:2")).number == 2
