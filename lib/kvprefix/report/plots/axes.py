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
from kvprefix.report.plots.styles import style_mode

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


def save_figure(figure, data, caption, path):
    """Save a figure as PNG and PDF (TrueType fonts), its plotted numbers as CSV and its caption as text.

    `path` has no suffix; equal figures give equal files.
    """
    save_drawing(figure, path)
    with atomic_path(f"{path}.csv") as temporary:
        guard_cells(data).to_csv(temporary, index=False, lineterminator="\n")
    with atomic_path(f"{path}.txt") as temporary:
        temporary.write_text(one_line(caption) + "\n", encoding="utf-8")


def save_drawing(figure, path, suffixes=(".png", ".pdf")):
    """Save a figure as files that say nothing of time or program; all have the layout of the first."""
    without = {".png": {"Software": None}, ".pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    with mpl.rc_context(STYLE):
        for suffix in suffixes:
            with atomic_path(f"{path}{suffix}") as temporary:
                figure.savefig(temporary, metadata=without[suffix], facecolor="white")
            figure.set_layout_engine("none")  # the layout is found once, which is half of the work


def draw_lines(axes, lines, x_name, y_name):
    """Draw step lines, one per mode; `lines` maps a mode to ((x, y), the note of its legend)."""
    frames = []
    for mode, ((x, y), note) in lines.items():
        axes.step(x, y, where="post", **line_style(mode, note))
        frames.append(pd.DataFrame({"mode": mode, x_name: x, y_name: y}))
    return pd.concat(frames, ignore_index=True)


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
