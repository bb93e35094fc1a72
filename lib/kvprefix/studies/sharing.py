"""The main job: from parameters to the files of a report folder. Thin; the command and the notebooks call it."""

import json
from typing import NamedTuple

from kvprefix.blocks.sharing import Sharing, share
from kvprefix.files.paths import resolve_input, write_bytes
from kvprefix.files.progress import show_progress
from kvprefix.files.sealed import expect_unchanged, stamp_file
from kvprefix.formats.engine_trace import write_engine_trace
from kvprefix.stats.metrics import describe_mode, measure_accountings, tabulate_requests
from kvprefix.stats.resampling import Resampled, resample_mode
from kvprefix.studies.sharing_tables import write_blocks, write_requests
from kvprefix.traces.parquet import write_trace
from kvprefix.traces.trace import Trace
from kvprefix.traces.workload import MODES, make_trace


class Result(NamedTuple):
    """What a run found in one mode."""

    trace: Trace
    sharing: Sharing
    stats: dict
    resampled: Resampled


def analyse(workload):
    """Make the trace of each mode and account it: a dict of mode to Result, single-turn first."""
    stamps = stamp_timing(workload)
    return {mode: analyse_mode(workload, mode, stamps) for mode in MODES}


def stamp_timing(workload):
    """Return the state of the files that arrivals and think times are read from."""
    return [stamp_file(resolve_input(file)) for file in workload.parameters.timing_files()]


def analyse_mode(workload, mode, stamps=()):
    """Make the trace of one mode and account it: a Result. With `stamps` of `stamp_timing`, these files may not change.
    """
    with expect_unchanged(*stamps), show_progress(4, f"accounting {mode}", " steps") as bar:
        trace = make_trace(workload, mode)
        bar.update()
        sharing = share(trace, workload.parameters.block_size)
        bar.update()
        accountings = measure_accountings(trace, sharing)
        bar.update()
        resampled = resample_mode(trace, sharing, accountings)
        stats = describe_mode(trace, sharing, accountings, resampled)
        bar.update()
    return Result(trace, sharing, stats, resampled)


def write_results(results, workload, folder, *, parquet=False):
    """Write the data files of each mode of `results`, a dict of mode to Result; for the rest see `write_mode`."""
    for result in results.values():
        write_mode(result, workload, folder, parquet=parquet)


def write_mode(result, workload, folder, *, parquet=False):
    """Write the four data files of a mode: its statistics, request table, block table and trace.

    Parameters
    ----------
    result : Result
    workload : Workload
    folder : pathlib.Path
    parquet : bool
        Also write the tables as Parquet, in parts, and the trace with its tokens, as `read_trace` reads it.
    """
    trace, sharing, stats, resampled = result
    mode = stats["mode"]
    write_engine_trace(trace, workload.messages, folder / f"{mode}_trace.jsonl")
    requests = tabulate_requests(trace, sharing, resampled.accountings)
    write_requests(requests, folder / f"{mode}_request_metrics.csv", parquet=parquet)
    write_blocks(sharing, folder / f"{mode}_block_metrics.csv", parquet=parquet)
    if parquet:
        write_trace(trace, folder / f"{mode}_trace.parquet")
    write_bytes(folder / f"{mode}_stats.json", json.dumps(stats, indent=2, allow_nan=False) + "\n")
