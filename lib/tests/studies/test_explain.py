"""Tables of origins and causes: shares that sum to 1, the same parts in any weighting, intervals around them."""

from dataclasses import replace

import numpy as np
import pytest
from places import SAMPLE

from kvprefix.cache.policies import POLICIES
from kvprefix.cache.replay import replay
from kvprefix.engines.registry import ENGINES
from kvprefix.explain.misses import CLASSES
from kvprefix.explain.provenance import ORIGINS
from kvprefix.studies.explain import (
    explain_engine,
    explain_misses,
    explain_provenance,
    open_workload,
)
from kvprefix.studies.explain_draws import measure_causes, measure_origins
from kvprefix.studies.explain_tables import find_intervals, tabulate_turns
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload


@pytest.fixture(scope="module")
def workload():
    return load_workload(Parameters(data=str(SAMPLE)), progress=False)


def test_over_capacity(workload):
    hit = []
    for measure, parts in ((measure_origins, ORIGINS), (measure_causes, CLASSES)):
        table = measure(workload, workload.parameters.seed, (5, 20, 0), False, "lru")
        assert table["part"].tolist() == 3 * list(parts)
        assert table.groupby("capacity_blocks")["token"].sum().tolist() == pytest.approx([1, 1, 1])
        assert (table["low"] <= table["token"] + 1e-12).all() and (table["high"] >= table["token"] - 1e-12).all()
        some = table[table["part"] != "uncached"] if parts is ORIGINS else table[table["part"] == "hit"]
        hit.append(some.groupby("capacity_blocks")["tokens"].sum().tolist())
    assert hit[0] == hit[1] and hit[0][0] > 0
    other = measure_causes(workload, workload.parameters.seed + 1, (5,), False, "lru")
    assert other["low"].isna().all() and (other["seed"] == workload.parameters.seed + 1).all()


def test_by_turn(workload):
    (found,) = explain_misses(open_workload(workload), [20])
    table = tabulate_turns(found)
    assert table.groupby("part")["tokens"].sum().to_dict() == found.totals()
    assert table.drop_duplicates("from_turn")["requests"].sum() == len(found)
    first = table[(table["from_turn"] == 0) & (table["part"] == "generated_not_cached")]
    assert first["tokens"].item() == 0  # a first turn has no reply before it


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_hits_of_an_engine_are_its_replays(workload, engine):
    data = replace(open_workload(workload), block_size=4)
    replayed = ENGINES[engine].make(block_size=4, blocks=60).replay(data.trace)
    found = explain_engine(data, engine, 60)
    assert found.part("hit").tolist() == np.maximum(replayed.hit_tokens, 0).tolist()
    assert found.part("capacity").sum() > 0 and found.part("generated_not_cached").sum() == 0
    never = int((replayed.hit_tokens < 0).sum())
    assert never == 0 or f"{never} prompt" in found.notes[-1]


@pytest.mark.parametrize("policy", [name for name, one in POLICIES.items()])
def test_any_policy_is_explained(workload, policy):
    data = replace(open_workload(workload), block_size=4)
    (found,), (lru,) = (explain_misses(data, [40], policy=one) for one in (policy, "lru"))
    blocks = data.trace.blocks(4)
    most = np.maximum(blocks.prompt_tokens - 1, 0) // 4
    assert found.part("hit").tolist() == (4 * np.minimum(replay(blocks, 40, policy), most)).tolist()
    # the optimum and what was ever stored do not depend on the policy, where the policy hits no more than it
    reached = [np.cumsum(one.tokens, axis=1) for one in (found, lru)]
    place = CLASSES.index("capacity")
    assert (reached[0][:, place:] == reached[1][:, place:]).all()
    assert explain_provenance(data, capacity=40, policy=policy).hit_tokens.tolist() == found.part("hit").tolist()


def test_intervals_are_of_conversations(workload):
    found = explain_provenance(open_workload(workload))
    ends = find_intervals(found)
    assert list(ends) == list(ORIGINS) and all(low <= high for low, high in ends.values())
    again = find_intervals(found)
    assert ends == again and np.isfinite(list(ends.values())).all()
