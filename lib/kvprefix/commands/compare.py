"""``kvprefix compare``: lay reports beside each other."""

from kvprefix.commands.options import add_csv_safe, read_path
from kvprefix.files.extras import need
from kvprefix.files.paths import tell

HELP = "lay two or more reports beside each other"


def add_options(parser):
    """Add what the command takes."""
    parser.add_argument(
        "reports", nargs="+", type=read_path, metavar="REPORT",
        help="folders of reports, or their names below reports/; the others are compared with the first",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=read_path, help="the folder to write (default: reports/A-vs-B, of the reports' names)"
    )
    add_csv_safe(parser)


def call(options):
    """Compare, write the comparison's folder, and say the verdicts."""
    need("report")
    from kvprefix.report.comparison.write import compare_reports

    folder, facts = compare_reports(options.reports, options.out)
    for one in facts["pairs"]:
        tell(f"{one['report']} against {facts['first']}: {one['verdict']}")
    tell(f"the comparison is in {folder}")
