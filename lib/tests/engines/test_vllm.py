"""What a real engine answered, where its recordings lie beside the repository."""

import gzip
import json
from collections import defaultdict

import pytest
from places import SHARED

from kvprefix.blocks.sharing import measure_hits_with_outputs
from kvprefix.conversations.load import iterate_conversations, locate_data
from kvprefix.conversations.records import Message
from kvprefix.tokens.encode import encode_conversations
from kvprefix.traces.trace import make_trace_of

FIXTURES = SHARED / "fixtures"
REQUESTS = FIXTURES / "sharegpt200_close.jsonl.gz"
EXPECTED = FIXTURES / "sharegpt200_close.seq.bs16.nunlimited.cached.expected.jsonl.gz"

pytestmark = pytest.mark.skipif(not REQUESTS.exists(), reason="the recordings are not part of the repository")
SYSTEM = Message("system", "You are a helpful assistant.")
BLANK = "151644, 872, 198, 151645"  # <|im_start|> user \n <|im_end|>


def read_lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_bundled_conversations_give_the_recorded_tokens(qwen):
    recorded = defaultdict(list)
    for request in read_lines(REQUESTS):
        recorded[request["conversation"]].append((request["prompt_token_ids"], request["output_token_ids"]))
    conversations = [
        c if c.messages[0].role == "system" else c._replace(messages=(SYSTEM, *c.messages))
        for c in iterate_conversations(locate_data("bundled"), max_conversations=400)
    ]
    ours, prompt = defaultdict(list), []
    for row in encode_conversations(conversations, qwen)[0].to_pylist():
        prompt = prompt[: row["shared_tokens"]] + row["own_tokens"]
        ours[row["conversation"]].append((prompt, row["output_tokens"]))
    # the recording leaves out long turns, and keeps blank messages, which we drop: two conversations have one
    equal = [any(mine[: len(turns)] == turns for mine in ours.values()) for turns in recorded.values()]
    has_blank = [any(BLANK in str(prompt) for prompt, _ in turns) for turns in recorded.values()]
    assert equal == [not blank for blank in has_blank]
    assert (sum(equal), len(equal)) == (198, 200)


def test_unlimited_hits_equal_the_engines():
    requests = read_lines(REQUESTS)
    *expected, totals = read_lines(EXPECTED)
    prompts = [request["prompt_token_ids"] for request in requests]
    outputs = [request["output_token_ids"] for request in requests]
    hits = measure_hits_with_outputs(make_trace_of(prompts, outputs=outputs), 16)
    assert len(hits) == len(expected) == 893
    for request, line, n_blocks in zip(requests, expected, hits.tolist(), strict=True):
        assert (line["request_id"], line["num_cached_tokens"]) == (request["request_id"], 16 * n_blocks)
    assert 16 * hits.sum() == totals["totals"]["prefix_cache_hits"] == 577_504
