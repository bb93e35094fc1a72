"""Causes of misses: by hand, against the plain-Python twin, and the true numbers of real conversations."""

import json

import numpy as np
import pytest
from explain_twin import class_tokens, make_library_form, small_chats
from hypothesis import given
from hypothesis import strategies as st
from places import CARRIED

from kvprefix.cache.cluster.routers import keep_places
from kvprefix.explain.misses import CLASSES, find_misses, know
from kvprefix.explain.routing import make_routing
from kvprefix.explain.said import Said, no_runs
from kvprefix.explain.writers import Writers
from kvprefix.tokens.marks import TEMPLATE, UNKNOWN
from kvprefix.traces.trace import make_trace_of

HAND = json.loads((CARRIED / "miss_hand_cases.json").read_text())


def by_name(misses):
    return [{name: n for name, n in zip(CLASSES, row, strict=True) if n} for row in misses.tokens.tolist()]


def join_sub_block(parts):
    """Return classes as the hand cases name them."""
    joined = {name: n for name, n in parts.items() if not name.startswith("sub_block")}
    sub_block = sum(n for name, n in parts.items() if name.startswith("sub_block"))
    return joined | ({"sub_block": sub_block} if sub_block else {})


def read_hand_messages(requests):
    """Return the Said and the Writers of hand cases, whose messages are named, with the ends of their texts."""
    names = [[name for name, _ in one.get("msgs", [])] for one in requests]
    listed = [some + ([one["reply"]] if "reply" in one else []) for some, one in zip(names, requests, strict=True)]
    numbers = {(): -1}
    for some in listed:
        for k in range(len(some)):
            numbers.setdefault(tuple(some[: k + 1]), len(numbers) - 1)
    lists = list(numbers)[1:]
    none = np.zeros(len(requests), np.int64)
    said = Said(
        np.array([numbers[tuple(some)] for some in names]), np.array([numbers[tuple(some)] for some in listed]),
        np.array([numbers[one[:-1]] for one in lists], np.int64), np.array(list(map(len, lists)), np.int64),
        np.arange(len(requests)), np.zeros(0, np.int8), none, none, no_runs(len(requests)),
    )  # fmt: skip
    runs, begins = [], [0]
    for one in requests:
        texts = [(end, number, UNKNOWN) for number, (_, end) in enumerate(one.get("msgs", []), start=1)]
        runs += [*texts, (len(one["prompt"]), len(texts), TEMPLATE)]
        begins.append(len(runs))
    stops, counted, writers = (np.array(column) for column in zip(*runs, strict=True))
    return said, Writers(
        none - 1, none, np.array(begins), stops, counted, writers.astype(np.int8), writers == UNKNOWN,
        np.zeros((len(runs), 6), np.int64), none == 0,
    )  # fmt: skip


@pytest.mark.parametrize("case", HAND["cases"], ids=lambda case: case["name"])
def test_hand_cases(case):
    requests, options = case["requests"], case["options"]
    trace = make_trace_of(
        [one["prompt"] for one in requests], outputs=[one.get("out", []) for one in requests],
        cache_salts=[str(one.get("ctx", "")) for one in requests],
    )  # fmt: skip
    said, writers = read_hand_messages(requests)
    known = know(trace, case["block_size"], said, outputs=options.get("outputs", False), writers=writers)
    places = [one.get("replica", 0) for one in requests]
    routing = make_routing(keep_places(places), options["N"]) if "N" in options else None
    (found,) = find_misses(known, [options.get("C")], routing=routing)
    assert list(map(join_sub_block, by_name(found))) == case["expected"]


@given(small_chats(), st.integers(1, 7), st.booleans(), st.sampled_from([None, 1, 2, 5, 9]))
def test_causes_are_those_of_the_twin(requests, block_size, outputs, capacity):
    trace, said = make_library_form(requests)
    (found,) = find_misses(know(trace, block_size, said, outputs=outputs), [capacity])
    assert by_name(found) == class_tokens(requests, block_size, outputs, capacity)


@given(small_chats(), st.integers(1, 7), st.booleans(), st.sampled_from([None, 1, 3, 6]))
def test_causes_on_replicas_are_those_of_the_twin(requests, block_size, outputs, capacity):
    trace, said = make_library_form(requests)
    routing = make_routing(keep_places([one.replica for one in requests]), 3)
    (found,) = find_misses(know(trace, block_size, said, outputs=outputs), [capacity], routing=routing)
    assert by_name(found) == class_tokens(requests, block_size, outputs, capacity, replicas=3)
