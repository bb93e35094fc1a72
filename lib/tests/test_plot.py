"""Figures: the distribution function is right at its ends, files are whole, equal and complete."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.figures import FIGURES, draw_figures
from kvprefix.plot import compute_ecdf
from kvprefix.run import analyse


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
