"""The knee of a curve: where it is by hand, and beside a brute-force twin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.stats.knee import count_gains, find_knee


@given(st.lists(st.floats(0, 1), min_size=3, max_size=30))
def test_the_knee_is_farthest_above_the_line_between_the_ends(rates):
    rates, capacities = np.sort(rates), 3 * 2 ** np.arange(len(rates))
    heights = []
    for k, rate in enumerate(rates):
        line = rates[0] + (rates[-1] - rates[0]) * k / (len(rates) - 1)  # doublings are equal steps
        heights.append((rate - line) / max(rates[-1] - rates[0], 1e-300))
    knee = find_knee(capacities, rates)
    if knee is None:
        assert max(heights) < 1e-8 or rates[-1] <= rates[0]
    else:
        assert heights[knee] == pytest.approx(max(heights), abs=1e-9) and 0 < knee < len(rates) - 1
        before, after = count_gains(capacities, rates, knee)
        mean = (rates[-1] - rates[0]) / (len(rates) - 1)
        assert before >= mean * (1 - 1e-9) and after <= mean * (1 + 1e-9)


def test_a_knee_by_hand():
    # Doublings from 8 to 128: four steps of the line are 0.2 each. Above it: 0.1, 0.2, 0.1.
    assert find_knee([8, 16, 32, 64, 128], [0.1, 0.4, 0.7, 0.8, 0.9]) == 2
    assert count_gains([8, 16, 32, 64, 128], [0.1, 0.4, 0.7, 0.8, 0.9], 2) == pytest.approx((0.3, 0.1))


@pytest.mark.parametrize("rates", [[0, 0, 0], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3], [0, 0.1, 0.9], [0.9, 0.5, 0.1]])
def test_a_curve_that_is_flat_straight_hollow_or_falling_has_no_knee(rates):
    assert find_knee([1, 10, 100], rates) is None


def test_two_points_have_no_knee():
    assert find_knee([1, 2], [0, 1]) is None and find_knee([5], [0.3]) is None and find_knee([], []) is None
