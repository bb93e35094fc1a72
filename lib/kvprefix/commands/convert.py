"""``kvprefix convert``: write a trace in another tool's format."""

from kvprefix.commands.options import add_rendering, read_path
from kvprefix.files.compiler import load_compiler
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import tell
from kvprefix.formats.lookup import join_names, list_sizes, list_sources, list_targets
from kvprefix.formats.registry import FORMATS

HELP = "write a trace in another tool's format"


def add_options(parser):
    """Add what the command takes."""
    plain = ", ".join(one.name for one in list_sources() if not one.is_packed)
    named = join_names([one for one in FORMATS.values() if "model" in one.options])
    parser.add_argument("source", type=read_path, metavar="IN", help=f"the trace (all but {plain} also as .gz, .zst)")
    parser.add_argument(
        "target", type=read_path, metavar="OUT", help="file to write; JSON Lines are compressed if named .gz or .zst"
    )
    parser.add_argument("--to", required=True, metavar="FORMAT", help=f"format of OUT: {join_names(list_targets())}")
    parser.add_argument(
        "--from", dest="kind", metavar="FORMAT",
        help=f"format of IN: {join_names(list_sources())} (default: found by content)",
    )  # fmt: skip
    sizes = list_sizes("blocks")
    parser.add_argument(
        "--block-size", help=f"tokens per block of OUT, a multiple of IN's if IN has any (default: IN's, else {sizes})"
    )
    parser.add_argument("--from-block-size", help=f"tokens per block of IN (default: what it says, else {sizes})")
    add_rendering(parser)
    parser.add_argument("--model", default="default", help=f"the model to write in {named}, if IN names none")


def call(options):
    """Convert a trace and say what was dropped or added."""
    from kvprefix.formats.convert import convert

    load_compiler()
    sizes = [None if one is None else read_number(one, int) for one in (options.block_size, options.from_block_size)]
    done = convert(
        options.source, options.target, options.to, kind=options.kind, block_size=sizes[0], from_block_size=sizes[1],
        tokenizer=options.tokenizer, server=options.server, model=options.model,
    )  # fmt: skip
    blocks = "" if done.block_size is None else f", blocks of {done.block_size} tokens"
    tell(f"{options.target}: {done.target} of {done.requests:,} requests ({done.source}){blocks}")
    for note in done.notes:
        tell(f"- {note}")
