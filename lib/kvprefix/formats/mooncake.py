"""Traces in Mooncake's form: JSON Lines of `timestamp` (ms), `input_length`, `output_length` and `hash_ids`.

`hash_ids` are the blocks of a request's prompt from the root on, the last one often partial; an id is a whole number of
any size, or a text. Of the other fields two are read: the first line's `block_size`, which kvcache-simulator reads too,
and `session_id`, with which a file is read as `mooncake_sessions` says.
"""

from dataclasses import replace

import numpy as np

from kvprefix.files.words import count
from kvprefix.formats.block_forms import LENGTH, STAMP, Form, HasSessions
from kvprefix.formats.block_lines import read_blocks, write_blocks
from kvprefix.formats.registry import FORMATS

MOONCAKE = Form(
    {"timestamp": STAMP, "input_length": LENGTH}, FORMATS["mooncake"].block_size, 1000,
    'a line is {"timestamp": ms, "input_length": tokens, "hash_ids": [block, ...]}', True, True,
)  # fmt: skip
_WITH_OUTPUTS = MOONCAKE._replace(fields={**MOONCAKE.fields, "output_length": LENGTH._replace(default=0)})


def read_mooncake(path, block_size=None, *, outputs=False):
    """Read a trace in Mooncake's form.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.
    block_size : int, optional
        Tokens per block: a request lists ceil(input_length / block_size) ids, and its last block saves what it holds.
        If not given: what the first line's `block_size` says, else 512.
    outputs : bool
        Also read `output_length` (0 if there is none), as `output_tokens`; else it is not read.

    Returns
    -------
    PrefixTrace or None
        In the order of the stamps, or of the lines if there are none; each request is a conversation and finishes as
        it arrives, since no clock is known. ``info["notes"]`` says what was put right. None if a line has a
        `session_id`.

    Raises
    ------
    InputError
        A line that is no such request, or a block that follows two different blocks; file and line are named.
    """
    try:
        trace, values, missing = read_blocks(path, _WITH_OUTPUTS if outputs else MOONCAKE, block_size)
    except HasSessions:
        return None
    if missing.get("output_length"):
        trace.info["notes"].append(f"{count(missing['output_length'], 'request')} without output_length: taken as 0")
    return replace(trace, output_tokens=values.get("output_length"))


def write_mooncake(trace, path, *, progress=True):
    """Write a trace in Mooncake's form, with `block_size` in each line.

    Parameters
    ----------
    trace : PrefixTrace
        It lists partial blocks too. Without `output_tokens`, 0 is written.
    path : path-like
    progress : bool

    Returns
    -------
    list of str
        What was dropped.
    """
    stamps = np.rint(1000 * trace.arrival_s)
    outputs = np.zeros(len(trace), np.int64) if trace.output_tokens is None else trace.output_tokens
    columns = stamps.astype(np.int64), trace.prompt_tokens, outputs
    heads = (
        f'{{"timestamp": {stamp}, "input_length": {length}, "output_length": {output}, "block_size": {trace.block_size}'
        for stamp, length, output in zip(*(column.tolist() for column in columns), strict=True)
    )
    write_blocks(trace, path, heads, progress=progress)
    notes, moved_ms = [], float(np.abs(stamps - 1000 * trace.arrival_s).max(initial=0))
    if trace.previous is not None:
        what = "chat_id, parent_chat_id, type and turn" if trace.types else "conversations and turns"
        notes.append(f"dropped: {what}")
    if moved_ms > 1e-6:
        notes.append(f"dropped: fractions of a millisecond (stamps moved by at most {moved_ms:.3g} ms)")
    return notes
