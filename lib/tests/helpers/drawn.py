"""A figure for tests that do not look at it."""

import pandas as pd

from kvprefix.report.plots.axes import COLUMN_IN, make_axes


def draw_line(*_, width_in=COLUMN_IN):
    """Draw a line; return the figure and its data."""
    figure, axes = make_axes(width_in)
    axes.plot([1, 2])
    return figure, pd.DataFrame({"x": [1, 2]})
