"""``kvprefix tiers``: rate caches below one another, such as HBM and DRAM."""

import json

from kvprefix.commands.options import add_explained, read_parameters, tell_lines, tell_notes
from kvprefix.files.compiler import load_compiler
from kvprefix.files.words import count

HELP = "rate caches below one another, such as HBM and DRAM"


def add_options(parser):
    """Add what the command takes."""
    add_explained(parser)
    parser.add_argument("--capacities", required=True, help="of each tier, in blocks, the fastest first")
    parser.add_argument(
        "--semantics", default="exclusive,inclusive,vllm",
        help="when blocks go down, comma-separated: exclusive, inclusive, vllm, after:N (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of the rates (default: table)")


def call(options):
    """Rate the tiers and show them."""
    load_compiler()
    parameters = read_parameters(options)
    from kvprefix.cache.tiers import check_tiers, find_semantics
    from kvprefix.studies.cluster import list_accesses
    from kvprefix.studies.explain import open_data
    from kvprefix.studies.sweep import split_list
    from kvprefix.studies.tiers import format_tiers, measure_tiers

    semantics = [find_semantics(one) for one in split_list(options.semantics)]
    capacities = [check_tiers(split_list(options.capacities, int), one) for one in semantics][0]
    data = open_data(parameters, options.mode)
    blocks, looked_up = list_accesses(data, outputs=options.outputs_cached)
    found = measure_tiers(blocks, capacities, semantics, looked_up=looked_up)
    found["notes"] = list(dict.fromkeys([*data.read_notes(), *found["notes"]]))
    tell_notes(found["notes"])
    if options.format == "table":
        size = f"{count(len(blocks), 'request')}, {count(blocks.prompt_tokens.sum(), 'prompt token')}"
        tell_lines(f"{size}, blocks of {blocks.block_size} tokens. Token hit rates:\n\n{format_tiers(found)}")
        return
    facts = {
        "requests": len(blocks), "prompt_tokens": int(blocks.prompt_tokens.sum()), "block_size": blocks.block_size,
        "outputs_cached": options.outputs_cached,
    }  # fmt: skip
    tell_lines(json.dumps({**facts, **found}, indent=1, allow_nan=False))
