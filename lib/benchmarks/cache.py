"""Measure bounded replay: `python lib/benchmarks/cache.py [--trace FILE] [--peers PYTHON] [--output FILE]`.

A trace in Mooncake's form (one that is made up, if none is given) is copied 1, 5, 20 and 60 times, the ids of each copy
shifted and the copies' requests interleaved. Rates are block accesses per CPU second, everything compiled. A sweep is
a process of its own that reads a file: user and system time of all its threads, peak of its resident set. With a Python
that has `kvcache-simulator` and `libcachesim`, those two do the same sweep, and their numbers stand beside ours.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from run import KVPREFIX, run

REPLAYS = Path(__file__).with_name("replays.py")
SHARES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)  # of the distinct blocks: the ten capacities
MODEL, MODEL_BYTES = "llama-3.1-8b", 131072  # kvcache-simulator takes capacities as GiB of a model's cache
LIBCACHESIM = """
import json, sys
import libcachesim

reads = libcachesim.TraceType.ORACLE_GENERAL_TRACE, libcachesim.ReaderInitParam(ignore_obj_size=True)
misses = [libcachesim.LRU(int(capacity)).process_trace(libcachesim.TraceReader(sys.argv[1], *reads))[0]
          for capacity in sys.argv[2].split(",")]
print(json.dumps({"rates": [1 - miss for miss in misses]}))
"""


def main():
    """Run all measurements and print (and write) them as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path, help="a trace in Mooncake's form; made up if not given")
    parser.add_argument("--block-size", type=int, default=512, help="of the trace, tokens")
    parser.add_argument("--peers", help="a Python that has kvcache-simulator 0.1.3 and libcachesim")
    parser.add_argument("--output", type=Path, help="also write the tables here")
    parser.add_argument("--write-copies", type=Path, metavar="FOLDER", help="only write the files of the sweeps there")
    options = parser.parse_args()
    if options.write_copies:
        print(json.dumps(write_copies(options.write_copies, options.trace, options.block_size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = "\n".join(measure_all(Path(folder), options)) + "\n"
    print(table)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(table)


def measure_all(folder, options):
    """Yield the lines of the report, in the order of the measurements."""
    given = [str(options.trace)] if options.trace else []
    print("replaying (minutes)", file=sys.stderr)
    made = run([sys.executable, str(REPLAYS), str(folder), str(options.block_size), *given], folder)["inner"]
    yield f"Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}.\n"
    yield (
        f"Trace: {options.trace.name if options.trace else 'made up'}, {made['requests']:,} requests, "
        f"{made['accesses']:,} block accesses, {made['distinct']:,} distinct blocks.\n"
    )
    yield f"| million accesses a CPU second | {' | '.join(f'{copies}x' for copies in made['copies'])} |"
    yield "|:--|" + "--:|" * len(made["copies"])
    for name, rates in made["rates"].items():
        yield f"| {name} | {' | '.join(f'{rate / 1e6:.1f}' for rate in rates)} |"
    capacities = [max(int(made["distinct"] * made["in_file"] * share), 1) for share in SHARES]
    yield f"\n| {len(SHARES)} capacities, {made['in_file']}x, from a file | CPU s | wall s | peak MB |"
    yield "|:--|--:|--:|--:|"
    yield from measure_sweeps(folder, capacities, options)


def write_copies(folder, trace=None, block_size=512):
    """Write the files of the sweeps; return their capacities and the trace's sizes."""
    import replays

    made = replays.read_mooncake(trace or replays.make_up_trace(folder / "made-up.jsonl", block_size), block_size)
    if trace:
        replays.make_up_trace(folder / "made-up.jsonl", block_size)
    copies = replays.copy_trace(made, replays.IN_FILE)
    replays.write_trace(copies, folder / "copies.jsonl")
    replays.write_binary(copies, folder / "copies.bin")
    capacities = [max(int(copies.n_distinct * share), 1) for share in SHARES]
    sizes = {"requests": len(copies), "accesses": len(copies.ids), "distinct": copies.n_distinct}
    return {"capacities": capacities, **sizes}


def make_sweeps(folder, capacities, peers=None, tools=("kvcache-simulator", "libcachesim"), block_size=512):
    """Return our command of a sweep and those of the tools that the Python `peers` has, by name.

    kvcache-simulator runs once to compile itself.
    """
    file, small, binary = (str(folder / name) for name in ("copies.jsonl", "made-up.jsonl", "copies.bin"))
    blocks, size = ",".join(map(str, capacities)), str(block_size)
    ours = [*KVPREFIX, "curve", file, "--capacities", blocks, "--block-size", size, "--format", "json"]
    sweeps = {
        "kvprefix, LRU": [*ours, "--policy", "lru", "--warmup", "0.5"],
        "kvprefix, LRU and OPT": [*ours, "--policy", "lru,opt"],
    }
    if peers and "kvcache-simulator" in tools:
        budgets = ",".join(str((capacity + 0.5) * MODEL_BYTES * block_size / 2**30) for capacity in capacities)
        simulate = [peers, "-m", "kvcache_sim", "run", "--model", MODEL, "--block-size", size, "--no-progress"]
        simulate += ["--policies", "lru", "--budgets-gib", budgets, "--format", "json", "--trace"]
        subprocess.run([*simulate, small], capture_output=True)
        sweeps["kvcache-simulator"] = [*simulate, file]
    if peers and "libcachesim" in tools:
        sweeps["libcachesim"] = [peers, "-c", LIBCACHESIM, binary, blocks]
    return sweeps


def measure_sweeps(folder, capacities, options):
    """Yield the rows of our and the peers' sweeps, then a table of what they found."""
    found = []
    for name, command in make_sweeps(folder, capacities, options.peers, block_size=options.block_size).items():
        print(name, file=sys.stderr)
        one = run(command, folder)
        found.append(one["inner"])
        yield f"| {name} | {one['cpu_s']:.1f} | {one['wall_s']:.1f} | {one['peak_mb']:,.0f} |"
    if options.peers:
        yield from compare(capacities, *found)


def compare(capacities, warm, cold, simulator, libcachesim):
    """Yield a table of what was found: kvcache-simulator counts tokens of the last half, libcachesim blocks of all."""
    points = {point["cacheBlocks"]: point["results"]["lru"]["hitRate"] for point in simulator["points"]}
    yield "\n| LRU, blocks | token, last half | kvcache-simulator | block, all | libcachesim (knows no prefixes) |"
    yield "|--:|--:|--:|--:|--:|"
    for i, capacity in enumerate(capacities):
        theirs = f"{points[capacity]:.5f}" if capacity in points else "–"
        token, block = warm["curves"][i]["token"], cold["curves"][i]["block"]
        yield f"| {capacity:,} | {token:.5f} | {theirs} | {block:.5f} | {libcachesim['rates'][i]:.5f} |"


if __name__ == "__main__":
    main()
