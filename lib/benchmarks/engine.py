"""Measure the engine replay: `python lib/benchmarks/engine.py [--conversations N] [--blocks N] [--repeats N]`.

Real conversations, multi-turn, generated tokens cached, from token ids in memory and from paths that are known, one
request at a time and at once, and in six groups of layers with six times the blocks. For scale: vLLM's own manager of
blocks was once measured at about 50,000 prompt blocks per CPU second; it is not run here.
"""

import argparse
import time

from kvprefix.blocks.stretches import find_paths
from kvprefix.engines.groups import name_groups
from kvprefix.engines.overlap import Overlap
from kvprefix.engines.sglang import SGLang
from kvprefix.engines.vllm import VLLM
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload, make_trace

BLOCK_SIZE = 16
VLLM_BLOCKS_PER_S = 50_000


def main():
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--blocks", type=int, default=20_000, help="of the pool (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="the median counts (default: %(default)s)")
    options = parser.parse_args()
    trace = make_trace(load_workload(Parameters(max_conversations=options.conversations)), "multi_turn")
    prompt_blocks = int((trace.requests["prompt_tokens"] // BLOCK_SIZE).sum())
    known = find_paths(trace, BLOCK_SIZE, outputs=True)
    print(f"{len(trace):,} requests, {prompt_blocks:,} prompt blocks, {options.blocks:,} blocks\n")
    print(f"| replay | CPU s | M prompt blocks a second | times {VLLM_BLOCKS_PER_S:,} a second |\n|:--|--:|--:|--:|")
    sizes = {"block_size": BLOCK_SIZE, "blocks": options.blocks}
    vllm, at_once, sglang = VLLM(**sizes), VLLM(**sizes, overlap=Overlap()), SGLang(**sizes)
    groups = name_groups("gemma3", 1024, BLOCK_SIZE)
    hybrid, dense = (VLLMHybrid(groups, blocks=len(groups) * options.blocks, retention=kept) for kept in (0, None))
    for name, replay in {
        "vLLM, from token ids": lambda: vllm.replay(trace),
        "vLLM, paths known": lambda: vllm.replay(trace, known),
        "vLLM, requests at once, paths known": lambda: at_once.replay(trace, known),
        "vLLM, six groups, paths known": lambda: hybrid.replay(trace, known),
        "vLLM, six groups, retention none, paths known": lambda: dense.replay(trace, known),
        "SGLang, pages of 16, from token ids": lambda: sglang.replay(trace),
    }.items():
        cpu_s = measure(replay, options.repeats)
        rate = prompt_blocks / cpu_s
        print(f"| {name} | {cpu_s:.3f} | {rate / 1e6:.1f} | {rate / VLLM_BLOCKS_PER_S:.0f} |")


def measure(call, repeats):
    """Return the median CPU seconds of a call that is compiled already."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return sorted(taken)[repeats // 2]


if __name__ == "__main__":
    main()
