"""Place labels so that none covers another: at the ends of lines, and along marks of the x axis."""

import textwrap

import numpy as np
from scipy.optimize import isotonic_regression

SIZE = 7  # points, of a label
LINE, LETTERS_PER_IN = 1.2 * SIZE / 72, 14  # inches, its height; how many of its letters stand in an inch


def spread_places(wanted, sizes, low, high):
    """Move the centres of labels as little as needed, so that none covers another and all are between two ends.

    Parameters
    ----------
    wanted, sizes : (n,) array_like
        Each label's place and height.
    low, high : float
        If the labels need more room than there is, they are taken for smaller than they are.

    Returns
    -------
    (n,) ndarray of float64
        In the order given; the sum of squared moves is least before the ends are kept (isotonic regression of the
        places less what is below them).

    Examples
    --------
    >>> spread_places([5.0, 5.0, 0.0], [2.0, 2.0, 2.0], 0.0, 10.0)
    array([4., 6., 1.])
    """
    wanted, sizes = np.asarray(wanted, float), np.asarray(sizes, float)
    if not len(wanted):
        return wanted
    sizes = sizes * min(1.0, (high - low) / sizes.sum())
    order = np.argsort(wanted, kind="stable")
    below = np.cumsum(sizes[order]) - sizes[order] / 2  # if they stood on each other from 0 on
    base = np.clip(isotonic_regression(wanted[order] - below).x, low, high - sizes.sum())
    placed = np.empty(len(wanted))
    placed[order] = base + below
    return placed


def label_ends(panels, bold=(), letters=18):
    """Write the label of each labelled line at its end, right of its axes; where ends are close, labels are spread.

    Parameters
    ----------
    panels : sequence of Axes
        With their limits, of a figure that has all else.
    bold : sequence of str
        Labels.
    letters : int
        Of a line; a label has three lines at most.
    """
    panels[0].figure.lay_out()
    for axes in panels:
        _label_ends(axes, bold, letters)


def _label_ends(axes, bold, letters):
    lines = [line for line in axes.lines if np.isfinite(line.get_ydata()).any() and line.get_label()[0] != "_"]
    texts = [textwrap.fill(line.get_label(), letters, max_lines=3, placeholder="…") for line in lines]
    ends = [line.get_transform().transform(_find_end(line)) for line in lines]
    ends = axes.transAxes.inverted().transform(np.reshape(ends, (-1, 2)))
    heights = [(1 + text.count("\n")) * LINE * axes.figure.dpi / axes.bbox.height for text in texts]
    for line, text, end, place in zip(lines, texts, ends, spread_places(ends[:, 1], heights, 0, 1), strict=True):
        color = line.get_color()
        leader = {"arrowstyle": "-", "color": color, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(
            text, end, (1.03, place), "axes fraction", "axes fraction", color=color, fontsize=SIZE, va="center",
            arrowprops=leader, weight="bold" if line.get_label() in bold else "normal", linespacing=1.0,
        )  # fmt: skip


def _find_end(line):
    """Return the last point of a line that is a number."""
    last = np.flatnonzero(np.isfinite(line.get_ydata()))[-1]
    return line.get_xdata()[last], line.get_ydata()[last]


def mark_places(axes, marks):
    """Draw vertical lines at places of the x axis, each with its label along it.

    A label stands at the foot of the axes, or at the top if a curve is in its way.

    Parameters
    ----------
    axes : Axes
        With its limits and labels, of a figure that has all else.
    marks : sequence of (str, float)
        Label and place; those outside the axes are left out.
    """
    low, high = axes.get_xlim()
    marks = sorted((one for one in marks if low <= one[1] <= high), key=lambda one: one[1])
    axes.figure.lay_out()
    to_axes, line = axes.transData + axes.transAxes.inverted(), LINE * axes.figure.dpi / axes.bbox.width
    ends = to_axes.transform([(x, 1.0) for _, x in marks] or np.zeros((0, 2)))[:, 0]
    places = spread_places(ends - line / 2, [line] * len(marks), 0, 1)
    letters = int(axes.bbox.height / axes.figure.dpi * LETTERS_PER_IN)
    for (label, x), place in zip(marks, places, strict=True):
        label = label if len(label) <= letters else f"{label[: letters - 1]}…"
        axes.axvline(x, color="#444444", linewidth=0.6, linestyle=(0, (2, 1.5)), zorder=1)
        text = axes.text(
            place, 0.02, label, transform=axes.transAxes, rotation=90, ha="center", va="bottom", fontsize=SIZE,
            color="#222222", bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
        )  # fmt: skip
        if text.get_window_extent().height / axes.bbox.height + 0.04 > _find_lowest(axes, x, to_axes):
            text.set(y=0.98, va="top")


def _find_lowest(axes, x, to_axes):
    """Return how high the lowest line stands at x, as a share of the axes; 1 if there is none."""
    curves = [line for line in axes.lines if line.get_transform() == axes.transData and len(line.get_xdata())]
    heights = [np.interp(x, *line.get_data(), left=np.inf, right=np.inf) for line in curves]
    heights = [to_axes.transform((x, y))[1] for y in heights if np.isfinite(y)]
    return min(heights, default=1.0)
