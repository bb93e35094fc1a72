from dataclasses import replace

import numpy as np
import pytest
from cache_twin import (
    SETTINGS,
    count_evictions,
    find_most_hits,
    list_distinct,
    make_random,
    make_small,
    replay_twin,
    small_traces,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.cache.curve import count_seen, rate_hits, rate_unbounded
from kvprefix.cache.policies import POLICIES
from kvprefix.cache.replay import PrefixCache, replay, replay_each, replay_on_tree
from kvprefix.cache.rules.opt import Opt, find_next_uses, replay_lookups
from kvprefix.cache.tree import make_tree_cache, make_tree_trace, replay_tree, run_rule
from kvprefix.files.mapped import read_only
from kvprefix.files.paths import InputError
from kvprefix.traces.workload import make_trace

OTHER_SETTINGS = {
    "slru": [0.0, 0.25, 0.5, 1.0], "s3fifo": [0.0, 0.25, 0.5, 1.0], "gdsf": [0.0, 0.25], "ttl": [0.0, 0.75, 3.0],
}  # fmt: skip
FREE = [name for name, one in POLICIES.items() if one.replay_free and one.make_rule]
CASES = [(policy, None) for policy in POLICIES]
CASES += [(policy, setting) for policy, values in OTHER_SETTINGS.items() for setting in values]
HOLDING = [case for case in CASES if POLICIES[case[0]].holds]


def hits(paths, capacity, policy="lru", **options):
    """Return the hits of paths in a string: "ab c" is a request for "a" and "ab", then one for "c"."""
    times = {name: options.pop(name) for name in ("arrival_s", "finish_s") if name in options}
    return replay(make_small(paths.split(), **times).accesses, capacity, policy, **options).tolist()


# ---- Against the twin


@pytest.mark.parametrize(("policy", "setting"), CASES)
@given(small_traces(), st.integers(1, 12))
@settings(max_examples=60)
def test_small_traces_agree_with_the_twin(policy, setting, small, capacity):
    expected = replay_twin(small, capacity, policy, setting=setting)
    assert replay(small.accesses, capacity, policy, setting=setting).tolist() == expected


@pytest.mark.parametrize(("policy", "setting"), HOLDING)
@given(small_traces(), st.integers(1, 12))
@settings(max_examples=60)
def test_small_traces_with_held_blocks_agree_with_the_twin(policy, setting, small, capacity):
    expected = replay_twin(small, capacity, policy, setting=setting, hold=True)
    assert replay(small.accesses, capacity, policy, setting=setting, hold=True).tolist() == expected


@pytest.mark.parametrize("capacity", [7, 40])
@pytest.mark.parametrize(("policy", "setting"), CASES)
def test_longer_traces_agree_with_the_twin(policy, setting, capacity):
    small = make_random(seed=capacity)
    expected = replay_twin(small, capacity, policy, setting=setting)
    assert replay(small.accesses, capacity, policy, setting=setting).tolist() == expected


@pytest.mark.parametrize("capacity", [12, 40])
@pytest.mark.parametrize(("policy", "setting"), HOLDING)
def test_longer_traces_with_held_blocks_agree_with_the_twin(policy, setting, capacity):
    small = make_random(seed=capacity)
    expected = replay_twin(small, capacity, policy, setting=setting, hold=True)
    assert replay(small.accesses, capacity, policy, setting=setting, hold=True).tolist() == expected


@pytest.mark.parametrize(("policy", "setting"), CASES)
@given(small_traces(), st.integers(1, 12), st.booleans())
@settings(max_examples=60)
def test_a_cache_counts_tokens_and_evictions_as_the_twin(policy, setting, small, capacity, hold):
    hold = hold and POLICIES[policy].holds
    cache = PrefixCache(policy=policy, capacity=capacity, setting=setting, hold=hold)
    replayed, expected = cache.replay(small.accesses), replay_twin(small, capacity, policy, setting=setting, hold=hold)
    assert replayed.details["hit_blocks"].tolist() == expected and replayed.label == POLICIES[policy].label
    evictions = count_evictions(small, capacity, policy, setting=setting, hold=hold)
    # OPT's twin hits as much, but also stores blocks that are never accessed again
    assert replayed.evictions <= evictions if policy == "opt" else replayed.evictions == evictions
    assert replayed.hit_tokens.tolist() == small.accesses.hit_tokens(np.array(expected, np.int64)).tolist()
    assert replayed.prompt_tokens is small.accesses.prompt_tokens and len(replayed) == len(small.paths)
    assert np.nan_to_num(replayed.hit_rate) == rate_hits(small.accesses, np.array(expected, np.int64))["token"]


def test_evictions_by_hand():
    # room for 2: c evicts a, a evicts b, b evicts c
    assert PrefixCache("lru", 2).replay(make_small(["a", "b", "c", "a", "b"]).accesses).evictions == 3
    # a block that is too old leaves too: b's request drops a after 10.25 s, c evicts nothing
    late = make_small(["a", "b", "c"], arrival_s=[0, 10.25, 11]).accesses
    assert PrefixCache(capacity=2, policy="ttl", setting=10).replay(late).evictions == 1


# ---- What holds for all policies


@given(small_traces(max_requests=7, max_blocks=4), st.integers(1, 4))
@settings(max_examples=100)
def test_opt_is_the_best_of_all_choices(small, capacity):
    assert replay(small.accesses, capacity, "opt").sum() == find_most_hits(small.paths, capacity)


@given(small_traces(), st.integers(1, 12))
@settings(max_examples=100)
def test_no_policy_hits_more_than_opt_and_the_unbounded(small, capacity):
    unbounded = count_seen(small.accesses.ids, small.accesses.offsets)
    most = replay(small.accesses, capacity, "opt")
    for policy, setting in CASES:
        counts = replay(small.accesses, capacity, policy, setting=setting)
        assert counts.sum() <= most.sum()
        assert ((counts >= 0) & (counts <= unbounded)).all()


@given(small_traces(), st.sampled_from(["lru", "opt"]))
@settings(max_examples=100)
def test_lru_and_opt_never_hit_less_with_more_room(small, policy):
    counts = [replay(small.accesses, capacity, policy) for capacity in range(1, small.accesses.n_distinct + 3)]
    assert (np.diff([count.sum() for count in counts]) >= 0).all()
    if policy == "lru":  # nor does any single request
        assert (np.diff(counts, axis=0) >= 0).all()


@given(small_traces(), st.integers(0, 2), st.booleans())
@settings(max_examples=100)
def test_room_for_all_blocks_hits_what_was_seen(small, spare, hold):
    accesses = small.accesses
    capacity = max(accesses.n_distinct, 1) + spare
    unbounded = count_seen(accesses.ids, accesses.offsets).tolist()
    for policy in POLICIES:
        hold_it = hold and policy not in ("opt", "fifo_flat")
        setting = float("inf") if policy == "ttl" else None
        counts = replay(accesses, capacity, policy, setting=setting, hold=hold_it)
        assert counts.tolist() == unbounded, policy
        assert rate_hits(accesses, counts) == rate_unbounded(accesses)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("paths", [[], [""], ["", "", ""], ["a", "b", "cd", "e"]])
@pytest.mark.parametrize("hold", [False, True])
def test_nothing_to_hit_rates_zero(paths, policy, hold):
    accesses = make_small(paths).accesses
    counts = replay(accesses, 2, policy, hold=hold and policy not in ("opt", "fifo_flat"))
    assert counts.dtype == np.int64
    assert counts.tolist() == [0] * len(paths)
    for warmup in (0.0, 0.5):
        expected = {"block": 0.0, "token": 0.0, "request_mean": 0.0}
        assert rate_hits(accesses, counts, warmup=warmup) == expected


def test_replay_leaves_its_input_alone():
    small, again = make_random(seed=0, n_requests=60), make_random(seed=0, n_requests=60)
    for policy in POLICIES:
        first = replay(small.accesses, 5, policy)
        assert replay(small.accesses, 5, policy).tolist() == first.tolist()
    for name in ("ids", "offsets", "parent", "depth", "arrival_s", "finish_s"):
        assert np.array_equal(getattr(small.accesses, name), getattr(again.accesses, name))


# ---- The shared rules by hand


@pytest.mark.parametrize("policy", POLICIES)
def test_larger_request_keeps_its_first_blocks(policy):
    # 5 blocks, room for 3: a ab abc stay and hit when it comes again; abcd and abcde never fit
    assert hits("abcde abcde abcde", 3, policy) == [0, 3, 3]


def test_a_policy_is_compiled_once_whatever_arrays_a_trace_holds():
    accesses = make_small(["ab", "a", "ab"], arrival_s=[0, 1, 2]).accesses
    hits = replay(accesses, 5, "gdsf").tolist()
    before = len(replay_tree.signatures)
    for name in ("arrival_s", "finish_s", "conversation", "ids", "offsets", "parent", "depth"):
        array = getattr(accesses, name)
        for other in (read_only(array), np.repeat(array, 2)[::2]):
            assert replay(replace(accesses, **{name: other}), 5, "gdsf").tolist() == hits
    assert len(replay_tree.signatures) == before


def test_larger_request_evicts_all_others():
    # room for 3: abcde pushes out y and x, but not its own first blocks; x y are gone, a ab are left beside x
    assert hits("x y abcde x abcde", 3) == [0, 0, 0, 0, 2]


@pytest.mark.parametrize("policy", ["lru", "fifo", "lfu", "slru", "s3fifo", "gdsf", "ttl"])
def test_leaf_goes_before_its_parent(policy):
    # room for 2, a and ab: c takes the place of ab, though a was stored before it; so ab hits its a
    assert hits("ab c ab", 2, policy) == [0, 0, 1]


def test_parent_goes_once_its_children_are_gone():
    # room for 3: a ab abc; x evicts abc, y evicts ab, z evicts a: nothing is left
    assert hits("abc x y z abc", 3, "fifo") == [0, 0, 0, 0, 0]
    # without z, a is left
    assert hits("abc x y abc", 3, "fifo") == [0, 0, 0, 1]


def test_own_hits_are_pinned():
    # room for 2: the second request hits a, the oldest leaf of all by FIFO, and must not evict it for ab: x goes
    assert hits("a x ab ab", 2, "fifo") == [0, 0, 1, 2]


def test_hit_is_a_leading_run():
    # room for 3: flat FIFO overwrites first ab (d), then a (e): ac is resident behind a missing a, and no hit
    assert hits("ab ac d e ac", 3, "fifo_flat") == [0, 1, 0, 0, 0]
    # among leaves ab goes (d), then ac (e); a is still there
    assert hits("ab ac d e ac", 3, "fifo") == [0, 1, 0, 0, 1]


def test_flat_fifo_stores_the_tail_first():
    # room for 3: abc is stored first, then ab, then a; x overwrites abc, y overwrites ab: a is left
    assert hits("abc x y abc", 3, "fifo_flat") == [0, 0, 0, 1]
    # a hit moves nothing: z overwrites a, which was hit a request ago
    assert hits("abc x y a z a", 3, "fifo_flat") == [0, 0, 0, 1, 0, 0]


# ---- Each policy by hand


def test_lru_by_hand():
    # room for 2: a's hit makes b the oldest, so c evicts b
    assert hits("a b a c a b", 2, "lru") == [0, 0, 1, 0, 1, 0]


def test_fifo_by_hand():
    # room for 2: c evicts a, stored first, although it was hit since
    assert hits("a b a c a", 2, "fifo") == [0, 0, 1, 0, 0]


def test_lfu_by_hand():
    # room for 2: a has 2 uses, b 1: c evicts b, then d evicts c (of 1 use); a stays
    assert hits("a a b c d a", 2, "lfu") == [0, 1, 0, 0, 0, 1]
    # equal counts: a and b have 2 uses each, a used last at 2, b at 3: c evicts a
    assert hits("a b a b c b a", 2, "lfu") == [0, 0, 1, 1, 0, 1, 0]
    # uses are forgotten with the block: a is evicted by d (a 2 uses, b and c 3); stored again it has 1 and goes for e
    assert hits("a a b b b c c c d b c a e a", 3, "lfu") == [0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 0, 0]


def test_gdsf_by_hand():
    # blocks of 2 tokens, 0.25 a token of position: a block at depth d costs 1 + 0.25 * (2 * d + 1), so 1.25 and 1.75.
    # Room for 3: d evicts c (1.25), not ab (1.75); LRU evicts ab, the older leaf
    assert hits("ab c d ab", 3, "gdsf", setting=0.25) == [0, 0, 0, 2]
    assert hits("ab c d ab", 3, "lru") == [0, 0, 0, 1]
    # d was stored after c's score of 1.25 was evicted: 1.25 + 1.25 = 2.5 against ab's 1.75, so e evicts ab
    assert hits("ab c d e ab", 3, "gdsf", setting=0.25) == [0, 0, 0, 0, 1]
    # two uses of c score 2 * 1.25 = 2.5: d evicts ab
    assert hits("ab c c d ab", 3, "gdsf", setting=0.25) == [0, 0, 1, 0, 1]


def test_slru_protects_at_most_its_share():
    # room for 4, half of it protected: a b c are hit, so a overflows back on probation, as its most recent.
    # e evicts d, f evicts a (put back at request 6, e was stored at 7); then a takes e's place; b and c are protected
    assert hits("a b c d a b c e f a b c", 4, "slru", setting=0.5) == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1]
    # LRU: e evicts d, f evicts a, a evicts b, b evicts c
    assert hits("a b c d a b c e f a b c", 4, "lru") == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]


def test_slru_evicts_protected_blocks_where_no_other_leaf_is():
    # room for 2, all of it may be protected: a and b are; c evicts a, the less recent
    assert hits("a b a b c b a", 2, "slru", setting=1.0) == [0, 0, 1, 1, 0, 1, 0]


def test_s3fifo_takes_a_ghost_into_the_main_queue():
    # room for 4: small queue 1, main queue 3. e evicts a, f evicts b, a evicts c: 2 evictions after its own, fewer than
    # 3, so a enters the main queue. g h i j evict d e f g from the small queue; a is still there
    assert hits("a b c d e f a g h i j a", 4, "s3fifo", setting=0.25) == [0] * 11 + [1]
    # with g before a's return d's eviction is the third after its own: forgotten. a goes as the others do, for k
    assert hits("a b c d e f g a h i j k a", 4, "s3fifo", setting=0.25) == [0] * 13


def test_s3fifo_remembers_a_block_for_one_return():
    # room for 4: small queue 2, main queue 2. e evicts a; a comes back into the main queue and evicts b. c is hit
    # twice: f moves it, and evicts a from the main queue. d is hit twice: a moves it, evicts c, and is stored in the
    # small queue, its ghost used up. g h i evict e f a; from the main queue a would not have gone
    paths = "a b c d e a c c f d d a g h i a"
    assert hits(paths, 4, "s3fifo", setting=0.5) == [0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0]


def test_s3fifo_moves_what_was_hit_twice():
    # room for 4: small queue 1, main queue 3. a has two hits, b one: e finds a first, moves it, and evicts b
    assert hits("a a a b b c d e a b", 4, "s3fifo", setting=0.25) == [0, 1, 1, 0, 1, 0, 0, 0, 1, 0]


def test_s3fifo_puts_a_hit_block_of_the_main_queue_back():
    # room for 4: small queue 1, main queue 3. a and b are hit twice, so e moves both and evicts c. c comes back as a
    # ghost and evicts d: main a b c, small e. a is hit. f: the small queue is at its limit; a was hit and goes behind
    # c, so b is evicted
    assert hits("a a a b b b c d e c a f a b", 4, "s3fifo", setting=0.25) == [0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0]


def test_s3fifo_counts_three_hits_at_most():
    # main a b c, small e, as above; a is hit 5 times, b and c 3 times: all count 3. f: each is put back three times,
    # and then a, the oldest again, goes
    paths = "a a a b b b c d e c a a a a a b b b c c c f b c a"
    assert hits(paths, 4, "s3fifo", setting=0.25) == [0, 1, 1, 0, 1, 1, 0, 0, 0, 0] + [1] * 11 + [0, 1, 1, 0]


def test_ttl_drops_what_is_older_than_its_limit():
    # 10 s: after exactly 10 s a is still there, after 10.25 s it is not
    assert hits("a a a", 2, "ttl", setting=10, arrival_s=[0, 10, 20.25]) == [0, 1, 0]
    # an access to a does not renew ab: at 12 s ab is 12 s old, a 6 s
    assert hits("ab a ab", 2, "ttl", setting=10, arrival_s=[0, 6, 12]) == [0, 1, 1]
    # room is made as in LRU: c evicts a, used 4 s ago, not b, used 2 s ago
    assert hits("a b c b a", 2, "ttl", setting=10, arrival_s=[0, 2, 4, 5, 6]) == [0, 0, 0, 1, 0]
    # of no time at all: only what arrives at the same moment hits
    assert hits("a a a", 2, "ttl", setting=0, arrival_s=[0, 0, 0.25]) == [0, 1, 0]


def test_opt_by_hand():
    # room for 2: c's next access (5) is farther than a's (3) and b's (4), so it is not stored
    assert hits("a b c a b c", 2, "opt") == [0, 0, 0, 1, 1, 0]
    # room for 2: c's next (3) is nearer than b's (5), so b goes for it; a's is 4
    assert hits("a b c c a b", 2, "opt") == [0, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("capacity", [1, 7, 40])
@pytest.mark.parametrize("seed", range(4))
def test_opt_with_blocks_that_are_only_stored_agrees_with_the_tree(seed, capacity):
    trace = make_random(seed).accesses
    looked_up = np.minimum(np.random.default_rng(seed).integers(0, 9, len(trace)), trace.blocks)
    (found, evictions), = replay_lookups(trace, [capacity], looked_up)
    tree = make_tree_trace(trace, hold=False)
    cache = make_tree_cache(tree, capacity, 1, record=False)
    hits = np.zeros(len(trace), np.int64)
    run_rule(Opt(tree, cache, find_next_uses(trace.ids, trace.offsets, looked_up, trace.n_distinct)), hits)
    assert found.tolist() == np.minimum(hits, looked_up).tolist() and found.sum() > 0
    assert evictions == cache.evicted[0]


# ---- Pins


def test_hold_keeps_a_running_requests_blocks():
    times = {"arrival_s": [0, 1, 5, 9, 10, 11], "finish_s": [10, 1, 5, 9.5, 10, 11]}
    # room for 2, both held by ab until 10 s: c finds no room at 1 s and 5 s; at 10 s it takes the place of ab
    assert hits("ab c c ab c c", 2, hold=True, **times) == [0, 0, 0, 2, 0, 1]
    # without pins c takes it at once, ab takes c's at 9 s, c takes ab's at 10 s
    assert hits("ab c c ab c c", 2, **times) == [0, 0, 1, 1, 0, 1]


def test_hold_stores_what_finds_room():
    # room for 3, 2 held until 9 s: of cde only c is stored, and hits at 4 s; at 9 s cd evicts ab, and hits
    times = {"arrival_s": [0, 2, 4, 9, 9.5], "finish_s": [9, 2, 4, 9, 9.5]}
    assert hits("ab cde cde cd cd", 3, hold=True, **times) == [0, 0, 1, 1, 2]


def test_hold_pins_a_block_until_its_last_request_finishes():
    # room for 2: a is held until 5 s by the first request, b until 20 s, and a once more until 15 s by the third.
    # c finds no room at 6 s; at 15 s it takes a's place, which b's is not yet
    times = {"arrival_s": [0, 1, 2, 6, 15, 16, 17], "finish_s": [5, 20, 15, 6, 15, 16, 17]}
    assert hits("a b a c c c b", 2, hold=True, **times) == [0, 0, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(("policy", "setting"), HOLDING)
def test_hold_without_duration_changes_nothing(policy, setting):
    small = make_small(make_random(seed=3).paths)  # each request ends as it arrives
    expected = replay(small.accesses, 12, policy, setting=setting).tolist()
    assert replay(small.accesses, 12, policy, setting=setting, hold=True).tolist() == expected


def test_ttl_keeps_held_blocks():
    # 2 s of life, held until 6 s: at 5 s ab is still there, though 5 s old; at 8 s both are gone (3 s old)
    times = {"arrival_s": [0, 5, 8], "finish_s": [6, 5, 8]}
    assert hits("ab ab ab", 4, "ttl", setting=2, hold=True, **times) == [0, 2, 0]
    assert hits("ab ab ab", 4, "ttl", setting=2, **times) == [0, 0, 0]


# ---- Without a tree


@pytest.mark.parametrize("policy", FREE)
@given(small=small_traces(max_requests=20), capacities=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_what_is_replayed_without_a_tree_is_replayed_alike_on_it(policy, small, capacities):
    known, capacities = POLICIES[policy], [min(one, max(small.accesses.n_distinct, 1)) for one in capacities]
    found = list(known.replay_free(small.accesses, capacities, known.default))
    for capacity, (hits_found, evictions) in zip(capacities, found, strict=True):
        expected, cache = replay_on_tree(small.accesses, capacity, known)
        assert hits_found.tolist() == expected.tolist() and evictions == cache.evicted[0]


@pytest.mark.parametrize("policy", FREE)
@pytest.mark.parametrize("capacity", [3, 40, 400, 3000])
def test_a_workload_is_replayed_alike_on_the_tree(bundled_workload, policy, capacity):
    accesses = make_prefix_trace(make_trace(bundled_workload, "multi_turn"), 16)
    expected, cache = replay_on_tree(accesses, capacity, POLICIES[policy])
    first, second = replay_each(accesses, [capacity, 7], policy)
    assert first.tolist() == expected.tolist() and second.tolist() == replay(accesses, 7, policy).tolist()
    assert PrefixCache(policy, capacity).replay(accesses).evictions == cache.evicted[0]


# ---- Errors


@pytest.mark.parametrize("capacity", [0, -1, 1.5, 2.0, True, None, "3"])
def test_capacity_is_checked(capacity):
    with pytest.raises(InputError, match="expected a whole number of blocks, 1 or more"):
        hits("a", capacity)


def test_unknown_policy_lists_the_known():
    with pytest.raises(InputError) as error:
        hits("a", 1, "mru")
    assert "'mru' is not known" in str(error.value)
    assert all(name in str(error.value) for name in POLICIES)


@pytest.mark.parametrize(
    ("policy", "setting", "expected"),
    [
        *[(policy, value, "a share between 0 and 1") for policy in ("slru", "s3fifo") for value in (-0.1, 1.1, True)],
        *[(policy, value, "a number, 0 or more") for policy in ("ttl", "gdsf") for value in (-1, False, "1")],
        ("slru", float("nan"), "a share between 0 and 1"),
        ("ttl", float("nan"), "a number, 0 or more"),
        *[(policy, 0.5, "has no setting") for policy in ("lru", "fifo", "fifo_flat", "lfu", "opt")],
    ],
)
def test_setting_is_checked(policy, setting, expected):
    with pytest.raises(InputError, match=expected):
        hits("a", 1, policy, setting=setting)


@pytest.mark.parametrize("policy", ["opt", "fifo_flat"])
def test_some_policies_know_no_hold(policy):
    with pytest.raises(InputError, match="not defined with hold"):
        hits("a", 1, policy, hold=True)


def test_every_policy_says_what_it_is():
    labels = [policy.label for policy in POLICIES.values()]
    assert len(set(labels)) == len(labels)
    assert all(policy.definition.endswith(".") for policy in POLICIES.values())
    assert [name for name, policy in POLICIES.items() if policy.is_bound] == ["opt"]
    assert [name for name, policy in POLICIES.items() if not policy.holds] == ["fifo_flat", "opt"]
    assert {name: policy.default for name, policy in POLICIES.items() if policy.setting} == SETTINGS


def test_random_trace_is_large_enough_to_evict():
    # the longer traces above have several times the blocks of the largest cache there
    assert len(list_distinct(make_random(seed=40).paths)) > 4 * 40
