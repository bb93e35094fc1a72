"""Read requests that are JSON Lines of token ids: the files that ``python -m kvprefix replay`` takes.

A line is `{"request_id": ..., "prompt_token_ids": [...]}`, optionally with `output_token_ids`, `cache_salt` and
`lora_name`, with `timestamp` (milliseconds) if requests run at once, and with `conversation` (a number or a text) if it
is asked for; other fields are not read. The order of the lines is the order of replay. Arrow reads the file. Only if
that fails or something is wrong is it read line by line, to name the line.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from kvprefix.files.arrow_arrays import fill_missing, flat_lists, to_array
from kvprefix.files.arrow_lines import Fault, LineReader, read_lines_of
from kvprefix.files.checks import find_wrong_ids
from kvprefix.files.jsonlines import show_value
from kvprefix.tokens.arrays import make_flat_tokens, make_tokens
from kvprefix.traces.trace import make_flat_trace, number_contexts

_IDS = pa.list_(pa.int32())
_FIELDS = {"request_id": pa.string(), "prompt_token_ids": _IDS, "output_token_ids": _IDS, "cache_salt": pa.string(),
           "lora_name": pa.string()}  # fmt: skip
_EXPECTED = 'a line is {"request_id": name, "prompt_token_ids": [id, ...], "output_token_ids": [id, ...]}'
_MOST_MS = 2**53


def read_requests(path, *, timed=False, grouped=False):
    """Read a file of requests.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.
    timed : bool
        All requests have a `timestamp`, in ascending order: it says when they arrive. Otherwise it is not read.
    grouped : bool
        Requests of one `conversation` are its turns, if each has one. Otherwise it is not read.

    Returns
    -------
    Trace
        `request_ids` are those of the file, texts or numbers; a conversation per request if they are not grouped.

    Raises
    ------
    InputError
        Naming the file and the line that is no such request.
    """
    return read_lines_of(path, _RequestReader(timed, grouped))


class _RequestReader(LineReader):
    """Makes a Trace of a file, with arrival times if they are `timed`, and conversations if they are `grouped`."""

    expected, batch_bytes = _EXPECTED, 16 << 20

    def __init__(self, timed, grouped=False):
        self.timed, self.grouped = timed, grouped
        more = {"timestamp": pa.float64()} if timed else {}
        self.schema = pa.schema(_FIELDS | more | ({"conversation": pa.int64()} if grouped else {}))

    def from_batches(self, batches):
        table = pa.Table.from_batches(batches)
        names, prompts, outputs = (table[name] for name in list(_FIELDS)[:3])
        if not len(table) or names.null_count or prompts.null_count:
            return None
        timestamps = to_array(fill_missing(table["timestamp"], np.nan)) if self.timed else None
        if self.timed and not (np.diff(timestamps, prepend=0, append=_MOST_MS) >= 0).all():
            return None
        own_offsets, own = _flat(prompts)
        output_offsets, output = _flat(outputs)
        if own is None or output is None or (np.diff(own_offsets) == 0).any():
            return None
        separate = [table[name] for name in ("cache_salt", "lora_name")]
        separate = [column.to_pylist() for column in separate if column.null_count < len(table)]
        tokens = make_flat_tokens(own_offsets, own, output_offsets, output)
        talks = table["conversation"].to_pylist() if self.grouped else []
        return _make_trace(tokens, names.to_pylist(), timestamps, number_contexts(*separate), talks)

    def from_objects(self, objects):
        requests, timestamps, talks = [], [], []
        for request in objects:
            requests.append(_take_fields(request))
            talks.append(request.get("conversation") if self.grouped else None)
            if self.timed:
                timestamps.append(_check_timestamp(request.get("timestamp"), timestamps[-1] if timestamps else 0))
        names, prompts, outputs, salts, adapters = zip(*requests, strict=True)
        timestamps = np.array(timestamps, float) if self.timed else None
        contexts = number_contexts(salts, adapters)
        return _make_trace(make_tokens(prompts, outputs), list(names), timestamps, contexts, talks)


def _make_trace(tokens, names, timestamps, contexts, talks):
    arrival_s = None if timestamps is None else (timestamps - timestamps[0]) / 1000
    trace = make_flat_trace(tokens, request_ids=names, arrival_s=arrival_s, contexts=contexts)
    known = talks and all(isinstance(one, str | int) and not isinstance(one, bool) for one in talks)
    return _group(trace, talks) if known else trace


def _group(trace, talks):
    """Return the trace with the conversation of each request, numbered as first seen, and its turn."""
    numbers, lengths = {}, []
    indices, turns = np.zeros((2, len(talks)), np.int64)
    for i, name in enumerate(map(str, talks)):
        k = indices[i] = numbers.setdefault(name, len(numbers))
        lengths += [0] * (len(numbers) - len(lengths))
        turns[i] = lengths[k]
        lengths[k] += 1
    named = {"conversation_index": indices, "conversation_id": list(map(str, talks)), "turn": turns}
    return replace(trace, requests=trace.requests.assign(**named))


def _flat(column):
    """Return a list column as (offsets, token ids), ids None if one is missing or below 0."""
    if any(chunk.flatten().null_count for chunk in column.chunks):
        return None, None
    offsets, ids = flat_lists(column)
    return offsets, None if len(ids) and ids.min() < 0 else ids.astype(np.int32, copy=False)


def _take_fields(request):
    """Return a request's fields in the order of _FIELDS; raise Fault if they are wrong."""
    missing = [name for name in ("request_id", "prompt_token_ids") if request.get(name) is None]
    if missing:
        raise Fault(f"lacks {', '.join(missing)}; {_EXPECTED}")
    name, prompt, output, salt, adapter = (request.get(field) for field in _FIELDS)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise Fault(f"has request_id {show_value(name)}; expected a text or a whole number")
    for field, ids in (("prompt_token_ids", prompt), ("output_token_ids", output)):
        if ids is not None and not isinstance(ids, list):
            raise Fault(f"has {field} {show_value(ids)}; expected a list of token ids")
        strange = find_wrong_ids(ids or ())
        if strange:
            odd = show_value(strange[0])
            raise Fault(f"has {odd} among its {field}; expected whole numbers of 31 bits")
    if not prompt:
        raise Fault("has no prompt_token_ids; expected one or more")
    for field, value in (("cache_salt", salt), ("lora_name", adapter)):
        if value is not None and not isinstance(value, str):
            raise Fault(f"has {field} {show_value(value)}; expected a text")
    return name, prompt, output or [], salt, adapter


def _check_timestamp(value, before):
    """Return a line's timestamp; raise Fault if it is wrong."""
    expected = "with --concurrent every line has the milliseconds of its arrival, 0 or more"
    if value is None:
        raise Fault(f"lacks timestamp; {expected}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_MS:
        raise Fault(f"has timestamp {show_value(value)}; {expected}")
    if value < before:
        values = f"{show_value(value)}, after {show_value(before)}"
        raise Fault(f"has timestamp {values}; expected the order of arrival")
    return value
