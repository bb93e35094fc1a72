"""Figures draw all that their tables hold: one more policy, memory, window, variant, engine, pool, size, mode."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from said import said_of
from seen import find_faults

from kvprefix.cache.policies import POLICIES
from kvprefix.cache.policy import Policy
from kvprefix.engines.registry import ENGINES, Engine
from kvprefix.models.memory import load_model
from kvprefix.report.captions import state_conditions
from kvprefix.report.facts import engines as facts_engines
from kvprefix.report.facts.sharing import tabulate_comparison
from kvprefix.report.plots import block_sizes as plot_sizes
from kvprefix.report.plots import cache as plot_cache
from kvprefix.report.plots import engines as plot_replays
from kvprefix.report.plots import styles as plot_styles
from kvprefix.report.plots import timing as plot_timing
from kvprefix.report.plots import workload as plot_workload
from kvprefix.report.plots.axes import complete_caption
from kvprefix.report.plots.sharing import FIGURES
from kvprefix.studies.engines import CHAIN, Case, list_engines
from kvprefix.studies.sharing import analyse

MODEL = load_model("Llama-3.1-8B")
SEEDS = range(3)


def spread(names, column, capacities=(10, 100), by="capacity_blocks"):
    """Return a study's table: each name at each capacity with each seed, and intervals for the first one."""
    rows = [
        {column: name, by: capacity, "seed": seed, "token": 0.5, "block": 0.4, "request_mean": 0.3,
         **dict.fromkeys(("low", "high", "base_low", "base_high", "step_low", "step_high"), np.nan if seed else 0.5)}
        for name in names for capacity in capacities for seed in SEEDS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def looks(lines):
    """Return what tells lines apart: colour, dashes and mark."""
    return [(to_hex(line.get_color()), str(line._dash_pattern[1]), line.get_marker()) for line in lines]


def entries(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_looks_do_not_run_out_and_are_all_different():
    for style in (plot_styles.style_lines(range(200)), plot_styles.style_bars(range(30))):
        assert len({str(look) for look in style.values()}) == len(style)
    known = {"a": {"color": plot_styles.COLORS[0], "linestyle": "-", "marker": "o"}}
    styled = plot_styles.style_lines(["new", "a"], known)
    assert list(styled) == ["a", "new"] and styled["a"] is known["a"] and styled["new"] != known["a"]


@pytest.mark.parametrize("more", [["mru"], [f"mine-{k}" for k in range(30)]])
def test_a_policy_of_ones_own_is_in_the_figure(more, monkeypatch):
    for name in more:
        monkeypatch.setitem(POLICIES, name, Policy(name=name, label=name.upper(), definition="one's own"))
    figure, _ = plot_cache.draw_policies(spread(POLICIES, "policy"), {"token": 0.6}, 16, MODEL)
    left, right = figure.axes
    ends = {text.get_text().replace("\n", " ") for text in left.texts} - {"headroom"}
    assert ends == {policy.label for policy in POLICIES.values()} | {"unbounded"}
    assert len(left.lines) == len(POLICIES) + 1 and len(set(looks(left.lines))) == len(left.lines)
    assert len(right.texts) == len(right.lines) == len(POLICIES) - 1  # the optimum is in the first panel alone
    bold = {text.get_text() for text in left.texts if text.get_weight() == "bold"}
    assert bold == {"LRU", "OPT", *(name.upper() for name in more)}
    assert not find_faults(figure)


@pytest.mark.parametrize("n", [1, 4, 9])
def test_every_memory_is_drawn(n):
    memories = [1000 * (k + 1) for k in range(n)]
    bounded = spread([16, 32, 1024], "block_size", memories, "memory_tokens")
    whole = spread([16, 32, 1024], "block_size", [np.nan], "memory_tokens")
    whole = whole[whole["seed"] == 0].assign(lost_tokens=[0.0, 4.0, 9.0], blocks=1.0)
    frame = pd.concat([whole, bounded])
    figure, _ = plot_sizes.draw_block_sizes(frame)
    left, right = figure.axes
    assert len(right.lines) == len(right.texts) == n and len(set(looks(right.lines))) == n
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["16", "32", "1024"]
    assert plot_sizes.draw_loss(frame)[1]["block_size"].tolist() == [32, 1024]


def test_every_window_is_drawn():
    windows = {f"last {k} minutes": np.array([k, 2 * k]) for k in range(1, 6)}
    figure, data = plot_cache.draw_working_set(np.array([0.0, 60.0]), windows, 16, MODEL)
    assert entries(figure) == list(windows) and set(data.columns) == {"time_s", *windows}
    assert len(set(looks(figure.axes[0].lines))) == len(windows)


def test_every_weighting_is_drawn():
    curve = spread(["x"], "what").assign(user_mean=0.2)
    ceiling = {"block": 0.5, "token": 0.6, "request_mean": 0.4, "user_mean": 0.3}
    figure, _ = plot_cache.draw_lru_curve(curve, ceiling, 16, MODEL)
    assert entries(figure) == ["by token", "by block", "mean of requests", "user mean"]


@pytest.mark.parametrize("n", [1, 6, 12])
def test_every_variant_is_drawn(n):
    names = [f"{k} /s" for k in range(n)]
    columns = dict.fromkeys(["time_s", "simulated", "approximated", "independent"], 0.5)
    frame = spread(names, "variant").assign(**columns, window_s=9.0, holds=1.0)
    for draw in (plot_timing.draw_clocks, plot_timing.draw_rates):
        figure, _ = draw(frame, 0.6, 16)
        lines = figure.axes[0].lines
        assert set(entries(figure)) == {*names, "unbounded"} and len(set(looks(lines))) == len(lines) == n + 1
    figure, data = plot_timing.draw_differences(frame, 16)
    assert set(entries(figure)) == set(names) and len(figure.axes[0].lines) == n
    assert (data["points"] == 0).all()
    alone = "There is nothing to compare with." in complete_caption("Bursts.", figure)
    assert alone == (n == 1)
    figure, _ = plot_timing.draw_characteristic(frame, np.array([1.0, 2.0]), 16)
    assert set(entries(figure)) == set(names) and len(figure.axes[0].lines) == n
    figure, _ = plot_timing.draw_approximation(frame, 16)
    assert set(entries(figure)) == {*names, "independent accesses"}


def test_every_engine_case_and_pool_is_drawn(monkeypatch):
    mine = Engine(name="mine", label="My engine", definition="one's own", load=lambda: None)
    monkeypatch.setitem(ENGINES, "mine", mine)
    tier = Case(name="tier", label="a second tier", base="overlap", cause="evicted blocks go there")
    monkeypatch.setitem(CHAIN, "tier", tier)
    engines = list_engines()
    pools = [8, 80, 800, 8000, 80_000]
    frame = spread(list(CHAIN | engines), "case", pools, "pool")
    frame["never_fit"] = 0
    figure, data = plot_replays.draw_engines(frame)
    assert set(entries(figure)) == {case.label for case in engines.values()} and "mine" in set(data["case"])
    bars = [patch for patch in figure.axes[0].patches if patch.get_width()]
    assert len(bars) == len(engines) * len(pools)
    assert len({(to_hex(bar.get_facecolor()), bar.get_hatch()) for bar in bars}) == len(engines)
    figure, _ = plot_replays.draw_chain(frame)
    left, right = figure.axes
    assert len([patch for patch in left.patches if abs(patch.get_height() - 0.6) < 1e-9]) == len(CHAIN)
    assert "at 800 blocks" in left.get_xlabel()  # the middle one
    lines = {line.get_label(): line for line in right.lines if line.get_label()[0] != "_"}
    assert list(lines) == [case.label for case in CHAIN.values()]
    assert all(line.get_xdata().tolist() == pools for line in lines.values())
    assert (facts_engines.tabulate_engines(frame)["case"] == "My engine").sum() == len(pools)
    assert "My engine" in said_of(facts_engines.facts_engines, frame)
    assert "A second tier" in said_of(facts_engines.facts_chain, frame)


def test_every_mode_is_drawn(bundled_workload):
    results = analyse(bundled_workload)
    try:
        results = {**results, "agents": results["multi_turn"], "batch": results["single_turn"]}
        for name, draw in FIGURES.items():
            figure, data = draw(results)
            assert set(data["mode"]) == set(results), name
            assert sum(entry.startswith(("agents", "batch")) for entry in entries(figure)) >= 2, name
        traces = {mode: result.trace for mode, result in results.items()}
        for draw in (plot_workload.draw_lengths, plot_workload.draw_arrivals):
            assert set(draw(traces)[1]["mode"]) == set(results)
        looks = {str(plot_styles.style_mode(mode) | {"label": ""}) for mode in results}
        assert len(looks) == len(results)
        stats = {mode: result.stats for mode, result in results.items()}
        n = [f"{stats[mode]['requests']:,} {name}" for mode, name in (("agents", "agents"), ("batch", "batch request"))]
        assert all(text in state_conditions(stats) for text in n)
        assert {"agents", "batch"} <= set(tabulate_comparison(stats)[0].columns)
    finally:
        for mode in ("agents", "batch"):
            plot_styles.SERIES.pop(mode, None)


def test_a_mean_of_equal_floats_is_an_error_bar_of_nothing():
    frame = spread(list(CHAIN | list_engines()), "case", [8], "pool").assign(token=5 / 97)
    rates = frame.groupby("case")["token"]
    assert (rates.mean() > rates.max()).all()  # by a rounding: one end of the bar would have a length below zero
    figure, _ = plot_replays.draw_engines(frame)
    assert {patch.get_height() for patch in figure.axes[0].patches if patch.get_width()} == {5 / 97}


def test_a_rate_that_does_not_exist_is_a_dash_and_no_zero():
    stats = {"sharing_fraction": {"mean": 0.5, "median": 0.5}, "token_hit_rate": 0.5, "block_reuse_rate": None,
             "blocks_reused_fraction": None, "block_hit_count": {"mean": None}}  # fmt: skip
    names = ["sharing_fraction.mean", "sharing_fraction.median", "token_hit_rate", "block_reuse_rate"]
    stats["intervals"] = dict.fromkeys([*names, "blocks_reused_fraction", "block_hit_count.mean"])
    figure, data = FIGURES["comparison"]({"multi_turn": SimpleNamespace(stats=stats)})
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["50.0"] * 3 + ["–"] * 3
    assert data["value"].isna().tolist() == [False] * 3 + [True] * 3
