"""Run a command under a lock that ends with it: ``python lib/locked.py FOLDER NAME COMMAND ...``.

The command works in FOLDER; a refusal says that NAME is in use. The command takes this process's place, so signals
reach it, and keeps the lock, as do the programs that it runs. `data/derived` is marked as in use
too, see clean.py.
"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback, while it imports or waits

from kvprefix.files.locks import take_lock
from kvprefix.files.paths import IN_USE, InputError, explain_os_errors, plain_text

DERIVED = Path(__file__).resolve().parent.parent / "data" / "derived"


def main(folder, name, *command):
    with explain_os_errors(folder):
        locks = [take_lock(DERIVED / IN_USE, shared=True, wait=True), take_lock(Path(folder) / "lock")]
    if locks[1] is None:
        sys.exit(f"error: {name}: another make is working on it; wait for it, or give another NAME")
    for lock in locks:
        os.set_inheritable(lock.fileno(), True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (InputError, OSError) as error:
        sys.exit(f"error: {plain_text(error)}")
