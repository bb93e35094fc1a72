"""Write a table three ways: CSV at full precision, Markdown, and LaTeX (booktabs) for `\\input`."""

import math

from kvprefix.files.csv_cells import guard_cells
from kvprefix.files.escape import escape_latex, escape_markdown, one_line
from kvprefix.files.paths import write_bytes


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
    str
        The Markdown table.
    """
    formats, shown = formats or {}, frame.astype(object)
    for column in frame.columns:
        forms = [formats.get(column)] * len(frame) if isinstance(formats, dict) else formats
        shown[column] = [format_number(value, form) for value, form in zip(frame[column], forms, strict=True)]
    right = [any(_is_number(value) for value in frame[column]) for column in frame.columns]
    escaped = shown.map(escape_markdown).rename(columns=escape_markdown)
    markdown = escaped.to_markdown(
        index=False, disable_numparse=True, colalign=["right" if is_right else "left" for is_right in right]
    )
    latex = (
        shown.style.hide(axis="index")
        .format(escape_latex)
        .format_index(escape_latex, axis="columns")
        .to_latex(hrules=True, column_format="".join("r" if is_right else "l" for is_right in right))
    )
    write_bytes(f"{path}.csv", guard_cells(frame).to_csv(index=False, lineterminator="\n"))
    write_bytes(f"{path}.md", markdown + "\n")
    write_bytes(f"{path}.tex", f"% {one_line(caption)}\n{latex}")
    return markdown


def format_number(value, form=None):
    """Format a table cell: whole numbers with thousands separators, others to three digits, None or NaN as a dash.

    >>> format_number(43824189), format_number(0.41234), format_number(None), format_number("LRU")
    ('43,824,189', '0.412', '–', 'LRU')
    >>> format_number(0.41234, "{:.1%}")
    '41.2%'
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return "–"
    if not _is_number(value):
        return str(value)
    if form:
        return form(value) if callable(form) else form.format(value)
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.3g}"


def _is_number(value):
    return hasattr(value, "__float__") and not isinstance(value, bool | str)
