"""Scan the plain case of JSON Lines that list block ids with a compiled loop, several times as fast as a JSON parser.

Plain is a line that holds one object, of ASCII keys without escapes, whole numbers of up to 18 digits and `hash_ids`, a
list of them. At anything else the scan gives up: other readers then read the file, or say what is wrong with it.
"""

import numpy as np
from numba import njit

from kvprefix.files.jsonlines import open_stream

_AT_ONCE = 1 << 20  # bytes
_SPACE, _TAB, _LINE, _RETURN, _QUOTE, _ESCAPE, _COLON, _COMMA, _MINUS = b' \t\n\r"\\:,-'
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST, _ZERO, _NINE = b"{}[]09"
_GAVE_UP = -1


def scan_lines(path, names, refused):
    """Scan a file.

    Parameters
    ----------
    path : path-like
        Plain, gzip or zstandard.
    names : sequence of str
        The whole numbers that every line has, beside `hash_ids`.
    refused : sequence of str
        Keys that no plain line has.

    Returns
    -------
    columns : (n_lines, n_names) ndarray of int64
    blocks : (n_lines,) ndarray of int64
        How many ids each line lists.
    ids : (total,) ndarray of int64
        None instead of all three if a line is not plain, or if there is none.
    """
    words = [name.encode() for name in (*names, "hash_ids", *refused)]
    keys = np.frombuffer(b"".join(words), np.uint8), np.cumsum([0, *map(len, words)])
    found = []
    try:
        for text in _read_texts(path):
            most = np.count_nonzero(text == _LINE)
            columns, blocks = np.empty((most, len(names)), np.int64), np.empty(most, np.int64)
            ids = np.empty(len(text) // 2 + 1, np.int64)
            n, total = _scan(text, *keys, columns, blocks, ids)
            if n == _GAVE_UP:
                return None
            found.append((columns[:n], blocks[:n], ids[:total].copy()))
    except OSError:  # a cut or damaged file
        return None
    return tuple(map(np.concatenate, zip(*found, strict=True))) if any(len(part[1]) for part in found) else None


def _read_texts(path):
    """Yield a file's bytes, some whole lines at a time; the last line ends with a newline too."""
    rest = b""
    with open_stream(path) as stream:
        while data := stream.read(_AT_ONCE):
            whole, newline, after = data.rpartition(b"\n")
            if newline:
                yield np.frombuffer(rest + whole + newline, np.uint8)
                rest = after
            else:
                rest += data
    yield np.frombuffer(rest + b"\n", np.uint8)


@njit(cache=True, nogil=True)
def _scan(text, keys, bounds, columns, blocks, ids):
    """Fill the arrays with what the lines hold; return how many lines and ids there are."""
    n, total, at = 0, 0, 0
    while at < len(text):
        at = _skip_blanks(text, at)
        if text[at] != _LINE:
            before = total
            at, total = _scan_object(text, at, keys, bounds, columns[n], ids, total)
            if at == _GAVE_UP:
                return at, at
            blocks[n] = total - before
            n += 1
            at = _skip_blanks(text, at)
            if text[at] != _LINE:
                return _GAVE_UP, _GAVE_UP
        at += 1
    return n, total


@njit(cache=True, nogil=True)
def _scan_object(text, at, keys, bounds, row, ids, total):
    """Return the place after an object and the number of ids so far; every wanted key must come once."""
    has_list, seen, needed = len(row), 0, (1 << (len(row) + 1)) - 1
    mark = _OPEN
    while text[at] == mark:
        key, at = _scan_key(text, _skip_blanks(text, at + 1), keys, bounds)
        if at == _GAVE_UP or key > has_list or (key >= 0 and seen >> key & 1):
            return _GAVE_UP, total
        seen |= 1 << key if key >= 0 else 0
        if key == has_list:
            at, total = _scan_list(text, at, ids, total)
        else:
            value, at = _scan_whole(text, at)
            if key >= 0:
                row[key] = value
        if at == _GAVE_UP:
            return at, total
        at, mark = _skip_blanks(text, at), _COMMA
    return (at + 1 if text[at] == _CLOSE and seen == needed else _GAVE_UP), total


@njit(cache=True, nogil=True)
def _scan_key(text, at, keys, bounds):
    """Return a key's number, -1 for any other key, and the place of its value."""
    start, at = at + 1, at + 1
    if text[start - 1] != _QUOTE:
        return -1, _GAVE_UP
    while text[at] != _QUOTE:
        if text[at] < _SPACE or text[at] > 126 or text[at] == _ESCAPE:
            return -1, _GAVE_UP
        at += 1
    found = -1
    for k in range(len(bounds) - 1):
        length = bounds[k + 1] - bounds[k]
        if length == at - start:
            same = 0
            while same < length and keys[bounds[k] + same] == text[start + same]:
                same += 1
            if same == length:
                found = k
    at = _skip_blanks(text, at + 1)
    return found, _skip_blanks(text, at + 1) if text[at] == _COLON else _GAVE_UP


@njit(cache=True, nogil=True)
def _scan_list(text, at, ids, total):
    """Append a list's numbers to `ids`; return the place after it and the number of ids so far."""
    if text[at] != _OPEN_LIST:
        return _GAVE_UP, total
    at = _skip_blanks(text, at + 1)
    if text[at] == _CLOSE_LIST:
        return at + 1, total
    while True:
        ids[total], at = _scan_whole(text, at)
        if at == _GAVE_UP:
            return at, total
        total, at = total + 1, _skip_blanks(text, at)
        if text[at] == _CLOSE_LIST:
            return at + 1, total
        if text[at] != _COMMA:
            return _GAVE_UP, total
        at = _skip_blanks(text, at + 1)


@njit(cache=True, nogil=True)
def _scan_whole(text, at):
    """Return a whole number and the place after it. What may follow it, its reader checks."""
    negative = text[at] == _MINUS
    at += negative
    start, value = at, 0
    while _ZERO <= text[at] <= _NINE:
        value = 10 * value + (text[at] - _ZERO)
        at += 1
    if not 1 <= at - start <= 18 or (text[start] == _ZERO and at - start > 1):
        return 0, _GAVE_UP
    return (-value if negative else value), at


@njit(cache=True, nogil=True)
def _skip_blanks(text, at):
    while text[at] == _SPACE or text[at] == _TAB or text[at] == _RETURN:
        at += 1
    return at
