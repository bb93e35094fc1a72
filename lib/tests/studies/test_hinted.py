"""The study of policies with hints: on chats and on agents' sessions."""

import numpy as np
import pytest
from places import CARRIED, SAMPLE

from kvprefix.studies.experiment import load_study
from kvprefix.studies.hinted import measure_hinted, study_hinted
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


def test_several_capacities(derived):
    table = study_hinted(load_study(Parameters(data=str(SAMPLE))), [20, 60])
    assert table.groupby("seed")["capacity_blocks"].unique().map(list).tolist() == [[20, 60]] * table["seed"].nunique()


def test_a_draw_says_what_requests_follow(derived):
    experiment = load_study(Parameters(data=str(CARRIED / "agentic_sessions.jsonl.gz")))
    one, other = (draw(experiment, experiment.parameters.block_size, seed=seed) for seed in (0, 1))
    for accesses in (one, other):
        assert np.bincount(accesses.after).tolist() == np.bincount(experiment.sessions.after).tolist()
        assert ((accesses.previous < 0) == (accesses.after == 0)).all()
