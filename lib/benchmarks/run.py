"""Measure the main job: `python lib/benchmarks/run.py [--repeats N] [--output FILE]`.

Each measurement is a process of its own; CPU is user and system time of all its threads, memory the peak of the
resident sets of its process tree. The tokenising ratio compares one `encode_batch_fast` pass over the unique message
texts with the whole making of both workloads (reading, loading the tokenizer, cache), taking turns part by part in one
process, so that a slow spell of the machine meets both. Absolute times hold for one machine on one day; the ratios
hold for others too.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import chain
from pathlib import Path

from tqdm import tqdm

TOKENISE = """
import json, os, time, transformers
from kvprefix.tokens import parts
from kvprefix.traces import workload
from kvprefix.traces.parameters import Parameters
from kvprefix.tokens.template import load_chat
from kvprefix.tokens.tokenizer import find_tokenizer

backend = load_chat(find_tokenizer()).tokenizer.backend_tokenizer
encode_part, seen, once_s = parts._encode_part, set(), []

def encode_once(part):
    texts = list({m.text: None for c in part for m in c.messages if m.text not in seen})
    start = time.process_time()
    seen.update(texts)
    backend.encode_batch_fast(texts, add_special_tokens=False)
    once_s.append(time.process_time() - start)

def encode_both(part, chat, stem):
    jobs = [lambda: encode_once(part), lambda: encode_part(part, chat, stem)]
    results = [job() for job in (jobs if len(once_s) % 2 else jobs[::-1])]
    return next(result for result in results if result)

parts._encode_part = encode_both
os.environ["KVPREFIX_SCHEDULER"] = "here"
start = time.process_time()
made = workload.load_workload(Parameters(), progress=False)
requests = sum(len(workload.make_trace(made, mode)) for mode in workload.MODES)
print(json.dumps({"once_s": sum(once_s), "both_s": time.process_time() - start - sum(once_s)}))
"""

ONE_PASS = """
import json, time, transformers
from kvprefix.conversations.load import iterate_conversations, locate_data
from kvprefix.tokens.template import load_chat
from kvprefix.tokens.tokenizer import find_tokenizer

backend = load_chat(find_tokenizer()).tokenizer.backend_tokenizer
texts = list({m.text: None for c in iterate_conversations(locate_data("bundled")) for m in c.messages})
start = time.process_time()
backend.encode_batch_fast(texts, add_special_tokens=False)
print(json.dumps({"once_s": time.process_time() - start}))
"""

KVPREFIX = [sys.executable, "-m", "kvprefix"]
SIZES = (0.25, 0.5, 1.0)


def main():
    """Run all measurements and print (and write) them as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of the tokenising ratio")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = "\n".join(measure_all(Path(folder), options.repeats)) + "\n"
    print(table)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(table)


def measure_all(folder, repeats):
    """Yield the lines of the report, in the order of the measurements."""
    bar = tqdm(total=repeats + len(SIZES) + 3, desc="measuring", leave=False)

    def measure(command, derived):
        result = run(command, folder / derived)
        bar.update()
        return result

    kept = keep_tokenizer(folder)
    yield f"Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}.\n"
    yield "| tokenising all bundled conversations | CPU s: one pass | CPU s: both workloads | ratio | peak MB |"
    yield "|:--|--:|--:|--:|--:|"
    ratios = []
    for k in range(repeats):
        one = measure([sys.executable, "-c", TOKENISE], copy_kept(kept, folder / f"fresh-{k}").name)
        once_s, both_s = one["inner"]["once_s"], one["inner"]["both_s"]
        ratios.append(both_s / once_s)
        yield f"| part by part, in turns | {once_s:.1f} | {both_s:.1f} | {ratios[-1]:.2f} | {one['peak_mb']:,.0f} |"
    yield f"| median | | | {statistics.median(ratios):.2f} | |"
    yield "\n| whole run, nothing cached | conversations | CPU s | wall s | peak MB |\n|:--|--:|--:|--:|--:|"
    for share in SIZES:
        count = int(17395 * share)
        command = [
            *KVPREFIX,
            "run",
            "--skip-visualization",
            "--output-dir",
            str(folder / "out"),
            "--max-conversations",
            str(count),
        ]
        one = measure(command, f"size-{share}")
        yield f"| {share:.0%} | {count:,} | {one['cpu_s']:.1f} | {one['wall_s']:.1f} | {one['peak_mb']:,.0f} |"
    yield "\n| from cached tokens | CPU s | wall s | peak MB |\n|:--|--:|--:|--:|"
    for name, extra in (
        ("both modes, all eight data files", []),
        ("the same at block size 32", ["--block-size", "32"]),
    ):
        one = measure([*command, *extra], "size-1.0")
        yield f"| {name} | {one['cpu_s']:.1f} | {one['wall_s']:.1f} | {one['peak_mb']:,.0f} |"
    one = measure([*KVPREFIX, "run", "--help"], "kept")
    yield f"| import and show help | {one['cpu_s']:.2f} | {one['wall_s']:.2f} | {one['peak_mb']:,.0f} |"
    bar.close()


def keep_tokenizer(folder):
    """Return a derived folder that has the bundled tokenizer and what is learnt of it once."""
    kept = folder / "kept"
    if not kept.exists():
        sample = Path(__file__).resolve().parents[2] / "data/sample/conversations.json"
        run([*KVPREFIX, "prepare", "--data-path", str(sample)], kept)
    return kept


def copy_kept(kept, derived):
    """Return a new derived folder that has what another one has, but no tokens of conversations."""
    shutil.rmtree(derived, ignore_errors=True)
    return Path(shutil.copytree(kept, derived, ignore=shutil.ignore_patterns("tokens-*")))


def run(command, derived):
    """Run a command with a derived folder of its own.

    Returns
    -------
    dict
        `cpu_s`, `wall_s`, `peak_mb` (of the process tree, looked at every 20 ms), `anonymous_mb` and `file_mb` (of each
        kind of pages; all three Linux only, 0 elsewhere), and `inner`, the JSON object that it printed.
    """
    start, peaks = time.perf_counter(), {"peak_mb": 0, "anonymous_mb": 0, "file_mb": 0}
    environment = {**os.environ, "KVPREFIX_DERIVED": str(derived)}
    with tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environment, text=True)
        ended = threading.Event()

        def watch():
            while not ended.wait(0.02):
                anonymous, file = map(sum, zip(*map(read_memory, _list_tree(process.pid)), strict=True))
                for name, value in zip(peaks, (anonymous + file, anonymous, file), strict=True):
                    peaks[name] = max(peaks[name], value / 1e3)

        watcher = threading.Thread(target=watch)
        watcher.start()
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        ended.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            err.seek(0)
            raise SystemExit(f"{' '.join(command[:4])} failed:\n{err.read()[-2000:]}{out[-2000:]}")
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.perf_counter() - start,
        "inner": json.loads(out) if out.startswith("{") else None,
        **peaks,
    }


def _list_tree(pid):
    """Yield a process's id and those of all its descendants."""
    yield pid
    try:
        children = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has ended
        return
    for child in chain(*children):
        yield from _list_tree(int(child))


def read_memory(pid):
    """Return a process's resident (anonymous, file-backed and shared) kB; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    kb = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "Rss" in name}
    return kb.get("RssAnon", 0), kb.get("RssFile", 0) + kb.get("RssShmem", 0)


if __name__ == "__main__":
    main()
