"""``kvprefix provenance``: say where each cached token of the prompts comes from."""

import json

from kvprefix.commands.options import add_explained, add_rows, read_blocks, read_parameters, tell_lines, tell_notes
from kvprefix.files.compiler import load_compiler

HELP = "say where each cached token of the prompts comes from"


def add_options(parser):
    """Add what the command takes."""
    add_explained(parser)
    parser.add_argument("--capacity", default="unbounded", help="of the cache, in blocks (default: %(default)s)")
    parser.add_argument("--policy", default="lru", help="by which a bounded cache evicts (default: %(default)s)")
    add_rows(parser)


def call(options):
    """Find the origins and show them."""
    capacity = read_blocks(options.capacity, "capacity")
    load_compiler()
    parameters = read_parameters(options)
    from kvprefix.cache.policies import find_policy
    from kvprefix.studies.explain import explain_provenance, open_data
    from kvprefix.studies.explain_tables import check_rows, format_parts, write_rows

    check_rows(options.out)
    policy = find_policy(options.policy)
    data = open_data(parameters, options.mode)
    found = explain_provenance(data, outputs=options.outputs_cached, capacity=capacity, policy=policy)
    if options.out:
        write_rows([found], options.out)
    tell_notes(found.notes)
    as_json = options.format == "json"
    tell_lines(json.dumps(found.as_dict(), indent=1, allow_nan=False) if as_json else format_parts([found]))
