"""When the sessions of a trace start and their requests follow, as a user wants it."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kvprefix.files.paths import InputError
from kvprefix.formats.session_rows import Clockwork
from kvprefix.traces.arrivals import Logged
from kvprefix.traces.parameters import make_entry
from kvprefix.traces.table import SESSION_NAMES, TABLE


class Timing(NamedTuple):
    """What a user may say of times.

    Attributes
    ----------
    given : dict
        Parameters of the table that are given, of SESSION_NAMES. Without `arrivals` and `arrival_rate`, sessions start
        as the trace says, or by the usual process if it does not; without `think`, requests keep their own times.
    open_loop : bool
        Requests do not wait for the answer before them.
    """

    given: dict = {}
    open_loop: bool = False

    def __bool__(self):
        return bool(self.given) or self.open_loop

    def value(self, name):
        """Return a parameter, the table's default if it is not given."""
        return self.given.get(name, TABLE[name].default)

    @property
    def clockwork(self):
        """The service time of requests whose log has none."""
        return Clockwork(self.value("ttft_s"), self.value("time_per_output_token_s"))

    def arrange(self, sessions):
        """Return a SessionTrace as a PrefixTrace, whose notes say how it is timed."""
        starts_rng, think_rng = np.random.default_rng(self.value("seed")).spawn(2)
        starts = self._entry("arrivals").draw(sessions.n_sessions, starts_rng) if self._draws(sessions) else None
        think = self._entry("think") if "think" in self.given else None
        sessions = sessions.play(self.value("speed"))
        trace = sessions.arrange(starts, open_loop=self.open_loop, think=think, rng=think_rng)
        return replace(trace, info={**trace.info, "notes": [*trace.info["notes"], *self.say(sessions)]})

    def say(self, sessions):
        """Return how the sessions of a trace start and their requests follow, where the trace does not tell it."""
        said = [str(self._entry("arrivals")).replace("conversations", "sessions")] if self._draws(sessions) else []
        if "think" in self.given:
            said.append(f"an agent's next request comes after {self._entry('think').describe()}")
        return said

    def _draws(self, sessions):
        """Say whether the starts are drawn: if asked for, or if the trace has times but not these."""
        is_known = sessions.starts_s is not None or not sessions.is_timed
        if self.given.get("arrivals") == Logged.name:
            if sessions.starts_s is None:
                raise InputError("arrivals `data`: the trace does not say when sessions start; expected a process")
            return False
        return bool({"arrivals", "arrival_rate"} & self.given.keys()) or not is_known

    def _entry(self, name):
        return make_entry(name, {one: self.value(one) for one in SESSION_NAMES})
