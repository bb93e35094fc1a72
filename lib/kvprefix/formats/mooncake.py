"""Traces in Mooncake's form: JSON Lines of `timestamp` (ms), `input_length`, `output_length` and `hash_ids`.

`hash_ids` are the blocks of a request's prompt from the root on, the last one often partial; an id is a whole number of
any size, or a text. Other fields are not read, but for the first line's `block_size`, which kvcache-simulator reads
too, and for `session_id`, by which a line that lists only what is new since the one before it, as aiperf takes it, is
refused. A later line of a session may have a `delay` after a reply and no `timestamp`: then no times are known, as
where no line has one.
"""

from pathlib import Path

import numpy as np

from kvprefix.files.words import count
from kvprefix.formats.block_forms import LENGTH, STAMP, Form
from kvprefix.formats.block_lines import read_columns, write_blocks
from kvprefix.formats.block_trace import BlockTrace

BLOCK_SIZE = 512  # tokens, of the traces that Mooncake published
MOONCAKE = Form(
    {"timestamp": STAMP, "input_length": LENGTH}, BLOCK_SIZE, 1000,
    'a line is {"timestamp": ms, "input_length": tokens, "hash_ids": [block, ...]}', True, True,
)  # fmt: skip
_WITH_OUTPUTS = MOONCAKE._replace(fields={**MOONCAKE.fields, "output_length": LENGTH._replace(default=0)})


def read_mooncake(path, block_size=None):
    """Read a trace in Mooncake's form as what a cache sees; `output_length` is not looked at.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.
    block_size : int, optional
        Tokens a block: a request lists ceil(input_length / block_size) ids, and its last block saves what it holds. If
        not given: what the first line's `block_size` says, else 512.

    Returns
    -------
    PrefixTrace
        In the order of the stamps, without stamps of the lines; each request is a conversation and finishes as it
        arrives, for no clock is known. ``info["notes"]`` says what was put right.

    Raises
    ------
    InputError
        Naming the file and line: what is no such request, and a block that follows two different blocks.
    """
    return _read(path, MOONCAKE, block_size).make_prefix_trace()


def read_mooncake_trace(path, block_size=None):
    """Read a trace in Mooncake's form with its `output_length` (0 where there is none), as a BlockTrace.

    Parameters and errors are those of `read_mooncake`.
    """
    return _read(path, _WITH_OUTPUTS, block_size)


def _read(path, form, block_size):
    columns = read_columns(path, form, block_size)
    n, notes = len(columns.arrival_s), columns.notes
    if columns.missing.get("output_length"):
        notes.append(f"{count(columns.missing['output_length'], 'request')} without output_length: taken as 0")
    return BlockTrace(
        columns.block_size, columns.arrival_s, columns.values["input_length"],
        columns.values.get("output_length", np.zeros(n, np.int64)), columns.ids, columns.offsets, columns.parent,
        columns.depth, np.full(n, -1), np.zeros(n, np.int64), ["text"] * n,
        {"trace": Path(path).name, "notes": notes},
    )  # fmt: skip


def write_mooncake(trace, path, *, progress=True):
    """Write a BlockTrace in Mooncake's form, with `block_size` in each line.

    Parameters
    ----------
    trace : BlockTrace
    path : path-like
    progress : bool

    Returns
    -------
    float
        The most that a stamp moved by being rounded to whole milliseconds, in ms.
    """
    stamps = np.rint(1000 * trace.arrival_s)
    columns = stamps.astype(np.int64), trace.prompt_tokens, trace.output_tokens
    heads = (
        f'{{"timestamp": {stamp}, "input_length": {length}, "output_length": {output}, "block_size": {trace.block_size}'
        for stamp, length, output in zip(*(column.tolist() for column in columns), strict=True)
    )
    write_blocks(trace, path, heads, progress=progress)
    return float(np.abs(stamps - 1000 * trace.arrival_s).max(initial=0))
