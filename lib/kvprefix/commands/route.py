"""``kvprefix route``: rate replicas with a cache each behind several routers."""

import json

from kvprefix.commands.options import add_explained, read_blocks, read_parameters, tell_lines, tell_notes
from kvprefix.files.compiler import load_compiler
from kvprefix.files.numerals import read_number
from kvprefix.files.words import count

HELP = "rate replicas with a cache each behind several routers"
ROUTERS = "rr,random,session,hash:1024,longest,cache-aware-tree,cache-aware-load,dynamo,llm-d"


def add_options(parser):
    """Add what the command takes."""
    add_explained(parser)
    parser.add_argument("--replicas", default="4", help="servers, each with a cache (default: %(default)s)")
    parser.add_argument(
        "--capacity", default="unbounded", help="of each cache, in blocks, or `unbounded` (default: %(default)s)"
    )
    parser.add_argument(
        "--routers", default=ROUTERS,
        help="which replica gets a request, comma-separated; hash:N takes the first N tokens (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of the rates (default: table)")


def call(options):
    """Rate the routers and show them."""
    capacity, replicas = read_blocks(options.capacity, "capacity"), read_number(options.replicas, int)
    load_compiler()
    parameters = read_parameters(options)
    from kvprefix.cache.cluster.routers import check_replicas, find_router
    from kvprefix.studies.cluster import SERVICE_NAMES, format_routers, list_accesses, measure_routers, read_service
    from kvprefix.studies.explain import open_data

    check_replicas(replicas)
    routers = [find_router(one.strip()) for one in options.routers.split(",")]
    data = open_data(parameters, options.mode, heeded=SERVICE_NAMES)
    blocks, looked_up = list_accesses(data, outputs=options.outputs_cached)
    found = measure_routers(
        blocks, capacity, replicas, routers, looked_up=looked_up, seed=parameters.seed, service=read_service(parameters)
    )
    found["notes"] = list(dict.fromkeys([*data.read_notes(), *found["notes"]]))
    tell_notes(found["notes"])
    if options.format == "table":
        tell_lines(_describe(blocks, replicas, capacity) + "\n\n" + format_routers(found))
        return
    facts = {
        "requests": len(blocks), "prompt_tokens": int(blocks.prompt_tokens.sum()), "block_size": blocks.block_size,
        "replicas": replicas, "capacity": capacity, "outputs_cached": options.outputs_cached, "seed": parameters.seed,
    }  # fmt: skip
    tell_lines(json.dumps({**facts, **found}, indent=1, allow_nan=False))


def _describe(blocks, replicas, capacity):
    """Say what was replayed, and what the times assume."""
    size = f"caches of {capacity:,} blocks" if capacity else "caches that never evict"
    return (
        f"{count(len(blocks), 'request')}, {count(blocks.prompt_tokens.sum(), 'prompt token')}, "
        f"{count(replicas, 'replica')} with {size} of {blocks.block_size} tokens. TTFT is the wait for the replica and "
        "the prefill of Llama-3.1-8B on one H100, half of its FLOPS in use."
    )
