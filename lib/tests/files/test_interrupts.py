"""Ctrl-C ends the command with one line at any moment, in the middle of imports too."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from places import PROJECT
from samples import record, write_records

from kvprefix.files import interrupts

NOTEBOOKS = PROJECT / "notebooks"
RECORDS = [record(f"Question {k} about blocks", f"Answer {k}", f"Question {k} again") for k in range(30)]
# The command, which says when it has begun; before that an interrupt is the interpreter's own business.
COMMAND = """
import runpy
from kvprefix.files import interrupts
interrupts.watch()
print("begun", flush=True)
runpy.run_module("kvprefix", run_name="__main__", alter_sys=True)
"""
MOMENTS = int(os.environ.get("KVPREFIX_MOMENTS", 0))  # of each command; 0 for the suite's own few


def begin(arguments, derived):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    process = subprocess.Popen(command, env={**os.environ, "KVPREFIX_DERIVED": str(derived)}, **pipes)
    assert process.stdout.readline() == "begun\n"
    return process


def list_commands(folder, tokenizer):
    data = ["--data", write_records(folder / "data.json", RECORDS), "--tokenizer", tokenizer]
    log = [{"messages": [{"role": "user", "content": f"Question {k}"}], "timestamp": k} for k in range(200)]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    one = {"input_length": 1024, "output_length": 1}
    blocks = [{"timestamp": k, **one, "hash_ids": [2 * k, 2 * k + 1]} for k in range(99)]
    (folder / "blocks.jsonl").write_text("\n".join(map(json.dumps, blocks)))
    return {
        "run": ["run", *data, "--output-dir", folder / "out"],
        "prepare": ["prepare", *data],
        "convert": ["convert", folder / "log.jsonl", folder / "out" / "x.parquet", "--to", "parquet", *data[2:]],
        "curve": ["curve", folder / "blocks.jsonl"],
        "notebooks": ["notebooks", NOTEBOOKS / "10-workload.ipynb", *data, "--output-dir", folder / "out"],
    }


@pytest.mark.parametrize(
    ("name", "moments"), [("run", 8), ("prepare", 2), ("convert", 2), ("curve", 3), ("notebooks", 3)]
)
@pytest.mark.parametrize("to", ["group"] if not MOMENTS else ["group", "process"])
def test_ctrl_c_at_any_moment_ends_with_one_line(tmp_path, small_folder, name, moments, to):
    command, moments, left = list_commands(tmp_path, small_folder)[name], MOMENTS or moments, []
    start = time.monotonic()
    with begin(command, tmp_path / "derived") as process:
        assert process.communicate()[1] == ""
    whole_s = time.monotonic() - start
    for k in range(moments):
        shutil.rmtree(tmp_path / "derived", ignore_errors=True)
        with begin(command, tmp_path / "derived") as process:
            time.sleep(k / moments * whole_s)
            (os.killpg if to == "group" else os.kill)(process.pid, signal.SIGINT)
            out, error = process.communicate(timeout=60)
        if process.returncode == 0 and k:  # it had ended: this machine is quicker than it was
            continue
        left.append((k, process.returncode, error))
    assert left == [(k, 130, f"{interrupts.LINE}\n") for k, *_ in left] and left
    if name != "notebooks":  # whose kernels end with this process; the next run removes what they leave
        assert not list((tmp_path / "out").rglob(".*"))
