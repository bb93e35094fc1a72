"""The main job: from parameters to the files of a report folder. Thin; the command and the notebooks call it."""

import json
from typing import NamedTuple

from pyarrow import csv

from kvprefix.files import atomic_path, explain_os_errors, write_bytes
from kvprefix.metrics import describe_mode, tabulate_blocks, tabulate_requests
from kvprefix.sharing import Sharing, measure_sharing
from kvprefix.trace import Trace, encode_messages, write_engine_trace, write_trace
from kvprefix.workload import MODES, make_trace


class Result(NamedTuple):
    """What a run found in one mode."""

    trace: Trace
    sharing: Sharing
    stats: dict


def analyse(workload):
    """Make the trace of each mode and account it: a dict of mode to Result, single-turn first."""
    results = {}
    for mode in MODES:
        trace = make_trace(workload, mode)
        sharing = measure_sharing(trace, workload.parameters.block_size)
        results[mode] = Result(trace, sharing, describe_mode(trace, sharing))
    return results


def write_results(results, workload, folder, *, parquet=False):
    """Write the eight data files: for each mode its statistics, request table, block table and trace.

    Parameters
    ----------
    results : dict of str to Result
    workload : Workload
        Its data file is read again for the messages.
    folder : pathlib.Path
    parquet : bool
        Also write `*_trace.parquet`, the traces with their tokens, as `read_trace` reads them.
    """
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    messages = {index: encode_messages(one) for index, one in workload.iterate_messages()}
    for mode, (trace, sharing, stats) in results.items():
        write_engine_trace(trace, messages, folder / f"{mode}_trace.jsonl")
        with atomic_path(folder / f"{mode}_request_metrics.csv") as temporary:
            tabulate_requests(trace, sharing).to_csv(temporary, index=False, lineterminator="\n")
        with atomic_path(folder / f"{mode}_block_metrics.csv") as temporary:
            _write_numbers(tabulate_blocks(sharing), temporary)
        if parquet:
            write_trace(trace, folder / f"{mode}_trace.parquet")
        write_bytes(folder / f"{mode}_stats.json", json.dumps(stats, indent=2, allow_nan=False) + "\n")


def _write_numbers(table, path):
    """Write an Arrow table of numbers as CSV, with full precision; nulls are empty. Millions of rows a second."""
    with open(path, "wb") as file:
        file.write((",".join(table.column_names) + "\n").encode())
        csv.write_csv(table, file, csv.WriteOptions(include_header=False))
