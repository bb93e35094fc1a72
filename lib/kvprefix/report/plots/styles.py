"""How series look: a colour, dash and mark each, legible in grey, for any number of series."""

import itertools

import numpy as np
from matplotlib.colors import to_hex

BLUE, ORANGE, GREY, GREEN = "#10507A", "#E08A00", "#666666", "#2E8B57"
RED, LIGHT_BLUE, PURPLE = "#B03A2E", "#6FA8C9", "#8C5A9E"
COLORS = (BLUE, ORANGE, GREY, GREEN, RED, LIGHT_BLUE, PURPLE)
WHOLE, DASHED, DOTTED, DASH_DOTTED = "-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5))
DASHES = (WHOLE, DASHED, DOTTED, DASH_DOTTED)
MARKS = ("o", "s", "D", "^", "v", "X", "P", "*", "d")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")
SERIES = {
    "single_turn": {"label": "single-turn", "color": ORANGE, "linestyle": DASHED, "hatch": "////"},
    "multi_turn": {"label": "multi-turn", "color": BLUE, "linestyle": WHOLE, "hatch": ""},
}
WEIGHTINGS = {
    "token": {"label": "by token", "color": BLUE, "linestyle": WHOLE},
    "block": {"label": "by block", "color": ORANGE, "linestyle": DASHED},
    "request_mean": {"label": "mean of requests", "color": GREY, "linestyle": DOTTED},
}


def style_lines(names, known=None):
    """Return the look of a line for each name: the known one, else the next that is free.

    Parameters
    ----------
    names : iterable
    known : dict of str to dict, optional

    Returns
    -------
    dict
        Of each name to its `color`, `linestyle` and `marker`; the known names first, in their order.

    Examples
    --------
    >>> style_lines(["lru", "mine"], {"lru": {"color": "#10507A", "linestyle": "-", "marker": "o"}})["mine"]["marker"]
    's'
    """
    return _style(names, known or {}, color=COLORS, linestyle=DASHES, marker=MARKS)


def style_bars(names, known=None):
    """Return the look of a bar for each name, as `style_lines`: its `facecolor` and `hatch`."""
    return _style(names, known or {}, facecolor=COLORS, hatch=HATCHES)


def style_variants(names):
    """Return the look of a line for each variant of a study; the last one, the base of comparison, has the first look.

    >>> style_variants(["naive", "causal"])["causal"]
    {'color': '#10507A', 'linestyle': '-', 'marker': 'o'}
    """
    looks = _cycle(
        color=(BLUE, GREEN, LIGHT_BLUE, ORANGE, RED, PURPLE, GREY),
        linestyle=(WHOLE, (0, (2, 1)), DASHED, DASH_DOTTED, DOTTED), marker="ov^DsXP*",
    )  # fmt: skip
    return dict(zip(names, list(itertools.islice(looks, len(names)))[::-1], strict=True))


def style_ramp(names):
    """Return the look of a line for each of some ordered names: from light to dark, a dash and a mark each.

    >>> [look["color"] for look in style_ramp([1, 2, 3]).values()]
    ['#89bf91', '#2c7e8c', '#2c3172']
    """
    import seaborn as sns  # most of a second, which a figure without a ramp need not wait for

    names = list(names)
    shades = map(to_hex, sns.color_palette("crest", as_cmap=True)(np.linspace(1, 0.1, len(names))))
    parts = zip(shades, itertools.cycle(DASHES), itertools.cycle(MARKS), strict=False)  # the darkest is a whole line
    looks = [{"color": color, "linestyle": dash, "marker": mark} for color, dash, mark in parts]
    return dict(zip(names, looks[::-1], strict=True))


def style_mode(mode):
    """Return the look of a mode: its `label`, `color`, `linestyle` and `hatch`; a new mode gets one that it keeps."""
    if mode not in SERIES:
        looks = _cycle(color=COLORS[2:], linestyle=DASHES[2:], hatch=HATCHES[2:])
        SERIES[mode] = {"label": mode.replace("_", "-"), **next(itertools.islice(looks, len(SERIES) - 2, None))}
    return SERIES[mode]


def _style(names, known, **parts):
    names, fresh = list(names), (look for look in _cycle(**parts) if look not in known.values())
    there = {name: known[name] for name in known if name in names}
    return there | {name: next(fresh) for name in names if name not in known}


def _cycle(**parts):
    """Yield looks without end: the k-th has the k-th of each part, which repeats."""
    for looks in zip(*map(itertools.cycle, parts.values()), strict=True):
        yield dict(zip(parts, looks, strict=True))
