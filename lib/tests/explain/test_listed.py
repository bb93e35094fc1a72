"""Traces of block ids: inferred conversations and whose blocks are hit, against plain Python."""

import json

import pytest
from cache_twin import small_traces, split_path
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED

from kvprefix.explain.listed import find_listed_misses, find_listed_provenance, group_by_links, infer_links
from kvprefix.explain.routing import make_routing
from kvprefix.formats.read import read_trace

MOONCAKE = SHARED / "data" / "mooncake_conversation_trace.jsonl.gz"


def list_links(small):
    """Return what each request continues: the one whose last full block it has, if that one had it first."""
    sizes = [min(len(path), n // small.accesses.block_size) for path, n in zip(*small_columns(small), strict=True)]
    links = []
    for i, path in enumerate(small.paths):
        owners = []
        for j in range(i):
            tail = small.paths[j][: sizes[j]]
            is_first = tail and not any(tail in split_path(before) for before in small.paths[:j])
            if is_first and tail in split_path(path[: sizes[i]]):
                owners.append((sizes[j], j))
        links.append(max(owners)[1] if owners else -1)
    return links


def small_columns(small):
    return small.paths, small.accesses.prompt_tokens.tolist()


@given(small_traces())
def test_links_are_those_of_the_twin(small):
    links = infer_links(small.accesses)
    assert links.tolist() == list_links(small)
    groups = group_by_links(links)
    for i, link in enumerate(links.tolist()):
        assert groups[i] == (groups[link] if link >= 0 else groups[:i].max(initial=-1) + 1)


@given(small_traces(), st.data())
def test_holders_are_those_of_the_twin(small, data):
    conversation = data.draw(st.lists(st.integers(0, 2), min_size=len(small.paths), max_size=len(small.paths)))
    trace = small.accesses
    trace.conversation[:] = conversation
    found = find_listed_provenance(trace, infer=False)
    expected, had = {"own_only": 0, "both": 0, "other_only": 0}, []
    for i, path in enumerate(small.paths):
        for place, block in enumerate(split_path(path)):
            holders = {one for one, blocks in had if block in blocks}
            name = "both" if {conversation[i]} < holders else "own_only" if conversation[i] in holders else "other_only"
            is_last = place == len(path) - 1
            expected[name] += bool(holders) * int(trace.last_weight[i] if is_last else trace.block_size)
        had.append((conversation[i], split_path(path)))
    assert found.as_dict()["holders_tokens"] == expected
    (misses,) = find_listed_misses(trace, [None])
    assert misses.part("hit").tolist() == found.hit_tokens.tolist()


@pytest.mark.skipif(not MOONCAKE.exists(), reason="the trace is not beside the project")
def test_replicas_in_turn():
    cluster = json.loads((SHARED / "expected" / "cluster.json").read_text())
    expected = cluster["mooncake_conversation"]["N=8 C=5859"]["rr"]
    trace = read_trace(MOONCAKE)
    (found,) = find_listed_misses(trace, [5859], routing=make_routing("rr", 8))
    assert found.part("hit").sum() == expected["hit_tokens"]
    assert found.part("routing").sum() / found.prompt_tokens.sum() == pytest.approx(expected["routing_loss"], abs=1e-6)
