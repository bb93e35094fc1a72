"""The study of plans on small data: kept, resumed, and told as it was measured."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from places import LIB, SAMPLE
from plans import make_requests, make_setup, walk_paths

from kvprefix.engines.vllm import VLLM
from kvprefix.files.paths import InputError
from kvprefix.plan.choose import average_draws, choose_plan, compare_plans, find_worthiest, value_dram
from kvprefix.plan.notes import _note_bursts
from kvprefix.plan.setup import Setup
from kvprefix.report.facts.plan import list_facts, say_plans
from kvprefix.report.words import say, say_plainly
from kvprefix.studies import plan as study
from kvprefix.studies import table as tables
from kvprefix.studies.explain import open_tokens
from kvprefix.studies.plan import make_plans, study_plan
from kvprefix.studies.plan_tables import describe_plans, format_plans, tabulate_plans
from kvprefix.studies.plan_traffic import open_source, open_traffic
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.trace import make_trace_of
from kvprefix.traces.workload import load_workload, make_trace

SMALL = {"replicas": (1, 2), "routers": ("rr", "session", "longest"), "dram": (0.001, 64.0)}


@pytest.fixture(scope="module")
def workload():
    return load_workload(Parameters(data=str(SAMPLE)), progress=False)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("cards"), 30, **SMALL)


@pytest.fixture(scope="module")
def plans(workload, setup):
    return make_plans(workload, setup)


# ---- What is measured


def test_draws_are_replays_of_the_engine(workload, setup):
    frame = study_plan(workload, setup, [1], ("rr",), (0.0,))
    for row in frame.itertuples():
        own = replace(workload, parameters=replace(workload.parameters, seed=row.seed))
        trace = make_trace(own, "multi_turn")
        assert row.hit_tokens == np.maximum(VLLM(blocks=30).replay(trace).hit_tokens, 0).sum()
    assert frame["seed"].tolist() == [0, 1, 2, 3] and frame["low"].notna().tolist() == [True, False, False, False]


def test_requests_of_token_ids_are_one_draw(tmp_path):
    prompts, outputs, _ = make_requests(walk_paths(7, n=40))
    trace = make_trace_of(prompts, np.arange(40) * 3.0, outputs)
    setup = make_setup(tmp_path, 30, **SMALL | {"dram": ()})
    frame = study_plan(open_tokens(trace, 16), setup, [1])
    assert set(frame["seed"]) == {0} and (frame["hit_tokens"] == VLLM(blocks=30).replay(trace).hit_tokens.sum()).all()
    fast = study_plan(open_tokens(trace, 16), setup, [1], ("rr",), rate=2.0)
    assert fast["busiest_load"].iloc[0] == pytest.approx(2 * frame["busiest_load"].iloc[0])


def test_twice_the_traffic_comes_in_half_the_time(workload):
    usual, fast = (open_traffic(workload, rate=rate) for rate in (1.0, 2.0))
    starts = [np.ptp(one.blocks.arrival_s[one.trace.column("turn") == 0]) for one in (usual, fast)]
    assert starts[1] == pytest.approx(starts[0] / 2)


# ---- What is kept


def test_a_killed_study_goes_on_with_what_is_left(workload, setup, monkeypatch, tmp_path):
    options = [1, 2], ("rr",), (0.0,)
    whole, measure, done = study_plan(workload, setup, *options), study.measure_plan, []

    def fail_at_the_fourth(source, seed, replicas, *rest):
        if len(done) == 3:
            raise RuntimeError("killed")
        done.append((seed, replicas))
        return measure(source, seed, replicas, *rest)

    monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path))
    monkeypatch.setenv("KVPREFIX_SCHEDULER", "here")
    monkeypatch.setattr(study, "measure_plan", fail_at_the_fourth)
    with pytest.raises(RuntimeError, match="killed"):
        study_plan(workload, setup, *options)
    assert len(list(tmp_path.glob("study-plan-*/*.json"))) == 3
    monkeypatch.setattr(study, "measure_plan", lambda *task: done.append(task[1:3]) or measure(*task))
    pd.testing.assert_frame_equal(study_plan(workload, setup, *options), whole)
    assert done == [(seed, n) for seed in range(4) for n in (1, 2)]
    assert [path.suffix for path in tmp_path.glob("study*")] == [".json"]


def test_another_aim_measures_nothing_anew_and_another_cost_does(workload, setup, plans, monkeypatch):
    monkeypatch.setattr(tables, "open_tasks", None)  # whatever is measured fails
    again = make_plans(workload, replace(setup, slo_ttft=3.0, slo_percentile=90))
    pd.testing.assert_frame_equal(again.table, plans.table)
    for name in ("mfu", "load_gib_per_s", "dram_price", "gpu_price", "fixed_s", "prefill_share"):
        with pytest.raises(TypeError):
            make_plans(workload, replace(setup, **{name: 0.125}))


# ---- What is chosen and told


def test_the_choice_and_the_next_steps_are_those_of_the_rows(workload, setup, plans):
    assert plans.best.equals(choose_plan(plans.table, setup)) and plans.base is plans.best
    n, gib, router = int(plans.base["replicas"]), float(plans.base["dram_gib"]), str(plans.base["router"])
    more = find_worthiest(average_draws(study_plan(workload, setup, [n + 1], tiers=[gib])), setup)
    assert plans.next_gpu == compare_plans(plans.base, more, setup) and plans.next_gpu["replicas"] == n + 1
    dram = average_draws(study_plan(workload, setup, [n], [router], [gib + 100.0])).iloc[0]
    assert plans.next_dram == compare_plans(plans.base, dram, setup) and plans.next_dram["usd_cost"] > 0
    sizes = [0.0, *plans.dram["dram_gib"]]
    rows = average_draws(study_plan(workload, setup, [n], [router], sizes, draws=1))
    pd.testing.assert_frame_equal(plans.dram, value_dram(rows, setup))


def test_varied_assumptions_choose_again(plans, setup):
    first, *others = plans.varied.to_dict("records")
    assert first["assumption"] == "as assumed" and first["replicas"] == plans.best["replicas"]
    assert [one["assumption"] for one in others] == list(study.VARIED)


def test_plan_json_holds_what_the_table_does(plans):
    text = json.dumps(describe_plans(plans), allow_nan=False)
    found = json.loads(text)
    for row, told in zip(plans.table.to_dict("records"), found["plans"], strict=True):
        assert list(told) == list(row)
        assert all(told[name] == (None if pd.isna(value) else value) for name, value in row.items())
    assert found["best"] == found["plans"][int(plans.best.name)] and found["nearest"] is None
    assert found["seeds"] == [0, 1, 2, 3]
    assert found["pool"]["num_gpu_blocks"] == 30 and found["pool"]["tokens"] == 480
    assert found["traffic"]["prompt_tokens"] == 1048 and found["dram"][0]["dram_gib"] == plans.dram["dram_gib"].iloc[0]
    assert {one["name"] for one in found["assumptions"]} >= {"mfu", "pool_share", "dram_price"}


def test_every_key_of_plan_json_is_in_the_reference(plans):
    page = (LIB / "docs/reference/files.md").read_text(encoding="utf-8").split("## `plan.json`")[1].split("\n## ")[0]
    found = describe_plans(plans)
    rows = [one[0] if isinstance(one, list) else one for one in found.values() if one and isinstance(one, dict | list)]
    keys = {*found, *(key for row in rows if isinstance(row, dict) and row is not found["card"] for key in row)}
    assert len(keys) > 60 and [key for key in keys if f"`{key}`" not in page] == []


def test_every_number_that_is_said_is_a_fact(plans):
    said = say_plans(plans)
    for name, facts in list_facts(plans).items():
        part = say_plainly(f"{name}.md", facts)
        assert part in said and not re.search(r"(?<!\\)\$", say(f"{name}.md", facts))  # two would be mathematics
        values, bare = _numbers(facts), re.sub(r"\(95 %:|--[\w-]+|[A-Za-z]\w*-[\w.-]+|\bp\d\d\b", "", part)
        numbers = re.findall(r"[-+−]?\d[\d,]*(?:\.\d+)?(?: %)?", bare)
        assert numbers and [one for one in numbers if not _is_one_of(one, values)] == [], part


def _numbers(value):
    if isinstance(value, dict | list):
        return [number for one in (value.values() if isinstance(value, dict) else value) for number in _numbers(one)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _is_one_of(text, values):
    """Return whether a printed number is one of these, rounded: as it is, as percent, or a count of a list."""
    digits = text.removesuffix(" %").replace("−", "-").replace(",", "")
    number, unit = float(digits), 0.5 * 10.0 ** -len(digits.partition(".")[2])
    scale = 100 if text.endswith(" %") else 1
    return any(abs(abs(scale * one) - abs(number)) <= unit * (1 + 1e-9) for one in values)


def test_tables_show_one_replica_once(plans):
    shown = tabulate_plans(plans.table)
    assert shown["router"].tolist() == ["any"] * 3 + ["rr"] * 3 + ["session"] * 3 + ["longest"] * 3
    assert "| assumption" in format_plans(plans) and "--load-gib-per-s" in format_plans(plans)


# ---- What to know before


def test_a_tier_that_adds_nothing_is_said(plans):
    assert any(note.startswith("0.001 GiB of DRAM hold no more than the pool") for note in plans.notes)


def test_nothing_keeps_the_aim(workload, setup):
    plans = make_plans(workload, replace(setup, slo_ttft=1e-3))
    told = say_plans(plans)
    assert plans.best is None and "None of 12 plans keeps" in told  # one replica has no routers
    assert plans.base["ttft_p99"] == plans.table["ttft_p99"].min() and "The nearest is" in told
    found = describe_plans(plans)
    assert found["best"] is None and found["nearest"]["ttft_p99"] == plans.base["ttft_p99"]
    assert set(map(tuple, (list(one.values())[1:] for one in found["varied"]))) == {(None,) * 6}
    assert "no plan keeps the aim either" in told


def test_an_overload_has_no_times_and_is_said(workload, setup):
    plans = make_plans(workload, replace(setup, fixed_s=600.0, replicas=(1,), routers=("rr",), dram=()))
    assert plans.table["ttft_p99"].isna().all() and plans.best is None
    assert any("1 replica cannot serve this traffic" in note and "no time is given" in note for note in plans.notes)
    assert "seconds of work per second: its queue grows without bound" in say_plans(plans)
    assert describe_plans(plans)["plans"][0]["ttft_p50"] is None


def test_prompts_that_never_fit_are_said_and_none_that_fits_is_an_error(workload, tmp_path):
    small = {**SMALL, "dram": ()}
    plans = make_plans(workload, make_setup(tmp_path, 8, **small))
    (note,) = [note for note in plans.notes if "never fit" in note]
    never = int((open_traffic(workload).prompts > 7 * 16).sum())
    assert 0 < never == plans.table["never_fit"].iloc[0] and note.startswith(f"{never} prompts of 15 never fit")
    assert plans.best is None and "the aim leaves 1 %, so no plan keeps it" in note
    with pytest.raises(InputError, match="no prompt fits into a replica's pool of 32 tokens; the shortest has 2"):
        make_plans(workload, make_setup(tmp_path, 2, **small))


def test_routers_that_need_conversations(tmp_path):
    row = {"input_length": 1024, "output_length": 5}
    rows = [json.dumps(row | {"timestamp": 1000 * k, "hash_ids": [1, 2 + k % 3]}) for k in range(9)]
    path = tmp_path / "ids.jsonl"
    path.write_text("\n".join(rows))
    source, setup = open_source(Parameters(data=str(path))), Setup(replicas=(2,), routers=("rr", "session"), dram=())
    plans = make_plans(source, setup)
    assert set(plans.table["router"]) == {"rr"}
    assert any(note.startswith("router session is left out") for note in plans.notes)
    assert plans.notes[0].startswith("9 requests without a service time")  # what was put right is said first
    assert not plans.is_engine and any("block ids: hits are those of LRU" in note for note in plans.notes)
    with pytest.raises(InputError, match="router session: conversations are not known"):
        make_plans(source, replace(setup, routers=("session",)))


def test_requests_at_one_moment(tmp_path):
    trace = make_trace_of([[1] * 40, [1] * 40, [2] * 20], [7.0] * 3)
    setup = make_setup(tmp_path, 30, replicas=(1,), routers=("rr",), dram=())
    plans = make_plans(open_tokens(trace, 16), setup)
    assert plans.table["computed_per_s"].isna().all() and plans.table["ttft_p99"].notna().all()
    assert any("come at one moment" in note for note in plans.notes)
    assert json.dumps(describe_plans(plans), allow_nan=False) and say_plans(plans)


def test_waits_that_loads_do_not_explain_are_said():
    table = pd.DataFrame({
        "replicas": [1, 2], "router": "rr", "busiest_load": [0.3, 0.2], "ttft_p50": [50.0, 3.0], "own_p50": [0.5, 0.5],
    })  # fmt: skip
    said = "with rr and 1 replica half of the first tokens take 50 s or more at a load of 0.30"
    assert said in _note_bursts(table)[0]
    assert _note_bursts(table.assign(busiest_load=1.2)) == [] == _note_bursts(table.assign(ttft_p50=0.6))


def test_a_trace_of_token_ids_heeds_the_seed(tmp_path):
    rows = [{"request_id": str(k), "prompt_token_ids": [k] * 20, "timestamp": 1000 * k} for k in range(40)]
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    setup, sources = Setup(replicas=(2,), routers=("random",), dram=()), []
    for seed in (0, 7):
        sources.append(open_source(Parameters(data=str(path), seed=seed)))
    usual, other = (make_plans(source, setup).table["imbalance_computed"][0] for source in sources)
    assert sources[1].seed == 7 and usual != other
