"""Tokenise a data file in parts of PART_CONVERSATIONS conversations, each a task whose result is kept in a file.

A part's name is a key of its conversations and a checksum of its bytes, so a killed run continues and no run does a
part twice. `store` joins the parts.
"""

import hashlib
import io
import json
import os
from collections import Counter, deque
from dataclasses import replace
from itertools import islice

from pyarrow import feather

from kvprefix.conversations.load import LoadCounts
from kvprefix.files.paths import InputError, write_bytes
from kvprefix.files.progress import show_progress
from kvprefix.files.sealed import is_kept
from kvprefix.tasks.runner import open_tasks
from kvprefix.tokens.tokenizer import check_unchanged

PART_CONVERSATIONS = 1024
PART_VERSION = 7  # raise when the meaning or the form of a part changes
_chats = {}  # of this process, by their source


def is_whole(file):
    """Return whether a part's bytes have the checksum at the end of its name; if not, remove it."""
    whole = is_kept(file, file.stem.rpartition("-")[2])
    if not whole:
        file.unlink(missing_ok=True)
    return whole


def make_parts(chats, size, source, folder, *, progress=True):
    """Tokenise the parts that are missing.

    Parameters
    ----------
    chats : Conversations
    size : int
        Bytes of the data.
    source : TokenizerSource
    folder : pathlib.Path
        Where the parts are kept.
    progress : bool

    Returns
    -------
    dict
        `parts` (names of all parts, in order), `dataset` (counts) and `tokenizer_sha256`.
    """
    counts, parts, missing = LoadCounts(), [], deque()
    bar = show_progress(size, "tokenising", "B", shown=progress)
    source = replace(source, folder=source.folder.resolve())

    def find_missing():
        conversations = chats.read(counts)
        while part := list(islice(conversations, PART_CONVERSATIONS)):
            digest = hashlib.blake2b(b"".join(c.id.encode() + c.digest for c in part), digest_size=16).hexdigest()
            kept = [file.name for file in folder.glob(f"part-{digest}-*.arrow") if is_whole(file)]
            parts.append(kept[0] if kept else None)
            if not kept:
                missing.append(len(parts) - 1)
                yield part, source, folder.resolve() / f"part-{digest}"
            bar.update(counts.reading.bytes_read - bar.n)

    with bar, open_tasks(local=_choose_place(size)) as tasks:
        tasks.check(_check_tokenizer, source)
        for name in tasks.map(_make_part, find_missing()):
            parts[missing.popleft()] = name
    _chats.clear()
    if not parts:
        raise InputError(_describe_nothing_usable(chats.path or chats.name, counts))
    return {"parts": parts, "dataset": counts.as_dict(), "tokenizer_sha256": source.fingerprint}


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
    part, source, stem = task
    return _encode_part(part, _load_chat(source, part), stem)


def _load_chat(source, part):
    """Open a tokenizer, once for all parts of a process; texts of the first part help to prove its fast encoder."""
    if source not in _chats:
        from kvprefix.tokens.template import open_chat

        texts = [message.text for conversation in part for message in conversation.messages]
        _chats.clear()
        _chats[source] = open_chat(source, texts)
    return _chats[source]


def _encode_part(part, chat, stem):
    """Tokenise and keep a part; return its file's name, which ends with the checksum of the content."""
    from kvprefix.tokens.encode import encode_conversations

    table, refused = encode_conversations(part, chat)
    note = {**_split_refused(part, table, refused), "conversations": len(part)}
    note |= {"has_template": chat.has_template, "encoder": chat.encoder.name}
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
