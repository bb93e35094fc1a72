"""What a notebook says, which is Markdown, as LaTeX."""

from markdown_it import MarkdownIt

from kvprefix.files.escape import spell_unknown
from kvprefix.report.paper.latex import print_code, print_text
from kvprefix.report.paper.tabular import fit_table, write_tabular
from kvprefix.report.paper.widths import COLUMN_PT

_READER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_MARKS = {
    "em_open": r"\emph{", "em_close": "}", "strong_open": r"\textbf{", "strong_close": "}", "softbreak": " ",
    "hardbreak": r"\newline ", "s_open": "", "s_close": "", "link_open": "", "link_close": "",
    "bullet_list_open": "\\begin{itemize}\n", "bullet_list_close": "\\end{itemize}\n\n",
    "ordered_list_open": "\\begin{enumerate}\n", "ordered_list_close": "\\end{enumerate}\n\n",
    "list_item_open": r"\item ", "list_item_close": "\n", "paragraph_open": "", "paragraph_close": "\n\n",
    "blockquote_open": "\\begin{quote}\n", "blockquote_close": "\\end{quote}\n\n", "hr": "\\medskip\n\n",
    "heading_open": r"\paragraph{", "heading_close": "}\n\n",
}  # fmt: skip
_LINES = ("code_block", "fence")


def write_prose(markdown):
    r"""Return Markdown as LaTeX.

    >>> print(write_prose("The rate is **62.2 %**, see `a_b`."))
    The rate is \textbf{62.2\,\%}, see \texttt{a\_b}.
    """
    tokens, parts, k = _READER.parse(markdown), [], 0
    while k < len(tokens):
        if tokens[k].type == "table_open":
            last = next(j for j in range(k, len(tokens)) if tokens[j].type == "table_close")
            parts.append(_write_grid(tokens[k:last]))
            k = last
        elif tokens[k].type in _LINES:
            lines = (rf"\noindent{print_code(line)}\par" for line in tokens[k].content.splitlines())
            parts.append("\n".join([*lines, "\n"]))
        else:
            parts.append(_write_token(tokens[k]))
        k += 1
    return "".join(parts).strip()


def _write_token(token):
    if token.type == "inline":
        return _join(token.children or [])
    return _MARKS[token.type]


def _join(tokens):
    """Return inline tokens as LaTeX; neighbouring texts are one, so that an escape of Markdown parts no word."""
    parts, text = [], ""
    for token in tokens:
        if token.type in ("text", "text_special", "image"):
            text += token.content
            continue
        parts.append(_print_inside(text))
        text = ""
        parts.append(print_code(token.content) if token.type == "code_inline" else _MARKS[token.type])
    return "".join([*parts, _print_inside(text)])


def _print_inside(text):
    """Return a text within a line: spaces at its ends stay."""
    before, after = (" " * (text != text.lstrip() and bool(text.strip()))), " " * (text != text.rstrip())
    return f"{before}{print_text(text)}{after}"


def _write_grid(tokens):
    cells = [
        spell_unknown("".join(child.content for child in tokens[k + 1].children or []))
        for k, token in enumerate(tokens) if token.type in ("th_open", "td_open")
    ]  # fmt: skip
    wide = sum(token.type == "th_open" for token in tokens)
    head, *rows = (cells[k : k + wide] for k in range(0, len(cells), wide))
    numeric = ["right" in str(token.attrs.get("style", "")) for token in tokens if token.type == "th_open"]
    layout = fit_table(head, rows, numeric, COLUMN_PT)
    size, *body = write_tabular(layout, rows, numeric, r"\columnwidth")
    return "\n".join([rf"\par\medskip{{{size}\noindent", *body, r"\par}\medskip", "\n"])
