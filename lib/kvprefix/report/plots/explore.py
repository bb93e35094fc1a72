"""Draw the explorer's figure: the present curve, the pinned ones, and a policy's points. No numbers are made here."""

from itertools import cycle
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter

from kvprefix.files.escape import plain_label
from kvprefix.files.words import count
from kvprefix.report.plots.axes import PAGE_IN, STYLE, add_legend, log_axes, make_axes, percent_axes
from kvprefix.report.plots.styles import BLUE, DASH_DOTTED, DASHED, DOTTED

GHOSTS = [
    {"color": color, "linestyle": dash}
    for color in ("#555555", "#999999") for dash in (DASHED, DOTTED, DASH_DOTTED, (0, (2, 1)))
]  # fmt: skip
LINE_IN = 0.16  # of a legend
LEFT_OUT = 3000  # the axis begins at this part of the largest capacity


class Line(NamedTuple):
    """A curve over capacity with its point.

    Attributes
    ----------
    label : str
    gib, token : (n,) ndarrays of float64
        Capacities, and LRU's token hit rates there.
    point : (float, float)
        The memory in GiB, and the chosen policy's token hit rate there.
    """

    label: str
    gib: np.ndarray
    token: np.ndarray
    point: tuple


def draw_explored(present, pins=(), replayed=None, *, block_gib, block_size, model, width_in=PAGE_IN):
    """Draw token hit rate over capacity. Returns (figure, data).

    Parameters
    ----------
    present : Line
    pins : sequence of Line
        Drawn as ghosts.
    replayed : (str, dict, list of (float, float)), optional
        Another policy's label and style, and its points: GiB and token hit rate.
    block_gib : float
        GiB of a block; the upper axis is in blocks of `block_size` tokens.
    model : str
        In whose KV cache the lower axis is measured.
    """
    figure, axes = make_axes(width_in, 3.2 + LINE_IN * len(pins))
    most = 1.2 * max(max(line.gib[-1], line.point[0]) for line in (present, *pins))
    least = min(most / LEFT_OUT, min(line.point[0] for line in (present, *pins)) / 1.5)
    for line, style in zip(pins, cycle(GHOSTS), strict=False):
        _draw_line(axes, line, most, linewidth=1.1, **style)
        axes.plot(*line.point, marker="o", markersize=4, markerfacecolor="white", color=style["color"])
    _draw_line(axes, present, most, linewidth=1.9, color=BLUE)
    axes.axhline(present.token[-1], color=BLUE, linewidth=0.7, linestyle=(0, (2, 2)))
    axes.annotate("unbounded", (least, present.token[-1]), (4, 2), textcoords="offset points", fontsize=7, color=BLUE)
    frames, color = [_tabulate("LRU", present), *(_tabulate("LRU, pinned", line) for line in pins)], BLUE
    if replayed:
        label, style, points = replayed
        (gib, token), color = np.array(points).T, style["color"]
        axes.plot(gib, token, label=label, markersize=4.5, linewidth=0.9, **style)
        frames.append(pd.DataFrame({"line": label, "gib": gib, "token": token}))
    axes.axvline(present.point[0], color="#333333", linewidth=0.6)
    axes.plot(*present.point, marker="o", markersize=8, color=color, markeredgecolor="white", zorder=5)
    axes.set(xlim=(least, most), ylim=(0, 1), ylabel="token hit rate")
    _name_capacities(axes, block_gib, block_size, model)
    add_legend(axes, 1 if pins else 2)
    _place(figure, rows=1 + len(pins) + bool(pins and replayed))
    return figure, pd.concat(frames, ignore_index=True)


def _place(figure, rows):
    """Lay the axes out below the rows of the legend: a layout that measures all texts takes twice as long to draw."""
    figure.set_layout_engine(None)
    width, height = figure.get_size_inches()
    top = 1 - (0.55 + LINE_IN * rows) / height
    figure.subplots_adjust(left=0.62 / width, right=1 - 0.2 / width, bottom=0.48 / height, top=top)


def _draw_line(axes, line, most, **style):
    gib, token = np.append(line.gib, most), np.append(line.token, line.token[-1])
    axes.plot(gib, token, label=line.label, **style)


def _tabulate(name, line):
    return pd.DataFrame({"line": ", ".join(filter(None, [name, line.label])), "gib": line.gib, "token": line.token})


def _name_capacities(axes, block_gib, block_size, model):
    axes.set(xlabel=f"capacity (GiB of KV cache, {plain_label(model)}, log scale)")
    log_axes(axes, "x")
    percent_axes(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    with mpl.rc_context(STYLE):
        top = axes.secondary_xaxis("top", functions=(lambda x: x / block_gib, lambda x: x * block_gib))
        top.set_xlabel(f"blocks of {count(block_size, 'token')}")
        top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
