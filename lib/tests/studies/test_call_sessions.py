"""Agents' sessions made of a log of calls, and the clocks that stand beside a log's own times."""

import numpy as np
import pytest
from call_logs import make_log
from places import SHARED

from kvprefix.blocks.sessions import NOTHING, TOOL
from kvprefix.studies.agents import describe_sessions, measure_pauses
from kvprefix.studies.call_sessions import CallSessions, find_sessions, take_sessions
from kvprefix.studies.experiment import fit_parameters, holds_sessions
from kvprefix.studies.timing import AGENTS, BURSTS, CLOCKS, LOGGED, RATES, list_changes, study_timing
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

CLAUDE = SHARED / "samples/claude_code"


@pytest.fixture(scope="module")
def workload(tmp_path_factory, shared_derived):
    path, _ = make_log(tmp_path_factory.mktemp("log") / "log.jsonl", steps=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KVPREFIX_DERIVED", str(shared_derived))
        yield load_workload(Parameters(data=str(path)), progress=False)


def test_sessions_are_those_of_the_log(workload):
    found = take_sessions(workload)
    rows = describe_sessions(found.sessions)
    assert rows["requests"].tolist() == [4, 4] and rows["duration_s"].tolist() == pytest.approx([62.5, 62.5])
    assert rows["output_tokens"].sum() == workload.requests["output_tokens"].sum()
    assert found.sessions.after.tolist() == [NOTHING, TOOL, TOOL, TOOL] * 2
    pauses = measure_pauses(found.draw(16))
    assert pauses[~np.isnan(pauses)].tolist() == pytest.approx([17.5] * 6)
    assert found.say_times() == []


def test_only_calls_that_bring_tools_results_become_sessions(workload, bundled_workload):
    found = find_sessions(workload)
    assert isinstance(found, CallSessions) and found.sessions.n_sessions == 2 and find_sessions(found) is found
    assert find_sessions(bundled_workload) is bundled_workload


def test_a_log_with_tools_holds_sessions_and_its_times_are_settled(workload):
    parameters = Parameters(data=workload.source.data)
    assert holds_sessions(parameters) and not holds_sessions(Parameters())
    assert fit_parameters(parameters).arrivals == "data" and fit_parameters(Parameters()).arrivals == "poisson"


def test_the_logs_own_times_are_the_last_clock(workload, bundled_workload):
    clocks, rates, bursts = list_changes(workload)
    assert list(clocks) == [*CLOCKS, AGENTS, LOGGED] and clocks[LOGGED] == {"arrivals": "data"}
    assert {one["arrival_rate"] for one in bursts.values()} == {0.0988}  # one start after 10.125 s
    assert [one["arrival_rate"] for one in rates.values()][2] == pytest.approx(0.0988)
    table = study_timing(workload, {name: clocks[name] for name in ("causal", LOGGED)}, points=3)
    own = table[table["variant"] == LOGGED]
    assert own.groupby("capacity_blocks")["token"].nunique().max() == 1  # no seed moves them
    assert list_changes(bundled_workload) == (CLOCKS, RATES, BURSTS)


@pytest.mark.skipif(not CLAUDE.exists(), reason="no samples beside the project")
def test_sub_agents_belong_to_who_started_them(shared_derived, monkeypatch):
    monkeypatch.setenv("KVPREFIX_DERIVED", str(shared_derived))
    found = take_sessions(load_workload(Parameters(data=str(CLAUDE)), progress=False))
    rows = describe_sessions(found.sessions)
    assert rows["subagents"].tolist() == [1] and rows["subagent_requests"].tolist() == [2]
    assert rows["requests"].tolist() == [6] and found.draw(16).conversation.tolist() == [0] * 6
    assert (found.sessions.spawned_by >= 0).sum() == 1
