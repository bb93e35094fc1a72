"""Differences of two runs: blocks are told from tables as the replay knew them, and draws equal a twin of lists."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.blocks.sharing import share
from kvprefix.stats.metrics import tabulate_blocks, tabulate_requests
from kvprefix.stats.paired import Counted, combine_intervals, count_blocks, draw_both
from kvprefix.traces.trace import make_trace_of

PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=12)


@given(PROMPTS, st.integers(1, 3), st.booleans())
def test_blocks_stored_by_each_request_are_those_of_the_replay(prompts, size, at_once):
    trace = make_trace_of(prompts, arrival_s=[float(k // 3 if at_once else k) for k in range(len(prompts))])
    sharing = share(trace, size)
    requests, blocks = tabulate_requests(trace, sharing), tabulate_blocks(sharing.time_block_runs()).to_pandas()
    new, reused = count_blocks(requests, blocks["accesses"].to_numpy(), blocks["first_access_s"].to_numpy(), size)
    expected = sharing.blocks.prompt_blocks - sharing.request_gaps
    assert new.sum() == len(blocks) and reused.sum() == (blocks["accesses"] > 1).sum()
    if not at_once:
        np.testing.assert_array_equal(new, expected)
        stored_by = np.repeat(np.arange(len(prompts)), expected)
        np.testing.assert_array_equal(reused, np.bincount(stored_by, sharing.accesses > 1, len(prompts)))
    for time in set(requests["arrival_s"]):  # of requests at one time the sum is known
        assert new[requests["arrival_s"] == time].sum() == expected[requests["arrival_s"] == time].sum()


def test_blocks_of_another_run_are_refused():
    sharing = share(trace := make_trace_of([[1, 2, 3, 4], [5, 6, 7, 8]]), 2)
    requests = tabulate_requests(trace, sharing)
    with pytest.raises(ValueError, match="3 blocks are not the 4"):
        count_blocks(requests, np.ones(3, int), np.array([0.0, 0.0, 1.0]), 2)


def counted(names, cached, prompt=10):
    n = len(names)
    columns = {"prompt": [prompt] * n, "cached": cached, "blocks": [4] * n, "new": [2] * n, "new_reused": [1] * n}
    return Counted(np.array(names, object), pd.DataFrame(columns))


def draw_twin(first, second, draws, seed):
    """Draw token hit rates with lists: write out the requests of every drawn conversation."""
    names = list(dict.fromkeys([*first.conversations, *second.conversations]))
    in_first, in_second = set(first.conversations), set(second.conversations)
    strata = [
        [name for name in names if name in in_first & in_second],
        [name for name in names if name in in_first - in_second],
        [name for name in names if name in in_second - in_first],
    ]  # fmt: skip
    streams = [np.random.default_rng([seed, k]) for k in range(3)]
    found = []
    for _ in range(draws):
        drawn = []
        for members, stream in zip(strata, streams, strict=True):
            if members:
                drawn += [members[k] for k in stream.integers(len(members), size=len(members))]
        rates = []
        for run in (first, second):
            rows = [k for name in drawn for k, one in enumerate(run.conversations) if one == name]
            some = run.columns.iloc[rows]
            fractions = sorted(some["cached"] / some["prompt"])
            median = fractions[(len(fractions) - 1) // 2]
            rates.append([some["cached"].sum() / some["prompt"].sum(), np.mean(fractions), median,
                          (some["prompt"] - some["cached"]).sum() / len(some)])  # fmt: skip
        found.append(rates)
    return np.array(found)


@pytest.mark.parametrize("others", [list("abcde"), list("abcxy"), list("vwxyz")], ids=["all", "some", "none"])
def test_draws_equal_a_twin_of_lists(others):
    rng = np.random.default_rng(3)
    first = counted([*"abcde", *"abc", "a"], rng.integers(0, 10, 9))
    second = counted([*others, *others[:2]], rng.integers(0, 10, 7), prompt=16)
    drawn, twin = draw_both(first, second, draws=40, seed=5), draw_twin(first, second, 40, 5)
    names = ["token_hit_rate", "sharing_fraction.mean", "sharing_fraction.median", "tokens_left.mean"]
    for k, one in enumerate(drawn):
        np.testing.assert_allclose(one[names].to_numpy(), twin[:, k], atol=1e-7)


def test_a_run_and_itself_do_not_differ_in_any_draw():
    run = counted([*"abc", *"abc"], [0, 3, 6, 2, 4, 8])
    first, second = draw_both(run, run.take(np.arange(6)), draws=30)
    assert (first == second).to_numpy().all() and first["token_hit_rate"].std() > 0


def test_shared_conversations_make_the_interval_narrower():
    rng = np.random.default_rng(0)
    cached = rng.integers(0, 9, 60)
    first = counted([f"c{k}" for k in range(60)], cached)
    paired = counted(first.conversations, cached + 1)
    apart = counted([f"d{k}" for k in range(60)], cached + 1)
    widths = [(lambda a, b: (b - a)["token_hit_rate"].std())(*draw_both(first, one)) for one in (paired, apart)]
    assert widths[0] == pytest.approx(0, abs=1e-12) and widths[1] > 0.02


def test_rates_of_no_requests_do_not_exist():
    nothing = counted(["a"], [1]).take(np.zeros(1, bool))
    assert all(np.isnan(rate) for rate in nothing.rates().values())


def test_an_interval_of_two_holds_the_difference_and_has_the_ends_of_one_alone():
    assert combine_intervals((0.5, 0.5), (0.55, 0.7), (0.5, 0.6)) == pytest.approx((0.05, 0.2))
    low, high = combine_intervals((0.45, 0.58), (0.5, 0.7), (0.5, 0.6))
    assert low == pytest.approx(0.1 - np.hypot(0.1, 0.08)) and high == pytest.approx(0.1 + np.hypot(0.1, 0.05))
