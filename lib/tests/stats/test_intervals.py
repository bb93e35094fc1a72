"""Intervals: the rates of resampled conversations, summed plainly."""

import numpy as np
import pytest

from kvprefix.stats import intervals
from kvprefix.stats.intervals import bootstrap_rates, resample_groups


@pytest.mark.parametrize("kept", [0, 2**15])
def test_rates_are_sums_over_the_drawn_conversations(monkeypatch, kept):
    monkeypatch.setattr(intervals, "KEPT_GROUPS", kept)
    rng = np.random.default_rng(2)
    groups, prompts = rng.integers(0, 30, 200) * 7, rng.integers(0, 2000, 200)
    hits = np.column_stack([rng.integers(0, 1000, 200), np.zeros(200, int), prompts])
    rates = bootstrap_rates(hits, prompts, groups, draws=70, seed=3)
    names = np.unique(groups)
    for rate, counts in zip(rates, resample_groups(len(names), 70, 3), strict=True):
        weights = counts[np.searchsorted(names, groups)]
        assert rate.tolist() == ((weights @ hits) / (weights @ prompts)).tolist()


def test_no_conversations_have_rates_of_zero():
    none = np.zeros(0, int)
    assert bootstrap_rates(np.zeros((0, 2)), none, none, draws=5).tolist() == [[0.0, 0.0]] * 5
