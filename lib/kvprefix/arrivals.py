"""Give requests their arrival times: when conversations start, and when each next turn follows.

One `numpy.random.Generator` is passed in; every kind of draw has its own. Nothing here knows tokens, only counts.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvprefix.files import InputError

CLOCKS = ("causal", "back_to_back", "at_once")
MAX_ARRIVAL_S = 1e12  # 30,000 years; beyond, microseconds are lost


@dataclass(frozen=True)
class Clock:
    """How the turns of a conversation follow each other.

    Attributes
    ----------
    kind : str
        `causal`: the next turn comes after the previous one's service time and a think time. `back_to_back`: after
        the service time alone. `at_once`: all turns arrive when the conversation starts. The last two exist for
        comparison: they make small caches look better than they are.
    think_median_s, think_sigma : float
        Think time, from the end of a reply to the next message: lognormal, its median in seconds and the sigma of its
        logarithm. The defaults are those published for chat traffic.
    ttft_s : float
        Time to first token, in seconds.
    time_per_output_token_s : float
        Seconds a generated token; the service time is ``ttft_s + output_tokens * time_per_output_token_s``.
    """

    kind: str = "causal"
    think_median_s: float = 110.0
    think_sigma: float = 1.5
    ttft_s: float = 0.5
    time_per_output_token_s: float = 0.03

    def __post_init__(self):
        if self.kind not in CLOCKS:
            raise InputError(f"clock {self.kind!r} is not known; known: {', '.join(CLOCKS)}")
        for name in ("think_median_s", "think_sigma", "ttft_s", "time_per_output_token_s"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise InputError(f"{name} is {value!r}; expected seconds (sigma: a number), zero or more")


def draw_poisson_starts(n, rate_per_s, rng):
    """Draw the first n arrivals of a Poisson process: exponential gaps of mean 1 / rate.

    Parameters
    ----------
    n : int
    rate_per_s : float
        Arrivals a second, above zero.
    rng : numpy.random.Generator

    Returns
    -------
    (n,) ndarray of float64
        Seconds, ascending.

    Raises
    ------
    InputError
        Where the rate is no positive, finite number.
    """
    if not (isinstance(rate_per_s, int | float) and 0 < rate_per_s < float("inf")):
        raise InputError(f"arrival rate is {rate_per_s!r}; expected a number of conversations a second above 0")
    return np.cumsum(rng.exponential(1.0 / rate_per_s, n))


def draw_think_times(n, clock, rng):
    """Draw n lognormal think times in seconds: ``median * exp(sigma * Z)``, Z standard normal."""
    return clock.think_median_s * np.exp(clock.think_sigma * rng.standard_normal(n))


def schedule_turns(requests, arrival_rate, clock, rng):
    """Give every request its arrival time.

    Parameters
    ----------
    requests : pandas.DataFrame
        `conversation_index`, `turn` and `output_tokens`, ordered by conversation and turn.
    arrival_rate : float
        Conversations that start, a second (Poisson).
    clock : Clock
    rng : numpy.random.Generator

    Returns
    -------
    (n,) ndarray of float64
        Seconds, rounded to microseconds, in the order of `requests`.
    """
    starts_rng, think_rng = rng.spawn(2)
    is_first = ~requests["conversation_index"].duplicated().to_numpy()
    delay = np.zeros(len(requests))
    if clock.kind != "at_once":
        service = clock.ttft_s + requests["output_tokens"].to_numpy() * clock.time_per_output_token_s
        delay[1:] = service[:-1]
    if clock.kind == "causal":
        delay += draw_think_times(len(requests), clock, think_rng)
    elif not is_first.all():
        warnings.warn(
            f"the clock {clock.kind!r} lets turns arrive sooner than people write them: for comparison only",
            stacklevel=2,
        )
    delay[is_first] = draw_poisson_starts(int(is_first.sum()), arrival_rate, starts_rng)
    arrival_s = pd.Series(delay).groupby(requests["conversation_index"].to_numpy()).cumsum().round(6).to_numpy()
    if not (arrival_s < MAX_ARRIVAL_S).all():
        raise InputError(
            f"arrivals reach {arrival_s.max():g} s, more than {MAX_ARRIVAL_S:g}: the rate ({arrival_rate:g}/s) is too "
            "low or the think and service times are too long"
        )
    return arrival_s
