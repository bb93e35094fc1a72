"""Guard the text cells of CSV files that a spreadsheet would run as formulas.

A CSV file cannot say that a cell is text: a spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a
line break. Names from the data (`conversation_id`) may begin so. By default they are written as they are, so that
programs read back the same; if the switch is on, such a cell begins with an apostrophe. Either way a carriage return
becomes a newline, because only a newline is quoted, and a bare carriage return would begin a row.
"""

import os

from kvprefix.files.environment import variable_set
from kvprefix.files.paths import InputError

VARIABLE = "KVPREFIX_CSV_SAFE"  # environment variable, so that notebooks see it too: true or false
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their full-width forms


def guard_cells(frame):
    """Return a frame to write as CSV: carriage returns replaced and, if the switch is on, formulas guarded.

    >>> import pandas as pd
    >>> with guarding(True):
    ...     guard_cells(pd.DataFrame({"name": ["=1+1", "a"], "value": [-1, 2]})).to_csv(index=False)
    "name,value\\n'=1+1,-1\\na,2\\n"
    """
    guarded, is_on = frame.copy(deep=False), is_guarding()
    for k, kind in enumerate(frame.dtypes):
        if kind.kind == "O":
            cells = frame.iloc[:, k].tolist()
            if not is_on and "\r" not in "".join(cell for cell in cells if isinstance(cell, str)):
                continue  # as most columns are
            cells = [_guard(cell, is_on) if isinstance(cell, str) else cell for cell in cells]
            import numpy as np

            guarded.isetitem(k, np.array([*cells, None], object)[:-1])
    return guarded


def _guard(text, is_on):
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if is_on and text.startswith(_FORMULA) else text


def unguard_cells(column):
    """Return a column of texts without the apostrophe that the switch puts before a formula.

    >>> import pandas as pd
    >>> unguard_cells(pd.Series(["'=1+1", "'a", "a"])).tolist()
    ['=1+1', "'a", 'a']
    """
    is_guarded = column.str.startswith(tuple(f"'{first}" for first in _FORMULA))
    return column.where(~is_guarded, column.str.slice(1))


def is_guarding():
    """Say whether the switch is on."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() not in ("", "true", "1", "false", "0"):
        raise InputError(f"{VARIABLE} is {given!r}; expected true or false")
    return given.lower() in ("true", "1")


def guarding(is_on):
    """Turn the switch on for this process and those that it starts if `is_on`; else leave it."""
    return variable_set(VARIABLE, "true" if is_on else None)
