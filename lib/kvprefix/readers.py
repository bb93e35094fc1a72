"""Stream raw records out of a JSON array or JSON Lines, plain or compressed, whole or cut.

Knows files, not conversations: what a record means is `conversations`' job. A 700 MB array is read in
constant memory.
"""

import gzip
import json
import lzma
import zlib
from dataclasses import dataclass

import ijson
import zstandard

from kvprefix.files import InputError, explain_os_errors

_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"


@dataclass
class ReadState:
    """How far a file was read, and where it ended: filled in while it is read.

    Attributes
    ----------
    bytes_read : int
        Bytes of the file (compressed, if it is) taken in so far.
    cut_at_byte : int or None
        The (uncompressed) byte at which a broken-off file ended, None for a whole one.
    """

    bytes_read: int = 0
    cut_at_byte: int | None = None


class _Source:
    """A byte stream that knows how much was read and whether its end was met, or met too early."""

    def __init__(self, raw, path, file, state):
        self.raw, self.path, self.file, self.state = raw, path, file, state
        self.n_bytes, self.ended, self.cut, self.pushed = 0, False, False, b""

    def read(self, size=65536):
        if size == 0:
            return b""
        if self.pushed:
            data, self.pushed = self.pushed[:size], self.pushed[size:]
            return data
        data = self._pull(size)
        self.ended = self.ended or not data
        return data

    def _pull(self, size):
        try:
            data = self.raw.read(size)
        except EOFError:
            data, self.cut = b"", True
        except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            raise InputError(f"{self.path}: cannot be decompressed at byte {self.n_bytes} ({error})") from error
        self.n_bytes += len(data)
        self.state.bytes_read = self.file.tell()
        return data

    def first_character(self):
        """Return the first byte that is no white space (b'' if none), leaving it unread."""
        while True:
            data = self.read()
            data = data.removeprefix(_BOM) if self.n_bytes == len(data) else data
            stripped = data.lstrip(_SPACE)
            if stripped or not data:
                self.pushed = stripped
                return stripped[:1]

    def lines(self):
        """Yield (line, is_terminated): lines end at a newline byte only, never at U+2028 and its like."""
        rest = b""
        while data := self.read(1 << 20):
            *whole, rest = (rest + data).split(b"\n")
            yield from ((line, True) for line in whole)
        if rest:
            yield rest, False


def read_records(path, state=None):
    """Stream (record number, record) pairs from a data file; a line that is no JSON gives None as its record.

    Parameters
    ----------
    path : path-like
        A JSON array or JSON Lines, optionally `.gz` or `.zst` (found by content, not by name).
    state : ReadState, optional
        Filled in. A record broken off at the file's end is not yielded.

    Raises
    ------
    InputError
        A file that is missing, empty, binary, of another shape, or malformed before its end.
    """
    state = ReadState() if state is None else state
    with explain_os_errors(path), open(path, "rb") as file:
        source = _Source(_decompress(file), path, file, state)
        first = source.first_character()
        if not first:
            raise InputError(f"{path}: is empty; expected a JSON array or JSON Lines of conversations")
        if first == b"[":
            yield from _read_array(source, state)
        elif first == b"{":
            yield from _read_lines(source, state)
        else:
            raise InputError(
                f"{path}: is neither a JSON array nor JSON Lines (it starts with {source.read()[:12]!r}); "
                "expected '[' or '{'"
            )


def _decompress(file):
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(file)
    if magic == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return file


def _read_array(source, state):
    number = -1
    try:
        for number, record in enumerate(ijson.items(source, "item", use_float=True)):  # noqa: B007
            yield number, record
    except ijson.JSONError as error:
        if not source.ended:
            reason = str(error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else error)
            raise InputError(
                f"{source.path}: record {number + 1} is not valid JSON ({reason.splitlines()[0]}); "
                f"{number + 1} records before it are whole"
            ) from error
        state.cut_at_byte = source.n_bytes
    if source.cut:
        state.cut_at_byte = source.n_bytes


def _read_lines(source, state):
    number = -1
    for line, terminated in source.lines():
        if not line.strip():
            continue
        number += 1
        try:
            record = json.loads(line)
        except ValueError as error:
            if not terminated and number:
                state.cut_at_byte = source.n_bytes
                return
            if number == 0:
                raise InputError(
                    f"{source.path}: line 1 is not a JSON object ({error}); expected a JSON array of records, "
                    "or JSON Lines with one whole record a line"
                ) from error
            record = None
        yield number, record
    if source.cut:
        state.cut_at_byte = source.n_bytes
