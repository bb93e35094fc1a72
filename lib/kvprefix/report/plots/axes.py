"""Draw the figures: one style for all, legible in grey, in the column widths of a paper. No numbers are made here.

Figures are plain `matplotlib.figure.Figure` objects, so that nothing depends on a display or a backend.
"""

import io
import string
import textwrap

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from kvprefix.files.csv_cells import guard_cells
from kvprefix.files.escape import one_line
from kvprefix.files.paths import atomic_path
from kvprefix.report.plots.styles import style_mode
from kvprefix.stats.runs import cumulate_runs

COLUMN_IN, PAGE_IN = 3.4, 7.0
LEGEND_LINE_IN, LETTERS_PER_IN = 0.145, 13.5  # of a legend: inches of a line, letters of an inch
STACKED_BELOW_IN = 5.0  # a narrower figure has its panels below each other
STYLE = {
    "figure.facecolor": "white", "axes.facecolor": "white", "axes.labelcolor": ".15", "text.color": ".15",
    "xtick.color": ".15", "ytick.color": ".15", "grid.linestyle": "-", "lines.solid_capstyle": "round",
    "patch.edgecolor": "w", "patch.force_edgecolor": True, "axes.spines.top": False, "axes.spines.right": False,
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6, "lines.linewidth": 1.4,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4, "ytick.minor.width": 0.4,
    "axes.grid": True, "grid.linewidth": 0.4, "grid.color": "#DDDDDD", "axes.axisbelow": True,
    "axes.edgecolor": "#333333", "legend.frameon": False, "figure.dpi": 200, "savefig.dpi": 300, "pdf.fonttype": 42,
    "ps.fonttype": 42, "hatch.linewidth": 0.6,
}  # fmt: skip


class ShownFigure(Figure):
    """A figure that a notebook shows, whatever its backend; labels that are longer than their axes are wrapped."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.wrapped = {}  # a label: its text as it was given, and with its lines broken

    def draw(self, renderer):
        self.lay_out()
        self.set_layout_engine(None)  # places hold for every resolution, and finding them takes most of the time
        with mpl.rc_context(STYLE):  # of ticks that are made here
            super().draw(renderer)

    def lay_out(self):
        """Put the axes in their places, unless these are found, and break labels that are too long for them."""
        if self.get_layout_engine() is None:
            return
        with mpl.rc_context(STYLE):  # of the ticks that are made here
            self._wrap_labels()  # as it may be, since long labels would leave their axes no room
            self.get_layout_engine().execute(self)
            if self._wrap_labels():  # others than before, which need other room
                self.get_layout_engine().execute(self)
                self._wrap_labels()

    def _wrap_labels(self):
        """Break long labels; return whether one now has other lines than before."""
        before = list(self.wrapped.values())
        for axes in self.axes:
            for one in (axes, *axes.child_axes):
                self._wrap(one.xaxis.label, _find_room(axes), "width")
                self._wrap(one.yaxis.label, axes.bbox.height, "height")
        return before != list(self.wrapped.values())

    def _wrap(self, label, space, side):
        """Break a label into lines if it needs more than the space, in pixels, along its side."""
        whole, shown = self.wrapped.get(label, ("", ""))
        whole = whole if label.get_text() == shown else label.get_text()
        label.set_text(whole)
        needs = getattr(label.get_window_extent(), side)
        if needs > space:
            longest, text = max(map(len, whole.split("\n"))), " ".join(whole.split())
            label.set_text(textwrap.fill(text, max(int(longest * space / needs), 8)))
        self.wrapped[label] = whole, label.get_text()

    def _repr_png_(self):
        file = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(file, format="png", facecolor="white")
        return file.getvalue()


def _find_room(axes):
    """Return the pixels that a label below the middle of the axes may take, up to halfway to axes beside them."""
    own, beside = axes.bbox, [one.bbox for one in axes.figure.axes if one is not axes]
    low = max((one.x1 + own.x0 for one in beside if one.x1 <= own.x0), default=0) / 2
    high = min((own.x1 + one.x0 for one in beside if one.x0 >= own.x1), default=2 * axes.figure.bbox.width) / 2
    middle = (own.x0 + own.x1) / 2
    return 2 * min(middle - low, high - middle)


def make_axes(width_in=COLUMN_IN, height_in=2.5, columns=1, **options):
    """Make the axes of a figure in the project's style.

    Parameters
    ----------
    width_in : float
        Of the figure. Below STACKED_BELOW_IN its panels stand below each other.
    height_in : float
        Of the figure with its panels side by side; if they are stacked, each is three quarters as high.
    columns : int
        Panels; more than one are lettered.
    **options
        Of `Figure.subplots`; `width_ratios` hold side by side only.

    Returns
    -------
    figure, axes
        `axes` is an array if there is more than one panel.
    """
    stacked = columns > 1 and width_in < STACKED_BELOW_IN
    rows, columns = (columns, 1) if stacked else (1, columns)
    if stacked:
        height_in, options = height_in * (0.25 + 0.75 * rows), {**options, "width_ratios": None}
    with mpl.rc_context(STYLE):
        figure = ShownFigure(figsize=(width_in, height_in), layout="constrained")
        axes = figure.subplots(rows, columns, **options)
        for letter, one in zip(string.ascii_lowercase, np.atleast_1d(axes), strict=False):
            if rows * columns > 1:
                one.set_title(letter, loc="left", fontweight="bold", pad=3)
    return figure, axes


def compute_ecdf(values, weights=None, points=2000, lengths=None):
    """Compute an empirical distribution function, thinned for drawing.

    Parameters
    ----------
    values : (n,) array_like
    weights : (n,) array_like, optional
    points : int
        Keep about this many steps, always the first and the last.
    lengths : (n,) array_like of int, optional
        How often each value, with its weight, stands in a row; once if not given.

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
    lengths = np.ones(len(x), np.int64) if lengths is None else np.asarray(lengths)[order]
    reached = np.cumsum(lengths) if weights is None else cumulate_runs(np.asarray(weights, float)[order], lengths)
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
    """Save a figure as files that say nothing of time or program; all have one layout, found before they are drawn."""
    without = {".png": {"Software": None}, ".pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    with mpl.rc_context(STYLE):
        figure.lay_out()
        figure.set_layout_engine(None)  # with an engine, Matplotlib draws each file twice, for the layout alone
        for suffix in suffixes:
            with atomic_path(f"{path}{suffix}") as temporary:
                figure.savefig(temporary, metadata=without[suffix], facecolor="white")


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


def log_axes(axes, names, most=4):
    """Make the axes of these names (`x`, `y` or both) logarithmic; below a decade, with at most so many plain ticks."""
    for name in names:
        if not 0 < getattr(axes.dataLim, f"interval{name}")[1] < np.inf:  # nothing to see
            axes.set(**{f"{name}lim": (1, 10)})
        axes.set(**{f"{name}scale": "log"})
        log_ticks(getattr(axes, f"{name}axis"), *getattr(axes, f"get_{name}lim")(), most)


def log_ticks(axis, low, high, most=4):
    """Label the ticks of a logarithmic axis so that they fit: a few plain ones below a decade, else the decades."""
    if high < 10 * low:
        axis.set(major_locator=MaxNLocator(most), minor_locator=NullLocator(), major_formatter="{x:,g}")
    else:
        axis.set_minor_formatter(NullFormatter())


def line_style(mode, note):
    """Return the line style of a mode, its label with a note."""
    style = style_mode(mode)
    return {"color": style["color"], "linestyle": style["linestyle"], "label": f"{style['label']}, {note}"}


def add_legend(axes, columns=1):
    """Put the legend above the figure, where it covers no data; draw none if it has no entries.

    It has as many columns as fit the figure's width, `columns` at most; the figure grows by its lines but the first.
    """
    figure, (handles, labels) = axes.figure, axes.get_legend_handles_labels()
    labels = [textwrap.fill(label, int(LETTERS_PER_IN * figure.get_figwidth())) for label in labels]
    look = {"loc": "outside upper center", "handlelength": 2.4, "columnspacing": 1.2}
    for n in range(min(columns, len(handles)), 0, -1):
        with mpl.rc_context(STYLE):
            legend = figure.legend(handles, labels, ncols=n, **look)
        if n == 1 or legend.get_window_extent().width <= 0.98 * figure.bbox.width:
            lines = legend.get_window_extent().height / figure.dpi / LEGEND_LINE_IN
            figure.set_figheight(figure.get_figheight() + LEGEND_LINE_IN * max(lines - 1.5, 0))
            return
        legend.remove()


def rate_axes(axes):
    """Label the y axis in percent, from 0; if all values are 0, up to 1 %."""
    percent_axes(axes)
    axes.set_ylim(0, max(axes.get_ylim()[1], 0.01))


def percent_axes(axes, x=False):
    """Label the y axis in percent, and the x axis if `x` is true."""
    for axis in (axes.yaxis, axes.xaxis)[: 1 + x]:
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
