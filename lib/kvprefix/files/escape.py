"""Escape text from outside (data, file names, templates, servers) for terminals, Markdown, LaTeX and figures.

`report.page` makes HTML of plain text and of Markdown, and escapes it there.
"""

import itertools
import re
import unicodedata

from kvprefix.files.latex_characters import print_character

_MARKDOWN = re.compile(
    r"[\\`\[\]|~$]"  # code, links and images, table cells, strike-through, mathematics
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis, but not within a word
    r"|\*(?!\s)|(?<!\s)\*"
    r"|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])"  # HTML and its entities
    r"|^(?:[-+](?=\s|$|-)|[#>=])"  # marks of a list, a heading, a rule or a quotation
)
_MARKDOWN_NUMBER = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
# Control characters, line separators, bidirectional controls, invisible marks, half surrogates
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def plain_text(text):
    r"""Return a text as one line that a terminal shows and never obeys; every message of the library is such a line.

    Control characters (C0, DEL, C1: line breaks and escape sequences too), line and paragraph separators, bidirectional
    controls, invisible marks and half surrogates become their escapes. All other Unicode stays.

    >>> print(plain_text("naïve\x1b[2J\n日本\u202e"))
    naïve\x1b[2J\n日本\u202e
    """
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], str(text))


def one_line(text, most=None):
    r"""Return a text on one line, without control characters; cut after `most` characters, with an ellipsis.

    >>> one_line("a\r\n\n  b\x1b[31m\u2028c"), one_line("abcdef", 3)
    ('a b [31m c', 'abc…')
    """
    line = " ".join(_UNSEEN.sub(" ", str(text)).split())
    return line if most is None or len(line) <= most else f"{line[:most]}…"


def escape_markdown(text):
    r"""Return text so that Markdown shows it as it is, on one line, in a sentence or a table cell.

    >>> print(escape_markdown("![x](/etc/hostname)\n# <b>a_b</b> | 5 * 3 & 2"))
    !\[x\](/etc/hostname) # \<b>a_b\</b> \| 5 * 3 & 2
    """
    escaped = _MARKDOWN.sub(lambda match: f"\\{match[0]}", one_line(text))
    return _MARKDOWN_NUMBER.sub(r"\1\\\2", escaped)


def code_markdown(text):
    r"""Return text as a Markdown code span: literal, on one line, between more backticks than it holds in a row.

    >>> print(code_markdown("a`b"), code_markdown("chats.jsonl"))
    `` a`b `` `chats.jsonl`
    """
    line = one_line(text)
    if "`" not in line:
        return f"`{line}`" if line else ""
    fence = "`" * (1 + max(map(len, re.findall("`+", line))))
    return f"{fence} {line} {fence}"


def escape_latex(text):
    r"""Return text so that LaTeX prints it as it is, in a table cell too (`[` and `*` after a row are options there).

    The result is ASCII. What pdfLaTeX has no letter for, as of Chinese or emoji, is shown by its number in Unicode.

    >>> print(escape_latex("50 % of a_b\n\\input{x} <$>"), escape_latex("[x]"))
    50 \% of a\_b \textbackslash{}input\{x\} \textless{}\$\textgreater{} {}[x]
    >>> print(escape_latex("−0.5 ≥ x², naïve --all 中文"))
    $-$0.5 $\geq$ x$^{2}$, na\"{\i}ve -{}-all [U+4E2D U+6587]
    """
    printed = _keep_apart(map(print_character, spell_unknown(text)))
    return f"{{}}{printed}" if printed[:1] in ("[", "*") else printed


def spell_unknown(text):
    """Return text on one line in which what pdfLaTeX has no letter for is spelt by its number in Unicode.

    >>> spell_unknown("naïve 中文 ≥")
    'naïve [U+4E2D U+6587] ≥'
    """
    line = unicodedata.normalize("NFC", one_line(text))
    runs = itertools.groupby(line, lambda character: print_character(character) is None)
    spelt = (
        f"[{' '.join(f'U+{ord(one):04X}' for one in run)}]" if is_unknown else "".join(run) for is_unknown, run in runs
    )
    return "".join(spelt)


def _keep_apart(parts):
    """Join parts; an empty group stands between two marks that TeX would join to another one, as two hyphens."""
    joined = ""
    for part in parts:
        meet = joined[-1:] + part[:1]
        joined += f"{{}}{part}" if meet in ("--", "''", "``", ",,", "?`", "!`") else part
    return joined


def plain_label(text):
    r"""Return text so that Matplotlib draws it as it is: two dollar signs would begin and end a formula.

    >>> print(plain_label("$x$"))
    \$x\$
    """
    return one_line(text).replace("$", r"\$")
