"""Traces of block ids: what is read of a good file, and how a bad one is refused, by file and line."""

import gzip
import json
import os

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from trace_lines import as_seen, columns, line, write

from kvprefix.files.arrow_lines import read_fast, read_slowly
from kvprefix.files.paths import InputError
from kvprefix.formats.block_reader import BlockReader
from kvprefix.formats.mooncake import MOONCAKE, read_mooncake


def test_a_small_trace_read_by_hand(tmp_path):
    path = write(tmp_path / "t.jsonl", line([70, 71, 72], 10, 500), line([70, 71], 8, 1500), line([70, 90], 5, 1500))
    accesses = read_mooncake(path, 4)
    assert columns(accesses) == {
        "ids": [0, 1, 2, 0, 1, 0, 3],
        "offsets": [0, 3, 5, 7],
        "last_weight": [2, 4, 1],  # 10 - 2 * 4, 8 - 4, 5 - 4
        "prompt_tokens": [10, 8, 5],
        "parent": [-1, 0, 1, 0],
        "depth": [0, 1, 2, 1],
        "arrival_s": [0.5, 1.5, 1.5],
        "finish_s": [0.5, 1.5, 1.5],
        "conversation": [0, 1, 2],
    }
    assert accesses.hit_tokens(np.array([0, 2, 1])).tolist() == [0, 8, 4]
    assert accesses.block_size == 4 and accesses.info == {"trace": "t.jsonl", "notes": []}


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compression_is_found_by_content(tmp_path, compress):
    lines = [line([k, k + 1], 7, k).encode() + b"\n" for k in range(0, 40, 2)]
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(b"".join(lines))
    packed.write_bytes(compress(b"".join(lines[:9])) + compress(b"".join(lines[9:])))
    assert columns(read_mooncake(packed, 4)) == columns(read_mooncake(plain, 4))


def test_fields_order_blank_lines_and_line_ends_do_not_matter(tmp_path):
    plain = write(tmp_path / "plain", line([1, 2], 8, 1), line([1, 3], 7, 2))
    other = tmp_path / "other"
    other.write_bytes(
        b'\xef\xbb\xbf\r\n{"chat": "a\xe2\x80\xa8b", "hash_ids": [1, 2], "x": {"y": [1, {}]}, "input_length": 8, '
        b'"timestamp": 1}\r\n \r\n\n{"timestamp": 2.0, "hash_ids": [1,3] , "input_length": 7}'
    )
    assert columns(read_mooncake(other, 4)) == columns(read_mooncake(plain, 4))


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
            st.integers(0, 3),
            st.integers(-9, 9) | st.floats(-9, 9),
        ),
        min_size=1, max_size=9,
    ),
    st.booleans(),
)  # fmt: skip
def test_both_readers_agree(tmp_path_factory, requests, blank):
    path = tmp_path_factory.mktemp("trace") / "t"
    write(path, *(line(ids, max(4 * len(ids) - short, 0), t) for ids, short, t in requests), end="\n\n"[: 1 + blank])
    fast, slow = read_fast(path, BlockReader(MOONCAKE, 4)), read_slowly(path, BlockReader(MOONCAKE, 4))
    assert fast[1] == slow[1] and list(fast[0]) == ["timestamp", "input_length", "hash_ids", "blocks"]
    for name, column in as_seen(fast[0]).items():
        assert (column.tolist(), column.dtype) == (as_seen(slow[0])[name].tolist(), slow[0][name].dtype)


@pytest.mark.parametrize("ids", [range(400_000), range(10**6, 10**6 + 700_000)])  # 3.1 MB, and 6.3 MB, at 9 bytes an id
def test_a_line_of_several_megabytes(tmp_path, ids):
    path = write(tmp_path / "long", line(list(ids)), line([-1], stamp=1))
    assert read_mooncake(path, 4).blocks.tolist() == [len(ids), 1]


def test_what_arrow_refuses_and_python_reads_is_read(tmp_path):
    path = write(tmp_path / "t", line([1], 3, text="\ud800"), line([1, 2], 8))
    assert read_fast(path, BlockReader(MOONCAKE, 4)) is None and read_mooncake(path, 4).prompt_tokens.tolist() == [3, 8]


KINDS = {
    "negative": [-1, -(2**63), 2**63 - 1, 0], "unsigned": [2**64 - 1, 2**63, 5, 2**63 + 5],
    "large": [2**64, -(2**63) - 1, 10**30, -1], "texts": ["a", "", "1", "\u2028"], "mixed": [1, "1", 2**64, "x"],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_any_kind_are_numbered_as_first_seen(tmp_path, kind):
    a, b, c, d = KINDS[kind]
    path = write(tmp_path / "t", line([a, b, c], 10), line([a, d], 8), line([a, b], 7, 2000))
    accesses = read_mooncake(path, 4)
    assert accesses.ids.tolist() == [0, 1, 2, 0, 3, 0, 1] and accesses.parent.tolist() == [-1, 0, 1, 0]
    first = json.loads(line([a, b, c]))
    is_fast = read_fast(path, BlockReader(MOONCAKE, 4, first)) is not None
    assert is_fast == (kind in ("negative", "unsigned", "texts"))
    path = write(tmp_path / "t", line([a, b, c], 10), line([d, b], 8))
    with pytest.raises(InputError) as error:
        read_mooncake(path, 4)
    assert f"line 2: block id {json.dumps(b)} follows another block" in str(error.value)


def test_ids_are_read_where_the_first_line_does_not_tell_their_kind(tmp_path):
    for later in (2**63 + 5, "x", 10**30):
        path = write(tmp_path / "t", line([5], 4), line([5, later], 8), line([], 0))
        assert read_mooncake(path, 4).ids.tolist() == [0, 0, 1]


NO_TIME = "no line has a time: all requests arrive at 0 s, in the lines' order"


@pytest.mark.parametrize("more", [{}, {"text": "\ud800"}])  # Arrow takes no lone surrogates
def test_without_stamps_the_lines_order_counts(tmp_path, more):
    lines = [line([1, 2], 8, **more), line([1, 3], 8), line([1, 2], 8)]
    path = write(tmp_path / "t", *(one.replace('"timestamp"', '"x"') for one in lines))
    accesses = read_mooncake(path, 4)
    assert accesses.ids.tolist() == [0, 1, 0, 2, 0, 1] and accesses.arrival_s.tolist() == [0, 0, 0]
    assert accesses.info["notes"] == [NO_TIME]
    path = write(tmp_path / "t", *(one.replace("0,", "null,", 1) for one in lines))
    assert read_mooncake(path, 4).info["notes"] == [NO_TIME]


@pytest.mark.parametrize(("untimed", "said"), [(0, "line 2 has a timestamp"), (2, "line 3 lacks timestamp")])
def test_some_stamps_only_are_refused_by_line(tmp_path, untimed, said):
    lines = [line([k], 4).replace('"timestamp"', '"x"' if k == untimed else '"timestamp"') for k in range(3)]
    with pytest.raises(InputError, match=f"{said}, unlike the first request; expected all or none to have one"):
        read_mooncake(write(tmp_path / "t", *lines), 4)


def test_a_file_with_sessions_is_left_to_who_reads_them(tmp_path):
    for lines in ([line([1], 4, session_id="a")], [line([1], 4), line([1], 4, 5, session_id=7)]):
        for more in ({}, {"text": "\ud800"}):  # Arrow takes no lone surrogates
            path = write(tmp_path / "t", *lines, line([2], 4, 9, **more))
            assert read_mooncake(path, 4) is None
    path = write(tmp_path / "t", line([1], 4, session_id=None))
    assert read_mooncake(path, 4).ids.tolist() == [0]


def test_stamps_out_of_order_are_sorted_and_counted(tmp_path):
    path = write(tmp_path / "t", line([1], 1, 30), line([1, 2], 6, 10), line([1, 3], 7, 30), line([4], 4, 20))
    accesses = read_mooncake(path, 4)
    assert accesses.arrival_s.tolist() == [0.01, 0.02, 0.03, 0.03]
    assert accesses.prompt_tokens.tolist() == [6, 4, 1, 7] and accesses.last_weight.tolist() == [2, 4, 1, 3]
    assert accesses.ids.tolist() == [0, 1, 2, 0, 0, 3] and accesses.offsets.tolist() == [0, 2, 3, 4, 6]
    assert accesses.info["notes"] == ["2 stamps out of order: sorted"]


def test_stamps_below_0_and_requests_without_tokens_are_noted(tmp_path):
    path = write(tmp_path / "t", line([1], stamp=-2000), line([], stamp=-500), line([1], stamp=250))
    accesses = read_mooncake(path, 4)
    assert accesses.arrival_s.tolist() == [0, 1.5, 2.25]
    assert accesses.prompt_tokens.tolist() == [4, 0, 4] and accesses.last_weight.tolist() == [4, 0, 4]
    assert accesses.info["notes"] == [
        "2 stamps below 0: times are counted from the first stamp",
        "1 request without tokens: kept, can hit nothing",
    ]


GOOD = line([1, 2], 8)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{]", "is not JSON (Expecting property name"),
        ("[" + GOOD + "]", "is no JSON object; a line is {"),
        ("null", "is no JSON object"),
        (GOOD[:30], "is not JSON"),
        (GOOD + " x", "is not JSON (Extra data"),
        ("{}", "lacks input_length, hash_ids; a line is {"),
        ('{"timestamp": 0, "input_length": 8, "output_length": 1}', "lacks hash_ids"),
        (line(None, 8), "lacks hash_ids"),
        (line([1], 4, None), "lacks timestamp"),
        (line([1], 4, "now"), 'has timestamp "now"; expected a number of milliseconds'),
        (line([1], 4, float("nan")), "has timestamp NaN"),
        (line([1], 4, True), "has timestamp true"),
        (line([1], 4).replace(": 0,", ": 1e999,", 1), "has timestamp Infinity"),
        (line([1], "4"), 'has input_length "4"; expected a whole number of tokens, 0 or more'),
        (line([1], 4.0), "has input_length 4.0"),
        (line([], -1), "has input_length -1"),
        (line([1], 2**63), "has input_length 9223372036854775808"),
        (line([1, 2.0], 8), "has 2.0 among its hash_ids; expected whole numbers or texts"),
        (line([1, None], 8), "has null among its hash_ids"),
        (line([[1, 2]], 8), "has [1, 2] among its hash_ids"),
        (line([1, True], 8), "has true among its hash_ids"),
        (line([["x" * 100]], 4), 'has ["xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... among'),
        (line([{}], 4), "has {} among its hash_ids"),
        (line([1], 4, 1e300), "has timestamp 1e+300; expected a number of milliseconds"),
        (line([1], 4, -1e300), "has timestamp -1e+300"),
        (line([1], 4, 1_714_567_890_123_456), "has timestamp 1714567890123456; expected a number of milliseconds, n"),
        (line([1], True), "has input_length true"),
        (line([1], 10**8 + 1), "has input_length 100000001; expected a whole number of tokens, 0 or more (100"),
        (line([1], 4).replace("4,", "1e400,", 1), "has input_length Infinity"),
        (line([1], 4).replace("[1]", "[" + "9" * 5000 + "]"), "has Infinity among its hash_ids"),
        (line(7, 4), "has hash_ids 7; expected a list of whole numbers or texts"),
        (line([1, 2], 9), "lists 2 blocks for input_length 9; expected 3 of 4 tokens (give another size with"),
        (line([1, 2], 4), "lists 2 blocks for input_length 4; expected 1 of 4 tokens"),
        (line([1], 0), "lists 1 block for input_length 0; expected 0"),
        (line([], 1), "lists 0 blocks for input_length 1; expected 1"),
        (line([2, 1], 8), "block id 2 follows another block than in an earlier request"),
        (line([1, 1], 8), "block id 1 follows another block"),
        (line([1, 2], 8, -5).replace("1, 2", "1, 3, 2").replace(": 8", ": 12"), "block id 2 follows another block"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compress", [None, gzip.compress, zstandard.compress])
def test_a_bad_line_is_named(tmp_path, bad, said, compress):
    later = line([7, 8, 9], 12, 5)
    lines = f"{later}\n\n{later}\r\n{GOOD}\n{bad}\n{line([9, 7, 8], 12, 9)}\n{{\n"
    if "block id" in said:  # shows only where nothing else is wrong; sorting moves the first two lines
        lines = f"{later}\n\n{later}\r\n{GOOD}\n{bad}\n{later}\n"
    path = tmp_path / "bad.jsonl"
    path.write_bytes(compress(lines.encode()) if compress else lines.encode())
    number = 4 if "-5" in bad else 5  # stamped before line 4, it comes first, and line 4 contradicts it
    with pytest.raises(InputError) as error:
        read_mooncake(path, 4)
    assert str(error.value).startswith(f"{path}: line {number}") and said in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n \r\n\n", gzip.compress(b"", mtime=0)])
def test_a_file_without_requests_is_refused(tmp_path, content):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"empty\.jsonl: holds no requests; a line is \{"):
        read_mooncake(path, 4)


def test_files_that_cannot_be_read_are_named(tmp_path):
    packed = gzip.compress(write(tmp_path / "t", *[GOOD] * 9).read_bytes())
    (tmp_path / "cut").write_bytes(packed[:-9])
    (tmp_path / "damaged").write_bytes(packed[:30] + b"xxxx" + packed[34:])
    os.mkfifo(tmp_path / "pipe")
    for name, said in {
        "missing": "No such file", ".": "Is a directory", "cut": "Truncated", "damaged": "inflate failed",
        "pipe": "is a pipe",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=f"{tmp_path / name}: .*{said}"):
            read_mooncake(tmp_path / name, 4)


def test_a_wrong_block_size_is_refused(tmp_path):
    for size in (0, -4, 1.5, "16", True):
        with pytest.raises(InputError, match="block size is"):
            read_mooncake(write(tmp_path / "t", GOOD), size)
