"""How long requests run, in seconds and in the whole steps of an engine's scheduler."""

from dataclasses import dataclass

import numpy as np

from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError
from kvprefix.traces.table import TABLE

_ROUNDING = 1e-6  # of a step: 0.06 s are three steps of 0.02 s, though a division of floats may give more
_MOST_STEPS = 2**53


@dataclass(frozen=True)
class Overlap:
    """How long requests run once admitted: what vLLM's synchronous scheduler is given, beside their arrivals.

    The scheduler goes in steps of `time_per_token_s`; the first one begins with the first arrival. A request takes part
    from the first step on that begins at its arrival or later. `first_token_s` is rounded up to whole steps too, one at
    least. So times are at most a step too long, and in real engines a step's own length varies.

    An admitted request holds its prompt's blocks at once. Its first token comes `first_token_s` later, the next ones
    one per step; it takes another block when a token needs one. It is over after its last token, before the next step
    begins. Each step first goes through the running requests in the order of admission. If one finds no free block, the
    request admitted last is preempted, maybe itself: it gives back its blocks, goes to the head of the waiting ones and
    later computes its prompt and tokens again, `first_token_s` for the next one. Then, in a step without a preemption,
    the waiting ones are admitted, first come first served, until one finds no room.

    Attributes
    ----------
    first_token_s, time_per_token_s : float
        Seconds, above 0.

    Examples
    --------
    Steps of 0.02 s, the first one at 1 s. The second request arrives in the middle of the second step.

    >>> Overlap(first_token_s=0.05, time_per_token_s=0.02).count_steps([1, 1.03, 1.06], 3)
    (array([0, 2, 3]), 3)
    """

    first_token_s: float = TABLE["ttft_s"].default
    time_per_token_s: float = TABLE["time_per_output_token_s"].default

    def __post_init__(self):
        for name in ("first_token_s", "time_per_token_s"):
            value = getattr(self, name)
            if not 0 < value < np.inf:
                raise InputError(f"{name} is {value!r}; expected seconds above 0")

    def count_steps(self, arrival_s, n):
        """Return the first step in which each of n requests takes part, and the steps to a first token."""
        arrival_s = np.array(arrival_s, float)
        if arrival_s.shape != (n,) or not np.isfinite(arrival_s).all() or (np.diff(arrival_s) < 0).any():
            raise InputError(f"arrival_s must be {n} ascending numbers of seconds, one per request")
        times_s = np.append(arrival_s - arrival_s[:1], self.first_token_s)
        slack_s = _ROUNDING * self.time_per_token_s + 2 * np.spacing(np.abs(arrival_s).max(initial=0))
        with np.errstate(over="ignore"):
            steps = np.ceil((times_s - slack_s) / self.time_per_token_s)
        if steps.max() > _MOST_STEPS:
            raise InputError(
                f"{times_s.max():g} s are more than 2**53 steps of {self.time_per_token_s:g} s; expected longer steps"
            )
        return np.maximum(steps[:-1], 0).astype(np.int64), max(int(steps[-1]), 1)

    def read_steps(self, arrival_s, arrivals, admitted, finished):
        """Return `admitted_s`, `finished_s` and `waited_s` of requests, NaN if they were never admitted."""
        first_s = np.array(arrival_s, float)[:1]

        def read(steps):
            return np.where(admitted < 0, np.nan, steps * self.time_per_token_s)

        waited_s = read(admitted - arrivals)
        return {"admitted_s": first_s + read(admitted), "finished_s": first_s + read(finished), "waited_s": waited_s}


def read_overlap(concurrent, ttft_s, time_per_output_token_s):
    """Read the options of a replay: seconds as texts, None for the defaults; return None if requests do not overlap."""
    times = {}
    for flag, text, name in (
        ("--ttft-s", ttft_s, "first_token_s"),
        ("--time-per-output-token-s", time_per_output_token_s, "time_per_token_s"),
    ):
        if text is None:
            continue
        if not concurrent:
            raise InputError(f"{flag} has a meaning only with --concurrent, which lets requests run at once")
        seconds = read_number(text, float)
        if isinstance(seconds, str) or not 0 < seconds < np.inf:
            raise InputError(f"{flag} is {text!r}; expected seconds above 0")
        times[name] = seconds
    return Overlap(**times) if concurrent else None
