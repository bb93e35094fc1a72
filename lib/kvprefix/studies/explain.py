"""Origins and causes of whatever the report takes, at several capacities: what commands and notebooks show.

Chats, and traces of token ids, are explained token by token; of a trace of block ids, only what ids tell.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kvprefix.cache.cluster.replay import SERVICE
from kvprefix.engines.registry import ENGINES
from kvprefix.explain.listed import (
    INFERRED,
    find_listed_misses,
    find_listed_provenance,
    group_by_links,
    infer_links,
)
from kvprefix.explain.misses import classify, find_misses, know
from kvprefix.explain.provenance import find_provenance
from kvprefix.explain.routing import make_routing
from kvprefix.explain.said import Said, read_said
from kvprefix.explain.walks import make_walks
from kvprefix.explain.writers import find_writers
from kvprefix.files.checks import check_choice
from kvprefix.files.paths import InputError, resolve_input
from kvprefix.files.words import count
from kvprefix.formats.lookup import recognise
from kvprefix.studies.explain_traces import read_blocks, read_tokens, take_first
from kvprefix.traces.trace import Trace
from kvprefix.traces.workload import MODES, load_workload, make_trace

TRACES = ("requests", "parquet", "engine")  # formats whose requests are prompts as they were sent, at their own times
ONE_CONVERSATION = "the data are one conversation: nothing can come from another one"
LOCAL = "ids are comparable within one session: what another one shares is not known"
NO_REUSE = "no prompt begins with a block of an earlier one: there is no hit to explain"


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What is to be explained.

    Attributes
    ----------
    trace : Trace or PrefixTrace
    block_size : int
    said : Said or None
        Who wrote what, if the data are chats.
    workload : Workload or None
        Of chats.
    is_inferred : bool
        Whether the conversations of a trace of token ids are inferred, see `listed.infer_links`.
    """

    trace: object
    block_size: int
    said: Said | None = None
    workload: object = None
    is_inferred: bool = False

    def __len__(self):
        return len(self.trace)

    @cached_property
    def walks(self):
        """The Walks of the trace's requests."""
        return make_walks(self.trace)

    @cached_property
    def writers(self):
        """The Writers of the trace's tokens."""
        return find_writers(self.trace.tokens, self.said)

    @property
    def has_tokens(self):
        """Whether the tokens are known, not only the ids of blocks."""
        return isinstance(self.trace, Trace)

    @property
    def conversation(self):
        """The conversation of each request, (n_requests,) int64."""
        found = self.trace.column("conversation_index") if self.has_tokens else self.trace.conversation
        return found.astype(np.int64)

    def read_notes(self):
        """Return what was put right, or inferred, when the data were read."""
        said = [] if self.has_tokens else self.trace.info.get("notes", [])
        return [*said, *[INFERRED] * self.is_inferred]

    def notes(self):
        """Return what a reader should know of the data before the numbers."""
        local = [LOCAL] * (not self.has_tokens and self.trace.info.get("is_local", False))
        salted = 0 if self.workload is None else self.workload.dataset.get("noted", {}).get("cache salts", 0)
        apart = [f"{count(salted, 'request')} with a cache_salt: not kept, they share as if without"] * (salted > 0)
        return [*self.read_notes(), *local, *apart, *[ONE_CONVERSATION] * (len(np.unique(self.conversation)) == 1)]


def open_data(parameters, mode="multi_turn", *, progress=True, heeded=()):
    """Open whatever DATA names.

    Parameters
    ----------
    parameters : Parameters
    mode : {"multi_turn", "single_turn"}
        Of chats.
    progress : bool
    heeded : sequence of str
        Names of parameters that the caller heeds, though a trace has its own requests.

    Returns
    -------
    Explained

    Raises
    ------
    InputError
        Data that cannot be used, with the reason.
    """
    check_choice(mode, "mode", MODES)
    path = resolve_input(parameters.data)
    found = None if parameters.data == "bundled" else recognise(path)
    if found is not None and found.holds == "blocks":
        trace = read_blocks(found, path, parameters, mode, heeded)
        return Explained(trace=trace, block_size=trace.block_size)
    if found is not None and found.name in TRACES:
        trace = read_tokens(found, path, parameters, mode, heeded)
        return open_tokens(trace, parameters.block_size, parameters.max_conversations)
    return open_workload(load_workload(parameters, progress=progress), mode)


def open_tokens(trace, block_size, max_conversations=None):
    """Return the Explained of a Trace of token ids; if each request is a conversation of its own, they are inferred."""
    if len(np.unique(trace.column("conversation_index"))) < len(trace):
        return Explained(trace=take_first(trace, max_conversations), block_size=block_size)
    groups = group_by_links(infer_links(trace.blocks(block_size)))
    named = replace(trace, requests=trace.requests.assign(conversation_index=groups))
    return Explained(trace=take_first(named, max_conversations), block_size=block_size, is_inferred=True)


def open_workload(workload, mode="multi_turn"):
    """Return the Explained of a workload's requests."""
    return explain_trace(workload, make_trace(workload, mode))


def explain_trace(workload, trace):
    """Return the Explained of a Trace of a workload's requests."""
    size = workload.parameters.block_size
    return Explained(trace=trace, block_size=size, said=read_said(workload), workload=workload)


def explain_provenance(data, *, outputs=False, capacity=None, policy="lru"):
    """Find the origins of cached tokens.

    Parameters
    ----------
    data : Explained
    outputs : bool
        Whether generated tokens are cached.
    capacity : int, optional
        Blocks of the cache; nothing is evicted if not given.
    policy : str or Policy

    Returns
    -------
    Provenance or ListedProvenance

    Raises
    ------
    InputError
        As `cache.replay.replay`; or `outputs` of a trace of block ids.
    """
    if data.has_tokens:
        found = find_provenance(
            data.trace, data.block_size, data.said, outputs=outputs, capacity=capacity, policy=policy, walks=data.walks,
            writers=data.writers,
        )  # fmt: skip
    else:
        _refuse(outputs and "--outputs-cached: the tokens of replies are not known")
        found = find_listed_provenance(data.trace, capacity=capacity, policy=policy)
    found.notes.extend([*data.notes(), *([] if found.hit_tokens.any() else [NO_REUSE])])
    return found


def explain_misses(
    data, capacities, *, outputs=False, policy="lru", router=None, replicas=1, seed=0, service=SERVICE
):
    """Find the causes of missed tokens in caches of several sizes.

    Parameters
    ----------
    data : Explained
    capacities : sequence of int or None
        Blocks of each cache; None if nothing is evicted.
    outputs : bool
    policy : str or Policy
    router : str, optional
        How requests are spread over replicas, of `cache.cluster.routers.ROUTERS`; `session` if not given.
    replicas, seed : int
        Each has a cache of that capacity; the seed is of a router that chooses at random.
    service : Service
        How long requests are outstanding for a router.

    Returns
    -------
    list of Misses
        One per capacity.
    """
    routing = None
    if replicas != 1 or router:
        routing = make_routing(router or "session", replicas, seed=seed, service=service)
    if not data.has_tokens:
        _refuse(outputs and "--outputs-cached: the tokens of replies are not known")
        return list(find_listed_misses(data.trace, capacities, policy=policy, routing=routing))
    known = _know(data, outputs)
    return list(find_misses(known, capacities, policy=policy, routing=routing))


def explain_engine(data, engine, blocks=None):
    """Find the causes of what an engine misses: the hits are those of its replay, and generated tokens are cached.

    Parameters
    ----------
    data : Explained
    engine : str
        A name in ENGINES.
    blocks : int, optional
        Of its pool; unlimited if not given.

    Returns
    -------
    Misses
        `capacity` is the pool. A prompt that never fits hits nothing.
    """
    _refuse(not data.has_tokens and "--engine: an engine replays tokens")
    replayer = ENGINES[check_choice(engine, "engine", ENGINES)].make(block_size=data.block_size, blocks=blocks)
    known = _know(data, True)
    replayed = replayer.replay(data.trace)
    hit = np.maximum(replayed.hit_tokens, 0)
    usable = None if blocks is None else max(blocks - replayer.null_blocks, 1)
    (best,) = (one.part("hit") for one in find_misses(known, [usable], policy="opt"))
    found = classify(known, hit, hit, best, capacity=blocks, policy=replayer.label)
    found.notes.append("generated tokens are cached, as an engine does")
    never = int((replayed.hit_tokens < 0).sum())
    found.notes.extend([f"{count(never, 'prompt')} never fit into the pool, and hit nothing"] if never else [])
    return found


def _know(data, outputs):
    return know(
        data.trace, data.block_size, data.said, outputs=outputs, walks=data.walks, writers=data.said and data.writers
    )


def _refuse(reason):
    if reason:
        raise InputError(f"{reason}; the data list block ids")
