"""How conversations start: one class per arrival process, which draws the first n starts.

A process takes one `numpy.random.Generator` and knows no tokens. To add one, write its class here and nothing else.
"""

import math
from dataclasses import dataclass

import numpy as np

from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.traces.entries import Entries, Entry, of_table, option
from kvprefix.traces.timing_files import read_profile, read_stamps

ARRIVALS = Entries("arrivals", "are")
DAY_S = 86_400.0
MOST_DRAWS = 1e7  # of all clients: each draws about CV ** 2 gaps close to 0 before a longer one
DAY_PROFILE = (
    0.45, 0.35, 0.28, 0.25, 0.27, 0.35, 0.55, 0.85, 1.2, 1.45, 1.55, 1.5, 1.35, 1.4, 1.55, 1.6, 1.55, 1.45, 1.3, 1.25,
    1.2, 1.05, 0.8, 0.6,
)  # fmt: skip
"""Rate of each hour from midnight on, relative to the day's mean: quiet nights, a busy working day. Made up."""


class Arrivals(Entry):
    """An arrival process of conversations.

    ``draw(n, rng)`` returns the starts of the first n conversations: (n,) float64, seconds, ascending. `describe`
    returns plain text to follow "conversations start".

    Attributes
    ----------
    rate : float
        Conversations that start per second; a process that reads its times from a file has none.
    observed : bool
        Whether the starts come from a log.
    of_requests : bool
        Whether every request has its own time, not only the first of a conversation; `draw_all` then gives them.
    """

    observed = of_requests = False

    @property
    def in_short(self):
        """The text of a caption beside the rate; empty for the usual process."""
        return self.text

    def __str__(self):
        return f"conversations start {self.describe()}"


def _variation(**more):
    return option("number", "coefficient of variation", least=0.001, most=1000.0, **more)


@ARRIVALS.entry("poisson", "a Poisson process")
@dataclass(frozen=True)
class Poisson(Arrivals):
    """A Poisson process: independent exponential gaps of mean 1 / rate.

    >>> str(Poisson(2.0))
    'conversations start by a Poisson process of 2 per second'
    """

    rate: float = of_table("arrival_rate", required=True)
    in_short = ""

    def draw(self, n, rng):
        return np.cumsum(rng.exponential(1.0 / self.rate, n))

    def describe(self):
        return f"by a Poisson process of {self.rate:g} per second"


@ARRIVALS.entry("auto", "the log's own times if every request has one, else a Poisson process")
@dataclass(frozen=True)
class Auto(Poisson):
    """Until the data are read: what is read decides between `Logged` and `Poisson`, and takes this entry's place."""


@ARRIVALS.entry("data", "every request at the time that the log gives it")
@dataclass(frozen=True)
class Logged(Arrivals):
    """Every request at the log's own time, counted from the first; with a `speed` of 2 in half the time."""

    speed: float = of_table("speed")
    observed = of_requests = True
    in_short = "the log's own times"

    def draw_all(self, requests):
        """Return the arrival of every request in seconds, (n,) float64.

        Parameters
        ----------
        requests : pandas.DataFrame
            `start_s`, seconds since 1970.

        Raises
        ------
        InputError
            Not every request has a time.
        """
        times = requests["start_s"].to_numpy(float) if "start_s" in requests else np.full(len(requests), np.nan)
        if missing := int(np.isnan(times).sum()):
            raise InputError(
                f"arrivals `data`: the log has no time for {missing:,} of {count(len(times), 'request')}; expected one "
                "for each, or another arrival process, such as `poisson`"
            )
        return (times - times.min(initial=np.inf)) / self.speed

    def describe(self):
        return "at the log's own times" + ("" if self.speed == 1 else f", played {self.speed:g} times as fast")


@ARRIVALS.entry("gamma:CV", "bursts: gamma gaps of that coefficient of variation")
@dataclass(frozen=True)
class Gamma(Arrivals):
    """Independent gamma gaps of mean 1 / rate and coefficient of variation `cv`: shape ``1 / cv ** 2``.

    A CV of 1 is a Poisson process, a higher one is burstier. BurstGPT (Wang et al., 2024) uses it for LLM traffic.
    """

    rate: float = of_table("arrival_rate", required=True)
    cv: float = _variation()

    def draw(self, n, rng):
        return np.cumsum(_draw_gamma_gaps(n, self.rate, self.cv, rng))

    def describe(self):
        return f"{self.rate:g} per second, with gamma gaps of coefficient of variation {self.cv:g}"


def _draw_gamma_gaps(n, rate_per_s, cv, rng):
    return rng.gamma(1 / cv**2, cv**2 / rate_per_s, n)


@ARRIVALS.entry("weibull:CV", "bursts: Weibull gaps of that coefficient of variation")
@dataclass(frozen=True)
class Weibull(Arrivals):
    """Independent Weibull gaps of mean 1 / rate and coefficient of variation `cv`.

    Their shape k solves ``gamma(1 + 2 / k) / gamma(1 + 1 / k) ** 2 = 1 + cv ** 2``. ServeGen (Xiang et al., 2025) uses
    it for LLM traffic.
    """

    rate: float = of_table("arrival_rate", required=True)
    cv: float = _variation()

    def draw(self, n, rng):
        shape = solve_weibull_shape(self.cv)
        return np.cumsum(rng.weibull(shape, n) / (self.rate * math.gamma(1 + 1 / shape)))

    def describe(self):
        return f"{self.rate:g} per second, with Weibull gaps of coefficient of variation {self.cv:g}"


def solve_weibull_shape(cv):
    """Return the shape of a Weibull distribution with this coefficient of variation, by bisection.

    >>> round(solve_weibull_shape(1.0), 9)
    1.0
    """
    low, high = 0.05, 1e4
    target = math.log1p(cv**2)

    def excess(shape):
        return math.lgamma(1 + 2 / shape) - 2 * math.lgamma(1 + 1 / shape) - target

    if excess(low) < 0 or excess(high) > 0:
        raise InputError(f"the coefficient of variation is {cv:g}; expected 0.001 to 1000 for Weibull gaps")
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return low


@ARRIVALS.entry("day[:FILE]", "a Poisson process whose rate follows a working day, or a file of 24 rates")
@dataclass(frozen=True)
class Day(Arrivals):
    """A Poisson process whose rate follows a day's profile, from midnight on; `rate` is the mean over a day.

    Notes
    -----
    By inversion (Cinlar, 1975): a Poisson process of the mean rate is drawn in a stretched time, in which each hour is
    as long as its relative rate, and mapped back to clock time.
    """

    rate: float = of_table("arrival_rate", required=True)
    file: str | None = option("path", "file of rates", default=None, expected="a path")

    def draw(self, n, rng):
        profile = np.asarray(read_profile(self.file) if self.file else DAY_PROFILE, float)
        edges = np.concatenate(([0.0], np.cumsum(profile / profile.max())))
        days, within = np.divmod(Poisson(self.rate).draw(n, rng), DAY_S)
        return DAY_S * days + 3600 * np.interp(within / DAY_S * edges[-1], edges, np.arange(25.0))

    def describe(self):
        return (
            f"by a Poisson process whose rate follows {self.file or 'a working day'}, {self.rate:g} per second on the "
            "day's average"
        )

    def check_files(self):
        if self.file:
            read_profile(self.file)


@ARRIVALS.entry("clients:N[:CV[:SKEW]]", "N clients with gamma gaps, few of which carry most of the rate")
@dataclass(frozen=True)
class Clients(Arrivals):
    """Many clients, few of which start most of the conversations.

    Client j (1, 2, ...) is a renewal process with gamma gaps: its rate is proportional to ``j ** -skew`` (Zipf), its
    coefficient of variation is `cv`. ServeGen (Xiang et al., 2025) found that traffic is such a sum of unequal clients.
    """

    rate: float = of_table("arrival_rate", required=True)
    clients: int = option("whole", "number of clients", least=1, most=100_000)
    cv: float = _variation(default=1.0)
    skew: float = option("number", "skew", default=1.0, least=0.001, most=10.0)

    def __post_init__(self):
        super().__post_init__()
        if self.clients * self.cv**2 > MOST_DRAWS:
            raise InputError(
                f"arrivals {self.text!r}: the coefficient of variation is {self.cv:g}; expected at most "
                f"{math.sqrt(MOST_DRAWS / self.clients):g} with {self.clients:,} clients"
            )

    def draw(self, n, rng):
        shares = np.arange(1.0, self.clients + 1) ** -self.skew
        rates = self.rate * shares / shares.sum()
        rngs, times = rng.spawn(self.clients), [np.zeros(0)] * self.clients
        horizon_s = 1.1 * n / self.rate
        while True:
            for j in range(self.clients):
                while not len(times[j]) or (times[j][-1] <= horizon_s and len(times[j]) < n):
                    last = times[j][-1] if len(times[j]) else 0.0
                    more = max(int(rates[j] * max(horizon_s - last, 0)) + 16, len(times[j]))
                    gaps = _draw_gamma_gaps(more, rates[j], self.cv, rngs[j])
                    times[j] = np.append(times[j], last + np.cumsum(gaps))
            merged = np.sort(np.concatenate(times))
            if np.searchsorted(merged, horizon_s, "right") >= n:
                return merged[:n]
            horizon_s *= 2

    def describe(self):
        return (
            f"at {count(self.clients, 'client')}, {self.rate:g} per second in all: client j has a share proportional "
            f"to j^-{self.skew:g} and gamma gaps of coefficient of variation {self.cv:g}"
        )


@ARRIVALS.entry("stamps:FILE", "at the times of a file: seconds, one per line, or a Mooncake or Bailian trace")
@dataclass(frozen=True)
class Stamps(Arrivals):
    """At the times in a file, counted from the first: see `read_stamps`. The generator is not used."""

    file: str = option("path", "file of stamps", expected="a path")
    observed = True

    @property
    def in_short(self):
        return f"stamps of {self.file}"

    def draw(self, n, rng=None):
        return read_stamps(self.file, n)

    def describe(self):
        return f"at the times that {self.file} holds"

    def check_files(self):
        read_stamps(self.file, 0)
