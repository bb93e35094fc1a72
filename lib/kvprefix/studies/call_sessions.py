"""Agents' sessions out of a log of calls: what the study of sessions takes, made of a workload.

A sub-agent's calls are a conversation of their own, and belong to the session that started it if the log tells that.
"""

from dataclasses import dataclass, replace

import numpy as np

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.blocks.sessions import NOTHING, PERSON, TOOL, gather_sessions, link_agents
from kvprefix.studies.experiment import SessionExperiment, brings_tools, find_kind, load_experiment
from kvprefix.studies.table import draw, draw_stretches, draw_trace
from kvprefix.traces.workload import Experiment, load_workload, make_trace


@dataclass(frozen=True)
class CallSessions(SessionExperiment):
    """Sessions of calls, which are drawn as their workload's requests are.

    Attributes
    ----------
    workload : Experiment
    session, agent : (n_conversations,) ndarray of int64
        Of each conversation of the workload: its session, and 0 for the main agent, 1, 2, ... for sub-agents.
    """

    workload: Experiment
    session: np.ndarray
    agent: np.ndarray

    @property
    def tokenizer(self):
        """The workload's."""
        return self.workload.tokenizer

    def say_times(self):
        """Return how requests arrive, a list of one text; none if they do at the log's own times."""
        arrivals, clock = (self.parameters.make(name) for name in ("arrivals", "clock"))
        return [] if arrivals.of_requests else [f"{arrivals}; {clock.describe()}".replace("conversations", "sessions")]

    def draw(self, block_size, **changes):
        """Return the PrefixTrace at the times that changed parameters give, the seed above all."""
        accesses = draw(self.workload, block_size, **changes)
        session = self.session[accesses.conversation]
        previous, turn, _ = link_agents(self.agent[accesses.conversation], session)
        after_tool = draw_trace(self.workload, **changes).column("after_tool")
        after = follow(previous, after_tool)
        return replace(accesses, conversation=session, previous=previous, turn=turn, after=after)

    def draw_stretches(self, block_size, **changes):
        """Return the same by stretches of blocks, as a StretchTrace."""
        return draw_stretches(self.workload, block_size, **changes)


def load_sessions(parameters):
    """Load the agents' sessions that `DATA` names: of a trace of block ids, or of a log of calls.

    Parameters
    ----------
    parameters : Parameters

    Returns
    -------
    SessionExperiment
    """
    if find_kind(parameters) == "blocks":
        return load_experiment(parameters)
    return take_sessions(load_workload(parameters))


def find_sessions(workload):
    """Return the agents' sessions of a workload, as `take_sessions`; the workload itself if no request brings a tool's.
    """
    is_of_calls = not isinstance(workload, SessionExperiment) and brings_tools(workload.requests)
    return take_sessions(workload) if is_of_calls else workload


def take_sessions(workload):
    """Return the sessions of a log of calls, an Experiment, as CallSessions.

    Their times are those of one draw, or the log's own.
    """
    trace, (session, agent) = make_trace(workload, "multi_turn"), find_agents(workload.requests)
    accesses = make_prefix_trace(trace, workload.parameters.block_size)
    session_of = session[accesses.conversation]
    sessions = gather_sessions(replace(accesses, output_tokens=trace.column("output_tokens"), conversation=session_of))
    conversation, after_tool = (trace.column(name)[sessions.line] for name in ("conversation_index", "after_tool"))
    agents = agent[conversation]
    previous, turn, spawned_by = link_agents(agents, sessions.accesses.conversation)
    after = follow(previous, after_tool)
    sessions = replace(
        sessions, accesses=replace(sessions.accesses, previous=previous, turn=turn), agent=agents, after=after,
        spawned_by=spawned_by,
    )  # fmt: skip
    dataset = {**workload.dataset, "path": workload.source.data, "notes": []}
    return CallSessions(workload.parameters, sessions, dataset, workload, session, agent)


def follow(previous, after_tool):
    """Return what each request follows, as `SessionTrace.after`."""
    return np.where(previous < 0, NOTHING, np.where(after_tool, TOOL, PERSON)).astype(np.int8)


def find_agents(requests):
    """Return the session of each conversation, and its agent's number in it: sub-agents belong to who started them.

    Parameters
    ----------
    requests : pandas.DataFrame
        `conversation_index`, `conversation_id` and `parent_session`, by conversation.

    Returns
    -------
    session, agent : (n_conversations,) ndarrays of int64
        Sessions are numbered by their main agents' conversations; agent 0 is a main one.

    Examples
    --------
    >>> import pandas as pd
    >>> find_agents(pd.DataFrame({"conversation_index": [0, 1, 1, 2], "conversation_id": ["a", "s", "s", "b"],
    ...                           "parent_session": [None, "b", "b", None]}))
    (array([0, 1, 1]), array([0, 1, 0]))
    """
    first = requests.groupby("conversation_index")[["conversation_id", "parent_session"]].first()
    known = {name: k for k, name in enumerate(first["conversation_id"])}
    parent = [known.get(name, -1) if isinstance(name, str) else -1 for name in first["parent_session"]]
    main = np.arange(len(parent))
    for k in range(len(parent)):
        seen = {k}
        while (above := parent[main[k]]) >= 0 and above not in seen:
            main[k] = above
            seen.add(above)
    agent, counts = np.zeros(len(main), np.int64), {}
    for k in np.flatnonzero(main != np.arange(len(main))):
        agent[k] = counts[main[k]] = counts.get(main[k], 0) + 1
    return np.unique(main, return_inverse=True)[1], agent
