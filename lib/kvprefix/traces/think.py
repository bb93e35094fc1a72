"""How long people think before they write the next message: a class per distribution."""

import math
from dataclasses import dataclass

import numpy as np

from kvprefix.files.paths import InputError
from kvprefix.traces.entries import Entries, Entry, of_table, option
from kvprefix.traces.timing_files import read_think_times

THINKS = Entries("think time")
DAY_S = 86_400.0
MOST_OVER_A_DAY = 0.01  # of the drawn think times; if more are that long, the parameters must be a mistake


class Think(Entry):
    """A distribution of think times: `draw_times` draws them, `describe` names it in plain text."""

    def draw(self, n, rng):
        """Draw n think times in seconds, (n,) float64.

        Raises
        ------
        InputError
            If more than MOST_OVER_A_DAY of them are longer than a day.
        """
        times = self.draw_times(n, rng)
        if (times > DAY_S).sum() > MOST_OVER_A_DAY * n:
            raise InputError(
                f"{100 * (times > DAY_S).mean():.1f} % of the think times are longer than a day; expected at most "
                f"{100 * MOST_OVER_A_DAY:.0f} %: choose a smaller think_median_s or think_sigma"
            )
        return times


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
