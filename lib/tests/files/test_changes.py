"""Files that change while they are read, and cached files that changed since they were made."""

import os
import shutil

import pytest
from samples import record, save_small_tokenizer, write_records

from kvprefix.conversations.chats import Conversations
from kvprefix.files.sealed import SEAL, ChangedError, expect_unchanged, stamp_file
from kvprefix.studies import cache as study
from kvprefix.studies.sharing import analyse, write_results
from kvprefix.tokens import tokenizer as tokenizer_module
from kvprefix.tokens.tokenizer import find_tokenizer, load_tokenizer
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

RECORDS = [record(f"Question {k} about blocks", f"Answer {k}", f"Question {k} again") for k in range(12)]


def append(path):
    with open(path, "a") as file:
        file.write("\n")


def change_one_byte(path):
    """Change a file's content alone: size and time of change stay."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"Question 7 about", b"Question 8 about"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_and_restore(path):
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"Question 7 about", b"Question 8 about"))
    path.write_bytes(whole)


def replace_by_another(path):
    write_records(path.with_suffix(".new"), [record("Other"), *RECORDS])
    os.replace(path.with_suffix(".new"), path)


def cut(path):
    os.truncate(path, 700)


CHANGES = [append, change_one_byte, change_and_restore, replace_by_another, cut, os.unlink]


@pytest.fixture
def data(tmp_path):
    return write_records(tmp_path / "data.json", RECORDS)


@pytest.fixture
def parameters(data, small_folder):
    return Parameters(data=str(data), tokenizer=str(small_folder))


def change_while_read(monkeypatch, path, change):
    """Let a file change when the third conversation has been read from it."""
    read = Conversations.read

    def read_and_change(self, counts=None):
        for number, one in enumerate(read(self, counts)):
            if number == 2:
                change(path)
            yield one

    monkeypatch.setattr(Conversations, "read", read_and_change)


@pytest.mark.parametrize("change", CHANGES)
def test_data_that_changes_while_it_is_tokenised_is_said_and_not_kept(derived, parameters, data, monkeypatch, change):
    with monkeypatch.context() as patch:
        change_while_read(patch, data, change)
        with pytest.raises(ChangedError, match=f"^{data}: changed while it was read, so nothing made of it is kept"):
            load_workload(parameters, progress=False)
    assert not list(derived.rglob("workload-*")) and not list(derived.rglob("joined-*"))
    write_records(data, RECORDS)
    assert load_workload(parameters, progress=False).dataset["conversations"] == 12


def test_data_that_breaks_while_it_is_read_is_said_to_have_changed(derived, parameters, data, monkeypatch):
    # what the reader runs into is the change's fault, not the data's
    def fail(self, counts=None):
        data.write_text("[{]")
        yield from read(self, counts)

    read = Conversations.read
    monkeypatch.setattr(Conversations, "read", fail)
    with pytest.raises(ChangedError, match="changed while it was read"):
        load_workload(parameters, progress=False)


@pytest.mark.parametrize("change", CHANGES)
def test_data_that_changed_since_it_was_tokenised_is_not_read_again(derived, parameters, data, tmp_path, change):
    # before, a trace had new texts beside old counts
    workload = load_workload(parameters, progress=False)
    results = analyse(workload)
    write_results(results, workload, tmp_path / "before")
    change(data)
    write_results(results, workload, tmp_path / "out")
    before, after = ((tmp_path / name / "multi_turn_trace.jsonl").read_bytes() for name in ("before", "out"))
    assert before == after


def test_timing_file_that_changes_is_said_and_no_table_is_kept(derived, parameters, tmp_path, monkeypatch):
    stamps = tmp_path / "stamps.txt"
    stamps.write_text("".join(f"{k}.5\n" for k in range(12)))
    workload = load_workload(Parameters(**parameters.as_dict() | {"arrivals": f"stamps:{stamps}"}), progress=False)
    measure, done = study.measure_needs, []

    def measure_and_change(workload, seed, shares):
        done.append(seed)
        if len(done) == 3:
            stamps.write_text("".join(f"{k}.25\n" for k in range(12)))
        return measure(workload, seed, shares)

    monkeypatch.setenv("KVPREFIX_SCHEDULER", "here")
    monkeypatch.setattr(study, "measure_needs", measure_and_change)
    with pytest.raises(ChangedError, match=f"^{stamps}: changed while it was read"):
        study.study_needs(workload, (0.7,))
    assert not list(derived.glob("study-*"))
    assert len(study.study_needs(workload, (0.7,))) == 4
    with monkeypatch.context() as patch, pytest.raises(ChangedError, match=f"^{stamps}: changed while it was read"):
        patch.setattr("kvprefix.studies.sharing.make_trace", lambda *_: append(stamps))
        analyse(workload)


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
def test_tokenizer_that_changes_between_its_checksum_and_its_use_is_said(derived, data, tmp_path, monkeypatch, name):
    folder = save_small_tokenizer(tmp_path / "tokenizer")
    load = tokenizer_module._load

    def load_and_change(source):
        found = load(source)
        append(folder / name)
        return found

    monkeypatch.setattr(tokenizer_module, "_load", load_and_change)
    with pytest.raises(ChangedError, match=f"tokenizer {folder}: .* changed while it was read; run again"):
        load_workload(Parameters(data=str(data), tokenizer=str(folder)), progress=False)
    assert not list(derived.rglob("part-*"))


def test_a_stamp_that_holds_raises_nothing(data):
    with expect_unchanged(stamp_file(data)):
        pass
    with pytest.raises(RuntimeError), expect_unchanged(stamp_file(data)):
        raise RuntimeError


def add_file(folder):
    (folder / "added_tokens.json").write_text("{}")


def flip_bit(folder):
    data = bytearray((folder / "tokenizer.json").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "tokenizer.json").write_bytes(data)


DAMAGES = {
    "tokenizer.json": flip_bit,
    "chat_template.jinja": lambda folder: append(folder / "chat_template.jinja"),
    "tokenizer_config.json": lambda folder: (folder / "tokenizer_config.json").unlink(),
    "added_tokens.json": add_file,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_tokenizer_is_named_and_made_again(bundled_folder, derived, monkeypatch, capsys, name):
    shutil.copytree(bundled_folder, derived / bundled_folder.name)
    found = find_tokenizer()
    assert found.folder.parent == derived and "making" not in capsys.readouterr().out  # the copy serves
    DAMAGES[name](found.folder)
    assert find_tokenizer() == found
    assert f"{found.folder.name}/{name}: this cached file was cut, altered, added or removed" in capsys.readouterr().out
    names = sorted(path.name for path in bundled_folder.iterdir())
    assert sorted(path.name for path in found.folder.iterdir()) == names
    assert load_tokenizer(found)[0].chat_template == tokenizer_module.QWEN_TEMPLATE


def test_tokenizer_without_its_seal_is_made_again(bundled_folder, derived):
    shutil.copytree(bundled_folder, derived / bundled_folder.name)
    (derived / bundled_folder.name / SEAL).unlink()
    flip_bit(derived / bundled_folder.name)
    assert find_tokenizer().fingerprint == find_tokenizer(bundled_folder).fingerprint
