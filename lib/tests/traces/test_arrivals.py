import warnings
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from kvprefix.files.paths import InputError
from kvprefix.traces.arrivals import Poisson
from kvprefix.traces.clock import CLOCKS, AtOnce, BackToBack, Causal, schedule_turns
from kvprefix.traces.parameters import Parameters


def requests_of(n_conversations, n_turns, seed=3):
    """Return requests with random output lengths, by conversation and turn."""
    n = n_conversations * n_turns
    output_tokens = np.random.default_rng(seed).integers(0, 500, n)
    return pd.DataFrame({
        "conversation_index": np.repeat(np.arange(n_conversations), n_turns),
        "turn": np.tile(np.arange(n_turns), n_conversations),
        "output_tokens": output_tokens,
    })  # fmt: skip


def schedule(requests, rate=2.0, clock=None, seed=0):
    """Return arrival times as a conversations x turns array."""
    times = schedule_turns(requests, Poisson(rate), clock or Causal(), np.random.default_rng(seed))
    return times.reshape(requests["conversation_index"].nunique(), -1)


def services(requests, clock):
    """Return ttft + tokens * time per token, as a conversations x turns array."""
    seconds = clock.ttft_s + requests["output_tokens"].to_numpy() * clock.time_per_output_token_s
    return seconds.reshape(requests["conversation_index"].nunique(), -1)


def test_poisson_gaps_are_exponential():
    starts = Poisson(4.0).draw(40_000, np.random.default_rng(1))
    gaps = np.diff(starts, prepend=0)
    assert (gaps > 0).all()
    # mean 1 / 4 with a standard error of 0.25 / 200; an exponential exceeds its mean with probability 1 / e
    assert abs(gaps.mean() - 0.25) < 4 * 0.25 / 200
    assert abs((gaps > 0.25).mean() - np.exp(-1)) < 4 * 0.5 / 200


def test_think_times_have_the_median_and_sigma_asked_for():
    times = Causal(think_median_s=80.0, think_sigma=1.2).think_time().draw(40_000, np.random.default_rng(1))
    # standard error of the logarithm's mean: 1.2 / 200; of its deviation: 1.2 / 283
    assert abs(np.log(times / 80.0).mean()) < 4 * 1.2 / 200
    assert abs(np.log(times).std() - 1.2) < 4 * 1.2 / 283


def test_no_turn_comes_before_its_predecessors_reply_ends():
    requests, clock = requests_of(2000, 5), Causal()
    think = np.diff(schedule(requests, clock=clock)) - services(requests, clock)[:, :-1]
    assert (think > 0).all()
    # 8000 think times: lognormal with median 110 s and sigma 1.5
    assert abs(np.log(think / 110).mean()) < 4 * 1.5 / np.sqrt(8000)
    assert abs(np.log(think).std() - 1.5) < 4 * 1.5 / np.sqrt(2 * 8000)


def test_naive_clocks_warn_and_leave_out_their_part():
    requests = requests_of(50, 4)
    causal = schedule(requests)
    with pytest.warns(UserWarning, match="'back_to_back' lets turns arrive sooner"):
        clock = BackToBack()
        times = schedule(requests, clock=clock)
    assert np.diff(times) == pytest.approx(services(requests, clock)[:, :-1], abs=2e-6)
    assert times[:, 0].tolist() == causal[:, 0].tolist()
    with pytest.warns(UserWarning, match="'at_once' lets turns arrive sooner"):
        times = schedule(requests, clock=AtOnce())
    assert times.tolist() == np.repeat(causal[:, :1], 4, axis=1).tolist()


@pytest.mark.parametrize("kind", ["causal", "back_to_back", "at_once"])
def test_single_turns_need_no_warning_and_start_at_the_same_times(kind):
    requests, clock = requests_of(100, 3), CLOCKS[kind]()
    with warnings.catch_warnings() if kind == "causal" else pytest.warns(UserWarning):
        starts = schedule(requests, clock=clock)[:, 0]
    assert (np.diff(starts) >= 0).all()
    first_turns = requests[requests["turn"] == 0]
    assert schedule(first_turns, clock=clock)[:, 0].tolist() == starts.tolist()


def test_seed_decides_and_draws_do_not_mix():
    requests = requests_of(100, 3)
    times = schedule(requests, seed=5)
    assert schedule(requests, seed=5).tolist() == times.tolist()
    assert not np.isclose(schedule(requests, seed=6), times).any()
    # half the rate: starts at twice the times; the delays after them stay
    slower = schedule(requests, rate=1.0, seed=5)
    assert slower[:, 0] == pytest.approx(2 * times[:, 0], abs=2e-6)
    assert np.diff(slower) == pytest.approx(np.diff(times), abs=2e-6)
    # starts and think times are drawn apart: their logarithms do not go together (standard error 0.1)
    think = np.diff(times) - services(requests, Causal())[:, :-1]
    gaps = np.diff(times[:, 0], prepend=0)
    assert abs(np.corrcoef(np.log(gaps), np.log(think[:, 0]))[0, 1]) < 0.4


def test_times_are_rounded_to_microseconds():
    times = schedule(requests_of(20, 3)).ravel()
    assert times.tolist() == [round(time, 6) for time in times.tolist()]


@pytest.mark.parametrize(
    "values, said",
    [
        ({"clock": "warp"}, "clock 'warp' is not known; known: causal, back_to_back, at_once"),
        ({"think_median_s": -1}, "think_median_s is -1"),
        ({"think_sigma": "wide"}, "think_sigma is 'wide'"),
        ({"ttft_s": float("nan")}, "ttft_s is nan"),
        ({"time_per_output_token_s": float("inf")}, "time_per_output_token_s is inf"),
    ],
)
def test_clock_without_sense_is_refused(values, said):
    with pytest.raises(InputError, match=said):
        Parameters(**values)
    if "clock" not in values:
        with pytest.raises(InputError, match=said):
            Causal(**values)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), "2", None])
def test_rate_without_sense_is_refused(rate):
    with pytest.raises(InputError, match="arrival_rate is .*; expected a number of conversations per second, from"):
        Poisson(rate)


def quantile_error(n, share, sigma):
    """Return the standard error of the logarithm of a lognormal quantile."""
    z = NormalDist().inv_cdf(share)
    return sigma * np.sqrt(share * (1 - share) / n) / NormalDist().pdf(z)


@pytest.mark.parametrize(
    ("text", "after_tool", "median", "high"),
    [
        ("agent", True, 9, 71), ("agent", False, 210, 2977), ("agent:2:30:100:900", True, 2, 30),
        ("agent:2:30:100:900", False, 100, 900), ("agent:2:30", False, 210, 2977),
    ],
)  # fmt: skip
def test_agents_think_in_two_modes_with_the_quantiles_asked_for(text, after_tool, median, high):
    n = 40_000
    requests = pd.DataFrame({
        "conversation_index": np.repeat(np.arange(n), 2), "turn": np.tile([0, 1], n), "output_tokens": 10,
        "after_tool": np.tile([False, after_tool], n),
    })  # fmt: skip
    times = schedule_turns(requests, Poisson(2.0), Causal(think=text), np.random.default_rng(3)).reshape(n, 2)
    think = np.diff(times)[:, 0] - (0.5 + 0.3)
    sigma = np.log(high / median) / NormalDist().inv_cdf(0.9)
    for share, expected in ((0.5, median), (0.9, high)):
        assert abs(np.log(np.quantile(think, share) / expected)) < 4 * quantile_error(n, share, sigma)


def test_requests_without_the_column_all_follow_a_person():
    think = Causal(think="agent").think_time()
    draws = [think.draw(5, np.random.default_rng(0), after_tool).tolist() for after_tool in (None, [0] * 5, [1] * 5)]
    assert draws[0] == draws[1] and all(a > b for a, b in zip(draws[0], draws[2], strict=True))
    with pytest.raises(InputError, match="its 90 % quantile is 5 s; expected 9 or more"):
        Causal(think="agent:9:5")
