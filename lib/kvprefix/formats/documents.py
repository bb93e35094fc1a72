"""Read the JSON objects of a file or a folder, with their lists of block ids taken out: JSON Lines, or whole JSON."""

import io
import itertools
import os
from pathlib import Path
from typing import NamedTuple

from kvprefix.files.jsonlines import MOST_BYTES, load_json, open_stream, parse_object, read_lines, refuse_long
from kvprefix.files.paths import InputError, explain_os_errors
from kvprefix.formats.id_lists import is_taken, take_ids

_ENDINGS = (".json", ".jsonl", ".ndjson")
_PACKED = (".gz", ".zst")


class Document(NamedTuple):
    """An object of a file.

    Attributes
    ----------
    place : str
        File and line, or file and number in its list, for messages.
    record : dict or None
        Its lists of whole numbers under the key are ndarrays of uint64. None if it is no object.
    fault : str or None
        What is wrong with it if it is no object.
    """

    place: str
    record: dict | None
    fault: str | None


def list_files(path):
    """Return the files of a folder, at any depth, that may hold JSON, by name; and how many others there are.

    A file alone is returned as it is.
    """
    path = Path(path)
    if not path.is_dir():
        return [path], 0
    found = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    files = [one for one in found if _may_be_json(one)]
    if not files:
        raise InputError(f"{path}: holds no JSON files; expected names that end in {', '.join(_ENDINGS)}, also packed")
    return files, len(found) - len(files)


def _may_be_json(path):
    name = path.with_suffix("") if path.suffix in _PACKED else path
    return name.suffix in _ENDINGS


def read_documents(path, key, expected):
    """Yield the Documents of a file.

    Parameters
    ----------
    path : path-like
        JSON Lines, or one JSON object or a list of them over any lines; plain, gzip or zstandard.
    key : str
        Of the lists of ids.
    expected : str
        What an object is, for messages.

    Raises
    ------
    InputError
        A file that cannot be read, or that is cut or damaged.
    """
    with explain_os_errors(path), open_stream(path) as stream, io.BufferedReader(stream) as file:
        lines = _number_lines(file, path)
        first = next(lines, None)
        if first is None:
            return
        lines = itertools.chain([first], lines)
        if _opens_only(first[1]):
            yield from _read_whole(path, b"".join(line for _, line in lines), key, expected)
        else:
            yield from _read_each(path, lines, key, expected)


def _number_lines(file, path):
    """Yield (1-based number, line) of the lines that are not blank; say where a damaged file ends."""
    number = 0
    try:
        for number, line in enumerate(read_lines(file, path), start=1):
            if line.strip():
                yield number, line
    except OSError as error:
        raise InputError(f"{path}: is cut or damaged after line {number}: {error}") from error


def _opens_only(line):
    """Say whether a first line begins a JSON value that further lines continue."""
    text = line.strip().removeprefix(b"\xef\xbb\xbf")
    return text.startswith(b"[") or (text.startswith(b"{") and not text.endswith(b"}"))


def _read_each(path, lines, key, expected):
    for number, line in lines:
        rest, ids = take_ids(line, key)
        yield _make(f"{path}: line {number}", *parse_object(rest, expected), key, ids)


def _read_whole(path, text, key, expected):
    """Yield the one object of a text, or those of its list."""
    if len(text) > MOST_BYTES:
        refuse_long(path, "its one JSON value")
    rest, ids = take_ids(text, key)
    if not rest.strip().removeprefix(b"\xef\xbb\xbf").startswith(b"["):
        yield _make(os.fspath(path), *parse_object(rest, expected), key, ids)
        return
    try:
        entries = load_json(rest)
        is_whole = _put_back(entries, key, ids, 0) == len(ids)
    except (ValueError, RecursionError) as error:
        yield Document(os.fspath(path), None, f"is not JSON ({error}); {expected}")
        return
    for number, entry in enumerate(entries, start=1):
        fault = None if is_whole and isinstance(entry, dict) else f"is no JSON object of single keys; {expected}"
        yield Document(f"{path}: entry {number}", None if fault else entry, fault)


def _make(place, record, fault, key, ids):
    if fault is None and _put_back(record, key, ids, 0) != len(ids):
        record, fault = None, f"names {key} twice in one object"
    return Document(place, record, fault)


def _put_back(value, key, ids, at):
    """Put the ids in the place of what stands for them, in the order of the text; return how many are used."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name == key and is_taken(one):
                value[name] = ids[at : at + one[0]]
                at += one[0]
            elif isinstance(one, dict | list):
                at = _put_back(one, key, ids, at)
    elif isinstance(value, list):
        for one in value:
            if isinstance(one, dict | list):
                at = _put_back(one, key, ids, at)
    return at
