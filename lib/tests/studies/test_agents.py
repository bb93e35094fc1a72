"""The study of agent sessions: tables by hand or by a plain twin, and studies of workloads on sessions."""

import json

import numpy as np
import pytest
from trace_lines import CHATS, line

from kvprefix.cache.curve import count_seen, rate_hits
from kvprefix.cache.replay import replay
from kvprefix.files.paths import InputError
from kvprefix.studies.agents import (
    PAUSES_S,
    choose_capacities,
    describe_sessions,
    find_compactions,
    study_pauses,
    tabulate_compactions,
    tabulate_gaps,
    tabulate_growth,
    tabulate_misses,
)
from kvprefix.studies.cache import study_lru, study_policies
from kvprefix.studies.experiment import load_experiment
from kvprefix.traces.parameters import Parameters


def request(t, ids, tokens=None, **more):
    tokens = 4 * len(ids) if tokens is None else tokens
    return {"t": t, "type": "n", "model": "m", "in": tokens, "out": 3, "hash_ids": ids, "api_time": 1.0, **more}


def session(name, *requests):
    return {"id": name, "block_size": 4, "hash_id_scope": "local", "requests": list(requests)}


SMALL = [
    session(
        "a", request(0, [1, 2], stop="tool_use"), request(3, [1, 2, 3], 15, stop="end_turn"),
        {"t": 4, "type": "subagent", "requests": [request(0, [9], stop="tool_use"), request(2, [9, 8])]},
        request(104, [1, 5], stop=""), request(109, [1, 5, 6, 7]),
    ),
    session("b", request(0, [1], 7)),
]  # fmt: skip


def load(folder, sessions, **parameters):
    path = folder / "s.jsonl"
    path.write_text("\n".join(map(json.dumps, sessions)))
    return load_experiment(Parameters(data=str(path), **parameters))


@pytest.fixture
def small(tmp_path):
    return load(tmp_path, SMALL)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Sixty requests a session that grow, pause and begin again."""
    rng, sessions = np.random.default_rng(1), []
    for number in range(12):
        t, ids, fresh, requests = 0.0, [], 0, []
        for _ in range(int(rng.integers(5, 40))):
            ids = ids[: len(ids) if rng.random() > 0.1 else len(ids) // 2]
            new = int(rng.integers(1, 9))
            ids, fresh = [*ids, *range(fresh, fresh + new)], fresh + new
            stop = "tool_use" if rng.random() > 0.2 else "end_turn"
            requests.append(request(t, ids, stop=stop))
            t += 1 + float(rng.exponential(20 if stop == "tool_use" else 2000))
        sessions.append(session(str(number), *requests))
    return load(tmp_path_factory.mktemp("agents"), sessions)


def test_sessions_by_hand(small):
    rows = describe_sessions(small.sessions).to_dict("list")
    assert rows["requests"] == [6, 1] and rows["subagents"] == [1, 0] and rows["subagent_requests"] == [2, 0]
    assert rows["first_prompt"] == [8, 7] and rows["largest_prompt"] == [16, 7] and rows["output_tokens"] == [18, 3]
    assert rows["blocks"] == [8, 1] and rows["duration_s"] == [110, 1] and rows["compactions"] == [1, 0]
    # hits: 0, 8 of 15, 0, 4, 4, 8 of 59 prompt tokens
    assert rows["prompt_tokens"] == [59, 7] and rows["token"] == pytest.approx([24 / 59, 0])
    assert rows["hit_tokens"] == [24, 0] and rows["subagent_prompt_tokens"] == [12, 0]
    assert rows["subagent_hit_tokens"] == [4, 0]


def test_what_is_missed_by_hand(small):
    table = tabulate_misses(small.sessions).set_index("what")
    assert table["requests"].to_dict() == {"first": 2, "subagent": 1, "anew": 1, "more": 3}
    assert table["missed_tokens"].to_dict() == {"first": 8 + 7, "subagent": 4, "anew": 4, "more": 7 + 4 + 8}
    assert table["share"].sum() == pytest.approx(1)


def test_what_does_not_continue_by_hand(small):
    assert find_compactions(small.sessions).tolist() == [False] * 4 + [True] + [False] * 2
    assert tabulate_compactions(small.sessions).to_dict("records") == [
        {"session": 0, "before": 15, "after": 8, "shared": 4, "shorter": True}
    ]


def test_growth_and_gaps_by_hand(small):
    growth = tabulate_growth(small.sessions, (1, 2, 4, 9))
    assert growth.to_dict("list") == {
        "request": [1, 2, 4], "sessions": [2, 1, 1], "low": [7.25, 15, 16], "median": [7.5, 15, 16],
        "high": [7.75, 15, 16],
    }  # fmt: skip
    gaps = tabulate_gaps(small.sessions).set_index("after")
    assert gaps["median_s"].to_dict() == {"a tool's result": 2, "a person's message": 100, "not told": 4}
    assert gaps["n"].tolist() == [1, 1, 1] and gaps["share"].tolist() == pytest.approx([2 / 106, 100 / 106, 4 / 106])


def test_pauses_are_the_hits_of_a_replay_by_class(drawn):
    table = study_pauses(drawn, points=3)
    seed = drawn.parameters.seed
    accesses = drawn.draw(4, seed=seed)
    capacities = choose_capacities(accesses.n_distinct, 3)
    gap = [
        accesses.arrival_s[i] - accesses.finish_s[before] if before >= 0 else -1.0
        for i, before in enumerate(accesses.previous.tolist())
    ]
    for capacity in [*capacities.tolist(), None]:
        hits = count_seen(accesses.ids, accesses.offsets) if capacity is None else replay(accesses, capacity, "lru")
        tokens = accesses.hit_tokens(hits)
        at = table["capacity_blocks"].isna() if capacity is None else table["capacity_blocks"] == capacity
        for k, row in table[at & (table["seed"] == seed)].set_index("pause").iterrows():
            own = [i for i, one in enumerate(gap) if one >= 0 and PAUSES_S[k] <= one < PAUSES_S[k + 1]]
            assert row["n"] == len(own)
            total = accesses.prompt_tokens[own].sum()
            assert row["token"] == pytest.approx(tokens[own].sum() / total if total else 0)
            if own:
                assert row["low"] <= row["token"] <= row["high"]


def test_studies_of_a_workload_are_made_of_sessions_too(drawn):
    curve = study_lru(drawn, points=4)
    policies = study_policies(drawn, curve["capacity_blocks"].unique()[:2], ["lru", "opt", "s3fifo"])
    for seed in curve["seed"].unique():
        accesses = drawn.draw(4, seed=int(seed))
        for row in curve[curve["seed"] == seed].to_dict("records"):
            rates = rate_hits(accesses, replay(accesses, row["capacity_blocks"], "lru"))
            assert {name: row[name] for name in rates} == pytest.approx(rates)
    row = policies.iloc[1]
    expected = rate_hits(drawn.draw(4, seed=int(row["seed"])), replay(drawn.draw(4), row["capacity_blocks"], "opt"))
    assert row["policy"] == "opt" and row["token"] == pytest.approx(expected["token"])


def test_draws_differ_by_their_seed_and_by_what_is_given(small, tmp_path):
    assert small.parameters.block_size == 4 and small.dataset["conversations"] == 2
    starts = [small.draw(4, seed=seed).arrival_s.tolist() for seed in (0, 1, 0)]
    assert starts[0] == starts[2] != starts[1]
    slow = load(tmp_path, SMALL, arrival_rate=0.001).draw(4)
    assert np.ptp(slow.arrival_s) > np.ptp(small.draw(4).arrival_s)
    thinking = load(tmp_path, SMALL, think="agent:1:1:7:7").draw(4)
    own = thinking.conversation == thinking.conversation[thinking.prompt_tokens == 16][0]
    gap = thinking.arrival_s - thinking.finish_s[thinking.previous]
    assert sorted(gap[own & (thinking.previous >= 0)].round(6)) == [1, 1, 7, 7]  # not told: as a person's message
    with pytest.raises(InputError, match="lists blocks of 4 tokens; 16 cannot be made of them"):
        small.draw(16)


def test_other_traces_of_block_ids_are_experiments_too(tmp_path):
    (tmp_path / "m").write_text("\n".join(line([1, k], stamp=1000 * k, block_size=4) for k in range(5)))
    chats = [{**json.loads(one), "block_size": 4} for one in CHATS]
    (tmp_path / "b").write_text("\n".join(map(json.dumps, chats)))
    for name, times, sessions in (("m", [0, 1, 2, 3, 4], 5), ("b", [0.5, 1.25, 2], 2)):
        experiment = load_experiment(Parameters(data=str(tmp_path / name)))
        assert experiment.draw(4).arrival_s.tolist() == times and experiment.sessions.n_sessions == sessions
    (tmp_path / "log").write_text('{"messages": [{"role": "user", "content": "Hi"}]}')
    with pytest.raises(InputError, match="has no sessions"):
        load_experiment(Parameters(data=str(tmp_path / "log")))


def test_lru_s_curve_has_the_partial_last_blocks_that_a_trace_lists(tmp_path):
    rows = [([1, 2, 3], 1100), ([1, 2, 4], 1024 + 300), ([1, 2, 3], 1100), ([1, 2], 1024), ([5], 20), ([1, 2, 4], 1324)]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(line(ids, length, stamp) for stamp, (ids, length) in enumerate(rows)))
    experiment = load_experiment(Parameters(data=str(path)))
    accesses = experiment.draw(512)
    assert (accesses.last_weight % 512).any()
    for _, row in study_lru(experiment, points=5).iterrows():
        rates = rate_hits(accesses, replay(accesses, int(row["capacity_blocks"]), "lru"))
        assert {name: row[name] for name in rates} == pytest.approx(rates)
