"""The joined parts of a workload: equal to the parts, mapped, made whole or not at all, made again when altered."""

import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from pyarrow import feather
from samples import record, write_records

from kvprefix.files.mapped import map_array, release
from kvprefix.files.paths import InputError
from kvprefix.tokens import parts as parts_module
from kvprefix.tokens import store as tokenstore
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.parquet import write_trace
from kvprefix.traces.workload import load_workload, make_trace

RECORDS = [
    record(*[f"Question {k}.{m} about blocks" if m % 2 == 0 else f"Answer {k}.{m}" for m in range(1 + k % 5)])
    for k in range(12)
]
FILES = [".seal", "output_tokens", "own_is_template", "own_tokens", "rows.arrow", "said", "said_lengths"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts_module, "PART_CONVERSATIONS", 3)


@pytest.fixture
def parameters(tmp_path, small_folder):
    return Parameters(data=str(write_records(tmp_path / "data.json", RECORDS)), tokenizer=str(small_folder))


def load(parameters):
    return load_workload(parameters, progress=False)


def joined_in(derived):
    return list(derived.glob("tokens-*/joined-*"))


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def trace_bytes(parameters, folder):
    write_trace(make_trace(load(parameters), "multi_turn"), folder / "trace.parquet")
    return (folder / "trace.parquet").read_bytes()


def test_joined_arrays_are_the_parts_one_after_the_other(derived, parameters):
    tokens, requests = load(parameters).tokens, load(parameters).requests
    names = [part.name for part in derived.glob("tokens-*/part-*")]
    assert len(names) == 4
    rows = [row for part in derived.glob("tokens-*/part-*") for row in feather.read_table(part).to_pylist()]
    in_order = sorted(rows, key=lambda row: (int(row["conversation_id"].removeprefix("record-")), row["turn"]))
    assert len(in_order) == len(requests)
    assert tokens.own.tolist() == [token for row in in_order for token in row["own_tokens"]]
    assert tokens.own_is_template.tolist() == [flag for row in in_order for flag in row["own_is_template"]]
    assert tokens.output.tolist() == [token for row in in_order for token in row["output_tokens"]]
    assert tokens.shared.tolist() == [row["shared_tokens"] for row in in_order]
    assert requests["messages"].tolist() == [row["messages"] for row in in_order]
    assert requests["conversation_index"].tolist() == [int(row["conversation_id"][7:]) for row in in_order]
    assert requests["request_id"].tolist() == [f"c{row['conversation_id'][7:]}t{row['turn']}" for row in in_order]


def test_tokens_are_mapped_and_not_to_be_written_to(derived, parameters):
    tokens = load(parameters).tokens
    for array in (tokens.own, tokens.own_is_template, tokens.output):
        assert type(array) is np.ndarray and not array.flags.owndata and not array.flags.writeable


def test_second_load_reads_no_part(derived, parameters, tmp_path):
    first = trace_bytes(parameters, tmp_path)
    for part in derived.glob("tokens-*/part-*"):
        part.unlink()
    assert trace_bytes(parameters, tmp_path) == first


@pytest.mark.parametrize("name", FILES)
def test_cut_file_is_said_and_made_again(derived, parameters, tmp_path, capsys, name):
    first = trace_bytes(parameters, tmp_path)
    (place,) = joined_in(derived)
    whole = content_of(place)
    assert sorted(whole) == FILES
    (place / name).write_bytes(whole[name][: len(whole[name]) // 2])
    assert trace_bytes(parameters, tmp_path) == first
    assert content_of(place) == whole
    said = f"{place.name}/{name}: this cached file was cut, altered"
    assert (said in capsys.readouterr().out) == (name != ".seal")


@pytest.mark.parametrize("name", FILES)
def test_flipped_bit_anywhere_is_found(derived, parameters, tmp_path, name):
    first = trace_bytes(parameters, tmp_path)
    (place,) = joined_in(derived)
    whole = (place / name).read_bytes()
    for position in range(0, len(whole), len(whole) // 5):
        (place / name).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert trace_bytes(parameters, tmp_path) == first
        assert (place / name).read_bytes() == whole


def test_file_that_grew_or_is_gone_is_made_again(derived, parameters, tmp_path, capsys):
    first = trace_bytes(parameters, tmp_path)
    (place,) = joined_in(derived)
    whole = content_of(place)
    (place / "own_tokens").write_bytes(whole["own_tokens"] + b"more")
    (place / "output_tokens").unlink()
    assert trace_bytes(parameters, tmp_path) == first
    assert content_of(place) == whole and "making it again" in capsys.readouterr().out


def test_altered_part_under_an_altered_join_is_made_again_too(derived, parameters, tmp_path, capsys):
    first = trace_bytes(parameters, tmp_path)
    (place,) = joined_in(derived)
    part = sorted(derived.glob("tokens-*/part-*"))[1]
    part.write_bytes(part.read_bytes()[:-1])
    (place / "own_tokens").write_bytes(b"")
    assert trace_bytes(parameters, tmp_path) == first
    said = capsys.readouterr().out
    assert f"{part.name}: this cached file was cut" in said and "own_tokens: this cached file was cut" in said


KILLED = """
import os, signal, sys
from kvprefix.tokens import parts
from kvprefix.tokens import store as tokenstore
from kvprefix.traces import workload
from kvprefix.traces.parameters import Parameters

write, left = tokenstore._InPlace.write, [int(sys.argv[3])]

def die(self, array):
    if not left[0]:
        self.file.write(array.tobytes()[: array.nbytes // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    write(self, array)

parts.PART_CONVERSATIONS, tokenstore._InPlace.write = 3, die
workload.load_workload(Parameters(data=sys.argv[1], tokenizer=sys.argv[2]), progress=False)
"""


@pytest.mark.parametrize("written", [0, 7])
def test_run_killed_while_it_joins_is_made_good(derived, parameters, tmp_path, monkeypatch, written):
    command = [sys.executable, "-c", KILLED, parameters.data, parameters.tokenizer, str(written)]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    (place,) = joined_in(derived)
    assert not (place / ".seal").exists()
    disturbed = trace_bytes(parameters, tmp_path)
    after = content_of(place)
    shutil.rmtree(derived)
    assert trace_bytes(parameters, tmp_path) == disturbed
    assert content_of(joined_in(derived)[0]) == after and sorted(after) == FILES


def test_full_disk_leaves_nothing_half(derived, parameters, tmp_path):
    load(parameters)
    shutil.rmtree(joined_in(derived)[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # stands for a full disk: writing on fails
    try:
        with pytest.raises(InputError, match="joined-.*File too large"):
            load(parameters)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not joined_in(derived)
    assert trace_bytes(parameters, tmp_path)


def test_joining_again_does_not_disturb_who_reads(derived, parameters):
    tokens = load(parameters).tokens
    before = tokens.own.copy()
    (place,) = joined_in(derived)
    (place / ".seal").unlink()  # as a second process sees it that started before this one was done
    inode = (place / "own_tokens").stat().st_ino
    load(parameters)
    assert (place / "own_tokens").stat().st_ino == inode and np.array_equal(tokens.own, before)


def test_what_joins_is_in_the_key(derived, parameters, monkeypatch):
    load(parameters)
    monkeypatch.setattr(tokenstore, "VERSION", tokenstore.VERSION + 1)
    load(parameters)
    load(Parameters(**parameters.as_dict() | {"max_conversations": 3}))
    assert len(joined_in(derived)) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_released_memory_is_not_resident_and_reads_back(tmp_path):
    def resident_kb():
        with open("/proc/self/status") as file:
            return int(next(line for line in file if line.startswith("RssFile")).split()[1])

    values = np.arange(4_000_000, dtype=np.int32)  # 16 MB
    values.tofile(tmp_path / "array")
    array, before = map_array(tmp_path / "array", np.int32), resident_kb()
    assert array.sum(dtype=np.int64) == 7_999_998_000_000  # n (n - 1) / 2
    assert resident_kb() - before > 15_000
    release(array[1000:-1000])
    assert resident_kb() - before < 1_000
    assert np.array_equal(array, values)


def test_release_leaves_arrays_in_memory_alone(tmp_path):
    values = np.arange(100_000)
    release(values[5:])
    assert values.sum() == 4_999_950_000
    (tmp_path / "empty").touch()
    empty = map_array(tmp_path / "empty", np.int32)
    release(empty)
    assert len(empty) == 0 and empty.dtype == np.int32
