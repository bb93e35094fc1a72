"""How a series looks: one colour, dash and mark each, legible in grey; they do not run out, however many there are."""

import itertools

COLORS = ("#10507A", "#E08A00", "#666666", "#2E8B57", "#B03A2E", "#6FA8C9", "#8C5A9E")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
MARKS = ("o", "s", "D", "^", "v", "X", "P", "*", "d")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")
SERIES = {
    "single_turn": {"label": "single-turn", "color": "#E08A00", "linestyle": (0, (4, 1.5)), "hatch": "////"},
    "multi_turn": {"label": "multi-turn", "color": "#10507A", "linestyle": "-", "hatch": ""},
}


def style_lines(names, known=None):
    """Return the look of a line for each name: what is known of it, else the next that no other one has.

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


def style_mode(mode):
    """Return the look of a mode: its `label`, `color`, `linestyle` and `hatch`; one that is new gets one for good."""
    if mode not in SERIES:
        looks = _cycle(color=COLORS[2:], linestyle=DASHES[2:], hatch=HATCHES[2:])
        SERIES[mode] = {"label": mode.replace("_", "-"), **next(itertools.islice(looks, len(SERIES) - 2, None))}
    return SERIES[mode]


def _style(names, known, **parts):
    names, fresh = list(names), (look for look in _cycle(**parts) if look not in known.values())
    there = {name: known[name] for name in known if name in names}
    return there | {name: next(fresh) for name in names if name not in known}


def _cycle(**parts):
    """Yield looks without end: the k-th has the k-th of each part, which begins again when it is through."""
    for looks in zip(*map(itertools.cycle, parts.values()), strict=True):
        yield dict(zip(parts, looks, strict=True))
