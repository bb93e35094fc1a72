"""``kvprefix curve``: rate a trace at many cache sizes under several eviction policies."""

import argparse
import json
import sys

from kvprefix.commands.options import add_rendering, add_timing, read_path, read_timing, tell_lines
from kvprefix.files.compiler import load_compiler
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import tell
from kvprefix.formats.lookup import join_words, list_sizes, list_sources

HELP = "rate a trace at many cache sizes under several eviction policies"


def add_options(parser):
    """Add what the command takes."""
    kinds = join_words([one.label for one in list_sources()])
    sizes = list_sizes("messages", "tokens", "blocks")
    parser.formatter_class = _NamesPolicies
    parser.add_argument("trace", type=read_path, help=f"{kinds} (lines also as .gz, .zst)")
    parser.add_argument("--policy", default="lru,opt", help="policies, comma-separated (default: %(default)s)")
    parser.add_argument(
        "--capacities", help="in blocks, comma-separated (default: round numbers up to the number of distinct blocks)"
    )
    parser.add_argument("--warmup", default="0", help="share of the requests that only fill the cache (default: 0)")
    parser.add_argument("--block-size", help=f"tokens per block (default: the trace's own, else {sizes})")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of the rates (default: table)")
    add_rendering(parser)
    add_timing(parser)


class _NamesPolicies(argparse.HelpFormatter):
    """Lists the policies only when help is asked for: loading them takes a second."""

    def _get_help_string(self, action):
        if action.dest != "policy":
            return super()._get_help_string(action)
        load_compiler()
        from kvprefix.cache.policies import POLICIES

        return f"{action.help}; known: {', '.join(POLICIES)}".replace("%", "%%").replace("%%(default)s", "%(default)s")


def call(options):
    """Measure a trace and show the table."""
    load_compiler()
    from kvprefix.studies.sweep import format_result, measure_file, split_list

    policies = split_list(options.policy)
    result = measure_file(
        options.trace, policies, None if options.capacities is None else split_list(options.capacities, int),
        block_size=None if options.block_size is None else read_number(options.block_size, int),
        warmup=read_number(options.warmup, float), timing=read_timing(options),
        tokenizer=options.tokenizer, server=options.server, progress=True,
        announce=lambda text: tell(text, sys.stderr),
    )  # fmt: skip
    for note in result["trace"]["notes"]:
        tell(f"note: {note}", sys.stderr)
    as_json = options.format == "json"
    tell_lines(json.dumps(result, indent=1, allow_nan=False) if as_json else format_result(result))
