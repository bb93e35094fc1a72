"""Figures: the distribution function is right at its ends, files are whole, equal and complete."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.live.plot import draw_predicted_measured
from kvprefix.report.plots.axes import (
    add_legend,
    complete_caption,
    compute_ecdf,
    log_axes,
    make_axes,
    note_if_empty,
    rate_axes,
)
from kvprefix.report.plots.sharing import FIGURES, draw_figures
from kvprefix.studies.sharing import analyse


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(2, 40))
def test_ecdf_starts_at_0_ends_at_1_and_is_right_where_it_has_points(values, points):
    x, y = compute_ecdf(values, points=points)
    assert y[0] == 0 and y[-1] == 1 and x[0] == min(values) and x[-1] == max(values)
    assert (np.diff(y) >= 0).all() and (np.diff(x) >= 0).all()
    for at, share in zip(x[1:], y[1:], strict=True):
        assert share == pytest.approx(np.mean(np.array(values) <= at))


def test_ecdf_weights_count_as_repeats_would():
    weighted, repeated = compute_ecdf([3, 1], weights=[1, 3]), compute_ecdf([1, 1, 1, 3])
    assert np.array_equal(weighted, repeated)


def test_the_four_figures_are_saved_whole_and_the_same_twice(bundled_workload, tmp_path):
    results = analyse(bundled_workload)
    for folder in ("a", "b"):
        draw_figures(results, tmp_path / folder)
    names = {f"{name}{suffix}" for name in FIGURES for suffix in (".png", ".pdf", ".csv", ".txt")}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert b"/FontFile2" in (tmp_path / "a" / "comparison.pdf").read_bytes()  # embedded TrueType
    caption = (tmp_path / "a" / "comparison.txt").read_text()
    assert "n = 300 single-turn" in caption and "block size 16 tokens" in caption


def test_the_command_s_captions_say_what_their_figures_lack(bundled_workload, tmp_path):
    workload = replace(bundled_workload, parameters=replace(bundled_workload.parameters, block_size=10**6))
    draw_figures(analyse(workload), tmp_path)
    said = {name: (tmp_path / f"{name}.txt").read_text() for name in FIGURES}
    assert said["reuse_gap_cdf"].endswith("prompts only. No block is accessed twice.\n")
    assert said["block_hit_distribution"].endswith("prompts only. No prompt fills a block.\n")
    assert said["comparison"].endswith("prompts only.\n")


def test_a_note_is_said_once_in_the_caption_and_other_texts_are_not():
    figure, axes = make_axes(columns=3)
    for k, one in enumerate(axes):
        note_if_empty(one, k == 2, "no conversation has a second turn")
    axes[2].text(0, 0, "a label")
    assert complete_caption("Gaps.", figure) == "Gaps. No conversation has a second turn."


@pytest.mark.parametrize("values, ticks", [([3, 7], True), ([1, 1000], False), ([5], False), ([], False)])
def test_less_than_a_decade_has_plain_ticks_and_nothing_has_limits(values, ticks):
    figure, axes = make_axes()
    axes.plot(values, values, "o")
    log_axes(axes, "xy")
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    assert 0 < low < high and axes.get_xscale() == "log"
    if ticks:
        assert {"3", "6"} <= {tick.get_text() for tick in axes.get_xticklabels()}
    assert (type(axes.xaxis.get_minor_locator()).__name__ == "NullLocator") == ticks


def test_rates_of_nothing_end_at_one_percent_and_others_where_they_end():
    for end, expected in ((1e-9, 0.01), (0.4, 0.4)):
        _, axes = make_axes()
        axes.set_ylim(-0.1, end)
        rate_axes(axes)
        assert axes.get_ylim() == (0, expected)


def test_there_is_no_legend_of_nothing():
    figure, axes = make_axes()
    axes.plot([1, 2], [1, 2])
    add_legend(axes)
    assert not figure.legends
    axes.plot([1, 2], [2, 1], label="named")
    add_legend(axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["named"]


@pytest.mark.parametrize("n", [0, 1])
def test_a_live_check_of_one_request_or_none_is_drawn(n):
    columns = ["status", "predicted_cached_tokens", "measured_cached_tokens", "ttft_s"]
    figure, data = draw_predicted_measured(pd.DataFrame([("agrees", 16, 16, 0.1)] * n, columns=columns))
    assert len(data) == n
    if n:
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["agrees (1 request)"]
    else:
        assert not figure.legends and complete_caption("Live.", figure) == "Live. No request could be compared."
