"""Measure the rows of the table, write `reports/bench/bench.md`: `make bench`, or `bench.py [--only NAME,NAME]`.

Each row takes turns between this library and what it is compared with, some pairs one after the other in one run on one
machine, so that the ratios can be trusted on others. Other tools and earlier commits have environments of their own in
data/derived; one that does not install has a line with the reason. With `--only`, the other rows stay as the file has
them. See `run`, `cache`, `engine`, `scale` and `interactive` for more of our own speed.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cache
from peers import PROJECT
from rows import ROWS
from run import run
from table import HEAD, Measured, NotHereError, describe_row, write_row

PUBLISHED = PROJECT.parent / "shared/data/mooncake_conversation_trace.jsonl.gz"
BEGIN = """\
# Benchmarks

CPU seconds: user and system time of all threads and processes that a command starts, from a file to the answer.
Medians, and the lowest and highest ratio of a pair, with the number of pairs in brackets: that is the noise. The ratio
is theirs over ours, and must be at least so large; where a limit is marked with "at most", it is ours over theirs.
"""


class Bench:
    """What the rows share: a folder, and the files of the sweeps, written once."""

    def __init__(self, folder, mooncake):
        self.folder, self.mooncake = folder, mooncake
        self.trace, self._capacities = "", None

    def write_copies(self):
        """Write the prefix trace; return the capacities of the sweeps."""
        if self._capacities is None:
            print("writing traces", file=sys.stderr)
            made = run([sys.executable, cache.__file__, "--write-copies", str(self.folder)], self.folder)["inner"]
            self._capacities = made["capacities"]
            self.trace = (
                f"a made-up trace of {made['requests']:,} requests, {made['accesses']:,} accesses of "
                f"{made['distinct']:,} distinct blocks"
            )
        return self._capacities


def main():
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [row.name for row in ROWS]
    parser.add_argument("--only", help=f"rows, comma-separated: {', '.join(names)}")
    parser.add_argument("--pairs", type=int, default=3, help="of each row that does not say how many (%(default)s)")
    parser.add_argument("--mooncake", type=Path, default=PUBLISHED, help="Mooncake's conversation trace")
    parser.add_argument("--output", type=Path, default=PROJECT / "reports/bench/bench.md")
    options = parser.parse_args()
    asked = options.only.split(",") if options.only else [row.name for row in ROWS if not row.is_asked_for]
    if unknown := set(asked) - set(names):
        parser.error(f"no rows {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    before = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
    with tempfile.TemporaryDirectory() as folder:
        bench, measured = Bench(Path(folder), options.mooncake), {}
        for row in ROWS:
            if row.name in asked:
                measured[row.name] = measure(row, bench, options.pairs)
                print(write_row(measured[row.name]), describe_row(measured[row.name]), sep="\n", flush=True)
                options.output.write_text(write_table(measured, before), encoding="utf-8")  # at once: it takes hours
    print(f"written to {os.path.relpath(options.output)}; the README's table quotes it")


def measure(row, bench, pairs):
    """Return a row's pairs; a command that fails costs its row, not the others."""
    try:
        job, found = row.prepare(bench), []
        for k in range(row.pairs or pairs):
            print(f"{row.name}: pair {k + 1}", file=sys.stderr)
            found.append(job.take_pair(k))
    except (NotHereError, SystemExit, subprocess.CalledProcessError) as error:
        return Measured(row, None, [], " ".join(str(error).split())[:300])
    return Measured(row, job, found)


def write_table(measured, before=""):
    """Return the report; rows that were not measured stay as they were before."""
    lines, said = {}, {}
    for name, text in re.findall(r"^(?:\| |- )([a-z-]+)(?= \||:)(.*)$", before, re.MULTILINE):
        (lines if text.startswith(" |") else said)[name] = (
            f"| {name}" if text.startswith(" |") else f"- {name}"
        ) + text
    for name, one in measured.items():
        lines[name], said[name] = write_row(one), describe_row(one)
    known = [row.name for row in ROWS if row.name in lines]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    table = "\n".join([HEAD, *(lines[name] for name in known)])
    notes = "\n".join(said[name] for name in known)
    return f"{BEGIN}\nMachine: {machine}; Python {platform.python_version()}.\n\n{table}\n\n## What ran\n\n{notes}\n"


if __name__ == "__main__":
    main()
