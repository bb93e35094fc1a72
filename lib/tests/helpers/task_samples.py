"""Tasks for tests, in a module that other processes import at once."""

import os
import signal
from pathlib import Path

from kvprefix.files.paths import InputError
from kvprefix.tasks.runner import open_tasks


def fail(reason):
    raise InputError(reason)


def break_down(reason):
    raise ValueError(reason)


def die_once(path):
    """End this process at once, if none did before; else return who runs this."""
    try:
        Path(path).rename(f"{path}-done")
    except FileNotFoundError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def run_inside(_):
    with open_tasks("threads") as inner:
        return type(inner.runner).__name__


def first_of(array):
    return array[:1]
