"""Read a trace that lists block ids, as Mooncake published its own: JSON Lines, plain or gzip or zstandard.

A line is a request: `timestamp` (ms), `input_length` (tokens), `hash_ids` (the blocks of its prompt from the root on,
the last one often partial). Other fields, `output_length` among them, are not read. Arrow reads the file; only where
that fails, or something is wrong, is it gone through line by line, to name the line.
"""

import io
import json
from array import array
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json

from kvprefix.accesses import Accesses, PrefixError, number_blocks
from kvprefix.blocks import check_block_size
from kvprefix.files import InputError, explain_os_errors

BLOCK_SIZE = 512  # tokens, of the traces that Mooncake published
_FIELDS = {"timestamp": pa.float64(), "input_length": pa.int64(), "hash_ids": pa.list_(pa.int64())}
_EXPECTED = 'a line is {"timestamp": ms, "input_length": tokens, "hash_ids": [block, ...]}'
_READ_BYTES = 4 << 20  # by Arrow at once; a longer line is read the slow way


def read_mooncake(path, block_size=BLOCK_SIZE):
    """Read a trace of block ids.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.
    block_size : int
        Tokens a block: a request lists ceil(input_length / block_size) ids, and its last block saves what it holds.

    Returns
    -------
    Accesses
        In the order of the stamps; each request is a conversation and finishes as it arrives, for no clock is known.
        ``info["notes"]`` says what was put right.

    Raises
    ------
    InputError
        Naming the file and line: what is no such request, and a block that follows two different blocks.
    """
    block_size = check_block_size(block_size)
    with explain_os_errors(path):
        columns = _read_fast(path, block_size) or _read_slowly(path, block_size)
    pa.default_memory_pool().release_unused()
    order, notes = None, []
    late = np.count_nonzero(columns[0] < np.maximum.accumulate(columns[0]))
    if late:
        notes.append(f"{_count(late, 'stamp')} out of order: sorted")
        order = np.argsort(columns[0], kind="stable")
        columns = _reorder(*columns, order)
    stamps, prompt_tokens, blocks, ids = columns
    if stamps[0] < 0:
        below = np.count_nonzero(stamps < 0)
        notes.append(f"{_count(below, 'stamp')} below 0: times are counted from the first stamp")
        stamps = stamps - stamps[0]
    if not blocks.all():
        notes.append(f"{_count(np.count_nonzero(blocks == 0), 'request')} without tokens: kept, can hit nothing")
    offsets = np.concatenate(([0], np.cumsum(blocks)))
    try:
        dense, parent, depth = number_blocks(ids, offsets)
    except PrefixError as error:
        row = error.request if order is None else order[error.request]
        raise InputError(f"{path}: line {_find_line(path, row)}: {error}") from error
    last_weight = np.where(blocks > 0, prompt_tokens - block_size * (blocks - 1), 0)
    arrival_s = stamps / 1000
    return Accesses(
        block_size, dense, offsets, last_weight, prompt_tokens, parent, depth, arrival_s, arrival_s,
        np.arange(len(blocks)), {"trace": Path(path).name, "notes": notes},
    )  # fmt: skip


def _count(n, noun):
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _reorder(stamps, prompt_tokens, blocks, ids, order):
    """Return the columns with their requests in another order."""
    starts, lengths = (np.cumsum(blocks) - blocks)[order], blocks[order]
    take = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    take += np.arange(len(ids))
    return stamps[order], prompt_tokens[order], lengths, ids[take]


def _read_fast(path, block_size):
    """Return (stamps, input lengths, ids a request, ids), or None where Arrow fails or something is wrong."""
    parse = pa.json.ParseOptions(explicit_schema=pa.schema(_FIELDS), unexpected_field_behavior="ignore")
    read = pa.json.ReadOptions(use_threads=False, block_size=_READ_BYTES)
    parts = []
    with _open(path) as stream:
        try:
            for batch in pa.json.open_json(stream, read, parse):
                stamps, lengths, lists = (batch[name] for name in _FIELDS)
                columns = stamps, lengths, lists.offsets, lists.flatten()
                if lists.null_count or any(column.null_count for column in columns):
                    return None
                parts.append([np.from_dlpack(column) for column in columns])  # to_numpy() would import pandas
        except (pa.ArrowException, OSError):
            return None
    stamps, lengths, offsets, ids = zip(*parts, strict=True)
    stamps, lengths, ids = (np.concatenate(column) for column in (stamps, lengths, ids))
    blocks = np.concatenate([np.diff(one) for one in offsets])
    right = np.isfinite(stamps).all() and lengths.min() >= 0 and np.array_equal(-(-lengths // block_size), blocks)
    return (stamps, lengths, blocks.astype(np.int64), ids) if right else None


def _read_slowly(path, block_size):
    """Return the same with Python's own JSON, or raise InputError with the first line that is wrong."""
    stamps, lengths, blocks, ids = array("d"), array("q"), array("q"), array("q")
    for number, line in _lines(path):
        request, fault = _parse(line, block_size)
        if fault:
            raise InputError(f"{path}: line {number} {fault}")
        stamps.append(request["timestamp"])
        lengths.append(request["input_length"])
        blocks.append(len(request["hash_ids"]))
        ids.extend(request["hash_ids"])
    if not stamps:
        raise InputError(f"{path}: holds no requests; {_EXPECTED}")
    return tuple(np.array(column) for column in (stamps, lengths, blocks, ids))


def _parse(line, block_size):
    """Return a line's request, and what is wrong with it (None if nothing is)."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        return None, f"is not JSON ({reason}); {_EXPECTED}"
    if not isinstance(request, dict):
        return None, f"is no JSON object; {_EXPECTED}"
    missing = [name for name in _FIELDS if request.get(name) is None]
    if missing:
        return None, f"lacks {', '.join(missing)}; {_EXPECTED}"
    stamp, length, ids = (request[name] for name in _FIELDS)
    if isinstance(stamp, bool) or not isinstance(stamp, int | float) or not -(2**63) <= stamp < 2**63:
        return None, f"has timestamp {_show(stamp)}; expected a number of milliseconds"
    if not _is_whole(length) or length < 0:
        return None, f"has input_length {_show(length)}; expected a whole number of tokens, 0 or more"
    if not isinstance(ids, list):
        return None, f"has hash_ids {_show(ids)}; expected a list of whole numbers"
    strange = [one for one in ids if not _is_whole(one)]
    if strange:
        return None, f"has {_show(strange[0])} among its hash_ids; expected whole numbers of at most 64 bits, signed"
    expected = -(-length // block_size)
    if len(ids) != expected:
        return None, (
            f"lists {_count(len(ids), 'block')} for input_length {length}; expected {expected} of {block_size} tokens "
            "(another size is given with --block-size)"
        )
    return request, None


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _show(value):
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _open(path):
    """Open a file for reading, decompressed."""
    if Path(path).is_fifo():
        raise InputError(f"{path}: is a pipe, which cannot be read twice; write it to a file first")
    with open(path, "rb") as file:
        magic = file.read(4)
    kind = "gzip" if magic[:2] == b"\x1f\x8b" else "zstd" if magic == b"\x28\xb5\x2f\xfd" else None
    return pa.input_stream(str(path), compression=kind)


def _lines(path):
    """Yield (1-based number, line) of the lines that are not blank; only a newline byte ends a line."""
    with _open(path) as stream, io.BufferedReader(stream) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _find_line(path, row):
    """Return the number of the line that holds a request, counted from 0."""
    return next((number for i, (number, _) in enumerate(_lines(path)) if i == row), row + 1)
