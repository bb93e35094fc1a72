"""Checks of what a user gave: each returns the value as it is used, or raises InputError with what would be right."""

import numpy as np

from kvprefix.files.paths import InputError


def check_block_size(block_size):
    """Return a block size that is a whole number of tokens above 0, or raise InputError."""
    if isinstance(block_size, bool) or not isinstance(block_size, int | np.integer) or not 1 <= block_size < 2**31:
        raise InputError(f"block size is {block_size!r}; expected a whole number of tokens, 1 or more (below 2**31)")
    return int(block_size)


def find_wrong_ids(values):
    """Return those of some JSON values that are no token ids: no whole numbers of 31 bits.

    >>> find_wrong_ids([0, 5, -1, True, 2**31, 1.0])
    [-1, True, 2147483648, 1.0]
    """
    return [one for one in values if type(one) is not int or not 0 <= one < 2**31]


def check_type(value, kind, name):
    """Return a value of a type, or raise InputError.

    >>> check_type([1], tuple, "pairs")
    Traceback (most recent call last):
    kvprefix.files.paths.InputError: pairs is a list; expected a tuple
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} is a {type(value).__name__}; expected a {kind.__name__}")
    return value
