"""Measure time and memory over the number of conversations: `python lib/benchmarks/scale.py [--sizes N,N]`.

The data is the bundled part of ShareGPT, repeated: each copy has ids of its own and a mark before each message, so that
no block but those of the template's first tokens is shared between copies. Two steps are measured for each size, each
a process of its own: tokenising (`prepare`, nothing cached), and all that comes after it (`run`, from the tokenised
parts: joining them, both modes, all files and figures). Memory is the peak over the whole process tree, also of
anonymous and of file-backed pages alone; the system takes back the latter when it needs room. Linux only.

The full ShareGPT V3 has 94,145 conversations, the default sizes are a quarter, a half and all of that. Ten times as
many need 45 GB of disk and half an hour; the last rows then say how time and memory grow from the size before:

    python lib/benchmarks/scale.py --sizes 94145,941450 --folder /path/with/room

`--cluster` runs the main job with two workers of a Dask cluster and says what memory each process has.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from run import KVPREFIX, read_memory, run
from tqdm import tqdm

from kvprefix.conversations.load import locate_data
from kvprefix.conversations.readers import read_records

FULL = 94_145
BUNDLED = 17_395  # usable conversations of the bundled part


def main():
    """Measure every size and print (and write) the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=f"{FULL // 4},{FULL // 2},{FULL}", help="conversations (%(default)s)")
    parser.add_argument("--folder", type=Path, help="for data and results; removed again (default: a temporary one)")
    parser.add_argument("--output", type=Path, help="also write the table here")
    parser.add_argument("--keep", action="store_true", help="keep data and results")
    parser.add_argument("--cluster", type=int, metavar="N", help="instead: N conversations on a cluster of two workers")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kvprefix-scale-"))
    if options.cluster:
        found = measure_cluster(folder, options.cluster)
    else:
        found = measure_sizes([int(size) for size in options.sizes.split(",")], folder, options.keep)
    lines = []
    for line in found:
        print(line, flush=True)
        lines.append(line)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text("\n".join(lines) + "\n")


def measure_sizes(sizes, folder, keep):
    """Yield the lines of the table."""
    yield "| conversations | step | wall s | CPU s | CPU ms a conversation | peak MB | anonymous | file-backed |"
    yield "|--:|:--|--:|--:|--:|--:|--:|--:|"
    before = {}
    for n in sizes:
        here = folder / str(n)
        data = write_copies(here / "data.json", n)
        options = ["--data-path", str(data), "--max-conversations", str(n)]
        steps = {
            "tokenise": ["prepare", *options],
            "all after it": ["run", *options, "--output-dir", str(here / "out")],
        }
        for name, arguments in steps.items():
            for joined in here.glob("derived/tokens-*/joined-*"):
                shutil.rmtree(joined)  # joining the parts belongs to what comes after tokenising
            one = run([*KVPREFIX, *arguments], here / "derived")
            yield (
                f"| {n:,} | {name} | {one['wall_s']:.0f} | {one['cpu_s']:.0f} | {1e3 * one['cpu_s'] / n:.2f} | "
                f"{one['peak_mb']:,.0f} | {one['anonymous_mb']:,.0f} | {one['file_mb']:,.0f} |"
            )
            if name in before:
                earlier, other = before[name]
                times = {key: f"{one[key] / other[key]:.1f}x" for key in one if key != "inner"}
                yield (
                    f"| {n:,} over {earlier:,} | {name} | {times['wall_s']} | {times['cpu_s']} | | "
                    f"{times['peak_mb']} | {times['anonymous_mb']} | {times['file_mb']} |"
                )
            before[name] = n, one
        if not keep:
            shutil.rmtree(here)


def measure_cluster(folder, n, workers=2):
    """Yield the peak of the anonymous memory of each process of a cluster that runs the main job."""
    data = write_copies(folder / "data.json", n)
    with start_cluster(folder, workers) as (address, processes):
        arguments = ["--data-path", str(data), "--max-conversations", str(n), "--output-dir", str(folder / "out")]
        command = [*KVPREFIX, "run", *arguments, "--skip-visualization", "--scheduler", address]
        environment = {**os.environ, "KVPREFIX_DERIVED": str(folder / "derived")}
        start, peaks = time.perf_counter(), {}
        client = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while client.poll() is None:
            for name, process in {**processes, "command": client}.items():
                peaks[name] = max(peaks.get(name, 0), read_memory(process.pid)[0] / 1e3)
            time.sleep(0.02)
    if client.returncode:
        raise SystemExit(f"the command failed on the cluster; see {folder}")
    yield f"{n:,} conversations, {workers} workers, {time.perf_counter() - start:.0f} s.\n"
    yield "| process | peak anonymous MB |\n|:--|--:|"
    yield from (f"| {name} | {peak:,.0f} |" for name, peak in peaks.items())


@contextlib.contextmanager
def start_cluster(folder, workers):
    """Yield the address and the processes by name of a scheduler and its workers on this machine."""
    told, log = folder / "scheduler.json", os.open(folder / "cluster.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def start(program, *options):
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", str(told), *options]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        return subprocess.Popen([*command, "--host", "127.0.0.1", "--no-dashboard"], env=environment, stdout=log,
                                stderr=log, cwd=folder)  # fmt: skip

    options = ["--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--local-directory", str(folder / "scratch")]
    processes = {"scheduler": start("dask_scheduler", "--port", "0")}
    try:
        processes |= {f"worker {k + 1}": start("dask_worker", *options) for k in range(workers)}
        while not told.exists():
            time.sleep(0.1)
        yield json.loads(told.read_text())["address"], processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
        os.close(log)


def write_copies(path, n):
    """Write a JSON array with at least n usable conversations: the bundled records, again and again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written, bar = 0, tqdm(desc="writing data", unit=" records", leave=False, disable=None)
    with open(path, "w", encoding="utf-8") as file, bar:
        for copy in count():
            for _, record in read_records(locate_data("bundled")):
                file.write(("[" if written == 0 else ",\n") + json.dumps(_mark(record, copy), ensure_ascii=False))
                written += 1
                bar.update()
            if (copy + 1) * BUNDLED >= n:
                break
        file.write("]\n")
    return path


def _mark(record, copy):
    """Return a record as a copy of its own: another id, other texts; copy 0 is the record as it was."""
    if not copy:
        return record
    messages = [{**m, "value": f"[{copy}] {m['value']}" if m["value"].strip() else ""} for m in record["conversations"]]
    return {**record, "id": f"{copy}-{record['id']}", "conversations": messages}


if __name__ == "__main__":
    main()
