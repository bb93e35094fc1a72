"""Agentic sessions: the anchors of 60 public ones, a twin per session, and what is skipped of bad ones."""

import gzip
import json

import numpy as np
import pytest
from session_twin import ANCHORS, SESSIONS, count_hits, list_requests
from session_twin import read_sessions as read_twin

from kvprefix.blocks.sessions import NOTHING, PERSON, TOOL, UNKNOWN
from kvprefix.cache.curve import count_seen, rate_unbounded
from kvprefix.files.paths import InputError
from kvprefix.formats.agent_sessions import read_agent_sessions
from kvprefix.formats.convert import convert
from kvprefix.formats.lookup import recognise
from kvprefix.formats.read import read_trace
from kvprefix.formats.session_rows import Clockwork
from kvprefix.formats.timing import Timing

needs_sessions = pytest.mark.skipif(not SESSIONS.exists(), reason="the public sessions do not lie beside the project")
CLOCK = Clockwork(0.5, 0.25)


def request(t, ids, tokens=None, **more):
    tokens = 4 * len(ids) + 1 if tokens is None else tokens
    return {"t": t, "type": "n", "model": "m", "in": tokens, "out": 2, "hash_ids": ids, "api_time": 1.0, **more}


def session(*requests, name="s", **more):
    return {"id": name, "block_size": 4, "hash_id_scope": "local", "requests": list(requests), **more}


def subagent(t, *requests):
    return {"t": t, "type": "subagent", "requests": list(requests)}


def write(path, *records):
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def read(tmp_path, *records):
    return read_agent_sessions(write(tmp_path / "s.jsonl", *records), CLOCK)


@pytest.fixture(scope="module")
def public():
    return read_agent_sessions(SESSIONS, CLOCK)


@needs_sessions
@pytest.mark.parametrize("name", ["all_requests", "main_agent_only"])
def test_the_anchors_of_the_public_sessions(public, name):
    anchor = json.loads(ANCHORS.read_text())[name]
    trace = public if name == "all_requests" else public.main_only()
    for seed in (0, 1):
        starts = np.random.default_rng(seed).uniform(0, 4000, 60)
        accesses = trace.arrange(starts)
        hits = count_seen(accesses.ids, accesses.offsets)
        assert len(accesses) == anchor["requests"] and len(accesses.ids) == anchor["blocks"]
        tokens = accesses.prompt_tokens.sum(), accesses.hit_tokens(hits).sum()
        assert tokens == (anchor["tokens"], anchor["hit_tokens"])
        assert hits.sum() == anchor["hit_blocks"]
        rates = rate_unbounded(accesses)
        assert (rates["token"], rates["block"]) == (anchor["token_hit_rate"], anchor["block_hit_rate"])
        # the last digits of a mean depend on the order in which it is summed
        assert rates["request_mean"] == pytest.approx(anchor["request_mean"], abs=2e-15)
    if name == "all_requests":
        assert (public.n_sessions, np.count_nonzero(public.agent)) == (anchor["sessions"], anchor["subagent_requests"])
        assert accesses.n_distinct == anchor["distinct"]


@needs_sessions
def test_each_public_session_equals_its_twin(public):
    accesses = public.accesses
    hits = count_seen(accesses.ids, accesses.offsets)
    ours = list(zip(accesses.prompt_tokens, accesses.hit_tokens(hits), accesses.blocks, hits, strict=True))
    for number, one in enumerate(read_twin()):
        mine = [ours[k] for k in np.flatnonzero(accesses.conversation == number)]
        assert mine == count_hits(list_requests(one))


@needs_sessions
def test_the_pauses_of_the_public_sessions(public):
    anchor = json.loads(ANCHORS.read_text())["think_time_after"]
    sessions = read_twin()
    given = {"tool_use": [], "end_turn": []}
    for one in sessions:
        main = [entry for entry in one["requests"] if entry["type"] != "subagent"]
        for before, entry in zip(main, main[1:], strict=False):
            if before.get("stop") in given and entry.get("think_time") is not None:
                given[before["stop"]].append(entry["think_time"])
    for stop, after in (("tool_use", TOOL), ("end_turn", PERSON)):
        expected = [anchor[stop]["p50"], pytest.approx(anchor[stop]["p90"])]
        assert [np.quantile(given[stop], q) for q in (0.5, 0.9)] == expected
        main = public.main_only()
        assert np.count_nonzero(main.after == after) >= anchor[stop]["n"]


@needs_sessions
def test_every_form_of_the_same_sessions_reads_alike(public, tmp_path):
    sessions = read_twin()[:6]
    (tmp_path / "folder").mkdir()
    for number, one in enumerate(sessions):
        data = json.dumps(one, indent=number % 2 or None).encode()
        name = f"{number:02}.json" + (".gz" if number % 3 == 0 else "")
        (tmp_path / "folder" / name).write_bytes(gzip.compress(data) if number % 3 == 0 else data)
    (tmp_path / "folder" / "README.md").write_text("other")
    (tmp_path / "list.json").write_text(json.dumps(sessions, indent=2))
    write(tmp_path / "lines.jsonl", *sessions)
    first = np.flatnonzero(public.accesses.conversation < 6)
    for name in ("folder", "list.json", "lines.jsonl"):
        assert recognise(tmp_path / name).name == "agent-sessions"
        found = read_agent_sessions(tmp_path / name, CLOCK)
        total = public.accesses.offsets[first[-1] + 1]
        assert found.accesses.ids.tolist() == public.accesses.ids[:total].tolist()
        assert found.accesses.arrival_s.tolist() == public.accesses.arrival_s[first].tolist()
        said = "1 file of other kinds in the folder: not read"
        assert (said in found.accesses.info["notes"]) == (name == "folder")


def test_a_session_by_hand(tmp_path):
    sub = subagent(2, request(0, [7]), request(3, [7, 8], stop="end_turn"))
    trace = read(
        tmp_path,
        session(
            request(0, [1, 2], stop="tool_use"), sub, request(4, [1, 2, 3], stop="end_turn"),
            request(9, [1], api_time=None),
        ),
        session(request(0, [1, 2], 8, api_time=None), request(0.5, [1, 5], 9, input_types=["tool_result"]), name="t"),
    )  # fmt: skip
    accesses = trace.accesses
    assert accesses.arrival_s.tolist() == [0, 2, 4, 5, 9, 0, 0.5]
    assert accesses.ids.tolist() == [0, 1, 2, 0, 1, 3, 2, 4, 0, 5, 6, 5, 7]  # equal ids of two sessions are two blocks
    assert accesses.parent.tolist() == [-1, 0, -1, 1, 2, -1, 5, 5]
    served = accesses.finish_s - accesses.arrival_s
    assert served.tolist() == [1, 1, 1, 1, 1, 0.5, 1]  # where none is known 0.5 + 2 * 0.25, or until the next request
    assert accesses.last_weight.tolist() == [4] * 7 and trace.agent.tolist() == [0, 1, 0, 1, 0, 0, 0]
    assert accesses.previous.tolist() == [-1, -1, 0, 1, 2, -1, 5] and accesses.turn.tolist() == [0, 0, 1, 1, 2, 0, 1]
    assert trace.spawned_by.tolist() == [-1, 0, -1, -1, -1, -1, -1]
    assert trace.after.tolist() == [NOTHING, NOTHING, TOOL, UNKNOWN, PERSON, NOTHING, TOOL]
    assert accesses.info["notes"] == [
        "2 requests without a service time: taken from ttft_s and time_per_output_token_s, at most until the next "
        "request"
    ]
    placed = Timing().arrange(trace)
    assert placed.info["notes"][-1] == "sessions start by a Poisson process of 2 per second"
    assert len(trace.main_only()) == 5 and trace.main_only().accesses.previous.tolist() == [-1, 0, 1, -1, 3]


def test_a_service_time_is_known_by_when_the_next_request_came(tmp_path):
    trace = read(tmp_path, session(request(0, [1], api_time=None), request(9, [1], think_time=7), request(12, [1])))
    assert (trace.accesses.finish_s - trace.accesses.arrival_s).tolist() == [2, 1, 1]
    assert not trace.accesses.info["notes"]


def test_a_request_waits_for_the_answer_before_it_unless_the_loop_is_open(tmp_path):
    late = request(0, [1], api_time=5), request(3, [1, 2]), request(4, [1]), request(9, [1])
    trace = read(tmp_path, session(*late), session(request(0, [7]), name="t"))
    assert trace.arrange([10, 12.5]).arrival_s.tolist() == [10, 12.5, 15, 16, 19]
    assert trace.arrange([10, 12.5], open_loop=True).arrival_s.tolist() == [10, 12.5, 13, 14, 19]
    placed = trace.arrange([10, 12.5])
    assert placed.previous.tolist() == [-1, -1, 0, 2, 3] and placed.conversation.tolist() == [0, 1, 0, 0, 0]
    assert placed.finish_s.tolist() == [15, 13.5, 16, 17, 20]


def test_times_are_drawn_by_what_a_request_follows(tmp_path):
    steps = [request(0, [1], stop="tool_use"), request(1, [1], stop="end_turn"), request(2, [1])]
    sub = subagent(1.5, request(0, [9]))
    trace = read(tmp_path, session(*steps[:2], sub, steps[2]))
    placed = Timing({"think": "agent:2:2:100:100", "arrivals": "stamps:" + str(stamps(tmp_path))}).arrange(trace)
    assert placed.arrival_s.tolist() == [0, 3, 4, 104]  # the sub-agent begins with the answer before it
    assert placed.info["notes"][-1].startswith("an agent's next request comes after a lognormal think")


def stamps(folder):
    (folder / "stamps").write_text("5")
    return folder / "stamps"


def test_partial_last_blocks_may_be_listed(tmp_path):
    trace = read(tmp_path, session(request(0, [1, 2], 7), request(1, [1, 2], 8), request(2, [1], 7)))
    assert trace.accesses.last_weight.tolist() == [3, 4, 4]


@pytest.mark.parametrize("ids", [["a", "b", "c"], [2**64 - 1, 2**63, 5], [2**64, -1, 10**30], [1, "1", 2**64]])
def test_ids_of_any_kind_are_numbered_as_first_seen(tmp_path, ids):
    a, b, c = ids
    trace = read(tmp_path, session(request(0, [a, b]), request(1, [a, b, c]), request(2, [c])))
    assert trace.accesses.info["notes"] == [
        "in 1 session block ids follow several blocks: with all that precede them they are told apart"
    ]
    assert trace.accesses.ids.tolist() == [0, 1, 0, 1, 2, 3]
    shared = session(request(0, [a, b]), request(1, [a, c])), session(request(0, [a, c]), name="t")
    trace = read(tmp_path, *({**one, "hash_id_scope": "global"} for one in shared))
    assert trace.accesses.ids.tolist() == [0, 1, 0, 2, 0, 2]


GOOD = session(request(0, [1, 2]), request(1, [1, 2, 3]))


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        ({"id": 1}, "that is none", "line 2: is no session; a session is {"),
        (session(), "without requests", "holds no requests"),
        (session(request(0, [1]), block_size=8), "of another block size", "has blocks of 8 tokens, and 4 are read"),
        (session(request(0, [1]), block_size="4"), "of a wrong block size", "block size is '4'"),
        (session(request(0, [1]), hash_id_scope="x"), "of an unknown scope", 'has hash_id_scope "x"'),
        (session(request(0, [1]), hash_id_scope="global"), "of another scope", "unlike the first session"),
        (session(request(0, [1]), 7), "with a wrong request", "its entry 2 is no JSON object"),
        (session(request(None, [1])), "with a wrong time", "its entry 1 has t null"),
        (session(request(1e300, [1])), "with a wrong time", "has t 1e+300"),
        (session(request(0, [1], -1)), "with a wrong length", "has in -1; expected a whole number of tokens"),
        (session(request(0, [1], "4")), "with a wrong length", 'has in "4"'),
        (session(request(0, [1], out=None)), "with a wrong length", "has out null"),
        (session(request(0, [1, 2], 4)), "with wrong ids", "lists 2 blocks for 4 tokens; expected 4 / 4, rounded down"),
        (session(request(0, [[1]], 4)), "with wrong ids", "has hash_ids [[1]]; expected a list of ids"),
        (session({**request(0, []), "hash_ids": None}), "with wrong ids", "has hash_ids null"),
        (session({"t": 0, "type": "subagent"}), "with a wrong sub-agent", "is no sub-agent with a list of requests"),
        (session(subagent(0, request(0, [1], 0))), "with wrong ids", "entry 1 of its sub-agent 1 lists 1 block for 0"),
        (GOOD, "that was read before", 'is session "s" again'),
    ],
)  # fmt: skip
def test_a_bad_session_is_skipped_as_a_whole_and_counted(tmp_path, bad, reason, detail):
    trace = read(tmp_path, GOOD, bad, bad, session(request(0, [5]), name="last"))
    assert trace.n_sessions == 2 and trace.accesses.ids.tolist() == [0, 1, 0, 1, 2, 3]
    note = next(note for note in trace.accesses.info["notes"] if "skipped" in note)
    assert note.startswith(f"2 sessions {reason}: skipped (first: {tmp_path / 's.jsonl'}: line 2") and detail in note


def test_lines_that_are_no_json_are_counted_and_a_file_without_sessions_is_refused(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD)[:40] + "\n")
    assert "line 2: is not JSON" in read_agent_sessions(path, CLOCK).accesses.info["notes"][-1]
    path.write_text(json.dumps(session(block_size=4)))
    with pytest.raises(InputError, match="line 1: holds no requests"):
        read_agent_sessions(path, CLOCK)
    path.write_text("")
    with pytest.raises(InputError, match="holds no sessions; a session is"):
        read_agent_sessions(path, CLOCK)


def test_sessions_are_written_as_other_traces_are_and_hit_as_much(tmp_path):
    source = write(tmp_path / "s.jsonl", session(request(0, [1, 2], 9), request(1, [1, 2, 3], 12), request(2, [1], 4)))
    done = convert(source, tmp_path / "m", "mooncake", progress=False)
    rows = [json.loads(one) for one in (tmp_path / "m").read_text().splitlines()]
    assert [row["hash_ids"] for row in rows] == [[0, 1, 2], [0, 1, 3], [0]] and done.block_size == 4
    assert [row["output_length"] for row in rows] == [2, 2, 2]
    assert rate_unbounded(read_trace(tmp_path / "m")) == pytest.approx(
        {**rate_unbounded(read_trace(source)), "block": 3 / 7}
    )
