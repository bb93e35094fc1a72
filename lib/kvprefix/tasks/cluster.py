"""Run tasks on a Dask cluster that somebody started: check it before any work, then give it tasks.

Used through `runner.open_tasks`. `lib/docs/how-to/use-a-cluster.md` says how to start one and what its workers need.
"""

import asyncio
import contextlib
import logging
import pickle
import re
import socket
import time
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor

from kvprefix.files.extras import need
from kvprefix.files.paths import InputError, derived_folder
from kvprefix.tasks.runner import dump, run_pickled
from kvprefix.tasks.workers import ask_workers, check_this_worker, check_workers

ANSWER_S = 5  # the longest time that a scheduler may take to answer
GONE_S = 60  # the longest time that tasks wait for a worker if all are lost
RETRIES = 2  # of a task that failed; a task whose worker was lost is run again in any case
_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.%]+\]|[^\s/:@\[\]]+):([0-9]{1,5})")


@contextlib.contextmanager
def connect(address):
    """Yield a checked Cluster, a runner for `runner.Tasks`.

    Parameters
    ----------
    address : str
        `tcp://HOST:PORT` (or `tls://`, which Dask's own configuration sets up).

    Raises
    ------
    InputError
        An address of another form, no answer within ANSWER_S seconds, no workers, or a worker with other versions than
        ours or without our derived folder; it says what would be right.
    """
    match = _ADDRESS.fullmatch(address)
    if not match or not 0 < int(match[3]) < 2**16:
        raise InputError(
            f"scheduler {address!r} is no address; expected tcp://HOST:PORT, as `dask scheduler` prints it, or `local`"
        )
    need("cluster")
    import dask
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    _find_scheduler(address, match[2].strip("[]"), int(match[3]))
    quiet = {"distributed.admin.large-graph-warning-threshold": "1GB"}  # a part of the workload is a task's argument
    with dask.config.set(quiet), _hush("distributed", "distributed.client"), warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # `check_workers` finds and reports it
        with (
            Client(address, timeout=ANSWER_S, set_as_default=False) as client,
            check_workers(client, address, derived_folder().resolve()) as expected,
        ):
            yield Cluster(client, address, expected)


@contextlib.contextmanager
def _hush(*names):
    """Keep Dask from logging the traceback of a lost connection: our own message is one line."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _find_scheduler(address, host, port):
    """Raise InputError if no scheduler answers; a Client would not always return."""
    try:
        socket.create_connection((host, port), ANSWER_S).close()  # its error gives the reason: refused, no such name
        with ThreadPoolExecutor(1) as thread:  # a notebook's own thread has an event loop already
            kind = thread.submit(asyncio.run, _ask_kind(address)).result()
        reason = f"a Dask {kind.lower()} answers there"
    except OSError as error:
        kind, reason = None, error.strerror or f"no answer within {ANSWER_S} s"
    except Exception as error:  # Dask's answer to foreign bytes
        kind, reason = None, f"what answers there does not speak Dask: {type(error).__name__}"
    if kind != "Scheduler":
        raise InputError(
            f"scheduler {address}: {reason}; start one there (`dask scheduler`), or leave it out to work on this "
            "machine alone"
        )


async def _ask_kind(address):
    from distributed.comm import connect
    from distributed.security import Security

    async with asyncio.timeout(ANSWER_S):
        comm = await connect(address, timeout=ANSWER_S, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            return (await comm.read())["type"]
        finally:
            comm.abort()


class Cluster:
    """A checked Dask cluster, a runner for `runner.Tasks`.

    Its scheduler runs the tasks of a lost worker again on another one. The first task that a later worker gets checks
    that worker.
    """

    shares_memory = False

    def __init__(self, client, address, expected):
        self.client, self.address, self.expected = client, address, expected
        self.n_threads, self.asked_at, self.workers_at = 0, 0.0, time.monotonic()

    def submit(self, function, argument):
        data = dump((function, argument))  # else Dask searches every list and tuple for its own objects
        name = f"{function.__name__}-{uuid.uuid4().hex}"
        with self._explained():
            return self.client.submit(run_checked, *self.expected, data, key=name, pure=False, retries=RETRIES)

    def take(self, future):
        while True:
            with self._explained():
                try:
                    return pickle.loads(future.result(timeout=GONE_S / 10))
                except TimeoutError:
                    self._look_for_workers()

    def check(self, function, argument):
        with self._explained():
            for worker, answer in ask_workers(self.client, function, argument).items():
                if isinstance(answer, Exception):
                    raise InputError(f"worker {worker}: {answer}") from answer

    def drop(self, futures):
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self.client.cancel(list(futures))

    def most(self):
        if time.monotonic() > self.asked_at + GONE_S / 10:
            self._look_for_workers()
        return 2 * max(self.n_threads, 1)

    def _look_for_workers(self):
        now = time.monotonic()
        with self._explained():
            self.n_threads, self.asked_at = sum(self.client.nthreads().values()), now
        if self.n_threads:
            self.workers_at = now
        elif now > self.workers_at + GONE_S:
            raise InputError(
                f"scheduler {self.address} has lost all its workers, {GONE_S} s ago; what is done is kept: start "
                "workers, and the next run continues from there"
            )

    @contextlib.contextmanager
    def _explained(self):
        """Turn the failures of a cluster into InputError; a task's own error stays what it is."""
        from distributed import CancelledError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        try:
            yield
        except (InputError, TimeoutError):
            raise
        except KilledWorker as error:
            raise InputError(
                f"scheduler {self.address}: a task was lost with each of {error.allowed_failures + 1} workers that it "
                f"ran on, {error.last_worker.address} the last; do they have enough memory?"
            ) from error
        except Exception as error:
            if self.client.status == "running" and not isinstance(error, CancelledError | CommClosedError):
                raise
            raise InputError(
                f"scheduler {self.address} went away while it worked for us; what is done is kept, and the next run "
                "continues from there"
            ) from error


def run_checked(versions, mark, data):
    """Check a worker, which may have joined late, then run a pickled task on it."""
    check_this_worker(tuple(versions.items()), mark)
    return run_pickled(data)
