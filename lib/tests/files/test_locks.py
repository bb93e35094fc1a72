"""Two at once: locks that end with their owner, shared things that one makes and others wait for, equal results."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from places import LIB
from samples import record, write_records

from kvprefix.__main__ import main
from kvprefix.files.paths import IN_USE, InputError, derived_folder, hold_lock
from kvprefix.files.sealed import make_once
from kvprefix.studies import cache as study
from kvprefix.studies import table as studytasks
from kvprefix.studies.draws import FIRST_DRAWS
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

RECORDS = [
    record(*[f"Question {k}.{m} about blocks" if m % 2 == 0 else f"Answer {k}.{m}" for m in range(1 + k % 5)])
    for k in range(40)
]


@pytest.fixture
def parameters(tmp_path, small_folder):
    return Parameters(data=str(write_records(tmp_path / "data.json", RECORDS)), tokenizer=str(small_folder))


def start(code, *arguments, **options):
    """Start a process that runs code; it prints a line when it is ready."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


HOLD = """
import sys
from kvprefix.files.paths import hold_lock
from pathlib import Path

with hold_lock(Path(sys.argv[1]), "is busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["killed", "by itself"])
def test_a_lock_is_refused_by_name_and_ends_with_its_owner(tmp_path, end):
    lock = tmp_path / "folder" / ".lock"
    with start(HOLD, lock, stdin=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="^folder is busy$"), hold_lock(lock, "folder is busy"):
            pass
        owner.kill() if end == "killed" else owner.communicate("")
        owner.wait()
        assert lock.exists() == (end == "killed")
    with hold_lock(lock, "folder is busy"):
        pass
    assert not lock.exists()


COUNT = """
import sys
from pathlib import Path
from kvprefix.files.sealed import make_once

counter, n = Path(sys.argv[1]), int(sys.argv[2])

def add():
    counter.write_text(str(int(counter.read_text()) + 1))
    return True

for _ in range(n):
    make_once(counter, lambda: None, add)
"""


def test_no_two_hold_a_lock_whose_file_comes_and_goes(tmp_path):
    # 3 processes add 1 to a number 200 times each: an addition beside another would lose one of the 600
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start(COUNT, counter, 200) for _ in range(3)]
    assert [(process.communicate()[0], process.returncode)[1] for process in processes] == [0, 0, 0]
    assert counter.read_text() == "600" and sorted(path.name for path in tmp_path.iterdir()) == ["counter"]


MAKE = """
import sys, time
from pathlib import Path
from kvprefix.files.sealed import make_once

path, log = Path(sys.argv[1]), Path(sys.argv[2])

def make():
    with open(log, "a") as file:
        file.write("made ")
    print("making", flush=True)
    time.sleep(1)
    path.write_text("whole")
    return path.read_text()

print(make_once(path, lambda: path.read_text() if path.exists() else None, make))
"""


def test_of_two_one_makes_and_the_other_waits(tmp_path):
    with start(MAKE, tmp_path / "thing", tmp_path / "log") as first:
        assert first.stdout.readline() == "making\n"
        with start(MAKE, tmp_path / "thing", tmp_path / "log") as second:
            said = second.communicate()[0]
    assert f"waiting for another run, which makes {tmp_path.name}/thing\n" in said and said.endswith("whole\n")
    assert (tmp_path / "log").read_text() == "made "


def test_what_is_there_is_read_while_another_holds_the_lock(tmp_path):
    with hold_lock(tmp_path / ".thing.lock", ""):
        assert make_once(tmp_path / "thing", lambda: "there", None) == "there"


def test_a_table_without_all_tasks_is_not_kept(derived, parameters, monkeypatch):
    # before, the rows of a task whose file was gone were left out of the table in silence
    workload, measure = load_workload(parameters, progress=False), study.measure_needs

    def measure_and_lose(workload, seed, shares):
        for file in derived.glob("study-needs-*/0-0.json"):
            file.unlink()
        return measure(workload, seed, shares)

    monkeypatch.setenv("KVPREFIX_SCHEDULER", "here")
    monkeypatch.setattr(study, "measure_needs", measure_and_lose)
    with pytest.raises(InputError, match=r"study-needs-.*/0-0.json: was removed or altered while"):
        study.study_needs(workload, (0.7,))
    assert not list(derived.glob("study-needs-*.json"))
    monkeypatch.setattr(study, "measure_needs", measure)
    assert len(study.study_needs(workload, (0.7,))) == FIRST_DRAWS


MEASURE = """
import sys
from kvprefix.studies import cache as study
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

measure = study.measure_needs

def measure_and_tell(workload, seed, shares):
    with open(sys.argv[3], "a") as file:
        file.write(f"{seed} ")
    print("measuring", flush=True)
    return measure(workload, seed, shares)

study.measure_needs = measure_and_tell
study.study_needs(load_workload(Parameters(data=sys.argv[1], tokenizer=sys.argv[2]), progress=False), (0.7,))
"""


def test_of_two_studies_at_once_each_task_runs_once(derived, parameters, tmp_path):
    workload = load_workload(parameters, progress=False)
    processes = [start(MEASURE, parameters.data, parameters.tokenizer, tmp_path / "seeds") for _ in range(2)]
    assert [(process.communicate()[0], process.returncode)[1] for process in processes] == [0, 0]
    assert sorted(map(int, (tmp_path / "seeds").read_text().split())) == list(range(FIRST_DRAWS))
    assert [path.suffix for path in derived.glob("study-*")] == [".json"]
    assert len(studytasks._read(studytasks._find_path(workload, "needs", [[0.7]], {}, []))) == FIRST_DRAWS


TWIN = """
import sys
from pathlib import Path
from kvprefix.tokens import parts
from kvprefix.studies import cache as study
from kvprefix.__main__ import main
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

data, tokenizer, folder = sys.argv[1:]
parts.PART_CONVERSATIONS = 3
code = main(["run", "--skip-visualization", "--data", data, "--tokenizer", tokenizer, "--output-dir", folder])
workload, folder = load_workload(Parameters(data=data, tokenizer=tokenizer), progress=False), Path(folder)
study.study_lru(workload, points=9).to_csv(folder / "lru.csv")
study.study_policies(workload, [5, 50]).to_csv(folder / "policies.csv")
sys.exit(code)
"""


def contents(*folders):
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name != IN_USE)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_equal_runs_at_once_end_as_one_alone(tmp_path, parameters, monkeypatch):
    """KVPREFIX_TWINS=20 repeats it so often, with starts up to 5 seconds apart."""

    def run(derived, *outputs, apart_s=0.0):
        monkeypatch.setenv("KVPREFIX_DERIVED", str(derived))
        processes = []
        for output in outputs:
            processes.append(start(TWIN, parameters.data, parameters.tokenizer, output))
            time.sleep(apart_s)
        assert [(process.communicate()[0], process.returncode)[1] for process in processes] == [0] * len(outputs)

    run(tmp_path / "derived", tmp_path / "alone")
    alone, cached = contents(tmp_path / "alone"), contents(tmp_path / "derived")
    policies = pd.read_csv(tmp_path / "alone/policies.csv")
    assert len(policies) == policies["seed"].nunique() * 2 * 9 and len(alone) == 10
    n = int(os.environ.get("KVPREFIX_TWINS", 2))
    for k in range(n):
        folders = [tmp_path / f"{name}-{k}" for name in ("derived", "one", "other")]
        run(*folders, apart_s=5 * k / max(n - 1, 1) if n > 2 else k)
        assert contents(folders[1]) == contents(folders[2]) == alone and contents(folders[0]) == cached
        for folder in folders:
            shutil.rmtree(folder)


@pytest.mark.parametrize("command", [["run", "--skip-visualization"], ["notebooks", "10-a.ipynb"]])
def test_a_folder_that_a_run_writes_to_is_refused_by_name(tmp_path, parameters, capsys, command):
    with hold_lock(tmp_path / "out/.lock", ""):
        arguments = ["--data", parameters.data, "--tokenizer", parameters.tokenizer, "--output-dir", tmp_path / "out"]
        assert main([*command, *map(str, arguments)]) == 2
    assert f"error: {tmp_path / 'out'}: another run is writing there; wait for it" in capsys.readouterr().err


TRACKED = [
    "data/derived/.gitkeep", "reports/agentic/report.md", "reports/bench/bench.md", "reports/default/report.md",
]  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a small project that `make clean` cleans."""
    for path in (*TRACKED, "data/derived/.lost.arrow", "data/derived/tokens-1/part", "reports/stray",
                 "reports/x/report.md"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/kvprefix").symlink_to(LIB / "kvprefix")
    for name in ("clean.py", "locked.py"):
        shutil.copy(LIB / name, tmp_path / "lib" / name)
    return tmp_path


def clean(project):
    return subprocess.run([sys.executable, project / "lib/clean.py"], capture_output=True, text=True)


def files_in(project):
    paths = [path for top in ("data", "reports") for path in (project / top).rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(project)) for path in paths)


def test_clean_removes_all_but_what_is_tracked(project):
    assert clean(project).returncode == 0
    assert files_in(project) == TRACKED


def test_clean_beside_a_running_report_removes_nothing(project, monkeypatch):
    before = files_in(project)
    with hold_lock(project / "reports/x/.lock", ""):
        done = clean(project)
        assert done.returncode == 1 and f"error: {project}/reports/x: a run is writing there" in done.stderr
    monkeypatch.setenv("KVPREFIX_DERIVED", str(project / "data/derived"))
    derived_folder()
    done = clean(project)
    assert done.returncode == 1 and f"{project}/data/derived: a run or an open notebook uses it" in done.stderr
    assert files_in(project) == sorted([*before, "data/derived/in-use"])


def test_one_make_at_a_time_works_on_a_report(project):
    def make(*command):
        arguments = [sys.executable, project / "lib/locked.py", project / "work", "reports/x", *command]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    # what it runs keeps the lock when the first program is killed
    with make("sh", "-c", "sleep 60 & echo $!; wait") as first:
        child = int(first.stdout.readline())
        for _ in range(2):
            with make("true") as second:
                assert "error: reports/x: another make is working on it" in second.communicate()[1]
            assert clean(project).returncode == 1
            first.kill()
            first.wait()
        os.kill(child, signal.SIGKILL)
    with make("true") as third:
        assert third.communicate() == ("", "")
