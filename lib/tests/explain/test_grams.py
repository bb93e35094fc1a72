"""Runs of tokens that were seen before, and the nearest earlier prompt, against plain Python."""

import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.explain.advice.grams import count_seen
from kvprefix.explain.advice.nearest import find_earlier
from kvprefix.explain.walks import make_walks
from kvprefix.traces.trace import make_trace_of

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8)


def count_plainly(prompts, starts, size):
    known, found = set(), []
    for prompt, start in zip(prompts, starts, strict=True):
        grams = [tuple(prompt[k : k + size]) for k in range(len(prompt) - size + 1)]
        places = {k + n for k, gram in enumerate(grams) if k >= start and gram in known for n in range(size)}
        found.append(len(places))
        known |= set(grams)
    return found


def find_plainly(prompts):
    found = []
    for i, prompt in enumerate(prompts):
        common = [len(os.path.commonprefix([prompt, one])) for one in prompts[:i]]
        best = max(common, default=0)
        found.append((max(j for j, n in enumerate(common) if n == best) if best else -1, best))
    return found


@given(PROMPTS, st.integers(1, 4))
def test_runs_of_tokens_are_those_of_plain_python(prompts, size):
    trace = make_trace_of(prompts)
    earlier = find_earlier(make_walks(trace))
    found = count_seen(trace, earlier.tokens, size)
    assert found.tolist() == count_plainly(prompts, earlier.tokens.tolist(), size)


@given(PROMPTS)
def test_the_nearest_earlier_prompt_is_that_of_plain_python(prompts):
    earlier = find_earlier(make_walks(make_trace_of(prompts)))
    assert list(zip(earlier.requests.tolist(), earlier.tokens.tolist(), strict=True)) == find_plainly(prompts)


def test_a_run_within_one_prompt_alone_was_not_seen_before():
    trace = make_trace_of([[1, 2, 3, 1, 2, 3], [9, 1, 2, 3]])
    assert count_seen(trace, np.zeros(2, np.int64), 3).tolist() == [0, 3]
