r"""Plain text as LaTeX prints it in a narrow column: escaped, with units that stay with their numbers.

A long name, path or checksum may break: `\allowbreak` stands where.
"""

import re

from kvprefix.files.escape import escape_latex, spell_unknown

MOST_LETTERS = 16  # of a piece that does not break
_PIECES = re.compile(rf"[^_/.:=,@-]{{1,{MOST_LETTERS}}}[_/.:=,@-]{{0,4}}|[_/.:=,@-]{{1,4}}")
_UNIT = re.compile(r"(?<=\d) (?=\\%|/s\b|(?:GiB|KiB|MiB|ms|s|min|h)\b)")  # a unit stays with its number
_IN_CODE = {r"\textbackslash{}": 92, r"\{": 123, r"\}": 125, r"\textless{}": 60, r"\textgreater{}": 62,
            r"\textbar{}": 124}  # typewriter type has these marks itself


def split_word(word):
    """Return the pieces of a word between which a line may break.

    >>> split_word("two-column"), split_word("ShareGPT_V3_unfiltered_cleaned_split.json")
    (['two-column'], ['ShareGPT_', 'V3_', 'unfiltered_', 'cleaned_', 'split.', 'json'])
    """
    return [word] if len(word) <= MOST_LETTERS else _PIECES.findall(word)


def print_text(text):
    r"""Return plain text as LaTeX.

    >>> print(print_text('"62.2 %" of −0.5 s'))
    ``62.2\,\%'' of $-$0.5\,s
    """
    line = re.sub(r'"(?=\w)(?<![\w.,;:!?)%]")', "“", spell_unknown(text)).replace('"', "”")
    words = (r"\allowbreak{}".join(map(escape_latex, split_word(word))) for word in line.split(" "))
    first, *more = (word.replace("{}[", "[").replace("{}*", "*") for word in words)
    guard = "{}" if first[:1] in ("[", "*") else ""
    return guard + _UNIT.sub(r"\\,", " ".join([first, *more]))


def print_code(text):
    r"""Return text as LaTeX's typewriter type.

    >>> print(print_code("a_b"))
    \texttt{a\_b}
    """
    printed = print_text(text)
    for command, number in _IN_CODE.items():
        printed = printed.replace(command, rf"\char{number}{{}}")
    return rf"\texttt{{{printed}}}"
