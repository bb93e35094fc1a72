r"""A table's body in LaTeX (booktabs), laid out for a width: cells on one line if they fit, else texts in `p{}`.

What is tried, in order: less space between columns, headings on several lines, texts that wrap, smaller type. What is
too wide even so is scaled.
"""

import itertools
from dataclasses import dataclass

from kvprefix.report.paper.latex import print_text, split_word
from kvprefix.report.paper.widths import SIZES, measure_text

LAYOUTS = ((5, 1), (5, 2), (4, 3), (3, 9))  # points on each side between columns, most lines of a heading
COMFORTABLE = 14  # letters that a column of wrapped texts should hold, if its texts are that long
SPACE = 1.15  # how much more of a line than its words a wrapped text takes


@dataclass(frozen=True)
class Layout:
    """How a table fits: its type size, the points beside each column, and each column's heading lines and width.

    `wraps` is the width in points of a column whose texts wrap, else None; `width` is the whole table's. It fits if
    `fits`; else it is scaled.
    """

    size: str
    beside: int
    heads: list
    wraps: list
    width: float
    fits: bool

    def count_lines(self, rows):
        """Return how many lines each row takes."""
        return [
            max([1, *(_count_lines(cell, wide, self.size) for cell, wide in zip(row, self.wraps, strict=True) if wide)])
            for row in rows
        ]


def fit_table(head, rows, numeric, width):
    """Return the `Layout` of a table of plain text in a width (points).

    >>> fit_table(["policy", "rate"], [["LRU", "9.4 %"]], [False, True], 240).wraps
    [None, None]
    """
    tries = [
        lay_out(head, rows, numeric, width, size, *layout, wrap)
        for size, wrap, layout in itertools.product(SIZES, (False, True), LAYOUTS)
    ]
    return next((one for one in tries if one.fits), tries[-1])


def lay_out(head, rows, numeric, width, size, beside, most_lines, wrap):
    """Return a `Layout` of this size, space and most heading lines; the texts wrap if `wrap`."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in head]
    heads = [wrap_head(text, column, most_lines, size) for text, column in zip(head, columns, strict=True)]
    widths = [
        max(measure_text(text, size) for text in [*lines, *column])
        for lines, column in zip(heads, columns, strict=True)
    ]
    space, wraps = 2 * beside * (len(head) - 1), [None] * len(head)
    texts = [k for k, is_number in enumerate(numeric) if not is_number]
    if wrap and texts and sum(widths) + space > width:
        left = width - space - sum(one for k, one in enumerate(widths) if k not in texts)
        shares = _share(left, [widths[k] for k in texts], [_least(head[k], columns[k], size) for k in texts])
        for k, share in zip(texts, shares, strict=True):
            if share < widths[k]:
                widths[k] = wraps[k] = share
                heads[k] = wrap_head(head[k], [], 9, size, share)
    total = sum(widths) + space
    return Layout(size, beside, heads, wraps, total, total <= width + 0.01)


def _least(head, column, size):
    """Return the least comfortable width of a column of texts: its longest piece, and a few words."""
    pieces = [piece for text in [head, *column] for word in text.split(" ") for piece in split_word(word)]
    longest = max(measure_text(piece, size) for piece in pieces)
    few_words = min(COMFORTABLE * measure_text("n", size), max(measure_text(text, size) for text in column or [head]))
    return max(longest, few_words)


def _share(left, wanted, least):
    """Share a width between columns that want more than there is: the least to each, the rest by what they lack."""
    lacks = [max(want - low, 0) for want, low in zip(wanted, least, strict=True)]
    rest = max(left - sum(least), 0) / (sum(lacks) or 1)
    return [low + min(rest, 1) * lack for low, lack in zip(least, lacks, strict=True)]


def wrap_head(text, column, most_lines, size, width=None):
    """Return a heading in lines: as few as fit the width of its cells, and at most `most_lines`.

    >>> wrap_head("mean sharing fraction", ["50.8 %"], 2, "footnotesize")
    ['mean sharing', 'fraction']
    """
    words = text.split(" ")
    cells = width or max((measure_text(cell, size) for cell in column), default=0)
    options = [_break_lines(words, target, size) for target in sorted({cells, *_spans(words, size)})]
    fitting = [lines for lines in options if len(lines) <= most_lines]
    return min(fitting, key=lambda lines: (max(cells, *(measure_text(line, size) for line in lines)), len(lines)))


def _spans(words, size):
    """Return the width of every run of words."""
    ends = itertools.combinations(range(len(words) + 1), 2)
    return {measure_text(" ".join(words[first:last]), size) for first, last in ends}


def _break_lines(words, width, size):
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        lines = [*lines[:-1], longer] if measure_text(longer, size) <= width else [*lines, word]
    return lines


def _count_lines(text, width, size):
    return -int(-SPACE * measure_text(text, size) // width)


def write_tabular(layout, rows, numeric, outer):
    r"""Return a table as lines of LaTeX: a `tabular`, in a group that sets its type; `outer` names the width it has."""
    columns = "".join(
        rf">{{\raggedright\arraybackslash}}p{{{wide:.1f}pt}}" if wide else "r" if is_number else "l"
        for wide, is_number in zip(layout.wraps, numeric, strict=True)
    )
    heads = " & ".join(_write_head(lines, number) for lines, number in zip(layout.heads, numeric, strict=True))
    before, after = ("", "") if layout.fits else (rf"\resizebox{{{outer}}}{{!}}{{%", "}")
    lines = [
        rf"\{layout.size}\setlength{{\tabcolsep}}{{{layout.beside}pt}}", before,
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule", rf"{heads} \\", r"\midrule",
        *(rf"{' & '.join(map(print_text, row))} \\" for row in rows), r"\bottomrule", r"\end{tabular}" + after,
    ]  # fmt: skip
    return [line for line in lines if line]


def _write_head(lines, is_number):
    printed = r" \\ ".join(map(print_text, lines))
    if len(lines) == 1:
        return printed
    return rf"\begin{{tabular}}[b]{{@{{}}{'r' if is_number else 'l'}@{{}}}}{printed}\end{{tabular}}"


def line_height(layout):
    """Return the points from line to line of a layout."""
    return SIZES[layout.size][2]
