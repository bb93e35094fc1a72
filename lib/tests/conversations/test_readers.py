import bz2
import gzip
import io
import itertools
import json
import lzma
import os
import random
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest
import zstandard
from clocks import ENDS_S, spend_s
from samples import record

from kvprefix.conversations.readers import ReadState, read_records
from kvprefix.files.paths import InputError

RECORDS = [record(f"h\u00e9llo \u2028 {k}", 'a "quoted"\nreply \u0085 \U0001f600', id=k) for k in range(4)]
FORMS = {
    "array": lambda records: json.dumps(records, ensure_ascii=False).encode(),
    "lines": lambda records: "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode(),
}
PACKINGS = {"plain": bytes, "gz": gzip.compress, "zst": zstandard.compress}
UNPACK_CUT = {
    "plain": bytes,
    "gz": lambda data: zlib.decompressobj(31).decompress(data),
    "zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def pack_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.json", "[]")
    return file.getvalue()


def pack_tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("data.json"))
    return file.getvalue()


form = pytest.mark.parametrize("form", FORMS)
packing = pytest.mark.parametrize("packing", PACKINGS)


@pytest.fixture
def read(tmp_path):
    """Return a function from a file's bytes to its records and read state."""

    def read(data):
        path = tmp_path / "data.txt"  # the name tells nothing
        path.write_bytes(data)
        state = ReadState()
        return list(read_records(path, state)), state

    return read


@form
@packing
def test_every_form_gives_the_same_numbered_records(read, form, packing):
    data = PACKINGS[packing](FORMS[form](RECORDS))
    records, state = read(data)
    assert records == list(enumerate(RECORDS))
    assert state == ReadState(bytes_read=len(data), cut_at_byte=None, at_end=True)


@form
@pytest.mark.parametrize("frames", [[None, 0], [0, None, None], [0, 1, None, 2]])
def test_zstandard_frames_to_be_skipped_are_skipped(read, form, frames):
    skipped = b"\x5a\x2a\x4d\x18\x05\0\0\0" + b"notes"  # magic 0x184D2A5A, length 5
    content = FORMS[form](RECORDS)
    cuts = [0, 10, 90, len(content)]
    packed = [zstandard.compress(content[a:b]) for a, b in itertools.pairwise(cuts)]
    n_parts = sum(frame is not None for frame in frames)
    packed = [*packed[: n_parts - 1], b"".join(packed[n_parts - 1 :])]
    data = b"".join(skipped if frame is None else packed[frame] for frame in frames)
    assert read(skipped + data)[0] == list(enumerate(RECORDS))


VALUES = [True, False, None, 1.5e-7, -12, 2**64, -(2**63) - 1, 10**30, float("inf"), -float("inf"),
          "\u00e9\U0001f600\\ \n", ""]  # fmt: skip


@form
@packing
def test_both_forms_give_the_same_values(read, form, packing):
    records = [{"value": value, "list": [value, [value]]} for value in VALUES]
    text = FORMS[form](records).replace(b"1.5e-07", b"1e400")  # more than a float holds
    expected = [float("inf") if value == 1.5e-7 else value for value in VALUES]
    got = [record["value"] for _, record in read(PACKINGS[packing](text))[0]]
    assert got == expected and list(map(type, got)) == list(map(type, expected))


@form
def test_not_a_number_and_numbers_of_many_digits_are_read(read, form):
    text = FORMS[form]([{"value": "N", "id": "first"}, {"value": "D"}])
    text = text.replace(b'"N"', b"NaN").replace(b'"D"', b"9" * 5000)
    (_, first), (_, second) = read(text)[0]
    assert first["value"] != first["value"] and second["value"] == float("inf")


def test_array_of_all_values_cut_at_any_byte_gives_its_whole_records(read):
    data = json.dumps([{"k": value} for value in VALUES]).encode()
    for cut in range(1, len(data)):
        records, state = read(data[:cut])
        assert [record for _, record in records] == [{"k": v} for v in VALUES][: data[:cut].count(b"}")]
        assert state.cut_at_byte == cut


def test_records_longer_than_a_chunk_are_read_in_linear_time(read):
    records = [record("x" * n) for n in (10, 3_000_000, 20, 40_000_000)]
    for form, pack in itertools.product(FORMS, (bytes, lambda data: gzip.compress(data, 1))):
        packed = pack(FORMS[form](records))
        assert [r for _, r in read(packed)[0]] == records
        assert spend_s(lambda packed=packed: read(packed)) < ENDS_S / 6


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("form, said", [("array", "record 1"), ("lines", "line 2")])
def test_a_record_without_end_is_refused(read, monkeypatch, pack, form, said):
    monkeypatch.setattr("kvprefix.conversations.readers.MOST_BYTES", 1 << 20)
    monkeypatch.setattr("kvprefix.files.jsonlines.MOST_BYTES", 1 << 20)
    with pytest.raises(InputError, match=f"{said} is longer than 1 MB"):
        read(pack(FORMS[form]([record("a"), record("x" * (3 << 20))])))


@pytest.mark.parametrize("start", [b"[", b'[{"id": 0}, {"a": '])
def test_a_deeply_nested_array_is_refused_at_once(read, start):
    tracemalloc.start()
    with pytest.raises(InputError, match=r"record [01] is not valid JSON \(it is nested too deeply\)"):
        read(start + b"[" * 400_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: is a pipe, not a file"):
        list(read_records(tmp_path / "pipe"))
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="zero: is a device, not a file"):
        list(read_records(tmp_path / "zero"))


@form
@packing
def test_byte_order_mark_and_blank_space_are_passed_over(read, form, packing):
    data = b"\xef\xbb\xbf \r\n" + FORMS[form](RECORDS) + b"\n \n"
    assert read(PACKINGS[packing](data))[0] == list(enumerate(RECORDS))


def test_members_of_one_compressed_file_are_read_on(read):
    for pack in (gzip.compress, zstandard.compress):
        data = pack(FORMS["lines"](RECORDS[:2])) + pack(FORMS["lines"](RECORDS[2:]))
        assert read(data)[0] == list(enumerate(RECORDS))


def test_array_cut_at_any_byte_gives_its_whole_records(read):
    data = FORMS["array"](RECORDS)
    one = [len(json.dumps(r, ensure_ascii=False).encode()) for r in RECORDS]
    ends = [1 + sum(one[: k + 1]) + 2 * k for k in range(len(one))]  # "[", the records, ", " between them
    for cut in range(1, len(data)):
        records, state = read(data[:cut])
        assert [record for _, record in records] == RECORDS[: sum(end <= cut for end in ends)]
        assert state.cut_at_byte == cut


def test_lines_cut_at_any_byte_give_their_whole_records(read):
    lines = FORMS["lines"](RECORDS).splitlines(keepends=True)
    ends = list(itertools.accumulate(map(len, lines)))
    for cut in range(ends[0], ends[-1]):
        records, state = read(b"".join(lines)[:cut])
        assert [record for _, record in records] == RECORDS[: sum(end - 1 <= cut for end in ends)]
        is_whole = cut in ends or cut + 1 in ends  # a last line without its newline is whole
        assert state.cut_at_byte == (None if is_whole else cut)


@form
@pytest.mark.parametrize("packing, size", [("gz", 12), ("gz", 3000), ("zst", 3000)])  # 12 kB, 3 MB
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_cut_compressed_file_gives_all_that_can_be_unpacked(read, form, packing, size, share):
    rng = random.Random(0)
    many = [record(rng.randbytes(500).hex(), id=k) for k in range(size)]
    packed = PACKINGS[packing](b" " + FORMS[form](many))
    packed = packed[: int(len(packed) * share)]
    unpacked = UNPACK_CUT[packing](packed)
    n_whole = unpacked.count(b"]}")  # each record ends so, and nothing else does
    assert 0 < n_whole < size or share == 0.999
    records, state = read(packed)
    assert [record for _, record in records] == many[:n_whole]
    assert state.cut_at_byte == len(unpacked)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_file_cut_in_its_second_member_is_said_to_be_cut(read, pack):
    lines = FORMS["lines"](RECORDS)
    second = pack(FORMS["lines"](RECORDS))
    records, state = read(pack(lines) + second[: len(second) // 2])
    assert [record for _, record in records][:4] == RECORDS
    assert state.cut_at_byte is not None


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_compressed_file_cut_before_its_first_record_is_said_to_be_cut(tmp_path, pack):
    path = tmp_path / "name"
    path.write_bytes(pack(FORMS["lines"](RECORDS))[:13])
    with pytest.raises(InputError, match="name: .*cut"):
        list(read_records(path))


def test_array_is_streamed(tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(FORMS["array"]([record("x" * 1000) for _ in range(5000)]))  # 5 MB
    state = ReadState()
    records = read_records(path, state)
    assert next(records)[0] == 0
    assert state.bytes_read < 500_000


def test_line_that_is_no_json_gives_none_and_the_rest_goes_on(read):
    lines = FORMS["lines"](RECORDS).split(b"\n")
    lines[1] = lines[1][:-5]
    lines[2] = b'{"not utf-8": "\xff"}'
    records, state = read(b"\n".join(lines))
    assert records == [(0, RECORDS[0]), (1, None), (2, None), (3, RECORDS[3])]
    assert state.cut_at_byte is None


def test_deeply_nested_line_is_no_json(read):
    records, _ = read(b'{"a": 1}\n{"a":' + b"[" * 50_000 + b'\n{"a": 2}\n')
    assert records == [(0, {"a": 1}), (1, None), (2, {"a": 2})]


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "is empty"),
        (b" \r\n\t\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "neither a JSON array nor JSON Lines"),
        (b"\xff\xfe[\x00]\x00", "is UTF-16 text; write it as UTF-8 first"),
        ('[{"id": 0}]'.encode("utf-16-be"), "is UTF-16 text"),
        ('[{"id": 0}]'.encode("utf-32"), "is UTF-32 text"),
        (bz2.compress(b"[]"), "is compressed with bzip2; unpack it first"),
        (lzma.compress(b"[]"), "is compressed with xz; unpack it first"),
        (pack_zip(), "is a zip archive; unpack it first"),
        (pack_tar(), "is a tar archive; unpack it first"),
        (gzip.compress(pack_tar(), mtime=0), "is a tar archive; unpack it first"),
        (zstandard.compress(gzip.compress(b"[]", mtime=0)), "is compressed twice"),
        (b"7z\xbc\xaf\x27\x1c" + b"\0" * 40, "is a 7z archive; unpack it first"),
        (b"PAR1" + b"\0" * 40, "is Parquet"),
        (b'[[1], [2], "\\x"]', r"record 2 is not valid JSON \(Invalid .escape"),
        (b'[{"id": 0}, ]', "record 1 is not valid JSON"),
        (b'[{"id": 0} {"id": 1}]', "record 1 is not valid JSON"),
        (b'"text"', "neither a JSON array nor JSON Lines"),
        (b'{\n "conversations": []\n}\n', "line 1 is not a JSON object"),
        (b'{"conversations": [', "line 1 is not a JSON object"),
        (b'[{"id": 0}, {"id": 1}, {"id" 2}, {"id": 3}]', "record 2 is not valid JSON"),
        (b'[{"id": 0}, {"id": "\xff"}]', "record 1 is not valid JSON"),
        (b'[{"id": 0}] and more', "record 1 is not valid JSON"),
        (b"\x1f\x8b\x08" + b"\x00" * 7 + b"\xff" * 20, "cannot be decompressed"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 20, "cannot be decompressed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",  # a packed file holds its time
)
def test_unreadable_file_is_refused_by_name(tmp_path, data, said):
    path = tmp_path / "some-name.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"some-name.json: .*{said}"):
        list(read_records(path))


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="absent.json: No such file"):
        list(read_records(tmp_path / "absent.json"))
    with pytest.raises(InputError, match="Is a directory"):
        list(read_records(tmp_path))


def test_a_malformed_record_near_the_end_is_not_taken_for_a_cut(tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(b'[{"id": "a"}, {"id" "b"}, {"id": "c\\n"}]')  # an escape within the last 12 bytes
    with pytest.raises(InputError, match="record 1 is not valid JSON"):
        list(read_records(path))
