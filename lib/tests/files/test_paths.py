"""Files that appear whole or not at all, and what a killed run leaves of them."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from kvprefix.__main__ import main
from kvprefix.files.paths import InputError, atomic_path, write_bytes
from kvprefix.files.sealed import read_sealed, sha256_file, write_sealed

KILLED = """
import os, signal, sys
from kvprefix.files.paths import atomic_path

with atomic_path(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    input()
"""


def start(path, then, age_s=10):
    """Start a process that writes half of a file and dies or waits; return it and the temporary file."""
    command = [sys.executable, "-c", KILLED, str(path), then]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, text=True, **pipes)
    temporary = path.parent / process.stdout.readline().strip()
    os.utime(temporary, (time.time() - age_s,) * 2)  # files of the last two seconds are left alone
    return process, temporary


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "table.csv"
    process, temporary = start(path, "die")
    assert process.wait() == -signal.SIGKILL and temporary.read_bytes() == b"half" and not path.exists()
    process.stdin.close(), process.stdout.close()
    write_bytes(path, "whole")
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"] and path.read_text() == "whole"


@pytest.mark.parametrize("age_s", [10, 7200])  # however long it has written nothing
def test_what_a_living_run_writes_is_left_alone(tmp_path, age_s):
    path = tmp_path / "table.csv"
    process, temporary = start(path, "wait", age_s)
    write_bytes(path, "mine")
    assert temporary.exists() and path.read_text() == "mine"
    process.communicate("")
    assert process.returncode == 1  # input() met the end; its file is removed, ours stays
    assert not temporary.exists() and path.read_text() == "mine"


def test_file_of_an_hour_ago_is_removed_and_another_file_s_is_not(tmp_path):
    for name in (".table.old.csv", ".table.old.json", ".other.old.csv"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    write_bytes(tmp_path / "table.csv", b"")
    assert sorted(one.name for one in tmp_path.iterdir()) == [".other.old.csv", ".table.old.json", "table.csv"]


def test_failure_leaves_the_old_file(tmp_path):
    write_bytes(tmp_path / "table.csv", "old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "table.csv") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert [one.read_text() for one in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("damage", [lambda text: text[:-1], lambda text: text.replace("1", "2"), lambda text: "[]"])
def test_sealed_values_are_read_whole_or_not_at_all(tmp_path, damage):
    write_sealed(tmp_path / "values.json", {"a": [1, None, "\u00e9"]})
    assert read_sealed(tmp_path / "values.json") == {"a": [1, None, "\u00e9"]}
    (tmp_path / "values.json").write_text(damage((tmp_path / "values.json").read_text()))
    assert read_sealed(tmp_path / "values.json") is None
    assert read_sealed(tmp_path / "absent.json") is None


def test_checksum_is_the_same_with_progress(tmp_path):
    (tmp_path / "data").write_bytes(bytes(range(256)) * 50_000)  # more than is read at a time
    assert sha256_file(tmp_path / "data") == sha256_file(tmp_path / "data", shown=True)
    with pytest.raises(InputError, match="absent"):
        sha256_file(tmp_path / "absent", shown=True)


def make_node(path, kind):
    """Make what is no regular file, below the test's own folder."""
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.relpath(path))  # an absolute path may be too long
    elif hasattr(os, "mknod") and os.geteuid() == 0:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # the null device's numbers, under a name of our own
    else:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize("through", ["itself", "a link", "a link to a link"])
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a socket", "a device"])
def test_only_regular_files_are_written(tmp_path, monkeypatch, capsys, kind, through):
    # a device was replaced by a regular file where the user may write to its folder
    monkeypatch.chdir(tmp_path)
    node = path = tmp_path / "node"
    make_node(node, kind)
    for k in range(["itself", "a link", "a link to a link"].index(through)):
        (tmp_path / f"link{k}").symlink_to(path)
        path = tmp_path / f"link{k}"
    before = os.lstat(node)
    with pytest.raises(InputError, match=f"{path}: is {kind}; give a file, which is made or replaced"):
        write_bytes(path, b"content")
    (tmp_path / "in.jsonl").write_text('{"request_id": "a", "prompt_token_ids": [1]}\n')
    log = tmp_path / "log.jsonl"
    log.write_text('{"messages": [{"role": "user", "content": "Hi"}], "timestamp": 1.0}\n')
    assert main(["replay", "in.jsonl", "--out", str(path)]) == 2
    assert main(["convert", str(log), str(path), "--to", "openai-batch"]) == 2
    error = capsys.readouterr().err
    assert error.count(f"error: {path}: is {kind};") == 2 and error.count("\n") == 2
    after = os.lstat(node)
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "table.csv").symlink_to("disk/table.csv")
    for content in (b"made", b"replaced"):
        write_bytes(tmp_path / "table.csv", content)
        assert (tmp_path / "disk/table.csv").read_bytes() == content and (tmp_path / "table.csv").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["table.csv"]
