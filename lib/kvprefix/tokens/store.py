"""Join a workload's tokenised parts to flat arrays in files, once, and map the arrays from then on.

A folder holds three arrays and a table with one row per request. Its seal, with every file's checksum, is written last:
a folder without one is not finished. The files are written in place, never emptied first. The parts alone determine
their content, so a process that still reads them finds the same bytes.
"""

import hashlib
import io
import json
import os
import shutil
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (pa.compute)
from pyarrow import feather

from kvprefix.files.arrow_arrays import flat_lists
from kvprefix.files.mapped import map_array
from kvprefix.files.paths import check_output_file, explain_os_errors
from kvprefix.files.progress import show_progress
from kvprefix.files.sealed import read_folder, seal_folder, seal_key
from kvprefix.tokens.call_notes import add_notes

ARRAYS = {
    "own_tokens": np.int32, "own_is_template": np.bool_, "output_tokens": np.int32, "said": np.uint8,
    "said_lengths": np.int32,
}  # fmt: skip
ROWS = "rows.arrow"
VERSION = 2  # raise when the meaning or the form of the files changes


class Joined(NamedTuple):
    """The parts of a workload, joined.

    Attributes
    ----------
    rows : pyarrow.Table
        One row per request: `conversation`, `conversation_id`, `turn`, `messages`, `shared_tokens`, and the lengths
        `own_tokens` and `output_tokens`, and in `said_lengths` the number of messages.
    arrays : dict of str to ndarray
        ARRAYS, mapped: the lists of all rows, one after the other.
    note : dict
        `conversations`; `refused`, the number of conversations that the chat template refused, and `first_refused`
        (index, reason); `late_turns`, the number of turns lost in conversations of which earlier turns are kept, and
        `first_late` (index, turn, turns lost, reason); `has_template`; `encoders`, the names of those that encoded;
        `calls`, of parts of calls, see `call_parts`. These have more columns.
    """

    rows: pa.Table
    arrays: dict
    note: dict


def open_joined(folder, parts, *, progress=True, check=True):
    """Open what `join_parts` made of these parts; None if there is none, or, with a message, if it was cut or altered.

    Without `check`, the files are trusted: another process has just found them whole.
    """
    place = _place(folder, parts)
    sealed = read_folder(place, check=check, shown=progress)
    return None if sealed is None else _map(place, sealed["note"])


def join_parts(folder, parts, *, progress=True):
    """Join whole parts in bounded memory; a failure, such as a full disk, leaves nothing behind.

    Parameters
    ----------
    folder : pathlib.Path
        The folder of the parts.
    parts : list of str
        The names of their files, in order.
    progress : bool

    Returns
    -------
    Joined
    """
    place, done = _place(folder, parts), False
    with explain_os_errors(place):
        place.mkdir(exist_ok=True)
        files = {name: _InPlace(place / name) for name in [*ARRAYS, ROWS]}
        try:
            note = _append_parts(folder, parts, files, progress)
            seal_folder(place, {name: file.finish() for name, file in files.items()}, note)
            done = True
        finally:
            for file in files.values():
                file.file.close()
            if not done:
                shutil.rmtree(place, ignore_errors=True)
    return _map(place, note)


def _place(folder, parts):
    return folder / f"joined-{seal_key([VERSION, parts])}"


def _map(place, note):
    with explain_os_errors(place):
        rows = feather.read_table(place / ROWS)
        return Joined(rows, {name: map_array(place / name, kind) for name, kind in ARRAYS.items()}, note)


def _append_parts(folder, parts, files, progress):
    rows, refused, late, calls, n_conversations, has_template, encoders = [], {}, [], {}, 0, True, set()
    n_rows = 0
    bar = show_progress(len(parts), "joining parts", " parts", shown=progress)
    with bar:
        for name in parts:
            table = feather.read_table(folder / name)
            note = json.loads(table.schema.metadata[b"kvprefix"])
            for column in ARRAYS:
                files[column].write(flat_lists(table[column])[1])
            rows.append(_describe_rows(table, n_conversations, n_rows))
            n_rows += len(table)
            if "calls" in note:
                add_notes(calls, note["calls"])
            refused |= {n_conversations + int(k): reason for k, reason in note["refused"].items()}
            late += [[n_conversations + index, *rest] for index, *rest in note["late"]]
            n_conversations += note["conversations"]
            has_template = has_template and note["has_template"]
            encoders.add(note["encoder"])
            bar.update()
    content = io.BytesIO()
    joined = pa.concat_tables(rows, promote_options="default").unify_dictionaries().combine_chunks()
    feather.write_feather(joined, content, compression="uncompressed")
    files[ROWS].write(np.frombuffer(content.getbuffer(), np.uint8))
    first = next(iter(refused.items()), None)
    return {
        "conversations": n_conversations, "refused": len(refused), "first_refused": first, "has_template": has_template,
        "encoders": sorted(encoders),
        "late_turns": sum(lost for _, _, lost, _ in late), "first_late": late[0] if late else None,
        **({"calls": calls} if calls else {}),
    }  # fmt: skip


def _describe_rows(table, n_before, n_rows):
    """Return a part's rows with lengths in place of lists, conversations and rows numbered from the given ones on."""
    if "parent" in table.column_names:
        parents = table["parent"].to_numpy()
        moved = pa.array(np.where(parents >= 0, parents + n_rows, -1), pa.int64())
        table = table.set_column(table.schema.get_field_index("parent"), "parent", moved)
    index = pa.compute.add(table["conversation"], pa.scalar(n_before, pa.int32()))
    table = table.set_column(0, "conversation", index).drop_columns(["own_is_template", "said"])
    table = table.replace_schema_metadata()
    for name in ("own_tokens", "output_tokens", "said_lengths"):
        lengths = pa.compute.list_value_length(table[name])
        table = table.set_column(table.column_names.index(name), name, lengths)
    return table


class _InPlace:
    """A file that is written from its beginning without being emptied first, and keeps a checksum of the content."""

    def __init__(self, path):
        check_output_file(path)
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self.file = os.fdopen(os.open(path, flags, 0o666), "wb", buffering=0)
        self.digest = hashlib.sha256()

    def write(self, array):
        data = memoryview(array.view(np.uint8))
        self.digest.update(data)
        while len(data):
            data = data[self.file.write(data) :]

    def finish(self):
        self.file.truncate()
        return self.digest.hexdigest()
