"""Limit the time and memory of foreign code, such as a chat template, and raise InputError beyond.

Both limits apply to the whole process, so only its main thread sets them: another thread, such as a Dask worker's,
shares the process with other tasks. Memory is limited on Linux only, time everywhere but on Windows.
"""

import contextlib
import functools
import signal
import threading
import time

from kvprefix.files.paths import InputError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

SECONDS = 20  # of computing
BYTES = 2**31  # on top of what the process has already


class _OutOfTime(BaseException):
    """Not an Exception, so that the stopped code does not catch it."""


@contextlib.contextmanager
def bounded(what):
    """Limit a block of code to SECONDS of computing and BYTES of memory; `what` names it in the InputError."""
    if resource is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _listen()
    limits = _limit_memory()
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, 1)  # and each second after, should the first be missed
        yield
    except _OutOfTime:
        raise InputError(f"{what} did not end within {SECONDS} s of computing") from None
    except MemoryError:
        raise InputError(f"{what} needs more than {BYTES / 2**30:g} GiB of memory") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if limits is not None:
            resource.setrlimit(resource.RLIMIT_AS, limits)


@functools.cache  # once: it takes longer than to set the timer
def _listen():
    signal.signal(signal.SIGVTALRM, _stop)


def _stop(number, frame):
    raise _OutOfTime


def _limit_memory():
    """Limit the process's memory; return the limits of before, None if that is impossible."""
    used = _read_used(int(10 * time.monotonic()))
    if used is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = min((limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY), default=used + BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (min(used + BYTES, most), hard))
    return soft, hard


@functools.lru_cache(maxsize=1)
def _read_used(_tenth):
    """Return the bytes of memory of this process, None if unknown; read at most ten times per second."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(20).split()[0]) * resource.getpagesize()
    except (OSError, AttributeError):
        return None
