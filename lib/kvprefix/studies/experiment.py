"""An experiment on a trace of sessions: what stands in the place of a workload where its requests list block ids.

The studies that draw a workload's requests at other times (`studies.table`: the seed, the arrivals, the think times)
draw these too. Its tokens are not known, so its blocks have one size, and no study of texts or tokens can have it.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from kvprefix.blocks.sessions import SessionTrace
from kvprefix.blocks.stretch_blocks import stretch_trace
from kvprefix.files.paths import InputError, resolve_input
from kvprefix.files.sealed import seal_key, sha256_file
from kvprefix.formats.documents import list_files
from kvprefix.formats.lookup import lists_blocks
from kvprefix.formats.read import read_sessions
from kvprefix.formats.timing import Timing
from kvprefix.traces.parameters import Parameters, settle_arrivals
from kvprefix.traces.table import SESSION_NAMES, TABLE


@dataclass(frozen=True)
class SessionExperiment:
    """A trace of sessions, and the parameters by which its sessions start.

    Attributes
    ----------
    parameters : Parameters
        `block_size` is the trace's own. Of those in SESSION_NAMES, the ones that differ from their defaults say when
        sessions start and requests follow; otherwise the trace does, as far as it tells.
    sessions : SessionTrace
    dataset : dict
        `path`, `sha256` (of a folder: a key of all its files'), `conversations` (the number of sessions), `notes`.
    """

    parameters: Parameters
    sessions: SessionTrace
    dataset: dict

    @property
    def tokenizer(self):
        """None is known: what stands in the key of a study's table."""
        return {"name": "block ids", "sha256": "block ids"}

    @cached_property
    def requests(self):
        """The requests, session after session: `prompt_tokens`, `output_tokens`, `conversation_index`, `turn`."""
        one = self.sessions.accesses
        return pd.DataFrame({
            "conversation_index": one.conversation, "turn": one.turn, "prompt_tokens": one.prompt_tokens,
            "output_tokens": one.output_tokens,
        })  # fmt: skip

    @property
    def timing(self):
        """The Timing that its parameters describe."""
        return make_timing(self.parameters)

    def say_times(self):
        """Return how its sessions start and their requests follow, where the trace does not tell it: a list of texts.
        """
        return self.timing.say(self.sessions)

    def draw(self, block_size, **changes):
        """Return the PrefixTrace at the times that changed parameters give, the seed above all."""
        if block_size != self.sessions.accesses.block_size:
            raise InputError(
                f"{self.dataset['path']}: lists blocks of {self.sessions.accesses.block_size} tokens; {block_size} "
                "cannot be made of them"
            )
        return make_timing(replace(self.parameters, **changes)).arrange(self.sessions)

    def draw_stretches(self, block_size, **changes):
        """Return the same by stretches of blocks, as a StretchTrace."""
        return stretch_trace(self.draw(block_size, **changes))


def find_kind(parameters):
    """Return what the data of a report are: `blocks` if they list block ids, else `tokens`."""
    return "blocks" if parameters.data != "bundled" and lists_blocks(resolve_input(parameters.data)) else "tokens"


def make_timing(parameters):
    """Return the Timing that parameters describe: those that differ from their defaults, and the seed."""
    values = {name: getattr(parameters, name) for name in SESSION_NAMES}
    return Timing({name: one for name, one in values.items() if one != TABLE[name].default or name == "seed"})


def load_study(parameters):
    """Load what `DATA` names: a Workload of chats, or a SessionExperiment of a trace of block ids."""
    if find_kind(parameters) == "blocks":
        return load_experiment(parameters)
    from kvprefix.traces.workload import load_workload

    return load_workload(parameters)


def holds_sessions(parameters):
    """Say whether the data of a report are agents' sessions: lists of block ids, or calls that bring tools' results."""
    if find_kind(parameters) == "blocks" or parameters.data == "bundled":
        return parameters.data != "bundled"
    return brings_tools(load_study(parameters).requests)


def brings_tools(requests):
    """Say whether any of a workload's requests brings a tool's result."""
    return "after_tool" in requests and bool(requests["after_tool"].any())


def fit_parameters(parameters):
    """Return the parameters of a report with what its data settle: their block size, or whose times they have."""
    if find_kind(parameters) == "blocks":
        return load_experiment(parameters).parameters
    is_logged = parameters.make("arrivals").of_requests
    if not is_logged and (parameters.data == "bundled" or parameters.arrivals != "auto"):
        return settle_arrivals(parameters)
    from kvprefix.traces.workload import load_workload

    workload = load_workload(parameters)
    if is_logged:
        workload.parameters.make("arrivals").draw_all(workload.requests)  # it says what is missing
    return workload.parameters


def load_experiment(parameters):
    """Load a trace of sessions that `DATA` names.

    Parameters
    ----------
    parameters : Parameters

    Returns
    -------
    SessionExperiment

    Raises
    ------
    InputError
        As `formats.read.read_sessions`.
    """
    path = resolve_input(parameters.data)
    sessions = read_sessions(path, timing=make_timing(parameters))
    if parameters.max_conversations is not None:
        sessions = sessions.select(sessions.accesses.conversation < parameters.max_conversations)
    trace = sessions.accesses
    sums = [sha256_file(file) for file in list_files(path)[0]]
    dataset = {
        "path": parameters.data, "sha256": sums[0] if len(sums) == 1 else seal_key(sums),
        "conversations": sessions.n_sessions, "notes": trace.info["notes"],
    }  # fmt: skip
    return SessionExperiment(replace(parameters, block_size=trace.block_size), sessions, dataset)
