"""Write a table three ways: CSV at full precision, Markdown, and LaTeX (booktabs) for `\\input`."""

import math
from dataclasses import dataclass

import pandas as pd

from kvprefix.files.csv_cells import guard_cells
from kvprefix.files.escape import escape_latex, escape_markdown, one_line
from kvprefix.files.paths import write_bytes
from kvprefix.report.rounding import show_sign

NARROW = 5  # the most columns that fit a column of a paper


@dataclass(frozen=True)
class Narrow:
    """The form of a table that fits a column of a paper.

    Attributes
    ----------
    frame : pandas.DataFrame
        Of at most five columns.
    formats : mapping or sequence, optional
        As in `save_table`.
    notes : sequence of str
        Plain text; lines under the table.
    """

    frame: pd.DataFrame
    formats: dict | list | None = None
    notes: tuple = ()


def save_table(frame, path, caption, formats=None):
    """Save a table as CSV, Markdown and LaTeX. Headings, cells and caption are plain text: they are escaped here.

    Parameters
    ----------
    frame : pandas.DataFrame
        Its columns with their headings; numbers unrounded. The index is not written.
    path : path-like
        Without suffix.
    caption : str
        A comment in the LaTeX file.
    formats : mapping or sequence, optional
        How numbers are shown in Markdown and LaTeX: by column name, or one per row. Each is a function of the number or
        a format such as ``"{:.1f}"``; by default the rule of `format_number`.

    Returns
    -------
    dict
        What is shown, as `show_cells`.
    """
    shown = show_cells(frame, formats)
    columns = "".join("r" if numeric else "l" for numeric in shown["numeric"])
    latex = (
        pd.DataFrame(shown["rows"], columns=shown["head"]).style.hide(axis="index")
        .format(escape_latex)
        .format_index(escape_latex, axis="columns")
        .to_latex(hrules=True, column_format=columns)
    )  # fmt: skip
    write_bytes(f"{path}.csv", guard_cells(frame).to_csv(index=False, lineterminator="\n"))
    write_bytes(f"{path}.md", table_markdown(shown) + "\n")
    write_bytes(f"{path}.tex", f"% {one_line(caption)}\n{latex}")
    return shown


def show_cells(frame, formats=None):
    """Return a table as it is shown, in plain text: `head`, `rows`, and `numeric`, whether a column holds numbers.

    >>> show_cells(pd.DataFrame({"policy": ["LRU"], "rate": [0.25]}), {"rate": "{:.1f}"})
    {'head': ['policy', 'rate'], 'rows': [['LRU', '0.2']], 'numeric': [False, True]}
    """
    formats, columns = formats or {}, []
    for column in frame.columns:
        forms = [formats.get(column)] * len(frame) if isinstance(formats, dict) else formats
        columns.append([format_number(value, form) for value, form in zip(frame[column], forms, strict=True)])
    return {
        "head": [str(column) for column in frame.columns],
        "rows": [list(row) for row in zip(*columns, strict=True)],
        "numeric": [any(_is_number(value) for value in frame[column]) for column in frame.columns],
    }


def narrow_cells(shown, narrow=None):
    """Return the narrow form of a shown table: `head`, `rows`, `numeric` and `notes`.

    Without a `Narrow` of its own, a table shows its first five columns, and a note names the others.
    """
    if narrow is not None:
        return {**show_cells(narrow.frame, narrow.formats), "notes": list(narrow.notes)}
    left_out = shown["head"][NARROW:]
    return {
        "head": shown["head"][:NARROW],
        "rows": [row[:NARROW] for row in shown["rows"]],
        "numeric": shown["numeric"][:NARROW],
        "notes": [f"Not shown: {', '.join(left_out)}."] if left_out else [],
    }


def table_markdown(shown):
    """Return a shown table in Markdown; its cells are escaped."""
    from tabulate import tabulate

    return tabulate(
        [[escape_markdown(cell) for cell in row] for row in shown["rows"]],
        [escape_markdown(name) for name in shown["head"]], "pipe", disable_numparse=True,
        colalign=["right" if numeric else "left" for numeric in shown["numeric"]],
    )  # fmt: skip


def format_number(value, form=None):
    """Format a table cell: whole numbers with thousands separators, others to three digits, None or NaN as a dash.

    >>> format_number(43824189), format_number(0.41234), format_number(None), format_number("LRU")
    ('43,824,189', '0.412', '–', 'LRU')
    >>> format_number(-0.41234, "{:.2f}")
    '−0.41'
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return "–"
    if not _is_number(value):
        return str(value)
    if callable(form):
        return form(value)
    whole = float(value).is_integer()
    return show_sign(form.format(value) if form else f"{int(value):,}" if whole else f"{value:,.3g}")


def _is_number(value):
    return hasattr(value, "__float__") and not isinstance(value, bool | str)
