"""Tasks run alike in this process, in others and on a real Dask cluster, whose workers and scheduler are killed."""

import io
import json
import math
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import fields
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from samples import record, write_records
from task_samples import break_down, die, die_once, fail, first_of, run_inside

from kvprefix.__main__ import main
from kvprefix.blocks import partition as blocktasks
from kvprefix.blocks import reuse
from kvprefix.blocks.identify import Blocks, identify_blocks
from kvprefix.files.mapped import map_array
from kvprefix.files.paths import InputError
from kvprefix.plan.setup import Setup
from kvprefix.studies import cache as study
from kvprefix.studies import sharing_tables
from kvprefix.studies.plan import study_plan
from kvprefix.tasks import processes
from kvprefix.tasks import runner as tasks
from kvprefix.tasks.cluster import Cluster
from kvprefix.tasks.runner import dump, open_tasks
from kvprefix.tokens import arrays as tokens
from kvprefix.tokens import parts
from kvprefix.traces import workload as workload_module
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload, make_trace

RECORDS = [record(*[f"{k % 7} and {m} of {k}" for m in range(1 + k % 5)], id=f"r{k}") for k in range(24)]

# What a worker does before it takes tasks: one dies when a task of a kind begins for which there is an order, a file.
PRELOAD = """
import os, signal
from pathlib import Path
from types import SimpleNamespace
from kvprefix.tasks import runner as tasks
from kvprefix.tasks import workers

ORDERS, KIND = Path(os.environ["ORDERS"]), os.environ["KIND"]
run_alone = getattr(tasks, "usual_run_alone", tasks.run_alone)  # Dask loads this more than once

def run_or_die(function, argument):
    try:
        order = ORDERS / f"die-in-{function.__name__}"
        order.rename(f"{order}-done")
    except FileNotFoundError:
        return run_alone(function, argument)
    os.kill(os.getpid(), signal.SIGKILL)

tasks.run_alone, tasks.usual_run_alone = run_or_die, run_alone
if KIND == "other-version":
    versions = {**workers.describe_versions(), "numpy": "1.2.3"}
    workers.describe_versions = lambda: versions
if KIND == "blind":
    def answer_mark(mark):
        return Path(mark.replace("derived", "other-disk")).read_text()
    workers.answer_mark = answer_mark
"""


# A run that is killed when the second task of a kind is done.
KILLED = """
import os, signal, sys
import pytest
from kvprefix.__main__ import main
from kvprefix.tasks.runner import Tasks
from test_tasks import make_parts_small

usual = Tasks.map

def map_until(self, function, arguments, *rest, **options):
    for k, one in enumerate(usual(self, function, arguments, *rest, **options)):
        if function.__name__ == "{step}" and k == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield one

Tasks.map = map_until
make_parts_small(pytest.MonkeyPatch())
main(sys.argv[1:])
"""


# ---- On this machine.


@pytest.mark.parametrize("place", tasks.PLACES)
def test_results_come_in_the_order_of_the_arguments_which_are_taken_as_they_are_needed(place):
    taken = []

    def give():
        for k in range(30):
            taken.append(k)
            yield k

    with open_tasks(place, at_once=2) as opened:
        results = opened.map(math.factorial, give())
        assert next(results) == 1
        assert len(taken) <= 4  # two a process
        assert list(results) == [math.factorial(k) for k in range(1, 30)]


def test_the_environment_says_where_tasks_run(monkeypatch):
    for place, runner in (("here", "Here"), ("threads", "Threads"), ("processes", "Processes"), ("local", "Here")):
        monkeypatch.setenv(tasks.VARIABLE, place)
        with open_tasks(local="here", at_once=2) as opened:
            assert type(opened.runner).__name__ == runner
    with open_tasks("threads", at_once=1) as opened:
        assert type(opened.runner).__name__ == "Here"


def test_what_a_task_opens_runs_in_its_thread():
    for place in ("threads", "processes"):
        with open_tasks(place, at_once=2) as opened:
            assert list(opened.map(run_inside, range(3))) == ["Here"] * 3
    assert run_inside(None) == "Threads"


def test_a_lost_process_s_task_is_run_again(tmp_path):
    (tmp_path / "die").touch()
    with open_tasks("processes", at_once=2) as opened:
        found = list(opened.map(die_once, [tmp_path / "die"] * 6))
        assert len(found) == 6 and os.getpid() not in found
    assert (tmp_path / "die-done").exists()


def test_a_task_that_ends_every_process_is_an_input_error(monkeypatch):
    monkeypatch.setattr(processes, "LIVES", 2)
    with open_tasks("processes", at_once=2) as opened, pytest.raises(InputError, match="die: 2 processes ended"):
        list(opened.map(die, range(3)))


def test_a_task_s_error_is_the_caller_s():
    for place in tasks.PLACES:
        with open_tasks(place, at_once=2) as opened:
            with pytest.raises(InputError, match="file 3 is no such file"):
                list(opened.map(fail, ["file 3 is no such file"] * 5))
            with pytest.raises((ValueError, RuntimeError), match="a bug"):
                list(opened.map(break_down, ["a bug"] * 5))


def test_an_array_in_a_file_is_not_copied(tmp_path):
    np.arange(100_000, dtype=np.int32).tofile(tmp_path / "array")
    array = map_array(tmp_path / "array", np.int32)
    for part in (array, array[50_000:], array.reshape(1000, 100)[500:]):
        assert len(dump(part)) < 500
        again = pickle.loads(dump(part))
        assert again.dtype == part.dtype and (again == part).all() and not again.flags.writeable
    for other in (array[:0], array[::2], np.arange(5)):
        assert (pickle.loads(dump(other)) == other).all()
    with open_tasks("processes", at_once=2) as opened:
        assert [one.tolist() for one in opened.map(first_of, [array[k:] for k in range(3)])] == [[0], [1], [2]]


def test_a_script_without_a_main_guard_can_use_processes(tmp_path):
    script = "import math\nfrom kvprefix.tasks.runner import open_tasks\n"
    script += "with open_tasks('processes', at_once=2) as t:\n"
    (tmp_path / "script.py").write_text(f"{script}    print(list(t.map(math.factorial, range(4))))\n")
    run = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True)
    assert run.stdout == "[1, 1, 2, 6]\n" and not run.stderr


# ---- On a cluster.


class RealCluster:
    """A scheduler and workers on this machine, each a process of its own; workers die when an order says so."""

    def __init__(self, folder):
        self.folder, self.orders, self.workers = folder, folder / "orders", []
        self.orders.mkdir()
        (folder / "preload.py").write_text(PRELOAD)
        self.log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.scheduler = self._start("dask_scheduler", "--port", "0")
        self._wait((folder / "scheduler.json").exists)
        self.address = json.loads((folder / "scheduler.json").read_text())["address"]

    def _start(self, program, *options, kind=""):
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", "scheduler.json"]
        environment = {**os.environ, "ORDERS": str(self.orders), "KIND": kind, "KVPREFIX_DERIVED": "/nowhere"}
        return subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--no-dashboard", *options],
            env=environment, cwd=self.folder, stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def have(self, *kinds):
        """Have workers of these kinds, and no others; return self."""
        wanted, kept = list(kinds), []
        for kind, worker in self.workers:
            if worker.poll() is None and kind in wanted:
                wanted.remove(kind)
                kept.append((kind, worker))
            else:
                worker.kill()
                worker.wait()
        self.workers = kept
        for kind in wanted:
            options = ["--nthreads", "1", "--no-nanny", "--local-directory", "scratch", "--preload", "preload.py"]
            self.workers.append((kind, self._start("dask_worker", *options, kind=kind)))
        self._wait(lambda: self._count_workers() == len(kinds))
        return self

    def _count_workers(self):
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return len(client.nthreads())

    def _wait(self, is_so):
        until = time.monotonic() + 30
        while not is_so():
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.1)

    def order(self, what, content=""):
        """Have the next worker to which it applies do something: what it does is in PRELOAD."""
        (self.orders / what).write_text(content)

    def obeyed(self, what):
        return (self.orders / f"{what}-done").exists()

    def list_alive(self):
        return [worker for _, worker in self.workers if worker.poll() is None]

    def close(self):
        for process in (self.scheduler, *(worker for _, worker in self.workers)):
            process.kill()
            process.wait()
        os.close(self.log)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    real = RealCluster(tmp_path_factory.mktemp("cluster"))
    yield real
    real.close()


@pytest.fixture(scope="module")
def parameters(tmp_path_factory, small_folder):
    data = write_records(tmp_path_factory.mktemp("data") / "data.json", RECORDS)
    return Parameters(data=str(data), tokenizer=str(small_folder), block_size=4)


def make_parts_small(patch):
    """Have parts of 3 conversations, hashed 200 tokens at a time, so that there are several of each."""
    patch.setattr(parts, "PART_CONVERSATIONS", 3)
    for module in (tokens, blocktasks, reuse):
        patch.setattr(module, "PART_TOKENS", 200)
    patch.setattr(reuse, "FEW", 2)
    patch.setattr(reuse, "RANGE_BLOCKS", 20)
    patch.setattr(reuse, "IN_MEMORY", 0)
    patch.setattr(sharing_tables, "REQUESTS", 9)
    patch.setattr(sharing_tables, "BLOCKS", 50)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    make_parts_small(monkeypatch)


@pytest.fixture
def derived(tmp_path, monkeypatch):
    monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path / "derived"))
    return tmp_path / "derived"


@pytest.fixture(scope="module")
def undisturbed(parameters, tmp_path_factory):
    """Return what the command and the studies write in one thread of this process: the bytes of each file."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        make_parts_small(patch)
        patch.setenv("KVPREFIX_DERIVED", str(folder / "derived"))
        run_command(parameters, folder / "out", "here")
        run_studies(parameters, "here")
    return read_all(folder)


def run_command(parameters, out, scheduler):
    arguments = ["--data-path", parameters.data, "--tokenizer", parameters.tokenizer, "--block-size", "4"]
    arguments += ["--output-dir", str(out), "--skip-visualization", "--parquet", "--scheduler", scheduler]
    assert main(["run", *arguments]) == 0


def run_studies(parameters, scheduler):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(tasks.VARIABLE, scheduler)
        workload = load_workload(parameters, progress=False)
        study.study_policies(workload, [10, 50], ("lru", "opt"))
        study.study_block_sizes(workload, [40, 200], sizes=(1, 8))
        study_plan(workload, Setup(), [1, 2], ("rr", "longest"))


def read_all(folder):
    """Return the bytes of all files in a folder's `out` and `derived`."""
    files = [file for name in ("out", "derived") for file in (folder / name).rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_cluster_that_loses_workers_writes_the_same_bytes(cluster, parameters, derived, undisturbed, tmp_path):
    cluster.have("usual", "usual").order("die-in-_make_part")
    run_command(parameters, tmp_path / "out", cluster.address)
    assert cluster.obeyed("die-in-_make_part") and len(cluster.list_alive()) == 1
    cluster.have("usual", "usual").order("die-in-_measure")
    run_studies(parameters, cluster.address)
    assert cluster.obeyed("die-in-_measure") and len(cluster.list_alive()) == 1
    written = read_all(tmp_path)  # a worker that has proved its encoder before does not keep that again
    assert {name: data for name, data in undisturbed.items() if "/encoder-" not in name} == {
        name: data for name, data in written.items() if "/encoder-" not in name
    }


@pytest.mark.parametrize("step", ["_hash_part", "_find_firsts", "_join_part", "_format_requests", "_format_blocks"])
def test_the_main_job_writes_the_same_bytes_when_a_worker_is_lost(
    cluster, parameters, derived, undisturbed, tmp_path, step
):
    cluster.have("usual", "usual").order(f"die-in-{step}")
    run_command(parameters, tmp_path / "out", cluster.address)
    assert cluster.obeyed(f"die-in-{step}") and len(cluster.list_alive()) == 1
    written = read_all(tmp_path)
    assert len(written) > 8 and written.items() <= undisturbed.items()
    assert not [name for name in os.listdir(derived) if name.startswith(".exchange")]


@pytest.mark.parametrize("step", ["_join_part", "_format_requests", "_format_blocks"])
def test_a_killed_main_job_continues_to_the_same_bytes(cluster, parameters, derived, undisturbed, tmp_path, step):
    cluster.have("usual", "usual")
    (tmp_path / "killed.py").write_text(KILLED.format(step=step))
    arguments = ["run", "--data-path", parameters.data, "--tokenizer", parameters.tokenizer, "--block-size", "4"]
    arguments += ["--output-dir", str(tmp_path / "out"), "--skip-visualization", "--parquet"]
    arguments += ["--scheduler", cluster.address]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    killed = subprocess.run([sys.executable, tmp_path / "killed.py", *arguments], env=environment, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    left = list((tmp_path / "out").glob(".*.partial"))
    run_command(parameters, tmp_path / "out", cluster.address)
    written = read_all(tmp_path)  # a killed run's temporary file is removed by a run that comes 2 s later
    written = {name: data for name, data in written.items() if name.startswith("out") and "/." not in name}
    whole = {name: data for name, data in undisturbed.items() if name.startswith("out")}
    assert written == whole and (left or step == "_join_part")


def test_tables_in_parquet_parts_hold_what_the_csv_files_hold(undisturbed):
    for mode in ("single_turn", "multi_turn"):
        for table in ("request", "block"):
            name = f"out/{mode}_{table}_metrics"
            parts = {one: data for one, data in undisturbed.items() if one.startswith(f"{name}.parquet/")}
            assert len(parts) > 1
            found = pd.concat([pd.read_parquet(io.BytesIO(data)) for _, data in sorted(parts.items())])
            expected = pd.read_csv(io.BytesIO(undisturbed[f"{name}.csv"]), dtype={"conversation_id": str})
            pd.testing.assert_frame_equal(found.reset_index(drop=True), expected, check_dtype=False)


@pytest.mark.parametrize("step", ["_hash_part", "_number_range"])
def test_blocks_are_the_same_when_a_worker_is_lost(cluster, parameters, derived, monkeypatch, step):
    trace = make_trace(load_workload(parameters, progress=False), "multi_turn")
    expected = {outputs: identify_blocks(trace, 2, outputs=outputs) for outputs in (False, True)}
    bare = identify_blocks(trace.without_template(), 2)
    cluster.have("usual", "usual").order(f"die-in-{step}")
    monkeypatch.setenv(tasks.VARIABLE, cluster.address)
    for outputs, blocks in expected.items():
        assert are_equal(identify_blocks(trace, 2, outputs=outputs), blocks)
    assert are_equal(identify_blocks(trace.without_template(), 2), bare)
    assert cluster.obeyed(f"die-in-{step}") and len(cluster.list_alive()) == 1
    assert not [name for name in os.listdir(derived) if name.startswith(".")]


def are_equal(one, other):
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Blocks))


def test_local_processes_write_the_same_bytes(parameters, derived, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv(tasks.VARIABLE, "processes")
    workload = load_workload(parameters, progress=False)
    study.study_policies(workload, [10, 50], ("lru", "opt"))
    study_plan(workload, Setup(), [1, 2], ("rr", "longest"))
    written = read_all(tmp_path)
    assert len(written) > 8 and written.items() <= undisturbed.items()


def test_results_of_a_cluster_come_in_order_and_its_tasks_errors_are_the_caller_s(cluster, derived):
    cluster.have("usual", "usual")
    with open_tasks(cluster.address) as opened:
        assert list(opened.map(math.factorial, range(50))) == [math.factorial(k) for k in range(50)]
        with pytest.raises(RuntimeError, match="ValueError: factorial"):
            list(opened.map(math.factorial, [1, -1, 2]))
        assert list(opened.map(len, [b"x" * 12_000_000])) == [12_000_000]  # Dask warns from 10 MB on


def test_a_worker_with_another_version_is_named_before_any_work(cluster, derived, parameters, tmp_path, capsys):
    cluster.have("usual", "other-version")
    arguments = ["--data-path", parameters.data, "--output-dir", str(tmp_path / "out"), "--scheduler", cluster.address]
    assert main(["run", *arguments]) == 2
    said = capsys.readouterr().err
    assert re.search(rf"worker tcp://127.0.0.1:\d+ has numpy 1.2.3 but this process has {np.__version__}\.", said)
    assert "Traceback" not in said and not list(tmp_path.rglob("*.arrow")) and tasks.VARIABLE not in os.environ


def test_a_worker_that_joins_late_is_checked_too(cluster, derived):
    cluster.have("usual")
    with open_tasks(cluster.address) as opened:
        cluster.have("other-version")
        with pytest.raises(InputError, match="has numpy 1.2.3 but this process"):
            list(opened.map(math.factorial, range(5)))


def test_a_folder_that_is_not_shared_is_named_before_any_work(cluster, derived):
    cluster.have("usual", "blind")
    said = f"does not share the folder {derived} with this process: No such file or directory there. Put it on storage"
    with pytest.raises(InputError, match=said), open_tasks(cluster.address):
        pass
    assert os.listdir(derived) == ["in-use"]


def test_a_tokenizer_that_workers_do_not_see_is_named(
    cluster, derived, parameters, monkeypatch, small_folder, tmp_path
):
    cluster.have("usual")
    copy = shutil.copytree(small_folder, tmp_path / "tokenizer")
    find = workload_module.find_tokenizer

    def find_and_remove(name):
        found = find(name)
        shutil.rmtree(copy)
        return found

    monkeypatch.setattr(workload_module, "find_tokenizer", find_and_remove)
    monkeypatch.setenv(tasks.VARIABLE, cluster.address)
    with pytest.raises(InputError, match=f"worker tcp://.*: tokenizer {copy}: {copy} does not hold the same files"):
        load_workload(Parameters(data=parameters.data, tokenizer=str(copy)), progress=False)


def test_notebooks_run_on_the_cluster_that_the_command_names(cluster, derived, tmp_path, monkeypatch):
    cluster.have("usual")
    code = "from kvprefix.tasks.runner import open_tasks\nimport math\nwith open_tasks() as t:\n"
    code += "    assert type(t.runner).__name__ == 'Cluster' and list(t.map(math.factorial, [3, 4])) == [6, 24]"
    declare = nbformat.v4.new_code_cell('output_dir = ""', metadata={"tags": ["parameters"]})
    cells = [declare, nbformat.v4.new_code_cell(code)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "10-a.ipynb")
    arguments = [str(tmp_path / "10-a.ipynb"), "--output-dir", str(tmp_path / "out"), "--scheduler", cluster.address]
    assert main(["notebooks", *arguments]) == 0


@pytest.mark.parametrize(
    "address", ["cluster", "127.0.0.1:8786", "http://127.0.0.1:8786", "tcp://127.0.0.1", "tcp://:8786", "tcp://a:b",
                "tcp://a:99999", "tcp://a b:1", "tcp://a:1/x"]
)  # fmt: skip
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(InputError, match="is no address; expected tcp://HOST:PORT"), open_tasks(address):
        pass


def test_a_scheduler_that_is_not_there_is_said(tmp_path, derived, capsys, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    assert main(["prepare", "--scheduler", address]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: scheduler {address}: Connection refused; start one") and "Traceback" not in said
    monkeypatch.setattr("kvprefix.tasks.cluster.ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match="no answer within 0.5 s; start one"), open_tasks(address):
            pass


def test_a_scheduler_without_workers_is_said(cluster, derived, monkeypatch):
    cluster.have()
    monkeypatch.setattr("kvprefix.tasks.workers.JOIN_S", 0.1)
    with pytest.raises(InputError, match="has no workers; start some: `dask worker "), open_tasks(cluster.address):
        pass


def test_a_cluster_that_loses_all_workers_is_not_waited_for(cluster, derived, monkeypatch):
    cluster.have("usual").order("die-in-factorial")
    monkeypatch.setattr("kvprefix.tasks.cluster.GONE_S", 1)
    with open_tasks(cluster.address) as opened, pytest.raises(InputError, match="has lost all its workers, 1 s ago"):
        list(opened.map(math.factorial, range(3)))


def test_a_scheduler_that_goes_away_leaves_what_was_done(
    cluster, derived, parameters, undisturbed, tmp_path, monkeypatch, capfd
):
    cluster.have("usual", "usual")
    monkeypatch.setenv(tasks.VARIABLE, cluster.address)
    made, take = [], Cluster.take

    def kill_scheduler_at_the_third(self, future):
        made.append(take(self, future))
        if len(made) == 3:
            cluster.scheduler.kill()
        return made[-1]

    monkeypatch.setattr(Cluster, "take", kill_scheduler_at_the_third)
    assert main(["prepare", "--data-path", parameters.data, "--tokenizer", parameters.tokenizer]) == 2
    said = capfd.readouterr().err
    assert f"scheduler {cluster.address} went away while it worked for us; what is done is kept" in said
    assert "Traceback" not in said
    kept = {file: file.stat().st_mtime_ns for file in derived.rglob("part-*.arrow")}
    assert len(kept) >= 3
    monkeypatch.delenv(tasks.VARIABLE)
    load_workload(parameters, progress=False)
    written = read_all(tmp_path)
    assert len(written) > 8 and written.items() <= undisturbed.items()
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_a_connection_that_closes_is_a_scheduler_that_went_away():
    from distributed.comm import CommClosedError

    cluster = Cluster.__new__(Cluster)  # the client has not noticed yet
    cluster.client, cluster.address = SimpleNamespace(status="running"), "tcp://a:1"
    with pytest.raises(InputError, match="tcp://a:1 went away"), cluster._explained():
        raise CommClosedError("in <TCP (closed)>: Connection reset by peer")
