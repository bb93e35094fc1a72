"""Collect the requests of sessions from any format, and make a SessionTrace of them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kvprefix.blocks.listed import number_chains
from kvprefix.blocks.prefix_trace import PrefixError, PrefixTrace, number_blocks
from kvprefix.blocks.sessions import NOTHING, UNKNOWN, SessionTrace, link_agents
from kvprefix.files.words import count

_FIRST_NAME = 3 << 62  # of the numbers that stand for texts; an id of 64 bits is one of them with a chance below 1e-12


class Request(NamedTuple):
    """A request of a session, whose ids are kept apart.

    Attributes
    ----------
    time_s : float
        Seconds from the session's start.
    service_s : float
        Seconds until its answer is whole; NaN if unknown.
    prompt_tokens, output_tokens : int
    agent : int
        0 for the main agent.
    after : int
        What it follows: TOOL, PERSON or UNKNOWN, see `blocks.sessions`.
    line : int
        Its place in the file.
    """

    time_s: float
    service_s: float
    prompt_tokens: int
    output_tokens: int
    agent: int = 0
    after: int = UNKNOWN
    line: int = 0


@dataclass
class Clockwork:
    """The service time of requests whose log has none: ``ttft_s + output_tokens * time_per_output_token_s``."""

    ttft_s: float
    time_per_output_token_s: float

    def serve(self, output_tokens):
        """Return the service time in seconds."""
        return self.ttft_s + self.time_per_output_token_s * output_tokens


class SessionRows:
    """Sessions as they are read.

    Parameters
    ----------
    block_size : int
        Tokens.
    is_local : bool
        Whether ids are comparable within one session only.
    """

    def __init__(self, block_size, is_local):
        self.block_size, self.is_local = block_size, is_local
        self.requests, self.session, self.ids, self.lengths = [], [], [], []
        self.n_sessions, self.chained, self.n_blocks, self.names = 0, 0, 0, {}

    def add(self, requests, lists):
        """Take in a session.

        Parameters
        ----------
        requests : sequence of Request
        lists : sequence of (n,) ndarrays of uint64, or of lists
            Each request's ids: whole numbers, or texts.
        """
        lists = self.name_all(lists)
        order = sorted(range(len(requests)), key=lambda k: requests[k].time_s)
        requests, lists = [requests[k] for k in order], [lists[k] for k in order]
        self.requests += requests
        self.session += [self.n_sessions] * len(requests)
        self.lengths += map(len, lists)
        ids = np.concatenate([np.zeros(0, np.int64), *lists])
        if self.is_local:
            ids = self._number(ids, np.cumsum([0, *map(len, lists)])) + self.n_blocks
            self.n_blocks = max(self.n_blocks, int(ids.max(initial=-1)) + 1)
        self.ids.append(ids)
        self.n_sessions += 1

    def name_all(self, lists):
        """Return lists of ids of any kind as (n,) ndarrays of int64."""
        return [one.view(np.int64) if isinstance(one, np.ndarray) else self._name(one) for one in lists]

    def _name(self, ids):
        """Return numbers of ids of any kind; a whole number of 64 bits is its own."""
        known = self.names
        numbers = [
            one if isinstance(one, int) and 0 <= one < 2**64 else known.setdefault(one, _FIRST_NAME + len(known))
            for one in ids
        ]
        return np.array(numbers, np.uint64).view(np.int64)

    def _number(self, ids, offsets):
        """Return dense ids as first seen; ids that name a block's own tokens are told apart, and counted."""
        try:
            return number_blocks(ids, offsets)[0].astype(np.int64)
        except PrefixError:
            self.chained += 1
            return number_chains(ids, offsets)[0].astype(np.int64)

    def make_trace(self, clockwork, info, *, starts_s=None, is_timed=True):
        """Return the SessionTrace of all sessions.

        Parameters
        ----------
        clockwork : Clockwork
        info : dict
            With `notes`, to which what was put right is added.
        starts_s : sequence of float, optional
            When each session starts.
        is_timed : bool
            Whether there are any times.
        """
        columns = map(np.array, zip(*self.requests, strict=True))
        time_s, service_s, prompt_tokens, output_tokens, agent, after, line = columns
        session, offsets = np.array(self.session), np.cumsum([0, *self.lengths])
        ids, parent, depth = self._number_all(offsets)
        previous, turn, spawned_by = link_agents(agent, session)
        missing = np.isnan(service_s)
        latest = np.where(missing, clockwork.serve(output_tokens), service_s)
        service_s = np.where(missing, np.minimum(latest, _time_to_next(time_s, previous)), service_s)
        info["is_local"] = self.is_local
        self._tell(info["notes"], missing if is_timed else missing[:0], prompt_tokens)
        accesses = PrefixTrace(
            block_size=self.block_size, ids=ids, offsets=offsets, parent=parent, depth=depth,
            last_weight=weigh_last(prompt_tokens, offsets, self.block_size), prompt_tokens=prompt_tokens,
            arrival_s=time_s, finish_s=time_s + service_s, conversation=session, info=info,
            output_tokens=output_tokens, previous=previous, turn=turn,
        )  # fmt: skip
        after = np.where(previous < 0, NOTHING, after).astype(np.int8)
        starts_s = None if starts_s is None else np.array(starts_s, float)
        return SessionTrace(
            accesses=accesses, agent=agent, spawned_by=spawned_by, after=after, line=line, starts_s=starts_s,
            is_timed=is_timed,
        )  # fmt: skip

    def _number_all(self, offsets):
        ids = np.concatenate(self.ids)
        try:
            return number_blocks(ids, offsets)
        except PrefixError:
            self.chained += 1
            return number_chains(ids, offsets)

    def _tell(self, notes, missing, prompt_tokens):
        if self.chained:
            where = f"in {count(self.chained, 'session')}" if self.is_local else "in this file"
            notes.append(f"{where} block ids follow several blocks: with all that precede them they are told apart")
        if missing.any():
            n = count(int(missing.sum()), "request")
            said = "taken from ttft_s and time_per_output_token_s, at most until the next request"
            notes.append(f"{n} without a service time: {said}")
        if not prompt_tokens.all():
            n = count(int(np.count_nonzero(prompt_tokens == 0)), "request")
            notes.append(f"{n} without tokens: kept, can hit nothing")


def _time_to_next(time_s, previous):
    """Return the seconds until the request that follows each one; infinite for none."""
    following = np.full(len(time_s), np.inf)
    later = np.flatnonzero(previous >= 0)
    following[previous[later]] = time_s[later] - time_s[previous[later]]
    return following


def weigh_last(prompt_tokens, offsets, block_size):
    """Return the tokens that a hit of each request's last block saves: all of it if it is full, else what it holds."""
    blocks = np.diff(offsets)
    return np.where(blocks > 0, np.minimum(prompt_tokens - block_size * (blocks - 1), block_size), 0)
