"""Locks between processes: `flock` on a file that stands for what is worked on.

A lock ends with its owner, however that dies. Its file is opened for writing, so NFS hands the lock to its server and
other machines see it (all mount it without `local_lock`; Lustre needs the option `flock`). Who held it alone removes
its file in the end, so who waited looks whether the file that it locked is still the one at that path.
"""

import contextlib
import os
import sys

from kvprefix.files.escape import plain_text

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_unlocked = set()  # folders that know no locks, which is said once


def take_lock(path, *, shared=False, wait=False):
    """Open a file and lock it until it is closed or this process dies; None where another has it and we do not wait."""
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
        with contextlib.suppress(OSError), open(path, "rb") as now:  # opened anew: NFS asks its server then
            if os.path.sameopenfile(file.fileno(), now.fileno()):
                return file
        file.close()  # who had it removed it


@contextlib.contextmanager
def release(file, path):
    """Let go of a lock in the end; nobody else has it, so its file is removed."""
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def lock_open(file, *, shared=False, wait=False):
    """Lock an open file: True, or False where another has it, or None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
