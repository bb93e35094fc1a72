"""How many draws of the clock a study makes: the rule by hand, and rounds that a kill does not change."""

import numpy as np
import pandas as pd
import pytest

from kvprefix.studies import cache as study
from kvprefix.studies.draws import FIRST_DRAWS, SEEDS, is_known, is_settled, list_rounds


def table(rates, half_width, **columns):
    """One row per draw of one rate; the first has the printed interval."""
    n = len(rates)
    ends = [[rates[0] + sign * half_width, *[np.nan] * (n - 1)] for sign in (-1, 1)]
    return pd.DataFrame({"seed": range(n), "place": 0, "token": rates, "low": ends[0], "high": ends[1], **columns})


# The mean over 0.1, 0.2, 0.3, 0.4 has the standard error 0.0645; times Student's 3.182 for 3 degrees: 0.2054.
RATES = [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(("half_width", "enough"), [(0.2053, False), (0.2055, True), (np.nan, True)])
def test_a_rate_is_settled_if_draws_are_no_wider_than_resamples(half_width, enough):
    assert is_settled(table(RATES, half_width), ["place"]) is enough


def test_what_is_below_the_last_printed_digit_is_settled():
    assert is_settled(table([0.5, 0.5002, 0.5, 0.5002], 0.0), ["place"])
    assert not is_settled(table([0.5, 0.502, 0.5, 0.502], 0.0), ["place"])


@pytest.mark.parametrize(("half_width", "base", "enough"), [
    (0.01, 0.0, True),  # 0.25 is above 0.2054 + 0.01
    (0.05, 0.0, False),  # 0.25 is below 0.2054 + 0.05
    (0.01, 0.2, False),
    (0.21, 0.2, True),
])  # fmt: skip
def test_a_difference_is_settled_if_its_sign_is_beyond_doubt(half_width, base, enough):
    rates = [rate + base for rate in RATES]
    frame = table(rates, 1.0, gain_low=[rates[0] - half_width, *[np.nan] * 3], gain_high=rates[0] + half_width)
    assert is_settled(frame, ["place"])
    found = is_settled(frame, ["place"], "gain_low", "gain_high", lambda rows: np.full(len(rows), 2 * base))
    assert found is enough


def test_rows_are_paired_by_their_keys_in_whatever_order():
    a, b = table([0.1] * 4, 0.01), table([0.9] * 4, 0.01).assign(place=1)
    mixed = pd.concat([a[:2], b[:1], b[1:], a[2:]])
    assert is_settled(mixed, ["place"])


def test_sizes_are_known_within_a_share():
    frame = pd.DataFrame({"seed": range(4), "share": 0.5, "blocks": [100, 102, 100, 102]})
    assert is_known(frame, ["share"], "blocks") and not is_known(frame, ["share"], "blocks", 0.01)


@pytest.fixture
def unsettled(monkeypatch):
    """A study whose rate changes from draw to draw."""

    def measure(workload, seed, shares):
        return pd.DataFrame({"seed": seed, "share": shares, "capacity_blocks": [1000 + 500 * (seed % 2)]})

    monkeypatch.setenv("KVPREFIX_SCHEDULER", "here")
    monkeypatch.setattr(study, "measure_needs", measure)
    return measure


def test_draws_are_added_up_to_the_most(unsettled, bundled_workload, derived):
    assert study.study_needs(bundled_workload, (0.6,))["seed"].tolist() == list(range(SEEDS))
    assert [len(one) for one in list_rounds(bundled_workload)] == [FIRST_DRAWS, 2, 2, 2]


@pytest.mark.parametrize("killed_at", [2, FIRST_DRAWS, 7])
def test_a_kill_in_any_round_changes_nothing(unsettled, bundled_workload, derived, monkeypatch, killed_at):
    done = []

    def fail(workload, seed, shares):
        if len(done) == killed_at:
            raise RuntimeError("killed")
        done.append(seed)
        return unsettled(workload, seed, shares)

    whole = study.study_needs(bundled_workload, (0.6,))
    for file in derived.glob("study-needs-*.json"):
        file.unlink()
    monkeypatch.setattr(study, "measure_needs", fail)
    with pytest.raises(RuntimeError, match="killed"):
        study.study_needs(bundled_workload, (0.6,))
    monkeypatch.setattr(study, "measure_needs", lambda *task: done.append(task[1]) or unsettled(*task))
    pd.testing.assert_frame_equal(study.study_needs(bundled_workload, (0.6,)), whole)
    assert done == list(range(SEEDS))
