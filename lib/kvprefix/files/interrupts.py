"""End the command on Ctrl-C with one line and exit code 130, whatever it is doing.

KeyboardInterrupt alone is enough only in our own code. A callback prints and forgets it, another package's import turns
it into another exception, and a process waits for its threads before it ends.
"""

import gc
import os
import signal
import sys
import threading

CODE = 130
LINE = "interrupted; what is done is kept and the next run continues from there"
PATIENCE_S = 3  # time that the work has to end by itself
_seen, _told = threading.Event(), threading.Event()


def watch():
    """Make this process end after a SIGINT from now on."""
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done: only the interpreter still has to end
    gc.freeze()  # and need not look for cycles first
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
