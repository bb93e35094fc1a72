"""Draw the study of block sizes: rates, at equal memory too, and what larger blocks lose. No numbers are made here."""

import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

from kvprefix.report.plots.axes import (
    COLUMN_IN,
    PAGE_IN,
    STACKED_BELOW_IN,
    add_legend,
    log_axes,
    make_axes,
    note_if_empty,
    rate_axes,
)
from kvprefix.report.plots.places import label_ends
from kvprefix.report.plots.styles import WEIGHTINGS, style_ramp
from kvprefix.stats.intervals import spread_over


def draw_block_sizes(frame, *, width_in=PAGE_IN):
    """Draw unbounded hit rates, and LRU's at equal memory, over block size. Returns (figure, data)."""
    figure, (left, right) = make_axes(width_in, 2.8, 2)
    whole, bounded = frame[frame["memory_tokens"].isna()], frame.dropna(subset="memory_tokens")
    for name, look in WEIGHTINGS.items():
        left.plot(whole["block_size"], whole[name], marker="o", markersize=2.5, **look)
    for memory, look in style_ramp(np.sort(bounded["memory_tokens"].unique())).items():
        spread = spread_over(bounded[bounded["memory_tokens"] == memory], "block_size", "token")
        right.plot(spread.index, spread["mean"], label=f"{_tokens(memory)} tokens", markersize=2.5, **look)
        right.fill_between(spread.index, spread["min"], spread["max"], color=look["color"], alpha=0.25, linewidth=0)
    left.set(ylabel="hit rate, unbounded")
    right.set(ylabel="LRU token hit rate, equal memory")
    for axes in (left, right):
        _block_size_axis(axes, whole["block_size"])
        rate_axes(axes)
    label_ends([left, right])
    return figure, frame


def draw_loss(frame, *, width_in=COLUMN_IN):
    """Draw the cached tokens that larger blocks lose, beside half a block per request. Returns (figure, data)."""
    small = frame["block_size"].min()
    whole = frame[frame["memory_tokens"].isna() & (frame["block_size"] > small)]
    figure, axes = make_axes(width_in)
    sizes = whole["block_size"]
    axes.plot(sizes, whole["lost_tokens"], marker="o", markersize=3, color="#10507A", label="measured")
    label = f"half a block: (B − {small}) / 2"
    axes.plot(sizes, (sizes - small) / 2, color="#666666", linestyle=(0, (4, 1.5)), label=label)
    axes.set(ylabel="cached tokens lost per request\n(log scale)")
    note_if_empty(axes, (whole["lost_tokens"] > 0).sum(), "no larger block loses a token")
    log_axes(axes, "y")
    _block_size_axis(axes, sizes)
    add_legend(axes, 2)
    return figure, whole.assign(half_a_block=(sizes - small) / 2)[["block_size", "lost_tokens", "half_a_block"]]


def _block_size_axis(axes, sizes):
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_major_formatter(FixedFormatter(_thin([str(size) for size in sizes], axes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("block size (tokens, log scale)")


def _thin(labels, axes):
    """Leave out every other label, from the last one back, if they would touch."""
    fit = axes.figure.get_figwidth() >= STACKED_BELOW_IN or len(labels) <= 8
    return labels if fit else [label if k % 2 else "" for k, label in enumerate(labels, len(labels) % 2)]


def _tokens(count):
    return f"{count / 1e6:g}M" if count >= 1e6 else f"{count / 1e3:g}K" if count >= 1e3 else f"{count:g}"
