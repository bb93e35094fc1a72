"""Checks of what a user gave: each returns the value, or raises InputError with what would be right.

A message is `NAME is VALUE; expected EXPECTED`. `shown` replaces the value if the user wrote something else.
"""

from numbers import Integral, Real

from kvprefix.files.paths import InputError

_BOUNDS = " to ", "below", "up to", "at most"  # with one of these a message says what is too much


def check_whole(value, name, expected, *, least=1, most=2**31 - 1, shown=None):
    """Return a whole number from `least` to `most` as an int; refuse true and false.

    `expected` may leave out how much is too much: one that is says it.

    >>> check_whole(16, "block size", "a whole number of tokens")
    16
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if is_whole and value > most and not any(word in expected for word in _BOUNDS):
        expected = f"{expected}, up to {most:,}"
    if not is_whole or not least <= value <= most:
        refuse(value, name, expected, shown)
    return int(value)


def check_number(value, name, expected, *, least=0.0, most=float("inf"), shown=None):
    """Return a finite number from `least` to `most`; refuse true and false."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not (least <= value <= most and abs(value) < float("inf")):
        refuse(value, name, expected, shown)
    return value


def check_share(value, name, expected):
    """Return a number that is 0 or more and below 1."""
    check_number(value, name, expected, most=1)
    return value if value < 1 else refuse(value, name, expected)


def check_choice(value, name, choices, say="known: {}"):
    """Return a value that is among the choices; `say` is the message's text for them.

    >>> check_choice("lru", "policy", ("lru", "opt"))
    'lru'
    """
    if value not in choices:
        raise InputError(f"{name} is {value!r}; {say.format(', '.join(map(str, choices)))}")
    return value


def check_block_size(block_size):
    """Return a block size that is a whole number of tokens above 0."""
    return check_whole(block_size, "block size", "a whole number of tokens, 1 or more (below 2**31)")


def find_wrong_ids(values):
    """Return the JSON values that are no token ids, which are whole numbers from 0 to 2**31 - 1.

    >>> find_wrong_ids([0, 5, -1, True, 2**31, 1.0])
    [-1, True, 2147483648, 1.0]
    """
    return [one for one in values if type(one) is not int or not 0 <= one < 2**31]


def check_type(value, kind, name):
    """Return a value if it is of a type, or raise InputError.

    >>> check_type([1], tuple, "pairs")
    Traceback (most recent call last):
    kvprefix.files.paths.InputError: pairs is a list; expected a tuple
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} is a {type(value).__name__}; expected a {kind.__name__}")
    return value


def refuse(value, name, expected, shown=None):
    """Raise the InputError of all these checks."""
    raise InputError(f"{name} is {repr(value) if shown is None else shown}; expected {expected}")
