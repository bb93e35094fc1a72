"""Arrival processes and think times against their definitions: rates, variation, quantiles, Kolmogorov-Smirnov."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kvprefix.files.paths import InputError
from kvprefix.traces.arrivals import (
    ARRIVALS,
    DAY_PROFILE,
    DAY_S,
    Clients,
    Day,
    Gamma,
    Poisson,
    Stamps,
    Weibull,
    solve_weibull_shape,
)  # fmt: skip
from kvprefix.traces.clock import Causal, count_early_turns, schedule_turns
from kvprefix.traces.parameters import Parameters, parse_parameters
from kvprefix.traces.timing_files import read_profile, read_stamps
from kvprefix.traces.workload import make_trace

N = 40_000


def rng(seed=1):
    return np.random.default_rng(seed)


def is_of(values, law):
    """Whether a Kolmogorov-Smirnov test at a fixed seed sees no difference to a law."""
    return stats.kstest(values, law.cdf).pvalue > 0.01


@pytest.mark.parametrize("cv", [0.3, 1.0, 1.8, 4.0])
def test_gamma_gaps_have_their_rate_variation_and_law(cv):
    gaps = np.diff(Gamma(2.0, cv).draw(N, rng()), prepend=0)
    assert gaps.mean() == pytest.approx(0.5, abs=4 * 0.5 * cv / math.sqrt(N))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
    if cv < 2:  # above, many gaps are too short to be told from zero beside a time of thousands of seconds
        assert is_of(gaps, stats.gamma(1 / cv**2, scale=0.5 * cv**2))


@pytest.mark.parametrize("cv", [0.3, 1.0, 4.0])
def test_weibull_gaps_have_their_rate_variation_and_law(cv):
    gaps = np.diff(Weibull(2.0, cv).draw(N, rng()), prepend=0)
    shape = solve_weibull_shape(cv)
    law = stats.weibull_min(shape, scale=0.5 / math.gamma(1 + 1 / shape))
    assert law.mean() == pytest.approx(0.5) and law.std() / law.mean() == pytest.approx(cv)
    assert gaps.mean() == pytest.approx(0.5, abs=5 * 0.5 * cv / math.sqrt(N))
    assert is_of(gaps, law)


def test_the_laws_differ_so_the_test_can_fail():
    gaps = np.diff(Gamma(2.0, 4.0).draw(N, rng()), prepend=0)
    assert not is_of(gaps, stats.expon(scale=0.5))
    assert not is_of(gaps, stats.weibull_min(solve_weibull_shape(4.0), scale=0.1))


def test_a_variation_of_one_is_poisson():
    assert solve_weibull_shape(1.0) == pytest.approx(1)
    for arrivals in (Gamma(3.0, 1.0), Weibull(3.0, 1.0), Poisson(3.0)):
        assert is_of(np.diff(arrivals.draw(N, rng()), prepend=0), stats.expon(scale=1 / 3))


def test_a_day_s_profile_gives_its_rates_and_is_poisson_in_its_own_time():
    rate = N / (4 * DAY_S)  # about four days
    starts = Day(rate).draw(N, rng())
    whole = starts[starts < 3 * DAY_S]
    assert len(whole) == pytest.approx(3 * DAY_S * rate, abs=4 * math.sqrt(3 * DAY_S * rate))
    counts = np.bincount((whole % DAY_S // 3600).astype(int), minlength=24)
    expected = 3 * 3600 * rate * np.array(DAY_PROFILE) * 24 / sum(DAY_PROFILE)
    assert (abs(counts - expected) < 4.5 * np.sqrt(expected)).all()
    # Time rescaling: the integrated rate between arrivals is exponential with mean 1.
    hourly = 3600 * rate * np.array(DAY_PROFILE) * 24 / sum(DAY_PROFILE)
    edges = np.concatenate(([0], np.cumsum(np.tile(hourly, 6))))
    own_time = np.interp(starts, np.arange(len(edges)) * 3600.0, edges)
    assert is_of(np.diff(own_time), stats.expon())


def test_few_clients_carry_most_of_the_rate():
    starts = Clients(5.0, 100, 1.0, 1.2).draw(N, rng())
    assert len(starts) == N and (np.diff(starts) >= 0).all()
    assert N / starts[-1] == pytest.approx(5.0, rel=0.03)
    assert is_of(np.diff(starts, prepend=0), stats.expon(scale=1 / 5))  # Poisson clients add up to a Poisson process
    bursty = Clients(5.0, 100, 6.0, 1.2).draw(N, rng())
    gaps = np.diff(bursty)
    assert gaps.std() / gaps.mean() > 1.3  # bursts of the large clients survive the sum
    # The largest client alone: its share of the rate by Zipf's law.
    share = 1 / (np.arange(1, 101) ** -1.2).sum()
    alone = Clients(5.0, 1, 1.0, 1.2).draw(2000, rng())
    assert 2000 / alone[-1] == pytest.approx(5.0, rel=0.1) and share > 0.25


@pytest.mark.parametrize(
    "think, law",
    [
        ("lognormal", stats.lognorm(1.2, scale=80)),
        ("exponential", stats.expon(scale=80 / math.log(2))),
    ],
)
def test_think_times_have_the_median_asked_for_and_their_law(think, law):
    times = Causal(think=think, think_median_s=80.0, think_sigma=1.2).think_time().draw(N, rng())
    assert law.median() == pytest.approx(80) and np.median(times) == pytest.approx(80, rel=0.03)
    assert is_of(times, law)


def test_think_times_constant_and_from_data(tmp_path):
    assert set(Causal(think="constant", think_median_s=7).think_time().draw(10, rng())) == {7.0}
    file = tmp_path / "a:b.txt"
    file.write_text("1\n\n2.5\n40\n")
    times = Causal(think=f"data:{file}").think_time().draw(N, rng())
    assert set(times) == {1, 2.5, 40}
    assert times.mean() == pytest.approx(43.5 / 3, rel=0.03)


@pytest.mark.parametrize("think", ["lognormal", "exponential", "constant", "data"])
def test_no_turn_precedes_its_predecessor_s_reply_under_the_causal_clock(think, tmp_path):
    (tmp_path / "think").write_text("0\n3\n")
    clock = Causal(think=f"data:{tmp_path / 'think'}" if think == "data" else think)
    requests = pd.DataFrame({
        "conversation_index": np.repeat(np.arange(500), 6), "turn": np.tile(np.arange(6), 500),
        "output_tokens": rng().integers(0, 900, 3000),
    })  # fmt: skip
    for spec in ("poisson", "gamma:5", "weibull:3", "day", "clients:7:3"):
        arrivals = ARRIVALS.parse(spec, {"arrival_rate": 2.0})
        arrival_s = schedule_turns(requests, arrivals, clock, rng())
        arrived = requests.assign(arrival_s=arrival_s)
        assert count_early_turns(arrived, clock.ttft_s, clock.time_per_output_token_s) == 0
        again = schedule_turns(requests, arrivals, clock, rng())
        assert again.tobytes() == arrival_s.tobytes()
        assert schedule_turns(requests, arrivals, clock, rng(2)).tobytes() != arrival_s.tobytes()


def test_early_turns_are_counted():
    # Service: 1 s and 0.1 s a token. The reply to the first turn, 10 tokens, is complete at 2 s.
    requests = pd.DataFrame({"conversation_index": [0, 1, 0, 0], "turn": [0, 0, 1, 2], "output_tokens": [10, 5, 0, 1],
                             "arrival_s": [0.0, 0.5, 1.9, 2.9]})  # fmt: skip
    assert count_early_turns(requests, 1.0, 0.1) == 1
    assert count_early_turns(requests, 1.0, 0.2) == 1
    assert count_early_turns(requests, 1.1, 0.1) == 2
    assert count_early_turns(requests) == 0


def test_a_trace_that_breaks_causality_says_so_where_it_is_used(bundled_workload, tmp_path):
    from kvprefix.blocks.sharing import share
    from kvprefix.stats.metrics import describe_mode
    from kvprefix.studies.sweep import load_accesses
    from kvprefix.traces.parquet import write_trace

    workload = replace(bundled_workload, parameters=replace(bundled_workload.parameters, clock="at_once"))
    with pytest.warns(UserWarning, match=r"[\d,]+ of [\d,]+ later turns come before the reply"):
        trace = make_trace(workload, "multi_turn")
    later = int((trace.requests["turn"] > 0).sum())
    assert describe_mode(trace, share(trace, 16))["early_turns"] == later
    write_trace(trace, tmp_path / "t.parquet")
    assert load_accesses(tmp_path / "t.parquet").info["notes"] == [
        f"{later:,} turns arrive before the reply that they follow is complete: for comparison only"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = make_trace(bundled_workload, "multi_turn")
    assert describe_mode(trace, share(trace, 16))["early_turns"] == 0


def test_stamps_are_read_in_every_form(tmp_path):
    plain, mooncake, bailian = tmp_path / "s.txt", tmp_path / "m.jsonl", tmp_path / "b.jsonl"
    plain.write_text("12.5\n10\n\n11\n")
    mooncake.write_text('{"timestamp": 2000, "input_length": 3}\n{"timestamp": 0}\n{"timestamp": 1000}\n')
    bailian.write_text(
        '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 5.0}\n{"chat_id": 2, "parent_chat_id": 1, "timestamp": 6}\n'
        '{"chat_id": 3, "parent_chat_id": -1, "timestamp": 9.5}\n'
    )
    assert read_stamps(plain, 3).tolist() == [0, 1, 2.5]
    assert read_stamps(plain, 2).tolist() == [0, 1]
    assert read_stamps(mooncake, 3).tolist() == [0, 1, 2]
    assert read_stamps(bailian, 2).tolist() == [0, 4.5]
    assert Stamps(str(plain)).draw(3).tolist() == [0, 1, 2.5]


@pytest.mark.parametrize(
    "text, said",
    [
        ("1\nsoon\n", "line 2 is 'soon'; expected a number of seconds"),
        ('{"time": 3}\n', "line 1 is"),
        ("1\nnan\n", "line 2 is 'nan'"),
        ("\n", "holds no numbers"),
        ("1\n2\n", "holds 2 stamps for 3 conversations"),
    ],
)
def test_a_file_that_holds_no_stamps_is_refused(tmp_path, text, said):
    (tmp_path / "s").write_text(text)
    with pytest.raises(InputError, match=said):
        read_stamps(tmp_path / "s", 3)


def test_other_files_are_refused_too(tmp_path):
    with pytest.raises(InputError, match="missing: No such file"):
        read_stamps(tmp_path / "missing", 1)
    (tmp_path / "p").write_text("1\n2\n")
    with pytest.raises(InputError, match="holds 2 rates; expected 24"):
        read_profile(tmp_path / "p")
    (tmp_path / "t").write_text("-1\n")
    with pytest.raises(InputError, match="holds -1 s"):
        Causal(think=f"data:{tmp_path / 't'}").think_time().draw(1, rng())


@pytest.mark.parametrize(
    "spec, said",
    [
        ("uniform", "known: poisson, auto, data, gamma:CV"),
        ("gamma", "are not known"),
        ("gamma:0", "coefficient of variation is 0.0; expected a number, from 0.001 to 1000"),
        ("weibull:-1", "coefficient of variation is -1.0"),
        ("gamma:inf", "coefficient of variation is inf"),
        ("gamma:x", "coefficient of variation is 'x'"),
        ("clients:0", "number of clients is 0"),
        ("clients:3:2:-1", "skew is -1.0"),
        ("stamps:", "are not known"),
        ("poisson:3", "are not known"),
    ],
)
def test_arrivals_without_sense_are_refused(spec, said):
    with pytest.raises(InputError, match=said):
        Parameters(arrivals=spec)


@pytest.mark.parametrize(
    "values, said",
    [
        ({"think": "sometimes"}, "known: lognormal, exponential, constant, data:FILE"),
        ({"think": "data:"}, "is not known"),
        ({"think_median_s": 90_000}, "think_median_s is 90000; expected a number of seconds, from 0 to 86400"),
    ],
)
def test_think_times_without_sense_are_refused(values, said):
    with pytest.raises(InputError, match=said):
        Parameters(**values)


def test_think_times_longer_than_a_day_are_refused_where_they_are_many():
    with pytest.raises(InputError, match="of the think times are longer than a day"):
        Causal(think_median_s=50_000.0).think_time().draw(1000, rng())


def test_specifications_are_read():
    given = {"arrival_rate": 3.0}
    assert ARRIVALS.parse("weibull:2.5", given) == Weibull(3.0, cv=2.5)
    assert ARRIVALS.parse("clients:30:4:1.5", given) == Clients(3.0, clients=30, cv=4.0, skew=1.5)
    assert ARRIVALS.parse("day:a:b", given) == Day(3.0, file="a:b")
    for text in ("poisson", "gamma:4", "day", "day:a:b", "clients:30:2", "clients:30:1:0.5", "stamps:x"):
        assert ARRIVALS.parse(text, given).text == text
    assert ARRIVALS.parse("clients:30:1.0:1", given).text == "clients:30"
    parameters = parse_parameters({"arrivals": "stamps:x", "think": "data:y"})
    assert parameters.timing_files() == ["x", "y"] and Parameters().timing_files() == []


def test_impossible_weibull_variation_is_refused():
    with pytest.raises(InputError, match="expected 0.001 to 1000"):
        solve_weibull_shape(1e9)
