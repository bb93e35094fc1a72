"""Read numbers from text: every number of a command line, a parameters file or a file of times comes through here."""

import re

_FORMS = {
    int: re.compile("-?[0-9]{1,30}"),
    float: re.compile(r"-?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|nan)", re.IGNORECASE | re.ASCII),
}


def read_number(text, kind):
    """Read a text as `kind` (int or float); one that does not fit stays text, for its reader to refuse by name.

    Only ASCII digits count, with a minus sign if any: no plus sign, no blanks, no underscores, no digits of other
    scripts, which Python's own `int` takes. A float is decimal, `1e-3` too; `inf` and `nan` are read to be refused.

    >>> [read_number(text, int) for text in ("16", "-1", "+5", " 16 ", "1_000", "１６")]
    [16, -1, '+5', ' 16 ', '1_000', '１６']
    >>> read_number("2.5e-3", float), read_number("0x10", float)
    (0.0025, '0x10')
    """
    return kind(text) if _FORMS[kind].fullmatch(text) else text
