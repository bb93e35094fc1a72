"""Read and write JSON Lines that list block ids, a request per line: `mooncake` and `bailian` are such forms."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from kvprefix.blocks.listed import check_listed, make_listed, number_chains
from kvprefix.blocks.prefix_trace import PrefixError, number_blocks
from kvprefix.files.arrow_lines import read_lines_of
from kvprefix.files.checks import check_block_size
from kvprefix.files.jsonlines import number_lines, read_first, show_value, write_lines
from kvprefix.files.paths import InputError, explain_os_errors
from kvprefix.files.progress import show_progress
from kvprefix.files.words import count
from kvprefix.formats.block_reader import BlockReader


def read_blocks(path, form, block_size=None):
    """Read a file of requests that list block ids.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.
    form : Form
    block_size : int, optional
        Tokens per block. If not given: what the first line's `block_size` says, else the form's own.

    Returns
    -------
    trace : PrefixTrace
        In the order of the stamps, or of the lines if there are none; each request is a conversation. ``info`` holds
        `trace` (the file's name) and `notes` on what was put right.
    values : dict of str to ndarray
        The form's other fields, in the same order.
    missing : dict of str to int
        How many requests lack a field that may be missing.

    Raises
    ------
    InputError
        A line that is no such request, or a block that follows two different blocks although ids name whole prefixes.
        File and line are named.
    """
    with explain_os_errors(path):
        first = read_first(path) or {}
        block_size = _find_block_size(path, form, block_size, first)
        reader = BlockReader(form, block_size, first)
        values, missing, name_of = reader.scan(path) or read_lines_of(path, reader)
    pa.default_memory_pool().release_unused()
    order, notes = None, _drop_times(values, missing.pop("timestamp"))
    late = np.count_nonzero(values["timestamp"] < np.maximum.accumulate(values["timestamp"]))
    if late:
        notes.append(f"{count(late, 'stamp')} out of order: sorted")
        order = np.argsort(values["timestamp"], kind="stable")
        values = _reorder(values, order)
    stamps, blocks, ids = (values.pop(name) for name in ("timestamp", "blocks", "hash_ids"))
    if stamps[0] < 0:
        below = np.count_nonzero(stamps < 0)
        notes.append(f"{count(below, 'stamp')} below 0: times are counted from the first stamp")
        stamps = stamps - stamps[0]
    if not blocks.all():
        notes.append(f"{count(np.count_nonzero(blocks == 0), 'request')} without tokens: kept, can hit nothing")
    offsets = np.concatenate(([0], np.cumsum(blocks)))
    ids, parent, depth = _number(path, form, ids, offsets, order, name_of, notes)
    trace = make_listed(
        block_size=block_size, ids=ids, offsets=offsets, parent=parent, depth=depth,
        prompt_tokens=values.pop("input_length"), arrival_s=stamps / form.units_per_second,
        info={"trace": Path(path).name, "notes": notes},
    )  # fmt: skip
    return trace, values, missing


def _number(path, form, ids, offsets, order, name_of, notes):
    """Return ids, parent and depth; ids that name a block's own tokens are told apart if the form allows it."""
    try:
        return number_blocks(ids, offsets)
    except PrefixError as error:
        if form.prefix_ids:
            row = error.request if order is None else order[error.request]
            said = PrefixError(row, show_value(name_of(error.block)))
            raise InputError(f"{path}: line {_find_line(path, row)}: {said}") from error
    numbered = number_chains(ids, offsets)
    notes.append(
        f"{count(len(np.unique(ids)), 'block id')} name a block's own tokens, not all that precede them: "
        f"with those, {count(len(numbered[1]), 'block')}"
    )
    return numbered


def _drop_times(values, n_missing):
    """Set the stamps to 0 if no request has one; return what to say of it."""
    if not n_missing:
        return []
    values["timestamp"] = np.zeros(len(values["timestamp"]))
    return ["no line has a time: all requests arrive at 0 s, in the lines' order"]


def _find_block_size(path, form, asked, first):
    """Return a file's block size: what its first request says, else what is asked for, else the form's own.

    The first two must not differ.
    """
    said = first.get("block_size")
    if said is None:
        return form.block_size if asked is None else check_block_size(asked)
    try:
        check_block_size(said)
    except InputError as error:
        raise InputError(f"{path}: in the first request, {error}") from error
    if asked not in (None, said):
        raise InputError(f"{path}: the first request says that its blocks hold {said} tokens, and {asked} were given")
    return said


def _reorder(values, order):
    """Return the requests in another order."""
    blocks = values["blocks"]
    starts, lengths = (np.cumsum(blocks) - blocks)[order], blocks[order]
    take = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    take += np.arange(len(take))
    moved = {name: column[order] for name, column in values.items() if name != "hash_ids"}
    return {**moved, "hash_ids": values["hash_ids"][take]}


def _find_line(path, row):
    """Return the number of the line that holds a request, counted from 0."""
    return next((number for i, (number, _) in enumerate(number_lines(path)) if i == row), row + 1)


def write_blocks(trace, path, heads, *, progress=True):
    """Write the requests of a trace as JSON Lines: what the form says of each one, then its `hash_ids`.

    Parameters
    ----------
    trace : PrefixTrace
        It lists partial blocks too, as `list_blocks` and `read_blocks` make it.
    path : path-like
        Compressed if the name ends in `.gz` or `.zst`.
    heads : iterable of str
        Each request's line up to `hash_ids`, as JSON text without the closing brace.
    progress : bool
    """
    check_listed(trace)
    offsets = trace.offsets.tolist()
    bar = show_progress(len(trace), f"writing {Path(path).name}", " requests", shown=progress)
    with bar, write_lines(path) as file:
        for i, head in enumerate(heads):
            ids = trace.ids[offsets[i] : offsets[i + 1]].tolist()
            file.write(f'{head}, "hash_ids": {ids}}}\n'.encode())
            bar.update()
