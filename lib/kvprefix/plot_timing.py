"""Draw the timing study: curves under other clocks, rates and bursts; the characteristic time. No numbers made here."""

import numpy as np
import pandas as pd

from kvprefix.intervals import move_interval
from kvprefix.plot import PAGE_IN, add_legend, compute_ecdf, make_axes, percent_axes

_SHADES = ("#B03A2E", "#E08A00", "#6FA8C9", "#2E8B57", "#10507A")
_DASHES = ((0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (4, 1.5)), (0, (2, 1)), "-")
_MARKS = "sD^vo"


def draw_variants(frame, ceiling, block_size):
    """Draw LRU's token hit rate over capacity, a line a variant, with the range over seeds and the 95 % interval.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `study_timing.study_timing`.
    ceiling : float
        The unbounded token hit rate.
    block_size : int

    Returns
    -------
    figure, data
    """
    figure, axes = make_axes(PAGE_IN, 3.0)
    for name, color, dash, mark in _styled(frame):
        one = frame[frame["variant"] == name]
        spread = one.groupby("capacity_blocks")["token"].agg(["mean", "min", "max"])
        axes.plot(spread.index, spread["mean"], color=color, linestyle=dash, marker=mark, markersize=2.5, label=name)
        first = one.dropna(subset="low")
        ends = (first[name].to_numpy() for name in ("low", "high", "token"))
        low, high = move_interval(*ends, spread["mean"].to_numpy())
        low, high = np.minimum(spread["min"], low), np.maximum(spread["max"], high)
        axes.fill_between(spread.index, low, high, color=color, alpha=0.2, linewidth=0)
    axes.axhline(ceiling, color="#333333", linewidth=0.7, linestyle=(0, (2, 2)), label="unbounded")
    _capacity_axis(axes, block_size)
    axes.set(ylabel="token hit rate")
    percent_axes(axes)
    axes.set_ylim(0)
    add_legend(axes, 3)
    return figure, frame


def draw_characteristic(frame, gap_s, block_size):
    """Draw how long a block survives at each capacity, beside the distribution of the gaps, on one axis of time.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `study_timing.study_timing`.
    gap_s : (n,) ndarray
        Reuse gaps of the workload's own trace.
    block_size : int
    """
    figure, (left, right) = make_axes(PAGE_IN, 2.8, 2, sharey=True, width_ratios=(3, 2))
    for name, color, dash, mark in _styled(frame):
        one = frame[(frame["variant"] == name)].dropna(subset="time_s")
        style = {"color": color, "linestyle": dash, "marker": mark, "markersize": 2.5, "label": name}
        left.plot(one["capacity_blocks"], one["time_s"], **style)
    _capacity_axis(left, block_size)
    left.set(yscale="log", ylabel="characteristic time (s, log scale)")
    x, y = compute_ecdf(gap_s)
    right.step(y, x, where="pre", color="#333333", linewidth=1.2)
    right.set(xlabel="share of the reuse gaps that are shorter", xlim=(0, 1))
    right.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    left.set_ylim(0.5, 1.5 * max([10.0, *frame["time_s"].dropna(), np.max(gap_s, initial=0)]))
    add_legend(left, 5)
    data = frame.dropna(subset="time_s")[["variant", "capacity_blocks", "time_s"]]
    return figure, pd.concat([data, pd.DataFrame({"gap_s": x, "share": y})], ignore_index=True)


def draw_approximation(frame, block_size):
    """Draw Che's approximation on the simulated points; hollow points: its assumption does not hold."""
    figure, axes = make_axes(PAGE_IN, 3.0)
    for name, color, dash, mark in _styled(frame):
        one = frame[frame["variant"] == name].dropna(subset="simulated")
        axes.plot(one["capacity_blocks"], one["approximated"], color=color, linestyle=dash, linewidth=1, label=name)
        for holds, face in ((True, color), (False, "white")):
            points = one[one["holds"] == holds]
            axes.plot(
                points["capacity_blocks"], points["simulated"], mark, markersize=3.5, markerfacecolor=face,
                markeredgecolor=color, markeredgewidth=0.8,
            )  # fmt: skip
    one = frame[frame["variant"] == frame["variant"].iloc[0]].dropna(subset="independent")
    axes.plot(one["capacity_blocks"], one["independent"], color="#888888", linewidth=0.8, label="independent accesses")
    _capacity_axis(axes, block_size)
    axes.set(ylabel="block hit rate in the window")
    percent_axes(axes)
    axes.set_ylim(0)
    add_legend(axes, 6)
    return figure, frame.dropna(subset="simulated")


def _styled(frame):
    names = list(frame["variant"].unique())
    first = len(_SHADES) - len(names)
    return zip(names, _SHADES[first:], _DASHES[first:], _MARKS[first:], strict=True)


def _capacity_axis(axes, block_size):
    axes.set(xscale="log", xlabel=f"capacity (blocks of {block_size} tokens, log scale)")
