"""Time replays of a trace's copies, and write copies as files: what `cache.py` starts in a process of its own.

`python lib/benchmarks/replays.py FOLDER BLOCK_SIZE [TRACE]` prints JSON, and leaves `copies.jsonl`, `copies.bin` (as
libcachesim reads it) and `made-up.jsonl` in the folder.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from kvprefix.blocks.prefix_trace import PrefixTrace, number_blocks
from kvprefix.cache.cluster.replay import route_requests
from kvprefix.cache.cluster.routers import ROUTERS
from kvprefix.cache.curve import lru_curve
from kvprefix.cache.policies import POLICIES
from kvprefix.cache.replay import replay
from kvprefix.cache.tiers import SEMANTICS, replay_tiers
from kvprefix.formats.mooncake import read_mooncake

REPLICAS = 8
COPIES = (1, 5, 20, 60)
IN_FILE = 20  # copies


def main(folder, block_size, trace=None):
    """Print the facts and rates; the rates are accesses per CPU second, by job, one for each of COPIES."""
    folder, block_size = Path(folder), int(block_size)
    made_up = make_up_trace(folder / "made-up.jsonl", block_size)
    trace = read_mooncake(trace or made_up, block_size)
    copies = copy_trace(trace, IN_FILE)
    write_trace(copies, folder / "copies.jsonl")
    write_binary(copies, folder / "copies.bin")
    del copies
    facts = {"requests": len(trace), "accesses": len(trace.ids), "distinct": trace.n_distinct}
    print(json.dumps({**facts, "copies": COPIES, "in_file": IN_FILE, "rates": time_replays(trace)}))


def time_replays(trace):
    """Return the block accesses per CPU second of the LRU curve, each policy, router and kind of tiers, once compiled.
    """
    jobs = {"LRU, the whole curve": lru_curve}
    for name, policy in POLICIES.items():
        jobs[f"{policy.label}, one replay"] = lambda accesses, name=name: replay(
            accesses, max(accesses.n_distinct // 20, 1), name
        )
    for router in ROUTERS:
        jobs[f"{REPLICAS} replicas, {router}"] = lambda accesses, router=router: route_requests(
            accesses, max(accesses.n_distinct // (20 * REPLICAS), 1), f"{router}:1024" if router == "hash" else router,
            REPLICAS,
        )  # fmt: skip
    for name in SEMANTICS:
        jobs[f"two tiers, {name}"] = lambda accesses, name=name: replay_tiers(
            accesses, [max(accesses.n_distinct // 50, 1), max(accesses.n_distinct // 10, 1)], name
        )
    rates = {name: [] for name in jobs}
    for job in jobs.values():
        job(trace)
    for count in COPIES:
        accesses = copy_trace(trace, count)
        for name, job in jobs.items():
            start = time.process_time()
            job(accesses)
            rates[name].append(len(accesses.ids) / (time.process_time() - start))
    return rates


def make_up_trace(path, block_size):
    """Write a trace of 4,000 interleaved chats that grow from turn to turn below eight shared beginnings."""
    rng = np.random.default_rng(0)
    requests, first = [], 100
    for _ in range(4000):
        begin, grown = int(rng.integers(8)), np.cumsum(rng.geometric(1 / 6, rng.geometric(1 / 3))).tolist()
        starts_ms = rng.uniform(0, 3.6e6) + 60_000 * np.arange(len(grown))
        for start_ms, blocks in zip(starts_ms, grown, strict=True):
            requests.append((start_ms, [*range(10 * begin, 10 * begin + 4), *range(first, first + blocks)]))
        first += grown[-1]
    with open(path, "w") as file:
        for start_ms, ids in sorted(requests):
            _write_line(file, start_ms, block_size * len(ids) - block_size // 2, ids)
    return path


def copy_trace(trace, copies):
    """Return a trace with `copies` copies of each request, one after the other, that share no blocks."""
    lengths = np.repeat(trace.blocks, copies)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    shift = np.tile(np.arange(copies), len(trace)) * trace.n_distinct
    take = np.arange(offsets[-1]) + np.repeat(np.repeat(trace.offsets[:-1], copies) - offsets[:-1], lengths)
    ids, parent, depth = number_blocks(trace.ids[take] + np.repeat(shift, lengths), offsets)
    names = "last_weight", "prompt_tokens", "arrival_s", "finish_s"
    columns = {name: np.repeat(getattr(trace, name), copies) for name in names}
    return PrefixTrace(
        block_size=trace.block_size, ids=ids, offsets=offsets, parent=parent, depth=depth,
        conversation=np.arange(len(trace) * copies), **columns,
    )  # fmt: skip


def write_trace(accesses, path):
    """Write a trace in Mooncake's form."""
    with open(path, "w") as file:
        for i in range(len(accesses)):
            ids = accesses.ids[accesses.offsets[i] : accesses.offsets[i + 1]].tolist()
            _write_line(file, accesses.arrival_s[i] * 1000, accesses.prompt_tokens[i], ids)


def _write_line(file, start_ms, tokens, ids):
    request = {"timestamp": round(start_ms), "input_length": int(tokens), "output_length": 1, "hash_ids": ids}
    file.write(json.dumps(request) + "\n")


def write_binary(accesses, path):
    """Write the block accesses as libcachesim reads them fastest (oracleGeneral)."""
    records = np.zeros(len(accesses.ids), [("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    records["time"] = np.repeat(np.arange(len(accesses)), accesses.blocks)
    records["id"], records["size"], records["next"] = accesses.ids, 1, -1
    records.tofile(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
