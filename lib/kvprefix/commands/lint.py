"""``kvprefix lint``: say what to change in prompts so that more of them is cached, and fail above a share."""

import json
import sys

from kvprefix.commands.options import add_explained, add_rows, read_blocks, read_parameters, tell_lines, tell_notes
from kvprefix.files.compiler import load_compiler
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError, tell

HELP = "say what to change in prompts so that more is cached, each proved by a replay"


def add_options(parser):
    """Add what the command takes."""
    add_explained(parser)
    parser.add_argument(
        "--capacity", default="unbounded", help="replay also in an LRU cache of so many blocks (default: %(default)s)"
    )
    parser.add_argument(
        "--fail-above", metavar="PERCENT",
        help="exit with 1 if more than this share of the prompt tokens is recoverable",
    )  # fmt: skip
    add_rows(parser)


def call(options):
    """Find what to change; return 1 if more is recoverable than is allowed."""
    capacity = read_blocks(options.capacity, "capacity")
    most = _read_percent(options.fail_above)
    load_compiler()
    parameters = read_parameters(options)
    from kvprefix.studies.explain import open_data
    from kvprefix.studies.explain_tables import check_rows, write_frame
    from kvprefix.studies.lint import format_lint, lint

    check_rows(options.out)
    data = open_data(parameters, options.mode)
    facts, rows = lint(data, outputs=options.outputs_cached, capacity=capacity, name=parameters.data)
    if options.out:
        write_frame(rows, options.out)
    tell_notes(facts["notes"])
    tell_lines(json.dumps(facts, indent=1, allow_nan=False) if options.format == "json" else format_lint(facts))
    share = 100 * facts["recoverable_share"]
    if most is None or share <= most:
        return 0
    tell(f"fail: {share:.1f} % of the prompt tokens are recoverable; at most {most:g} % are allowed", sys.stderr)
    return 1


def _read_percent(text):
    """Return a share in percent, None if none is given."""
    if text is None:
        return None
    value = read_number(text.removesuffix("%").strip(), float)
    if not isinstance(value, float | int) or not 0 <= value <= 100:
        raise InputError(f"--fail-above is {text!r}; expected a number from 0 to 100, in percent")
    return value
