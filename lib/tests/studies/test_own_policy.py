"""The study of one's own policy: rows as in the study of policies, shares by hand, and every eviction counted."""

import numpy as np
import pandas as pd
import pytest

from kvprefix.cache.evictions import record_evictions
from kvprefix.cache.policies import POLICIES, policy
from kvprefix.cache.policy import Policy
from kvprefix.report.facts import own_policy as facts
from kvprefix.report.plots.own_policy import draw_evictions
from kvprefix.report.words import say
from kvprefix.studies import own_policy as study
from kvprefix.studies import table as tables
from kvprefix.studies.cache import draw_accesses, study_policies
from kvprefix.tasks.runner import VARIABLE


@pytest.fixture(scope="module")
def mine():
    made = policy("mine", "Mine")(lambda block: block.now - block.depth)
    yield made
    POLICIES.pop("mine", None)


@pytest.fixture(scope="module")
def frame(bundled_workload, mine):
    return study.study_own_policy(bundled_workload, [200, 1500], mine)


@pytest.fixture(scope="module")
def evicted(bundled_workload, mine):
    return study.study_evictions(bundled_workload, 400, mine)


def test_the_rows_are_those_of_the_study_of_policies(bundled_workload, frame, mine):
    expected = study_policies(bundled_workload, [200, 1500], ["lru", mine, "opt"])
    pd.testing.assert_frame_equal(frame[expected.columns], expected)
    first = frame[(frame["seed"] == 0) & (frame["policy"] == "mine")]
    assert (first["closed_low"] <= first["closed_high"]).all() and frame["closed_low"].notna().sum() == 2


def test_it_is_kept_and_runs_here_whatever_the_scheduler(bundled_workload, frame, mine, monkeypatch):
    monkeypatch.setenv(VARIABLE, "tcp://127.0.0.1:1")  # to which the policy of a notebook could not be sent
    again = study.study_own_policy(bundled_workload, [200], mine)
    assert len(again) == 3 * again["seed"].nunique()
    monkeypatch.setattr(tables, "open_tasks", None)  # a second call computes nothing
    pd.testing.assert_frame_equal(study.study_own_policy(bundled_workload, [200, 1500], mine), frame)


def test_another_function_of_the_same_name_is_another_study(bundled_workload, evicted, mine):
    other = policy("mine", "Mine")(lambda block: -block.now)
    changed = study.study_evictions(bundled_workload, 400, other)
    assert not changed.equals(evicted) and study.study_evictions(bundled_workload, 400, mine).equals(evicted)


def test_shares_of_the_gap_by_hand():
    closed = study.share_closed(np.array([0.2, 0.2, 0.2]), np.array([0.3, 0.1, 0.3]), np.array([0.6, 0.6, 0.2]))
    assert closed[:2] == pytest.approx([0.25, -0.25]) and np.isnan(closed[2])


def test_the_table_s_share_is_that_of_the_means_over_seeds(frame, mine):
    table = facts.tabulate_own(frame, mine).set_index("blocks")
    for blocks, one in frame.groupby("capacity_blocks"):
        mean = one.groupby("policy")["token"].mean()
        row, gap = table.loc[blocks], mean["opt"] - mean["lru"]
        assert row["of the gap"] == pytest.approx((mean["mine"] - mean["lru"]) / gap)
        assert row["95 % low"] <= row["of the gap"] <= row["95 % high"]
        assert row["against LRU"] == pytest.approx(100 * (mean["mine"] - mean["lru"]))
    said = say("own_policy.md", facts.facts_own_policy(table.reset_index(), mine))
    assert said.startswith("Mine: A score of the user's own.")
    assert "of 2 capacities" in said and "of the gap (95 %:" in said


def test_a_policy_that_is_opt_closes_the_gap_and_lru_s_double_nothing(bundled_workload):
    for make_rule, share in ((POLICIES["opt"].make_rule, 1), (POLICIES["lru"].make_rule, 0)):
        same = Policy(name="same", label="Same", definition="As another.", make_rule=make_rule)
        table = facts.tabulate_own(study.measure_own_policy(bundled_workload, 0, 300, same), same)
        assert table[["of the gap", "95 % low", "95 % high"]].to_numpy().tolist() == [[share] * 3]


def test_every_eviction_is_counted_once_by_each(bundled_workload, evicted, mine):
    _, accesses = next(draw_accesses(bundled_workload, 16, seeds=1))
    for one in ("lru", mine, "opt"):
        found, name = record_evictions(accesses, 400, one), getattr(one, "name", one)
        rows = evicted[evicted["policy"] == name].groupby("by")[["evictions", "again"]].sum()
        for by in study.BY:
            assert rows.loc[by].tolist() == [len(found), found.again.sum()]
        assert rows.loc["left_out", "evictions"] == found.left_out
        median = facts.find_median(evicted[(evicted["policy"] == name) & (evicted["by"] == "depth")])
        assert median == np.quantile(found.depth, 0.5, method="inverted_cdf")


def test_the_difference_from_opt_is_the_largest_between_the_lines():
    rows = [("mine", "age", 1, 3), ("mine", "age", 9, 1), ("opt", "age", 1, 1), ("opt", "age", 4, 3)]
    frame = pd.DataFrame(rows, columns=["policy", "by", "value", "evictions"]).assign(again=0)
    mine = Policy(name="mine", label="Mine", definition="")
    assert facts.find_distances(frame, mine) == {"age": 0.5}  # at 1: 3/4 and 1/4; at 4: 3/4 and 1


def test_what_is_said_and_drawn_of_evictions(evicted, mine):
    said = say("own_evictions.md", facts.facts_evictions(evicted, mine, 400))
    assert said.count("\n- ") == 2 and "With 400 blocks the evictions of Mine differ from OPT's by " in said
    figure, data = draw_evictions(evicted)
    assert len(figure.axes) == 3 and set(data["by"]) == {"depth", "age", "turn"}
    assert (data.groupby(["policy", "by"])["share"].last() == 1).all()


def test_where_nothing_is_evicted_that_is_said(bundled_workload, mine):
    everything = study.measure_evictions(bundled_workload, 10**6, mine)
    table = facts.tabulate_evictions(everything)
    assert table["evictions"].tolist() == [0, 0, 0] and table["needed again"].isna().all()
    said = say("own_evictions.md", facts.facts_evictions(everything, mine, 10**6))
    assert said.count("evicts nothing") == 3 and "differ" not in said
    figure, data = draw_evictions(everything)
    assert not len(data) and [axes.texts[0].get_text() for axes in figure.axes] == ["nothing is evicted"] * 3
