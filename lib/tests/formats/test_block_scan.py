"""The compiled scan of plain lines: it reads what Python's JSON reads, and gives up at everything else."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.files.arrow_lines import read_fast, read_slowly
from kvprefix.formats import block_scan
from kvprefix.formats.block_reader import BlockReader
from kvprefix.formats.block_scan import scan_lines
from kvprefix.formats.mooncake import MOONCAKE

NAMES = "timestamp", "input_length"
PLAIN = '{"timestamp": 5, "input_length": 3, "hash_ids": [7]}'


def scan(folder, text, names=NAMES, refused=("session_id",)):
    path = folder / "lines.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return scan_lines(path, names, refused)


NUMBER = st.integers(-(10**18) + 1, 10**18 - 1)
BLANK = st.sampled_from(["", " ", "\t", "  ", "\r"])


@st.composite
def lines(draw):
    """Return text, with blanks and keys as they come, and its requests."""
    requests, text = [], ""
    for _ in range(draw(st.integers(1, 6))):
        request = {"timestamp": draw(NUMBER), "input_length": draw(NUMBER), "hash_ids": draw(st.lists(NUMBER))}
        request |= draw(st.dictionaries(st.text("abhi_s", max_size=8), NUMBER, max_size=3))
        requests.append(request)
        blank = draw(BLANK)
        separators = f"{blank},{draw(BLANK)}", f"{blank}:{draw(BLANK)}"
        items = draw(st.permutations(list(request.items())))
        text += (
            blank + json.dumps(dict(items), separators=separators) + blank + draw(st.sampled_from(["\n", "\n \n\n"]))
        )
    return text if draw(st.booleans()) else text.rstrip("\n"), requests


@given(given=lines(), at_once=st.sampled_from([1, 2, 7, 50, 4 << 20]))
def test_plain_lines_are_read_as_python_reads_them_wherever_they_are_cut(tmp_path_factory, given, at_once):
    text, requests = given
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_scan, "_AT_ONCE", at_once)
        columns, blocks, ids = scan(tmp_path_factory.mktemp("scan"), text)
    assert columns.tolist() == [[request[name] for name in NAMES] for request in requests]
    assert blocks.tolist() == [len(request["hash_ids"]) for request in requests]
    assert ids.tolist() == [one for request in requests for one in request["hash_ids"]]


@pytest.mark.parametrize("line", [
    "", "null", "[1]", "{}", "x", "{", PLAIN[:-1], PLAIN + ",", PLAIN + PLAIN, PLAIN + "x", PLAIN.replace(",", ",,", 1),
    PLAIN[:-1] + ",}", PLAIN.replace("{", "{,"), PLAIN.replace(":", "", 1), PLAIN.replace("[7]", "[7"),
    PLAIN.replace("[7]", "[7,]"), PLAIN.replace("[7]", "[,7]"), PLAIN.replace("[7]", "[7 8]"),
    PLAIN.replace("[7]", "7"), PLAIN.replace("[7]", "[7.0]"), PLAIN.replace("[7]", '["7"]'),
    PLAIN.replace("[7]", "[[7]]"), PLAIN.replace("[7]", "[null]"), PLAIN.replace("5", "null"),
    PLAIN.replace("5", "05"), PLAIN.replace("5", "5.5"), PLAIN.replace("5", "5e3"), PLAIN.replace("5", "+5"),
    PLAIN.replace("5", "-"), PLAIN.replace("5", "--5"), PLAIN.replace("5", "9" * 19), PLAIN.replace("5", "true"),
    PLAIN.replace("5", "NaN"), PLAIN.replace("5", '"5"'), PLAIN.replace('"timestamp": 5, ', ""),
    PLAIN.replace("{", '{"timestamp": 1, '), PLAIN.replace("{", '{"hash_ids": [], '),
    PLAIN.replace("{", '{"session_id": 1, '), PLAIN.replace("{", '{"a\\u0062": 1, '), PLAIN.replace("{", '{"é": 1, '),
    PLAIN.replace("{", '{"type": "text", '), "\ufeff" + PLAIN, PLAIN.replace('"timestamp"', "timestamp"),
    PLAIN.replace("timestamp", "time\nstamp"), PLAIN.replace(", ", ",\n"), PLAIN.replace(" ", "\x0b"),
    PLAIN.replace(" ", "\x00"), PLAIN.encode() + b"\xff", PLAIN.encode() + b"\x00",
])  # fmt: skip
def test_the_scan_gives_up_at_a_line_that_is_not_plain(tmp_path, line):
    line = line if isinstance(line, bytes) else line.encode()
    if line:
        assert scan(tmp_path, PLAIN.encode() + b"\n" + line + b"\n" + PLAIN.encode()) is None
    assert scan(tmp_path, line) is None


def test_the_three_ways_to_read_agree(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "lines.jsonl"
    with open(path, "w") as file:
        for k in range(200):
            ids = rng.integers(0, 50, rng.integers(0, 9)).tolist()
            file.write(json.dumps({"timestamp": k, "input_length": 512 * len(ids), "hash_ids": ids}) + "\n")
    reader = BlockReader(MOONCAKE, 512)
    one, two, three = reader.scan(path), read_fast(path, reader), read_slowly(path, reader)
    for name, column in one.values.items():
        assert column.dtype == two.values[name].dtype and column.tolist() == two.values[name].tolist()
        assert name == "hash_ids" or column.tolist() == three.values[name].tolist()
    assert one.missing == two.missing == three.missing


def test_a_compressed_file_is_read_and_a_cut_one_is_not(tmp_path):
    packed = gzip.compress((PLAIN + "\n").encode() * 1000)
    assert len(scan(tmp_path, packed)[1]) == 1000
    assert scan(tmp_path, packed[:-20]) is None
