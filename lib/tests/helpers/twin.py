"""The accounting again in plain Python, keyed by whole token prefixes, and random small traces for it."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from kvprefix.tokens.arrays import Tokens
from kvprefix.traces.trace import Trace


class Account(NamedTuple):
    """What `account` counts."""

    ids: list  # by request: its blocks
    hits: list  # by request
    request_gaps: list  # by request
    times: list  # by block: when it was accessed
    gaps: list  # by reuse
    new_blocks: list  # by reuse: blocks first stored since the access before


def account(prompts, arrival_s, block_size, outputs=None):
    """Account requests against an unbounded cache: a dict from token prefixes to block numbers."""
    number, last, distinct, counted = {}, {}, [0], Account([], [], [], [], [], [])
    for i, prompt in enumerate(prompts):
        kept = prompt + (outputs[i][:-1] if outputs else [])  # the last generated token's KV is not computed
        prefixes = [tuple(kept[:end]) for end in range(block_size, len(kept) + 1, block_size)]
        hits = 0
        while hits < len(prefixes) and prefixes[hits] in number and len(prefixes[hits]) < len(prompt):
            hits += 1
        counted.hits.append(hits)
        gaps_before = len(counted.gaps)
        for prefix in prefixes:
            if prefix not in number:
                number[prefix] = len(number)
                counted.times.append([])
            times = counted.times[number[prefix]]
            if times:
                counted.gaps.append(arrival_s[i] - times[-1])
                counted.new_blocks.append(distinct[i] - distinct[last[prefix] + 1])
            times.append(arrival_s[i])
            last[prefix] = i
        distinct.append(len(number))  # blocks known after request i
        counted.ids.append([number[prefix] for prefix in prefixes])
        counted.request_gaps.append(len(counted.gaps) - gaps_before)
    return counted


def identify_in_arrival_order(trace, block_size, outputs):
    """Identify blocks in one pass over the requests, keyed by (parent block, tokens): Blocks' fields as a dict."""
    number, ids, offsets, prompt_blocks, parent, depth = {}, [], [0], [], [], []
    for i in range(len(trace)):
        prompt, generated = trace.prompt(i).tolist(), trace.generated(i).tolist() if outputs else []
        kept, last = prompt + generated[:-1], -1
        for position in range(len(kept) // block_size):
            key = last, tuple(kept[position * block_size : (position + 1) * block_size])
            if key not in number:
                number[key] = len(number)
                parent.append(last)
                depth.append(position)
            last = number[key]
            ids.append(last)
        offsets.append(len(ids))
        prompt_blocks.append(len(prompt) // block_size)
    whole = {"ids": ids, "parent": parent, "depth": depth}
    return {
        "block_size": block_size, "offsets": np.array(offsets), "prompt_blocks": np.array(prompt_blocks),
        **{name: np.array(values, np.int32) for name, values in whole.items()},
    }  # fmt: skip


class Small(NamedTuple):
    """A random trace, and by request the plain lists that its delta-coded tokens stand for."""

    trace: Trace
    prompts: list
    is_template: list
    outputs: list


@st.composite
def small_traces(draw, in_order=False):
    """Draw a few requests over three tokens; unless in order, parents may come later or be missing."""
    n = draw(st.integers(1, 8))
    parent, shared, own, prompts, flags = [], [], [], [], []
    for row in range(n):
        parent.append(draw(st.integers(-1, row - 1)))
        before = prompts[parent[row]] if parent[row] >= 0 else []
        shared.append(draw(st.integers(0, len(before))))
        own.append(draw(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=12)))
        flags.append((flags[parent[row]][: shared[row]] if before else []) + [flag for _, flag in own[row]])
        prompts.append(before[: shared[row]] + [token for token, _ in own[row]])
    outputs = draw(st.lists(st.lists(st.integers(0, 2), max_size=7), min_size=n, max_size=n))
    rows = range(n) if in_order else draw(st.permutations(range(n)))[: draw(st.integers(1, n))]
    quarters = sorted(draw(st.lists(st.integers(0, 40), min_size=len(rows), max_size=len(rows))))
    tokens = Tokens(
        np.array(parent), np.array(shared),
        _offsets(own), np.array([token for one in own for token, _ in one], np.int32),
        np.array([flag for one in own for _, flag in one], bool),
        _offsets(outputs), np.array([token for one in outputs for token in one], np.int32),
    )  # fmt: skip
    requests = pd.DataFrame({
        "request_id": [f"c{row}t0" for row in rows],
        "conversation_index": rows,
        "conversation_id": [str(row) for row in rows],
        "turn": 0,
        "arrival_s": np.array(quarters) / 4,
        "prompt_tokens": [len(prompts[row]) for row in rows],
        "output_tokens": [len(outputs[row]) for row in rows],
        "messages": 1,
    })  # fmt: skip
    trace = Trace(requests, np.array(rows), tokens, {})
    return Small(trace, [prompts[r] for r in rows], [flags[r] for r in rows], [outputs[r] for r in rows])


def _offsets(lists):
    return np.cumsum([0, *map(len, lists)])
