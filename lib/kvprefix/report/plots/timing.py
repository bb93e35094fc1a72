"""Draw the timing study: curves under other clocks, rates and bursts; the characteristic time. No numbers made here."""

import numpy as np
import pandas as pd

from kvprefix.files.escape import plain_label
from kvprefix.files.words import count
from kvprefix.report.plots.axes import (
    PAGE_IN,
    STACKED_BELOW_IN,
    add_legend,
    compute_ecdf,
    log_axes,
    make_axes,
    note_if_empty,
    rate_axes,
)
from kvprefix.report.plots.styles import style_ramp, style_variants
from kvprefix.stats.intervals import move_interval, pair_differences, spread_over


def draw_clocks(frame, ceiling, block_size, *, width_in=PAGE_IN):
    """Draw LRU's token hit rate over capacity, a line per variant, whose order means nothing; as `draw_rates`."""
    return _draw_variants(frame, ceiling, block_size, style_variants, width_in)


def draw_rates(frame, ceiling, block_size, *, width_in=PAGE_IN):
    """Draw LRU's token hit rate over capacity, a line per variant, from the first (light) to the last (dark).

    Bands are the range over seeds and the 95 % interval.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.timing.study_timing`.
    ceiling : float
        The unbounded token hit rate.
    block_size : int

    Returns
    -------
    figure, data
    """
    return _draw_variants(frame, ceiling, block_size, style_ramp, width_in)


def _draw_variants(frame, ceiling, block_size, style, width_in):
    figure, axes = make_axes(width_in, 3.0)
    for name, look in _styled(frame, style):
        one = frame[frame["variant"] == name]
        spread, first = spread_over(one, "capacity_blocks", "token"), one.dropna(subset="low")
        ends = (first[end].to_numpy() for end in ("low", "high", "token"))
        _draw_band(axes, spread, *move_interval(*ends, spread["mean"].to_numpy()), look)
    note_if_empty(axes, ceiling, "nothing is ever hit")
    axes.axhline(ceiling, color="#333333", linewidth=0.7, linestyle=(0, (2, 2)), label="unbounded")
    _capacity_axis(axes, block_size)
    axes.set(ylabel="token hit rate")
    rate_axes(axes)
    add_legend(axes, 6)
    return figure, frame


def draw_differences(frame, block_size, *, width_in=PAGE_IN):
    """Draw how far each variant's token hit rate lies from the last one's, in points, over capacity.

    Bands are the range over seeds and the 95 % interval of the difference.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.timing.study_timing`.
    block_size : int

    Returns
    -------
    figure, data
        `data` has the column `points`, the difference of the same seed.
    """
    figure, axes = make_axes(width_in, 2.8)
    base = frame["variant"].unique()[-1]
    data = pair_differences(frame, "variant", base)
    for name, look in _styled(frame, lambda names: style_ramp(names[::-1])):  # the base would be the lightest
        if name != base:
            one = data[data["variant"] == name]
            spread, first = spread_over(one, "capacity_blocks", "points"), one.dropna(subset="base_low")
            ends = first["base_low"].to_numpy(), first["base_high"].to_numpy(), first["points"].to_numpy() / 100
            low, high = move_interval(*ends, spread["mean"].to_numpy() / 100, -1)
            _draw_band(axes, spread, 100 * low, 100 * high, look)
    axes.axhline(0, color="#333333", linewidth=0.8, linestyle=(0, (2, 2)), label=plain_label(base))
    note_if_empty(axes, len(frame["variant"].unique()) - 1, "there is nothing to compare with")
    _capacity_axis(axes, block_size)
    axes.set(ylabel=f"points of token hit rate\nagainst {plain_label(base)}")
    most = max(1.0, *np.abs(axes.get_ylim()))
    axes.set_ylim(-most, most)
    add_legend(axes, 6)
    return figure, data


def _draw_band(axes, spread, low, high, look):
    """Draw a labelled line of means, with a band that holds the range over seeds and an interval."""
    axes.plot(spread.index, spread["mean"], markersize=3, markevery=2, **{"linewidth": 1.2, **look})
    low, high = np.minimum(spread["min"], low), np.maximum(spread["max"], high)
    axes.fill_between(spread.index, low, high, color=look["color"], alpha=0.15, linewidth=0)


def draw_characteristic(frame, gap_s, block_size, *, width_in=PAGE_IN):
    """Draw how long a block survives at each capacity, beside the distribution of the gaps, on one time axis.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.timing.study_timing`.
    gap_s : (n,) ndarray
        Reuse gaps of the workload's own trace.
    block_size : int
    """
    figure, (left, right) = make_axes(width_in, 2.8, 2, sharey=True, width_ratios=(3, 2))
    for name, look in _styled(frame, style_ramp):
        one = frame[(frame["variant"] == name)].dropna(subset="time_s")
        left.plot(one["capacity_blocks"], one["time_s"], markersize=3, markevery=2, **look)
    _capacity_axis(left, block_size)
    left.set(yscale="log", ylabel="characteristic time (s, log scale)")
    known = frame.dropna(subset="time_s")
    note_if_empty(left, len(known), "no characteristic time could be measured")
    x, y = compute_ecdf(gap_s)
    right.step(y, x, where="pre", color="#333333", linewidth=1.2)
    right.set(xlabel="share of the reuse gaps that are shorter", xlim=(0, 1))
    if width_in < STACKED_BELOW_IN:
        right.set_ylabel("reuse gap (s, log scale)")
    note_if_empty(right, len(gap_s), "no block is accessed twice")
    right.set_xlim(0, 1)
    right.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    gap_s = gap_s[gap_s > 0]
    usual = np.percentile(gap_s, [25, 100]) if len(gap_s) else [0.75, 10.0]  # the shortest gaps may be cut off
    ends = np.concatenate([known["time_s"], usual])
    left.set_ylim(ends.min() / 1.5, 1.5 * ends.max())
    add_legend(left, 5)
    data = known[["variant", "capacity_blocks", "time_s"]]
    return figure, pd.concat([data, pd.DataFrame({"gap_s": x, "share": y})], ignore_index=True)


def draw_approximation(frame, block_size, *, width_in=PAGE_IN):
    """Draw Che's approximation and the simulated points; points are hollow if its assumption does not hold."""
    figure, axes = make_axes(width_in, 3.0)
    for name, look in _styled(frame, style_ramp):
        one, color = frame[frame["variant"] == name].dropna(subset="simulated"), look["color"]
        line = {**look, "marker": "", "linewidth": 1}
        axes.plot(one["capacity_blocks"], one["approximated"], **line)
        for holds, face in ((True, color), (False, "white")):
            points = one[one["holds"] == holds]
            axes.plot(
                points["capacity_blocks"], points["simulated"], look["marker"], markersize=3.5, markerfacecolor=face,
                markeredgecolor=color, markeredgewidth=0.8,
            )  # fmt: skip
    note_if_empty(axes, frame["simulated"].notna().sum(), "there is no window to compare in")
    one = frame[frame["variant"] == frame["variant"].iloc[0]].dropna(subset=["simulated", "independent"])
    axes.plot(one["capacity_blocks"], one["independent"], color="#888888", linewidth=0.8, label="independent accesses")
    _capacity_axis(axes, block_size)
    axes.set(ylabel="block hit rate in the window")
    rate_axes(axes)
    add_legend(axes, 6)
    return figure, frame.dropna(subset="simulated")


def _styled(frame, style):
    """Yield each variant's name with its look and label."""
    for name, look in style(list(frame["variant"].unique())).items():
        yield name, {**look, "label": plain_label(name)}


def _capacity_axis(axes, block_size):
    axes.set(xlabel=f"capacity (blocks of {count(block_size, 'token')}, log scale)")
    log_axes(axes, "x")
