"""``kvprefix memory``: say what a model's KV cache takes, as a function of length."""

import json

from kvprefix.commands.options import tell_lines
from kvprefix.files.checks import check_whole
from kvprefix.files.numerals import read_number

HELP = "say what a model's KV cache takes, as a function of length"


def add_options(parser):
    """Add what the command takes."""
    parser.add_argument("model", metavar="MODEL", help="a known name, a config.json, or its folder")
    parser.add_argument(
        "--tokens", default="1,1024,8192,32768,131072", help="lengths, comma-separated (default: %(default)s)"
    )
    parser.add_argument("--dtype", help="number type of keys and values, such as fp8 (default: the model's)")
    parser.add_argument("--tensor-parallel", default="1", help="ranks that share a replica (default: 1)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of the bytes (default: table)")


def call(options):
    """Compute the bytes and show them."""
    from kvprefix.models.memory import describe_memory, format_memory

    ranks, tokens = read_number(options.tensor_parallel, int), [_read_length(one) for one in options.tokens.split(",")]
    found = describe_memory(options.model, tokens, dtype=options.dtype, tensor_parallel=ranks)
    tell_lines(json.dumps(found, indent=1) if options.format == "json" else format_memory(found))


def _read_length(text):
    return check_whole(read_number(text.strip(), int), "number of tokens", "whole numbers, 0 or more", least=0)
