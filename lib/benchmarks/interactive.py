"""Time the explorer's moves on all bundled conversations: `python lib/benchmarks/interactive.py [--repeats N]`.

In a warm process, each move gives LRU's whole curve; a block size that was seen before is no faster. Medians of CPU
seconds and of wall-clock seconds.
"""

import argparse
import statistics
import time
from dataclasses import replace
from itertools import cycle

from kvprefix.studies.explore import Settings, Warm
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

MOVES = {
    "arrival rate": {"arrival_rate": (0.3, 1.0, 3.0, 9.0)},
    "think time": {"think_median_s": (5.0, 30.0, 60.0, 300.0)},
    "block size": {"block_size": (8, 32, 64, 128)},
    "block size 8, arrival rate": {"block_size": (8,), "arrival_rate": (0.3, 1.0, 3.0, 9.0)},
    "capacity": {"gib": (5.0, 10.0, 80.0, 300.0)},
}


def main():
    """Print the medians as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=8, help="of each move")
    print("\n".join(measure_moves(parser.parse_args().repeats)))


def measure_moves(repeats=8):
    """Yield the lines of the table: each move without and with replies cached."""
    warm = Warm(load_workload(Parameters(), progress=False))
    yield "| move | replies | CPU s | wall s |\n|:--|:--|--:|--:|"
    for replies in (False, True):
        start = Settings.of(warm.workload.parameters, replies=replies)
        for move, changes in MOVES.items():
            timed = [time_move(warm, start, one) for one in list_changes(changes, repeats + 1)][1:]
            cpu_s, wall_s = (statistics.median(times) for times in zip(*timed, strict=True))
            yield f"| {move} | {'cached' if replies else 'not cached'} | {cpu_s:.3f} | {wall_s:.3f} |"


def list_changes(changes, n):
    """Return the changes of n moves; each setting goes round through its values."""
    values = {name: cycle(some) for name, some in changes.items()}
    return [{name: next(some) for name, some in values.items()} for _ in range(n)]


def time_move(warm, start, changes):
    """Return the CPU and wall-clock seconds until the curve and the rate at the memory's capacity are there."""
    warm.view(start)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    view = warm.view(replace(start, **changes))
    view.rate(view.settings.capacity_blocks)
    return time.process_time() - cpu_s, time.perf_counter() - wall_s


if __name__ == "__main__":
    main()
