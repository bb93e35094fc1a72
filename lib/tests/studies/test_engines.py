"""The engine study on a small workload: its cases against replays made one by one, and what is said of it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from said import said_of

from kvprefix.blocks.sharing import share
from kvprefix.engines.overlap import Overlap
from kvprefix.engines.vllm import VLLM
from kvprefix.report.facts import engines as facts_engines
from kvprefix.report.plots import engines as plot_replays
from kvprefix.studies import engines as study_engine
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import make_trace


@pytest.fixture(scope="module")
def workload(bundled_workload):
    return bundled_workload


@pytest.fixture(scope="module")
def frame(workload):
    return study_engine.study_engines(workload, [600, 3_000])


def rate(result):
    return np.maximum(result.hit_tokens, 0).sum() / result.prompt_tokens.sum()


def test_the_cases_are_those_replays(workload, frame):
    trace = make_trace(replace(workload, parameters=replace(workload.parameters, seed=4)), "multi_turn")
    token = frame[(frame["seed"] == 4) & (frame["pool"] == 600)].set_index("case")["token"]
    sharing = share(trace, 16)
    assert token["last_token"] == pytest.approx(sharing.token_hit_rate)
    assert token["outputs"] == pytest.approx(rate(VLLM().replay(trace)))
    assert token["vllm"] == pytest.approx(rate(VLLM(blocks=601).replay(trace)))
    assert token["bounded"] == pytest.approx(rate(VLLM(blocks=601, merge_duplicates=True).replay(trace)))
    assert token["vllm_prompts"] == pytest.approx(rate(VLLM(blocks=601, outputs=False).replay(trace)))
    assert token["vllm_legacy"] == pytest.approx(rate(VLLM("0.22", blocks=601).replay(trace)))
    overlapping = VLLM(blocks=601, overlap=Overlap()).replay(trace)
    assert token["overlap"] == pytest.approx(rate(overlapping))
    waited = frame[(frame["seed"] == 4) & (frame["pool"] == 600) & (frame["case"] == "overlap")]["waited"].item()
    assert waited == pytest.approx(np.mean(overlapping.waited_s > 0))
    assert 0 < waited < np.mean(overlapping.admitted_s > trace.arrival_s)  # the way to the next step is no wait


def test_pools_measured_alone_are_the_rows_of_all(workload, frame):
    together = study_engine.measure_engines(workload, 1, [600, 3_000])
    pd.testing.assert_frame_equal(together, frame[frame["seed"] == 1].reset_index(drop=True))


def test_the_chain_adds_up(frame):
    table = facts_engines.tabulate_chain(frame)
    for _, one in table.groupby("pool (blocks)"):
        rates = one["token hit rate"].to_numpy()
        assert 100 * rates[0] + one["points"].iloc[1:].sum() == pytest.approx(100 * rates[-1])


def test_every_seed_is_there_and_the_first_has_intervals(workload, frame):
    assert frame["seed"].nunique() == study_engine.ENGINE_SEEDS
    first = frame.dropna(subset="low")
    assert set(first["seed"]) == {workload.parameters.seed}
    assert ((first["low"] <= first["token"]) & (first["token"] <= first["high"])).all()


def test_merged_duplicates_are_one_block():
    # Blocks of two tokens, four usable. The third request computes (3 4) again. vLLM keeps both copies, and the older
    # one is evicted for (7 7 7): the newer is still there for the last request. Merged, the one copy is evicted.
    prompts = [[1, 2, 3, 4], [9, 9], [1, 2, 3, 4], [7, 7, 7], [1, 2, 3, 4, 5]]
    engines = [VLLM(block_size=2, blocks=5, merge_duplicates=one) for one in (False, True)]
    kept, merged = (engine.replay(make_trace_of(prompts)) for engine in engines)
    assert kept.hit_tokens.tolist() == [0, 0, 2, 0, 4] and merged.hit_tokens.tolist() == [0, 0, 2, 0, 2]
    kept, merged = (engine.replay(make_trace_of(prompts[:3])) for engine in engines)
    assert (kept.cached_hashes, kept.blocks_with_hash) == (3, 4)
    assert (merged.cached_hashes, merged.blocks_with_hash) == (3, 3)
    with pytest.raises(ValueError, match="overlap"):
        VLLM(block_size=2, blocks=5, merge_duplicates=True, overlap=Overlap())


def test_agreement_is_counted(workload):
    trace = make_trace(workload, "multi_turn")
    text = said_of(facts_engines.facts_agreement, trace, 16)
    assert f"{len(trace):,} of {len(trace):,} requests" in text


def test_what_is_drawn_and_said(frame):
    figure, _ = plot_replays.draw_chain(frame, 3_000)
    table = facts_engines.tabulate_chain(frame)
    rates = table[table["pool (blocks)"] == 3_000]["token hit rate"].to_numpy()
    bars = [patch for patch in figure.axes[0].patches if abs(patch.get_height() - 0.6) < 1e-9]
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
    assert np.ravel(ends) == pytest.approx(np.column_stack([[0, *rates[:-1]], rates]).ravel())
    assert figure.axes[0].get_xlabel().startswith("token hit rate at 3,000 blocks")
    evictions = table[(table["pool (blocks)"] == 3_000) & (table["case"] == "evictions")].iloc[0]
    step = f"−{-evictions['points']:.2f} → {100 * evictions['token hit rate']:.1f} %"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][3] == f"evictions\n{step}"
    assert plot_replays.draw_chain(frame)[0].axes[0].get_xlabel().startswith("token hit rate at 600 blocks")
    plot_replays.draw_engines(frame)
    measures = facts_engines.facts_chain, facts_engines.facts_waits, facts_engines.facts_engines
    texts = [said_of(one, frame) for one in measures]
    assert all("nan" not in text for text in texts)
    assert "With 600 blocks" in texts[0] and "SGLang" in texts[2]
    assert set(facts_engines.tabulate_engines(frame)["verdict"]) <= {"–", "higher", "lower", "equal", "not separated"}


def test_the_engine_s_curve_is_of_those_replays(workload):
    curve = study_engine.study_engine_curve(workload, points=4)
    assert curve["seed"].nunique() == study_engine.CURVE_SEEDS and len(curve) == 4 * study_engine.CURVE_SEEDS
    trace = make_trace(replace(workload, parameters=replace(workload.parameters, seed=2)), "multi_turn")
    own = curve[curve["seed"] == 2]
    assert own["capacity_blocks"].iloc[0] == 512 and own["capacity_blocks"].iloc[-1] == own["distinct_blocks"].iloc[0]
    for row in own.itertuples():
        replayed = VLLM(blocks=row.capacity_blocks + 1).replay(trace)
        assert row.token == pytest.approx(rate(replayed))
        assert row.never_fit == (replayed.hit_tokens < 0).sum()
    whole = VLLM().replay(trace)
    assert own["unbounded"].to_numpy() == pytest.approx(rate(whole))
    assert own["distinct_blocks"].iloc[0] == whole.cached_hashes
    first = curve.dropna(subset="low")
    assert set(first["seed"]) == {0}
    assert ((first["low"] <= first["token"]) & (first["token"] <= first["high"])).all()


def test_a_table_is_kept(workload, frame, monkeypatch):
    monkeypatch.setattr(study_engine, "measure_engines", None)
    pd.testing.assert_frame_equal(study_engine.study_engines(workload, [600, 3_000]), frame)
