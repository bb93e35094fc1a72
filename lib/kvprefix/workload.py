"""From a data file to a tokenised workload, kept in the cache; from a workload to a trace.

Tokenising is the heavy step. It is done in parts of a few hundred conversations, each kept in the derived folder
under a key of everything that determines it, so a killed run resumes and no run does it twice. A workload's parts are
then joined to arrays that are mapped, not read (`tokenstore`).
"""

import hashlib
import io
import json
from dataclasses import dataclass
from importlib import metadata
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (pa.compute)
from pyarrow import feather
from tqdm.auto import tqdm

from kvprefix.arrivals import parse_arrivals, schedule_turns
from kvprefix.conversations import LoadCounts, locate_data, read_conversations
from kvprefix.files import InputError, derived_folder, read_sealed, seal_key, sha256_file, write_bytes, write_sealed
from kvprefix.tokenizer import find_tokenizer
from kvprefix.tokens import Tokens
from kvprefix.tokenstore import join_parts, open_joined
from kvprefix.trace import REQUEST_COLUMNS, Trace

MODES = ("single_turn", "multi_turn")
PART_CONVERSATIONS = 1024
PART_VERSION = 4  # raise when the meaning or the form of a part changes


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
    """

    requests: pd.DataFrame
    tokens: Tokens
    dataset: dict
    tokenizer: dict
    parameters: object

    def iterate_messages(self):
        """Read the conversations again from the data file: (`conversation_index`, messages) pairs."""
        conversations = _read(self.parameters, locate_data(self.parameters.data))
        return ((index, conversation.messages) for index, conversation in enumerate(conversations))


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
        Data or tokenizer that cannot be used, with the reason.
    """
    path = locate_data(parameters.data)
    source = find_tokenizer(parameters.tokenizer)
    versions = {name: metadata.version(name) for name in ("transformers", "tokenizers")}
    token_key = seal_key([source.fingerprint, versions, PART_VERSION])
    options = [parameters.max_conversations, parameters.drop_duplicates, parameters.rejoin_split]
    data_sha256 = sha256_file(path, shown=progress)
    folder = derived_folder() / f"tokens-{token_key}"
    manifest_path = folder / f"workload-{seal_key([data_sha256, *options])}.json"
    manifest = read_sealed(manifest_path)
    joined = open_joined(folder, manifest["parts"], progress=progress) if manifest else None
    if joined is None:
        damaged = [name for name in manifest["parts"] if not _is_whole(folder / name)] if manifest else []
        if manifest is None or damaged:
            manifest = _make_parts(parameters, path, source, folder, progress)
            manifest["dataset"] |= {"sha256": data_sha256, "bytes": path.stat().st_size}
            write_sealed(manifest_path, manifest)
        joined = join_parts(folder, manifest["parts"], progress=progress)
    manifest["dataset"] = {"name": path.name, **manifest["dataset"]}
    return _assemble(manifest, joined, parameters)


def _is_whole(file):
    """Return whether a part's bytes have the checksum that its name ends with; remove it where they have not."""
    if file.exists() and sha256_file(file)[:16] == file.stem.rpartition("-")[2]:
        return True
    tqdm.write(f"{file.name}: this cached part was cut, altered or removed; making it again")
    file.unlink(missing_ok=True)
    return False


def _read(parameters, path, counts=None):
    return read_conversations(
        path,
        max_conversations=parameters.max_conversations,
        drop_duplicates=parameters.drop_duplicates,
        rejoin_split=parameters.rejoin_split,
        counts=counts,
    )


def _make_parts(parameters, path, source, folder, progress):
    """Tokenise the parts that are not there yet; return the manifest of all."""
    counts, parts, chat = LoadCounts(), [], None
    size = path.stat().st_size
    bar = tqdm(total=size, unit="B", unit_scale=True, desc="tokenising", disable=not progress, leave=False)
    conversations = _read(parameters, path, counts)
    with bar:
        while part := list(islice(conversations, PART_CONVERSATIONS)):
            digest = hashlib.blake2b(b"".join(c.id.encode() + c.digest for c in part), digest_size=16).hexdigest()
            kept = [file.name for file in folder.glob(f"part-{digest}-*.arrow") if _is_whole(file)]
            if not kept:
                chat = chat or _load_chat(source)
                kept = [_encode_part(part, chat, folder / f"part-{digest}")]
            parts.append(kept[0])
            bar.update(counts.reading.bytes_read - bar.n)
    if not parts:
        raise InputError(_describe_nothing_usable(path, counts))
    return {"parts": parts, "dataset": counts.as_dict(), "tokenizer_sha256": source.fingerprint}


def _load_chat(source):
    from kvprefix.template import load_chat

    return load_chat(source)


def _encode_part(part, chat, stem):
    """Tokenise and keep a part; return the name of its file, which ends with the checksum of its content."""
    from kvprefix.chat import encode_conversations

    table, refused = encode_conversations(part, chat)
    note = {"refused": refused, "conversations": len(part), "has_template": chat.has_template}
    table = table.replace_schema_metadata({"kvprefix": json.dumps(note)})
    content = io.BytesIO()
    feather.write_feather(table, content, compression="lz4")
    file = stem.with_name(f"{stem.name}-{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.arrow")
    write_bytes(file, content.getvalue())
    return file.name


def _describe_nothing_usable(path, counts):
    reasons = "; ".join(f"{n} {reason} (first: {counts.first_skipped[reason]})" for reason, n in counts.skipped.items())
    cut = f"; the file is cut at byte {counts.reading.cut_at_byte}" if counts.reading.cut_at_byte is not None else ""
    return f"{path}: no usable conversation among {counts.records_read} whole records: {reasons or 'none read'}{cut}"


def _assemble(manifest, joined, parameters):
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
    return Workload(*_make_requests(joined), dataset, tokenizer, parameters)


def _count_refused(dataset, note):
    """Count conversations that the template refused as skipped; their index stays theirs, without requests."""
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
