"""Read and write JSON Lines that list block ids, a request a line: what the forms of `mooncake` and `bailian` share.

Arrow reads the file; only where that fails, or something is wrong, is it gone through line by line, to name the line.
"""

from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json

from kvprefix.accesses import PrefixError, number_blocks
from kvprefix.blocks import check_block_size
from kvprefix.blocktraces import number_chains
from kvprefix.files import InputError, explain_os_errors
from kvprefix.jsonlines import count, number_lines, open_stream, read_first, write_lines
from kvprefix.progress import show_progress

_READ_BYTES = 4 << 20  # by Arrow at once; a longer line is read the slow way


class Columns(NamedTuple):
    """A file's requests in arrival order, and what was put right.

    Attributes
    ----------
    values : dict of str to ndarray or list
        Each field's values, a list where they are texts.
    arrival_s : (n,) ndarray of float64
    offsets : (n + 1,) ndarray of int64
    ids, parent, depth : ndarrays of int32
        Dense; as in `BlockTrace`.
    block_size : int
    missing : dict of str to int
        How many requests lack a field that may be missing.
    notes : list of str
    """

    values: dict
    arrival_s: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    block_size: int
    missing: dict
    notes: list


def read_columns(path, form, block_size=None):
    """Read a file of requests that list block ids.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.
    form : Form
    block_size : int, optional
        Tokens a block. If not given: what the first line's `block_size` says, else the form's own.

    Returns
    -------
    Columns

    Raises
    ------
    InputError
        Naming the file and line: what is no such request, and a block that follows two different blocks where an id
        must name the whole prefix.
    """
    with explain_os_errors(path):
        block_size = _find_block_size(path, form, block_size)
        values, missing = _read_fast(path, form, block_size) or _read_slowly(path, form, block_size)
    pa.default_memory_pool().release_unused()
    order, notes = None, []
    late = np.count_nonzero(values["timestamp"] < np.maximum.accumulate(values["timestamp"]))
    if late:
        notes.append(f"{count(late, 'stamp')} out of order: sorted")
        order = np.argsort(values["timestamp"], kind="stable")
        values = _reorder(values, order)
    stamps, blocks = values.pop("timestamp"), values.pop("blocks")
    if stamps[0] < 0:
        below = np.count_nonzero(stamps < 0)
        notes.append(f"{count(below, 'stamp')} below 0: times are counted from the first stamp")
        stamps = stamps - stamps[0]
    if not blocks.all():
        notes.append(f"{count(np.count_nonzero(blocks == 0), 'request')} without tokens: kept, can hit nothing")
    offsets, ids = np.concatenate(([0], np.cumsum(blocks))), values.pop("hash_ids")
    try:
        numbered = number_blocks(ids, offsets)
    except PrefixError as error:
        if form.prefix_ids:
            row = error.request if order is None else order[error.request]
            raise InputError(f"{path}: line {_find_line(path, row)}: {error}") from error
        numbered = number_chains(ids, offsets)
        notes.append(
            f"{count(len(np.unique(ids)), 'block id')} name a block's own tokens, not all that precede them: "
            f"with those, {count(len(numbered[1]), 'block')}"
        )
    return Columns(values, stamps / form.units_per_second, offsets, *numbered, block_size, missing, notes)


def _find_block_size(path, form, asked):
    """Return what a file's first request says of its block size; where it says nothing, what is asked for.

    Without either it is the form's own. The two must not differ.
    """
    said = (read_first(path) or {}).get("block_size")
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


def _read_fast(path, form, block_size):
    """Return (values, missing) by Arrow, or None where that fails or something is wrong."""
    schema = {**{name: one.arrow for name, one in form.fields.items()}, "hash_ids": pa.list_(pa.int64())}
    parse = pa.json.ParseOptions(explicit_schema=pa.schema(schema), unexpected_field_behavior="ignore")
    read = pa.json.ReadOptions(use_threads=False, block_size=_READ_BYTES)
    parts, missing = [], dict.fromkeys((name for name, one in form.fields.items() if one.default is not None), 0)
    with open_stream(path) as stream:
        try:
            for batch in pa.json.open_json(stream, read, parse):
                lists = batch["hash_ids"]
                columns = {name: batch[name] for name in form.fields}
                for name in missing:
                    missing[name] += columns[name].null_count
                    columns[name] = columns[name].fill_null(form.fields[name].default)
                if any(column.null_count for column in [lists, lists.flatten(), *columns.values()]):
                    return None
                columns |= {"blocks": lists.offsets, "hash_ids": lists.flatten()}
                parts.append({name: _to_array(column) for name, column in columns.items()})
        except (pa.ArrowException, OSError):
            return None
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "blocks"}
    values["blocks"] = np.concatenate([np.diff(part["blocks"]) for part in parts]).astype(np.int64)
    right = np.isfinite(values["timestamp"]).all() and all(
        one.least is None or values[name].min() >= one.least for name, one in form.fields.items()
    )
    right = right and np.array_equal(-(-values["input_length"] // block_size), values["blocks"])
    return (values, missing) if right else None


def _to_array(column):
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), object)
    return np.from_dlpack(column)  # to_numpy() would import pandas


def _read_slowly(path, form, block_size):
    """Return the same with Python's own JSON, or raise InputError with the first line that is wrong."""
    values = {name: [] for name in form.fields} | {"blocks": array("q"), "hash_ids": array("q")}
    missing = dict.fromkeys((name for name, one in form.fields.items() if one.default is not None), 0)
    for number, line in number_lines(path):
        request, fault = form.parse(line, block_size)
        if fault:
            raise InputError(f"{path}: line {number} {fault}")
        for name, one in form.fields.items():
            value = request.get(name)
            if value is None and name in missing:
                missing[name] += 1
                value = one.default
            values[name].append(value)
        values["blocks"].append(len(request["hash_ids"]))
        values["hash_ids"].extend(request["hash_ids"])
    if not values["timestamp"]:
        raise InputError(f"{path}: holds no requests; {form.expected}")
    kinds = {name: one.arrow for name, one in form.fields.items()}
    return {name: _to_column(column, kinds.get(name)) for name, column in values.items()}, missing


def _to_column(column, kind):
    if any(isinstance(value, str) for value in column):
        return np.array(column, object)
    return np.array(column, float if kind == pa.float64() else np.int64)


def _find_line(path, row):
    """Return the number of the line that holds a request, counted from 0."""
    return next((number for i, (number, _) in enumerate(number_lines(path)) if i == row), row + 1)


def write_blocks(trace, path, heads, *, progress=True):
    """Write the requests of a BlockTrace as JSON Lines: what the form says of each one, then its `hash_ids`.

    Parameters
    ----------
    trace : BlockTrace
    path : path-like
        Compressed where the name ends in `.gz` or `.zst`.
    heads : iterable of str
        Each request's line up to `hash_ids`, as JSON text without the closing brace.
    progress : bool
    """
    offsets = trace.offsets.tolist()
    bar = show_progress(len(trace), f"writing {Path(path).name}", " requests", shown=progress)
    with bar, write_lines(path) as file:
        for i, head in enumerate(heads):
            ids = trace.ids[offsets[i] : offsets[i + 1]].tolist()
            file.write(f'{head}, "hash_ids": {ids}}}\n'.encode())
            bar.update()
