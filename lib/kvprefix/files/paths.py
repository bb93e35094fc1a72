"""Find, check and write files whole; the error for user mistakes, and the one way to print a message.

It does not know what any file holds.
"""

import atexit
import contextlib
import glob
import os
import stat
import tempfile
import time
from pathlib import Path

from kvprefix.files.escape import plain_text
from kvprefix.files.locks import lock_open, release, take_lock

IN_USE = "in-use"  # lock file of the derived folder: shared by every process that uses it, exclusive for `make clean`
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe",
          stat.S_IFSOCK: "a socket"}  # fmt: skip
_in_use = {}  # {derived folder: its open lock file}


class InputError(ValueError):
    """A user mistake: the message says what is wrong and what would be right. A notebook shows nothing else."""

    def _render_traceback_(self):  # IPython calls it
        return [f"{type(self).__name__}: {plain_text(self)}"]


def tell(text, file=None):
    """Print a line of plain text above any progress bar, to stdout by default: the library prints nothing else."""
    from tqdm import tqdm

    tqdm.write(plain_text(text), file=file)


def find_project(start=None):
    """Find the project's top folder, or None outside it: the first parent that holds `environment.yml`.

    Looks upwards from `start` (default: the working folder), then from this file.
    """
    for origin in (Path(start or Path.cwd()), Path(__file__)):
        for folder in (origin.resolve(), *origin.resolve().parents):
            if (folder / "environment.yml").is_file() and (folder / "notebooks").is_dir():
                return folder
    return None


def raw_folder():
    """Return the project's folder of downloads; outside the project, `data/raw` of the working folder."""
    return (find_project() or Path.cwd()) / "data" / "raw"


def derived_folder():
    """Return the folder that keeps heavy work: KVPREFIX_DERIVED, else the project's, else the user's cache.

    `make clean` does not remove it until this process ends.
    """
    if os.environ.get("KVPREFIX_DERIVED"):
        folder = Path(os.environ["KVPREFIX_DERIVED"])
    else:
        project = find_project()
        folder = project / "data" / "derived" if project else Path.home() / ".cache" / "kvprefix"
    if folder.absolute() not in _in_use:
        while _in_use:
            _in_use.popitem()[1].close()
        with contextlib.suppress(OSError):  # a read-only folder: nobody removes anything from it
            _in_use[folder.absolute()] = file = take_lock(folder / IN_USE, shared=True, wait=True)
            atexit.register(file.close)
    return folder


def resolve_output(folder):
    """Return an output folder; inside the project's notebooks, a relative one counts from the project's top."""
    check_path(folder, "output folder", "a path")
    folder, project = Path(folder), find_project()
    inside = project and Path.cwd().resolve().is_relative_to(project / "notebooks")
    return project / folder if inside and not folder.is_absolute() else folder


def resolve_input(path):
    """Return a path as given, or from the project's top if it exists only there."""
    path, project = Path(path), find_project()
    if path.exists() or path.is_absolute() or not project or not (project / path).exists():
        return path
    return project / path


def check_path(path, name, expected):
    """Raise InputError if a text that should name a file is blank or holds a null byte."""
    if not str(path).strip() or "\0" in str(path):
        raise InputError(f"{name} is {str(path)!r}; expected {expected}")


def check_input_file(path):
    """Raise InputError if a path is a pipe, a device or a socket: reading it may never end."""
    path = Path(path)
    for kind in ("fifo", "char_device", "block_device", "socket"):
        if getattr(path, f"is_{kind}")():
            kind = {"fifo": "pipe"}.get(kind, kind.rpartition("_")[2])
            raise InputError(f"{path}: is a {kind}, not a file; write what it gives to a file first")


def refuse_same_file(source, target):
    """Raise InputError if the target is the source, or is no regular file."""
    check_output_file(target)
    if Path(target).exists() and Path(source).exists() and Path(target).samefile(source):
        raise InputError(f"{target}: is both what is read and what would be written; give another name")


def check_output_folder(folder):
    """Raise InputError if a folder cannot be made or written to; leave nothing there."""
    folder = Path(folder).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with explain_os_errors(folder), tempfile.TemporaryFile(dir=there):
        pass


def check_output_file(path):
    """Raise InputError if a path, or what it links to, exists and is no regular file."""
    with explain_os_errors(path):
        mode = os.stat(path).st_mode if os.path.exists(path) else stat.S_IFREG
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise InputError(f"{path}: is {kind}; give a file, which is made or replaced")


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`, renamed to it on success and removed on failure.

    A killed run leaves the old file or none, never half of one. A symbolic link stays: its target is written.

    Raises
    ------
    InputError
        If the path is no regular file, or the disk refuses the write.
    """
    check_output_file(path)
    with explain_os_errors(path):
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        try:
            with open(handle, "rb") as held:
                lock_open(held)  # until the file is whole, or this process dies
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
    except UnicodeEncodeError as error:
        if error.object not in (str(path), str(Path(path).absolute())):
            raise
        raise InputError(f"{path}: this name is not UTF-8, and not all libraries open it; rename the file") from error


@contextlib.contextmanager
def hold_lock(path, busy):
    """Hold a lock file; if another process holds it, raise InputError(busy)."""
    path = Path(path)
    with explain_os_errors(path):
        file = take_lock(path)
    if file is None:
        raise InputError(busy)
    with release(file, path):
        yield


@contextlib.contextmanager
def hold_folder(folder):
    """Keep other runs from writing to a report folder, and `make clean` from removing it.

    Folders made for the lock are removed at the end if they are empty.
    """
    folder = Path(folder)
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    busy = f"{folder}: another run is writing there; wait for it, or give another folder (make: NAME)"
    try:
        with hold_lock(folder / ".lock", busy):
            yield
    finally:
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()


def _sweep(path):
    """Remove temporary files of `path` that a killed run left: not locked, or, without locks, older than an hour."""
    for stale in path.parent.glob(f".{glob.escape(path.stem)}.*{path.suffix}"):
        with contextlib.suppress(OSError), open(stale, "r+b") as file:
            age_s, is_free = time.time() - os.fstat(file.fileno()).st_mtime, lock_open(file)
            if (age_s > 2 and is_free) or (age_s > 3600 and is_free is None):
                stale.unlink()


def _read_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()  # once: reading it means setting it, which threads must not do at the same time
