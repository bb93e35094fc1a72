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

JOIN_S = 5  # the longest time that the first worker may take to join
PACKAGES = ("numpy", "numba", "pandas", "pyarrow", "transformers", "tokenizers", "dask", "distributed", "cloudpickle")


@contextlib.contextmanager
def check_workers(client, address, folder):
    """Check a cluster; yield what `check_this_worker` needs to check a worker that joins later.

    Parameters
    ----------
    client : distributed.Client
    address : str
        Of its scheduler, for messages.
    folder : pathlib.Path
        Every worker must see it under the same path, and be able to write to it.

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
    """Return {worker: what a function returns or raises there}, for the workers that are still present."""
    answers = client.run(function, *arguments, on_error="return")
    present = client.nthreads()
    return {worker: answer for worker, answer in answers.items() if worker in present}


def _ask_scheduler(client):
    """Return the scheduler's versions or its exception; they matter because it reads the tasks that it passes on."""
    try:
        return client.run_on_scheduler(describe_versions)
    except Exception as error:
        return error


@contextlib.contextmanager
def _mark(folder):
    """Yield a new file in the folder that workers must see; remove it and the answers at the end."""
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
    """Return what must be equal on all machines: the versions of Python and PACKAGES, a checksum of our sources.

    The sources are read once per process, so a worker that still runs older sources is found.
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
    """Say in which versions a worker differs from us; an empty text if in none.

    >>> compare_versions("worker tcp://a:1", {"numpy": "2.3.0"}, {"numpy": "2.4.6"})
    'worker tcp://a:1 has numpy 2.3.0 but this process has 2.4.6'
    """
    if not isinstance(theirs, dict):
        return f"{who} has no such kvprefix as this process ({type(theirs).__name__}: {theirs})"
    parts = [
        f"{name} {theirs.get(name, 'none')} but this process has {version}"
        for name, version in ours.items()
        if theirs.get(name) != version
    ]
    return f"{who} has {', '.join(parts)}" if parts else ""


@functools.lru_cache(maxsize=8)
def check_this_worker(versions, mark):
    """Raise InputError if this worker differs from those that `check_workers` found; once per connection.

    Parameters
    ----------
    versions : tuple of (str, str)
        Name and version of each.
    mark : str
        Path of the file that every worker must see.
    """
    from distributed import get_worker

    worker = f"worker {get_worker().address}"
    if text := compare_versions(worker, describe_versions(), dict(versions)):
        raise InputError(text)
    if not Path(mark).is_file():
        raise InputError(f"{worker} does not share the folder {Path(mark).parent}")
