"""Read and write JSON Lines that list block ids, a request a line: what the forms of `mooncake` and `bailian` share.

Arrow reads the file; only where that fails, or something is wrong, is it gone through line by line, to name the line.
"""

from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json

from kvprefix.blocks.prefix_trace import PrefixError, number_blocks
from kvprefix.files.checks import check_block_size
from kvprefix.files.jsonlines import (
    ObjectLines,
    is_whole,
    number_lines,
    open_stream,
    read_first,
    show_value,
    write_lines,
)  # fmt: skip
from kvprefix.files.paths import InputError, explain_os_errors
from kvprefix.files.progress import show_progress
from kvprefix.files.words import count
from kvprefix.formats.block_forms import Rows
from kvprefix.formats.block_trace import number_chains

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


class _Read(NamedTuple):
    """What a file holds, in its order: the values by field, how many lack each, and the id that a number stands for."""

    values: dict
    missing: dict
    name_of: object


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
        first = read_first(path) or {}
        block_size = _find_block_size(path, form, block_size, first)
        values, missing, name_of = _read_fast(path, form, block_size, first) or _read_slowly(path, form, block_size)
    pa.default_memory_pool().release_unused()
    order, notes = None, _drop_times(values, missing.pop("timestamp"))
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
            said = PrefixError(row, show_value(name_of(error.block)))
            raise InputError(f"{path}: line {_find_line(path, row)}: {said}") from error
        numbered = number_chains(ids, offsets)
        notes.append(
            f"{count(len(np.unique(ids)), 'block id')} name a block's own tokens, not all that precede them: "
            f"with those, {count(len(numbered[1]), 'block')}"
        )
    return Columns(values, stamps / form.units_per_second, offsets, *numbered, block_size, missing, notes)


def _drop_times(values, n_missing):
    """Set the stamps to 0 where some or all requests have none; return what to say of it."""
    n = len(values["timestamp"])
    if not n_missing:
        return []
    values["timestamp"] = np.zeros(n)
    said = "no line has a time"
    if n_missing < n:
        said = f"{count(n_missing, 'request')} with a delay after a reply and no time: no times are used"
    return [f"{said}: all requests arrive at 0 s, in the lines' order"]


def _find_block_size(path, form, asked, first):
    """Return what a file's first request says of its block size; where it says nothing, what is asked for.

    Without either it is the form's own. The two must not differ.
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


def _read_fast(path, form, block_size, first=None):
    """Return a _Read by Arrow, or None where that fails, something is wrong, or there are sessions.

    Ids are of the kind that the first request has.
    """
    kind = _find_kind((first or {}).get("hash_ids"))
    schema = {**{name: one.arrow for name, one in form.fields.items()}, "hash_ids": pa.list_(kind)}
    schema |= {"session_id": pa.string()} if form.has_sessions else {}
    parse = pa.json.ParseOptions(explicit_schema=pa.schema(schema), unexpected_field_behavior="ignore")
    read = pa.json.ReadOptions(use_threads=False, block_size=_READ_BYTES)
    parts, missing = [], dict.fromkeys(_may_be_missing(form), 0)
    with open_stream(path) as stream:
        try:
            for batch in pa.json.open_json(ObjectLines(stream), read, parse):
                lists = batch["hash_ids"]
                columns = {name: batch[name] for name in form.fields}
                for name in missing:
                    missing[name] += columns[name].null_count
                    columns[name] = columns[name].fill_null(form.fields[name].default or 0)
                if any(column.null_count for column in [lists, lists.flatten(), *columns.values()]):
                    return None
                if form.has_sessions and batch["session_id"].null_count < len(batch):
                    return None
                parts.append({**columns, "blocks": lists.offsets, "hash_ids": lists.flatten()})
        except (pa.ArrowException, OSError):
            return None
    values = {name: _to_array([part[name] for part in parts]) for name in form.fields}
    values["hash_ids"], name_of = _number_ids([part["hash_ids"] for part in parts], kind)
    values["blocks"] = np.concatenate([np.diff(_to_array([part["blocks"]])) for part in parts]).astype(np.int64)
    right = (np.abs(values["timestamp"]) <= form.latest).all() and missing["timestamp"] in (0, len(values["timestamp"]))
    right = right and all(
        one.least is None or (one.least <= values[name].min() and values[name].max() <= one.most)
        for name, one in form.fields.items()
    )
    right = right and np.array_equal(-(-values["input_length"] // block_size), values["blocks"])
    return _Read(values, missing, name_of) if right else None


def _find_kind(ids):
    """Return the Arrow type of a request's ids."""
    if not isinstance(ids, list) or all(is_whole(one) for one in ids):
        return pa.int64()
    return pa.string() if isinstance(ids[0], str) else pa.uint64()


def _may_be_missing(form):
    return ["timestamp", *(name for name, one in form.fields.items() if one.default is not None)]


def _to_array(columns):
    if pa.types.is_string(columns[0].type):
        return np.array([text for column in columns for text in column.to_pylist()], object)
    return np.concatenate([np.from_dlpack(column) for column in columns])  # to_numpy() would import pandas


def _number_ids(columns, kind):
    """Return ids as numbers of 64 bits, and a function that gives a number's id back."""
    if kind == pa.string():
        encoded = pa.chunked_array(columns).combine_chunks().dictionary_encode()
        return _to_array([encoded.indices]).astype(np.int64), lambda number: encoded.dictionary[int(number)].as_py()
    if kind == pa.uint64():
        return _to_array(columns).view(np.int64), lambda number: int(number) % 2**64
    return _to_array(columns), int


def _read_slowly(path, form, block_size):
    """Return the same with Python's own JSON, or raise InputError with the first line that is wrong."""
    values = {name: [] for name in form.fields} | {"hash_ids": array("q"), "blocks": array("q")}
    missing, rows = dict.fromkeys(_may_be_missing(form), 0), Rows(form)
    for number, line in number_lines(path):
        request, fault = form.parse(line, block_size)
        ids, fault = (None, fault) if fault else rows.add(request)
        if fault:
            raise InputError(f"{path}: line {number} {fault}")
        for name, one in form.fields.items():
            value = request.get(name)
            if value is None:
                missing[name] += 1
                value = one.default or 0
            values[name].append(value)
        values["blocks"].append(len(ids))
        values["hash_ids"].extend(ids)
    if not values["timestamp"]:
        raise InputError(f"{path}: holds no requests; {form.expected}")
    kinds = {name: one.arrow for name, one in form.fields.items()}
    columns = {name: _to_column(column, kinds.get(name)) for name, column in values.items()}
    return _Read(columns, missing, list(rows.numbers).__getitem__)


def _to_column(column, kind):
    if not isinstance(column, array) and not all(isinstance(value, float) or is_whole(value) for value in column):
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
