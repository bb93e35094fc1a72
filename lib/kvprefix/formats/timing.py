"""When the sessions of a trace start and their requests follow, as a user wants it."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kvprefix.formats.session_rows import Clockwork
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
        parameters = {name: self.value(name) for name in SESSION_NAMES}
        starts_rng, think_rng = np.random.default_rng(parameters["seed"]).spawn(2)
        is_drawn = {"arrivals", "arrival_rate"} & self.given.keys()
        notes, starts, think = [], None, None
        if is_drawn or (sessions.starts_s is None and sessions.is_timed):
            process = make_entry("arrivals", parameters)
            starts = process.draw(sessions.n_sessions, starts_rng)
            notes.append(f"the file does not say when sessions start: {process}" if not is_drawn else f"{process}")
        if "think" in self.given:
            think = make_entry("think", parameters)
            notes.append(f"a session's next request comes after {think.describe()}")
        trace = sessions.arrange(starts, open_loop=self.open_loop, think=think, rng=think_rng)
        said = [note.replace("conversations", "sessions") for note in notes]
        return replace(trace, info={**trace.info, "notes": [*trace.info["notes"], *said]})
