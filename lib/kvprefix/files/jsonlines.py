"""Read and write JSON Lines, plain, gzip or zstandard: streams, numbered lines, one object per line.

It does not know what the objects mean. A line ends at a newline byte, and nowhere else.
"""

import contextlib
import gzip
import io
import json
import os
from pathlib import Path

import pyarrow as pa

from kvprefix.files.paths import InputError, atomic_path, check_input_file
from kvprefix.files.progress import show_progress

_scan = json.JSONDecoder().scan_once
MOST_BYTES = 2**27  # of a line or a record, decompressed; a longer one is refused, not read into memory
# Files that are no JSON: first bytes, kind, advice. UTF-16 shows by its mark, or by "{" or "[".
_OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"PK\x05\x06", "an empty zip archive", "give a file of JSON"),
    (b"BZh", "compressed with bzip2", "unpack it first"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!\x1a\x07", "a rar archive", "unpack it first"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it first"),
    (b"\x1f\x8b", "compressed twice", "unpack it once first"),
    (b"\x28\xb5\x2f\xfd", "compressed twice", "unpack it once first"),
    (b"PAR1", "Parquet", "write it as JSON Lines first"),
    (b"ARROW1", "an Arrow file", "write it as JSON Lines first"),
    (b"SQLite format 3\x00", "an SQLite database", "write it as JSON Lines first"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file that it stands for first"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "write it as UTF-8 first"),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "write it as UTF-8 first"),
    *((mark, "UTF-16 text", "write it as UTF-8 first") for mark in (b"\xff\xfe", b"\xfe\xff", b"{\0", b"[\0", b"\0{")),
    (b"\0[", "UTF-16 text", "write it as UTF-8 first"),
)


def find_compression(magic):
    """Return the compression of a file that begins with these four bytes: `gzip`, `zstd` or None.

    A zstandard file may begin with a skippable frame.

    >>> find_compression(b"{}")
    """
    is_skipped = magic[1:4] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5
    return "gzip" if magic[:2] == b"\x1f\x8b" else "zstd" if magic[:4] == b"\x28\xb5\x2f\xfd" or is_skipped else None


def name_other_kind(head):
    """Say what a file is that begins with these bytes (512 or more if it has them); None if unknown.

    >>> name_other_kind(b"BZh91AY")
    'is compressed with bzip2; unpack it first'
    """
    if head[257:262] == b"ustar":
        return "is a tar archive; unpack it first"
    return next((f"is {kind}; {advice}" for mark, kind, advice in _OTHER_KINDS if head.startswith(mark)), None)


def refuse_long(path, what):
    """Raise InputError: a line or record is longer than MOST_BYTES."""
    raise InputError(f"{path}: {what} is longer than {MOST_BYTES >> 20} MB, the most that is read")


def read_magic(path):
    """Return a file's first four bytes, which show its kind."""
    check_input_file(path)
    with open(path, "rb") as file:
        return file.read(4)


def open_stream(path):
    """Open a file for reading, decompressed; the compression is found by content, not by name."""
    return pa.input_stream(str(path), compression=find_compression(read_magic(path)))


def read_lines(file, path):
    """Yield the lines of a buffered binary file; refuse a line of more than MOST_BYTES, and a file that is no JSON."""
    if kind := name_other_kind(file.peek(512)):
        raise InputError(f"{path}: {kind}")
    number = 0
    while line := file.readline(MOST_BYTES + 1):
        number += 1
        if len(line) > MOST_BYTES:
            refuse_long(path, f"line {number}")
        yield line


def number_lines(path):
    """Yield (1-based number, line) of the lines that are not blank."""
    with open_stream(path) as stream, io.BufferedReader(stream) as file:
        for number, line in enumerate(read_lines(file, path), start=1):
            if line.strip():
                yield number, line


def read_objects(path, expected, *, progress=True):
    """Yield (1-based number, object) of the lines that are not blank, with a progress bar.

    Parameters
    ----------
    path : path-like
    expected : str
        What a line should be, for messages: "a line is {...}".
    progress : bool

    Raises
    ------
    InputError
        A line that is no JSON object, or a cut or damaged file; it names the line, or the last one before the damage.
    """
    with open_stream(path) as stream, io.BufferedReader(stream) as file:
        size = None if isinstance(stream, pa.CompressedInputStream) else os.path.getsize(path)
        number, lines = 0, enumerate(read_lines(file, path), start=1)
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
    """Return the object on the first line that is not blank; None if there is none."""
    with contextlib.closing(number_lines(path)) as lines:
        for _, line in lines:
            return parse_object(line, "")[0]


def load_json(text):
    """Return the JSON value of a text; a whole number with more digits than Python reads becomes an infinite float."""
    try:  # what `json.loads` does, without its look at the encoding; whatever is odd goes there
        line = text if isinstance(text, str) else text.decode()
        value, end = _scan(line, 0)
        if end == len(line) or not line[end:].strip(" \t\n\r"):
            return value
    except (StopIteration, ValueError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 1000 else float(digits))


def parse_object(line, expected):
    """Return a line's object, and what is wrong with it (None if nothing is)."""
    try:
        record = load_json(line)
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
    """Return a JSON value, or a table's, as a message shows it: cut if it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


@contextlib.contextmanager
def write_lines(path):
    """Open a binary file to be written whole or not at all; compressed if its name ends in `.gz` or `.zst`.

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
