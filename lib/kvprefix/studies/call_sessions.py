"""Agents' sessions out of a log of calls: what the study of sessions takes, made of a workload.

A sub-agent is a session of its own, as logs have it.
"""

from dataclasses import dataclass, replace

import numpy as np

from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.blocks.sessions import NOTHING, PERSON, TOOL, gather_sessions, link_agents
from kvprefix.studies.experiment import SessionExperiment, find_kind, load_experiment
from kvprefix.studies.table import draw, draw_stretches
from kvprefix.traces.workload import Experiment, load_workload, make_trace


@dataclass(frozen=True)
class CallSessions(SessionExperiment):
    """Sessions of calls, which are drawn as their workload's requests are.

    Attributes
    ----------
    workload : Experiment
    """

    workload: Experiment

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
        previous, turn, _ = link_agents(np.zeros(len(accesses), np.int64), accesses.conversation)
        return replace(accesses, previous=previous, turn=turn)

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


def take_sessions(workload):
    """Return the sessions of a log of calls, an Experiment, as CallSessions.

    Their times are those of one draw, or the log's own.
    """
    trace = make_trace(workload, "multi_turn")
    accesses = make_prefix_trace(trace, workload.parameters.block_size)
    sessions = gather_sessions(replace(accesses, output_tokens=trace.column("output_tokens")))
    after_tool = trace.column("after_tool")[sessions.line]
    after = np.where(sessions.accesses.previous < 0, NOTHING, np.where(after_tool, TOOL, PERSON)).astype(np.int8)
    dataset = {**workload.dataset, "path": workload.source.data, "notes": []}
    return CallSessions(workload.parameters, replace(sessions, after=after), dataset, workload)
