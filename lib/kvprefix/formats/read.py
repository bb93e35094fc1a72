"""Read a trace in any known format."""

from pathlib import Path

from kvprefix.formats.entry import Options
from kvprefix.formats.lookup import find_source, recognise, refuse_unknown


def read_trace(path, *, form=None, block_size=None, tokenizer="bundled", progress=False):
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
    content = found.read(path, Options(block_size=block_size, tokenizer=tokenizer, progress=progress))
    if found.holds != "messages":
        return content
    from kvprefix.formats.chat_trace import tokenise_log
    from kvprefix.tokens.tokenizer import find_tokenizer

    return tokenise_log(content, find_tokenizer(tokenizer), progress=progress)
