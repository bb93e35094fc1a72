"""Run tasks in processes of this machine; a lost process is started again, and its task is run again.

A `multiprocessing` pool would not do: it runs a script without ``if __name__ == "__main__"`` again in every process,
does not open in our notebook kernels (they are daemons), and ends with its first lost process.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, Pipe

from kvprefix.files.paths import InputError
from kvprefix.tasks.runner import Threads, dump, run_pickled

LIVES = 3  # processes that a task may lose
_SERVE = "import sys; sys.path[:] = {path!r}; from kvprefix.tasks.processes import _serve; _serve({fd})"


class Processes(Threads):
    """Run tasks in n processes, each fed by a thread."""

    shares_memory = False

    def __init__(self, n):
        super().__init__(n)
        self.idle, self.children = queue.SimpleQueue(), []
        self.lock, self.is_closed = threading.Lock(), False
        for _ in range(n):
            self.idle.put(None)

    def __exit__(self, *_):
        with self.lock:
            self.is_closed = True
        self.pool.shutdown(wait=False, cancel_futures=True)
        for child in self.children:
            child.kill()  # ends the thread that waits for it
        super().__exit__()
        for child in self.children:
            child.close()

    def submit(self, function, argument):
        return self.pool.submit(self._run, function.__qualname__, dump((function, argument)))

    def _run(self, name, data):
        child = self.idle.get()
        try:
            for _ in range(LIVES):
                child = child or self._start()
                try:
                    result, error = child.ask(data)
                    break
                except (EOFError, OSError):  # it ended
                    child = None
            else:
                raise InputError(f"{name}: {LIVES} processes ended while they worked on it; is there enough memory?")
        finally:
            self.idle.put(child)
        if error is not None:
            raise error
        return pickle.loads(result)

    def _start(self):
        with self.lock:
            if self.is_closed:
                raise RuntimeError("no task is waited for any more")
            self.children.append(_Child())
            return self.children[-1]

    def most(self):
        return 2 * self.n


class _Child:
    """A process that runs tasks, one at a time."""

    def __init__(self):
        self.connection, theirs = Pipe()
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        code = _SERVE.format(path=[os.path.abspath(path) for path in sys.path], fd=theirs.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        theirs.close()

    def ask(self, data):
        """Return (pickled result, None) or (None, exception); raise EOFError or OSError if the process ended."""
        self.connection.send_bytes(data)
        return self.connection.recv()

    def kill(self):
        self.process.kill()

    def close(self):
        self.process.wait()
        self.connection.close()


def _serve(descriptor):
    """Run the tasks that come through a pipe until it closes: the whole work of a process of `Processes`."""
    with Connection(descriptor) as connection, contextlib.suppress(EOFError, OSError):
        while True:
            data = connection.recv_bytes()
            try:
                answer = run_pickled(data), None
            except Exception as error:
                answer = None, error
            connection.send(answer)
