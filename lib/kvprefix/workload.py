"""From a data file to a tokenised workload, kept in the cache; from a workload to a trace.

Tokenising is the heavy step. It is done in parts of a few hundred conversations, each kept in the derived folder
under a key of everything that determines it, so a killed run resumes and no run does it twice.
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

from kvprefix.arrivals import schedule_turns
from kvprefix.conversations import LoadCounts, locate_data, read_conversations
from kvprefix.files import InputError, derived_folder, sha256_file, write_bytes
from kvprefix.tokenizer import find_tokenizer
from kvprefix.trace import REQUEST_COLUMNS, Tokens, Trace, flat_lists

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
        Their tokens, row for row.
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
    token_key = _key([source.fingerprint, versions, PART_VERSION])
    options = [parameters.max_conversations, parameters.drop_duplicates, parameters.rejoin_split]
    data_sha256 = sha256_file(path)
    folder = derived_folder() / f"tokens-{token_key}"
    manifest_path = folder / f"workload-{_key([data_sha256, *options])}.json"
    manifest = _read_manifest(manifest_path)
    damaged = [name for name in manifest["parts"] if not _is_whole(folder / name)] if manifest else []
    if manifest is None or damaged:
        manifest = _make_parts(parameters, path, source, folder, progress)
        manifest["dataset"] |= {"sha256": data_sha256, "bytes": path.stat().st_size}
        write_bytes(manifest_path, json.dumps({"content": manifest, "key": _key(manifest)}, indent=1))
    manifest["dataset"] = {"name": path.name, **manifest["dataset"]}
    return _assemble(manifest, folder, parameters)


def _read_manifest(path):
    """Return what a manifest holds, None where there is none or it was cut or altered."""
    try:
        manifest = json.loads(path.read_text())
        return manifest["content"] if manifest["key"] == _key(manifest["content"]) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_whole(file):
    """Return whether a part's bytes have the checksum that its name ends with; remove it where they have not."""
    if file.exists() and sha256_file(file)[:16] == file.stem.rpartition("-")[2]:
        return True
    tqdm.write(f"{file.name}: this cached part was cut, altered or removed; making it again")
    file.unlink(missing_ok=True)
    return False


def _key(values):
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


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


def _assemble(manifest, folder, parameters):
    """Join the cached parts to one workload."""
    tables, refused, n_conversations, has_template = [], {}, 0, True
    for name in manifest["parts"]:
        table = feather.read_table(folder / name)
        note = json.loads(table.schema.metadata[b"kvprefix"])
        index = pa.compute.add(table["conversation"], pa.scalar(n_conversations, pa.int32()))
        tables.append(table.set_column(0, "conversation", index).replace_schema_metadata())
        refused |= {n_conversations + int(k): reason for k, reason in note["refused"].items()}
        n_conversations += note["conversations"]
        has_template = has_template and note["has_template"]
    table = pa.concat_tables(tables)
    dataset = _count_refused(manifest["dataset"], refused)
    if not len(table):
        reason = next(iter(refused.values()))
        raise InputError(f"tokenizer {parameters.tokenizer}: its chat template refuses every conversation: {reason}")
    tokenizer = {"name": parameters.tokenizer, "sha256": manifest["tokenizer_sha256"], "has_template": has_template}
    return Workload(*_tables_to_requests(table), dataset, tokenizer, parameters)


def _count_refused(dataset, refused):
    """Count conversations that the template refused as skipped; their index stays theirs, without requests."""
    if not refused:
        return dataset
    first, reason = next(iter(refused.items()))
    return {
        **dataset,
        "skipped": {**dataset["skipped"], "refused_by_template": len(refused)},
        "first_skipped": {**dataset["first_skipped"], "refused_by_template": f"conversation {first}: {reason}"},
        "conversations": dataset["conversations"] - len(refused),
    }


def _tables_to_requests(table):
    own_offsets, own = flat_lists(table["own_tokens"])
    output_offsets, output = flat_lists(table["output_tokens"])
    turn = table["turn"].to_numpy()
    parent = np.where(turn > 0, np.arange(len(turn)) - 1, -1)
    shared = table["shared_tokens"].to_numpy().astype(np.int64)
    template = flat_lists(table["own_is_template"])[1]
    tokens = Tokens(parent, shared, own_offsets, own, template, output_offsets, output)
    index = table["conversation"].to_numpy()
    requests = pd.DataFrame({
        "request_id": [f"c{conversation}t{k}" for conversation, k in zip(index, turn, strict=True)],
        "conversation_index": index.astype(np.int64),
        "conversation_id": table["conversation_id"].to_pandas(),
        "turn": turn.astype(np.int64),
        "prompt_tokens": tokens.prompt_lengths(),
        "output_tokens": np.diff(output_offsets),
        "messages": table["messages"].to_numpy().astype(np.int64),
    })  # fmt: skip
    return requests, tokens


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
    arrival = schedule_turns(chosen, parameters.arrival_rate, parameters.timing(), rng)
    order = np.lexsort((chosen["turn"], chosen["conversation_index"], arrival))
    requests = chosen.assign(arrival_s=arrival)[REQUEST_COLUMNS].iloc[order]
    info = {
        "mode": mode,
        "parameters": parameters.as_dict(),
        "dataset": workload.dataset,
        "tokenizer": workload.tokenizer,
    }
    return Trace(requests.reset_index(drop=True), chosen.index.to_numpy()[order], workload.tokens, info)
