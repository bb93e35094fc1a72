"""How long people think before they write the next message: a class per distribution."""

import math
from dataclasses import dataclass

import numpy as np

from kvprefix.files.paths import InputError
from kvprefix.traces.entries import Entries, Entry, of_table, option
from kvprefix.traces.timing_files import read_think_times

THINKS = Entries("think time")
DAY_S = 86_400.0
Z_90 = 1.2815515655446004  # the 90 % quantile of the standard normal distribution
FEW_OVER_A_DAY = 2  # that any draw may have
MOST_OVER_A_DAY = 0.01  # of the drawn think times; if more are that long, the parameters must be a mistake


class Think(Entry):
    """A distribution of think times: `draw_times` draws them, `describe` names it in plain text."""

    def draw(self, n, rng, after_tool=None):
        """Draw n think times in seconds, (n,) float64.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
        after_tool : (n,) array_like of bool, optional
            Whether what follows is a tool's result, not a person's message; most distributions are the same for both.

        Raises
        ------
        InputError
            If more than MOST_OVER_A_DAY of them, and more than a few, are longer than a day.
        """
        times = self.draw_times(n, rng) if after_tool is None else self.draw_after(np.asarray(after_tool, bool), rng)
        if (times > DAY_S).sum() > max(MOST_OVER_A_DAY * n, FEW_OVER_A_DAY):
            raise InputError(
                f"{100 * (times > DAY_S).mean():.1f} % of the think times are longer than a day; expected at most "
                f"{100 * MOST_OVER_A_DAY:.0f} %: choose a smaller think_median_s or think_sigma"
            )
        return times

    def draw_after(self, after_tool, rng):
        """Draw a time for each request, by whether it follows a tool's result."""
        return self.draw_times(len(after_tool), rng)


@THINKS.entry("lognormal", "of that median and sigma")
@dataclass(frozen=True)
class Lognormal(Think):
    """``median * exp(sigma * Z)``, Z standard normal."""

    median_s: float = of_table("think_median_s")
    sigma: float = of_table("think_sigma")

    def draw_times(self, n, rng):
        return self.median_s * np.exp(self.sigma * rng.standard_normal(n))

    def describe(self):
        return f"a lognormal think time (median {self.median_s:g} s, sigma {self.sigma:g})"


@THINKS.entry("exponential", "of that median")
@dataclass(frozen=True)
class Exponential(Think):
    """Exponential with mean ``median / ln 2``."""

    median_s: float = of_table("think_median_s")

    def draw_times(self, n, rng):
        return rng.exponential(self.median_s / math.log(2), n)

    def describe(self):
        return f"an exponential think time (median {self.median_s:g} s)"


@THINKS.entry("constant", "the median")
@dataclass(frozen=True)
class Constant(Think):
    """Always the median."""

    median_s: float = of_table("think_median_s")

    def draw_times(self, n, rng):
        return np.full(n, float(self.median_s))

    def describe(self):
        return f"a think time of {self.median_s:g} s"


@THINKS.entry("data:FILE", "drawn from a file of seconds, one per line")
@dataclass(frozen=True)
class Data(Think):
    """Drawn with replacement from a file of seconds, one per line."""

    file: str = option("path", "file of think times", expected="a path")

    def draw_times(self, n, rng):
        return rng.choice(read_think_times(self.file), n)

    def describe(self):
        return f"a think time drawn from {self.file}"

    def check_files(self):
        read_think_times(self.file)


def _quantile(what, default):
    return option("number", f"{what} in seconds", default=default, least=0.001, most=DAY_S)


@THINKS.entry("agent[:TOOL:TOOL90:PERSON:PERSON90]", "of agents: short after a tool call, else long")
@dataclass(frozen=True)
class Agent(Think):
    """Two lognormal distributions: one after a tool call, one after an answer to a person.

    Each is given by its median and the value that 90 % do not exceed: sigma is ``ln(p90 / median) / 1.28155``, the
    standard normal's 90 % quantile. The defaults are measured on 710 public sessions of coding agents. Which one holds
    is told by the requests' `after_tool`; without it all follow a person.
    """

    tool_s: float = _quantile("median after a tool call", 9.0)
    tool_90_s: float = _quantile("90 % quantile after a tool call", 71.0)
    person_s: float = _quantile("median after an answer to a person", 210.0)
    person_90_s: float = _quantile("90 % quantile after an answer to a person", 2977.0)

    def __post_init__(self):
        super().__post_init__()
        for median, high in ((self.tool_s, self.tool_90_s), (self.person_s, self.person_90_s)):
            if high < median:
                said = f"its 90 % quantile is {high:g} s; expected {median:g} or more"
                raise InputError(f"think time {self.text!r}: {said}")

    def draw_times(self, n, rng):
        return self.draw_after(np.zeros(n, bool), rng)

    def draw_after(self, after_tool, rng):
        median = np.where(after_tool, self.tool_s, self.person_s)
        high = np.where(after_tool, self.tool_90_s, self.person_90_s)
        return median * (high / median) ** (rng.standard_normal(len(after_tool)) / Z_90)

    def describe(self):
        return (
            f"a lognormal think time, after a tool call of median {self.tool_s:g} s and 90 % quantile "
            f"{self.tool_90_s:g} s, after an answer to a person of {self.person_s:g} s and {self.person_90_s:g} s"
        )
