import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvprefix.stats import runs
from kvprefix.stats.metrics import summarize
from kvprefix.stats.runs import add_runs, cumulate_runs, find_percentiles


@st.composite
def repeated(draw):
    """Draw values, and how often each stands in a row: up to some thousands in all."""
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.lognormal(sigma=3, size=n).round(draw(st.integers(0, 6)))
    return values, rng.integers(1, 1 + draw(st.integers(1, 400)), n)


@given(repeated(), st.sampled_from([128, 1000, 2**16]))
def test_sums_equal_numpy_s_bit_for_bit(monkeypatch_piece, some, piece):
    values, lengths = some
    monkeypatch_piece(piece)
    written_out = np.repeat(values, lengths)
    assert add_runs(values, lengths) == written_out.sum()
    assert cumulate_runs(values, lengths)[-1] == np.cumsum(written_out)[-1]
    assert cumulate_runs(values, lengths).tolist() == np.cumsum(written_out)[np.cumsum(lengths) - 1].tolist()


@pytest.fixture(scope="module")
def monkeypatch_piece():
    before = runs.PIECE
    yield lambda piece: setattr(runs, "PIECE", piece)
    runs.PIECE = before


@given(repeated())
def test_percentiles_equal_numpy_s_bit_for_bit(some):
    values, lengths = np.sort(some[0]), some[1]
    percents = [0, 5, 25, 37.3, 50, 75, 95, 99, 100]
    expected = np.percentile(np.repeat(values, lengths), percents)
    assert find_percentiles(values, lengths, percents).tolist() == expected.tolist()


@given(repeated(), st.booleans())
def test_a_summary_of_runs_is_that_of_their_numbers(some, weighted):
    values, lengths = some
    weights = 1 / np.arange(1, len(values) + 1) if weighted else None
    found = summarize(values, weights, lengths)
    written_out = np.repeat(values, lengths)
    assert found == summarize(written_out, None if weights is None else np.repeat(weights, lengths))
    if weights is None:
        assert (found["mean"], found["std"]) == (written_out.mean(), written_out.std())
        assert found["p95"] == np.percentile(written_out, 95)
    else:
        assert found["mean"] == np.average(written_out, weights=np.repeat(weights, lengths))


def test_millions_of_numbers_are_summed_as_numpy_sums_them():
    rng = np.random.default_rng(0)
    values, lengths = rng.lognormal(sigma=2, size=100_003), rng.integers(1, 60, 100_003)
    assert add_runs(values, lengths) == np.repeat(values, lengths).sum()
    assert add_runs(values, np.ones(len(values), int)) == values.sum()
