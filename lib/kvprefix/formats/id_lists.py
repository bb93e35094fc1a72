"""Take the lists of block ids out of JSON text with a compiled scan, so that a JSON parser sees the rest alone.

Such a text is nearly all ids. Each list of whole numbers from 0 to below 2**64 leaves a list with its length in its
place; any other list stays as it is.
"""

import numpy as np
from numba import njit

_QUOTE, _ESCAPE, _COLON, _COMMA, _OPEN, _CLOSE, _ZERO, _NINE = b'"\\:,[]09'
_SPACE, _TAB, _LINE, _RETURN = b" \t\n\r"
_MOST_TENTH, _MOST_LAST = np.uint64((2**64 - 1) // 10), np.uint64((2**64 - 1) % 10)


def take_ids(text, key):
    """Take the lists under a key out of a JSON text.

    Parameters
    ----------
    text : bytes
        One or more JSON values. What is no JSON is left to who parses the rest.
    key : str
        Of the lists, at any depth.

    Returns
    -------
    rest : bytes
        The text with ``[length]`` in the place of each list that was taken.
    ids : (total,) ndarray of uint64
        The lists' numbers, list after list.

    Examples
    --------
    >>> take_ids(b'[{"ids": [7, 8]}, {"ids": ["x"]}]', "ids")
    (b'[{"ids": [2]}, {"ids": ["x"]}]', array([7, 8], dtype=uint64))
    """
    given = np.frombuffer(text + b" ", np.uint8)  # a list is never the last byte
    longer = len(given) // (len(key) + 5)  # an empty list becomes [0], a byte longer
    rest, ids = np.empty(len(given) + longer + 1, np.uint8), np.empty(len(given) // 2 + 1, np.uint64)
    n_rest, n_ids = _take(given, np.frombuffer(key.encode(), np.uint8), rest, ids)
    return rest[: n_rest - 1].tobytes(), ids[:n_ids].copy()


def is_taken(value):
    """Say whether a JSON value stands for a list that was taken: it is ``[length]``."""
    return isinstance(value, list) and len(value) == 1 and type(value[0]) is int and 0 <= value[0] < 2**62


@njit(cache=True, nogil=True)
def _take(text, key, rest, ids):
    at, n_rest, n_ids = 0, 0, 0
    while at < len(text):
        start = at
        if text[at] == _QUOTE:
            at = _end_string(text, at)
        else:
            at += 1
        rest[n_rest : n_rest + at - start] = text[start:at]
        n_rest += at - start
        if at - start != len(key) + 2 or not _is_same(text, start + 1, key):
            continue
        opened = _skip_blanks(text, at)
        opened = _skip_blanks(text, opened + 1) if text[opened] == _COLON else at
        if text[opened] != _OPEN:
            continue
        after, total = _scan_list(text, opened, ids, n_ids)
        if after < 0:
            continue
        rest[n_rest : n_rest + opened - at] = text[at:opened]
        n_rest = _write_length(rest, n_rest + opened - at, total - n_ids)
        at, n_ids = after, total
    return n_rest, n_ids


@njit(cache=True, nogil=True)
def _end_string(text, at):
    """Return the place after the string that begins here, or the text's end."""
    at += 1
    while at < len(text) and text[at] != _QUOTE:
        at += 2 if text[at] == _ESCAPE else 1
    return min(at + 1, len(text))


@njit(cache=True, nogil=True)
def _is_same(text, at, key):
    same = 0
    while same < len(key) and text[at + same] == key[same]:
        same += 1
    return same == len(key)


@njit(cache=True, nogil=True)
def _skip_blanks(text, at):
    last = len(text) - 1
    while at < last and (text[at] == _SPACE or text[at] == _TAB or text[at] == _LINE or text[at] == _RETURN):
        at += 1
    return min(at, last)


@njit(cache=True, nogil=True)
def _scan_list(text, at, ids, total):
    """Append a list's numbers; return the place after it and how many there are, or -1 if it is not plain."""
    at = _skip_blanks(text, at + 1)
    if text[at] == _CLOSE:
        return at + 1, total
    while True:
        start, value = at, np.uint64(0)
        while _ZERO <= text[at] <= _NINE:
            digit = np.uint64(text[at] - _ZERO)
            if value > _MOST_TENTH or (value == _MOST_TENTH and digit > _MOST_LAST):
                return -1, total
            value = value * np.uint64(10) + digit
            at += 1
        if at == start or (text[start] == _ZERO and at - start > 1):
            return -1, total
        ids[total] = value
        total += 1
        at = _skip_blanks(text, at)
        if text[at] == _CLOSE:
            return at + 1, total
        if text[at] != _COMMA:
            return -1, total
        at = _skip_blanks(text, at + 1)


@njit(cache=True, nogil=True)
def _write_length(rest, at, length):
    digits = 1
    while 10**digits <= length:
        digits += 1
    rest[at], rest[at + digits + 1] = _OPEN, _CLOSE
    for k in range(digits, 0, -1):
        rest[at + k] = _ZERO + length % 10
        length //= 10
    return at + digits + 2
