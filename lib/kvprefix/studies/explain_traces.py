"""Read traces that are to be explained; what the parameters say that a trace cannot heed is refused."""

from dataclasses import replace

import numpy as np

from kvprefix.blocks.prefix_trace import select_requests
from kvprefix.files.paths import InputError
from kvprefix.formats.entry import Options
from kvprefix.formats.read import read_trace
from kvprefix.studies.experiment import make_timing
from kvprefix.traces.table import SESSION_NAMES, TABLE

_TIMES = [name for name in SESSION_NAMES if name != "seed"]


def read_blocks(found, path, parameters, mode, heeded=()):
    """Return a trace of block ids; one of sessions at the times that the parameters give.

    Parameters
    ----------
    found : Format
        Its format.
    path : pathlib.Path
    parameters : Parameters
    mode : str
    heeded : sequence of str
        Names of parameters that whoever asks heeds itself.

    Raises
    ------
    InputError
        Parameters that the trace cannot heed.
    """
    timing, most = make_timing(parameters), parameters.max_conversations
    sessions = found.read_sessions and found.read_sessions(path, Options(timing=timing))
    _refuse(path, found, parameters, mode, ["clock"] if sessions else ["clock", *_TIMES], heeded)
    trace = read_trace(path) if not sessions else None
    if sessions and most is not None:
        sessions = sessions.select(sessions.accesses.conversation < most)
    if trace is not None and most is not None:
        trace = select_requests(trace, np.flatnonzero(trace.conversation < most))
    trace = timing.arrange(sessions) if sessions else trace
    if parameters.block_size not in (TABLE["block_size"].default, trace.block_size):
        wanted = f"--block-size {parameters.block_size}"
        raise InputError(f"{path}: lists blocks of {trace.block_size} tokens; {wanted} cannot be made of them")
    return trace


def read_tokens(found, path, parameters, mode, heeded=()):
    """Return a trace of prompts as token ids; raise InputError for parameters that nobody can heed."""
    _refuse(path, found, parameters, mode, ["clock", *_TIMES], heeded)
    return read_trace(path, tokenizer=parameters.tokenizer, server=parameters.server)


def take_first(trace, most):
    """Return the requests of a Trace's first conversations; of all if `most` is None."""
    if most is None:
        return trace
    kept = trace.column("conversation_index") < most
    contexts, requests = None if trace.contexts is None else trace.contexts[kept], trace.requests[kept]
    return replace(trace, requests=requests.reset_index(drop=True), rows=trace.rows[kept], contexts=contexts)


def _refuse(path, found, parameters, mode, names, heeded):
    """Raise InputError if the mode, or one of these parameters that is not heeded, is another than usual."""
    changed = [name for name in names if name not in heeded and getattr(parameters, name) != TABLE[name].default]
    given = [f"--{name.replace('_', '-')}" for name in changed]
    given += [f"--mode {mode}"] if mode != "multi_turn" else []
    if given:
        raise InputError(f"{path}: {', '.join(given)} cannot be heeded: a trace has its own requests ({found.label})")
