"""What a reader sees of a figure: its texts and their places, as they are drawn."""

from itertools import combinations

from matplotlib.text import Text


def find_texts(figure):
    """Draw a figure; return each text that shows and its box in pixels, as a list of (str, Bbox)."""
    figure.draw_without_rendering()
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, *axes.texts]
        texts += [] if axes.get_legend() is None else axes.get_legend().get_texts()
        for one in (axes, *axes.child_axes):
            texts += [text for axis in (one.xaxis, one.yaxis) for text in _list_labels(axis)]
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), Text.get_window_extent(text)) for text in shown]  # that of an annotation holds its line


def _list_labels(axis):
    """Return the label of an axis and those of its ticks that are drawn."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()] if axis.get_visible() else []
    inside = [tick for tick in ticks if tick.get_visible() and low - slack <= tick.get_loc() <= high + slack]
    labels = [label for tick in inside for label in (tick.label1, tick.label2)]
    return [axis.label, *labels] if axis.get_visible() else []


def find_faults(figure, slack=1.5):
    """Return what a reader would not be able to read: texts that leave the figure, and pairs that cover each other.

    Boxes may meet by `slack` pixels: they have room above and below the letters.
    """
    texts, canvas = find_texts(figure), figure.bbox
    faults = [
        f"{text!r} leaves the figure" for text, box in texts
        if box.x0 < canvas.x0 - slack or box.y0 < canvas.y0 - slack
        or box.x1 > canvas.x1 + slack or box.y1 > canvas.y1 + slack
    ]  # fmt: skip
    for (one, a), (other, b) in combinations(texts, 2):
        across, along = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > slack and along > slack:
            faults.append(f"{one!r} and {other!r} cover each other")
    return faults
