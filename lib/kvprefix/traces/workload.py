"""From a data file to a tokenised workload, kept in the cache; from a workload to a trace.

Tokenising is the heavy step. It is done in parts (`parts`), kept in the derived folder under a key of everything that
determines them, so a killed run resumes and no run does it twice, nor do two at once. A workload's parts are then
joined to arrays that are mapped, not read (`tokenstore`). Another process opens a workload by where it is kept.
"""

import functools
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (pa.compute)

from kvprefix.conversations.load import locate_data
from kvprefix.files.paths import InputError, derived_folder
from kvprefix.files.sealed import (
    ChangedError,
    expect_unchanged,
    make_once,
    read_sealed,
    seal_key,
    stamp_file,
    write_sealed,
)
from kvprefix.tokens.arrays import Tokens
from kvprefix.tokens.parts import PART_VERSION, is_whole, make_parts, read_workload
from kvprefix.tokens.store import join_parts, open_joined
from kvprefix.tokens.tokenizer import find_tokenizer
from kvprefix.traces.arrivals import parse_arrivals, schedule_turns
from kvprefix.traces.trace import REQUEST_COLUMNS, Trace

MODES = ("single_turn", "multi_turn")


@dataclass(frozen=True)
class Workload:
    """Tokenised conversations, before any arrival time.

    Attributes
    ----------
    requests : pandas.DataFrame
        A row a multi-turn request, by conversation and turn: REQUEST_COLUMNS without `arrival_s`.
    tokens : Tokens
        Their tokens, row for row, in files that are mapped.
    dataset : dict
        Name, checksum and counts of the data (`LoadCounts.as_dict`).
    tokenizer : dict
        Name, fingerprint, and whether it brought a chat template.
    parameters : Parameters
    manifest : pathlib.Path
        What it was made of. Pickled, a workload is this path: the process that reads it maps the same files.
    """

    requests: pd.DataFrame
    tokens: Tokens
    dataset: dict
    tokenizer: dict
    parameters: object
    manifest: Path

    def __reduce__(self):
        manifest = str(self.manifest.resolve())
        return _open_workload, (manifest, self.dataset, self.tokenizer, self.parameters.with_absolute_files())

    def iterate_messages(self):
        """Read the conversations again from the data file: (`conversation_index`, messages) pairs.

        Raises
        ------
        ChangedError
            Where the file is another than the tokens were made of, or becomes one; then the last pair has been given.
        """
        stamp = stamp_file(locate_data(self.parameters.data))
        if stamp.sha256 != self.dataset["sha256"]:
            raise ChangedError(f"{stamp.path}: changed since its tokens were made; run again")
        with expect_unchanged(stamp):
            for index, conversation in enumerate(read_workload(self.parameters, stamp.path)):
                yield index, conversation.messages


def load_workload(parameters, *, progress=True):
    """Load a workload from the cache, tokenising what is not there.

    Parameters
    ----------
    parameters : Parameters
        `data`, `tokenizer`, `max_conversations`, `drop_duplicates` and `rejoin_split` determine the workload.
    progress : bool
        Show a progress bar while tokenising.

    Returns
    -------
    Workload

    Raises
    ------
    InputError
        Data or tokenizer that cannot be used, with the reason; data that changes while it is read.
    """
    path = locate_data(parameters.data)
    source = find_tokenizer(parameters.tokenizer)
    versions = {name: metadata.version(name) for name in ("transformers", "tokenizers")}
    token_key = seal_key([source.fingerprint, versions, PART_VERSION])
    options = [parameters.max_conversations, parameters.drop_duplicates, parameters.rejoin_split]
    stamp = stamp_file(path, shown=progress)
    folder = derived_folder() / f"tokens-{token_key}"
    manifest_path = folder / f"workload-{seal_key([stamp.sha256, *options])}.json"
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
            with expect_unchanged(stamp):  # parts are named by what they hold, so those of another state do no harm
                manifest = make_parts(parameters, path, source, folder, progress=progress)
            manifest["dataset"] |= {"sha256": stamp.sha256, "bytes": stamp.size}
            write_sealed(manifest_path, manifest)
        return manifest, join_parts(folder, manifest["parts"], progress=progress)

    manifest, joined = make_once(folder, read, make)
    manifest["dataset"] = {"name": path.name, **manifest["dataset"]}
    return _assemble(manifest, joined, parameters, manifest_path)


def _open_workload(manifest, dataset, tokenizer, parameters):
    """Open a workload that another process made or found whole: no data file and no tokenizer is needed."""
    return Workload(*_map_requests(Path(manifest)), dataset, tokenizer, parameters, Path(manifest))


@functools.lru_cache(maxsize=1)
def _map_requests(manifest):
    content = read_sealed(manifest)
    joined = open_joined(manifest.parent, content["parts"], check=False) if content else None
    if joined is None:
        raise InputError(f"{manifest}: what belongs to it was cut, altered or removed while it was worked on")
    return _make_requests(joined)


def _assemble(manifest, joined, parameters, path):
    """Make a workload of its joined parts."""
    if not len(joined.rows):
        reason = joined.note["first_refused"][1]
        raise InputError(f"tokenizer {parameters.tokenizer}: its chat template refuses every conversation: {reason}")
    tokenizer = {
        "name": parameters.tokenizer,
        "sha256": manifest["tokenizer_sha256"],
        "has_template": joined.note["has_template"],
    }
    dataset = _count_refused(manifest["dataset"], joined.note)
    return Workload(*_make_requests(joined), dataset, tokenizer, parameters, path)


def _count_refused(dataset, note):
    """Count conversations that the template refused as skipped; their index stays theirs, without requests.

    Late turns that it refused, and those after them, count as a repair of their conversations.
    """
    if note["late_turns"]:
        kind, (index, turn, _, reason) = "turns_refused_by_template_dropped", note["first_late"]
        dataset = {
            **dataset,
            "repaired": {**dataset["repaired"], kind: note["late_turns"]},
            "first_repaired": {kind: f"conversation {index}, turn {turn}: {reason}"},
        }
    if not note["refused"]:
        return dataset
    first, reason = note["first_refused"]
    return {
        **dataset,
        "skipped": {**dataset["skipped"], "refused_by_template": note["refused"]},
        "first_skipped": {**dataset["first_skipped"], "refused_by_template": f"conversation {first}: {reason}"},
        "conversations": dataset["conversations"] - note["refused"],
    }


def _make_requests(joined):
    """Return the table of requests and their tokens."""
    rows = {name: joined.rows[name].to_numpy() for name in joined.rows.column_names if name != "conversation_id"}
    turn, index = rows["turn"].astype(np.int64), rows["conversation"].astype(np.int64)
    own_offsets, output_offsets = (
        np.concatenate(([0], np.cumsum(rows[name], dtype=np.int64))) for name in ("own_tokens", "output_tokens")
    )
    parent = np.where(turn > 0, np.arange(len(turn)) - 1, -1)
    arrays = joined.arrays
    tokens = Tokens(
        parent, rows["shared_tokens"].astype(np.int64), own_offsets, arrays["own_tokens"], arrays["own_is_template"],
        output_offsets, arrays["output_tokens"],
    )  # fmt: skip
    requests = pd.DataFrame({
        "request_id": _name_requests(joined.rows["conversation"], joined.rows["turn"]),
        "conversation_index": index,
        "conversation_id": joined.rows["conversation_id"].to_pandas(),
        "turn": turn,
        "prompt_tokens": tokens.prompt_lengths(),
        "output_tokens": np.diff(output_offsets),
        "messages": rows["messages"].astype(np.int64),
    })  # fmt: skip
    return requests, tokens


def _name_requests(conversation, turn):
    """Return `c{conversation}t{turn}` of every request."""
    texts = ["c", conversation.cast(pa.string()), "t", turn.cast(pa.string()), ""]  # the last one separates: nothing
    return pa.compute.binary_join_element_wise(*texts).to_pandas()


def make_trace(workload, mode):
    """Give a workload's requests their arrival times.

    Parameters
    ----------
    workload : Workload
    mode : {"single_turn", "multi_turn"}
        One request a conversation (its system message if any, and its first user message), or one a user message
        with everything before it.

    Returns
    -------
    Trace
        In arrival order; ties by conversation, then turn. Conversations start at the same times in both modes.
    """
    if mode not in MODES:
        raise InputError(f"mode {mode!r} is not known; known: {', '.join(MODES)}")
    parameters = workload.parameters
    chosen = workload.requests
    if mode == "single_turn":
        chosen = chosen[chosen["turn"] == 0]
    rng = np.random.default_rng(parameters.seed)
    starts = parse_arrivals(parameters.arrivals)
    arrival = schedule_turns(chosen, parameters.arrival_rate, parameters.timing(), rng, starts)
    order = np.lexsort((chosen["turn"], chosen["conversation_index"], arrival))
    requests = chosen.assign(arrival_s=arrival)[REQUEST_COLUMNS].iloc[order]
    info = {
        "mode": mode,
        "parameters": parameters.as_dict(),
        "dataset": workload.dataset,
        "tokenizer": workload.tokenizer,
    }
    return Trace(requests.reset_index(drop=True), chosen.index.to_numpy()[order], workload.tokens, info)
