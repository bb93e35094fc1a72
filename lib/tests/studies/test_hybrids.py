"""The study of hybrid models on a small workload: its cases against replays made one by one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kvprefix.engines.groups import Group
from kvprefix.engines.vllm import VLLM
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.studies.hybrids import HYBRIDS, UNBOUNDED, measure_hybrids, study_hybrids
from kvprefix.traces.workload import make_trace


@pytest.fixture(scope="module")
def frame(bundled_workload):
    return study_hybrids(bundled_workload, [600, UNBOUNDED])


def rate(engine, trace):
    result = engine.replay(trace)
    return np.maximum(result.hit_tokens, 0).sum() / result.prompt_tokens.sum()


def test_the_cases_are_those_replays(bundled_workload, frame):
    parameters = replace(bundled_workload.parameters, seed=2)
    trace = make_trace(replace(bundled_workload, parameters=parameters), "multi_turn")
    groups = Group("full"), Group("window", 128)
    for pool, one, two in ((600, 601, 1201), (UNBOUNDED, None, None)):  # twice the blocks, and one null block
        token = frame[(frame["seed"] == 2) & (frame["pool"] == pool)].set_index("case")["token"]
        assert token["full"] == pytest.approx(rate(VLLM(blocks=one), trace))
        assert token["all"] == pytest.approx(rate(VLLMHybrid(groups, blocks=two, retention=None), trace))
        assert token["ends"] == pytest.approx(rate(VLLMHybrid(groups, blocks=two), trace))


def test_without_a_bound_only_the_default_retention_loses(frame):
    rates = frame[frame["pool"] == UNBOUNDED].pivot(index="seed", columns="case", values="token")
    assert (rates["all"] == rates["full"]).all() and (rates["ends"] < 0.9 * rates["full"]).all()


def test_a_seed_measured_alone_is_its_rows(bundled_workload, frame):
    alone = measure_hybrids(bundled_workload, 1, [600, UNBOUNDED])
    pd.testing.assert_frame_equal(alone, frame[frame["seed"] == 1].reset_index(drop=True))
    assert list(dict.fromkeys(alone["case"])) == list(HYBRIDS)
