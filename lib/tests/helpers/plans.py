"""Set-ups and traffic of plans, small enough to be counted by hand: a letter is a block of 16 tokens."""

import json

import numpy as np
from cache_twin import make_small
from hypothesis import strategies as st

from kvprefix.models.cards import Card
from kvprefix.models.pool import plan_pool
from kvprefix.plan.setup import Setup
from kvprefix.plan.traffic import Traffic
from kvprefix.studies.explain import open_tokens
from kvprefix.studies.plan_traffic import open_traffic
from kvprefix.traces.trace import make_trace_of


def make_setup(folder, blocks, kv_model="Llama-3.1-8B", *, price=3.6, flops=1e15, **changes):
    """Return a Setup whose card holds the weights and so many blocks of 16 tokens."""
    known = plan_pool(kv_model, Card("any", 1e9, {"bf16": 1e15}, 1e12))
    memory = known.weights_bytes + (blocks + 0.5) * known.block_bytes
    card = {"memory_mib": memory / 2**20, "flops": {"bf16": flops}, "bytes_per_s": 1e12, "usd_per_hour": price}
    path = folder / f"{kv_model}-{blocks}.json"
    path.write_text(json.dumps(card))
    return Setup(**{"kv_model": kv_model, "gpu": str(path), "utilisation": 1.0, "overhead_gib": 0.0} | changes)


def make_blocks(paths, **options):
    """Return the Traffic of block ids: each path's letters, and a token behind them."""
    blocks = make_small(paths, block_size=16, **options).accesses
    return Traffic(blocks=blocks, looked_up=blocks.blocks)


def write_tokens(path):
    """Return the tokens of a path: 16 a letter."""
    return [ord(letter) * 16 + k for letter in path for k in range(16)]


def make_requests(paths, replies=None, arrival_s=None):
    """Return (prompts, outputs, Traffic) of tokens: prompts end with a token behind their path, replies are paths."""
    prompts = [[*write_tokens(path), 1] for path in paths]
    outputs = [write_tokens(reply)[1:] for reply in replies or [""] * len(paths)]
    trace = make_trace_of(prompts, arrival_s, outputs)
    return prompts, outputs, open_traffic(open_tokens(trace, 16))


@st.composite
def small_days(draw, most=6):
    """Draw paths of up to `most` blocks, most of which go on from an earlier one, and their arrivals."""
    paths = []
    for _ in range(draw(st.integers(2, 14))):
        before = draw(st.sampled_from(["", *paths]))
        paths.append((before[: draw(st.integers(0, len(before)))] + draw(st.text("ab", max_size=3)))[:most])
    waits = draw(st.lists(st.integers(0, 8), min_size=len(paths), max_size=len(paths)))
    return paths, np.cumsum(waits) / 4


def walk_paths(seed, n=120, most=24):
    """Return random paths that begin alike, as conversations do."""
    rng = np.random.default_rng(seed)
    paths = []
    for _ in range(n):
        before = paths[rng.integers(len(paths))] if paths else ""
        paths.append((before + "".join(rng.choice(list("abc"), rng.integers(1, 5))))[:most])
    return paths
