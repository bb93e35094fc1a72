"""Convert traces between the formats of other tools: the library behind ``python -m kvprefix convert``.

Which formats there are, and how each is read and written, is in `registry`; here is what becomes of what they hold.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from kvprefix.files.checks import check_block_size
from kvprefix.files.paths import InputError, refuse_same_file
from kvprefix.files.words import count
from kvprefix.formats.entry import Options
from kvprefix.formats.lookup import find_source, find_target, recognise, refuse_unknown


class Converted(NamedTuple):
    """What a conversion did.

    Attributes
    ----------
    source, target : str
        Names of formats.
    requests : int
        Of what was read.
    block_size : int or None
        Tokens; None if the target lists no blocks.
    notes : list of str
        What was put right, and what was dropped.
    """

    source: str
    target: str
    requests: int
    block_size: int | None
    notes: list


def convert(
    source, target, to, *, kind=None, block_size=None, from_block_size=None, tokenizer="bundled", server="vllm",
    model="default", progress=True,
):  # fmt: skip
    """Read a trace in any format that can be read and write it in one that can be written, whole or not at all.

    Parameters
    ----------
    source, target : path-like
        JSON Lines are compressed if the target's name ends in `.gz` or `.zst`.
    to : str
        The target's format.
    kind : str, optional
        The source's format; found by content if not given.
    block_size : int, optional
        Tokens per block, of a target that lists blocks. If not given: the source's own, or of a source with tokens the
        target's usual one.
    from_block_size : int, optional
        Tokens per block, of a source that lists blocks. If not given: what it says, else its form's usual one.
    tokenizer : str
        For a source with messages: `bundled` (Qwen2.5), a hub id or a folder.
    server : str
        For chats: whose rules make prompts of bodies.
    model : str
        For a batch file, if the log names none.
    progress : bool

    Returns
    -------
    Converted

    Raises
    ------
    InputError
        A source that is in no known format or is wrong (file and line are named); a source without tokens or messages
        for a target that needs them; finer blocks than there are.
    """
    written = find_target(to)
    read = None if kind is None else find_source(kind)
    for size in (block_size, from_block_size):
        if size is not None:
            check_block_size(size)
    written.check_target(target)
    refuse_same_file(source, target)
    read = read or recognise(source) or refuse_unknown(source)
    _check_pair(source, read, written, block_size, from_block_size)
    options = Options(from_block_size, True, tokenizer, server, model, progress)
    given = content = _read(source, read, written, options)
    if written.holds == "blocks":
        content = _list_blocks(given, read, written, block_size)
    dropped = written.write(content, Path(target), options)
    notes = [*_notes_of(given), *_describe_tokens(read, written), *dropped]
    if written.holds != "blocks":
        return Converted(read.name, to, len(content), None, notes)
    notes += _describe_sizes(given if read.holds == "blocks" else content, content, written.block_size)
    return Converted(read.name, to, len(content), content.block_size, notes)


def _check_pair(source, read, written, block_size, from_block_size):
    """Raise InputError if no such target can be made of such a source."""
    to = written.name
    if from_block_size is not None and read.holds != "blocks":
        raise InputError(f"--from-block-size is given, but {source} ({read.name}) lists no blocks")
    if written.holds == "blocks":
        return
    if block_size is not None:
        raise InputError(f"--block-size is given, but {to} lists no blocks")
    if read.holds == "blocks":
        raise InputError(f"{source}: lists block ids ({read.name}), whose tokens are not known: no {to} of it")
    if (read.holds, written.holds) == ("tokens", "messages"):
        raise InputError(
            f"{source}: holds token ids, and {to} needs the messages: convert the trace of JSON Lines that was written "
            "beside it (such as multi_turn_trace.jsonl)"
        )


def _read(source, read, written, options):
    """Return what a source holds; its messages as tokens, if these are needed."""
    return (read.read if read.holds != "messages" or written.holds == "messages" else read.tokenise)(source, options)


def _list_blocks(given, read, written, block_size):
    """Return a PrefixTrace of the size that is asked for."""
    from kvprefix.blocks.listed import coarsen_blocks, complete_blocks, list_blocks

    if read.holds == "blocks":
        given = complete_blocks(given)
        return given if block_size is None else coarsen_blocks(given, block_size)
    return list_blocks(given, block_size or written.block_size)


def _notes_of(content):
    """Return what was put right in reading; of a trace with tokens, in reading the log that it is made of."""
    info = content.info.get("log", {}) if hasattr(content, "tokens") else content.info
    return info.get("notes", [])


def _describe_tokens(read, written):
    """Say what is dropped of tokens and texts."""
    if written.holds == "blocks" and read.holds != "blocks":
        return ["dropped: token ids and texts (their numbers stay), names of requests and conversations"]
    if (read.holds, written.holds) == ("messages", "tokens"):
        return ["dropped: the messages' texts (token ids stay)"]
    return []


def _describe_sizes(given, trace, usual):
    """Say what the blocks' size brings: coarser blocks, partial ones, prompts without any."""
    size, n = trace.block_size, len(trace)
    partial = int(np.count_nonzero(trace.prompt_tokens % size))
    empty = int(np.count_nonzero(trace.prompt_tokens == 0))
    said = {
        f"{given.block_size} tokens per block became {size}: {count(given.n_distinct, 'distinct block')} became "
        f"{count(trace.n_distinct, 'distinct block')}": given.block_size != size,
        f"{partial:,} of {count(n, 'request')} end in a partial block, which has an id of its own": partial,
        f"{count(empty, 'request')} without tokens: kvcache-simulator refuses them": empty,
        f"blocks hold {size} tokens: other tools must be told, for the usual size is {usual}": size != usual,
    }
    return [text for text, applies in said.items() if applies]
