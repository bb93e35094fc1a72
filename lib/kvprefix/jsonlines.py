"""Read and write JSON Lines, plain or gzip or zstandard: streams, numbered lines, an object a line.

What the objects mean is not known here. A line ends at a newline byte, and nowhere else.
"""

import contextlib
import gzip
import io
import json
import os
from pathlib import Path

import pyarrow as pa

from kvprefix.files import InputError, atomic_path
from kvprefix.progress import show_progress


def find_compression(magic):
    """Return what a file that begins with these bytes is compressed with: `gzip`, `zstd` or None.

    >>> find_compression(b"{}")
    """
    return "gzip" if magic[:2] == b"\x1f\x8b" else "zstd" if magic[:4] == b"\x28\xb5\x2f\xfd" else None


def read_magic(path):
    """Return a file's first four bytes; they tell what it is."""
    if Path(path).is_fifo():
        raise InputError(f"{path}: is a pipe, which cannot be read twice; write it to a file first")
    with open(path, "rb") as file:
        return file.read(4)


def open_stream(path):
    """Open a file for reading, decompressed; what it is compressed with is found by content, not by name."""
    return pa.input_stream(str(path), compression=find_compression(read_magic(path)))


def number_lines(path):
    """Yield (1-based number, line) of the lines that are not blank."""
    with open_stream(path) as stream, io.BufferedReader(stream) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def read_objects(path, expected, *, progress=True):
    """Yield (1-based number, object) of the lines that are not blank, with a progress bar.

    Parameters
    ----------
    path : path-like
    expected : str
        What a line should be, for messages: "a line is {...}".

    Raises
    ------
    InputError
        Naming the line that is no JSON object, or the last one before the file is cut or damaged.
    """
    with open_stream(path) as stream, io.BufferedReader(stream) as file:
        size = None if isinstance(stream, pa.CompressedInputStream) else os.path.getsize(path)
        number, lines = 0, enumerate(file, start=1)
        with show_progress(size, f"reading {Path(path).name}", "B", shown=progress) as bar:
            while True:
                try:
                    number, line = next(lines, (number, None))
                except OSError as error:
                    raise InputError(f"{path}: is cut or damaged after line {number}: {error}") from error
                if line is None:
                    return
                bar.update(len(line))
                if line.strip():
                    record, fault = parse_object(line, expected)
                    if fault:
                        raise InputError(f"{path}: line {number} {fault}")
                    yield number, record


def read_first(path):
    """Return the object on the first line that is not blank; None where that is none."""
    with contextlib.closing(number_lines(path)) as lines:
        for _, line in lines:
            return parse_object(line, "")[0]


def parse_object(line, expected):
    """Return a line's object, and what is wrong with it (None if nothing is)."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        return None, f"is not JSON ({reason}); {expected}"
    if not isinstance(record, dict):
        return None, f"is no JSON object; {expected}"
    return record, None


def is_whole(value):
    """Say whether a JSON value is a whole number of at most 64 bits, signed."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def show_value(value):
    """Return a JSON value as a message shows it: cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def count(n, noun, plural=None):
    """Return a number with its noun.

    >>> count(1, "request"), count(2000, "request"), count(0, "reply", "replies")
    ('1 request', '2,000 requests', '0 replies')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


@contextlib.contextmanager
def write_lines(path):
    """Open a binary file to be written whole or not at all; compressed where its name ends in `.gz` or `.zst`.

    Equal content gives equal bytes.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        if Path(path).suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
                yield packed
        elif Path(path).suffix == ".zst":
            with pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as packed:
                yield packed
        else:
            yield file
