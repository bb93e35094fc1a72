"""Run tasks here, on processes of this machine or on a Dask cluster: the same functions, the results in order.

A task is a function of a module and its argument. If a task leaves this process, both and the result are pickled;
arrays in files are not copied but mapped again. `workers` checks a cluster before any task runs. This module does not
know what the tasks do.
"""

import contextlib
import io
import os
import pickle
import threading
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kvprefix.files.mapped import locate, map_again
from kvprefix.files.paths import InputError
from kvprefix.files.progress import show_progress

VARIABLE = "KVPREFIX_SCHEDULER"  # environment variable: where tasks run by default
PLACES = ("here", "threads", "processes")
MOST_PROCESSES = 8  # this process reads for all of them, and each holds its own tokenizer
_inside = threading.local()  # `task` is True in a thread that runs one


@contextlib.contextmanager
def open_tasks(scheduler=None, *, local="threads", at_once=None):
    """Yield Tasks, which run functions at the given place.

    Tasks that a task itself opens run in the task's thread.

    Parameters
    ----------
    scheduler : str, optional
        `tcp://HOST:PORT` of a Dask scheduler; "local", for the place that `local` names; "here", "threads" or
        "processes". By default the value of KVPREFIX_SCHEDULER, or "local".
    local : {"threads", "processes", "here"}
        Where tasks run without a cluster. Threads share memory and suit compiled loops, which release the interpreter
        lock; processes suit Python code; "here" runs one task after the other in this thread.
    at_once : int, optional
        Tasks that run at the same time on this machine. By default one per core, at most MOST_PROCESSES processes. With
        1, they run "here". A cluster runs one task per thread of its workers.

    Raises
    ------
    InputError
        No scheduler, or workers that cannot be used; see `cluster.connect`.
    """
    place = scheduler or os.environ.get(VARIABLE) or "local"
    place = "here" if getattr(_inside, "task", False) else local if place == "local" else place
    if place not in PLACES:
        from kvprefix.tasks.cluster import connect

        with connect(place) as cluster:
            yield Tasks(cluster)
        return
    at_once = at_once or min(os.cpu_count() or 1, MOST_PROCESSES if place == "processes" else 2**10)
    if place == "here" or at_once == 1:
        yield Tasks(Here())
        return
    with Threads(at_once) if place == "threads" else _make_processes(at_once) as runner:
        yield Tasks(runner)


def _make_processes(n):
    from kvprefix.tasks.processes import Processes

    return Processes(n)


def check_place(scheduler):
    """Return `scheduler`, as `open_tasks` takes it; raise InputError if tasks cannot run there."""
    if not scheduler.strip():
        raise InputError(f"scheduler is {scheduler!r}; expected `local`, `processes` or tcp://HOST:PORT")
    with open_tasks(scheduler, local="here", at_once=1):
        return scheduler


class Tasks:
    """Where tasks run, opened by `open_tasks`.

    Attributes
    ----------
    runner
        `submit(function, argument)` starts a task, `take(started)` waits for its result, `drop(started)` forgets tasks,
        `most()` is how many may be started and not yet taken, `check(function, argument)` is as below.
    share_memory : bool
        Whether tasks run in this process, so that nothing is copied to or from them.
    """

    def __init__(self, runner):
        self.runner, self.share_memory = runner, runner.shares_memory

    def check(self, function, argument):
        """Call a function on each worker of a cluster; it raises InputError if something is wrong there."""
        self.runner.check(function, argument)

    def map(self, function, arguments, what=None, *, total=None):
        """Yield ``function(argument)`` for each of the arguments, in their order.

        Parameters
        ----------
        function : callable
            A function of a module, found again by its name.
        arguments : iterable
            Taken when a task starts, so only those of running and next tasks are in memory.
        what : str, optional
            Title of a progress bar; without it, none is shown.
        total : int, optional
            The number of arguments, if they have no length.

        Raises
        ------
        InputError
            If tasks cannot continue: the scheduler went away, or a task was lost again and again. Results yielded
            before are whole.
        """
        total = len(arguments) if total is None and hasattr(arguments, "__len__") else total
        started, runner = deque(), self.runner
        with show_progress(total, what, " tasks", shown=what is not None) as bar:
            try:
                for argument in arguments:
                    started.append(runner.submit(function, argument))
                    while len(started) >= runner.most():
                        yield runner.take(started.popleft())
                        bar.update()
                while started:
                    yield runner.take(started.popleft())
                    bar.update()
            finally:
                runner.drop(started)


def run_alone(function, argument):
    """Run a task; the tasks that it opens itself run in its thread."""
    before, _inside.task = getattr(_inside, "task", False), True
    try:
        return function(argument)
    finally:
        _inside.task = before


def run_pickled(data):
    """Run a task that another process pickled with `dump`; return its result, pickled the same way.

    Raises
    ------
    InputError
        If the task raised one.
    RuntimeError
        For any other exception, with its traceback as text, because not every exception can be pickled.
    """
    try:
        return dump(run_alone(*pickle.loads(data)))
    except InputError:
        raise
    except Exception:
        raise RuntimeError(f"in another process:\n{traceback.format_exc()}") from None


class _Pickler(pickle.Pickler):
    def reducer_override(self, value):
        if type(value) is not np.ndarray or (found := locate(value)) is None:
            return NotImplemented
        return map_again, (*found, value.dtype, value.shape)


def dump(value):
    """Pickle a value; an array in a file becomes the file's path and the array's place in it."""
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


class Here:
    """Run each task in this thread when it is started."""

    shares_memory = True

    def check(self, function, argument):
        pass  # this machine is the caller's own

    def submit(self, function, argument):
        return function(argument)

    def take(self, result):
        return result

    def drop(self, results):
        pass

    def most(self):
        return 1


class Threads(Here):
    """Run tasks in threads of this process."""

    def __init__(self, n):
        self.n, self.pool = n, ThreadPoolExecutor(n)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown(cancel_futures=True)

    def submit(self, function, argument):
        return self.pool.submit(run_alone, function, argument)

    def take(self, future):
        return future.result()

    def drop(self, futures):
        for future in futures:
            future.cancel()

    def most(self):
        return self.n + 1
