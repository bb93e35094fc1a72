"""All of a report as one article in two columns, in LaTeX and in Markdown: what a paper's floats look like in place."""

from kvprefix.files.escape import escape_markdown
from kvprefix.report.page.markdown import RENDER, explain_failure, list_failed, name_item, say_incomplete
from kvprefix.report.paper.floats import KINDS, name_float
from kvprefix.report.paper.latex import print_code, print_text
from kvprefix.report.paper.prose import write_prose
from kvprefix.report.tables import table_markdown

_PREAMBLE = r"""% Compile it in this folder: pdflatex all (twice), or `make paper NAME=...`. A paper takes single files:
% \input{numbers}, \input{fig-NAME}, \input{tab-NAME}.
\documentclass[10pt,twocolumn]{article}
\usepackage{array,booktabs,graphicx}
\usepackage[letterpaper,textwidth=7in,textheight=9in,columnsep=0.2in]{geometry}
\ifdefined\pdftrailerid \pdftrailerid{}\pdfsuppressptexinfo=-1 \pdfinfoomitdate=1 \fi % equal input, equal bytes
\extrafloats{500}\maxdeadcycles=1000 % there is little text between the floats
\makeatletter\def\fps@figure{!htbp}\def\fps@table{!htbp}
\@fptop=0pt\@dblfptop=0pt\@fpsep=20pt\@dblfpsep=20pt\makeatother
\renewcommand{\dbltopfraction}{0.95}\renewcommand{\dblfloatpagefraction}{0.6}\setcounter{dbltopnumber}{4}
\renewcommand{\floatpagefraction}{0.6}
\setlength{\emergencystretch}{3em}\raggedbottom
\renewcommand{\labelitemi}{$\bullet$}
\input{numbers}
\begin{document}"""


def write_article(title, sections, floats, headlines):
    r"""Return `all.tex`, which puts in every float of a report.

    Parameters
    ----------
    title : str
    sections : dict
        As `page.join.arrange` returns them.
    floats : set of str
        The names of the floats' files that there are.
    headlines : sequence of (str, str)
        The macros of `numbers.tex`, each with what it is.
    """
    parts = [_PREAMBLE, rf"\title{{{print_text(title)}}}\author{{}}\date{{}}", r"\maketitle"]
    if failed := list_failed(sections):
        parts.append(rf"\begin{{quote}}{write_prose(say_incomplete(failed))}\end{{quote}}")
    for name, section in sections.items():
        parts.append(rf"\section{{\raggedright {print_text(section['title'])}}}")
        if "failed" in section:
            parts.append(rf"\begin{{quote}}{write_prose(explain_failure(name, section))}\end{{quote}}")
        parts += [_write_item(item, floats) for item in section["items"]]
    parts += [*_list_macros(headlines), *_list_floats(sections, floats)]
    wide = [name_float(item, "page") for item in list_floats(sections)]
    put_in = [rf"\input{{{name}}}" for name in wide if name in floats]
    return "\n\n".join([*parts, r"\onecolumn\section{At the width of a page}", *put_in, r"\end{document}", ""])


def list_floats(sections):
    """Return the figures and tables of sections."""
    return [item for section in sections.values() for item in section["items"] if item["kind"] in KINDS]


def _write_item(item, floats):
    if item["kind"] in ("findings", "absent"):
        return write_prose(RENDER[item["kind"]](item))
    if item["kind"] == "text":
        head = [rf"\subsection*{{\raggedright {print_text(item['heading'])}}}"] if item["heading"] else []
        return "\n".join([*head, print_text(item["text"]) if item.get("plain") else write_prose(item["text"])])
    name = name_float(item)
    return rf"\input{{{name}}}" if name in floats else f"% {name}.tex is missing: make the report again"


def _list_macros(headlines):
    if not headlines:
        return []
    lines = [rf"{print_code(chr(92) + name)}: \{name}{{}}, {print_text(what)}\par" for name, what in headlines]
    return [r"\clearpage\section{Numbers as macros}", r"{\raggedright\small\parindent=0pt", *lines, "}"]


def _list_floats(sections, floats):
    lines = [
        rf"{item['kind'].capitalize()}~\ref{{{KINDS[item['kind']]}:{item['name']}}}: {print_code(name_float(item))}\par"
        for item in list_floats(sections) if name_float(item) in floats
    ]  # fmt: skip
    return [r"\section{Floats and their files}", r"{\raggedright\small\parindent=0pt", *lines, "}"] if lines else []


def write_markdown(title, sections):
    """Return `all.md`: texts, column drawings and narrow tables."""
    parts = [f"# {escape_markdown(title)}"]
    if failed := list_failed(sections):
        parts.append(f"> {say_incomplete(failed)}")
    for name, section in sections.items():
        parts.append(f"## {escape_markdown(section['title'])}")
        if "failed" in section:
            parts.append(f"> {explain_failure(name, section)}")
        for item in section["items"]:
            parts += _SHOW[item["kind"]](item) if item["kind"] in _SHOW else [RENDER[item["kind"]](item)]
    return "\n\n".join(parts) + "\n"


def _show_caption(item):
    return f"*{name_item(item)}.* {escape_markdown(item['caption'])}"


def _show_figure(item):
    return [f"![{escape_markdown(item['caption'])}]({item['name']}-column.png)", _show_caption(item)]


def _show_table(item):
    notes = map(escape_markdown, item["narrow"]["notes"])
    return [_show_caption(item), table_markdown(item["narrow"]), *notes]


_SHOW = {"figure": _show_figure, "table": _show_table}
