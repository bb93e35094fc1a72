"""Read requests that are JSON Lines of token ids: the files that ``python -m kvprefix replay`` takes.

A line is `{"request_id": ..., "prompt_token_ids": [...]}`, optionally with `output_token_ids`, `cache_salt` and
`lora_name`, and with `timestamp` (milliseconds) where requests run at once; other fields are not read. The order of
the lines is the order of replay. Arrow reads the file; only where that fails, or something is wrong, is it gone through
line by line, to name the line.
"""

import gzip
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (pa.compute)
import pyarrow.json

from kvprefix.files.checks import find_wrong_ids
from kvprefix.files.jsonlines import ObjectLines, number_lines, open_stream, parse_object, show_value
from kvprefix.files.paths import InputError, explain_os_errors
from kvprefix.tokens.arrays import flat_lists, make_flat_tokens, make_tokens
from kvprefix.traces.trace import make_flat_trace, number_contexts

_IDS = pa.list_(pa.int32())
_FIELDS = {"request_id": pa.string(), "prompt_token_ids": _IDS, "output_token_ids": _IDS, "cache_salt": pa.string(),
           "lora_name": pa.string()}  # fmt: skip
_EXPECTED = 'a line is {"request_id": name, "prompt_token_ids": [id, ...], "output_token_ids": [id, ...]}'
_MOST_MS = 2**53


def read_requests(path, *, timed=False):
    """Read a file of requests.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.
    timed : bool
        All requests have a `timestamp`, in ascending order: it says when they arrive. Otherwise it is not read.

    Returns
    -------
    Trace
        `request_ids` are those of the file, texts or numbers; a conversation per request.

    Raises
    ------
    InputError
        Naming the file and the line that is no such request.
    """
    with explain_os_errors(path):
        try:
            return _read_fast(path, timed) or _read_slowly(path, timed)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{path}: is cut or damaged: {error}") from error


def _read_fast(path, timed):
    """Return the trace, or None where Arrow fails or something is wrong."""
    schema = pa.schema(_FIELDS | ({"timestamp": pa.float64()} if timed else {}))
    parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        with open_stream(path) as stream:
            read = pa.json.ReadOptions(use_threads=False, block_size=16 << 20)
            table = pa.json.read_json(ObjectLines(stream), read, parse)
    except (pa.ArrowException, OSError):
        return None
    names, prompts, outputs = (table[name] for name in list(_FIELDS)[:3])
    if not len(table) or names.null_count or prompts.null_count:
        return None
    timestamps = table["timestamp"].to_numpy() if timed else None  # what is missing is NaN
    if timed and not (np.diff(timestamps, prepend=0, append=_MOST_MS) >= 0).all():
        return None
    n, own_offsets, own = len(table), *_flat(prompts)
    output_offsets, output = _flat(outputs.fill_null(pa.scalar([], _IDS)) if outputs.null_count else outputs)
    if own is None or output is None or (np.diff(own_offsets) == 0).any():
        return None
    separate = [column.to_pylist() for column in (table["cache_salt"], table["lora_name"]) if column.null_count < n]
    tokens, contexts = make_flat_tokens(own_offsets, own, output_offsets, output), number_contexts(*separate)
    return _make_trace(tokens, names.to_pylist(), timestamps, contexts)


def _make_trace(tokens, names, timestamps, contexts):
    arrival_s = None if timestamps is None else (timestamps - timestamps[0]) / 1000
    return make_flat_trace(tokens, request_ids=names, arrival_s=arrival_s, contexts=contexts)


def _flat(column):
    """Return a list column as (offsets, token ids), ids None where one is missing or below 0."""
    if any(chunk.flatten().null_count for chunk in column.chunks):
        return None, None
    offsets, ids = flat_lists(column)
    return offsets, None if len(ids) and ids.min() < 0 else ids.astype(np.int32, copy=False)


def _read_slowly(path, timed):
    """Return the same with Python's own JSON, or raise InputError with the first line that is wrong."""
    requests, timestamps, number = [], [], 0
    try:
        for number, line in number_lines(path):
            *fields, timestamp = _parse(line, f"{path}: line {number}")
            requests.append(fields)
            if timed:
                before = timestamps[-1] if timestamps else 0
                timestamps.append(_check_timestamp(timestamp, before, f"{path}: line {number}"))
    except OSError as error:
        if error.errno is not None:  # it is not there, or no file
            raise
        raise InputError(f"{path}: is cut or damaged after line {number}: {error}") from error
    if not requests:
        raise InputError(f"{path}: holds no requests; {_EXPECTED}")
    names, prompts, outputs, salts, adapters = zip(*requests, strict=True)
    timestamps, contexts = np.array(timestamps, float) if timed else None, number_contexts(salts, adapters)
    return _make_trace(make_tokens(prompts, outputs), list(names), timestamps, contexts)


def _parse(line, where):
    """Return a line's fields in the order of _FIELDS and its timestamp, not checked; or raise InputError."""
    request, fault = parse_object(line, _EXPECTED)
    if fault:
        raise InputError(f"{where} {fault}")
    missing = [name for name in ("request_id", "prompt_token_ids") if request.get(name) is None]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; {_EXPECTED}")
    name, prompt, output, salt, adapter = (request.get(field) for field in _FIELDS)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise InputError(f"{where} has request_id {show_value(name)}; expected a text or a whole number")
    for field, ids in (("prompt_token_ids", prompt), ("output_token_ids", output)):
        if ids is not None and not isinstance(ids, list):
            raise InputError(f"{where} has {field} {show_value(ids)}; expected a list of token ids")
        strange = find_wrong_ids(ids or ())
        if strange:
            odd = show_value(strange[0])
            raise InputError(f"{where} has {odd} among its {field}; expected whole numbers of 31 bits")
    if not prompt:
        raise InputError(f"{where} has no prompt_token_ids; expected one or more")
    for field, value in (("cache_salt", salt), ("lora_name", adapter)):
        if value is not None and not isinstance(value, str):
            raise InputError(f"{where} has {field} {show_value(value)}; expected a text")
    return name, prompt, output or [], salt, adapter, request.get("timestamp")


def _check_timestamp(value, before, where):
    """Return a line's timestamp, or raise InputError."""
    expected = "with --concurrent every line has the milliseconds of its arrival, 0 or more"
    if value is None:
        raise InputError(f"{where} lacks timestamp; {expected}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_MS:
        raise InputError(f"{where} has timestamp {show_value(value)}; {expected}")
    if value < before:
        values = f"{show_value(value)}, after {show_value(before)}"
        raise InputError(f"{where} has timestamp {values}; expected the order of arrival")
    return value
