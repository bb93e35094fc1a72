"""Read a trace in any known format."""

from pathlib import Path

from kvprefix.files.paths import InputError
from kvprefix.formats.entry import Options
from kvprefix.formats.lookup import find_source, join_words, list_sources, recognise, refuse_unknown


def read_trace(path, *, form=None, block_size=None, tokenizer="bundled", server="vllm", timing=None, progress=False):
    """Read a trace in any known format, found by content, plain or compressed.

    Parameters
    ----------
    path : path-like
    form : str, optional
        The name of its format; found by content if not given.
    block_size : int, optional
        Tokens per block of a trace that lists blocks; what the file says, or the format's usual size, if not given.
    tokenizer : str
        Of a log with messages: `bundled` (Qwen2.5), a Hugging Face hub id or a folder.
    server : str
        Of chats: whose rules make prompts of bodies.
    timing : Timing, optional
        Of a trace of sessions: when they start, and their requests follow.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Trace or PrefixTrace
        A PrefixTrace if the format lists block ids, otherwise a Trace with tokens.

    Raises
    ------
    InputError
        No such file, an unknown format, or a wrong line: file and line are named.
    """
    path = Path(path)
    found = find_source(form) if form else recognise(path) or refuse_unknown(path)
    check_timing(path, found, timing)
    read = found.tokenise or found.read
    options = Options(block_size=block_size, tokenizer=tokenizer, server=server, progress=progress, timing=timing)
    return read(path, options)


def read_sessions(path, *, form=None, block_size=None, timing=None):
    """Read a trace of sessions, before it is known when each starts.

    Parameters
    ----------
    path, form, block_size
        As in `read_trace`.
    timing : Timing, optional
        How long requests take whose log does not say it.

    Returns
    -------
    SessionTrace

    Raises
    ------
    InputError
        As `read_trace`; or a trace without sessions.
    """
    found = find_source(form) if form else recognise(path) or refuse_unknown(path)
    read = found.read_sessions and found.read_sessions(Path(path), Options(block_size=block_size, timing=timing))
    if read is None:
        raise InputError(f"{path}: has no sessions ({found.name}); expected {_name_sessions()}")
    return read


def check_timing(path, found, timing):
    """Raise InputError if times are given for a trace that has no sessions to put there."""
    if timing and "timing" not in found.options:
        raise InputError(
            f"{path}: has no sessions ({found.name}), so its requests keep their times; --arrivals and the like are "
            f"for {_name_sessions()}"
        )


def _name_sessions():
    return join_words([one.label for one in list_sources("blocks") if one.read_sessions])
