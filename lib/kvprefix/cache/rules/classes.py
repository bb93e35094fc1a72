"""Classes of requests, of which one is worth less than another: by when its sessions are back, or by a log's priority.

Each class is a queue scored as LRU, and only the first leaves of the queues are compared: of one class the session that
has been idle for longest is expected back last, as heavy-tailed pauses are.
"""

import numpy as np

from kvprefix.cache.heap import find_first
from kvprefix.cache.policy import Policy, Setting
from kvprefix.cache.rule import Rule, rule_fields
from kvprefix.files.paths import InputError

STEPS = 16  # of idle time per doubling, in the table of waits
DOUBLINGS = 24  # up to half a year
MOST_LEVELS = 100  # of priority


class Classes(Rule, rule_fields("Classes", "classes", "waits", "clock")):
    """A block has the class of the request that accessed it last; the leaf whose class waits longest goes first.

    `waits` is the expected wait of each class after each step of idle time; `clock` holds the present time.
    """

    def on_request(self, now):
        self.clock[0] = self.trace.arrival_s[now]

    def on_access(self, k, now):
        block = self.trace.ids[k]
        self.cache.leaves.scores[block] = self.score_block(k, now)
        self.cache.queue_of[block] = self.classes[now]

    def on_store(self, k, now):
        self.cache.leaves.scores[self.trace.ids[k]] = self.score_block(k, now)
        return self.classes[now]

    def choose_leaf(self, k):
        leaves, arrival_s = self.cache.leaves, self.trace.arrival_s
        best, longest, oldest = -1, -1.0, 0.0
        for queue in range(len(leaves.fill)):
            first = find_first(leaves, queue)
            if first >= 0:
                used = leaves.key[first]
                idle_s = self.clock[0] - arrival_s[int(used)]
                step = min(int(np.log2(idle_s + 1.0) * STEPS), self.waits.shape[1] - 1)
                wait = self.waits[queue, step]
                if wait > longest or (wait == longest and used < oldest):
                    best, longest, oldest = first, wait, used
        return best


def tabulate_waits(gap_s, classes, n_classes, horizon_s):
    """Return how long each class is expected to wait for its next request, after each step of idle time.

    Parameters
    ----------
    gap_s : (n,) ndarray of float64
        Seconds to the next request; NaN if none comes.
    classes : (n,) ndarray of int
    n_classes : int
    horizon_s : float
        A wait that is longer, or never ends, counts as so many seconds.

    Returns
    -------
    (n_classes, steps) ndarray of float64
        The integral of S(x + u) / S(x) over u up to the horizon, where S(x) is the share of requests that wait for
        longer than x, by the gaps themselves; the horizon where S is 0.
    """
    idle_s = 2 ** (np.arange(STEPS * DOUBLINGS) / STEPS) - 1
    waits = np.full((n_classes, len(idle_s)), float(horizon_s))
    for one in range(n_classes):
        own = gap_s[classes == one]
        gaps, share = np.sort(own[~np.isnan(own)]), np.mean(~np.isnan(own)) if len(own) else 0.0
        survive = 1 - share * np.searchsorted(gaps, idle_s, side="right") / max(len(gaps), 1)
        some = survive > 1e-12
        area = _integrate(gaps, share, idle_s + horizon_s) - _integrate(gaps, share, idle_s)
        waits[one, some] = area[some] / survive[some]
    return waits


def _integrate(gaps, share, ends):
    """Return the integral of S from 0 to each end."""
    counts, sums = np.searchsorted(gaps, ends, side="right"), np.concatenate(([0.0], np.cumsum(gaps)))
    return ends - share * (counts * ends - sums[counts]) / max(len(gaps), 1)


HORIZON = Setting(default=300.0, meaning="seconds that are looked ahead: what comes back later is as good as gone")


def make_session_policy(hints):
    """Return the Policy whose classes are `hints.turn_class`."""
    return _make_policy(
        hints, hints.turn_class, name="session", label="Sessions",
        definition="The session that is expected back last goes first: how many sessions go on after their first, "
        "second, third to fourth, fifth to eighth or later request is known, and how long these pause.",
    )  # fmt: skip


def make_tool_policy(hints):
    """Return the Policy whose classes are `hints.calls_tool`."""
    return _make_policy(
        hints, hints.calls_tool, name="tool", label="Tool calls",
        definition="The session that is expected back last goes first: how long tools run is known, and how long "
        "people pause, and whether the last answer called a tool.",
    )  # fmt: skip


def make_priority_policy(hints):
    """Return the Policy whose classes are those of `hints.priority`: none is expected, but the lowest goes first."""
    levels, ranks = np.unique(hints.priority, return_inverse=True)
    if len(levels) > MOST_LEVELS:
        raise InputError(f"hint priority has {len(levels):,} levels; expected {MOST_LEVELS} at most")
    waits, classes = np.arange(len(levels), 0, -1.0)[:, None], ranks.astype(np.int8)
    return Policy(
        name="priority",
        label="Priority",
        definition="A block has the priority of the request that accessed it last; the lowest goes first, of equal "
        "ones the least recently used.",
        source="TensorRT-LLM's retention priorities, without a duration",
        make_rule=lambda trace, cache, setting: Classes(trace, cache, classes, waits, np.zeros(1)),
        queues=max(len(levels), 1),
    )


def _make_policy(hints, classes, **named):
    n_classes = int(classes.max(initial=0)) + 1

    def make(trace, cache, setting):
        waits = tabulate_waits(hints.gap_s, classes, n_classes, setting)
        return Classes(trace, cache, classes, waits, np.zeros(1))

    return Policy(setting=HORIZON, make_rule=make, queues=n_classes, **named)
