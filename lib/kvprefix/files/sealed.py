"""Cached work: checksums, keys, files that show whether they are whole, and making a thing once."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from kvprefix.files.locks import release, take_lock
from kvprefix.files.paths import InputError, check_input_file, explain_os_errors, tell, write_bytes
from kvprefix.files.progress import show_progress

SEAL = ".seal"  # in a whole folder: the checksums of its files


class ChangedError(InputError):
    """A file changed while it was being read."""


def sha256_file(path, *, shown=False):
    """Return the SHA-256 of a file's bytes, in hexadecimal; `shown` allows a progress bar."""
    check_input_file(path)
    with explain_os_errors(path), open(path, "rb", buffering=0) as file:
        if not shown:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        with show_progress(os.fstat(file.fileno()).st_size, f"checking {Path(path).name}", "B") as bar:
            while data := file.read(2**22):
                digest.update(data)
                bar.update(len(data))
        return digest.hexdigest()


def seal_key(values):
    """Return a key of 16 hexadecimal digits for JSON values: equal values have equal keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def write_sealed(path, content):
    """Write JSON values with their key, by which `read_sealed` checks that they are whole."""
    write_bytes(path, json.dumps({"content": content, "key": seal_key(content)}, indent=1))


def read_sealed(path):
    """Return what `write_sealed` wrote; None if there is no file, or, with a message, if it was cut or altered."""
    path = Path(path)
    try:
        sealed = json.loads(path.read_text())
        if sealed["key"] == seal_key(sealed["content"]):
            return sealed["content"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        pass
    tell(f"{path.parent.name}/{path.name}: this cached file was cut or altered; making it again")
    return None


def is_kept(path, sha256, *, shown=False):
    """Return whether a file of the derived folder still has its checksum; if not, say so."""
    path = Path(path)
    with contextlib.suppress(InputError):  # gone, or unreadable
        if sha256_file(path, shown=shown) == sha256:
            return True
    tell(f"{path.parent.name}/{path.name}: this cached file was cut, altered, added or removed; making it again")
    return False


def seal_folder(folder, files, note=None):
    """Write the checksums of a folder's files, {name: SHA-256}, when all are whole: `read_folder` checks them."""
    write_sealed(folder / SEAL, {"files": files, "note": note})


def read_folder(folder, *, check=True, shown=False):
    """Return what `seal_folder` wrote; None if there is no seal, or a file was cut, altered, added or removed.

    Parameters
    ----------
    folder : pathlib.Path
    check : bool
        False trusts the files: another process has just found them whole.
    shown : bool
        Allow progress bars.

    Returns
    -------
    dict or None
        `files`, the checksums by name, and `note`.
    """
    sealed = read_sealed(folder / SEAL)
    if sealed is None or not check:
        return sealed
    names = sorted({*sealed["files"], *(file.name for file in folder.glob("[!.]*"))})
    return sealed if all(is_kept(folder / name, sealed["files"].get(name), shown=shown) for name in names) else None


class Stamp(NamedTuple):
    """The state of a file at one time: see `stamp_file`."""

    path: Path
    inode: int
    size: int
    mtime_ns: int
    sha256: str


def stamp_file(path, *, shown=False):
    """Return the state of a file before it is read; `expect_unchanged` compares it with the state afterwards."""
    with explain_os_errors(path):
        found = os.stat(path)
    return Stamp(Path(path), found.st_ino, found.st_size, found.st_mtime_ns, sha256_file(path, shown=shown))


@contextlib.contextmanager
def expect_unchanged(*stamps):
    """Raise ChangedError if a file differs from its stamp when the body ends or fails."""
    try:
        yield
    except Exception:
        _check_stamps(stamps)
        raise
    _check_stamps(stamps)


def _check_stamps(stamps):
    for stamp in stamps:
        if not stamp.path.is_file() or stamp_file(stamp.path) != stamp:
            raise ChangedError(f"{stamp.path}: changed while it was read, so nothing made of it is kept; run again")


def make_once(path, read, make):
    """Return what the derived folder keeps at a path; if it is not there whole, one process makes it and others wait.

    Parameters
    ----------
    path : pathlib.Path
        A file or a folder; its lock is beside it.
    read : callable
        ``read()`` returns what is kept, or None. It changes nothing, so a complete folder may be read-only.
    make : callable
        ``make()`` writes it whole and returns it.
    """
    if (found := read()) is not None:
        return found
    lock = path.with_name(f".{path.name}.lock")
    with explain_os_errors(path):
        file = take_lock(lock)
        waited = file is None
        if waited:
            tell(f"waiting for another run, which makes {path.parent.name}/{path.name}")
            file = take_lock(lock, wait=True)
    with release(file, lock):
        found = read() if waited else None
        return make() if found is None else found
