"""Disks that are full or read-only: mounted in a name space of the test's own, where the machine allows it."""

import os
import shlex
import subprocess
import sys

import pytest
from places import PROJECT
from samples import record, write_records

RECORDS = [record(f"Question {k} about blocks " * 20, f"Answer {k}", f"Question {k} again") for k in range(60)]
STUDY = """
import sys
from kvprefix.__main__ import main
from kvprefix.traces.parameters import Parameters
from kvprefix.studies.cache import study_needs
from kvprefix.traces.workload import load_workload

study_needs(load_workload(Parameters(data=sys.argv[1], tokenizer=sys.argv[2])), (0.7,))
"""


def run_mounted(mount, *command, **environment):
    """Run a command after a mount that nobody else sees."""
    script = f"{mount} && exec {shlex.join(map(str, command))}"
    return subprocess.run(
        ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", script], capture_output=True, text=True,
        env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def needs_mounts(tmp_path):
    try:
        done = run_mounted(f"mount -t tmpfs -o size=64k tmpfs {tmp_path}", "true")
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode:
        pytest.skip("nothing can be mounted here")


@pytest.fixture
def run(tmp_path, small_folder):
    """Return a function that runs our command on a small data set, below a mount."""
    data = write_records(tmp_path / "data.json", RECORDS)

    def run(mount, *command, **environment):
        inputs = ["--data", data, "--tokenizer", small_folder]
        return run_mounted(mount, sys.executable, "-m", "kvprefix", *command, *inputs, **environment)

    run.data, run.tokenizer = data, small_folder
    return run


def test_a_complete_cache_on_a_read_only_disk_serves(run, derived, tmp_path):
    data = ["run", "--skip-visualization", "--output-dir"]
    assert run("true", *data, tmp_path / "first").returncode == 0
    study = sys.executable, "-c", STUDY, run.data, run.tokenizer
    assert run_mounted("true", *study).returncode == 0
    mount = f"mount --bind {derived} {derived} && mount -o remount,ro,bind {derived} && ! touch {derived}/x 2>/dev/null"
    done = run(mount, *data, tmp_path / "second")
    assert (done.returncode, done.stderr) == (0, "")
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes()
    done = run_mounted(mount, *study)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(mount, *data, tmp_path / "third", "--max-conversations", "5")  # which is not there
    assert done.returncode == 2 and done.stderr.startswith(f"error: {derived}/tokens-")
    assert done.stderr.endswith(": Read-only file system\n") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("size", ["4k", "24k", "64k", "128k"])
def test_a_full_disk_under_the_cache_is_named(run, derived, tmp_path, size):
    derived.mkdir()
    done = run(f"mount -t tmpfs -o size={size} tmpfs {derived}", "run", "--output-dir", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.startswith(f"error: {derived}/")
    assert done.stderr.endswith(": No space left on device\n") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("size", ["4k", "64k", "128k", "256k"])
def test_a_full_disk_under_the_results_is_named(run, tmp_path, size):
    out = tmp_path / "out"
    out.mkdir()
    done = run(f"mount -t tmpfs -o size={size} tmpfs {out}", "run", "--output-dir", out)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {out}")
    assert done.stderr.endswith(": No space left on device\n") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("size", ["12k", "40k"])
def test_a_full_disk_under_a_notebook_is_named(run, tmp_path, size):
    out = tmp_path / "out"
    out.mkdir()
    notebook = PROJECT / "notebooks/10-workload.ipynb"
    done = run(f"mount -t tmpfs -o size={size} tmpfs {out}", "notebooks", notebook, "--output-dir", out)
    assert done.returncode in (1, 2) and done.stderr.startswith("error: ")  # 1: a cell's own error
    assert f"{out}/" in done.stderr and "No space left on device" in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_under_the_unpacked_tokenizer_is_named(derived):
    derived.mkdir()
    find = "from kvprefix.__main__ import main; main(['prepare', '--max-conversations', '1'])"
    done = run_mounted(f"mount -t tmpfs -o size=64k tmpfs {derived}", sys.executable, "-c", find)
    assert done.stderr.startswith(f"error: {derived}/tokenizer-qwen2.5-") and "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
