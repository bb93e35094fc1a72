"""``kvprefix prepare``: tokenise a workload into the cache."""

from kvprefix.commands.options import add_parameters, read_parameters, tell_counts
from kvprefix.files.compiler import load_compiler

HELP = "tokenise a workload into the cache"


def add_options(parser):
    """Add what the command takes."""
    add_parameters(parser)


def call(options):
    """Tokenise, and say what was read."""
    load_compiler()
    from kvprefix.traces.workload import load_workload

    tell_counts(load_workload(read_parameters(options)))
