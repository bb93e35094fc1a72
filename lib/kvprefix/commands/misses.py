"""``kvprefix misses``: say why each token of the prompts is not cached."""

import json

from kvprefix.commands.options import add_explained, add_rows, read_blocks, read_parameters, tell_lines, tell_notes
from kvprefix.engines.registry import ENGINES
from kvprefix.files.compiler import load_compiler
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError

HELP = "say why each token of the prompts is not cached"


def add_options(parser):
    """Add what the command takes."""
    add_explained(parser)
    parser.add_argument(
        "--capacities", default="unbounded",
        help="of the cache, in blocks, or `unbounded`, comma-separated (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--policy", default="lru", help="by which bounded caches evict (default: %(default)s)")
    parser.add_argument("--replicas", default="1", help="servers, each with an LRU cache of that capacity (default: 1)")
    parser.add_argument("--router", help="how requests are spread over replicas, as in `route` (default: session)")
    parser.add_argument("--engine", choices=tuple(ENGINES), help="take the hits of an engine's replay")
    parser.add_argument(
        "--num-gpu-blocks", default="unlimited", help="with --engine: of its pool, or `unlimited` (default)"
    )
    add_rows(parser)


def call(options):
    """Find the causes and show them."""
    capacities = [read_blocks(one.strip(), "capacity") for one in options.capacities.split(",")]
    pool = read_blocks(options.num_gpu_blocks, "number of GPU blocks", ("unlimited", "unbounded"))
    _check_engine(options, pool)
    load_compiler()
    parameters = read_parameters(options)
    from kvprefix.cache.policies import find_policy
    from kvprefix.studies.cluster import SERVICE_NAMES, read_service
    from kvprefix.studies.explain import explain_engine, explain_misses, open_data
    from kvprefix.studies.explain_tables import check_rows, format_parts, list_misses, write_rows

    check_rows(options.out)
    policy = find_policy(options.policy)
    routed = options.router or options.replicas != "1"
    data = open_data(parameters, options.mode, heeded=SERVICE_NAMES if routed else ())
    if options.engine:
        found = [explain_engine(data, options.engine, pool)]
    else:
        found = explain_misses(
            data, list(dict.fromkeys(capacities)), outputs=options.outputs_cached, policy=policy, router=options.router,
            replicas=read_number(options.replicas, int), seed=parameters.seed, service=read_service(parameters),
        )  # fmt: skip
    if options.out:
        write_rows(found, options.out)
    places = {"replicas": read_number(options.replicas, int), "router": options.router or "session"} if routed else {}
    said = list_misses(found, data.notes(), places)
    tell_notes(said.get("notes", []))
    tell_lines(json.dumps(said, indent=1, allow_nan=False) if options.format == "json" else format_parts(found))


def _check_engine(options, pool):
    """Raise InputError for options of an engine without one, or of caches with one."""
    if options.engine is None:
        if pool is not None:
            raise InputError("--num-gpu-blocks is the pool of an engine; name it with --engine, or give --capacities")
        return
    given = {"--capacities": options.capacities != "unbounded", "--policy": options.policy != "lru",
             "--replicas": options.replicas != "1", "--router": options.router is not None}  # fmt: skip
    if any(given.values()):
        names = ", ".join(name for name, is_given in given.items() if is_given)
        raise InputError(f"--engine replays one engine by its own rules; expected no {names} (--num-gpu-blocks N)")
