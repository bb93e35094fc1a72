"""Curves of several traces in one frame: each by its own maximum and its own blocks."""

import numpy as np
import pandas as pd
import pytest

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.report.plots.axes import complete_caption
from kvprefix.report.plots.cache import draw_normalised
from kvprefix.studies.normalise import normalise_curves
from kvprefix.traces.trace import make_trace_of

REPLAY = pd.DataFrame({
    "seed": [4, 4, 5], "capacity_blocks": [10, 50, 10], "distinct_blocks": 200, "token": [0.2, 0.4, 0.9],
    "unbounded": [0.8, 0.8, 0.9],
})  # fmt: skip


def test_shares_by_hand():
    # Blocks of one token, six distinct ones: 1 12 129 | 13 139 | 128. Of nine tokens, that of 1 is hit twice and that
    # of 12 once: 3/9 without a bound. 1 is hit at distance 1; 12 lies below 1, 13 and 139, at distance 4.
    accesses = make_prefix_trace(make_trace_of([[1, 2, 9], [1, 3, 9], [1, 2, 8]]), 1)
    table = normalise_curves({"small": accesses}, {"engine": REPLAY})
    small = table[table["trace"] == "small"]
    assert small["capacity_blocks"].tolist() == [1, 2, 3, 4] and set(small["distinct_blocks"]) == {6}
    assert small["share_of_blocks"].tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6])
    assert small["maximum"].tolist() == pytest.approx([1 / 3] * 4)
    assert small["share_of_maximum"].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1])
    engine = table[table["trace"] == "engine"]  # its first seed
    assert engine["share_of_blocks"].tolist() == [0.05, 0.25] and engine["share_of_maximum"].tolist() == [0.25, 0.5]


def test_a_trace_that_hits_nothing_has_no_share_and_the_figure_says_so():
    accesses = make_prefix_trace(make_trace_of([[1, 2], [3, 4]]), 1)
    table = normalise_curves({"nothing": accesses}, {})
    assert table["share_of_maximum"].isna().all() and set(table["maximum"]) == {0.0}
    figure, _ = draw_normalised(table)
    assert complete_caption("Curves.", figure) == "Curves. Nothing is ever hit."
    empty = normalise_curves({"none": make_prefix_trace(make_trace_of([]), 1)}, {})
    assert np.isfinite(empty["share_of_blocks"]).all()
    draw_normalised(empty)
