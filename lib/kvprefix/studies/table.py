"""Make the table of a study out of tasks: each measures one draw of the clock, or a part of it, and is kept when done.

A killed run continues with the tasks that are left, and ends with the same table. Of several runs that need a table,
one measures it and the others wait. What is measured is not known here.
"""

import itertools
import shutil
import threading
from collections import OrderedDict
from dataclasses import replace

import pandas as pd

from kvprefix.blocks.prefix_tree import make_prefix_tree
from kvprefix.blocks.stretches import cut_trace
from kvprefix.files.paths import InputError, derived_folder, resolve_input
from kvprefix.files.sealed import (
    ChangedError,
    expect_unchanged,
    make_once,
    read_sealed,
    seal_key,
    sha256_file,
    stamp_file,
    write_sealed,
)
from kvprefix.studies.draws import FIRST_DRAWS, SEEDS, STEP
from kvprefix.studies.experiment import SessionExperiment
from kvprefix.tasks.runner import open_tasks
from kvprefix.traces.workload import make_trace

STUDY_VERSION = 5  # raise when the meaning of a table changes, or the rule by which it has its draws
KEPT_TREES = 4  # that a process keeps for its next tasks; each takes about 100 bytes per request
_kept, _lock = OrderedDict(), threading.Lock()  # (tokens' identity, with outputs): (tokens, PrefixTree)


def measure_table(
    workload, name, options, measure, rounds, *, enough=None, at_once=None, finish=None, scheduler=None, **changes
):  # fmt: skip
    """Return a study's table from the derived folder; if it is not there, measure it as tasks, then keep it.

    Parameters
    ----------
    workload : Workload
    name : str
        Of the study.
    options : list
        JSON values that, with the workload and its parameters, determine the table.
    measure : callable
        A function of a module: ``measure(workload, *argument)`` is a DataFrame, some of the table's rows.
    rounds : sequence of sequence of tuple
        The arguments of each round's tasks, in the order of the rows.
    enough : callable, optional
        ``enough(table)`` says whether the rounds so far are enough; all are made if not given.
    at_once : callable, optional
        ``at_once(*argument)`` tasks like this one run on this machine at a time; as many as cores if not given.
    finish : callable, optional
        Makes the table of all rows.
    scheduler : str, optional
        Where tasks run, as in `open_tasks`: "threads" if what they are given is known to this process alone.
    **changes
        Parameters that do not matter for this table (None), or differ for it.

    Returns
    -------
    pandas.DataFrame
    """
    stamps = _stamp_files(workload)
    path = _find_path(workload, name, options, changes, stamps)

    def make():
        done, files = path.with_suffix(""), []
        try:
            with expect_unchanged(*stamps):
                for k, arguments in enumerate(rounds):
                    more = [done / f"{k}-{n}.json" for n in range(len(arguments))]
                    _run_tasks(workload, name, measure, arguments, (scheduler, at_once), more, stamps)
                    files += more
                    table = pd.concat([_read_whole(file) for file in files], ignore_index=True)
                    if enough and enough(table):
                        break
        except ChangedError:
            shutil.rmtree(done, ignore_errors=True)
            raise
        table = finish(table) if finish else table
        _write(table, path)
        shutil.rmtree(done, ignore_errors=True)
        return table

    return make_once(path, lambda: _read(path), make)


def _run_tasks(workload, name, measure, arguments, where, files, stamps):
    """Run the tasks whose files are missing or not whole."""
    scheduler, at_once = where
    seen = [(stamp.path.resolve(), stamp.sha256) for stamp in stamps]
    missing = [k for k, file in enumerate(files) if _read(file) is None]
    for n, some in itertools.groupby(missing, lambda k: at_once(*arguments[k]) if at_once else None):
        some = list(some)
        with open_tasks(scheduler, at_once=n) as tasks:
            tasks.check(_check_files, seen)
            frames = tasks.map(_measure, [(measure, workload, arguments[k]) for k in some], f"studying {name}")
            for k, frame in zip(some, frames, strict=True):
                _write(frame, files[k])


def _read_whole(file):
    frame = _read(file)
    if frame is None:
        raise InputError(f"{file}: was removed or altered while other tasks of its study ran; run again")
    return frame


def draw(workload, block_size, **changes):
    """Return the PrefixTrace of the workload's multi-turn requests at the times that changed parameters give.

    Parameters
    ----------
    workload : Workload
    block_size : int
    **changes
        The parameters of the clock and the arrivals in which this draw differs, the seed above all.
    """
    if isinstance(workload, SessionExperiment):
        return workload.draw(block_size, **changes)
    return draw_stretches(workload, block_size, **changes).list_blocks()


def draw_stretches(workload, block_size, *, outputs=False, **changes):
    """Return the same as `draw` by stretches of blocks, as a StretchTrace.

    The tree of the requests' prefixes is made once per process: other times only put requests in another order, and
    another block size only cuts the tree elsewhere. With `outputs` requests access the blocks of their replies too.
    """
    if isinstance(workload, SessionExperiment):
        return workload.draw_stretches(block_size, **changes)
    return cut_trace(find_tree(workload.tokens, outputs), draw_trace(workload, **changes), block_size)


def draw_trace(workload, **changes):
    """Return the Trace of the workload's multi-turn requests at such times, with the numbers of the requests alone."""
    parameters, requests = replace(workload.parameters, **changes), workload.requests.select_dtypes(["number", "bool"])
    return make_trace(replace(workload, parameters=parameters, requests=requests), "multi_turn")


def find_tree(tokens, outputs=False):
    """Return the prefix tree of some tokens, from the KEPT_TREES that this process used last if it is there."""
    key = id(tokens), outputs
    with _lock:
        if key not in _kept:
            _kept[key] = tokens, make_prefix_tree(tokens, outputs=outputs)
            if len(_kept) > KEPT_TREES:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key][1]


def _measure(task):
    measure, workload, argument = task
    return measure(workload, *argument)


def _check_files(files):
    """Raise InputError if this process does not see the files that arrivals are read from."""
    for file, checksum in files:
        if sha256_file(file) != checksum:
            raise InputError(f"{file} holds something else here; put it on storage that all machines mount")


def _stamp_files(workload):
    return [stamp_file(resolve_input(file)) for file in workload.parameters.timing_files()]


def _find_path(workload, name, options, changes, stamps):
    known = {**workload.parameters.describe_requests(), "data": workload.dataset["sha256"], **changes}
    known.pop("kv_model", None)
    known["files"] = [stamp.sha256 for stamp in stamps]
    key = seal_key([STUDY_VERSION, SEEDS, FIRST_DRAWS, STEP, name, known, workload.tokenizer["sha256"], options])
    return derived_folder() / f"study-{name}-{key}.json"


def _read(path):
    columns = read_sealed(path)
    return None if columns is None else pd.DataFrame(columns)


def _write(frame, path):
    write_sealed(path, {name: column.tolist() for name, column in frame.items()})
