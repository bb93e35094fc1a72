"""Measure all, write `reports/bench/bench.md`: `python lib/benchmarks/bench.py [--peers-only] [--trace FILE]`.

Other tools are installed beside the project's own environment and do the same jobs in the same run, so that the ratios
can be trusted on any machine; one that does not install has a line with the reason. See `run` and `cache` for the rest.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from itertools import islice
from pathlib import Path

import cache
from replays import IN_FILE
from run import KVPREFIX, measure_all, run

PROJECT = Path(__file__).resolve().parents[2]
PEERS = {
    "kvcache-simulator": ("0.1.3", "kvcache_sim"),
    "libcachesim": ("0.3.5", "libcachesim"),
    "llmtrafficlens": ("0.13.4", "llmtrafficlens"),
    "kvlint": ("0.1.1", "kvlint"),
}
CONVERSATIONS = 4000  # of the bundled data, for kvlint, which encodes every turn's history again


def main():
    """Build the peers' environment, run all measurements, print and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-only", action="store_true", help="leave out the measurements of our own speed alone")
    parser.add_argument("--trace", type=Path, help="a trace in Mooncake's form; made up if not given")
    parser.add_argument("--repeats", type=int, default=3, help="of the tokenising ratio")
    parser.add_argument("--output", type=Path, default=PROJECT / "reports/bench/bench.md")
    options = parser.parse_args()
    python, missing = build_peers(PROJECT / "data/derived/bench-peers")
    with tempfile.TemporaryDirectory() as folder:
        lines = [*describe_run(python, missing), *measure_peers(Path(folder), python, missing, options.trace)]
        if not options.peers_only:
            lines += ["", "## The main job", "", *measure_all(Path(folder) / "run", options.repeats)]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(f"\nwritten to {os.path.relpath(options.output)}")


def build_peers(folder):
    """Return a Python that has the peers, made if it is not there, and the reason for each that did not install."""
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    missing = {}
    for name, (version, module) in PEERS.items():
        if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
            print(f"installing {name} {version}", file=sys.stderr)
            command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{name}=={version}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                missing[name] = done.stderr.strip().splitlines()[-1][:200]
    return str(python), missing


def describe_run(python, missing):
    """Yield the machine, the versions, and what is not there."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True).stdout.strip()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    yield "# Benchmarks\n"
    yield f"Machine: {machine}; Python {platform.python_version()}, the other tools under {version}."
    yield "CPU seconds: user and system time of all threads of a process that reads a file. Memory: its peak.\n"
    for name, (release, _) in PEERS.items():
        yield f"- {name} {release}: {'not measured: ' + missing[name] if name in missing else 'installed'}"


def measure_peers(folder, python, missing, trace):
    """Yield the table of ratios, and how far the hit rates are apart."""
    print("writing traces", file=sys.stderr)
    traces = ["--trace", str(trace)] if trace else []
    write = [sys.executable, cache.__file__, "--write-copies", str(folder), *traces]
    capacities = run(write, folder)["inner"]["capacities"]
    sweeps = cache.make_sweeps(folder, capacities, python)
    ours = sweeps.pop("kvprefix, LRU")
    sweeps.pop("kvprefix, LRU and OPT")
    jobs = [
        (f"LRU at {len(capacities)} capacities of a prefix trace", tool, ours, command)
        for tool, command in sweeps.items()
        if tool.split(",")[0] not in missing
    ]
    tools = Path(python).parent
    if "llmtrafficlens" not in missing:
        lens = [str(tools / "llmtrafficlens"), "profile", "--format", "mooncake", "-o", str(folder / "lens")]
        job = f"theirs: profile of the trace; ours: LRU at {len(capacities)} capacities"
        jobs.append((job, "llmtrafficlens", ours, [*lens, str(folder / "copies.jsonl")]))
    if "kvlint" not in missing:
        job = f"prefix hits of {CONVERSATIONS:,} ShareGPT conversations, from text"
        jobs.append((job, "kvlint", *_prepare_kvlint(folder, tools)))
    yield "\n## Against other tools, in the same run\n"
    source = "given" if trace else "made up: chats that grow from turn to turn below eight shared beginnings"
    blocks = ", ".join(f"{capacity:,}" for capacity in capacities)
    yield f"The prefix trace is {source}, {IN_FILE} copies of it interleaved. Capacities: {blocks} blocks.\n"
    shown = None
    yield "| job | tool | CPU s: ours | theirs | ratio | peak MB: ours | theirs | ratio |"
    yield "|:--|:--|--:|--:|--:|--:|--:|--:|"
    for job, tool, ours, theirs in jobs:
        print(f"{job}: {tool}", file=sys.stderr)
        one, other = run(ours, folder / "derived"), run(theirs, folder / "derived")
        if tool == "kvcache-simulator, LRU":
            shown = one["inner"]["trace"]
            off = _compare_rates(one["inner"], other["inner"])
        cpu, memory = other["cpu_s"] / one["cpu_s"], other["peak_mb"] / one["peak_mb"]
        yield (
            f"| {job} | {tool} | {one['cpu_s']:.1f} | {other['cpu_s']:.1f} | **{cpu:.1f}** | {one['peak_mb']:,.0f} | "
            f"{other['peak_mb']:,.0f} | {memory:.1f} |"
        )
    if shown:
        yield (
            f"\n{shown['requests']:,} requests, {shown['block_accesses']:,} accesses of {shown['distinct_blocks']:,} "
            "distinct blocks. kvcache-simulator's token hit rates of the last half differ from ours by "
            f"{off:.0e} at most."
        )


def _compare_rates(ours, theirs):
    """Return the largest difference of the token hit rates of the last half that ours and kvcache-simulator found."""
    points = {point["cacheBlocks"]: point["results"]["lru"]["hitRate"] for point in theirs["points"]}
    curves = {point["capacity_blocks"]: point["token"] for point in ours["curves"]}
    return max(abs(points[capacity] - curves[capacity]) for capacity in points)


def _prepare_kvlint(folder, tools):
    """Write conversations and a tokenizer's folder; return our and kvlint's command for the same job."""
    from kvprefix.conversations.load import iterate_conversations, locate_data
    from kvprefix.tokens.template import load_chat
    from kvprefix.tokens.tokenizer import find_tokenizer

    chats, tokenizer = folder / "chats.json", folder / "tokenizer"
    roles = {"user": "human", "assistant": "gpt", "system": "system"}
    records = [
        {"id": str(k), "conversations": [{"from": roles[role], "value": text} for role, text in one.messages]}
        for k, one in enumerate(islice(iterate_conversations(locate_data("bundled")), CONVERSATIONS))
    ]
    chats.write_text(json.dumps(records))
    (folder / "chats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    load_chat(find_tokenizer()).tokenizer.save_pretrained(tokenizer)
    ours = [*KVPREFIX, "run", "--data-path", str(chats), "--output-dir", str(folder / "ours"), "--skip-visualization"]
    theirs = [str(tools / "kvlint"), "analyze", str(folder / "chats.jsonl"), "--model", str(tokenizer)]
    return ours, [*theirs, "--format", "sharegpt", "--engine", "vllm", "--block-size", "16"]


if __name__ == "__main__":
    main()
