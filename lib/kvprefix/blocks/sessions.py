"""Traces of sessions: requests that follow one another, before it is known when each session starts.

A session's requests keep their own times, counted from its start; `arrange` puts the sessions on one clock, as a
PrefixTrace that a cache replays. It knows no file and no cache.
"""

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from kvprefix.blocks.prefix_trace import PrefixTrace, select_requests
from kvprefix.files.paths import InputError
from kvprefix.files.shown import Shown
from kvprefix.files.words import count
from kvprefix.traces.timing_files import MAX_ARRIVAL_S

NOTHING, TOOL, PERSON, UNKNOWN = range(4)  # what a request follows, in `after`


@dataclass(frozen=True, kw_only=True, repr=False)
class SessionTrace(Shown):
    """Requests that list block ids, session after session, each session in the order of its own times.

    Attributes
    ----------
    accesses : PrefixTrace
        `conversation` is the session; `arrival_s` counts from the session's start; `finish_s - arrival_s` is the
        service time; `previous` is the request before it of the same agent, `turn` counts these.
    agent : (n,) ndarray of int64
        0 for the session's main agent, 1, 2, ... for its sub-agents.
    spawned_by : (n,) ndarray of int64
        Of a sub-agent's first request: the main agent's last request before it; -1 for all others.
    after : (n,) ndarray of int8
        What a request follows: NOTHING if it is its agent's first; a TOOL's result; a PERSON's message; UNKNOWN.
    starts_s : (n_sessions,) ndarray of float64, optional
        When the sessions start, if it is known.
    line : (n,) ndarray of int64
        The place of each request in the file: the order of requests at the same time.
    is_timed : bool
        Whether there are any times; without, the places in the file are the order.
    """

    accesses: PrefixTrace
    agent: np.ndarray
    spawned_by: np.ndarray
    after: np.ndarray
    line: np.ndarray
    starts_s: np.ndarray | None = None
    is_timed: bool = True

    def __len__(self):
        return len(self.accesses)

    @property
    def n_sessions(self):
        """Number of sessions."""
        return int(self.accesses.conversation.max(initial=-1)) + 1

    @property
    def is_linked(self):
        """Whether any request follows another; if not, a session is one request."""
        return self.n_sessions < len(self)

    @property
    def is_of_agents(self):
        """Whether any request is a sub-agent's, or follows a tool's result."""
        return bool(self.agent.any() or (self.after == TOOL).any())

    def describe(self):
        """Return the sizes of the trace in words."""
        sub = int(np.count_nonzero(self.agent))
        return {
            "what": f"Trace of {count(self.n_sessions, 'session')}, {len(self):,} requests ({sub:,} of sub-agents)",
            **{name: text for name, text in self.accesses.describe().items() if name != "what"},
        }

    def main_only(self):
        """Return the trace without its sub-agents' requests."""
        return self.select(self.agent == 0)

    def select(self, kept):
        """Return some of the requests, (n,) ndarray of bool, and the sessions that have any."""
        kept = np.flatnonzero(kept)
        accesses = select_requests(self.accesses, kept)
        there, conversation = np.unique(accesses.conversation, return_inverse=True)
        previous = _follow(self.accesses.previous, kept)
        return replace(
            self, accesses=replace(accesses, previous=previous, conversation=conversation), agent=self.agent[kept],
            spawned_by=_follow(self.spawned_by, kept), after=self.after[kept], line=self.line[kept],
            starts_s=None if self.starts_s is None else self.starts_s[there],
        )  # fmt: skip

    def play(self, speed):
        """Return the trace with its own times `speed` times as fast; service times stay."""
        if speed == 1:
            return self
        one = self.accesses
        arrival_s = one.arrival_s / speed
        accesses = replace(one, arrival_s=arrival_s, finish_s=arrival_s + (one.finish_s - one.arrival_s))
        starts_s = None if self.starts_s is None else np.asarray(self.starts_s) / speed
        return replace(self, accesses=accesses, starts_s=starts_s)

    def arrange(self, starts_s=None, *, open_loop=False, think=None, rng=None):
        """Put the sessions on one clock.

        Parameters
        ----------
        starts_s : (n_sessions,) ndarray of float64, optional
            When each session starts, in seconds; the trace's own if not given.
        open_loop : bool
            Requests come at their own times even if the last answer of their agent is not there yet. Otherwise they
            wait for it.
        think : Think, optional
            Draws how long after the last answer a request comes, instead of the times of the file; a sub-agent then
            starts with the answer that it was called by.
        rng : numpy.random.Generator, optional
            Of `think`.

        Returns
        -------
        PrefixTrace
            In order of arrival. Without any times: in the file's order, at 0 s.

        Raises
        ------
        InputError
            No starts given, and none known.
        """
        trace = replace(self.accesses, after=self.after)
        starts_s = self.starts_s if starts_s is None else starts_s
        if starts_s is None and self.is_timed:
            raise InputError("it is not known when the sessions start; expected an arrival process")
        if starts_s is None:
            return _place(trace, np.zeros(len(self)), np.argsort(self.line, kind="stable"))
        service = trace.finish_s - trace.arrival_s
        gap = np.full(len(self), np.nan) if think is None else think.draw(len(self), rng, self.after == TOOL)
        times = _schedule(
            np.asarray(starts_s, float)[trace.conversation], trace.arrival_s, service, trace.previous, self.spawned_by,
            gap, open_loop,
        ).round(6)  # fmt: skip
        if not (times < MAX_ARRIVAL_S).all():
            raise InputError(f"arrivals reach {times.max():g} s, more than {MAX_ARRIVAL_S:g}: the rate is too low")
        return _place(trace, times, np.lexsort((self.line, times)))


def _place(trace, times, order):
    """Return a trace's requests in an order and at given times."""
    placed = select_requests(trace, order, times[order])
    return replace(placed, previous=_follow(trace.previous, order))


def _follow(previous, order):
    """Return `previous` of requests in another order, in which any that are missing are none."""
    position = np.full(len(previous) + 1, -1)
    position[order] = np.arange(len(order))
    return position[previous[order]]


@njit(cache=True, nogil=True)
def _schedule(start, own, service, previous, spawned_by, gap, open_loop):
    """Return each request's arrival; those that it waits for come before it in the arrays."""
    times = np.empty(len(own))
    for i in range(len(own)):
        times[i] = start[i] + own[i]
        before, caller = previous[i], spawned_by[i]
        if not np.isnan(gap[i]) and before >= 0:
            times[i] = times[before] + service[before] + gap[i]
        elif not np.isnan(gap[i]) and caller >= 0:
            times[i] = times[caller] + service[caller]
        elif before >= 0 and not open_loop:
            times[i] = max(times[i], times[before] + service[before])
    return times


def gather_sessions(trace):
    """Return a PrefixTrace, whose requests have their times, as a SessionTrace: a conversation is a session.

    Examples
    --------
    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> trace = make_prefix_trace(make_trace_of([[1, 2], [3, 4], [1, 5]], [0, 1, 7]), 1)
    >>> gather_sessions(replace(trace, conversation=np.array([0, 1, 0]))).accesses.arrival_s
    array([0., 7., 0.])
    """
    order = np.lexsort((np.arange(len(trace)), trace.conversation))
    _, first, session = np.unique(trace.conversation[order], return_index=True, return_inverse=True)
    starts = trace.arrival_s[order][first]
    gathered = select_requests(trace, order)
    offsets_s = gathered.arrival_s - starts[session]
    agent = np.zeros(len(order), np.int64)
    previous, turn, spawned_by = link_agents(agent, session)
    accesses = replace(
        gathered, arrival_s=offsets_s, finish_s=offsets_s + (gathered.finish_s - gathered.arrival_s),
        conversation=session, previous=previous, turn=turn,
    )  # fmt: skip
    after = np.where(previous < 0, NOTHING, UNKNOWN).astype(np.int8)
    is_timed = bool(trace.arrival_s.any())
    return SessionTrace(
        accesses=accesses, agent=agent, spawned_by=spawned_by, after=after, line=order,
        starts_s=starts if is_timed else None, is_timed=is_timed,
    )  # fmt: skip


def link_agents(agent, conversation):
    """Link the requests of sessions, which are in the order of their times.

    Parameters
    ----------
    agent, conversation : (n,) ndarrays of int64

    Returns
    -------
    previous : (n,) ndarray of int64
        The last request before it of the same session and agent, -1 for none.
    turn : (n,) ndarray of int64
        How many there are before it.
    spawned_by : (n,) ndarray of int64
        For a sub-agent's first request, the main agent's last request before it; -1 for all others, and for none.

    Examples
    --------
    >>> link_agents(np.array([0, 1, 0, 1]), np.zeros(4, int))
    (array([-1, -1,  0,  1]), array([0, 0, 1, 1]), array([-1,  0, -1, -1]))
    """
    latest, previous, spawned_by = {}, np.full(len(agent), -1), np.full(len(agent), -1)
    turn = np.zeros(len(agent), np.int64)
    for i, (session, who) in enumerate(zip(conversation.tolist(), agent.tolist(), strict=True)):
        before = latest.get((session, who), -1)
        if before >= 0:
            previous[i], turn[i] = before, turn[before] + 1
        elif who:
            spawned_by[i] = latest.get((session, 0), -1)
        latest[session, who] = i
    return previous, turn, spawned_by
