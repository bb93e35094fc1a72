"""Draw a single result for its own `plot` method: sharing, a curve, a sweep, a comparison."""

import numpy as np
from matplotlib.ticker import PercentFormatter

from kvprefix.cache.policies import label_policy
from kvprefix.files.escape import plain_label
from kvprefix.report.plots.axes import (
    COLUMN_IN,
    PAGE_IN,
    add_legend,
    compute_ecdf,
    log_axes,
    make_axes,
    percent_axes,
    rate_axes,
)
from kvprefix.report.plots.styles import COLORS, WEIGHTINGS, style_lines


def draw_sharing(sharing, *, width_in=COLUMN_IN):
    """Draw how the sharing fraction spreads over the requests, as a CDF."""
    figure, axes = make_axes(width_in, 2.4)
    x, y = compute_ecdf(sharing.sharing_fraction)
    axes.step(x, y, where="post", color=COLORS[0])
    axes.set(xlabel="cached share of the prompt (no bound)", ylabel="requests", xlim=(0, 1), ylim=(0, 1.02))
    percent_axes(axes, x=True)
    return figure


def draw_curve(curve, *, width_in=PAGE_IN):
    """Draw the LRU hit rate over capacity, a line per weighting."""
    frame = curve.to_frame()
    figure, axes = make_axes(width_in, 2.8)
    for name, style in WEIGHTINGS.items():
        axes.plot(frame["capacity_blocks"], frame[name], **style)
    size = f" of {curve.block_size} tokens" if curve.block_size else ""
    axes.set(xlabel=f"capacity in blocks{size} (log scale)", ylabel="LRU hit rate")
    rate_axes(axes)
    log_axes(axes, "x")
    add_legend(axes, 3)
    return figure


def draw_sweep(rows, *, width_in=PAGE_IN):
    """Draw the token hit rate of each policy over capacity."""
    frame = rows.to_frame()
    figure, axes = make_axes(width_in, 2.8)
    for policy, style in style_lines(frame["policy"].unique()).items():
        line = frame[frame["policy"] == policy].sort_values("capacity_blocks")
        label = plain_label(label_policy(policy))
        axes.plot(line["capacity_blocks"], line["token"], label=label, markersize=3.5, **style)
    axes.set(xlabel="capacity in blocks (log scale)", ylabel="token hit rate")
    rate_axes(axes)
    log_axes(axes, "x")
    add_legend(axes, 4)
    return figure


def draw_comparison(comparison, *, width_in=COLUMN_IN):
    """Draw each result's token hit rate as a bar."""
    frame = comparison.to_frame()
    figure, axes = make_axes(width_in, 0.7 + 0.35 * len(frame))
    places = np.arange(len(frame))[::-1]
    axes.barh(places, frame["hit_rate"], height=0.6, color=COLORS[0])
    axes.set_yticks(places, [plain_label(label) for label in frame["result"]])
    axes.set(xlabel="token hit rate", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.grid(axis="y", visible=False)
    return figure
