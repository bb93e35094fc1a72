"""Paths, checksums and writing whole files: what every module that touches the disk shares.

It does not know what any file holds.
"""

import contextlib
import glob
import hashlib
import json
import os
import re
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


class InputError(ValueError):
    """A mistake in what the user gave: the message says what is wrong and what would be right."""


def plain_text(text):
    r"""Return a text as one line that a terminal shows and never obeys: what leaves the library as a message is this.

    Control characters (C0, DEL, C1: line breaks and escape sequences too), line and paragraph separators, bidirectional
    controls, invisible marks and half surrogates become their escapes. All other Unicode stays.

    >>> print(plain_text("naïve\x1b[2J\n日本\u202e"))
    naïve\x1b[2J\n日本\u202e
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], str(text))


def find_project(start=None):
    """Find the project's top folder, or None outside it: the first parent that holds `environment.yml`.

    Looks upwards from `start` (default: the working folder), then from this file.
    """
    for origin in (Path(start or Path.cwd()), Path(__file__)):
        for folder in (origin.resolve(), *origin.resolve().parents):
            if (folder / "environment.yml").is_file() and (folder / "notebooks").is_dir():
                return folder
    return None


def derived_folder():
    """Return the folder that keeps heavy work: KVPREFIX_DERIVED, else the project's, else the user's cache."""
    if os.environ.get("KVPREFIX_DERIVED"):
        return Path(os.environ["KVPREFIX_DERIVED"])
    project = find_project()
    return project / "data" / "derived" if project else Path.home() / ".cache" / "kvprefix"


def resolve_output(folder):
    """Read a relative output folder from the project's top when working in its notebooks, so these need no `..`."""
    folder, project = Path(folder), find_project()
    inside = project and Path.cwd().resolve().is_relative_to(project / "notebooks")
    return project / folder if inside and not folder.is_absolute() else folder


def resolve_input(path):
    """Return a path as given where it exists, else read from the project's top where it exists there."""
    path, project = Path(path), find_project()
    if path.exists() or path.is_absolute() or not project or not (project / path).exists():
        return path
    return project / path


def refuse_same_file(source, target):
    """Raise InputError where what would be written is what is read."""
    if Path(target).exists() and Path(source).exists() and Path(target).samefile(source):
        raise InputError(f"{target}: is both what is read and what would be written; give another name")


def check_output_folder(folder):
    """Raise InputError where a folder cannot be made or written to; nothing is left there."""
    folder = Path(folder).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with explain_os_errors(folder), tempfile.TemporaryFile(dir=there):
        pass


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`, renamed to it on success and removed on failure.

    A killed run leaves the old file or none, never half of one.
    """
    path = Path(path)
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        try:
            with open(handle, "rb") as held:
                _lock(held)  # until it is whole, or this process dies
                yield Path(name)
            os.chmod(name, 0o666 & ~_UMASK)
            os.replace(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


def write_bytes(path, data):
    """Write `data` (bytes, or str as UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def explain_os_errors(path):
    """Turn an OSError about `path` (full disk, read-only folder, missing file) into an InputError."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def sha256_file(path, *, shown=False):
    """Return the SHA-256 of a file's bytes, in hexadecimal; `shown` allows for a progress bar."""
    with explain_os_errors(path), open(path, "rb", buffering=0) as file:
        if not shown:
            return hashlib.file_digest(file, "sha256").hexdigest()
        from kvprefix.progress import show_progress

        digest = hashlib.sha256()
        with show_progress(os.fstat(file.fileno()).st_size, f"checking {Path(path).name}", "B") as bar:
            while data := file.read(2**22):
                digest.update(data)
                bar.update(len(data))
        return digest.hexdigest()


def seal_key(values):
    """Return a short key of JSON values: equal values have equal keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def write_sealed(path, content):
    """Write JSON values with their key, so that `read_sealed` sees whether they are whole."""
    write_bytes(path, json.dumps({"content": content, "key": seal_key(content)}, indent=1))


def read_sealed(path):
    """Return what `write_sealed` wrote; None where there is nothing, or it was cut or altered, which is said."""
    path = Path(path)
    try:
        sealed = json.loads(path.read_text())
        if sealed["key"] == seal_key(sealed["content"]):
            return sealed["content"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        pass
    tqdm.write(f"{path.parent.name}/{path.name}: this cached file was cut or altered; making it again")
    return None


@contextlib.contextmanager
def hold_lock(path, busy):
    """Hold the lock of a file that stands for what is worked on; where another process does, raise InputError(busy)."""
    path, file = Path(path), None
    while file is None:
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+b")  # noqa: SIM115
        if fcntl is not None and not _lock(file):
            file.close()
            raise InputError(busy)
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file = file.close()  # who had it removed it just now
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _sweep(path):
    """Remove temporary files of `path` that a killed run left: nobody holds them, or they are an hour old."""
    for stale in path.parent.glob(f".{glob.escape(path.stem)}.*{path.suffix}"):
        with contextlib.suppress(OSError), open(stale, "rb") as file:
            age_s = time.time() - os.fstat(file.fileno()).st_mtime
            if age_s > 3600 or (age_s > 2 and _lock(file)):
                stale.unlink()


def _lock(file):
    """Lock an open file for this process as long as it is open; return whether that was possible."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system knows no locks
        return False
    return True


def _read_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()  # once: reading it means setting it, which threads must not do at the same time
