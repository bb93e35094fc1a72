"""Tokenise a data file into a workload, kept in the cache, and make traces of the workload.

A workload holds tokens and no times. Arrivals, a clock and a seed make a trace of it.

Tokenising is the heavy step. `tokens.parts` does it in parts, kept in the derived folder under a key of everything that
determines them: a killed run continues, and no two runs do the same part. `tokens.store` then joins the parts to arrays
that are mapped, not read. Another process opens a workload by its path.
"""

import functools
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from kvprefix.conversations.chats import Conversations, read_conversations
from kvprefix.files.paths import InputError, derived_folder
from kvprefix.files.sealed import expect_unchanged, make_once, read_sealed, seal_key, write_sealed
from kvprefix.files.shown import Shown
from kvprefix.tokens.arrays import Tokens
from kvprefix.tokens.messages import Messages
from kvprefix.tokens.parts import PART_VERSION, is_whole, make_parts
from kvprefix.tokens.store import join_parts, open_joined
from kvprefix.tokens.tokenizer import find_tokenizer
from kvprefix.traces.call_requests import NO_NOTES, describe_calls
from kvprefix.traces.clock import AtOnce, schedule_turns
from kvprefix.traces.parameters import Parameters, settle_arrivals
from kvprefix.traces.requests import count_refused, describe_all_refused, make_requests, take_first
from kvprefix.traces.table import TABLE
from kvprefix.traces.trace import LOG_COLUMNS, REQUEST_COLUMNS, Trace

OPTIONS = ("max_conversations", "drop_duplicates", "rejoin_split")  # arguments of `read_conversations`
MODES = ("single_turn", "multi_turn")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a workload is made from, with the names and checks of the table of parameters."""

    data: str = TABLE["data"].default
    tokenizer: str = TABLE["tokenizer"].default
    server: str = TABLE["server"].default
    max_conversations: int | None = TABLE["max_conversations"].default
    drop_duplicates: bool = TABLE["drop_duplicates"].default
    rejoin_split: bool = TABLE["rejoin_split"].default

    def __post_init__(self):
        for name, value in vars(self).items():
            object.__setattr__(self, name, TABLE[name].check(value))


@dataclass(frozen=True, repr=False)
class Workload(Shown):
    """Tokenised conversations, before any arrival time.

    Attributes
    ----------
    requests : pandas.DataFrame
        One row per multi-turn request, by conversation and turn: REQUEST_COLUMNS without `arrival_s`, and of a log with
        times or calls LOG_COLUMNS. Its index is the request's row in `tokens`.
    tokens : Tokens
        Their tokens, in files that are mapped.
    messages : Messages
        Those of every conversation, by `conversation_index`, or of every chain of calls, in files that are mapped.
    dataset : dict
        Name, checksum and counts of the data (`LoadCounts.as_dict`).
    tokenizer : dict
        Name, fingerprint, and whether it brought a chat template.
    source : Source
    manifest : pathlib.Path
        The file that lists its parts. A workload is pickled as this path, and another process maps the same files.
    """

    requests: pd.DataFrame
    tokens: Tokens
    messages: Messages
    dataset: dict
    tokenizer: dict
    source: Source
    manifest: Path

    def __reduce__(self):
        return _open_workload, (str(self.manifest.resolve()), self.dataset, self.tokenizer, self.source)

    def describe(self):
        """Return what was read, and its sizes."""
        return {
            "what": f"Tokenised conversations ({self.dataset['name']})",
            "conversations": f"{self.dataset['conversations']:,} of {self.dataset['records_read']:,} records",
            "requests": f"{len(self.requests):,} (multi-turn: one per message of a user, or call of a log)",
            "prompt tokens": f"{self.requests['prompt_tokens'].sum():,}",
            "tokenizer": self.tokenizer["name"] + ("" if self.tokenizer["has_template"] else ", without a template"),
        }

    def read_messages(self, conversation):
        """Return the messages of a conversation, by `conversation_index`, as (role, text); of calls, the last call's.
        """
        if self.messages.chains is None:
            return self.messages.read(conversation)
        last = self.requests.index[self.requests["conversation_index"] == conversation][-1]
        return self.messages.read(self.messages.chains[last])

    def single_turn(self, arrivals, seed=0):
        """Make a trace of one request per conversation: its system message if any, and its first user message.

        Conversations start at the same times as in `multi_turn`. For the parameters and the result see there.
        """
        chosen = self.requests[self.requests["turn"] == 0]
        return self._make_trace("single_turn", chosen, arrivals, AtOnce(), seed)

    def multi_turn(self, arrivals, clock, seed=0):
        """Make a trace of one request per user message, each with everything before it; or of every call of a log.

        Parameters
        ----------
        arrivals : Arrivals
            How conversations start: `Poisson(2.0)`.
        clock : Clock
            How the next turn follows: `Causal(think_median_s=60)`.
        seed : int

        Returns
        -------
        Trace
            In arrival order; ties by conversation, then turn.
        """
        return self._make_trace("multi_turn", self.requests, arrivals, clock, seed)

    def _make_trace(self, mode, chosen, arrivals, clock, seed):
        rng = np.random.default_rng(TABLE["seed"].check(seed))
        arrival = schedule_turns(chosen, arrivals, clock, rng)
        order = np.lexsort((chosen["turn"], chosen["conversation_index"], arrival))
        names = [*REQUEST_COLUMNS, *LOG_COLUMNS]
        there = [name for name in names if name in chosen or name == "arrival_s"]  # studies need no names
        requests = chosen.assign(arrival_s=arrival)[there].iloc[order]
        timing = arrivals.as_parameters("arrivals") | clock.as_parameters("clock")
        given = {**asdict(self.source), **timing, "seed": seed}
        info = {"mode": mode, "parameters": given, "dataset": self.dataset, "tokenizer": self.tokenizer}
        return Trace(requests.reset_index(drop=True), chosen.index.to_numpy()[order], self.tokens, info)


@dataclass(frozen=True, repr=False)
class Experiment(Workload):
    """A workload and the parameters of the measurements on it: the input of studies.

    Attributes
    ----------
    parameters : Parameters
    """

    parameters: Parameters

    def __reduce__(self):
        return _open_experiment, (*super().__reduce__()[1], self.parameters.with_absolute_files())


def make_trace(experiment, mode):
    """Make the trace of an experiment: its requests, with the times that its parameters determine.

    Parameters
    ----------
    experiment : Experiment
    mode : {"single_turn", "multi_turn"}

    Returns
    -------
    Trace
        As from `Workload.single_turn` or `Workload.multi_turn`; its `info` holds all parameters.
    """
    parameters = experiment.parameters
    if mode not in MODES:
        raise InputError(f"mode {mode!r} is not known; known: {', '.join(MODES)}")
    arrivals, seed = parameters.make("arrivals"), parameters.seed
    if mode == "single_turn":
        trace = experiment.single_turn(arrivals, seed)
    else:
        trace = experiment.multi_turn(arrivals, parameters.make("clock"), seed)
    return replace(trace, info={**trace.info, "parameters": parameters.describe_requests()})


def load_workload(parameters, *, progress=True):
    """Load the workload of some parameters from the cache; tokenise what is missing.

    Parameters
    ----------
    parameters : Parameters
    progress : bool
        Show a progress bar while tokenising.

    Returns
    -------
    Experiment

    Raises
    ------
    InputError
        As `tokenize`.
    """
    options = {name: getattr(parameters, name) for name in OPTIONS}
    chats = read_conversations(parameters.data, **options)
    workload = tokenize(chats, parameters.tokenizer, server=parameters.server, progress=progress)
    return Experiment(**vars(workload), parameters=settle_arrivals(parameters, workload.requests))


def tokenize(chats, tokenizer=TABLE["tokenizer"].default, *, server=TABLE["server"].default, progress=True):
    """Tokenise conversations with a tokenizer's own chat template; results of earlier runs come from the cache.

    Parameters
    ----------
    chats : Conversations
        As from `read_conversations`; or its input: a file or a list of conversations.
    tokenizer : str
        `bundled` (Qwen2.5), a Hugging Face hub id or a folder.
    server : str
        Whose rules make prompts of calls: `vllm` or `sglang`.
    progress : bool
        Show a progress bar while tokenising.

    Returns
    -------
    Workload

    Raises
    ------
    InputError
        Data or a tokenizer that cannot be used, with the reason; data that changes while it is read.
    """
    chats = chats if isinstance(chats, Conversations) else read_conversations(chats)
    source = Source(data=chats.given, tokenizer=tokenizer, server=server, **chats.options)
    tokenizer = find_tokenizer(source.tokenizer)
    versions = {name: metadata.version(name) for name in ("transformers", "tokenizers")}
    token_key = seal_key([tokenizer.fingerprint, versions, PART_VERSION])
    stamps = chats.stamps(shown=progress)
    sha256, size = chats.fingerprint(stamps)
    folder = derived_folder() / f"tokens-{token_key}"
    manifest_path = folder / f"workload-{seal_key([sha256, source.server, *chats.options.values()])}.json"
    manifest = None

    def read():
        nonlocal manifest
        manifest = read_sealed(manifest_path)
        joined = open_joined(folder, manifest["parts"], progress=progress) if manifest else None
        return joined and (manifest, joined)

    def make():
        nonlocal manifest
        damaged = [name for name in manifest["parts"] if not is_whole(folder / name)] if manifest else []
        if manifest is None or damaged:
            # Parts are named by their content, so parts of another state do no harm.
            with expect_unchanged(*stamps):
                manifest = make_parts(chats, (sha256, size), tokenizer, folder, server=source.server, progress=progress)
            manifest["dataset"] |= {"sha256": sha256, "bytes": size}
            write_sealed(manifest_path, manifest)
        return manifest, join_parts(folder, manifest["parts"], progress=progress)

    manifest, joined = make_once(folder, read, make)
    manifest["dataset"] = {"name": chats.name, **manifest["dataset"]}
    return _assemble(manifest, joined, source, manifest_path)


def _open_workload(manifest, dataset, tokenizer, source):
    """Open a workload that another process made or found whole, without data file and tokenizer."""
    made = take_first(_map_requests(Path(manifest)), source.max_conversations)
    return Workload(*made, dataset, tokenizer, source, Path(manifest))


def _open_experiment(*workload_and_parameters):
    *workload, parameters = workload_and_parameters
    return Experiment(**vars(_open_workload(*workload)), parameters=parameters)


@functools.lru_cache(maxsize=1)
def _map_requests(manifest):
    content = read_sealed(manifest)
    joined = open_joined(manifest.parent, content["parts"], check=False) if content else None
    if joined is None:
        raise InputError(f"{manifest}: its files were cut, altered or removed while they were in use")
    return make_requests(joined)


def _assemble(manifest, joined, source, path):
    """Make a workload from its joined parts."""
    if not len(joined.rows):
        raise InputError(describe_all_refused(joined.note, source))
    tokenizer = {
        "name": source.tokenizer,
        "sha256": manifest["tokenizer_sha256"],
        "has_template": joined.note["has_template"],
        "encoder": " and ".join(joined.note["encoders"]),
    }
    made = take_first(make_requests(joined), source.max_conversations)
    dataset = count_refused(manifest["dataset"], joined.note)
    if "calls" in dataset:
        dataset = describe_calls(dataset, joined.note.get("calls", NO_NOTES), made[0])
    return Workload(*made, dataset, tokenizer, source, path)
