"""The command: ``kvprefix COMMAND ...`` or ``python -m kvprefix COMMAND ...``.

Each command is a module of `commands`; a mistake in options or input is reported in one line.
"""

from kvprefix.files import interrupts

if __name__ == "__main__":
    interrupts.watch()  # before anything else is imported

import argparse
import contextlib
import gc
import os
import sys
import traceback
from importlib import import_module

from kvprefix.commands import NAMES
from kvprefix.files.csv_cells import guarding
from kvprefix.files.environment import variable_set
from kvprefix.files.escape import plain_text
from kvprefix.files.paths import InputError, tell
from kvprefix.files.words import guess


def main(arguments=None):
    """Run the command; return its exit code: 0, or 2 for a mistake in options or input, or a failed notebook.

    Without a command it lists all. `check` also has 3 and 4: see its help.
    """
    given = sys.argv[1:] if arguments is None else arguments
    parser = make_parser(given[:1] if given[:1] and given[0] in NAMES else NAMES)
    if not given:
        parser.print_help()
        return 0
    options = parser.parse_args(given)
    try:
        with _place_tasks(getattr(options, "scheduler", None)), guarding(getattr(options, "csv_safe", False)):
            return options.call(options) or 0
    except KeyboardInterrupt:
        return interrupts.tell()
    except Exception as error:
        if interrupts.was_seen():
            return interrupts.tell()
        if not isinstance(error, InputError | OSError):
            raise
        tell(f"error: {_explain(error)}", sys.stderr)
        return 2


def _explain(error):
    return error if isinstance(error, InputError) else f"{error.filename or 'writing'}: {error.strerror or error}"


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line; a misspelt option before those that are missing because of it."""

    def parse_known_args(self, args=None, namespace=None):
        """Remember what was given."""
        self.given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message):
        """End with one line."""
        names = (word.partition("=")[0] for word in self.given if word.startswith("--"))
        unknown = [name for name in names if name not in self._option_string_actions]
        if unknown and "are required" in message:
            message = f"unrecognized arguments: {' '.join(unknown)}"
        if message.startswith("unrecognized arguments: "):
            message += guess(message.split()[2].partition("=")[0], self._list_options())
        elif message.startswith("argument COMMAND: invalid choice"):
            message += guess(self.given[0], NAMES)
        self.exit(2, f"error: {plain_text(message)} ({self.prog} --help lists what there is)\n")

    def _list_options(self):
        """Return the names of the options of the command that is given."""
        within = [one.choices.get(self.given[0]) for one in self._actions if isinstance(one.choices, dict)]
        return [name for parser in (self, *filter(None, within)) for name in parser._option_string_actions]


def make_parser(names=NAMES):
    """Return the parser of these commands."""
    about = "Measure how much of an LLM workload's KV cache can be shared between requests."
    parser = _Parser(prog="kvprefix", description=about, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in names:
        module = import_module(f"kvprefix.commands.{name}")
        about = f"{module.HELP[0].upper()}{module.HELP[1:]}."
        command = commands.add_parser(name, help=module.HELP, description=about, allow_abbrev=False)
        module.add_options(command)
        command.set_defaults(call=module.call)
    return parser


def _place_tasks(scheduler):
    """Say where tasks run, in notebooks too; a cluster that does not work is refused before any work."""
    if scheduler is None:
        return contextlib.nullcontext()
    from kvprefix.tasks.runner import VARIABLE, check_place

    return variable_set(VARIABLE, check_place(scheduler))


def _show_traceback(*error):
    """Print a traceback of ours as plain text: its message may hold what a file or a server holds."""
    for line in "".join(traceback.format_exception(*error)).rstrip("\n").split("\n"):
        tell(line, sys.stderr)


def run():
    """Run the command as a program, which ends with its exit code."""
    interrupts.watch()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads that nothing here needs would spin
    gc.set_threshold(100_000, 50, 100)  # imports and loading loops make many objects, no garbage: a sixth of the time
    sys.excepthook = _show_traceback
    sys.stdout.reconfigure(errors="backslashreplace")  # like stderr, if a terminal knows no Unicode
    interrupts.run(main)


if __name__ == "__main__":
    run()
