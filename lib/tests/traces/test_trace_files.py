"""Files that hold traces, logs or requests: every reader takes the same kinds, and names the others in one line."""

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import zipfile

import pytest
import zstandard
from clocks import spend_s
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.__main__ import main
from kvprefix.conversations import readers
from kvprefix.engines.request_files import read_requests
from kvprefix.files import jsonlines
from kvprefix.files.arrow_lines import ObjectLines
from kvprefix.files.paths import InputError
from kvprefix.formats.bailian import read_bailian
from kvprefix.formats.call_log import read_call_log
from kvprefix.formats.lookup import recognise
from kvprefix.formats.mooncake import read_mooncake

RECORD = {
    "chat_id": 1, "timestamp": 0, "input_length": 3, "output_length": 1, "type": "text", "turn": 1, "hash_ids": [1],
    "messages": [{"role": "user", "content": "a"}], "request_id": "a", "prompt_token_ids": [1],
}  # fmt: skip
LINES = 3 * (json.dumps(RECORD).encode() + b"\n")  # a request to every reader
READERS = {
    "mooncake": lambda path: len(read_mooncake(path)),
    "bailian": lambda path: len(read_bailian(path)),
    "log": lambda path: len(read_call_log(path, progress=False)),
    "format": lambda path: {"bailian": 3}.get(recognise(path).name),
    "requests": lambda path: len(read_requests(path)),
}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def skip_frame(n, kind=0):
    """Return a zstandard frame of n bytes that every reader has to skip (RFC 8878, 3.1.2)."""
    return struct.pack("<II", 0x184D2A50 + kind, n) + b"\x28\xb5\x2f\xfd" * (n // 4)


@every_reader
@pytest.mark.parametrize(
    "content",
    [
        LINES, gzip.compress(LINES, mtime=0), zstandard.compress(LINES), b"\xef\xbb\xbf" + LINES,
        LINES.replace(b"\n", b"\r\n"),
        skip_frame(0) + zstandard.compress(LINES), skip_frame(4, 15) + skip_frame(8) + zstandard.compress(LINES),
        skip_frame(400_000) + zstandard.compress(LINES) + skip_frame(4), LINES[:-1],
    ],
    ids=["plain", "gzip", "zstd", "mark", "crlf", "skip", "skip twice", "skip long", "no end"],
)  # fmt: skip
def test_every_reader_takes_every_kind(tmp_path, read, content):
    (tmp_path / "t").write_bytes(content)
    assert read(tmp_path / "t") == 3


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("t.jsonl", LINES)
    return file.getvalue()


@every_reader
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LINES.decode().encode("utf-16"), "UTF-16"), (LINES.decode().encode("utf-16-le"), "UTF-16"),
        (bz2.compress(LINES), "bzip2"), (lzma.compress(LINES), "xz"), (zipped(), "zip"),
        (gzip.compress(gzip.compress(LINES, mtime=0), mtime=0), "compressed twice"),
    ],
    ids=["utf-16", "utf-16-le", "bzip2", "xz", "zip", "gzip twice"],
)  # fmt: skip
def test_every_reader_names_what_it_does_not_take(tmp_path, read, content, said):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(InputError, match=f"t: is .*{said}.*first"):
        read(tmp_path / "t")


@every_reader
def test_every_reader_refuses_pipes_and_devices(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match=f"{name}: is a pipe"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="/dev/zero: is a device"):
        read("/dev/zero")


@pytest.mark.parametrize("name", ["mooncake", "bailian", "log", "requests"])
def test_a_line_without_end_is_refused(tmp_path, name, monkeypatch):
    for module in (jsonlines, readers):
        monkeypatch.setattr(module, "MOST_BYTES", 2**24)  # not less than what Arrow takes at once
    (tmp_path / "t.gz").write_bytes(gzip.compress(LINES + b"x" * 2**25, 1))
    with pytest.raises(InputError, match=r"t.gz: line 4 is longer than 16 MB"):
        READERS[name](tmp_path / "t.gz")


@every_reader
def test_a_long_line_takes_time_in_proportion(tmp_path, read):
    spent = []
    for size in (2**23, 2**26):
        record = {**RECORD, "x": "a" * size}
        (tmp_path / "t").write_bytes(gzip.compress(json.dumps(record).encode() + b"\n" + LINES, 1))
        assert read(tmp_path / "t") in (4, 3)
        spent.append(spend_s(lambda: read(tmp_path / "t")))
    assert spent[1] < 32 * (spent[0] + 0.02)  # 8 times as long: 64 times the time if it grew with the square


@pytest.mark.parametrize("name", ["mooncake", "bailian", "requests"])
@pytest.mark.parametrize("before", [b"", b" \r\n\t", LINES, LINES + b"\n \n", LINES.rstrip() + b" " * 2**24 + b"\n"])
@pytest.mark.parametrize("odd", [b"null", b"  null", b"true", b"[]", b"7", b'"x"', b"\xc3", b"\0"])
def test_a_line_that_is_no_object_is_named(tmp_path, name, before, odd):
    (tmp_path / "t").write_bytes(before + odd + b"\n" + LINES)
    number = len(before.split(b"\n"))
    with pytest.raises(InputError, match=f"t: line {number} is no"):
        READERS[name](tmp_path / "t")


@pytest.mark.parametrize("name", ["mooncake", "bailian", "requests"])
@pytest.mark.parametrize("field", [b"type", b"cache_salt", b"other"])
def test_bytes_that_are_no_text_are_named(tmp_path, name, field):
    (tmp_path / "t").write_bytes(LINES + LINES.split(b"\n")[0][:-1] + b', "%s": "\xff"}\n' % field)
    with pytest.raises(InputError, match="t: line 4 is not JSON .*can't decode byte 0xff"):
        READERS[name](tmp_path / "t")


@given(st.lists(st.sampled_from([b"\n", b" ", b"\r", b"{", b"x", b"\xef\xbb\xbf"]), max_size=12), st.integers(1, 4))
def test_lines_are_watched_across_reads(pieces, size):
    content = b"".join(pieces)
    lines = content.split(b"\n")
    is_wrong = any(line.strip(b" \r").startswith(b"x") for line in lines)
    stream, read = ObjectLines(io.BytesIO(content)), b""
    try:
        while data := stream.read(size):
            read += data
    except OSError:
        assert is_wrong
    else:
        assert read == content and not is_wrong


@every_reader
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
def test_nested_values_are_bounded(tmp_path, read, pair):
    nested = pair[0] * 400_000 + "1" + pair[1] * 400_000
    (tmp_path / "t").write_bytes(LINES + LINES.split(b"\n")[0][:-1] + f', "x": {nested}}}\n'.encode())
    try:
        assert read(tmp_path / "t") in (3, 4)
    except InputError as error:
        assert "line 4 is not JSON" in str(error)


@pytest.mark.parametrize("name", ["a.jsonl", "hard", "soft"])
def test_what_is_read_is_not_overwritten(tmp_path, name, capsys):
    source = tmp_path / "a.jsonl"
    source.write_bytes(LINES)
    (tmp_path / "hard").hardlink_to(source)
    (tmp_path / "soft").symlink_to(source)
    for command in (["convert", "--to", "openai-batch", "--from", "log"], ["convert", "--to", "mooncake"], ["replay"]):
        target = [str(tmp_path / name)] if command[0] == "convert" else ["--out", str(tmp_path / name)]
        assert main([command[0], str(source), *target, *command[1:]]) == 2
        assert "is both what is read and what would be written" in capsys.readouterr().err
    assert source.read_bytes() == LINES
