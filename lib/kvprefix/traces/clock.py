"""When the next turn of a conversation follows: a class per clock, and the arrival time of every request.

Starts and think times are drawn from separate generators. This module knows no tokens, only their counts.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from kvprefix.files.paths import InputError
from kvprefix.traces.entries import Entries, Entry, of_table
from kvprefix.traces.think import THINKS
from kvprefix.traces.timing_files import MAX_ARRIVAL_S

CLOCKS = Entries("clock")


@dataclass(frozen=True, kw_only=True)
class Clock(Entry):
    """How the turns of a conversation follow each other.

    Attributes
    ----------
    ttft_s : float
        Time to first token, in seconds.
    time_per_output_token_s : float
        Seconds per generated token; the service time is ``ttft_s + output_tokens * time_per_output_token_s``.
    naive : bool
        Whether turns arrive sooner than people write them. Such a clock is for comparison only: it makes small caches
        look better than they are.
    """

    ttft_s: float = of_table("ttft_s")
    time_per_output_token_s: float = of_table("time_per_output_token_s")
    naive = True

    def delay(self, requests, rng):
        """Return the seconds from the previous turn to each request, (n,) float64; those of first turns are not used.

        `requests` is a DataFrame with `output_tokens`, ordered by conversation and turn; it may have `after_tool`,
        whether a request brings a tool's result.
        """
        raise NotImplementedError

    def describe(self):
        """Return plain text, the end of a sentence: how the next turn follows."""
        return f"the turns follow the naive clock {self.text}, which lets them arrive sooner than people write them"

    def state(self, varied=()):
        """Return a few words for captions, without the parameters named in `varied`."""
        return f"{self.text} clock"


def _wait_for_replies(clock, requests):
    """Return the service time of the request before each request, in seconds, (n,) float64; 0 for the first one."""
    delay = np.zeros(len(requests))
    delay[1:] = find_service(requests, clock.ttft_s, clock.time_per_output_token_s)[:-1]
    return delay


def find_service(requests, ttft_s, time_per_output_token_s):
    """Return how long each request is served, in seconds, (n,) float64: as the log says, else by its output tokens.

    Parameters
    ----------
    requests : mapping of str to array_like
        `output_tokens`, and perhaps `service_s`, NaN where the log does not say.
    ttft_s, time_per_output_token_s : float
    """
    service = ttft_s + np.asarray(requests["output_tokens"]) * time_per_output_token_s
    if "service_s" not in requests:
        return service
    logged = np.asarray(requests["service_s"], float)
    return np.where(np.isnan(logged), service, logged)


@CLOCKS.entry("causal", "after the reply's service time and a think time")
@dataclass(frozen=True, kw_only=True)
class Causal(Clock):
    """The next turn comes after the service time of the previous turn and a think time.

    Attributes
    ----------
    think : str
        The distribution of think times: one of THINKS.
    think_median_s, think_sigma : float
        Median think time in seconds, from the end of a reply to the next message, and sigma of its logarithm if it is
        lognormal. The defaults are published values for chat traffic.
    """

    think_median_s: float = of_table("think_median_s")
    think_sigma: float = of_table("think_sigma")
    think: str = of_table("think")
    naive = False

    def __post_init__(self):
        super().__post_init__()
        self.think_time()

    def think_time(self):
        """Return the distribution of think times."""
        return THINKS.parse(self.think, vars(self))

    def delay(self, requests, rng):
        think = self.think_time().draw(len(requests), rng, requests.get("after_tool"))
        return _wait_for_replies(self, requests) + think

    def describe(self):
        return (
            f"the next turn follows after the service time ({self.ttft_s:g} s to the first token and "
            f"{self.time_per_output_token_s:g} s per generated token) and {self.think_time().describe()}"
        )

    def state(self, varied=()):
        usual = self.think == Causal.think or "think" in varied
        return f"{self.text} clock" + ("" if usual else f" ({self.think} think time)")


@CLOCKS.entry("back_to_back", "without a think time: for comparison, it warns")
@dataclass(frozen=True, kw_only=True)
class BackToBack(Clock):
    """The next turn comes right after the service time of the previous turn."""

    def delay(self, requests, rng):
        return _wait_for_replies(self, requests)


@CLOCKS.entry("at_once", "all turns at the start: for comparison, it warns")
@dataclass(frozen=True, kw_only=True)
class AtOnce(Clock):
    """All turns arrive when the conversation starts; service times serve only to count those that come too early."""

    def delay(self, requests, rng):
        return np.zeros(len(requests))


def count_early_turns(requests, ttft_s=0.0, time_per_output_token_s=0.0):
    """Count the turns that arrive before the reply to the previous turn can be complete.

    Parameters
    ----------
    requests : pandas.DataFrame or dict of str to ndarray
        `conversation_index`, `turn`, `arrival_s` and `output_tokens`, in any order; perhaps `service_s`.
    ttft_s, time_per_output_token_s : float
        Seconds. The service time of the previous turn is the log's, or ``ttft_s + output_tokens *
        time_per_output_token_s``.

    Returns
    -------
    int
        Such turns can hit blocks that are not computed yet. Times within two microseconds count as equal.
    """
    columns = [np.asarray(requests[name]) for name in ("turn", "conversation_index", "arrival_s")]
    order = np.lexsort(columns[:2])
    index, arrival = (column[order] for column in columns[1:])
    done = arrival + find_service(requests, ttft_s, time_per_output_token_s)[order]
    return int(((index[1:] == index[:-1]) & (arrival[1:] < done[:-1] - 2e-6)).sum())


def schedule_turns(requests, arrivals, clock, rng):
    """Compute the arrival time of every request.

    Parameters
    ----------
    requests : pandas.DataFrame
        `conversation_index`, `turn` and `output_tokens`, ordered by conversation and turn.
    arrivals : Arrivals
    clock : Clock
    rng : numpy.random.Generator

    Returns
    -------
    (n,) ndarray of float64
        Seconds, rounded to microseconds, in the order of `requests`.
    """
    if arrivals.of_requests:
        return _check_last(arrivals.draw_all(requests).round(6), arrivals)
    import pandas as pd  # takes a fifth of a second

    starts_rng, think_rng = rng.spawn(2)
    is_first = ~requests["conversation_index"].duplicated().to_numpy()
    delay = clock.delay(requests, think_rng)
    delay[is_first] = arrivals.draw(int(is_first.sum()), starts_rng)
    arrival_s = pd.Series(delay).groupby(requests["conversation_index"].to_numpy()).cumsum().round(6).to_numpy()
    _check_last(arrival_s, arrivals)
    if clock.naive and not is_first.all():
        times = clock.ttft_s, clock.time_per_output_token_s
        early = count_early_turns(requests.assign(arrival_s=arrival_s), *times)
        warnings.warn(
            f"the clock {clock.name!r} lets turns arrive sooner than people write them: for comparison only "
            f"({early:,} of {int((~is_first).sum()):,} later turns come before the reply that they follow is complete)",
            stacklevel=2,
        )
    return arrival_s


def _check_last(arrival_s, arrivals):
    """Return arrivals; raise InputError if they reach too far."""
    if not (arrival_s < MAX_ARRIVAL_S).all():
        raise InputError(
            f"arrivals reach {arrival_s.max():g} s, more than {MAX_ARRIVAL_S:g}: the rate is too low or the think and "
            f"service times are too long ({arrivals})"
        )
    return arrival_s
