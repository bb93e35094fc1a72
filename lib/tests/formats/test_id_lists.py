"""Lists of ids are taken out of JSON text exactly, and put back in their places."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.files.paths import InputError
from kvprefix.formats.documents import list_files, read_documents
from kvprefix.formats.id_lists import take_ids

IDS = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([2**64 - 1, 0, 10**19]), max_size=4)
OTHER = st.lists(st.integers(-9, -1) | st.text(max_size=3) | st.floats(0, 1), min_size=1, max_size=3)
NAMES = st.sampled_from(["ids", "x", 'a"ids', "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner | IDS, max_size=3), max_leaves=12,
)  # fmt: skip


def as_lists(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: as_lists(one) for name, one in value.items()}
    return [as_lists(one) for one in value] if isinstance(value, list) else value


@given(st.lists(st.dictionaries(st.sampled_from(["ids", "x"]), VALUES | IDS | OTHER, max_size=3), max_size=3))
@pytest.mark.parametrize("indent", [None, 1])
def test_what_is_read_equals_what_pythons_json_reads(tmp_path_factory, indent, objects):
    folder = tmp_path_factory.mktemp("ids")
    lines, whole = folder / "lines", folder / "whole"
    lines.write_text("\n".join(map(json.dumps, objects)))
    whole.write_text(json.dumps(objects, indent=indent, ensure_ascii=False))
    for path in (lines, whole):
        found = list(read_documents(path, "ids", "expected"))
        assert [one.fault for one in found] == [None] * len(objects)
        assert [as_lists(one.record) for one in found] == objects


@pytest.mark.parametrize(
    ("text", "rest", "ids"),
    [
        ('{"ids": [1, 22], "x": [3]}', '{"ids": [2], "x": [3]}', [1, 22]),
        ('{"ids" : [ ] }', '{"ids" : [0] }', []),
        ('{"ids":[18446744073709551615]}', '{"ids":[1]}', [2**64 - 1]),
        ('{"ids":[18446744073709551616]}', None, []),
        ('{"ids":[1,-2]}', None, []),
        ('{"ids":[01]}', None, []),
        ('{"ids":[1.5]}', None, []),
        ('{"ids":[1', None, []),
        ('{"ids":', None, []),
        ('["ids", [1]]', None, []),
        ('{"x": "\\"ids\\": [1]"}', None, []),
        ('{"x": "\\\\", "ids": [1]}', '{"x": "\\\\", "ids": [1]}', [1]),
    ],
)
def test_a_list_of_whole_numbers_alone_is_taken(text, rest, ids):
    assert take_ids(text.encode(), "ids")[0].decode() == (text if rest is None else rest)
    assert take_ids(text.encode(), "ids")[1].tolist() == ids


def test_many_empty_lists_have_room():
    text = b"[" + b",".join([b'{"ids":[]}'] * 5000) + b"]"
    assert take_ids(text, "ids")[0] == text.replace(b"[]", b"[0]")


def test_a_key_twice_in_an_object_is_a_fault(tmp_path):
    (tmp_path / "t").write_text('{"ids": [1], "ids": [2]}')
    assert "names ids twice" in next(read_documents(tmp_path / "t", "ids", "")).fault


def test_a_folder_is_listed_by_name_and_other_files_are_counted(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.json", "a.jsonl.gz", "deep/c.json.zst", "notes.txt", "data.parquet", ".hidden.json"):
        (tmp_path / name).write_bytes(b"")
    files, others = list_files(tmp_path)
    assert [one.name for one in files] == ["a.jsonl.gz", "b.json", "c.json.zst"] and others == 2
    with pytest.raises(InputError, match="deep: holds no JSON files"):
        (tmp_path / "deep" / "c.json.zst").unlink()
        list_files(tmp_path / "deep")


def test_a_damaged_file_is_named(tmp_path):
    packed = gzip.compress(b'{"ids": [1]}\n' * 5000)
    (tmp_path / "cut").write_bytes(packed[:-9])
    with pytest.raises(InputError, match="cut: is cut or damaged after line"):
        list(read_documents(tmp_path / "cut", "ids", ""))
    (tmp_path / "text").write_text('{"ids": [1]}\nnot JSON\n{"ids": [2]}\n')
    assert [one.fault is None for one in read_documents(tmp_path / "text", "ids", "")] == [True, False, True]
