"""Tokenise a source in parts, each a task whose result is kept in a file.

A part is of PART_CONVERSATIONS conversations, or of some calls. Its name is a key of what it is made of and a checksum
of its bytes, so a killed run continues and no run does a part twice. `store` joins the parts.
"""

import hashlib
import io
import json
import os
from collections import Counter, deque
from dataclasses import replace

import pyarrow as pa
from pyarrow import feather

from kvprefix.conversations.calls import Call, find_time
from kvprefix.conversations.load import Conversation, LoadCounts
from kvprefix.conversations.traffic import TrafficCounts
from kvprefix.files.paths import InputError, write_bytes
from kvprefix.files.progress import show_progress
from kvprefix.files.sealed import is_kept, seal_key
from kvprefix.tasks.runner import open_tasks
from kvprefix.tokens.tokenizer import check_unchanged

PART_CONVERSATIONS = 1024
PART_CALLS = 2**15
PART_BYTES = 2**27  # of the source, whose calls are tokenised at once; from an eighth on, a file's end ends a part
PART_VERSION = 11  # raise when the meaning or the form of a part changes
_chats = {}  # of this process, by their source


def is_whole(file):
    """Return whether a part's bytes have the checksum at the end of its name; if not, remove it."""
    whole = is_kept(file, file.stem.rpartition("-")[2])
    if not whole:
        file.unlink(missing_ok=True)
    return whole


def make_parts(chats, read, source, folder, *, server="vllm", progress=True):
    """Tokenise the parts that are missing.

    Parameters
    ----------
    chats : Conversations
    read : tuple of str, int
        SHA-256 and bytes of the data.
    source : TokenizerSource
    folder : pathlib.Path
        Where the parts are kept.
    server : str
        Whose rules make prompts of calls.
    progress : bool

    Returns
    -------
    dict
        `parts` (names of all parts, in order), `dataset` (counts) and `tokenizer_sha256`.
    """
    counts, parts, missing = TrafficCounts(), [], deque()
    sha256, size = read
    bar = show_progress(size, "tokenising", "B", shown=progress)
    source = replace(source, folder=source.folder.resolve())
    key = [sha256, server, chats.options["drop_duplicates"], chats.options["rejoin_split"]]

    def find_missing():
        n_before = 0
        for part in split_parts(chats.read(counts), counts):
            name = f"part-{_find_digest(part, [*key, n_before])}"
            n_before += len(part)
            kept = [file.name for file in folder.glob(f"{name}-*.arrow") if is_whole(file)]
            parts.append(kept[0] if kept else None)
            if not kept:
                missing.append(len(parts) - 1)
                yield part, source, server, folder.resolve() / name
            bar.update(counts.bytes_read - bar.n)

    with bar, open_tasks(local=_choose_place(size)) as tasks:
        tasks.check(_check_tokenizer, source)
        for name in tasks.map(_make_part, find_missing()):
            parts[missing.popleft()] = name
    _chats.clear()
    if not parts:
        raise InputError(_describe_nothing_usable(chats.path or chats.name, counts))
    return {"parts": parts, "dataset": _describe_counts(counts), "tokenizer_sha256": source.fingerprint}


def split_parts(items, counts):
    """Yield lists of what is tokenised at once; calls of one file stand in one list where they fit.

    Parameters
    ----------
    items : iterable of Conversation, Dialog or Call
    counts : TrafficCounts
        That `read_traffic` fills in.
    """
    part, start, file = [], 0, None
    for item in items:
        here = item.place.rpartition(", ")[0] if isinstance(item, Call) else None
        size = counts.bytes_read - start
        ends = size > PART_BYTES // 8 and not isinstance(item, Conversation) and (here is None or here != file)
        most = PART_CONVERSATIONS if here is None else PART_CALLS
        if part and (ends or size > PART_BYTES and here is not None or len(part) >= most):
            yield _sort_by_time(part)
            part, start = [], counts.bytes_read
        part.append(item)
        file = here
    if part:
        yield _sort_by_time(part)


def _sort_by_time(part):
    """Return a part in order of time if it is of calls alone that all have one: logs may list the newest first."""
    if all(isinstance(item, Call) and item.start_s is not None for item in part):
        return sorted(part, key=lambda call: call.start_s)
    return part


def _find_digest(part, key):
    """Return what names a part: its conversations, or which items of the source it has if some are none of text."""
    if all(isinstance(item, Conversation) for item in part):
        times = b"".join(repr(c.times_s).encode() for c in part if c.times_s)
        said = b"".join(c.id.encode() + c.digest for c in part)
        return hashlib.blake2b(said + times, digest_size=16).hexdigest()
    return seal_key(["calls", *key, len(part)])


def _describe_counts(counts):
    """Return the counts of a source; what only traces of calls have is left out where there is none."""
    found = counts.as_dict()
    if counts.dialogs or counts.calls or counts.other_files or counts.noted or counts.timed:
        return found
    return {name: value for name, value in found.items() if name in LoadCounts().as_dict() or name == "not_kept"}


def _choose_place(size):
    """Return where to tokenise a data file of `size` bytes without a cluster: "processes" or "here".

    The tokenizer itself is parallel, but half of the work is not its own, so one process uses 1.3 cores, however many
    there are. With two cores, processes gain little (54 s instead of 61 s for 125 MB), and each takes half a GB.
    """
    return "processes" if (os.cpu_count() or 1) >= 4 and size >= 2**26 else "here"


def _check_tokenizer(source):
    """Raise InputError if this process does not see the same files of a tokenizer as the one that found them."""
    try:
        check_unchanged(source)
    except InputError as error:
        raise InputError(
            f"tokenizer {source.name}: {source.folder} does not hold the same files here; put it on storage that all "
            "machines mount under the same path"
        ) from error


def _make_part(task):
    part, source, server, stem = task
    if all(isinstance(item, Conversation) for item in part):
        return _write_part(_encode_texts(part, _load_chat(source, part)), stem)
    return _write_part(_encode_calls(part, source, server), stem)


def _load_chat(source, part):
    """Open a tokenizer, once for all parts of a process; texts of the first part help to prove its fast encoder."""
    if source not in _chats:
        from kvprefix.tokens.template import open_chat

        texts = [message.text for conversation in part for message in conversation.messages]
        _chats.clear()
        _chats[source] = open_chat(source, texts)
    return _chats[source]


def _load_call_chat(source, part):
    """Open a tokenizer for calls, once for all parts of a process."""
    if ("calls", source) not in _chats:
        from kvprefix.tokens.call_parts import make_calls
        from kvprefix.tokens.template import open_call_chat

        _chats.clear()
        _chats["calls", source] = open_call_chat(source, [call for item in part for call in make_calls(item)])
    return _chats["calls", source]


def _encode_texts(part, chat):
    """Tokenise conversations of text."""
    from kvprefix.tokens.encode import encode_conversations

    table, refused = encode_conversations(part, chat)
    if any(one.times_s for one in part):
        table = table.append_column("start_s", _list_times(part, table))
    note = {**_split_refused(part, table, refused), "conversations": len(part)}
    return table, note | {"has_template": chat.has_template, "encoder": chat.encoder.name}


def _list_times(part, table):
    """Return when each prompt of some conversations was sent, see `find_time`."""
    times, ends = [part[index].times_s for index in table["conversation"].to_pylist()], table["messages"].to_pylist()
    return pa.array([one and find_time(one, end) for one, end in zip(times, ends, strict=True)], pa.float64())


def _encode_calls(part, source, server):
    """Tokenise what a part has of calls and conversations."""
    from kvprefix.tokens.call_parts import encode_call_part

    chat = _load_call_chat(source, part)
    table, note = encode_call_part(part, chat, server)
    count = int(table["conversation"].to_numpy().max(initial=-1)) + 1
    note = {"refused": {}, "late": [], "conversations": count, "calls": note}
    return table, note | {"has_template": chat.has_template, "encoder": chat.encoder.name}


def _write_part(encoded, stem):
    """Keep a tokenised part; return its file's name, which ends with the checksum of the content."""
    table, note = encoded
    table = table.replace_schema_metadata({"kvprefix": json.dumps(note)})
    content = io.BytesIO()
    feather.write_feather(table, content, compression="lz4")
    file = stem.with_name(f"{stem.name}-{hashlib.sha256(content.getvalue()).hexdigest()}.arrow")
    write_bytes(file, content.getvalue())
    return file.name


def _split_refused(part, table, refused):
    """Return what the template refused: whole conversations, {index: reason}, and late turns of other ones.

    A late turn is [index, first turn refused, turns lost, reason].
    """
    turns = Counter(table["conversation"].to_pylist()) if refused else {}
    whole = {index: reason for index, reason in refused.items() if index not in turns}
    late = [
        [index, turns[index], len(part[index].request_ends()) - turns[index], reason]
        for index, reason in refused.items()
        if index in turns
    ]
    return {"refused": whole, "late": late}


def _describe_nothing_usable(path, counts):
    reasons = "; ".join(f"{n} {reason} (first: {counts.first_skipped[reason]})" for reason, n in counts.skipped.items())
    cut = f"; the file is cut at byte {counts.reading.cut_at_byte}" if counts.reading.cut_at_byte is not None else ""
    return f"{path}: no usable conversation among {counts.records_read} whole records: {reasons or 'none read'}{cut}"
