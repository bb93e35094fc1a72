"""Whole prompts of requests that list what is new: a twin that writes out every token."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from session_twin import count_prefix_hits, stream_prompts

from kvprefix.blocks.deltas import join_deltas
from kvprefix.blocks.prefix_trace import number_blocks

IDS = st.lists(st.integers(0, 4), max_size=3)
ROWS = st.lists(st.tuples(st.integers(0, 2), IDS, st.integers(0, 3), st.integers(0, 5)), max_size=9)


@given(ROWS, st.integers(1, 4), st.booleans())
def test_blocks_and_hits_are_those_of_the_prompts_written_out(drawn, size, replies):
    drawn = sorted(drawn, key=lambda one: one[0])  # conversations stand together
    rows = [
        {
            "session_id": session, "hash_ids": ids, "output_length": reply,
            "input_length": max(size * len(ids) - min(short, size - 1), 0) if ids else 0,
        }
        for session, ids, short, reply in drawn
    ]  # fmt: skip
    prompts = stream_prompts(rows, size, replies)
    ids, offsets, tokens = join_deltas(
        np.array([one for row in rows for one in row["hash_ids"]], np.int64),
        np.cumsum([0, *(len(row["hash_ids"]) for row in rows)]),
        np.array([row["input_length"] for row in rows], np.int64),
        np.array([row["output_length"] * replies for row in rows], np.int64),
        np.array([row["session_id"] for row in rows], np.int64), size,
    )  # fmt: skip
    assert tokens.tolist() == list(map(len, prompts))
    assert np.diff(offsets).tolist() == [-(-len(prompt) // size) for prompt in prompts]
    named = {}
    for row, prompt in enumerate(prompts):
        for k, one in enumerate(ids[offsets[row] : offsets[row + 1]].tolist()):
            prefix = tuple(prompt[: (k + 1) * size])
            assert named.setdefault(prefix, one) == one
    assert len(set(named.values())) == len(named)  # different prefixes are different blocks
    number_blocks(ids, offsets)  # each names its whole prefix
    seen, hits = set(), []
    for row, prompt in enumerate(prompts):
        mine = ids[offsets[row] : offsets[row + 1]].tolist()
        found = next((k for k, one in enumerate(mine) if one not in seen), len(mine))
        hits.append(min(found * size, len(prompt)))
        seen.update(mine)
    assert hits == count_prefix_hits(prompts, size)
