"""Read JSON Lines fast with Arrow; if that fails or a line is wrong, line by line, to name the line.

A `LineReader` knows what the objects mean: it says what Arrow reads, and gives the same result both ways.
"""

import codecs
import io
import re
from abc import ABC, abstractmethod

import pyarrow as pa
import pyarrow.json

from kvprefix.files.jsonlines import open_stream, read_objects
from kvprefix.files.paths import InputError, explain_os_errors


class Fault(Exception):
    """What is wrong with a line: the rest of the message after the line's number."""


class LineReader(ABC):
    """What a file of JSON Lines holds, and how both ways read it.

    Attributes
    ----------
    schema : pyarrow.Schema
        The fields that are read.
    expected : str
        What a line is, for messages: "a line is {...}".
    batch_bytes : int
        Bytes that Arrow reads at once; a file with a longer line is read line by line.
    """

    schema: pa.Schema
    expected: str
    batch_bytes = 4 << 20

    @abstractmethod
    def from_batches(self, batches):
        """Return what an iterable of RecordBatches holds; None if a line is wrong or needs reading line by line."""

    @abstractmethod
    def from_objects(self, objects):
        """Return the same from an iterable of objects, one per line; raise Fault at the first wrong one."""


def read_lines_of(path, reader):
    """Read a file of JSON Lines.

    Parameters
    ----------
    path : path-like
        Plain, gzip or zstandard (found by content, not by name). Blank lines are skipped.
    reader : LineReader

    Returns
    -------
    object
        The reader's result.

    Raises
    ------
    InputError
        A wrong line, or a cut or damaged file; it names the file and the line, or the last one before the damage.
    """
    with explain_os_errors(path):
        found = read_fast(path, reader)
        return read_slowly(path, reader) if found is None else found


def read_fast(path, reader):
    """Return what a file holds, read with Arrow; None if that fails or a line is wrong."""
    parse = pa.json.ParseOptions(explicit_schema=reader.schema, unexpected_field_behavior="ignore")
    read = pa.json.ReadOptions(use_threads=False, block_size=reader.batch_bytes)
    with open_stream(path) as stream:
        try:
            return reader.from_batches(pa.json.open_json(ObjectLines(stream), read, parse))
        except (pa.ArrowException, OSError):
            return None


def read_slowly(path, reader):
    """Return the same with Python's own JSON, or raise InputError at the first wrong line."""
    number = 0

    def number_objects():
        nonlocal number
        for number, record in read_objects(path, reader.expected, progress=False):  # noqa: B007 (is told below)
            yield record
        if not number:
            raise InputError(f"{path}: holds no requests; {reader.expected}")

    try:
        return reader.from_objects(number_objects())
    except Fault as fault:
        raise InputError(f"{path}: line {number} {fault}") from None


class ObjectLines(io.RawIOBase):
    """A stream that is safe for Arrow's JSON reader: OSError if a line is no object or no UTF-8.

    Such a line is refused anyway. Arrow 26 crashes on a bare `null` at the start of what it reads at once, and it
    accepts any bytes as text.
    """

    _OTHER = re.compile(rb"\n[ \t\r]*[^ \t\r\n{\xef]")  # \xef begins a byte-order mark

    def __init__(self, stream):
        self.stream, self.before = stream, b"\n"
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def readable(self):
        """Say that it can be read."""
        return True

    def read(self, size=-1):
        """Return the next bytes."""
        data = self.stream.read(size)
        try:
            self.decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise OSError("a line is no UTF-8") from error
        if self._OTHER.search(self.before + data):
            raise OSError("a line holds no JSON object")
        line = data[data.rfind(b"\n") + 1 :].strip()
        self.before = b"x" if line else b"\n" if b"\n" in data else self.before
        return data
