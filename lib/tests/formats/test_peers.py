"""Exports are read by the tools that they are for, and their hit rates without a bound are ours.

KVPREFIX_PEERS names one Python or several (apart by what PATH is) that have these tools; where none has a tool, its
tests are skipped: kvcache-simulator 0.1.3, llmtrafficlens 0.13.4, aiperf 0.13.0, vLLM 0.32.0.
"""

import functools
import gzip
import json
import os
import subprocess

import numpy as np
import pytest
from places import LIB, SAMPLE, SHARED

from kvprefix.__main__ import main
from kvprefix.cache.curve import count_seen, rate_unbounded
from kvprefix.formats.convert import convert
from kvprefix.studies.sweep import load_accesses
from kvprefix.tokens.tokenizer import find_tokenizer, load_tokenizer
from kvprefix.traces.parquet import read_trace

READS = LIB / "tests" / "helpers" / "peer_reads.py"
PUBLISHED = SHARED / "data/mooncake_conversation_trace.jsonl.gz"


@functools.cache
def find_python(module):
    """Return the first Python of KVPREFIX_PEERS that has a module, None if none has."""
    for python in filter(None, os.environ.get("KVPREFIX_PEERS", "").split(os.pathsep)):
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        if subprocess.run([python, "-c", code], cwd=READS.anchor).returncode == 0:
            return python
    return None


def needs(module):
    reason = f"no Python of KVPREFIX_PEERS has {module}"
    return pytest.mark.skipif(find_python(module) is None, reason=reason)


def read_by(module, tool, *arguments):
    """Return what a tool says of a file."""
    command = [find_python(module), "-W", "ignore", str(READS), tool, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=READS.anchor)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.rstrip("\n").split("\n")[-1])


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    options = ["--output-dir", str(folder), "--skip-visualization", "--parquet"]
    assert main(["run", "--data-path", str(SAMPLE), *options]) == 0
    return folder


@pytest.fixture(scope="module", params=["mooncake", "bailian", "published", "published, joined"])
def exported(request, sample, tmp_path_factory):
    """Return (file, form, block size) of an export: of our sample, and of Mooncake's trace where it lies at hand."""
    path = tmp_path_factory.mktemp("export") / "trace.jsonl"
    if not request.param.startswith("published"):
        done = convert(sample / "multi_turn_trace.parquet", path, request.param, block_size=16)
        return path, request.param, done.block_size
    if not PUBLISHED.exists():
        pytest.skip("Mooncake's trace is not part of the repository")
    if "joined" in request.param:
        return path, "bailian", convert(PUBLISHED, path, "bailian", block_size=1024).block_size
    return path, "mooncake", convert(PUBLISHED, path, "mooncake").block_size


@needs("kvcache_sim")
@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_kvcache_simulator_finds_our_token_hit_rate(exported, warmup):
    path, _, block_size = exported
    accesses, theirs = load_accesses(path), read_by("kvcache_sim", "simulator", path, warmup)
    assert theirs["rate"] == pytest.approx(rate_unbounded(accesses, warmup=warmup)["token"], rel=1e-12)
    assert (theirs["requests"], theirs["lost"], theirs["block_size"]) == (len(accesses), 0, block_size)
    assert theirs["tokens"] == accesses.prompt_tokens.sum() and theirs["rate"] > 0.1


@needs("llmtrafficlens")
def test_llmtrafficlens_finds_our_hits(exported):
    """It counts a partial block as a whole one, and rounds to four digits."""
    path, form, block_size = exported
    accesses, theirs = load_accesses(path), read_by("llmtrafficlens", "lens", path, form, block_size)
    hits = count_seen(accesses.ids, accesses.offsets)
    assert theirs["rate"] == round(hits.sum() * block_size / accesses.prompt_tokens.sum(), 4) > 0.1
    assert (theirs["requests"], theirs["tokens"]) == (len(accesses), accesses.prompt_tokens.sum())


@needs("aiperf")
def test_aiperf_loads_requests_and_sessions_and_finds_our_hits(exported):
    """Its rate is the mean over requests of the share of blocks that are hit."""
    path, form, block_size = exported
    accesses, theirs = load_accesses(path), read_by("aiperf", "aiperf", path, form, block_size)
    assert theirs["rate"] == pytest.approx((count_seen(accesses.ids, accesses.offsets) / accesses.blocks).mean())
    assert theirs["known"] and theirs["rate"] > 0.1
    ours = [accesses.arrival_s[accesses.conversation == k] for k in np.unique(accesses.conversation)[:50]]
    for session, arrival_s in zip(theirs["sessions"], ours, strict=False):
        assert session == pytest.approx(1000 * arrival_s)
    assert len(theirs["sessions"]) == accesses.conversation.max() + 1
    assert sum(map(len, theirs["sessions"])) == len(accesses)


@needs("kvcache_sim")
@pytest.mark.skipif(not PUBLISHED.exists(), reason="Mooncake's trace is not part of the repository")
def test_conversion_changes_nothing_that_the_simulator_sees(tmp_path):
    with gzip.open(PUBLISHED, "rt") as file, open(tmp_path / "given.jsonl", "w") as given:
        given.writelines(json.dumps({**json.loads(line), "block_size": 512}) + "\n" for line in file)
    convert(PUBLISHED, tmp_path / "ours.jsonl", "mooncake")
    theirs = [read_by("kvcache_sim", "simulator", tmp_path / name, 0.0) for name in ("given.jsonl", "ours.jsonl")]
    assert theirs[0] == theirs[1]
    assert theirs[0]["rate"] == pytest.approx(rate_unbounded(load_accesses(PUBLISHED))["token"], rel=1e-12)


@needs("vllm")
def test_vllm_reads_the_prompts_of_a_custom_dataset(sample, tmp_path):
    convert(sample / "multi_turn_trace.jsonl", tmp_path / "c.jsonl", "vllm-custom", progress=False)
    theirs = read_by("vllm", "vllm_custom", tmp_path / "c.jsonl", find_tokenizer().folder)
    trace = read_trace(sample / "multi_turn_trace.parquet")
    assert theirs["prompt_tokens"] == trace.requests["prompt_tokens"].tolist()
    assert theirs["output_tokens"] == trace.requests["output_tokens"].clip(1).tolist()


@needs("vllm")
def test_vllm_reads_odd_texts_as_they_are(tmp_path, bundled_folder):
    texts = ["\u2028 \u0085 \r\n", "12345", "2026-03-01", "\u0000 nul", "\U0001f600", "", '"\\']
    rows = [{"timestamp": k, "messages": [{"role": "user", "content": text}]} for k, text in enumerate(texts)]
    (tmp_path / "log").write_text("".join(json.dumps(row) + "\n" for row in rows))
    convert(tmp_path / "log", tmp_path / "c.jsonl", "vllm-custom", progress=False)
    with open(tmp_path / "c.jsonl", encoding="utf-8", newline="\n") as file:
        ours = [json.loads(line)["prompt"] for line in file]
    assert read_by("vllm", "vllm_custom", tmp_path / "c.jsonl", bundled_folder)["prompts"] == ours


@needs("vllm")
@pytest.mark.parametrize(("form", "seconds"), [("mooncake", 0.001), ("bailian", 1)])
def test_vllm_reads_a_timed_trace(sample, tmp_path, form, seconds):
    convert(sample / "multi_turn_trace.parquet", tmp_path / "t.jsonl", form, block_size=16)
    tokenizer, accesses = find_tokenizer().folder, load_accesses(tmp_path / "t.jsonl")
    theirs = read_by("vllm", "vllm_timed_trace", tmp_path / "t.jsonl", tokenizer, 16, seconds)
    assert theirs["prompt_tokens"] == accesses.prompt_tokens.tolist()
    assert theirs["arrival_s"] == pytest.approx(accesses.arrival_s.tolist())
    assert theirs["rate"] == pytest.approx(rate_unbounded(accesses)["token"])


@needs("vllm")
def test_vllm_takes_the_batch_file(sample, tmp_path):
    convert(sample / "multi_turn_trace.jsonl", tmp_path / "b.jsonl", "openai-batch")
    theirs = read_by("vllm", "vllm_batch", tmp_path / "b.jsonl")
    with open(sample / "multi_turn_trace.jsonl", encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    assert theirs["names"] == [row["request_id"] for row in rows]
    assert theirs["messages"] == [[[m["role"], m["content"]] for m in row["messages"]] for row in rows]
    assert theirs["max_tokens"] == [row["output_tokens"] for row in rows]


@needs("benchmark_serving_multi_turn")
def test_vllm_s_multi_turn_script_sends_every_question(sample, tmp_path):
    """Its folder must be on that Python's path; it sends message 1, then 1 to 3 with its server's answer, ..."""
    convert(sample / "multi_turn_trace.jsonl", tmp_path / "m.json", "vllm-multi-turn", progress=False)
    source = find_tokenizer()
    theirs = read_by("benchmark_serving_multi_turn", "vllm_multi_turn", tmp_path / "m.json", source.folder)
    conversations, expected = json.loads((tmp_path / "m.json").read_text(encoding="utf-8")), []
    encode, trace = load_tokenizer(source)[0].encode, read_trace(sample / "multi_turn_trace.parquet")
    for one in conversations:
        texts = [message["content"] for message in one["messages"]]
        answered = ["ok" if k % 2 else text for k, text in enumerate(texts)]
        expected += [[answered[: k + 1], len(encode(texts[k + 1]))] for k in range(0, len(texts), 2)]
    assert theirs["code"] == 0 and theirs["errors"] == 0
    assert sorted(theirs["received"]) == sorted(expected) and len(expected) > 10
    lengths = (trace.requests["output_tokens"] - 1).tolist()  # without the end of turn
    assert sorted(length for _, length in expected) == sorted(lengths)
