"""Replay a trace in Mooncake's form as AISimulate does with fixed timing: `lib/benchmarks/mooncake_reuse.py TRACE`.

Both know the requests' blocks, not their tokens; here every block is filled with tokens of its own. AISimulate's sizes
are blocks that can be used; vLLM's own, which this library takes, have a null block besides.
"""

import gzip
import json
import sys
from pathlib import Path

BLOCK_SIZE = 512
SIZES = 200_000, 30_000, 10_000  # blocks
STEP_S = 0.001  # a scheduler's step, and the time to a first token
MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 128256, "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
}  # fmt: skip


def main(path):
    """Print the reuse of each size as JSON: cached tokens over prompt tokens."""
    from kvprefix.blocks.stretches import find_paths
    from kvprefix.engines.overlap import Overlap
    from kvprefix.engines.vllm import VLLM

    trace = read_as_tokens(path)
    paths = find_paths(trace, BLOCK_SIZE, outputs=True)
    timing = Overlap(first_token_s=STEP_S, time_per_token_s=STEP_S)
    replays = (VLLM(block_size=BLOCK_SIZE, blocks=size + 1, overlap=timing).replay(trace, paths) for size in SIZES)
    print(json.dumps({"reuse": [replayed.hit_rate for replayed in replays]}))


def read_as_tokens(path):
    """Return a Trace of a file in Mooncake's form, with tokens that are alike where the blocks are."""
    import numpy as np

    from kvprefix.formats.mooncake import read_mooncake
    from kvprefix.tokens.arrays import make_flat_tokens
    from kvprefix.traces.trace import make_flat_trace

    blocks = read_mooncake(path, BLOCK_SIZE, outputs=True)
    held = np.full(len(blocks.ids), BLOCK_SIZE)
    held[blocks.offsets[1:] - 1] = blocks.last_weight
    own, own_offsets = np.repeat(blocks.ids, held), np.concatenate(([0], np.cumsum(blocks.prompt_tokens)))
    output_offsets = np.concatenate(([0], np.cumsum(blocks.output_tokens)))
    generated = np.repeat(np.arange(len(blocks)) + blocks.n_distinct, blocks.output_tokens).astype(np.int32)
    tokens = make_flat_tokens(own_offsets, own, output_offsets, generated)
    return make_flat_trace(tokens, arrival_s=blocks.arrival_s)


def unpack(source, folder):
    """Write the trace without compression, which AISimulate does not read; return the file."""
    path = Path(folder) / "mooncake.jsonl"
    data = Path(source).read_bytes()
    path.write_bytes(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    return path


def write_configs(folder, trace):
    """Write AISimulate's configuration for each of the sizes; return the files."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(MODEL))
    paths = []
    for size in SIZES:
        cache = {"block_size": BLOCK_SIZE, "bytes_per_token": 131072, "capacity": {"type": "fixed", "blocks": size}}
        worker = {
            "kv_cache": cache, "scheduler": {"max_batched_tokens": 10**6, "max_sequences": 10**5},
            "timing": {"type": "fixed", "prefill_ms": 1000 * STEP_S, "decode_ms": 1000 * STEP_S},
        }  # fmt: skip
        source = {"type": "trace", "paths": [str(trace)], "format": "mooncake", "block_size": BLOCK_SIZE}
        engine = {"mode": "aggregated", "model": str(model), "hardware": "h100_sxm", "backend": "vllm"}
        config = {
            "traffic": {"source": source, "load": {"type": "trace_timestamps"}},
            "engine": {**engine, "workers": {"aggregated": worker}},
        }  # fmt: skip
        paths.append(folder / f"aisimulate-{size}.yaml")
        paths[-1].write_text(json.dumps(config))  # JSON is YAML
    return paths


def describe(ours, theirs):
    """Say what both found at each size."""
    found = ", ".join(f"{rate:.6f} at {size:,} blocks" for size, rate in zip(SIZES, ours, strict=True))
    off = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    return f"reuse {found}; theirs differs by {off:.0e} at most"


if __name__ == "__main__":
    main(sys.argv[1])
