"""A command imports what it uses: those that only count blocks or tokens start without the heavy packages."""

import json
import subprocess
import sys

import pytest
from places import SAMPLE

from kvprefix.__main__ import main
from kvprefix.commands import NAMES

HEAVY = {"pandas", "scipy", "transformers", "tokenizers", "matplotlib", "dask", "httpx"}
PROGRAM = """
import contextlib, json, sys
from kvprefix.__main__ import main

with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory, shared_derived):
    """Return a folder with a trace in each of our formats and a file of requests."""
    folder = tmp_path_factory.mktemp("files")
    main(["run", "--data-path", str(SAMPLE), "--output-dir", str(folder), "--skip-visualization", "--parquet"])
    main(["convert", str(folder / "multi_turn_trace.parquet"), str(folder / "blocks.jsonl"), "--to", "mooncake"])
    requests = [{"request_id": str(k), "prompt_token_ids": [*range(40 + k)], "timestamp": k} for k in range(9)]
    (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
    return folder


def find_imported(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "error" not in done.stderr, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("arguments", [
    "curve blocks.jsonl --policy lru,opt,s3fifo --capacities 10,100",
    "curve multi_turn_trace.parquet --capacities 10 --format json",
    "replay requests.jsonl --out a.jsonl --num-gpu-blocks 9",
    "replay requests.jsonl --out a.jsonl --engine sglang",
    "replay requests.jsonl --out a.jsonl --concurrent",
    "convert blocks.jsonl b.jsonl --to bailian",
    "convert multi_turn_trace.parquet m.jsonl --to mooncake",
    "convert multi_turn_trace.jsonl c.json --to vllm-multi-turn",
    "verify",
    "inspect multi_turn_trace.jsonl",
    "inspect blocks.jsonl --format json",
    "inspect multi_turn_trace.parquet",
])  # fmt: skip
def test_counting_needs_no_heavy_package(files, arguments):
    assert not find_imported(files, *arguments.split()) & HEAVY


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_needs_no_heavy_package(tmp_path, name):
    imported = find_imported(tmp_path, *name.split(), "--help")
    assert not imported & HEAVY
    assert name == "curve" or not imported & {"numba", "numpy", "pyarrow"}  # curve lists the policies


def test_scipy_can_be_imported_after_the_compiler_and_compiled_code_uses_it():
    program = """
from kvprefix.files.compiler import load_compiler
load_compiler()
import numba, numpy as np, scipy.linalg
print(numba.njit(lambda a: np.linalg.inv(a @ a))(2 * np.eye(2))[0, 0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.25"
