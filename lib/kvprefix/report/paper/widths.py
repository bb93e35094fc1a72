"""How wide a text is in LaTeX's own type, Computer Modern, read from the font that Matplotlib brings: no TeX is needed.

Kerns and ligatures, which make a line a little narrower, are left out, so that an estimate is no less than the truth.
"""

import functools
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font, LoadFlags

PT_PER_IN = 72.27  # TeX's points
COLUMN_PT, PAGE_PT = 3.33 * PT_PER_IN, 6.9 * PT_PER_IN  # the narrowest of the usual two-column classes
SIZES = {  # LaTeX's command: (points of type, width relative to the 10-point letters, points from line to line)
    "footnotesize": (8, 1.065, 9.5),
    "scriptsize": (7, 1.15, 8),
}
_OTHER_EM = 0.75  # of a letter that the font lacks
_EM = {
    "−": 0.778, "≥": 0.778, "≤": 0.778, "±": 0.778, "×": 0.778, "–": 0.5, "—": 1.0, "%": 0.834, "…": 1.34, "→": 1.0,
    "↑": 0.5, "↓": 0.5, "·": 0.278, "<": 0.778, ">": 0.778, "|": 0.3, "\\": 0.5, "_": 0.35, "{": 0.5, "}": 0.5,
    " ": 1 / 3,
}  # fmt: skip


def measure_text(text, size="footnotesize"):
    """Return the width in points of plain text whose letters LaTeX has (see `files.escape.spell_unknown`).

    >>> round(measure_text("0123456789", "footnotesize"), 1)  # cmr8: a digit is 0.531 of 8 points
    42.6
    """
    points, wider, _ = SIZES[size]
    return points * wider * sum(map(_measure_em, text))


@functools.cache
def _measure_em(character):
    """Return a character's width in em of 10-point type."""
    if character in _EM:
        return _EM[character]
    font = _load_font()
    if not character.isascii() or not font.get_char_index(ord(character)):
        return _OTHER_EM
    return font.load_char(ord(character), flags=LoadFlags.NO_SCALE).horiAdvance / font.units_per_EM


@functools.cache
def _load_font():
    return FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "cmr10.ttf"))
