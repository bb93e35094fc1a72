"""What make refuses before it does anything, and the line that it says would be right."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from places import PROJECT

from kvprefix.traces.table import TABLE, format_help

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")


def make(*words, run=False):
    """Ask make what it would do, or `run` it; a make that runs these tests hands nothing down."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", *([] if run else ["-n"]), *words]
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_make_prints_the_table_of_parameters_and_knows_its_names():
    shown = make("-s", "help", run=True).stdout
    assert f"\nParameters of a report and their defaults:\n{format_help(TABLE)}\n" in shown
    own = shown.partition("Variables of the targets and their defaults:\n")[2].splitlines()
    names = [*map(str.upper, TABLE), *(line.split("=")[0].strip() for line in own)]
    assert "NAME" in names and len(own) == 14 and all(len(line.split("=")[1].split(None, 1)) for line in own)
    refused = make("report", "BLOK_SIZE=8")
    assert refused.returncode == 2 and f"unknown parameter BLOK_SIZE; known: {' '.join(names)}" in refused.stderr
    assert "did you mean BLOCK_SIZE?" in refused.stderr
    assert "did you mean" not in make("report", "XXXXXXXX=8").stderr


def test_make_help_needs_no_environment_and_no_new_python():
    shown = make("help", f"PYTHON={sys.executable}", run=True)
    assert "how conversations start: poisson, auto, data, gamma:CV" in shown.stdout
    shown = make("help", "PYTHON=/no/python", run=True)
    assert shown.returncode == 0 and "NAME=default" in shown.stdout
    assert "Python 3.11 or newer shows them" in shown.stdout


@pytest.mark.parametrize("given", [f"{name.upper()}={one.show(one.example)}" for name, one in TABLE.items()])
def test_make_hands_on_each_parameter_and_nothing_else(given):
    done = make("report", "NAME=no-such", given)
    name, _, value = given.partition("=")
    (line,) = [line for line in done.stdout.splitlines() if "parameters.txt.new" in line and "printf" in line]
    assert f"printf '%s\\n' {name}='{value}' | " in line


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


def test_a_report_runs_every_notebook_but_the_one_to_play_with():
    (line,) = [line for line in make("report", "NAME=no-such").stdout.splitlines() if "kvprefix notebooks" in line]
    run = {word for word in line.split() if word.startswith("notebooks/")}
    written = {f"notebooks/{path.name}" for path in (PROJECT / "notebooks").glob("[0-9]*.ipynb")}
    assert written - run == {"notebooks/05-explore.ipynb"} and run < written
