"""Check the workers of a Dask cluster before any work: their versions equal ours, and they share our derived folder."""

import contextlib
import functools
import hashlib
import platform
import time
import uuid
from importlib import metadata
from pathlib import Path

from kvprefix.files.paths import InputError, explain_os_errors

JOIN_S = 5  # seconds: so long the first worker may take to join
PACKAGES = ("numpy", "numba", "pandas", "pyarrow", "transformers", "tokenizers", "dask", "distributed", "cloudpickle")


@contextlib.contextmanager
def check_workers(client, address, folder):
    """Check a cluster; yield what a worker that joins later is checked by, see `check_this_worker`.

    Parameters
    ----------
    client : distributed.Client
    address : str
        Of its scheduler, to be named.
    folder : pathlib.Path
        What every worker must see, and write to, under the same path.

    Raises
    ------
    InputError
        No workers; a scheduler or workers with other versions; a worker that does not share the folder.
    """
    deadline = time.monotonic() + JOIN_S
    while not client.nthreads():
        if time.monotonic() > deadline:
            raise InputError(f"scheduler {address} has no workers; start some: `dask worker {address}`")
        time.sleep(0.1)
    versions = describe_versions()
    found = {"the scheduler": _ask_scheduler(client)}
    found |= {f"worker {worker}": theirs for worker, theirs in ask_workers(client, describe_versions).items()}
    differing = [text for who, theirs in found.items() if (text := compare_versions(who, theirs, versions))]
    if differing:
        raise InputError(
            f"scheduler {address}: {'; '.join(differing[:5])}{'; ...' if differing[5:] else ''}. Start scheduler and "
            "workers in the same environment, and again after it changed"
        )
    with _mark(folder) as mark:
        answers = ask_workers(client, answer_mark, str(mark))
        blind = {worker: answer for worker, answer in answers.items() if not _is_answer(mark, answer)}
        for worker, answer in blind.items():
            more = f" (and {len(blind) - 1} more)" if len(blind) > 1 else ""
            raise InputError(
                f"scheduler {address}: worker {worker}{more} does not share the folder {folder} with this process: "
                f"{_explain_blind(answer)}. Put it on storage that all machines mount under the same path and may "
                "write to, and name it in KVPREFIX_DERIVED"
            )
        yield versions, str(mark)


def ask_workers(client, function, *arguments):
    """Return what a function returns on each worker, or the exception that it raises; of those that stay, not lost."""
    answers = client.run(function, *arguments, on_error="return")
    present = client.nthreads()
    return {worker: answer for worker, answer in answers.items() if worker in present}


def _ask_scheduler(client):
    """Return the scheduler's versions, or the exception that it answers with; it reads the tasks that it hands on."""
    try:
        return client.run_on_scheduler(describe_versions)
    except Exception as error:
        return error


@contextlib.contextmanager
def _mark(folder):
    """Yield a new file in the folder that workers must see; it is removed in the end, and the answers with it."""
    mark = folder / f".workers-{uuid.uuid4().hex}"
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(mark.name)
    try:
        yield mark
    finally:
        for file in folder.glob(f"{mark.name}*"):
            with contextlib.suppress(OSError):
                file.unlink()


def answer_mark(mark):
    """Write an answer beside a mark that this process sees; return the answer's name."""
    mark = Path(mark)
    if mark.read_text() != mark.name:
        raise OSError("the file that marks it holds something else")
    answer = mark.with_name(f"{mark.name}-{uuid.uuid4().hex}")
    answer.write_text(answer.name)
    return answer.name


def _is_answer(mark, answer):
    return isinstance(answer, str) and mark.with_name(answer).is_file()


def _explain_blind(answer):
    if isinstance(answer, str):
        return "what it writes there does not appear here"
    return f"{getattr(answer, 'strerror', None) or answer} there"


@functools.cache
def describe_versions():
    """Return what must be equal on all machines: Python, this library's sources, and what computes and carries data.

    The sources are read once a process, so a worker that still runs what was edited since is found.
    """
    versions = {"Python": platform.python_version(), "kvprefix": _hash_sources()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions


def _hash_sources():
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}:{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return f"sources {digest.hexdigest()[:12]}"


def compare_versions(who, theirs, ours):
    """Say in which versions a worker differs from us; an empty text where in none.

    >>> compare_versions("worker tcp://a:1", {"numpy": "2.3.0"}, {"numpy": "2.4.6"})
    'worker tcp://a:1 has numpy 2.3.0 where this process has 2.4.6'
    """
    if not isinstance(theirs, dict):
        return f"{who} has no such kvprefix as this process ({type(theirs).__name__}: {theirs})"
    parts = [
        f"{name} {theirs.get(name, 'none')} where this process has {version}"
        for name, version in ours.items()
        if theirs.get(name) != version
    ]
    return f"{who} has {', '.join(parts)}" if parts else ""


@functools.lru_cache(maxsize=8)
def check_this_worker(versions, mark):
    """Raise InputError where this process, a worker, is not as `check_workers` found the others; once a connection.

    Parameters
    ----------
    versions : tuple of (str, str)
    mark : str
    """
    from distributed import get_worker

    worker = f"worker {get_worker().address}"
    if text := compare_versions(worker, describe_versions(), dict(versions)):
        raise InputError(text)
    if not Path(mark).is_file():
        raise InputError(f"{worker} does not share the folder {Path(mark).parent}")
