"""Run tasks here, on processes of this machine or on a Dask cluster: the same functions, the results in order.

A task is a function of a module and its argument. Where tasks leave this process, both and the result are pickled;
arrays that lie in files are not copied but mapped again. What the tasks do is not known here. What is wrong with a
cluster is found before any task runs, see `workers`.
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

VARIABLE = "KVPREFIX_SCHEDULER"  # of the environment: where tasks run if nothing is said
PLACES = ("here", "threads", "processes")
MOST_PROCESSES = 8  # one reads for them, and each holds what it needs
_inside = threading.local()  # `task` is True in a thread that runs one


@contextlib.contextmanager
def open_tasks(scheduler=None, *, local="threads", at_once=None):
    """Yield Tasks, which run functions where they are told to.

    What a task itself opens runs in the task's thread.

    Parameters
    ----------
    scheduler : str, optional
        `tcp://HOST:PORT` of a Dask scheduler; "local", for what `local` says; "here", "threads" or "processes". If not
        given, what KVPREFIX_SCHEDULER holds, or "local".
    local : {"threads", "processes", "here"}
        Where tasks run without a cluster. Threads share memory, and are best for compiled loops, which let go of the
        interpreter; processes are for Python code; "here" is one after the other in this thread.
    at_once : int, optional
        Tasks that run at a time on this machine: as many as there are cores, at most MOST_PROCESSES processes. With 1,
        they run here. A cluster runs as many as its workers have threads.

    Raises
    ------
    InputError
        A scheduler that is not there, workers that cannot be used; see `cluster.connect`.
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
    """Raise InputError where tasks cannot run at `scheduler`, as `open_tasks` takes it; return it."""
    if not scheduler.strip():
        raise InputError(f"scheduler is {scheduler!r}; expected `local`, `processes` or tcp://HOST:PORT")
    with open_tasks(scheduler, local="here", at_once=1):
        return scheduler


class Tasks:
    """Where tasks run, opened by `open_tasks`.

    Attributes
    ----------
    runner
        `submit(function, argument)` starts a task, `take(started)` waits for its result, `drop(started)` forgets some,
        `most()` says how many may be started and not yet taken, `check(function, argument)` is ours.
    share_memory : bool
        Whether tasks run in this process, so that nothing is copied to them and from them.
    """

    def __init__(self, runner):
        self.runner, self.share_memory = runner, runner.shares_memory

    def check(self, function, argument):
        """Call a function, which raises InputError where something is wrong, on each worker of a cluster."""
        self.runner.check(function, argument)

    def map(self, function, arguments, what=None, *, total=None):
        """Yield ``function(argument)`` for each of the arguments, in their order.

        Parameters
        ----------
        function : callable
            Found by its module and name.
        arguments : iterable
            Taken as tasks are started: no more are in memory than are worked on or next.
        what : str, optional
            Shown before a progress bar; none without it.
        total : int, optional
            How many arguments there are, where they have no length.

        Raises
        ------
        InputError
            Where tasks cannot go on: the scheduler went away, or a task was lost again and again. Results that were
            yielded are whole.
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
    """Run a task; what it opens with `open_tasks` runs in its thread."""
    before, _inside.task = getattr(_inside, "task", False), True
    try:
        return function(argument)
    finally:
        _inside.task = before


def run_pickled(data):
    """Run a task that `dump` pickled, in another process than it comes from; return its result, pickled likewise.

    Raises
    ------
    InputError
        As the task did.
    RuntimeError
        For any other exception: what it was, as text, since not every exception can be sent.
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
    """Pickle a value; an array in a file becomes the file's path and where the array lies in it."""
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


class Here:
    """Tasks run as they are started, in this thread."""

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
    """Tasks run in threads of this process."""

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
