"""``kvprefix verify``: check this library against recorded answers of real engines."""

from kvprefix.commands.options import read_path
from kvprefix.files.compiler import load_compiler
from kvprefix.files.paths import tell

HELP = "check this library against recorded answers of real engines"


def add_options(parser):
    """Add what the command takes."""
    parser.add_argument("--fixtures", type=read_path, help="folder of the recorded answers (default: the project's)")


def call(options):
    """Print a line per anchor; return 0 if all hold, else 1."""
    load_compiler()
    from kvprefix.studies.verify import verify

    failed = total = 0
    for anchor in verify(options.fixtures):
        total, failed = total + 1, failed + (not anchor.holds)
        tell(f"{'ok  ' if anchor.holds else 'FAIL'}  {anchor.name}{f': {anchor.found}' if anchor.found else ''}")
    tell(f"{total - failed} of {total} anchors hold")
    return 1 if failed else 0
