"""Check this library against what real engines answered, and against itself: a line per anchor.

The recorded answers lie in the project, `lib/tests/fixtures`; its README says how each was made.
"""

import gzip
import json
from pathlib import Path

import numpy as np

from kvprefix.blocks.sharing import measure_hits_with_outputs
from kvprefix.cache.curve import count_hits_at, measure_distances, rate_unbounded
from kvprefix.cache.replay import replay
from kvprefix.engines.groups import Group, name_groups
from kvprefix.engines.overlap import Overlap
from kvprefix.engines.sglang import SGLang
from kvprefix.engines.vllm import VLLM
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.files.paths import InputError, explain_os_errors, find_project
from kvprefix.studies.anchors import Anchor, equal
from kvprefix.studies.verify_models import check_models
from kvprefix.studies.verify_sessions import check_sessions
from kvprefix.traces.trace import make_trace_of

OUTLINE_BLOCK = 16  # tokens: the outline of the 893 requests says which of their blocks are alike
STEP_S = 0.02  # a step of the recorded scheduler
HYBRIDS = ("gemma3.w64.bs16.n2000.ret0", "gptoss.w128.bs16.n1000.retnone", "llama4.w512.bs16.nunlimited.ret0",
           "mamba-align.bs64.n300.retnone")  # fmt: skip


def verify(folder=None):
    """Yield an `Anchor` for each recorded answer, as soon as it is checked.

    Parameters
    ----------
    folder : path-like, optional
        Of the recorded answers; the project's if not given.

    Raises
    ------
    InputError
        No such folder: the recordings are not installed with the library.
    """
    folder = _find_folder(folder)
    yield from _check_hand_cases(folder)
    yield from _check_recorded_requests(folder)
    yield from _check_scheduler(folder)
    yield from _check_hybrids(folder)
    yield from _check_server(folder)
    yield from _check_caches(folder)
    yield from check_sessions(folder)
    yield from check_models(folder)


def _find_folder(folder):
    project = find_project()
    folder = Path(folder) if folder else project and project / "lib" / "tests" / "fixtures"
    if not folder or not (folder / "hand_semantics.json").is_file():
        raise InputError(
            f"{folder or 'lib/tests/fixtures'}: holds no recorded answers; expected to run in a clone of the project, "
            "or --fixtures FOLDER"
        )
    return folder


def read_lines(path):
    """Return the objects of a compressed file of JSON Lines."""
    with explain_os_errors(path):
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                return [json.loads(line) for line in file]
        except (EOFError, ValueError, gzip.BadGzipFile) as error:
            raise InputError(f"{path}: is cut or damaged ({error}); expected it as the project has it") from error


def make_recorded(lines, **more):
    """Make a trace of recorded requests."""
    columns = [[line.get(name) for line in lines] for name in ("prompt_token_ids", "output_token_ids")]
    salts, adapters = ([line.get(name) for line in lines] for name in ("cache_salt", "lora_name"))
    outputs = [one or [] for one in columns[1]]
    return make_trace_of(columns[0], outputs=outputs, cache_salts=salts, lora_names=adapters, **more)


def rebuild(outline):
    """Yield an outline's requests with tokens: first those of the request that each is like, then tokens of its own."""
    tokens, unused = {}, iter(range(2**31))
    for one in outline:
        n = one["prompt"] + one["output"]
        start = tokens[one["like"]][: OUTLINE_BLOCK * one["blocks"]] if one["like"] else []
        own = start + [next(unused) for _ in range(n - len(start))]
        tokens[one["request_id"]] = own
        yield {"request_id": one["request_id"], "timestamp": one["timestamp"],
               "prompt_token_ids": own[: one["prompt"]], "output_token_ids": own[one["prompt"] :]}  # fmt: skip


def _check_hand_cases(folder):
    for case in json.loads((folder / "hand_semantics.json").read_text(encoding="utf-8")):
        engine = VLLM(block_size=case["block_size"], blocks=case["num_gpu_blocks"])
        result = engine.replay(make_recorded(case["requests"]))
        ours = [*result.hit_tokens.tolist(), result.cached_hashes, result.blocks_with_hash]
        hits = [-1 if tokens is None else tokens for tokens in case["expected_num_cached_tokens"]]
        theirs = [*hits, case["cached_hashes_at_end"], case["blocks_with_hash_at_end"]]
        yield equal(f"vLLM by hand: {case['name'].replace('_', ' ')}", ours, theirs)


def _check_recorded_requests(folder):
    trace = make_recorded(list(rebuild(read_lines(folder / "sharegpt200_close.outline.jsonl.gz"))))
    for version, blocks, name in (
        ("0.32", None, "seq.bs16.nunlimited.cached"), ("0.32", 2000, "seq.bs16.n2000.cached"),
        ("0.32", 500, "seq.bs16.n500.cached"), ("0.22", 500, "legacyfree.bs16.n500"),
    ):  # fmt: skip
        *lines, _ = read_lines(folder / f"sharegpt200_close.{name}.expected.jsonl.gz")
        result = VLLM(version, block_size=OUTLINE_BLOCK, blocks=blocks).replay(trace)
        pool = "without a bound" if blocks is None else f"with {blocks:,} blocks"
        theirs = [line["num_cached_tokens"] for line in lines]
        yield equal(f"vLLM {version}, 893 requests {pool}", result.hit_tokens.tolist(), theirs)
    for capacity, hits in ((8_000, 69_280), (32_000, 577_104), (None, 577_504)):
        pages = capacity and capacity // OUTLINE_BLOCK
        result = SGLang(block_size=OUTLINE_BLOCK, blocks=pages).replay(trace)
        pool = "without a bound" if capacity is None else f"with {capacity:,} tokens"
        yield equal(f"SGLang 0.5.23, 893 requests {pool}: hit tokens", int(result.hit_tokens.sum()), hits)


def _check_scheduler(folder):
    outline = list(rebuild(read_lines(folder / "sharegpt200_close.outline.jsonl.gz")))
    *lines, _ = read_lines(folder / "sharegpt200_close.sched20ms.bs16.n500.expected.jsonl.gz")
    trace = make_recorded(outline, arrival_s=[one["timestamp"] / 1000 for one in outline])
    result = VLLM(block_size=OUTLINE_BLOCK, blocks=500, overlap=Overlap(STEP_S, STEP_S)).replay(trace)
    theirs = [line["num_cached_tokens"] for line in lines]
    yield equal("vLLM's scheduler, 893 requests at once", result.hit_tokens.tolist(), theirs)
    runs, wrong = read_lines(folder / "small_crowds.scheduler.jsonl.gz"), 0
    for run in runs:
        trace = make_trace_of(run["prompts"], STEP_S * np.array(run["arrivals"]), run["outputs"])
        engine = VLLM(block_size=run["block_size"], blocks=run["num_gpu_blocks"], overlap=Overlap(STEP_S, STEP_S))
        result = engine.replay(trace)
        same = result.hit_tokens.tolist() == run["num_cached_tokens"]
        for ours, name in ((result.admitted_s, "admitted"), (result.finished_s, "finished")):
            same = same and np.allclose(ours, STEP_S * np.array(run[name], float), equal_nan=True)
        wrong += not same
    yield equal(f"vLLM's scheduler, {len(runs)} small crowds: runs that differ", wrong, 0)


def make_hybrid(recorded):
    """Return the engine of a recording of vLLM with groups of layers: a case, or the totals of one."""
    model = {"gptoss": "gpt-oss", "sw": "sliding"}.get(recorded["model"], recorded["model"])
    blocks = None if recorded.get("capacity") == "unlimited" else recorded["num_gpu_blocks"]
    groups = name_groups(model, recorded["window"] or None, recorded["block_size"])
    return VLLMHybrid(groups, blocks=blocks, retention=recorded["retention"])


def make_small_hybrid(run):
    """Return the engine and the trace of a small recorded run."""
    groups = [Group(one["kind"], one.get(one["kind"]), one["block_size"]) for one in run["groups"]]
    options = {name: run[name] for name in ("retention", "drop_last_unit", "step_tokens")}
    prompts, outputs = ([list(map(int, text)) for text in run[name]] for name in ("prompts", "outputs"))
    return VLLMHybrid(groups, blocks=run["num_gpu_blocks"], **options), make_trace_of(prompts, outputs=outputs)


def _check_hybrids(folder):
    cases = json.loads((folder / "hand_hybrid.json").read_text(encoding="utf-8"))
    ours = [make_hybrid(case).replay(make_recorded(case["requests"])).hit_tokens.tolist() for case in cases]
    theirs = [[-1 if hit is None else hit for hit in case["expected_num_cached_tokens"]] for case in cases]
    yield equal(f"vLLM with groups of layers, {len(cases)} cases by hand", ours, theirs)
    trace = make_recorded(list(rebuild(read_lines(folder / "sharegpt200_close.outline.jsonl.gz"))))
    for name in HYBRIDS:
        *lines, totals = read_lines(folder / f"sharegpt200_close.{name}.expected.jsonl.gz")
        result = make_hybrid(totals["totals"]).replay(trace)
        theirs = [line["num_cached_tokens"] for line in lines]
        yield equal(f"vLLM with groups of layers, 893 requests, {name}", result.hit_tokens.tolist(), theirs)
    runs, ours = read_lines(folder / "small_hybrids.jsonl.gz"), []
    for run in runs:
        engine, trace = make_small_hybrid(run)
        ours.append([None if hit < 0 else hit for hit in engine.replay(trace).hit_tokens.tolist()])
    theirs = [run["num_cached_tokens"] for run in runs]
    yield equal(f"vLLM with groups of layers, {len(runs)} small runs", ours, theirs)


def _check_server(folder):
    lines = read_lines(folder / "server_bs32_n200_completions.jsonl.gz")
    result = VLLM(block_size=32, blocks=200).replay(make_recorded(lines))
    theirs = [line["server_cached_tokens"] for line in lines]
    yield equal(f"a live vLLM server, {len(lines)} requests", result.hit_tokens.tolist(), theirs)


def _check_caches(folder):
    trace = make_recorded(list(rebuild(read_lines(folder / "sharegpt200_close.outline.jsonl.gz"))))
    blocks, capacities = trace.blocks(OUTLINE_BLOCK), [100, 1_000, 10_000]
    by_distance = count_hits_at(blocks, measure_distances(blocks), capacities)
    replayed = np.array([replay(blocks, capacity, "lru") for capacity in capacities]).T
    yield equal("LRU by stack distances equals its replay", by_distance.sum(1).tolist(), replayed.sum(1).tolist())
    optimal = [int(replay(blocks, capacity, "opt").sum()) for capacity in capacities]
    others = ("lru", "s3fifo", "lfu")
    best = [max(int(replay(blocks, capacity, one).sum()) for one in others) for capacity in capacities]
    bounded = all(bound >= hits for bound, hits in zip(optimal, best, strict=True))
    yield Anchor("OPT bounds the other policies", bounded, "" if bounded else f"{optimal}, below {best}")
    unbounded = VLLM(block_size=OUTLINE_BLOCK).replay(trace).hit_tokens
    ours = (OUTLINE_BLOCK * measure_hits_with_outputs(trace, OUTLINE_BLOCK)).tolist()
    yield equal("the unbounded accounting equals vLLM without a bound", ours, unbounded.tolist())
    most = rate_unbounded(blocks)["token"]
    enough = replay(blocks, blocks.n_distinct, "lru")
    rate = float(blocks.hit_tokens(enough).sum() / blocks.prompt_tokens.sum())
    yield equal("LRU with room for all reaches the ceiling", round(rate, 12), round(most, 12))
