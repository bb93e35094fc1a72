"""Routers beside each other: the true numbers of real conversations and of a trace beside the project."""

import json

import numpy as np
import pytest
from places import CARRIED, SAMPLE, SHARED

from kvprefix.cache.cluster.replay import route_requests
from kvprefix.cache.cluster.routers import find_router
from kvprefix.cache.replay import replay
from kvprefix.files.paths import InputError
from kvprefix.formats.mooncake import read_mooncake
from kvprefix.studies.cluster import NO_SESSIONS, format_routers, list_accesses, measure_routers
from kvprefix.studies.explain import open_data
from kvprefix.traces.parameters import Parameters

CHATS = json.loads((CARRIED / "cluster_2000.json").read_text())["clusters"]
MOONCAKE = SHARED / "data" / "mooncake_conversation_trace.jsonl.gz"
NAMES = {"sgl_tree": "cache-aware-tree", "sgl_load": "cache-aware-load", "llmd": "llm-d"}


def check(blocks, name, expected):
    """Compare what is measured of replicas with true numbers; `name` is such as ``N=4 C=16000``."""
    replicas, capacity = (int(part[2:]) for part in name.split())
    rates = dict(expected)
    pooled = rates.pop("pooled")
    found = measure_routers(blocks, capacity, replicas, list(rates))
    assert list(found["routers"]) == list(rates)
    for router, wanted in [*rates.items(), ("pooled", pooled)]:
        measured = found["routers"].get(router, found["pooled"])
        for key, value in wanted.items():
            is_time = key.startswith(("ttft", "wait"))
            limit = {"hit_tokens": 0}.get(key, 1e-4 * max(value, 0.1) if is_time else 6e-5)
            assert measured[key] == pytest.approx(value, rel=0, abs=limit), (router, key)
    return found


@pytest.fixture(scope="module")
def chats():
    return list_accesses(open_data(Parameters(max_conversations=2000), progress=False))


@pytest.mark.parametrize("name", CHATS)
def test_real_conversations(chats, name):
    assert not check(chats[0], name, CHATS[name])["left_out"]


@pytest.mark.skipif(not MOONCAKE.exists(), reason="the trace is not beside the project")
def test_a_trace_of_block_ids():
    cluster = json.loads((SHARED / "expected" / "cluster.json").read_text())["mooncake_conversation"]
    blocks = read_mooncake(MOONCAKE, outputs=True)
    for name, rates in cluster.items():
        named = {NAMES.get(router, router.replace("hash", "hash:")): one for router, one in rates.items()}
        found = check(blocks, name, named)
        # What a hash of the template's tokens or a bare longest match sends to one replica waits for hours.
        assert found["routers"]["hash:512"] == found["routers"]["longest"]
        assert any("longest 1.80" in note and "grows as long as the trace lasts" in note for note in found["notes"])


def test_one_replica_in_turn_is_the_plain_replay(chats):
    blocks, _ = chats
    found = measure_routers(blocks, 3000, 1, ["rr"])
    assert found["routers"]["rr"]["hit_tokens"] == blocks.hit_tokens(replay(blocks, 3000)).sum()
    assert {key: found["routers"]["rr"][key] for key in found["pooled"]} == found["pooled"]


def test_replies_are_stored_but_only_prompts_are_looked_up():
    data = open_data(Parameters(data=str(SAMPLE)), progress=False)
    prompts, _ = list_accesses(data)
    blocks, looked_up = list_accesses(data, outputs=True)
    assert looked_up.tolist() == prompts.blocks.tolist() and blocks.blocks.sum() > looked_up.sum()
    less = measure_routers(prompts, None, 2, ["session"])["routers"]["session"]
    more = measure_routers(blocks, None, 2, ["session"], looked_up=looked_up)["routers"]["session"]
    assert less["hit_tokens"] < more["hit_tokens"] < prompts.prompt_tokens.sum()
    for router in ("longest", "llm-d", "cache-aware-tree", "hash:16"):
        routed = route_requests(blocks, 40, router, 2, looked_up=looked_up)
        assert (routed.hits <= looked_up).all() and (routed.anywhere <= looked_up).all()


def test_a_router_by_session_is_left_out_where_conversations_are_not_known(chats):
    alone = open_data(Parameters(data=str(SAMPLE)), "single_turn", progress=False)
    blocks, _ = list_accesses(alone)
    found = measure_routers(blocks, 50, 2, ["rr", "session"])
    assert list(found["routers"]) == ["rr"] and found["left_out"] == {"session": NO_SESSIONS}
    assert "| rr " in format_routers(found) and "session" not in format_routers(found)
    with pytest.raises(InputError, match="router session: conversations are not known"):
        measure_routers(blocks, 50, 2, ["session"])


def test_huge_caches_are_unbounded_ones(chats):
    blocks, _ = chats
    found = [measure_routers(blocks, size, 2, ["longest"])["routers"]["longest"] for size in (10**400, None)]
    assert found[0] == found[1]
    places = route_requests(blocks, None, find_router("llm-d"), 3).places
    assert set(np.unique(places)) == {0, 1, 2}
