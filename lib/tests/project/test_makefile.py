"""What make refuses before it does anything, and the line that it says would be right."""

import os
import shlex
import shutil
import subprocess

import pytest
from places import PROJECT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")


def make(*words):
    """Ask make what it would do; a make that runs these tests hands nothing down."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "-n", *words], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["report", "MAX_CONVERSATIONS=10"], "make report NAME=mine MAX_CONVERSATIONS=10."),
        (["report", "KV_MODEL=Qwen3-8B", "JOBS=2"], "make report NAME=mine KV_MODEL=Qwen3-8B JOBS=2."),
        (["SEED=", "BLOCK_SIZE=8", "report"], "make report NAME=mine BLOCK_SIZE=8 SEED=."),
        (["report", "DATA=my '$x'; `a`.json"], "make report NAME=mine DATA='my '\\''$x'\\''; `a`.json'."),
        (
            ["engine-check", "URL=http://127.0.0.1:1", "ARRIVAL_RATE=0.05"],
            "make engine-check NAME=mine ARRIVAL_RATE=0.05 URL=http://127.0.0.1:1.",
        ),
    ],
)
def test_another_report_than_the_default_needs_a_name(words, right):
    done = make(*words)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"would change reports/default; give the report a name: {right}" in done.stderr
    line = done.stderr.partition("give the report a name: make ")[2].removesuffix(".  Stop.\n")
    assert sorted(shlex.split(line)) == sorted([*words, "NAME=mine"])  # as a shell reads it
    assert make(*shlex.split(line)).returncode == 0


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["report"], "reports/default"),
        (["report", "JOBS=2", "SCHEDULER=tcp://127.0.0.1:1"], "reports/default"),
        (["report", "NAME=default", "SEED=1"], "reports/default"),
        (["report", "NAME=mine", "MAX_CONVERSATIONS=10"], "reports/mine"),
        (["quick"], "reports/quick"),
        (["quick", "BLOCK_SIZE=8", "MAX_CONVERSATIONS=5"], "reports/quick"),
        (["engine-check", "URL=http://127.0.0.1:1"], "reports/default"),
    ],
)
def test_what_has_a_name_or_changes_nothing_runs(words, folder):
    done = make(*words)
    assert done.returncode == 0 and f"--output-dir {folder} " in done.stdout
