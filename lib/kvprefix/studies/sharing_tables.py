"""Write the request and the block table of a mode, some rows in each task, so that no process holds a whole table.

The CSV file is the same wherever the tasks run. If asked for, each task also writes its rows as Parquet: the parts lie
in a folder beside the CSV file.
"""

import contextlib
import csv
import io
import os
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (pa.compute)
import pyarrow.csv
import pyarrow.parquet  # noqa: F401  (pa.parquet)
from numba import njit

from kvprefix.blocks.partition import keep, name_file, open_exchange
from kvprefix.files.csv_cells import guard_cells
from kvprefix.files.mapped import release
from kvprefix.files.paths import atomic_path, explain_os_errors
from kvprefix.stats.metrics import tabulate_blocks
from kvprefix.tasks.runner import open_tasks

_QUOTED = re.compile('[",\r\n]')
REQUESTS, BLOCKS = 2**16, 2**18  # about the number of rows of a task


def write_requests(frame, path, *, parquet=False):
    """Write a request table, of `metrics.tabulate_requests`, as CSV with full precision.

    Parameters
    ----------
    frame : pandas.DataFrame
    path : pathlib.Path
        Of the CSV file.
    parquet : bool
        Also write the rows as Parquet, in parts in a folder of the same name with the suffix `.parquet`.
    """
    some = [frame.iloc[start : start + REQUESTS] for start in range(0, len(frame), REQUESTS)]
    _write(_format_requests, some, list(frame), path, parquet, local="here")


def write_blocks(sharing, path, *, parquet=False):
    """Write the block table of a Sharing as CSV with full precision, nulls empty; for the rest see `write_requests`."""
    ends = np.cumsum(sharing.block_runs.lengths)
    cuts = np.unique(np.searchsorted(ends, np.arange(BLOCKS, sharing.n_distinct, BLOCKS), "right"))
    bounds = [0, *cuts[cuts > 0].tolist(), len(ends)]
    some = [sharing.time_block_runs(start, stop) for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]
    _write(_format_blocks, some, tabulate_blocks(some[0]).column_names, path, parquet, local="threads")


def _write(function, some, columns, path, parquet, local):
    """Write what the tasks return, one after the other."""
    place = "here" if len(some) <= 2 else None
    with contextlib.ExitStack() as stack:
        tasks = stack.enter_context(open_tasks(place, local=local))
        folder = stack.enter_context(open_exchange(tasks.share_memory and not parquet))
        parts = stack.enter_context(_replace_folder(path.with_suffix(".parquet"))) if parquet else None
        file = stack.enter_context(open(stack.enter_context(atomic_path(path)), "wb"))
        file.write((",".join(columns) + "\n").encode())
        arguments = ((rows, name_file(folder, f"rows-{k}"), parquet) for k, rows in enumerate(some))
        for k, text in enumerate(tasks.map(function, arguments, f"writing {path.name}", total=len(some))):
            file.write(text)
            release(text)
            if parquet:
                shutil.move(folder / f"rows-{k}.parquet", parts / f"part-{k:05}.parquet")


def _format_requests(task):
    frame, name, parquet = task
    if parquet:
        _write_parquet(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(), name)
    frame = guard_cells(frame)
    texts = [frame.iloc[:, k].tolist() for k, kind in enumerate(frame.dtypes) if kind.kind == "O"]
    if any(_QUOTED.search("".join(cell for cell in cells if isinstance(cell, str))) for cells in texts):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(frame.itertuples(index=False, name=None))
        return keep(np.frombuffer(text.getvalue().encode(), np.uint8), name, "csv")
    columns = [_write_cells(frame.iloc[:, k]) for k in range(frame.shape[1])]
    return keep(_join_cells([*columns[:-1], _join([columns[-1], "\n"], "")]), name, "csv")


def _write_cells(column):
    """Return a column's cells as text; no text holds what must be quoted."""
    if column.dtype.kind == "i":
        return pa.array(column.to_numpy()).cast(pa.large_string())
    cells = map(repr, column.tolist()) if column.dtype.kind == "f" else column.tolist()
    return pa.array(list(cells), pa.large_string()).fill_null("")


def _format_blocks(task):
    """Format what the blocks of a run have in common once."""
    runs, name, parquet = task
    if parquet:
        _write_parquet(tabulate_blocks(runs), name)
    text = pa.BufferOutputStream()
    common = tabulate_blocks(runs._replace(lengths=np.ones_like(runs.lengths))).drop_columns(["block_id", "depth"])
    pa.csv.write_csv(common, text, pa.csv.WriteOptions(include_header=False))
    common = np.frombuffer(text.getvalue(), np.uint8)
    ends = np.flatnonzero(common == ord("\n")) + 1
    return keep(_write_lines(runs.before, runs.lengths, runs.depth, common, ends), name, "csv")


@njit(cache=True, nogil=True)
def _write_lines(number, lengths, depth, common, ends):
    """Return the lines of the blocks of runs, (n,) uint8: each block's number and depth, and what its run has."""
    n, deepest, widest, size = number, 0, 0, 0
    for run in range(len(lengths)):
        n, deepest = n + lengths[run], max(deepest, depth[run] + lengths[run])
        widest = max(widest, ends[run] - (ends[run - 1] if run else 0))
    widest += _write_number(np.empty(24, np.uint8), 0, n) + _write_number(np.empty(24, np.uint8), 0, deepest)
    lines = np.empty((n - number) * widest, np.uint8)
    for run in range(len(lengths)):
        start = ends[run - 1] if run else 0
        for k in range(lengths[run]):
            size = _write_number(lines, size, number)
            size = _write_number(lines, size, depth[run] + k)
            for i in range(start, ends[run]):
                lines[size] = common[i]
                size += 1
            number += 1
    return lines[:size]


@njit(cache=True, nogil=True, inline="always")
def _write_number(lines, size, number):
    """Write a number and a comma; return where they end."""
    digits, rest = 1, number
    while rest >= 10:
        digits, rest = digits + 1, rest // 10
    for i in range(size + digits - 1, size - 1, -1):
        lines[i] = 48 + number % 10
        number //= 10
    lines[size + digits] = 44
    return size + digits + 1


def _join_cells(columns):
    """Return the bytes of a table's lines, whose last cells end them, (n,) uint8."""
    lines = _join(columns, ",")
    _, ends, content = lines.buffers()
    return np.frombuffer(content, np.uint8)[: np.frombuffer(ends, np.int64)[len(lines)]]


def _join(columns, separator):
    """Join texts row by row."""
    texts = (pa.scalar(one, pa.large_string()) if isinstance(one, str) else one for one in [*columns, separator])
    return pa.compute.binary_join_element_wise(*texts)


def _write_parquet(table, name):
    pa.parquet.write_table(table, name.with_suffix(".parquet"))


@contextlib.contextmanager
def _replace_folder(path):
    """Yield a folder beside `path` that takes its place if all goes well."""
    partial = path.with_name(f".{path.name}.partial")
    with explain_os_errors(path):
        shutil.rmtree(partial, ignore_errors=True)  # of a killed run
        partial.mkdir(parents=True)
        try:
            yield partial
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
