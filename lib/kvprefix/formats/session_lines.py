"""Lines of requests that list block ids and belong to sessions: what the forms that follow Mooncake's share.

Their fields may have the names that Dynamo reads too: `input_tokens`, `output_tokens`, `created_time`, `delay_ms`.
"""

from typing import NamedTuple

import numpy as np

from kvprefix.conversations.times import LATEST_S
from kvprefix.files.arrow_lines import Fault
from kvprefix.files.checks import check_block_size
from kvprefix.files.jsonlines import show_value
from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.formats.documents import read_documents
from kvprefix.formats.values import MOST_TOKENS, is_id, is_length, is_stamp

_OTHER_NAMES = {
    "input_length": "input_tokens", "output_length": "output_tokens", "timestamp": "created_time", "delay": "delay_ms",
}  # fmt: skip


class Line(NamedTuple):
    """A request's line.

    Attributes
    ----------
    place : str
        File and line.
    record : dict
        The other fields.
    ids : ndarray of uint64, or list
    new_tokens, output_tokens : int
        `input_length` and `output_length`.
    """

    place: str
    record: dict
    ids: object
    new_tokens: int
    output_tokens: int


def read_session_lines(path, expected, head=lambda record: False):
    """Return the first line of a file, if it is no request, and the Lines of its requests.

    Parameters
    ----------
    path : path-like
        JSON Lines, plain, gzip or zstandard.
    expected : str
        What a line is, for messages.
    head : callable
        Whether the first object is no request, but tells of the file.

    Returns
    -------
    head : dict or None
    lines : list of Line

    Raises
    ------
    InputError
        A line that is no request, or none at all; file and line are named.
    """
    first, lines = None, []
    for document in read_documents(path, "hash_ids", expected):
        try:
            if document.fault:
                raise Fault(document.fault)
            if first is None and not lines and head(document.record):
                first = document.record
                continue
            lines.append(_make_line(document, expected))
        except Fault as fault:
            raise InputError(f"{document.place} {fault}") from None
    if not lines:
        raise InputError(f"{path}: holds no requests; {expected}")
    return first, lines


def _make_line(document, expected):
    record = document.record
    tokens, output, ids = take(record, "input_length"), take(record, "output_length"), record.get("hash_ids")
    if tokens is None or ids is None:
        missing = [name for name, one in (("input_length", tokens), ("hash_ids", ids)) if one is None]
        raise Fault(f"lacks {', '.join(missing)}; {expected}")
    for name, value in (("input_length", tokens), ("output_length", 0 if output is None else output)):
        if not is_length(value):
            said = f"expected a whole number of tokens, 0 or more ({MOST_TOKENS} at most)"
            raise Fault(f"has {name} {show_value(value)}; {said}")
    if not isinstance(ids, np.ndarray | list):
        raise Fault(f"has hash_ids {show_value(ids)}; expected a list of whole numbers or texts")
    strange = [] if isinstance(ids, np.ndarray) else [one for one in ids if not is_id(one)]
    if strange:
        raise Fault(f"has {show_value(strange[0])} among its hash_ids; expected whole numbers or texts")
    return Line(document.place, record, ids, tokens, output or 0)


def take(record, name):
    """Return a field by its name, or by the other one that it may have; None if it is missing or null."""
    value = record.get(name)
    return record.get(_OTHER_NAMES[name]) if value is None and name in _OTHER_NAMES else value


def take_time(line, name, least=-LATEST_S):
    """Return a field of milliseconds in seconds; None if it is missing or null."""
    value = take(line.record, name)
    if value is None:
        return None
    if not is_stamp(value) or not 1000 * least <= value <= 1000 * LATEST_S:
        said = "expected milliseconds, 0 or more" if least == 0 else "expected a number of milliseconds"
        raise InputError(f"{line.place} has {name} {show_value(value)}; {said}, none after the year 2100")
    return value / 1000


def find_block_size(lines, asked, usual, head=None):
    """Return the tokens per block: what the first line says, else what is asked for, else the form's usual ones."""
    said = (head or lines[0].record).get("block_size")
    if said is None:
        return usual if asked is None else check_block_size(asked)
    try:
        check_block_size(said)
    except InputError as error:
        raise InputError(f"{lines[0].place}: {error}") from error
    if asked not in (None, said):
        raise InputError(f"{lines[0].place} says that its blocks hold {said} tokens, and {asked} were given")
    return said


def check_count(line, block_size):
    """Raise InputError if a line does not list ceil(tokens / block_size) ids."""
    expected = -(-line.new_tokens // block_size)
    if len(line.ids) != expected:
        raise InputError(
            f"{line.place} lists {count(len(line.ids), 'block')} for input_length {line.new_tokens}; expected "
            f"{expected} of {block_size} tokens (give another size with --block-size, or to convert with "
            "--from-block-size)"
        )


def group_sessions(lines):
    """Return the positions of each session's lines, in the order of the file; a line of no session is its own."""
    sessions = {}
    for number, line in enumerate(lines):
        name = line.record.get("session_id")
        if name is not None and not is_id(name):
            raise InputError(f"{line.place} has session_id {show_value(name)}; expected a text or a whole number")
        sessions.setdefault((name,) if name is not None else number, []).append(number)
    return list(sessions.values())
