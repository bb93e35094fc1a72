"""The rates of resampled conversations: each one once is the run itself, hand cases, what is called a difference."""

from dataclasses import replace

import numpy as np
import pytest
from said import said_of

from kvprefix.blocks.sharing import share
from kvprefix.report.facts import sharing as facts_sharing
from kvprefix.stats import resampling
from kvprefix.stats.metrics import describe_mode, measure_accountings
from kvprefix.stats.resampling import FRACTIONS, Resampled, read_rate, resample_mode
from kvprefix.studies.sharing import Result, analyse
from kvprefix.traces.trace import make_trace_of


@pytest.fixture(scope="module")
def results(bundled_workload):
    return analyse(bundled_workload)


def resample_with(monkeypatch, counts, trace, sharing):
    monkeypatch.setattr(resampling, "resample_groups", lambda n, draws, seed: [np.array(counts, float)] * draws)
    return resample_mode(trace, sharing, measure_accountings(trace, sharing), draws=1)


def test_each_conversation_once_is_the_run_itself(results, monkeypatch):
    for result in results.values():
        n = result.resampled.conversations
        once = resample_with(monkeypatch, np.ones(n), result.trace, result.sharing)
        assert list(once.rates) == list(result.resampled.rates) and len(once.rates.columns) == 10
        for name in once.rates:
            expected = read_rate(result.stats, name)
            if name == "sharing_fraction.median":  # numpy's lies between two values
                expected = np.percentile(result.sharing.sharing_fraction, 50, method="inverted_cdf")
            assert once.rates[name][0] == pytest.approx(expected, abs=1e-8), name
        expected = (result.sharing.sharing_fraction[:, None] <= FRACTIONS).mean(axis=0)
        np.testing.assert_allclose(once.cdf[0], expected)


def test_a_hand_case(monkeypatch):
    # blocks of 2: a = [1 2][3 4], b = [1 2][5 6], a again; each request is a conversation of its own
    trace = make_trace_of([[1, 2, 3, 4, 9], [1, 2, 5, 6, 9], [1, 2, 3, 4, 8]])
    sharing = share(trace, 2)
    assert sharing.hit_blocks.tolist() == [0, 1, 2]
    rates = resample_with(monkeypatch, [1, 0, 2], trace, sharing).rates.loc[0]
    # the first and twice the third: of 6 block accesses 4 are reuses; both blocks that were stored are used again
    assert rates["block_reuse_rate"] == pytest.approx(4 / 6) and rates["blocks_reused_fraction"] == 1
    assert rates["block_hit_count.mean"] == 3 and rates["token_hit_rate"] == pytest.approx(8 / 15)
    assert rates["sharing_fraction.mean"] == pytest.approx((0 + 0.8 + 0.8) / 3, abs=1e-8)
    assert rates["sharing_fraction.median"] == 0.8
    rates = resample_with(monkeypatch, [0, 3, 0], trace, sharing).rates.loc[0]
    # the second alone stored one block, which nobody used again, and reused one
    assert rates["block_reuse_rate"] == 0.5 and rates["blocks_reused_fraction"] == 0


def test_both_modes_draw_the_same_conversations(results):
    single, multi = (result.resampled for result in results.values())
    assert single.conversations == multi.conversations
    assert len(single.rates) == len(multi.rates) == 1000
    # a conversation that shares much does so in both modes: paired draws move together, others do not
    rates = [one.rates["token_hit_rate"].to_numpy() for one in (single, multi)]
    assert np.corrcoef(*rates)[0, 1] > 0.3 > abs(np.corrcoef(rates[0], np.roll(rates[1], 1))[0, 1])


def test_intervals_hold_the_rates_and_are_wider_for_fewer_conversations(results, bundled_workload):
    for result in results.values():
        for name, (low, high) in result.stats["intervals"].items():
            assert low <= read_rate(result.stats, name) <= high, name
    trace = results["multi_turn"].trace
    some = trace.requests["conversation_index"].to_numpy() < 20
    few = replace(trace, requests=trace.requests[some].reset_index(drop=True), rows=trace.rows[some])
    low, high = describe_mode(few, share(few, 16))["intervals"]["token_hit_rate"]
    all_low, all_high = results["multi_turn"].stats["intervals"]["token_hit_rate"]
    assert high - low > 1.5 * (all_high - all_low)


def test_no_blocks_have_no_intervals(results):
    trace = results["single_turn"].trace
    stats = describe_mode(trace, share(trace, 100_000))
    assert stats["intervals"]["block_reuse_rate"] is None and stats["intervals"]["token_hit_rate"] == [0, 0]


def test_differences_are_paired_and_judged(results):
    table = facts_sharing.tabulate_differences(results)
    assert len(table) == 14 and table["verdict"].isin(["higher", "lower", "equal", "not separated"]).all()
    apart = table["verdict"].isin(["higher", "lower"])
    assert ((table["low"] > 0) | (table["high"] < 0))[apart].all()
    multi = table[table["against"] == "single-turn"].set_index("rate")
    assert multi.loc["token hit rate", "verdict"] == "higher"
    said = said_of(facts_sharing.facts_differences, table)
    assert said.startswith(f"{apart.sum()} of 14 differences")


def test_what_the_interval_does_not_separate_is_not_called_a_difference(results):
    result = results["multi_turn"]
    rates = result.resampled.rates.assign(token_hit_rate=np.random.default_rng(0).permutation(np.linspace(-1, 2, 1000)))
    noisy = Result(*result[:3], Resampled(rates, result.resampled.cdf, result.resampled.conversations))
    table = facts_sharing.tabulate_differences({"single_turn": results["single_turn"], "multi_turn": noisy})
    row = table[(table["against"] == "single-turn") & (table["rate"] == "token hit rate")].iloc[0]
    assert row["difference"] > 0 and row["verdict"] == "not separated"
    said = said_of(facts_sharing.facts_differences, table)
    assert "Not separated from zero: token hit rate of multi-turn against single-turn" in said
    lone = Result(*result[:3], Resampled(result.resampled.rates, result.resampled.cdf, 1))
    table = facts_sharing.tabulate_differences({"single_turn": results["single_turn"], "multi_turn": lone})
    assert not table["verdict"][:6].isin(["higher", "lower"]).any()  # one conversation tells of no other
