"""Locks between processes: `flock` on a lock file.

A lock ends when its owner dies, in any way. Its file is opened for writing, so NFS passes the lock to its server and
other machines see it (if all mount it without `local_lock`; Lustre needs the option `flock`). The owner of an exclusive
lock removes the file at the end, so a process that waited checks that the file it locked is still at that path.
"""

import contextlib
import os
import sys

from kvprefix.files.escape import plain_text

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_unlocked = set()  # folders without locks that the user was told of


def take_lock(path, *, shared=False, wait=False):
    """Open a file and lock it until it is closed or this process dies; None if another has it and `wait` is false."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(path, "a+b")  # noqa: SIM115
        locked = lock_open(file, shared=shared, wait=wait)
        if locked is None and path.parent not in _unlocked:
            _unlocked.add(path.parent)
            print(plain_text(f"note: {path.parent}: knows no locks; run one thing at a time there"), file=sys.stderr)
        if locked is False:
            file.close()
            return None
        with contextlib.suppress(OSError), open(path, "rb") as now:  # opened again: then NFS asks its server
            if os.path.sameopenfile(file.fileno(), now.fileno()):
                return file
        file.close()  # the owner before removed it


@contextlib.contextmanager
def release(file, path):
    """Release an exclusive lock at the end and remove its file."""
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def lock_open(file, *, shared=False, wait=False):
    """Lock an open file: True, or False if another has it, or None if there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
