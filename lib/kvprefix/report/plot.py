"""Draw the figures: one style for all, legible in grey, in the column widths of a paper. No numbers are made here.

Figures are plain `matplotlib.figure.Figure` objects, so that nothing depends on a display or a backend.
"""

import io
import textwrap

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from kvprefix.files.csv_cells import guard_cells
from kvprefix.files.escape import one_line
from kvprefix.files.paths import atomic_path
from kvprefix.report.rounding import percent
from kvprefix.report.styles import style_mode
from kvprefix.stats.intervals import interval
from kvprefix.stats.resampling import FRACTIONS, read_rate

COLUMN_IN, PAGE_IN = 3.4, 7.0
STYLE = {
    **sns.axes_style("ticks"),
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6, "lines.linewidth": 1.4,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4, "ytick.minor.width": 0.4,
    "axes.grid": True, "grid.linewidth": 0.4, "grid.color": "#DDDDDD", "axes.axisbelow": True,
    "axes.edgecolor": "#333333", "legend.frameon": False, "figure.dpi": 200, "savefig.dpi": 300, "pdf.fonttype": 42,
    "ps.fonttype": 42, "hatch.linewidth": 0.6,
}  # fmt: skip


class ShownFigure(Figure):
    """A figure that a notebook shows, whatever its backend."""

    def _repr_png_(self):
        file = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(file, format="png", facecolor="white")
        return file.getvalue()


def make_axes(width_in=COLUMN_IN, height_in=2.5, columns=1, **options):
    """Return (figure, axes) in the project's style; axes is an array if there is more than one column."""
    with mpl.rc_context(STYLE):
        figure = ShownFigure(figsize=(width_in, height_in), layout="constrained")
        axes = figure.subplots(1, columns, **options)
        for one in np.atleast_1d(axes):
            sns.despine(ax=one)
    return figure, axes


def compute_ecdf(values, weights=None, points=2000):
    """Compute an empirical distribution function, thinned for drawing.

    Parameters
    ----------
    values : (n,) array_like
    weights : (n,) array_like, optional
    points : int
        Keep about this many steps, always the first and the last.

    Returns
    -------
    x, y : (m,) ndarrays
        The share y of the weight is at or below x. Starts at y = 0 and ends at exactly 1; draw it as steps (`post`).

    Examples
    --------
    >>> compute_ecdf([3, 1, 1])
    (array([1., 1., 3.]), array([0.        , 0.66666667, 1.        ]))
    """
    values = np.asarray(values, float)
    if not len(values):
        return np.zeros(0), np.zeros(0)
    order = np.argsort(values, kind="stable")
    x = values[order]
    reached = np.arange(1, len(x) + 1) if weights is None else np.cumsum(np.asarray(weights, float)[order])
    last_of_value = np.append(x[1:] != x[:-1], True)
    x, y = x[last_of_value], reached[last_of_value] / reached[-1]
    if len(x) > points:
        nearest = np.searchsorted(y, np.linspace(y[0], 1.0, points))
        keep = np.unique(np.concatenate(([0], np.minimum(nearest, len(x) - 1), [len(x) - 1])))
        x, y = x[keep], y[keep]
    return np.concatenate(([x[0]], x)), np.concatenate(([0.0], y))


def draw_sharing_cdf(results):
    """Draw the distribution of the sharing fraction over requests, a line per mode. Returns (figure, its data)."""
    lines = {
        mode: (
            compute_ecdf(result.sharing.sharing_fraction),
            f"mean {percent(result.stats['sharing_fraction']['mean'])}",
        )
        for mode, result in results.items()
    }
    figure, axes = make_axes()
    data = draw_lines(axes, lines, "sharing_fraction", "share_of_requests")
    for mode, result in results.items():
        low, high = interval(result.resampled.cdf)
        axes.fill_between(FRACTIONS, low, high, color=style_mode(mode)["color"], alpha=0.25, linewidth=0)
    axes.set(
        xlim=(0, 1), ylim=(0, 1.01), xlabel="sharing fraction (cached / prompt tokens)", ylabel="share of requests"
    )
    percent_axes(axes, x=True)
    add_legend(axes, 2)
    return figure, data


def draw_gap_cdf(results):
    """Draw the distribution of reuse gaps, weighted by block and by request. Returns (figure, its data)."""
    figure, axes = make_axes()
    frames = []
    for mode, (_, sharing, _, _) in results.items():
        for weighting, weights, width in (("block", None, 1.6), ("request", sharing.gap_weights, 0.8)):
            x, y = compute_ecdf(sharing.gap_s, weights)
            style = line_style(mode, f"by {weighting}")
            axes.step(np.maximum(x, 1e-3), y, where="post", **{**style, "linewidth": width})
            frames.append(pd.DataFrame({"mode": mode, "weighting": weighting, "reuse_gap_s": x, "share": y}))
    axes.set(ylim=(0, 1.01), xlabel="reuse gap (s, log scale)", ylabel="share of reuses")
    percent_axes(axes)
    note_if_empty(axes, sum(len(frame) for frame in frames), "no block is accessed twice")
    log_axes(axes, "x")
    add_legend(axes, 2)
    return figure, pd.concat(frames, ignore_index=True)


def draw_hit_distribution(results):
    """Draw the share of blocks with at least x accesses, both axes logarithmic. Returns (figure, its data)."""
    figure, axes = make_axes()
    frames = []
    for mode, (_, sharing, stats, _) in results.items():
        counts, blocks = np.unique(sharing.accesses, return_counts=True)
        share = blocks[::-1].cumsum()[::-1] / max(blocks.sum(), 1)
        mean = stats["block_hit_count"]["mean"]
        style = line_style(mode, "none" if mean is None else f"mean {mean:.2f}")
        axes.step(counts, share, where="pre", marker="o" if mode == "multi_turn" else "s", markersize=2, **style)
        frames.append(pd.DataFrame({"mode": mode, "accesses": counts, "blocks": blocks, "share_at_least": share}))
    axes.set(xlabel="accesses of a block, x (log scale)", ylabel="share of blocks with at least x\n(log scale)")
    note_if_empty(axes, sum(len(frame) for frame in frames), "no prompt fills a block")
    log_axes(axes, "xy")
    add_legend(axes, 2)
    return figure, pd.concat(frames, ignore_index=True)


def draw_comparison(results):
    """Draw both modes' main numbers side by side: rates, and the mean hit count. Returns (figure, its data)."""
    rates = {
        "mean sharing\nfraction": "sharing_fraction.mean",
        "median sharing\nfraction": "sharing_fraction.median",
        "token\nhit rate": "token_hit_rate",
        "block\nreuse rate": "block_reuse_rate",
        "blocks reused\nfraction": "blocks_reused_fraction",
    }
    counts = {"mean block\nhit count": "block_hit_count.mean"}
    figure, (left, right) = make_axes(PAGE_IN, 2.4, 2, width_ratios=[5, 1.4])
    data = pd.concat([_draw_bars(left, results, rates, 100, "{:.1f}"), _draw_bars(right, results, counts, 1, "{:.2f}")])
    left.set(ylabel="percent", ylim=(0, max(10, 1.18 * left.dataLim.ymax)))
    right.set(ylabel="accesses per block", ylim=(0, 1.18 * max(1, right.dataLim.ymax)))
    add_legend(left, 2)
    return figure, data


def save_figure(figure, data, caption, path):
    """Save a figure as PNG and PDF (TrueType fonts), its plotted numbers as CSV and its caption as text.

    `path` has no suffix; equal figures give equal files.
    """
    with mpl.rc_context(STYLE):
        for suffix, meta in (
            (".png", {"Software": None}),
            (".pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
        ):
            with atomic_path(f"{path}{suffix}") as temporary:
                figure.savefig(temporary, metadata=meta, facecolor="white")
    with atomic_path(f"{path}.csv") as temporary:
        guard_cells(data).to_csv(temporary, index=False, lineterminator="\n")
    with atomic_path(f"{path}.txt") as temporary:
        temporary.write_text(one_line(caption) + "\n", encoding="utf-8")


def draw_lines(axes, lines, x_name, y_name):
    """Draw step lines, one per mode; `lines` maps a mode to ((x, y), the note of its legend)."""
    frames = []
    for mode, ((x, y), note) in lines.items():
        axes.step(x, y, where="post", **line_style(mode, note))
        frames.append(pd.DataFrame({"mode": mode, x_name: x, y_name: y}))
    return pd.concat(frames, ignore_index=True)


def _draw_bars(axes, results, measures, factor, label):
    frames, width = [], 0.76 / len(results)
    for k, (mode, result) in enumerate(results.items()):
        known = np.array([read_rate(result.stats, name) for name in measures.values()], float)  # NaN if there is none
        values = np.nan_to_num(known)
        found = [result.stats["intervals"][name] for name in measures.values()]
        low, high = np.array([pair or (value, value) for pair, value in zip(found, values, strict=True)]).T
        style, places = style_mode(mode), np.arange(len(values)) + (k - (len(results) - 1) / 2) * width
        bars = axes.bar(
            places, values * factor, width, label=style["label"],
            facecolor=style["color"], edgecolor="white", linewidth=0.6, hatch=style["hatch"],
        )  # fmt: skip
        errors = np.maximum([values - low, high - values], 0) * factor
        for color, linewidth in (("white", 2.0), ("black", 0.8)):  # to be seen on a dark bar
            axes.errorbar(
                places, values * factor, errors, fmt="none", ecolor=color,
                elinewidth=linewidth, capsize=1.5, capthick=linewidth, label="_nolegend_",
            )  # fmt: skip
        for bar, value, top in zip(bars, known * factor, (values * factor + errors[1]), strict=True):
            axes.annotate(
                "–" if np.isnan(value) else label.format(value), (bar.get_x() + width / 2, top), (0, 2),
                textcoords="offset points", ha="center", va="bottom", fontsize=6.5,
            )  # fmt: skip
        names = [name.replace("\n", " ") for name in measures]
        frames.append(pd.DataFrame({"mode": mode, "measure": names, "value": known, "low": low, "high": high}))
    axes.set_xticks(np.arange(len(measures)), measures)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    return pd.concat(frames)


def note_if_empty(axes, count, note):
    """Say on the axes why there is nothing to see; `complete_caption` finds it."""
    if not count:
        text = textwrap.fill(note, 20)
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", gid="note",
                  fontsize=7, bbox={"facecolor": "white", "linewidth": 0})  # fmt: skip


def complete_caption(caption, figure):
    """Return a caption and a sentence for each reason why a panel shows nothing."""
    texts = [text for axes in figure.axes for text in axes.texts if text.get_gid() == "note"]
    notes = dict.fromkeys(text.get_text().replace("\n", " ") for text in texts)
    return " ".join([caption, *(f"{note[0].upper()}{note[1:]}." for note in notes)])


def log_axes(axes, names):
    """Make the axes of these names (`x`, `y` or both) logarithmic; below a decade, with a few plain ticks that fit."""
    for name in names:
        if not 0 < getattr(axes.dataLim, f"interval{name}")[1] < np.inf:  # nothing to see
            axes.set(**{f"{name}lim": (1, 10)})
        axes.set(**{f"{name}scale": "log"})
        low, high = getattr(axes, f"get_{name}lim")()
        if high < 10 * low:
            axis = getattr(axes, f"{name}axis")
            axis.set(major_locator=MaxNLocator(4), minor_locator=NullLocator(), major_formatter="{x:,g}")


def line_style(mode, note):
    """Return the line style of a mode, its label with a note."""
    style = style_mode(mode)
    return {"color": style["color"], "linestyle": style["linestyle"], "label": f"{style['label']}, {note}"}


def add_legend(axes, columns=1):
    """Put the legend above the axes, where it covers no data; draw none if it has no entries."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    with mpl.rc_context(STYLE):
        axes.figure.legend(
            handles, labels, loc="outside upper center", ncols=columns, handlelength=2.4, columnspacing=1.2
        )


def rate_axes(axes):
    """Label the y axis in percent, from 0; if all values are 0, up to 1 %."""
    percent_axes(axes)
    axes.set_ylim(0, max(axes.get_ylim()[1], 0.01))


def percent_axes(axes, x=False):
    """Label the y axis in percent, and the x axis if `x` is true."""
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if x:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
