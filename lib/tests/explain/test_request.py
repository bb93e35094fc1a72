"""One request explained: its strip, its nearest earlier prompt, and what was evicted."""

import numpy as np
import pytest
from cache_twin import make_random
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.cache.curve import count_seen
from kvprefix.cache.replay import replay
from kvprefix.explain.misses import CLASSES
from kvprefix.explain.request import SIGNS, WIDTH, draw_strip, find_eviction, find_nearest, find_nearest_listed
from kvprefix.explain.walks import make_walks
from kvprefix.files.paths import InputError
from kvprefix.studies.explain_one import find_position
from kvprefix.traces.trace import make_trace_of


@given(st.lists(st.integers(0, 30), min_size=len(CLASSES), max_size=len(CLASSES)), st.integers(1, 7))
def test_a_sign_is_the_class_of_most_of_its_tokens(tokens, block_size):
    classes = {name: n for name, n in zip(CLASSES, tokens, strict=True) if n}
    lines, per_sign = draw_strip(classes, sum(tokens), block_size)
    of_token = [name for name, n in classes.items() for _ in range(n)]
    blocks = [of_token[at : at + block_size] for at in range(0, len(of_token), block_size)]
    widest = [max(dict.fromkeys(block), key=block.count) for block in blocks]
    assert per_sign == 1 and "".join(lines) == "".join(SIGNS[name] for name in widest)


def test_a_long_prompt_has_several_blocks_per_sign():
    lines, per_sign = draw_strip({"hit": 30_000, "cold": 10_000}, 40_000, 1)
    assert per_sign == 40 and all(len(line) == WIDTH for line in lines[:-1])
    assert "".join(lines) == "#" * 750 + "." * 250


def test_the_nearest_prompt_is_the_latest_of_the_longest():
    trace = make_trace_of([[1, 2, 3], [1, 2, 3], [1, 9], [1, 2, 3, 4]], outputs=[[4, 4], [], [], []])
    walks = make_walks(trace)
    assert (find_nearest(walks, 3).request, find_nearest(walks, 3).tokens) == (0, 4)  # with the reply's first token
    assert (find_nearest(walks, 2).request, find_nearest(walks, 2).tokens) == (1, 1)
    assert find_nearest(walks, 0).request == -1
    blocks = trace.blocks(1)
    assert find_nearest_listed(blocks, 3).request == 1 and find_nearest_listed(blocks, 0).request == -1


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_an_evicted_block_would_be_hit_with_as_many_more_blocks(policy):
    trace, capacity = make_random(3).accesses, 12
    hits, stored = replay(trace, capacity, policy), count_seen(trace.ids, trace.offsets)
    missing = np.flatnonzero(hits < stored)
    for i in missing[:: max(len(missing) // 20, 1)].tolist():
        found = find_eviction(trace, i, int(hits[i]), int(stored[i]), capacity, policy)
        block = trace.ids[trace.offsets[i] + found.block]
        uses = [k for k in range(i) if block in trace.ids[trace.offsets[k] : trace.offsets[k + 1]]]
        assert found.last == uses[-1]
        assert found.evicted_by is None or found.last < found.evicted_by < i
        if policy == "lru":
            assert replay(trace, capacity + found.missed_by, policy)[i] > hits[i]
            assert replay(trace, capacity + found.missed_by - 1, policy)[i] == hits[i]
        else:
            assert found.missed_by is None
    assert find_eviction(trace, 0, 0, 0, capacity, policy) is None


def test_a_policy_without_a_tree_does_not_tell_who_evicted():
    trace = make_trace_of([[1], [2], [1]]).blocks(1)
    assert find_eviction(trace, 2, 0, 1, 1, "fifo_flat").evicted_by == -1


def test_an_unknown_request_names_near_ones():
    with pytest.raises(InputError, match="'c3t9' is not among the 3 requests; near ones: c3t0, c3t1"):
        find_position(["c3t0", "c3t1", "c4t0"], "c3t9")
    for name in ("c4", "C4T0"):
        with pytest.raises(InputError, match=f"'{name}' is not among the 3 requests; near ones: c4t0$"):
            find_position(["c3t0", "c3t1", "c4t0"], name)
    with pytest.raises(InputError, match="'qqqqq' is not among the 1 request; the first one is c3t0"):
        find_position(["c3t0"], "qqqqq")
