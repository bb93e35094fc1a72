"""``kvprefix prepare``: tokenise a workload into the cache."""

from kvprefix.commands.options import add_parameters, read_parameters, tell_counts, tell_trace
from kvprefix.files.compiler import load_compiler

HELP = "tokenise a workload into the cache"


def add_options(parser):
    """Add what the command takes."""
    add_parameters(parser)


def call(options):
    """Tokenise, and say what was read; a trace of block ids is only read."""
    load_compiler()
    from kvprefix.studies.experiment import find_kind, load_experiment
    from kvprefix.traces.workload import load_workload

    parameters = read_parameters(options)
    if find_kind(parameters) == "blocks":
        tell_trace(load_experiment(parameters))
    else:
        tell_counts(load_workload(parameters))
