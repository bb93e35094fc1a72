"""Recorded evictions: those of the cache in plain Python, one by one, and what is said of each."""

import cache_twin
import pytest
from cache_twin import CACHES, count_evictions, make_random, make_small, replay_twin, small_traces
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.cache.evictions import record_evictions
from kvprefix.cache.replay import replay
from kvprefix.files.paths import InputError


def record_twin(small, capacity, policy):
    """Return (block, request, request of its last access) of each eviction, and the missing blocks not stored."""
    found, missing = [], []

    class Recording(CACHES[policy]):
        def __init__(self, *args):
            super().__init__(*args)
            self.last = {}

        def expire(self, now, pinned):
            self.now = now
            super().expire(now, pinned)

        def hit(self, blocks, now):
            missing.append(len(self.paths[now]) - len(blocks))
            self.last.update(dict.fromkeys(blocks, now))
            super().hit(blocks, now)

        def store(self, block, now):
            missing[-1] -= 1
            self.last[block] = now
            super().store(block, now)

        def evict(self, victim):
            found.append((victim, self.now, self.last[victim]))
            super().evict(victim)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cache_twin.CACHES, policy, Recording)
        replay_twin(small, capacity, policy)
    return found, sum(missing)


def check_evictions(small, capacity, policy):
    found = record_evictions(small.accesses, capacity, policy)
    expected, left_out = record_twin(small, capacity, policy)
    number = {block: k for k, block in enumerate(cache_twin.list_distinct(small.paths))}
    listed = [(number[block], now, now - last) for block, now, last in expected]
    order = sorted if policy == "ttl" else list  # what expires together has no order
    assert order(zip(*(x.tolist() for x in (found.block, found.request, found.age)), strict=True)) == order(listed)
    assert found.left_out == left_out and len(found) == count_evictions(small, capacity, policy)
    later = [any(path.startswith(block) for path in small.paths[now + 1 :]) for block, now, _ in expected]
    depth = [len(block) - 1 for block, *_ in expected]
    if policy != "ttl":
        assert found.again.tolist() == later and found.depth.tolist() == depth


@pytest.mark.parametrize("policy", [name for name in CACHES if name != "opt"])  # its twin breaks ties otherwise
@given(small_traces(), st.integers(1, 8))
def test_each_eviction_is_the_twin_s(policy, small, capacity):
    check_evictions(small, capacity, policy)


@pytest.mark.parametrize("policy", ["lru", "gdsf", "s3fifo"])
def test_so_it_is_on_longer_traces(policy):
    check_evictions(make_random(seed=5, n_requests=200), 25, policy)


def test_an_eviction_by_hand():
    # room for 2, one conversation: "ab", then "c" evicts ab (leaf, of turn 0), "ab" evicts a? no: pinned; it evicts c
    small = make_small(["ab", "c", "ab"])
    small.accesses.conversation[:] = [7, 9, 7]
    found = record_evictions(small.accesses, 2)
    assert found.block.tolist() == [1, 2] and found.request.tolist() == [1, 2] and found.age.tolist() == [1, 1]
    assert found.depth.tolist() == [1, 0] and found.turn.tolist() == [0, 0] and found.again.tolist() == [True, False]


def test_opt_evicts_what_is_needed_last_and_leaves_out_what_is_never_needed():
    # room for 2: "c" (needed at 4) evicts "a" (needed at 5), not "b" (needed at 3); the last "b" and "c" are hits, and
    # the last "a" is never needed again
    found = record_evictions(make_small(["a", "b", "c", "b", "c", "a"]).accesses, 2, "opt")
    assert found.block.tolist() == [0] and found.request.tolist() == [2] and found.age.tolist() == [2]
    assert found.again.tolist() == [True] and found.left_out == 1


def test_the_turn_is_that_of_the_last_access():
    small = make_small(["a", "a", "b"])
    small.accesses.conversation[:] = [7, 7, 9]
    assert record_evictions(small.accesses, 1).turn.tolist() == [1]


def test_nothing_is_evicted_where_all_fits_and_a_policy_without_a_tree_is_refused():
    accesses = make_random(seed=1, n_requests=50).accesses
    found = record_evictions(accesses, accesses.n_distinct)
    assert len(found) == 0 and found.left_out == 0 and found.turn.shape == (0,)
    assert replay(accesses, 5).tolist()  # a plain replay still runs
    with pytest.raises(InputError, match="policy fifo_flat knows no tree"):
        record_evictions(accesses, 5, "fifo_flat")
