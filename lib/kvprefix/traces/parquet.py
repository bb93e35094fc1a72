"""A trace with its tokens as one Parquet file, a row per request: written whole, and checked when it is read."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from kvprefix.files.arrow_arrays import fill_missing, flat_lists, to_array
from kvprefix.files.mapped import release
from kvprefix.files.paths import InputError, atomic_path, check_input_file, explain_os_errors
from kvprefix.files.progress import show_progress
from kvprefix.tokens.arrays import Tokens, copy_prompt
from kvprefix.traces.trace import LOG_COLUMNS, REQUEST_COLUMNS, Trace

TOKEN_COLUMNS = ["parent", "shared_tokens", "own_token_ids", "own_is_template", "output_token_ids"]
ROW_GROUP = 2**16  # requests that are in memory at a time while a file is written


def write_trace(trace, path):
    """Write a trace to one Parquet file: one row per request in arrival order, tokens stored as in `Tokens`."""
    if trace.contexts is not None:
        raise InputError(f"{path}: a Parquet trace holds no cache salts and no adapters; expected a trace without")
    tokens, rows = trace.tokens, trace.rows
    position = np.full(len(tokens.shared), -1)
    position[rows] = np.arange(len(rows))
    parent = np.where(tokens.parent[rows] >= 0, position[tokens.parent[rows]], -1)
    orphans = (tokens.shared[rows] > 0) & ((parent < 0) | (parent >= np.arange(len(rows))))
    if orphans.any():  # in a log's order of time a request may come before the one that it continues
        trace = _store_whole(trace, orphans)
        tokens, rows = trace.tokens, trace.rows
    parent = np.where(parent < np.arange(len(rows)), parent, -1)
    note = {"kvprefix": json.dumps(trace.info, sort_keys=True)}
    table = _make_table(trace, parent, slice(0, ROW_GROUP)).replace_schema_metadata(note)
    options = {"compression": "zstd", "write_page_checksum": True}
    bar = show_progress(len(rows), f"writing {Path(path).name}", " requests")
    with atomic_path(path) as temporary, bar, pq.ParquetWriter(temporary, table.schema, **options) as file:
        for start in range(0, max(len(rows), 1), ROW_GROUP):
            file.write_table(_make_table(trace, parent, slice(start, start + ROW_GROUP)).cast(table.schema))
            for array in (tokens.own, tokens.own_is_template, tokens.output):
                release(array)
            bar.update(min(ROW_GROUP, len(rows) - start))


def _store_whole(trace, chosen):
    """Return a trace whose tokens are stored in its own order; the chosen requests' prompts are stored whole."""
    tokens, own, flags = trace.tokens, [], []
    is_template = tokens.own_is_template.view(np.int8)
    for row, whole in zip(trace.rows.tolist(), chosen.tolist(), strict=True):
        start = 0 if whole else tokens.shared[row]
        for found, values in ((own, tokens.own), (flags, is_template)):
            found.append(copy_prompt(row, start, tokens.parent, tokens.shared, tokens.own_offsets, values))
    outputs = [trace.generated(i) for i in range(len(trace))]
    own_offsets, output_offsets = (np.concatenate(([0], np.cumsum([len(x) for x in one]))) for one in (own, outputs))
    stored = Tokens(
        tokens.parent, np.where(chosen, 0, tokens.shared[trace.rows]), own_offsets, np.concatenate(own),
        np.concatenate(flags).astype(bool), output_offsets, np.concatenate(outputs),
    )  # fmt: skip  # its parents are not used: a table has its own
    return replace(trace, tokens=stored, rows=np.arange(len(trace)))


def _make_table(trace, parent, some):
    """Return some of the requests with their tokens as an Arrow table."""
    tokens, rows = trace.tokens, trace.rows[some]
    names = [*REQUEST_COLUMNS, *(name for name in LOG_COLUMNS if trace.has(name))]
    table = pa.Table.from_pandas(trace.requests[names].iloc[some], preserve_index=False)
    columns = [
        pa.array(parent[some], pa.int64()),
        pa.array(tokens.shared[rows], pa.int64()),
        _lists(tokens.own, tokens.own_offsets, rows, pa.int32()),
        _lists(tokens.own_is_template, tokens.own_offsets, rows, pa.bool_()),
        _lists(tokens.output, tokens.output_offsets, rows, pa.int32()),
    ]
    for name, column in zip(TOKEN_COLUMNS, columns, strict=True):
        table = table.append_column(name, column)
    return table


def read_trace(path):
    """Read a trace that `write_trace` wrote; raise InputError if the file is not a whole one."""
    check_input_file(path)
    with explain_os_errors(path):
        try:
            table = pq.ParquetFile(path, page_checksum_verification=True).read()  # `read_table` imports pandas
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).partition("\n")[0]
            raise InputError(f"{path}: cannot be read as a Parquet trace: {reason}") from error
    missing = {*TOKEN_COLUMNS, *REQUEST_COLUMNS} - set(table.column_names)
    if missing:
        raise InputError(f"{path}: is no kvprefix trace: lacks the columns {', '.join(sorted(missing))}")
    with _explain_wrong(path):
        _check_kinds(table)
        info = json.loads((table.schema.metadata or {}).get(b"kvprefix", b"{}"))
        own_offsets, own = flat_lists(table["own_token_ids"])
        output_offsets, output = flat_lists(table["output_token_ids"])
        tokens = Tokens(
            to_array(table["parent"]), to_array(table["shared_tokens"]), own_offsets, own,
            flat_lists(table["own_is_template"])[1], output_offsets, output,
        )  # fmt: skip
        names = [*REQUEST_COLUMNS, *(name for name in LOG_COLUMNS if name in table.column_names)]
        requests = {name: _to_column(fill_missing(table[name], np.nan)) for name in names}
        trace = Trace(requests, np.arange(len(table)), tokens, info)
        _check_whole(trace)
    return trace


def _to_column(column):
    return column.to_pylist() if column.type in (pa.string(), pa.large_string()) else to_array(column)


@contextlib.contextmanager
def _explain_wrong(path):
    """Turn errors in a file's values into InputError."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: is no whole kvprefix trace: {reason}; expected one of `run --parquet`") from error


def _check_kinds(table):
    """Raise ValueError if a column has another type than it should, or missing values."""
    kinds = {"request_id": pa.types.is_string, "conversation_id": pa.types.is_string, "arrival_s": pa.types.is_float64}
    kinds |= dict.fromkeys(["own_token_ids", "output_token_ids"], lambda kind: kind == pa.large_list(pa.int32()))
    kinds["own_is_template"] = lambda kind: kind == pa.large_list(pa.bool_())
    for name in (*REQUEST_COLUMNS, *TOKEN_COLUMNS):
        column = table[name]
        strings = pa.types.is_large_string(column.type) and name.endswith("_id")
        is_right = strings or not len(table) or kinds.get(name, pa.types.is_integer)(column.type)  # no rows: no kind
        if column.null_count or not is_right:
            raise ValueError(f"its column {name} holds {column.type}, {column.null_count} of them nothing")


def _check_whole(trace):
    """Raise ValueError if the values contradict one another: their readers trust them."""
    tokens, n = trace.tokens, len(trace)
    counts = [trace.column(name) for name in ("conversation_index", "turn", "output_tokens", "messages")]
    own, arrival = np.diff(tokens.own_offsets), trace.arrival_s
    lengths, shared, parent = tokens.shared + own, tokens.shared, tokens.parent
    before = lengths[np.clip(parent, 0, n - 1)] if n else lengths
    wrong = {
        "requests that continue none before them": (parent < -1) | (parent >= np.arange(n)),
        "requests that share more than there is": (shared < 0) | (shared > np.where(parent < 0, 0, before)),
        "other numbers of prompt tokens than tokens": trace.column("prompt_tokens") != lengths,
        "arrivals that are no times in order": ~np.isfinite(arrival) | (np.diff(arrival, prepend=arrival[:1]) < 0),
        "numbers below 0": [(column < 0).any() for column in counts],
        "token ids below 0": [(ids < 0).any() for ids in (tokens.own, tokens.output)],
        "other lists of template tokens than of tokens": len(tokens.own_is_template) != len(tokens.own),
    }
    found = [what for what, is_wrong in wrong.items() if np.any(is_wrong)]
    if not isinstance(trace.info, dict) or not isinstance(trace.info.get("parameters", {}), dict):
        found.append("notes that are none")
    if found:
        raise ValueError(f"it has {', '.join(found)}")


def _lists(flat, offsets, rows, kind):
    """Return the rows' lists as an Arrow column, in the rows' order."""
    starts = np.concatenate(([0], np.cumsum(np.diff(offsets)[rows])))
    return pa.LargeListArray.from_arrays(pa.array(starts, pa.int64()), pa.array(_gather(flat, offsets, rows), kind))


@njit(cache=True, nogil=True)
def _gather(flat, offsets, rows):
    total = 0
    for row in rows:
        total += offsets[row + 1] - offsets[row]
    out, position = np.empty(total, flat.dtype), 0
    for row in rows:
        length = offsets[row + 1] - offsets[row]
        out[position : position + length] = flat[offsets[row] : offsets[row + 1]]
        position += length
    return out
