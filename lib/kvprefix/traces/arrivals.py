"""Give requests their arrival times: when conversations start, and when each next turn follows.

One `numpy.random.Generator` is passed in; every kind of draw has its own. Nothing here knows tokens, only counts.
"""

import json
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvprefix.files.jsonlines import number_lines
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError, check_path, explain_os_errors, resolve_input

CLOCKS = ("causal", "back_to_back", "at_once")
ARRIVALS = ("poisson", "gamma:CV", "weibull:CV", "day[:FILE]", "clients:N[:CV[:SKEW]]", "stamps:FILE")
THINKS = ("lognormal", "exponential", "constant", "data:FILE")
MAX_ARRIVAL_S = 1e12  # 30,000 years; beyond, microseconds are lost
DAY_S = 86_400.0
RATES_PER_S = 1e-6, 1e6  # from one in 12 days to one in a microsecond, to which times are rounded
VARIATIONS = 0.001, 1000.0
MOST_DRAWS = 1e7  # of all clients: each draws about CV ** 2 gaps before the first that is not close to 0
MOST_OVER_A_DAY = 0.01  # of the think times that are drawn; more of them mean that the parameters are not meant
DAY_PROFILE = (
    0.45, 0.35, 0.28, 0.25, 0.27, 0.35, 0.55, 0.85, 1.2, 1.45, 1.55, 1.5, 1.35, 1.4, 1.55, 1.6, 1.55, 1.45, 1.3, 1.25,
    1.2, 1.05, 0.8, 0.6,
)  # fmt: skip
"""Rates by the hour from midnight on, relative to the day's mean: quiet nights, a busy working day. Made up."""


@dataclass(frozen=True)
class Arrivals:
    """How conversations start, as `parse_arrivals` reads it.

    Attributes
    ----------
    kind : str
        `poisson`; `gamma` and `weibull`: gaps of that distribution with mean 1 / rate; `day`: a Poisson process whose
        rate follows a profile; `clients`: many clients, each with gamma gaps, few of which carry most of the rate;
        `stamps`: times from a file.
    cv : float
        Coefficient of variation of the gaps (of each client's): 1 is as random as Poisson, more is burstier.
    clients : int
    skew : float
        Exponent of Zipf's law: client j's rate is proportional to ``j ** -skew``.
    file : str or None
        24 relative rates (`day`), or stamps.
    """

    kind: str
    cv: float = 1.0
    clients: int = 0
    skew: float = 1.0
    file: str | None = None


def parse_arrivals(text):
    """Read a specification of arrivals: one of ARRIVALS.

    >>> parse_arrivals("gamma:4")
    Arrivals(kind='gamma', cv=4.0, clients=0, skew=1.0, file=None)

    Raises
    ------
    InputError
        For one that is not known, or a number that is of no use.
    """
    kind, colon, rest = str(text).partition(":")
    numbers = rest.split(":") if rest else []
    if kind == "poisson" and not rest:
        return Arrivals(kind)
    if kind in ("gamma", "weibull") and len(numbers) == 1:
        return Arrivals(kind, cv=_read_above_zero(text, numbers[0], "coefficient of variation", *VARIATIONS))
    if kind == "day" and not colon:
        return Arrivals(kind)
    if kind in ("day", "stamps") and rest:
        check_path(rest, "the file of arrivals", "a path")
        return Arrivals(kind, file=rest)
    if kind == "clients" and 1 <= len(numbers) <= 3:
        clients = read_number(numbers[0], int)
        if isinstance(clients, str) or not 1 <= clients <= 100_000:
            raise InputError(f"arrivals {text!r}: {numbers[0]!r} clients; expected a whole number from 1 to 100,000")
        cv = _read_above_zero(text, numbers[1], "coefficient of variation", *VARIATIONS) if len(numbers) > 1 else 1.0
        skew = _read_above_zero(text, numbers[2], "skew", 0.001, 10.0) if len(numbers) > 2 else 1.0
        if clients * cv**2 > MOST_DRAWS:
            most = math.sqrt(MOST_DRAWS / clients)
            raise InputError(
                f"arrivals {text!r}: the coefficient of variation is {numbers[1]!r}; expected at most {most:g} with so "
                "many clients"
            )
        return Arrivals(kind, cv=cv, clients=clients, skew=skew)
    raise InputError(f"arrivals {text!r} are not known; known: {', '.join(ARRIVALS)}")


def _read_above_zero(text, number, name, least, most):
    value = read_number(number, float)
    if isinstance(value, str) or not least <= value <= most:
        raise InputError(
            f"arrivals {text!r}: the {name} is {number!r}; expected a number above 0, from {least:g} to {most:g}"
        )
    return value


_MOST = {"think_median_s": DAY_S, "think_sigma": 10.0, "ttft_s": DAY_S, "time_per_output_token_s": 3600.0}


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
    think : str
        One of THINKS: `exponential` has the same median; `constant` is the median; `data` draws from the numbers of
        seconds that a file holds, one a line.
    """

    kind: str = "causal"
    think_median_s: float = 110.0
    think_sigma: float = 1.5
    ttft_s: float = 0.5
    time_per_output_token_s: float = 0.03
    think: str = "lognormal"

    def __post_init__(self):
        if self.kind not in CLOCKS:
            raise InputError(f"clock {self.kind!r} is not known; known: {', '.join(CLOCKS)}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise InputError(f"{name} is {value!r}; expected seconds (sigma: a number), zero or more")
            if value > most:
                day = ", more than a day" if most == DAY_S else ""
                raise InputError(f"{name} is {value:g}{day}; expected at most {most:g}")
        kind, _, file = str(self.think).partition(":")
        if self.think not in THINKS[:3] and not (kind == "data" and file):
            raise InputError(f"think time {self.think!r} is not known; known: {', '.join(THINKS)}")
        if file:
            check_path(file, "the file of think times", "a path")

    @property
    def file(self):
        """The file that think times are drawn from, or None."""
        return self.think.partition(":")[2] or None


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
        Where the rate is no number within RATES_PER_S.
    """
    return np.cumsum(rng.exponential(1.0 / check_rate(rate_per_s), n))


def check_rate(rate_per_s, name="arrival rate"):
    """Return a rate that is a number within RATES_PER_S, or raise InputError."""
    least, most = RATES_PER_S
    is_number = isinstance(rate_per_s, int | float) and not isinstance(rate_per_s, bool)
    if not (is_number and least <= rate_per_s <= most):
        raise InputError(
            f"{name} is {rate_per_s!r}; expected a number of conversations a second above 0, from {least:g} to {most:g}"
        )
    return rate_per_s


def draw_renewal_starts(n, rate_per_s, cv, rng, kind="gamma"):
    """Draw the first n arrivals of a renewal process: independent gaps of mean 1 / rate and the given variation.

    Parameters
    ----------
    n : int
    rate_per_s, cv : float
        Arrivals a second, and the coefficient of variation of the gaps; both above zero.
    rng : numpy.random.Generator
    kind : {"gamma", "weibull"}
        Gamma: shape ``1 / cv ** 2``. Weibull: the shape k that solves
        ``gamma(1 + 2 / k) / gamma(1 + 1 / k) ** 2 = 1 + cv ** 2``. Both are used for LLM traffic by BurstGPT (Wang et
        al., 2024) and ServeGen (Xiang et al., 2025).

    Returns
    -------
    (n,) ndarray of float64
        Seconds, ascending. With CV 1 both are Poisson processes.
    """
    rate_per_s = check_rate(rate_per_s)
    if kind == "gamma":
        return np.cumsum(_draw_gamma_gaps(n, rate_per_s, cv, rng))
    shape = solve_weibull_shape(cv)
    return np.cumsum(rng.weibull(shape, n) / (rate_per_s * math.gamma(1 + 1 / shape)))


def _draw_gamma_gaps(n, rate_per_s, cv, rng):
    return rng.gamma(1 / cv**2, cv**2 / rate_per_s, n)


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


def draw_daily_starts(n, rate_per_s, profile, rng):
    """Draw the first n arrivals of a Poisson process whose rate follows a day's profile, from midnight on.

    Parameters
    ----------
    n : int
    rate_per_s : float
        The mean rate over a day.
    profile : (24,) sequence of float
        Relative rates by the hour.
    rng : numpy.random.Generator

    Notes
    -----
    By inversion (Cinlar, 1975): a Poisson process of the mean rate runs in a time of its own, of which an hour of the
    clock has as much as its rate says.
    """
    profile = np.asarray(profile, float)
    edges = np.concatenate(([0.0], np.cumsum(profile / profile.max())))
    days, within = np.divmod(draw_poisson_starts(n, rate_per_s, rng), DAY_S)
    return DAY_S * days + 3600 * np.interp(within / DAY_S * edges[-1], edges, np.arange(25.0))


def draw_client_starts(n, rate_per_s, clients, cv, skew, rng):
    """Draw the first n arrivals of many clients together, few of which carry most of the rate.

    Client j (1, 2, ...) is a renewal process with gamma gaps: its rate is proportional to ``j ** -skew`` (Zipf), its
    coefficient of variation is the given one. That traffic is such a sum of unequal clients is what ServeGen (Xiang et
    al., 2025) found.
    """
    shares = np.arange(1.0, clients + 1) ** -skew
    rates = check_rate(rate_per_s) * shares / shares.sum()
    rngs, times = rng.spawn(clients), [np.zeros(0)] * clients
    horizon_s = 1.1 * n / rate_per_s
    while True:
        for j in range(clients):
            while not len(times[j]) or (times[j][-1] <= horizon_s and len(times[j]) < n):
                last = times[j][-1] if len(times[j]) else 0.0
                more = max(int(rates[j] * max(horizon_s - last, 0)) + 16, len(times[j]))
                times[j] = np.append(times[j], last + np.cumsum(_draw_gamma_gaps(more, rates[j], cv, rngs[j])))
        merged = np.sort(np.concatenate(times))
        if np.searchsorted(merged, horizon_s, "right") >= n:
            return merged[:n]
        horizon_s *= 2


def read_stamps(file, n):
    """Read the start times of n conversations from a file.

    Parameters
    ----------
    file : path-like
        A number of seconds a line; or JSON Lines with a `timestamp`: in ms as Mooncake has it, in seconds where there
        is a `chat_id` as Bailian has it (there only requests without a `parent_chat_id` start a conversation).
    n : int

    Returns
    -------
    (n,) ndarray of float64
        Seconds from the first stamp on, ascending.

    Raises
    ------
    InputError
        Naming the line that is no stamp; fewer stamps than conversations.
    """
    stamps = _read_numbers(file, _parse_stamp, "a number of seconds, or a JSON object with a timestamp")
    if len(stamps) < n:
        raise InputError(
            f"{file}: holds {len(stamps):,} stamps for {n:,} conversations; expected as many "
            f"(MAX_CONVERSATIONS={len(stamps)} takes fewer conversations)"
        )
    stamps = np.sort(stamps)[:n]
    return stamps - stamps[:1]


def _parse_stamp(line):
    """Return a line's stamp in seconds, None where it starts no conversation."""
    if not line.startswith("{"):
        return _as_number(line)
    fields = json.loads(line)
    if "chat_id" in fields:
        return _as_number(fields["timestamp"]) if fields.get("parent_chat_id", -1) in (-1, None) else None
    return _as_number(fields["timestamp"]) / 1000


def _as_number(value):
    """Return a number, or a text of one, as float; ValueError for anything else."""
    value = read_number(value, float) if isinstance(value, str) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return float(value)


def _read_numbers(file, parse, expected):
    """Return the numbers of a file's lines, none beyond MAX_ARRIVAL_S, blank lines skipped."""
    path, numbers = resolve_input(file), []
    with explain_os_errors(path):
        for number, line in number_lines(path):
            line = line.decode(errors="replace").strip()
            try:
                value = parse(line)
                if value is not None and not abs(value) <= MAX_ARRIVAL_S:
                    raise ValueError
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                raise InputError(
                    f"{path}: line {number} is {line[:40]!r}; expected {expected} (at most {MAX_ARRIVAL_S:g})"
                ) from None
            if value is not None:
                numbers.append(value)
    if not numbers:
        raise InputError(f"{path}: holds no numbers; expected {expected} a line")
    return np.array(numbers)


def read_profile(file):
    """Read a day's profile: 24 relative rates, one a line, from midnight on."""
    profile = _read_numbers(file, _as_number, "a rate relative to the others")
    if len(profile) != 24 or (profile < 0).any() or not profile.any():
        raise InputError(f"{file}: holds {len(profile)} rates; expected 24, none below 0 and not all 0")
    return profile


def read_think_times(file):
    """Read think times in seconds, one a line."""
    seconds = _read_numbers(file, _as_number, "a number of seconds, 0 or more")
    if seconds.min() < 0:
        raise InputError(f"{file}: holds {seconds.min():g} s; expected think times of 0 or more")
    return seconds


def check_arrivals_file(arrivals):
    """Raise InputError where the file that an `Arrivals` names cannot be used for any number of conversations."""
    if arrivals.kind == "stamps":
        read_stamps(arrivals.file, 0)
    elif arrivals.file:
        read_profile(arrivals.file)


def draw_starts(n, rate_per_s, arrivals, rng):
    """Draw the starts of n conversations in seconds, ascending, as an `Arrivals` says."""
    if arrivals.kind == "poisson":
        return draw_poisson_starts(n, rate_per_s, rng)
    if arrivals.kind in ("gamma", "weibull"):
        return draw_renewal_starts(n, rate_per_s, arrivals.cv, rng, arrivals.kind)
    if arrivals.kind == "day":
        profile = read_profile(arrivals.file) if arrivals.file else DAY_PROFILE
        return draw_daily_starts(n, rate_per_s, profile, rng)
    if arrivals.kind == "clients":
        return draw_client_starts(n, rate_per_s, arrivals.clients, arrivals.cv, arrivals.skew, rng)
    return read_stamps(arrivals.file, n)


def draw_think_times(n, clock, rng):
    """Draw n think times in seconds.

    Lognormal: ``median * exp(sigma * Z)``, Z standard normal. Exponential: with mean ``median / ln 2``. Constant: the
    median. From data: drawn with replacement.

    Raises
    ------
    InputError
        Where more than MOST_OVER_A_DAY of them are longer than a day.
    """
    if clock.think == "lognormal":
        times = clock.think_median_s * np.exp(clock.think_sigma * rng.standard_normal(n))
    elif clock.think == "exponential":
        times = rng.exponential(clock.think_median_s / math.log(2), n)
    elif clock.think == "constant":
        times = np.full(n, float(clock.think_median_s))
    else:
        times = rng.choice(read_think_times(clock.file), n)
    if (times > DAY_S).sum() > MOST_OVER_A_DAY * n:
        raise InputError(
            f"{(times > DAY_S).mean():.1%} of the think times are longer than a day; expected at most "
            f"{MOST_OVER_A_DAY:.0%}: choose a smaller think_median_s or think_sigma"
        )
    return times


def count_early_turns(requests, ttft_s=0.0, time_per_output_token_s=0.0):
    """Count the turns that arrive before the reply that they follow can be complete.

    Parameters
    ----------
    requests : pandas.DataFrame
        `conversation_index`, `turn`, `arrival_s` and `output_tokens`, in any order.
    ttft_s, time_per_output_token_s : float
        The service time of the turn before is ``ttft_s + output_tokens * time_per_output_token_s``.

    Returns
    -------
    int
        Such turns can hit what is not computed yet. Times count as equal within two microseconds.
    """
    ordered = requests.sort_values(["conversation_index", "turn"], kind="stable")
    index, arrival = ordered["conversation_index"].to_numpy(), ordered["arrival_s"].to_numpy()
    done = arrival + ttft_s + time_per_output_token_s * ordered["output_tokens"].to_numpy()
    return int(((index[1:] == index[:-1]) & (arrival[1:] < done[:-1] - 2e-6)).sum())


def schedule_turns(requests, arrival_rate, clock, rng, arrivals=None):
    """Give every request its arrival time.

    Parameters
    ----------
    requests : pandas.DataFrame
        `conversation_index`, `turn` and `output_tokens`, ordered by conversation and turn.
    arrival_rate : float
        Conversations that start, a second.
    clock : Clock
    rng : numpy.random.Generator
    arrivals : Arrivals, optional
        How they start: Poisson if not given.

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
    delay[is_first] = draw_starts(int(is_first.sum()), arrival_rate, arrivals or Arrivals("poisson"), starts_rng)
    arrival_s = pd.Series(delay).groupby(requests["conversation_index"].to_numpy()).cumsum().round(6).to_numpy()
    if not (arrival_s < MAX_ARRIVAL_S).all():
        raise InputError(
            f"arrivals reach {arrival_s.max():g} s, more than {MAX_ARRIVAL_S:g}: the rate ({arrival_rate:g}/s) is too "
            "low or the think and service times are too long"
        )
    if clock.kind != "causal" and not is_first.all():
        times = clock.ttft_s, clock.time_per_output_token_s
        early = count_early_turns(requests.assign(arrival_s=arrival_s), *times)
        warnings.warn(
            f"the clock {clock.kind!r} lets turns arrive sooner than people write them: for comparison only "
            f"({early:,} of {int((~is_first).sum()):,} later turns come before the reply that they follow is complete)",
            stacklevel=2,
        )
    return arrival_s
