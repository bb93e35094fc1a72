"""``kvprefix explain``: explain one request: what it hits, what it misses, and why."""

import json
from dataclasses import asdict

from kvprefix.commands.options import add_explained, read_blocks, read_parameters, tell_lines, tell_notes
from kvprefix.files.compiler import load_compiler
from kvprefix.files.paths import tell

HELP = "explain one request: what it hits, what it misses, and why"


def add_options(parser):
    """Add what the command takes."""
    add_explained(parser)
    parser.add_argument(
        "request", metavar="REQUEST_ID", help="such as c3t1; of a trace of block ids the position, from 0 on"
    )
    parser.add_argument("--capacity", default="unbounded", help="of the cache, in blocks (default: %(default)s)")
    parser.add_argument("--policy", default="lru", help="by which a bounded cache evicts (default: %(default)s)")
    parser.add_argument("--show-values", action="store_true", help="do not mask addresses, keys and long numbers")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of what is said (default: table)")


def call(options):
    """Explain a request."""
    capacity = read_blocks(options.capacity, "capacity")
    load_compiler()
    parameters = read_parameters(options)
    from kvprefix.cache.policies import find_policy
    from kvprefix.studies.explain import open_data
    from kvprefix.studies.explain_one import explain_one

    policy = find_policy(options.policy)
    found = explain_one(
        open_data(parameters, options.mode), options.request, capacity=capacity, policy=policy,
        outputs=options.outputs_cached, mask=not options.show_values,
    )  # fmt: skip
    tell_notes(found.notes)
    if options.format == "json":
        strip, per_sign = found.strip()
        facts = {**asdict(found), "strip": strip, "blocks_per_sign": per_sign}
        tell_lines(json.dumps(facts, indent=1, allow_nan=False))
        return
    for line in found.say():
        tell(line)
