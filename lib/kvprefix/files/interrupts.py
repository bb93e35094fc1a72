"""End the command on Ctrl-C with one line and exit code 130, whatever it is doing.

KeyboardInterrupt does that alone where it is raised in our own code. Raised in a callback it is printed and forgotten,
in another package's import it becomes another exception, and threads are waited for before a process ends.
"""

import os
import signal
import sys
import threading

CODE = 130
LINE = "interrupted; what is done is kept and the next run goes on from there"
PATIENCE_S = 3  # so long the work may take to end by itself
_seen, _told = threading.Event(), threading.Event()


def watch():
    """From now on, see to it that this process ends after a SIGINT."""
    signal.signal(signal.SIGINT, _interrupt)


def was_seen():
    """Return whether there was a SIGINT."""
    return _seen.is_set()


def tell():
    """Say once that the command was interrupted; return its exit code."""
    if not _told.is_set():
        _told.set()
        print(LINE, file=sys.stderr, flush=True)
    return CODE


def run(main):
    """Call a command's main function and end this process with the code that it returns."""
    try:
        code = main()
    except BaseException:
        if not was_seen():
            raise
    if was_seen():
        _leave()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is done: only the interpreter is to end
    sys.exit(code)


def _interrupt(*_):
    if was_seen():
        _leave()
    _seen.set()
    sys.excepthook = lambda *_: _leave()  # before `run` is reached
    sys.unraisablehook = threading.excepthook = lambda *_: None  # what it disturbs
    timer = threading.Timer(PATIENCE_S, _leave)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _leave():
    tell()
    os._exit(CODE)
