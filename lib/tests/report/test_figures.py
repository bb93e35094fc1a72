"""Every figure can be read at a column's width and at a page's: no text is cut off, none covers another."""

import inspect
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from places import LIB, PROJECT
from seen import find_faults

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.blocks.sharing import share
from kvprefix.cache.curve import lru_curve, measure_distances, rate_unbounded
from kvprefix.cache.working_set import count_working_set, rank_reuse
from kvprefix.live import plot as plot_live
from kvprefix.models.memory import Model, load_model
from kvprefix.plan.setup import Setup
from kvprefix.report.facts import plan_tables
from kvprefix.report.facts.agents import select_widest
from kvprefix.report.facts.cache import tabulate_policies
from kvprefix.report.facts.explained import list_strips, pick_request
from kvprefix.report.facts.templates import pair_behaviours
from kvprefix.report.plots import advice as plot_advice
from kvprefix.report.plots import agents as plot_agents
from kvprefix.report.plots import block_sizes as plot_sizes
from kvprefix.report.plots import cache as plot_cache
from kvprefix.report.plots import engines as plot_engines
from kvprefix.report.plots import explained as plot_explained
from kvprefix.report.plots import hinted as plot_hinted
from kvprefix.report.plots import plan as plot_plan
from kvprefix.report.plots import results as plot_results
from kvprefix.report.plots import sharing as plot_sharing
from kvprefix.report.plots import templates as plot_templates
from kvprefix.report.plots import timing as plot_timing
from kvprefix.report.plots import workload as plot_workload
from kvprefix.report.plots.axes import (
    COLUMN_IN,
    PAGE_IN,
    ShownFigure,
    add_legend,
    draw_lines,
    make_axes,
    save_drawing,
)
from kvprefix.report.plots.places import label_ends, mark_places
from kvprefix.stats.compare import compare
from kvprefix.studies import agents
from kvprefix.studies import cache as study
from kvprefix.studies import engines as study_engines
from kvprefix.studies import hybrids as study_hybrids
from kvprefix.studies import timing as study_timing
from kvprefix.studies.call_sessions import load_sessions
from kvprefix.studies.explain import explain_misses
from kvprefix.studies.explain_draws import choose_capacities, draw_explained, study_causes
from kvprefix.studies.explain_tables import tabulate_turns
from kvprefix.studies.hinted import study_hinted
from kvprefix.studies.normalise import normalise_curves
from kvprefix.studies.plan import make_plans
from kvprefix.studies.sharing import analyse
from kvprefix.studies.sweep import sweep
from kvprefix.studies.templates import study_templates
from kvprefix.traces.parameters import Parameters

MODEL = load_model("Llama-3.1-8B")
LONG = Model("A-model-of-a-maker-whose-names-have-no-end-and-hardly-a-space 405B Instruct", 2**19, "")
OTHERS = {"comparison", "explore", "own_policy"}  # modules whose figures need more than a workload: not looked at here
WIDTHS = {"column": COLUMN_IN, "page": PAGE_IN}


@pytest.fixture(scope="module")
def drawn(bundled_workload):
    """Return the arguments of every figure, by its function, of a small workload."""
    workload = bundled_workload
    _, accesses = next(study.draw_accesses(workload, 16, seeds=1))
    results = analyse(workload)
    traces = {mode: result.trace for mode, result in results.items()}
    sharing, ceiling = share(traces["multi_turn"], 16), rate_unbounded(accesses)
    distances, times_s = measure_distances(accesses), np.linspace(0, accesses.arrival_s[-1], 50)
    windows = {"last minute": 60, "last ten minutes": 600, "last hour": 3600}
    sizes = {label: count_working_set(accesses, window_s, times_s) for label, window_s in windows.items()}
    block_sizes = study.study_block_sizes(workload, [2_000, 20_000, 100_000])
    capacities = study.spread_capacities(accesses.n_distinct // 3, 3, 50)
    clocks, rates, bursts = (
        study_timing.study_timing(workload, changes, points=8)
        for changes in (study_timing.CLOCKS, study_timing.RATES, study_timing.BURSTS)
    )
    engine, replays = study_engines.study_engine_curve(workload), study_engines.study_engines(workload, [600, 3_000])
    single = make_prefix_trace(traces["single_turn"], 16)
    requests = traces["multi_turn"].requests
    one = np.flatnonzero(requests["conversation_index"] == requests["conversation_index"].mode()[0])
    live = pd.DataFrame({"status": ["agrees", "differs"] * 9, "predicted_cached_tokens": range(0, 18_000, 1000),
                         "measured_cached_tokens": range(18), "ttft_s": 0.1})  # fmt: skip
    experiment = load_sessions(Parameters(data=str(PROJECT / "data/sample/calls.jsonl")))
    sessions = experiment.sessions
    policies = study.study_policies(experiment, agents.choose_capacities(sessions.accesses.n_distinct))
    data = draw_explained(workload)
    causes, (missed,) = study_causes(workload, choose_capacities(data, 5)), explain_misses(data, [2_000])
    plans = make_plans(workload, Setup(replicas=(1, 2), routers=("rr", "cache-aware-load"), dram=(256,)))
    marks = [("knee", 900.0), ("A card of 24 GB", 1000), ("Another card of 80 GB", 1020), ("out of sight", 1e12)]
    points = [(1000, 0.1), (1020, 0.12)]
    return {
        plot_agents.draw_sessions: (agents.tabulate_growth(sessions), agents.list_pauses(sessions)),
        plot_agents.draw_session_rates: (agents.rate_sessions_at(experiment, [30, 100]),),
        plot_agents.draw_pauses: (agents.study_pauses(experiment),),
        plot_agents.draw_widest: (select_widest(tabulate_policies(policies, rate_unbounded(experiment.draw(16)))),),
        plot_cache.draw_lru_curve: (
            study.study_lru(workload), ceiling, 16, MODEL, (study_engines.list_engines()["vllm"].label, engine), marks,
            points,
        ),
        plot_cache.draw_normalised: (
            normalise_curves({"single-turn": single, "multi-turn": accesses}, {"multi-turn, replies cached": engine}),
        ),
        plot_cache.draw_policies: (
            study.study_policies(workload, capacities), ceiling, 16, MODEL, study.study_fine(workload, capacities)
        ),
        plot_hinted.draw_hinted: (study_hinted(workload, capacities),),
        plot_cache.draw_working_set: (times_s, sizes, 16, MODEL),
        plot_cache.draw_reuse: (sharing.gap_s, distances[distances > 0], rank_reuse(sharing.accesses)),
        plot_sizes.draw_block_sizes: (block_sizes,), plot_sizes.draw_loss: (block_sizes,),
        plot_timing.draw_clocks: (clocks, ceiling["token"], 16), plot_timing.draw_rates: (rates, ceiling["token"], 16),
        plot_timing.draw_differences: (bursts, 16), plot_timing.draw_characteristic: (rates, sharing.gap_s, 16),
        plot_timing.draw_approximation: (rates, 16),
        plot_templates.draw_templates: (pair_behaviours(study_templates(workload)),),
        plot_engines.draw_chain: (replays,), plot_engines.draw_engines: (replays,),
        plot_engines.draw_hybrids: (study_hybrids.study_hybrids(workload, [600, study_hybrids.UNBOUNDED]),),
        **dict.fromkeys(plot_sharing.FIGURES.values(), (results,)),
        plot_workload.draw_turns_of: (requests.iloc[one], results["multi_turn"].sharing.hit_tokens[one]),
        plot_workload.draw_turn_counts: (workload.requests,), plot_workload.draw_lengths: (traces,),
        plot_workload.draw_arrivals: (traces,), plot_workload.draw_turn_gaps: (requests,),
        plot_explained.draw_areas: (causes,), plot_explained.draw_turns: (tabulate_turns(missed),),
        plot_explained.draw_strips: (list_strips(missed, pick_request(missed)), 16),
        **{getattr(plot_plan, f"draw_{name}"): arguments for name, arguments in draw_of(plans).items()},
        plot_advice.draw_fixes: (pd.DataFrame({
            "fix": [1, 2], "kind": ["time", "order of tools"], "before": [0.012, 0.943], "won": [0.931, 0.021],
        }),),
        plot_live.draw_predicted_measured: (live,),
        plot_results.draw_sharing: (sharing,), plot_results.draw_curve: (lru_curve(accesses),),
        plot_results.draw_sweep: (sweep(accesses, ["lru", "opt", "slru"], [100, 1000]),),
        plot_results.draw_comparison: (compare(sharing, sharing),),
    }  # fmt: skip


def draw_of(plans):
    """Return the arguments of each figure of a plan."""
    setup, table = plans.setup, plans.table
    return {
        "pools": (plan_tables.list_pools(plans),), "plans": (table, setup),
        "routers": (table[table["dram_gib"] == 0], 99),
        "steps": (plan_tables.list_steps(plans),), "dram": (plans.dram, plans.pool.gib, setup.dram_price),
        "break_even": (plans.break_even, setup.load_gib_per_s), "varied": (plans.varied, setup),
    }  # fmt: skip


def list_draws():
    """Return the functions that draw a figure."""
    files = (LIB / "kvprefix/report/plots").glob("[a-z]*.py")
    names = [path.stem for path in files if path.stem not in OTHERS | {"axes"}]
    modules = [*(import_module(f"kvprefix.report.plots.{name}") for name in names), plot_live]
    found = [one for module in modules for _, one in inspect.getmembers(module, inspect.isfunction)]
    return {one for one in found if one.__name__.startswith("draw_")} - {plot_sharing.draw_figures, draw_lines}


def test_every_figure_is_looked_at_here_and_can_be_drawn_anew(drawn):
    assert set(drawn) == list_draws()
    for draw in drawn:
        width = inspect.signature(draw).parameters["width_in"]
        assert width.kind is width.KEYWORD_ONLY and width.default in (COLUMN_IN, PAGE_IN), draw.__name__


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_is_cut_off_or_covers_another(drawn, width):
    faults = {}
    for draw, arguments in drawn.items():
        figure = draw(*arguments, width_in=WIDTHS[width])
        figure = figure[0] if isinstance(figure, tuple) else figure
        assert figure.get_size_inches()[0] == WIDTHS[width]
        name = f"{draw.__module__.rpartition('.')[2]}.{draw.__name__}"
        faults[name] = find_faults(figure)
    assert not {name: found for name, found in faults.items() if found}


def test_a_fault_is_found():
    figure, axes = make_axes()
    axes.text(0.5, 0.5, "one", transform=axes.transAxes)
    assert not find_faults(figure)
    axes.text(0.52, 0.5, "other", transform=axes.transAxes)
    axes.text(0.97, 0.9, "a long one at the edge", transform=axes.transAxes).set_in_layout(False)
    assert find_faults(figure) == ["'a long one at the edge' leaves the figure", "'one' and 'other' cover each other"]


@pytest.mark.parametrize("width", WIDTHS)
def test_names_without_end_fit(drawn, width):
    curve, ceiling, size, _, (_, engine), *_ = drawn[plot_cache.draw_lru_curve]
    marks = [(f"a card {k} of a maker with a long name", 900 + k) for k in range(5)]
    long = "An engine of a maker with a long name, nightly build"
    figure, _ = plot_cache.draw_lru_curve(curve, ceiling, size, LONG, (long, engine), marks, width_in=WIDTHS[width])
    assert not [fault for fault in find_faults(figure) if "of a maker with a long name, nightly" not in fault]
    replays, ceiling, size, _, fine = drawn[plot_cache.draw_policies]
    own = replays[replays["policy"] == "slru"].assign(policy="a policy of my own, whose name has no end")
    figure, _ = plot_cache.draw_policies(pd.concat([replays, own]), ceiling, size, LONG, fine, width_in=WIDTHS[width])
    assert not find_faults(figure)


def test_panels_are_lettered_and_stand_below_each_other_in_a_column():
    for width_in, places in ((PAGE_IN, [(0, 0), (0, 1), (0, 2)]), (COLUMN_IN, [(0, 0), (1, 0), (2, 0)])):
        figure, axes = make_axes(width_in, 2.0, 3, width_ratios=(3, 2, 1))
        spots = [one.get_subplotspec() for one in axes]
        assert [(spot.rowspan.start, spot.colspan.start) for spot in spots] == places
        assert [one.get_title(loc="left") for one in axes] == ["a", "b", "c"]
    assert tuple(figure.get_size_inches()) == (COLUMN_IN, pytest.approx(2.0 * (0.25 + 0.75 * 3)))
    assert make_axes()[1].get_title(loc="left") == ""


def test_labels_of_equal_ends_are_spread_and_marks_out_of_sight_are_left_out():
    figure, axes = make_axes()
    for k in range(12):
        axes.plot([1, 2], [0, 1], label=f"line {k}")
    label_ends([axes], bold=["line 3"])
    assert len(axes.texts) == 12 and not find_faults(figure)
    assert [text.get_text() for text in axes.texts if text.get_weight() == "bold"] == ["line 3"]
    figure, axes = make_axes()
    axes.plot([1, 100], [0, 1])
    mark_places(axes, [("here", 50), ("there", 51), ("nowhere", 1000)])
    assert {text.get_text() for text in axes.texts} == {"here", "there"} and not find_faults(figure)
    mark_places(axes, [])


def test_the_legend_of_a_column_has_more_lines_and_the_figure_grows():
    heights = []
    for width_in in (PAGE_IN, COLUMN_IN):
        figure, axes = make_axes(width_in)
        for k in range(6):
            axes.plot([1, 2], [k, 1], label=f"a line with a name {k}")
        add_legend(axes, 6)
        assert not find_faults(figure)
        heights.append(figure.get_size_inches()[1])
    assert heights[0] < heights[1]


def test_each_file_is_drawn_once(tmp_path, monkeypatch):
    drawn, draw = [], ShownFigure.draw
    monkeypatch.setattr(ShownFigure, "draw", lambda figure, renderer: drawn.append(draw(figure, renderer)))
    figure, axes = make_axes()
    axes.plot([0, 1], [0, 1])
    save_drawing(figure, tmp_path / "figure")
    assert len(drawn) == len(list(tmp_path.iterdir())) == 2
