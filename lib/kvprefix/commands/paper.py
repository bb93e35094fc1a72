"""``kvprefix paper``: compile the paper kit of a report to PDF and Word."""

import sys

from kvprefix.commands.options import read_path
from kvprefix.files.extras import need
from kvprefix.files.paths import hold_folder, tell

HELP = "compile the paper kit of a report to PDF and Word"
INCOMPLETE = 3


def add_options(parser):
    """Add what the command takes."""
    parser.epilog = "exit codes: 0 if both files are made; 3 if pdflatex or pandoc is missing; 2 for a mistake."
    parser.add_argument("folder", type=read_path, help="the report folder; paper/all.pdf and paper/all.docx are made")


def call(options):
    """Compile; return 0, or 3 if a program is missing."""
    need("report")
    from kvprefix.report.paper.build import PACKAGES, build_paper

    with hold_folder(options.folder):
        made, notes = build_paper(options.folder)
    for note in notes:
        tell(f"note: {note}", sys.stderr)
    for path in made:
        tell(f"{path} is made")
    return 0 if len(made) == len(PACKAGES) else INCOMPLETE
