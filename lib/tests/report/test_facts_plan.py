"""What is said of a plan: true of the table beside it, and not to be misread by who sizes a cluster."""

import json
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from places import PROJECT, SAMPLE
from plans import make_requests, make_setup, walk_paths
from said import missing, says
from strange_data import run_notebook

from kvprefix.plan.choose import choose_plan, find_worthiest
from kvprefix.plan.setup import Setup
from kvprefix.report.facts import plan as facts_plan
from kvprefix.report.facts import plan_tables
from kvprefix.report.plots.axes import STYLE
from kvprefix.report.plots.plan import draw_varied
from kvprefix.report.words import say
from kvprefix.studies.explain import open_tokens
from kvprefix.studies.plan import VARIED, make_plans
from kvprefix.studies.plan_tables import _COLUMNS, FORMATS, tabulate_plans


def plan(folder, n=40, **changes):
    paths = walk_paths(3, n)
    _, _, traffic = make_requests(paths, arrival_s=np.arange(len(paths)) / 2)
    usual = {"replicas": (1, 2), "routers": ("rr", "longest"), "dram": (0.01,)}
    return make_plans(open_tokens(traffic.trace, 16), make_setup(folder, 60, **usual | changes))


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    return plan(tmp_path_factory.mktemp("plans"))


def said(name, plans, **changes):
    return say(f"plan_{name}.md", getattr(facts_plan, f"facts_{name}")(plans) | changes)


def test_as_many_plans_are_counted_as_the_table_shows(plans):
    assert len(tabulate_plans(plans.table)) == 6 < len(plans.table) == 8  # one replica behind any router is one plan
    assert not missing(said("choice", plans), "cheapest of ~ 6 ~ plans")


def test_every_number_of_the_table_has_a_form():
    assert FORMATS.keys() == set(_COLUMNS.values()) - {"replicas", "router", "DRAM (GiB per replica)"}


def test_of_plans_that_cost_nothing_the_fewest_replicas_are_chosen(tmp_path):
    free = plan(tmp_path, price=0, dram_price=0.0)
    assert (free.best["replicas"], free.best["usd_per_hour"]) == (1, 0)
    rows = free.table.assign(busiest_load=np.linspace(0.4, 0.1, len(free.table)))
    best = choose_plan(rows, free.setup)
    assert best["replicas"] == 1 and best["dram_gib"] == 0.01  # memory that costs nothing is used if it helps


def test_a_step_is_told_with_its_router_its_memory_and_its_wait(plans):
    gpu = {"points": -31.4, "usd_saved": -0.04, "usd_cost": 3.6, "ttft": -0.25, "router": "llm-d"}
    dram = {"points": 2.0, "usd_saved": 0.001, "usd_cost": 0.4, "ttft": 0.5}
    text = said("next", plans, gpu=gpu, dram=dram, dram_gib=256.0, card="H100-80G")
    assert not missing(
        text, "1 ~ H100-80G with ~ 256 ~ GiB of DRAM), all behind llm-d, changes hits by −31.40 points,",
        "TTFT p99 by −0.25 s, and costs \\$ ~ 3.60 ~ per hour, besides \\$ ~ 0.04 ~ of prefill that is computed in",
        "change hits by +2.00 points, TTFT p99 by +0.5 s, and save prefill worth less than a cent",
        "hour for \\$ ~ 0.40",
    )
    assert "$−" not in text
    gpu, dram = ({**one, "usd_cost": None, "ttft": ttft} for one, ttft in ((gpu, None), (dram, 0.0)))
    bare = said("next", plans, gpu=gpu, dram=dram, per_usd=None)
    assert bare.endswith("changes hits by −31.40 points. 100 GiB of DRAM more per replica change hits by +2.00 points.")


def test_dram_is_told_with_the_size_that_is_enough(plans):
    rows = plans.dram.iloc[[0] * 3].assign(dram_gib=[16, 90, 2700], token=[0.6, 0.8995, 0.9], pays=False)
    text = said("dram", replace(plans, dram=rows, without_dram=0.6))
    assert not missing(text, "begins to win hits at ~ 90 ~ GiB, and ~ 90 ~ GiB raise them from 60.0 % to 90.0 %; more")
    priced = said("dram", replace(plans, dram=rows, without_dram=0.6), most=0.0004)
    assert not missing(priced, "1,000 ~ GiB save prefill worth up to \\$ ~ 0.40 ~ per hour and cost \\$ ~ 4.00")
    assert "more hardly" not in said("dram", replace(plans, dram=rows.iloc[:2], without_dram=0.6))


def test_times_that_read_alike_are_not_told_as_different(plans):
    rows = {"replicas": 8, "routers": 2, "alone": []}
    most, quick = {"router": "longest", "token": 0.6}, {"router": "rr", "token": 0.3, "ttft": 0.0261}
    facts = facts_plan.facts_routers(plans) | rows | {"most": most, "fewest": quick, "quickest": quick}
    assert says(say("plan_routers.md", facts | {"most_ttft": 0.0264}), "TTFT p99 behind longest, 0.026 s, is as short")
    assert says(say("plan_routers.md", facts | {"most_ttft": 0.03}), "The shortest TTFT p99 is behind rr, 0.026 s")


def test_hits_that_stay_are_not_told_as_a_range(plans):
    assert says(said("varied", plans, token_least=0.805, token_most=0.8051), "hits stay at 80.5 %")
    assert says(said("varied", plans, token_least=0.5, token_most=0.8), "hits from 50.0 % to 80.0 %")


def test_no_router_is_praised_if_all_are_equal(plans):
    one = {"router": "rr", "token": 0.0, "ttft": 0.02}
    facts = {"replicas": 2, "routers": 2, "most": one, "fewest": one, "quickest": one, "most_ttft": 0.02, "alone": []}
    text = say("plan_routers.md", facts_plan.facts_routers(plans) | facts)
    assert not missing(text, "all ~ 2 ~ routers hit 0.0 %", "rr has the shortest TTFT p99, 0.02 s.")


def test_one_token_per_second_is_told_as_one(plans):
    assert says(said("choice", plans, computed_per_s=1.2), "1 token per second is computed")
    text = said("choice", plans, computed_per_s=13.6, throughput_gain=1.001)
    assert says(text, "14 tokens per second are computed") and "Throughput" not in text


def test_cards_that_decoding_overloads_are_told(plans):
    base = plans.base.copy()
    assert facts_plan.facts_choice(plans)["decoding_replicas"] is None
    base["replicas"], base["gpu_load"] = 2, 1.7
    text = said("choice", replace(plans, base=base))
    assert says(text, "which is more than there is: decoding needs about 4 ~ replicas")


def test_the_next_replica_is_worth_what_it_saves_behind_the_best_router():
    rows = pd.DataFrame({"router": ["rr", "session", "longest"], "ttft_p99": [0.03, 0.03, 9.0],
                         "busiest_load": [0.01, 0.02, 0.5], "gpu_s_per_hour": [90.0, 80.0, 70.0],
                         "refused": 0.0})  # fmt: skip
    assert find_worthiest(rows, Setup())["router"] == "session"  # longest would not keep the aim
    assert find_worthiest(rows.assign(ttft_p99=[4.0, 5.0, 3.0]), Setup())["router"] == "longest"


def test_one_draw_that_tells_another_story_is_told(plans):
    text = said("varied", replace(plans, best=None))  # while on the first draw, which is varied, a plan keeps the aim
    assert says(text, "On the first seed alone, as in this table, a plan keeps the aim; on the mean of all none does.")
    assert not says(text, "either") and "first seed" not in said("varied", plans)


def test_no_label_of_other_assumptions_is_cut_off():
    rows = pd.DataFrame({"assumption": ["as assumed", *VARIED], "replicas": [2, 1, 1000, np.nan, 16, 2],
                         "dram_gib": [0, 256, 1024, np.nan, 1024, 0], "token": [0.8] * 6,
                         "ttft": [1.2, 1.9, 2.0, np.nan, 1.9, 1.0]})  # fmt: skip
    figure, _ = draw_varied(rows, Setup())
    with mpl.rc_context(STYLE):
        figure.canvas.draw()
        texts = [*figure.axes[0].texts, *figure.axes[0].get_yticklabels()]
        ends = np.array([one.get_window_extent().extents for one in texts])
    assert len(ends) == 12 and ends[:, 2].max() <= figure.bbox.width


def test_an_aim_below_the_prefill_itself_is_told(tmp_path):
    notes = " ".join(plan(tmp_path, flops=1e12, slo_ttft=0.01).notes)
    assert "the prefill alone, without any wait, takes" in notes and "(p99): more replicas cannot keep the aim" in notes
    assert "waits do not add up" not in notes


def test_few_requests_are_told(plans, tmp_path):
    assert any(says(one, "40 requests of ~ 100 ~ that a p99 takes") for one in plans.notes)
    assert not any("a p99 takes" in one for one in plan(tmp_path, n=100).notes)


def test_what_decides_is_seen_first(plans):
    shown = tabulate_plans(plans.table)
    assert list(shown)[6:9] == ["TTFT p50 (s)", "p90 (s)", "p99 (s)"] and list(shown).index("$ per hour") < 12
    assert FORMATS["mean load with decoding"].format(0.0042) == "0.004"


def test_the_notebook_keeps_what_reports_compare(tmp_path):
    chosen = {"replicas": "1,2", "routers": "rr,session", "dram": "256", "max_conversations": "all"}
    parameters = {"data": str(SAMPLE), "output_dir": str(tmp_path), **chosen}
    run_notebook(PROJECT / "notebooks/80-capacity-plan.ipynb", parameters)
    facts = json.loads((tmp_path / "facts/80-capacity-plan.json").read_text())["facts"]
    kept = [(one["replicas"], one["router"], one["dram_gib"]) for one in facts["plan_grid"]["plans"]]
    assert kept == [(1, "any", 0), (1, "any", 256), *((2, one, gib) for one in ("rr", "session") for gib in (0, 256))]


def test_the_table_of_plans_is_two_that_fit_a_page(plans):
    rows = tabulate_plans(plans.table)
    plans_of, work = plan_tables.split_plans(rows)
    assert list(plans_of) + list(work)[3:] == list(rows) and list(plans_of)[:3] == list(work)[:3]
    narrow = plan_tables.narrow_work(work)
    assert len(narrow.frame.columns) == 5 and len(narrow.frame) == (rows["DRAM (GiB per replica)"] == 0).sum()
    made = plan_tables.narrow_plans(plans.table).frame
    first = plans.table[(plans.table["dram_gib"] == 0) & (plans.table["replicas"] == 2)].set_index("router")["token"]
    assert made.set_index("router")["2"].to_dict() == pytest.approx((100 * first).to_dict())
