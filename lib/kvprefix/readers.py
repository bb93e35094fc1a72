"""Stream raw records out of a JSON array or JSON Lines, plain or compressed, whole or cut.

Knows files, not conversations: what a record means is `conversations`' job. A 700 MB array is read in
constant memory.
"""

import gzip
import json
import re
import zlib
from dataclasses import dataclass

import ijson
import zstandard

from kvprefix.files import InputError, explain_os_errors
from kvprefix.jsonlines import find_compression

_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
HALF = "\ufdd0"  # stands for half a character (a lone UTF-16 surrogate): a code point that is no character itself
_HALF_ESCAPE = b"\\ufdd0"


@dataclass
class ReadState:
    """How far a file was read, and where it ended: filled in while it is read.

    Attributes
    ----------
    bytes_read : int
        Bytes of the file (compressed, if it is) taken in so far.
    cut_at_byte : int or None
        The (uncompressed) byte at which a broken-off file ended, None for a whole one.
    at_end : bool
        Whether the file was read to its end.
    """

    bytes_read: int = 0
    cut_at_byte: int | None = None
    at_end: bool = False


class _Source:
    """A byte stream that knows how much was read and whether it ended too early."""

    def __init__(self, pull, path, file, state):
        self.pull, self.path, self.file, self.state = pull, path, file, state
        self.n_bytes, self.cut, self.pushed = 0, False, b""

    def read(self, size=65536):
        if size == 0:
            return b""
        if self.pushed:
            data, self.pushed = self.pushed[:size], self.pushed[size:]
            return data
        return self._pull(size)

    def _pull(self, size):
        try:
            data = self.pull(size)
        except EOFError:
            data, self.cut = b"", True
        except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile) as error:
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


class _WithoutHalves:
    """A source as the JSON parser reads it: it takes no half characters, so each lone surrogate escape becomes HALF.

    `ended` says whether the parser was given all there is: what it then misses is cut off, not malformed.
    """

    _HIGH, _LOW = rb"u[dD][89abAB][0-9a-fA-F]{2}", rb"u[dD][c-fC-F][0-9a-fA-F]{2}"
    _ANY = rb"u[dD][89a-fA-F][0-9a-fA-F]{2}"
    _ESCAPE = re.compile(rb"\\(?:(%b\\%b)|(%b)|.)" % (_HIGH, _LOW, _ANY), re.DOTALL)

    def __init__(self, source):
        self.source, self.ended = source, False

    def read(self, size=65536):
        data = self.source.read(size)
        self.ended = self.ended or (size > 0 and not data)
        while b"\\" in data[-12:] and (more := self.source.read(64)):
            data += more  # no escape, nor a pair of them, is cut in two
        if b"\\ud" not in data and b"\\uD" not in data:
            return data
        return self._ESCAPE.sub(lambda match: _HALF_ESCAPE if match[2] else match[0], data)


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
            ended = f"is cut at byte {source.n_bytes}, before its first record" if source.cut else "is empty"
            raise InputError(f"{path}: {ended}; expected a JSON array or JSON Lines of conversations")
        if first == b"[":
            yield from _read_array(source, state)
        elif first == b"{":
            yield from _read_lines(source, state)
        else:
            raise InputError(
                f"{path}: is neither a JSON array nor JSON Lines (it starts with {source.read()[:12]!r}); "
                "expected '[' or '{'"
            )
        state.at_end = True


def _decompress(file):
    kind = find_compression(file.read(4))
    file.seek(0)
    if kind == "gzip":
        return gzip.open(file).read1  # read() would lose what stands before a cut
    if kind == "zstd":
        frames = _decompress_zstd(file)
        return lambda size: next(frames, b"")
    return file.read


def _decompress_zstd(file):
    """Yield the content of a file of zstandard frames; EOFError where it ends inside one."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    while data := file.read(65536):
        while data:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            content, data = frame.decompress(data), b""
            if frame.eof:
                data = frame.unused_data
            if content:
                yield content
    if not frame.eof:
        raise EOFError


def _read_array(source, state):
    number, given = -1, _WithoutHalves(source)
    try:
        for number, record in enumerate(ijson.items(given, "item", use_float=True)):  # noqa: B007
            yield number, record
    except ijson.JSONError as error:
        if not given.ended:
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
        except (ValueError, RecursionError) as error:
            if not terminated and number:
                state.cut_at_byte = source.n_bytes
                return
            if number == 0 and source.cut:
                raise InputError(f"{source.path}: is cut at byte {source.n_bytes}, inside its first record") from error
            if number == 0:
                raise InputError(
                    f"{source.path}: line 1 is not a JSON object ({error}); expected a JSON array of records, "
                    "or JSON Lines with one whole record a line"
                ) from error
            record = None
        yield number, record
    if source.cut:
        state.cut_at_byte = source.n_bytes
