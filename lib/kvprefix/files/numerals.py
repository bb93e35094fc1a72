"""Read numbers from text: those of the command line, of parameters files and of files of times."""

import re

_FORMS = {
    int: re.compile("-?[0-9]{1,30}"),
    float: re.compile(r"-?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|nan)", re.IGNORECASE | re.ASCII),
}


def read_number(text, kind):
    """Read a text as `kind` (int or float); a text that does not fit is returned as it is, for the caller to refuse.

    Only ASCII digits and a minus sign count. Python's own `int` takes more: a plus sign, blanks, underscores, digits of
    other scripts. A float is decimal, as `2.5` or `1e-3`; `inf` and `nan` are read, to be refused.

    >>> [read_number(text, int) for text in ("16", "-1", "+5", " 16 ", "1_000", "１６")]
    [16, -1, '+5', ' 16 ', '1_000', '１６']
    >>> read_number("2.5e-3", float), read_number("0x10", float)
    (0.0025, '0x10')
    """
    return kind(text) if _FORMS[kind].fullmatch(text) else text
