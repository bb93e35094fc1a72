"""The study of policies with hints: on chats and on agents' sessions."""

import json

import numpy as np
import pytest
from call_logs import make_log
from places import CARRIED, SAMPLE

from kvprefix.blocks.sessions import NOTHING, TOOL
from kvprefix.studies.call_sessions import load_sessions
from kvprefix.studies.experiment import load_study
from kvprefix.studies.hinted import measure_hinted, read_priority, study_hinted
from kvprefix.studies.table import draw
from kvprefix.traces.parameters import Parameters


@pytest.mark.parametrize(
    ("data", "capacity", "policies"),
    [
        (SAMPLE, 15, ["lru", "ttl", "pin", "session", "opt"]),
        (CARRIED / "agentic_sessions.jsonl.gz", 300, ["lru", "ttl", "session", "tool", "opt"]),
    ],
)
def test_each_stands_beside_lru_and_the_optimum(derived, data, capacity, policies):
    workload = load_study(Parameters(data=str(data)))
    table = measure_hinted(workload, workload.parameters.seed, capacity)
    assert table["policy"].tolist() == policies
    assert table["block"].max() == table["block"].iloc[-1] and table["closed"].iloc[[0, -1]].tolist() == [0, 1]
    assert table[["low", "high", "gain_low", "gain_high"]].notna().all(axis=None)
    other = measure_hinted(workload, workload.parameters.seed + 1, 10**9)
    assert other["closed"].isna().all() and other["low"].isna().all()


def test_priorities_are_those_of_the_bodies(derived, tmp_path):
    path, _ = make_log(tmp_path / "log.jsonl", steps=4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["body"] |= {"priority": 3} if line["session_id"] == "b" else {}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sessions = load_sessions(Parameters(data=str(path)))
    accesses = draw(sessions, 16, seed=0)
    found = read_priority(sessions, 0)
    assert found.tolist() == np.where(accesses.conversation == 1, -3, 0).tolist()  # vLLM's: the lower, the more urgent
    assert accesses.after.tolist() == [NOTHING] * 2 + [TOOL] * 6
    assert "priority" in measure_hinted(sessions, 0, 8)["policy"].tolist()
    assert read_priority(load_study(Parameters(data=str(SAMPLE))), 0) is None


def test_several_capacities(derived):
    table = study_hinted(load_study(Parameters(data=str(SAMPLE))), [20, 60])
    assert table.groupby("seed")["capacity_blocks"].unique().map(list).tolist() == [[20, 60]] * table["seed"].nunique()


def test_a_draw_says_what_requests_follow(derived):
    experiment = load_study(Parameters(data=str(CARRIED / "agentic_sessions.jsonl.gz")))
    one, other = (draw(experiment, experiment.parameters.block_size, seed=seed) for seed in (0, 1))
    for accesses in (one, other):
        assert np.bincount(accesses.after).tolist() == np.bincount(experiment.sessions.after).tolist()
        assert ((accesses.previous < 0) == (accesses.after == 0)).all()
