"""The main job: from parameters to the files of a report folder. Thin; the command and the notebooks call it."""

import json
from typing import NamedTuple

from pyarrow import csv

from kvprefix.blocks.sharing import Sharing, share
from kvprefix.files.csv_cells import guard_cells
from kvprefix.files.paths import atomic_path, resolve_input, write_bytes
from kvprefix.files.progress import show_progress
from kvprefix.files.sealed import expect_unchanged, stamp_file
from kvprefix.formats.engine_trace import write_engine_trace
from kvprefix.stats.metrics import describe_mode, measure_accountings, tabulate_blocks, tabulate_requests
from kvprefix.stats.resampling import Resampled, resample_mode
from kvprefix.traces.parquet import write_trace
from kvprefix.traces.trace import Trace
from kvprefix.traces.workload import MODES, make_trace

ROWS_AT_A_TIME = 2**18  # of a CSV file


class Result(NamedTuple):
    """What a run found in one mode."""

    trace: Trace
    sharing: Sharing
    stats: dict
    resampled: Resampled


def analyse(workload):
    """Make the trace of each mode and account it: a dict of mode to Result, single-turn first."""
    results, steps = {}, 4
    timing = [stamp_file(resolve_input(file)) for file in workload.parameters.timing_files()]
    with expect_unchanged(*timing), show_progress(steps * len(MODES), "accounting", " steps") as bar:
        for mode in MODES:
            trace = make_trace(workload, mode)
            bar.update()
            sharing = share(trace, workload.parameters.block_size)
            bar.update()
            accountings = measure_accountings(trace, sharing)
            bar.update()
            resampled = resample_mode(trace, sharing, accountings)
            results[mode] = Result(trace, sharing, describe_mode(trace, sharing, accountings, resampled), resampled)
            bar.update()
    return results


def write_results(results, workload, folder, *, parquet=False):
    """Write the eight data files: for each mode its statistics, request table, block table and trace.

    Parameters
    ----------
    results : dict of str to Result
    workload : Workload
    folder : pathlib.Path
    parquet : bool
        Also write `*_trace.parquet`, the traces with their tokens, as `read_trace` reads them.
    """
    for mode, (trace, sharing, stats, resampled) in results.items():
        write_engine_trace(trace, workload.messages, folder / f"{mode}_trace.jsonl")
        with atomic_path(folder / f"{mode}_request_metrics.csv") as temporary:
            _write_requests(tabulate_requests(trace, sharing, resampled.accountings), temporary)
        with atomic_path(folder / f"{mode}_block_metrics.csv") as temporary:
            _write_blocks(sharing, temporary)
        if parquet:
            write_trace(trace, folder / f"{mode}_trace.parquet")
        write_bytes(folder / f"{mode}_stats.json", json.dumps(stats, indent=2, allow_nan=False) + "\n")


def _write_requests(frame, path):
    with show_progress(len(frame), "writing requests", " requests") as bar:
        for start in range(0, max(len(frame), 1), ROWS_AT_A_TIME):
            some = frame.iloc[start : start + ROWS_AT_A_TIME]
            guard_cells(some).to_csv(path, mode="a", header=start == 0, index=False, lineterminator="\n")
            bar.update(len(some))


def _write_blocks(sharing, path):
    """Write the block table as CSV, with full precision; nulls are empty. Millions of rows per second."""
    n = sharing.n_distinct
    with open(path, "wb") as file, show_progress(n, "writing blocks", " blocks") as bar:
        for start in range(0, max(n, 1), ROWS_AT_A_TIME):
            table = tabulate_blocks(sharing, start, start + ROWS_AT_A_TIME)
            if not start:
                file.write((",".join(table.column_names) + "\n").encode())
            csv.write_csv(table, file, csv.WriteOptions(include_header=False))
            bar.update(len(table))
