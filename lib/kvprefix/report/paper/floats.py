r"""A figure or a table as a float of LaTeX, ready to `\input`: caption, label, and what its preamble needs.

`fig-NAME.tex` and `tab-NAME.tex` fit a column, `*-page.tex` both columns of a page. Where a float goes is left to the
class.
"""

from kvprefix.files.escape import spell_unknown
from kvprefix.report.paper.latex import print_text
from kvprefix.report.paper.tabular import fit_table, line_height, write_tabular
from kvprefix.report.paper.widths import COLUMN_PT, PAGE_PT

PLACES = {"column": ("", r"\columnwidth", COLUMN_PT), "page": ("*", r"\textwidth", PAGE_PT)}
MOST_PT = 520  # a table's height; a longer one goes on in the next float
KINDS = {"figure": "fig", "table": "tab"}


def name_float(item, place="column"):
    """Return the name of a float's file without its suffix.

    >>> name_float({"kind": "figure", "name": "40-lru-curve"}), name_float({"kind": "table", "name": "a"}, "page")
    ('fig-40-lru-curve', 'tab-a-page')
    """
    return f"{KINDS[item['kind']]}-{item['name']}{'' if place == 'column' else '-page'}"


def write_figure(item, place="column"):
    """Return a figure's float: the drawing that was made for this width."""
    star, width, _ = PLACES[place]
    return "\n".join([
        r"% needs \usepackage{graphicx}; from another folder also \graphicspath{{path/to/this/folder/}}",
        rf"\begin{{figure{star}}}", r"\centering",
        rf"\includegraphics[width={width}]{{{item['name']}-{place}}}",
        *_write_caption(item, place), rf"\end{{figure{star}}}", "",
    ])  # fmt: skip


def write_table(item, place="column"):
    """Return a table's float, or several if it is long: its narrow form in a column, the whole table on a page."""
    star, width, points = PLACES[place]
    table = item["narrow"] if place == "column" else item
    head, *spelt = ([spell_unknown(cell) for cell in row] for row in [table["head"], *table["rows"]])
    layout = fit_table(head, spelt, table["numeric"], points)
    parts = [r"% needs \usepackage{array,booktabs}" + ("" if layout.fits else r" and \usepackage{graphicx}")]
    for number, rows in enumerate(_cut(spelt, layout)):
        parts += [
            rf"\begin{{table{star}}}", *([r"\addtocounter{table}{-1}"] if number else []),
            *_write_caption(item, place, number), r"\par\smallskip\centering",
            *write_tabular(layout, rows, table["numeric"], width),
            *_write_notes(table.get("notes", [])), rf"\end{{table{star}}}",
        ]  # fmt: skip
    return "\n".join([*parts, ""])


def _write_caption(item, place, number=0):
    if number:
        return [r"\caption{(continued)}"]
    label = f"{KINDS[item['kind']]}:{item['name']}{'' if place == 'column' else '-page'}"
    return [rf"\caption{{{print_text(item['caption'])}}}", rf"\label{{{label}}}"]


def _write_notes(notes):
    if not notes:
        return []
    return [r"\par\smallskip\raggedright\scriptsize", *(rf"{print_text(note)}\par" for note in notes)]


def _cut(rows, layout):
    """Cut rows into parts that each fit a page; there is always one."""
    parts, height = [[]], 0
    for row, lines in zip(rows, layout.count_lines(rows), strict=True):
        points = (lines + 0.05) * line_height(layout)
        if parts[-1] and height + points > MOST_PT:
            parts, height = [*parts, []], 0
        parts[-1].append(row)
        height += points
    return parts
