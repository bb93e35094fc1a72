"""Stream raw records out of a JSON array or JSON Lines, plain or compressed, whole or cut.

It knows files, not conversations: `records` reads what a record means. A 700 MB array is read in constant memory. Both
forms give the values that Python's `json` would. Of a file that is cut, the record that breaks off is left out, and
`ReadState.cut_at_byte` tells where; a cut within the first record of JSON Lines is an error.
"""

import codecs
import gzip
import json
import re
import zlib
from dataclasses import dataclass, field

import zstandard

from kvprefix.files.jsonlines import MOST_BYTES, find_compression, load_json, name_other_kind, refuse_long
from kvprefix.files.paths import InputError, check_input_file, explain_os_errors

_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 18
_GAP = re.compile("[ \t\r\n]*")
_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_CUT_TOKEN = re.compile(r"[.eE][-+]?|u[0-9a-fA-F]{0,4}")  # the last characters of a number or an escape that is cut
_JSON = json.JSONDecoder()
_LONG = json.JSONDecoder(parse_int=float)
_NO_MORE = object()


@dataclass
class ReadState:
    """How far a file was read and where it ended; filled in while reading.

    Attributes
    ----------
    bytes_read : int
        Bytes read so far, compressed ones if the file is compressed.
    cut_at_byte : int or None
        The uncompressed byte at which a cut file ended, None for a whole one.
    at_end : bool
        Whether the file was read to its end.
    line : int or None
        Of JSON Lines: the line of the record that was read last.
    """

    bytes_read: int = 0
    cut_at_byte: int | None = None
    at_end: bool = False
    line: int | None = field(default=None, compare=False)


class _Source:
    """A byte stream that knows how much was read and whether the file is cut."""

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
        """Return the first byte that is no white space, b'' if none, and leave it unread."""
        data = self.read_at_least(512).removeprefix(_BOM)
        if kind := name_other_kind(data):
            raise InputError(f"{self.path}: {kind}")
        while data and not (stripped := data.lstrip(_SPACE)):
            data = self.read()
        self.pushed = stripped if data else b""
        return self.pushed[:1]

    def read_at_least(self, size):
        """Return at least `size` bytes, fewer only at the end of the file."""
        parts = []
        while size > 0 and (data := self.read(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def lines(self):
        """Yield (line, is_terminated): lines end at a newline byte only, never at U+2028 or similar."""
        held, n_held, number = [], 0, 0  # the line so far
        while data := self.read(1 << 20):
            *whole, rest = data.split(b"\n")
            if whole:
                yield b"".join([*held, whole[0]]), True
                yield from ((line, True) for line in whole[1:])
                held, n_held, number = [], 0, number + len(whole)
            held.append(rest)
            n_held += len(rest)
            if n_held > MOST_BYTES:
                refuse_long(self.path, f"line {number + 1}")
        if rest := b"".join(held):
            yield rest, False


def read_records(path, state=None):
    """Yield (record number, record) pairs of a data file, numbered from 0; a line that is no JSON gives None.

    Parameters
    ----------
    path : path-like
        A JSON array or JSON Lines, optionally `.gz` or `.zst` (found by content, not by name).
    state : ReadState, optional
        Filled in while reading. A record cut at the file's end is not yielded.

    Raises
    ------
    InputError
        A file that is missing, empty, binary, of another shape, or malformed before its end; a record of more than
        MOST_BYTES.
    """
    state = ReadState() if state is None else state
    check_input_file(path)
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


def read_odd_lines(path, state):
    """Yield what `read_records` does of JSON Lines whose first lines may be anything."""
    with explain_os_errors(path), open(path, "rb") as file:
        source = _Source(_decompress(file), path, file, state)
        source.first_character()
        yield from _read_lines(source, state, is_odd=True)
        state.at_end = True


def read_document(path):
    """Return the value of a file that is one JSON value over several lines; None if it is none, or is too long."""
    with open(path, "rb") as file:
        data = _Source(_decompress(file), path, file, ReadState()).read_at_least(MOST_BYTES + 1)
    try:
        return load_json(data) if len(data) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        return None


def _decompress(file):
    kind = find_compression(file.read(4))
    file.seek(0)
    if kind == "gzip":
        return gzip.open(file).read1  # read() would lose the data before a cut
    if kind == "zstd":
        frames = _decompress_zstd(file)
        return lambda size: next(frames, b"")
    return file.read


def _decompress_zstd(file):
    """Yield the content of a file of zstandard frames; raise EOFError if it ends inside one."""
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
    """Yield the records of an array: each is decoded from where the last one ended, once enough of it was read."""
    text, start, number, bad = source.read(1).decode(), 1, 0, None
    decode, ended = codecs.getincrementaldecoder("utf-8")().decode, False
    while True:
        try:
            record, end = _decode_next(text, start, number == 0)
            if record is _NO_MORE:
                text, start = text[end:], 0
                break
            is_whole = end < len(text) or ended  # else a number may continue
        except json.JSONDecodeError as error:
            is_whole = False
            if not _is_cut(error, text):
                _refuse_record(source, number, error.msg, error)
        except RecursionError as error:
            _refuse_record(source, number, "it is nested too deeply", error)
        if is_whole:
            yield number, record
            number, start = number + 1, end
        elif bad:
            _refuse_record(source, number, f"it is not UTF-8: {bad.reason}", bad)
        elif ended:
            state.cut_at_byte = source.n_bytes
            return
        elif (n_held := len(text) - start) > MOST_BYTES:
            refuse_long(source.path, f"record {number}")
        else:  # read twice as much each time, so that a long record is tried only a few times
            data = source.read_at_least(max(_CHUNK, min(n_held, MOST_BYTES + 1 - n_held)))
            ended = not data
            try:
                more = decode(data)
            except UnicodeDecodeError as error:
                more, bad, ended = error.object[: error.start].decode(), error, True
            text, start = text[start:] + more, 0
    while not text.strip() and (data := source.read()):
        text = decode(data)
    if text.strip():
        _refuse_record(source, number, "more follows the array's end", None)
    if source.cut:
        state.cut_at_byte = source.n_bytes


def _decode_next(text, start, is_first):
    """Return (the array's next record, where it ends); _NO_MORE for the array's end."""
    start = _GAP.match(text, start).end()
    if text[start : start + 1] == "]":
        return _NO_MORE, start + 1
    if not is_first:
        if text[start : start + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, start)
        start = _GAP.match(text, start + 1).end()
    try:
        return _JSON.raw_decode(text, start)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a whole number of more digits than Python reads
        return _LONG.raw_decode(text, start)


def _is_cut(error, text):
    """Say whether JSON is wrong only because the text ends, so that more text may complete it."""
    rest = text[error.pos : error.pos + 12]
    return (
        error.msg.startswith("Unterminated string")
        or not rest
        or len(text) - error.pos < 12
        and (any(word.startswith(rest) for word in _WORDS) or _CUT_TOKEN.fullmatch(rest) is not None)
    )


def _refuse_record(source, number, reason, cause):
    raise InputError(
        f"{source.path}: record {number} is not valid JSON ({reason}); {number} records before it are whole"
    ) from cause


def _read_lines(source, state, is_odd=False):
    number = -1
    for state.line, (line, terminated) in enumerate(source.lines(), start=1):
        if not line.strip():
            continue
        number += 1
        try:
            record = load_json(line)
        except (ValueError, RecursionError) as error:
            if not terminated and number:
                state.cut_at_byte = source.n_bytes
                return
            if number == 0 and source.cut:
                raise InputError(f"{source.path}: is cut at byte {source.n_bytes}, inside its first record") from error
            if number == 0 and not is_odd:
                raise InputError(
                    f"{source.path}: line 1 is not a JSON object ({error}); expected a JSON array of records, "
                    "or JSON Lines with one whole record per line"
                ) from error
            record = None
        yield number, record
    if source.cut:
        state.cut_at_byte = source.n_bytes
