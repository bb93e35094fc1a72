"""``kvprefix notebooks``: execute notebooks with parameters."""

from kvprefix.commands.options import add_csv_safe, add_parameters, read_parameters, read_path
from kvprefix.files.checks import check_whole
from kvprefix.files.extras import need
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import hold_folder

HELP = "execute notebooks with parameters"


def add_options(parser):
    """Add what the command takes."""
    parser.add_argument("sources", type=read_path, nargs="+", help="notebooks; the last one runs after the others")
    add_parameters(parser, plan=True)
    parser.add_argument("--output-dir", required=True, type=read_path, help="the report folder")
    parser.add_argument("--jobs", default="1", help="notebooks at a time (default: %(default)s)")
    parser.add_argument("--only-stale", action="store_true", help="skip notebooks executed of the same content")
    add_csv_safe(parser)


def call(options):
    """Execute notebooks; return 0, or 2 if one failed."""
    need("report")
    from kvprefix.plan.setup import read_setup
    from kvprefix.report.notebooks import execute_notebooks
    from kvprefix.studies.experiment import fit_parameters

    expected = "a whole number of notebooks, 1 or more (at most 1000)"
    jobs = check_whole(read_number(options.jobs, int), "--jobs", expected, most=1000, shown=repr(options.jobs))
    parameters = fit_parameters(read_parameters(options))
    read_setup(parameters)
    with hold_folder(options.output_dir):
        return execute_notebooks(
            options.sources, parameters, options.output_dir, jobs=jobs, only_stale=options.only_stale
        )
