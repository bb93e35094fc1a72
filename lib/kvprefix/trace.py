"""The central type: a request trace with the tokens of its prompts and outputs, and its files.

A trace is made by `workload`, or read from Parquet; everything after it (blocks, sharing, replay) takes one.
"""

import functools
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (pa.compute)
import pyarrow.parquet as pq
from numba import njit

from kvprefix.files import InputError, atomic_path, explain_os_errors

REQUEST_COLUMNS = [
    "request_id", "conversation_index", "conversation_id", "turn", "arrival_s", "prompt_tokens", "output_tokens",
    "messages",
]  # fmt: skip
TOKEN_COLUMNS = ["parent", "shared_tokens", "own_token_ids", "own_is_template", "output_token_ids"]


@dataclass(frozen=True)
class Tokens:
    """The token ids of many requests, each stored once: a prompt is the start of another one and its own rest.

    Row r's prompt is the first ``shared[r]`` tokens of row ``parent[r]``'s prompt, then its own tokens. In a chat the
    parent is the previous turn; a row without one has parent -1 and shared 0.

    Attributes
    ----------
    parent : (n,) ndarray of int64
    shared : (n,) ndarray of int64
        Tokens.
    own_offsets, output_offsets : (n + 1,) ndarray of int64
        Row r's own tokens are ``own[own_offsets[r]:own_offsets[r + 1]]``; outputs likewise.
    own : ndarray of int32
    own_is_template : ndarray of bool
        For each own token, whether the chat template wrote it rather than a message.
    output : ndarray of int32
        Generated tokens, the end-of-turn token included; empty where the log has no reply.
    """

    parent: np.ndarray
    shared: np.ndarray
    own_offsets: np.ndarray
    own: np.ndarray
    own_is_template: np.ndarray
    output_offsets: np.ndarray
    output: np.ndarray

    def prompt_lengths(self):
        """Return the number of prompt tokens of every row, (n,) int64."""
        return self.shared + np.diff(self.own_offsets)

    def prompt(self, row):
        """Return the prompt of a row as an int32 array."""
        return copy_prompt(row, 0, self.parent, self.shared, self.own_offsets, self.own)

    def generated(self, row):
        """Return the output of a row as an int32 array."""
        return self.output[self.output_offsets[row] : self.output_offsets[row + 1]]

    @functools.cached_property
    def without_template(self):
        """The same prompts without the tokens that the chat template wrote (outputs unchanged)."""
        keep = ~self.own_is_template
        kept_before = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))
        shared = _kept_in_shared(self.parent, self.shared, self.own_offsets, kept_before)
        return Tokens(
            self.parent, shared, kept_before[self.own_offsets], self.own[keep], self.own_is_template[keep],
            self.output_offsets, self.output,
        )  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """Requests in arrival order, and their tokens.

    Attributes
    ----------
    requests : pandas.DataFrame
        REQUEST_COLUMNS: `request_id` (str), `conversation_index` (0-based among the usable), `conversation_id` (str),
        `turn` (0-based), `arrival_s` (seconds from the start), `prompt_tokens`, `output_tokens`, and `messages` (how
        many of the conversation's messages the prompt holds).
    rows : (n,) ndarray of int64
        The row of each request in `tokens`.
    tokens : Tokens
        May hold more rows than the trace uses; both modes of a workload share one.
    info : dict
        What made the trace: JSON values.
    """

    requests: pd.DataFrame
    rows: np.ndarray
    tokens: Tokens
    info: dict

    def __len__(self):
        return len(self.rows)

    @property
    def arrival_s(self):
        """Arrival times in seconds, ascending, (n,) float64."""
        return self.requests["arrival_s"].to_numpy()

    def prompt(self, i):
        """Return the prompt's token ids of the i-th request."""
        return self.tokens.prompt(self.rows[i])

    def generated(self, i):
        """Return the output's token ids of the i-th request."""
        return self.tokens.generated(self.rows[i])

    def without_template(self):
        """Return the trace as it would be if the chat template wrote nothing: the messages' tokens alone."""
        tokens = self.tokens.without_template
        requests = self.requests.assign(prompt_tokens=tokens.prompt_lengths()[self.rows])
        return Trace(requests, self.rows, tokens, {**self.info, "template_tokens": False})


@njit(cache=True, nogil=True)
def copy_prompt(row, start, parent, shared, own_offsets, own):
    """Return the tokens of a row's prompt from position `start` on, gathered through its parents."""
    stop = shared[row] + own_offsets[row + 1] - own_offsets[row]
    out = np.empty(max(stop - start, 0), np.int32)
    while stop > start:
        low = max(start, shared[row])
        if low < stop:
            first = own_offsets[row] + low - shared[row]
            out[low - start : stop - start] = own[first : first + stop - low]
            stop = low
        row = parent[row]
    return out


@njit(cache=True)
def _kept_in_shared(parent, shared, own_offsets, kept_before):
    kept = np.zeros(len(shared), np.int64)
    for child in range(len(shared)):
        stop, row = shared[child], parent[child]
        while stop > 0:
            if stop > shared[row]:
                first = own_offsets[row]
                kept[child] += kept_before[first + stop - shared[row]] - kept_before[first]
                stop = shared[row]
            row = parent[row]
    return kept


def make_tokens(prompts, outputs):
    """Make Tokens of plain lists of ids, one prompt and one output a request; none shares another's storage.

    >>> make_tokens([[1, 2], [1, 2, 3]], [[], [7]]).prompt(1)
    array([1, 2, 3], dtype=int32)
    """
    own_offsets, own = _flatten(prompts)
    output_offsets, output = _flatten(outputs)
    none = np.full(len(prompts), -1), np.zeros(len(prompts), np.int64)
    return Tokens(*none, own_offsets, own, np.zeros(len(own), bool), output_offsets, output)


def make_trace_of(prompts, arrival_s=None, outputs=None):
    """Make a trace of plain lists of token ids, a conversation each: for small cases and tests.

    >>> len(make_trace_of([[1, 2], [1, 2, 3]]))
    2
    """
    n = len(prompts)
    outputs = [[]] * n if outputs is None else outputs
    requests = pd.DataFrame({
        "request_id": [f"c{i}t0" for i in range(n)],
        "conversation_index": np.arange(n),
        "conversation_id": [str(i) for i in range(n)],
        "turn": np.zeros(n, np.int64),
        "arrival_s": np.arange(n, dtype=float) if arrival_s is None else np.asarray(arrival_s, float),
        "prompt_tokens": [len(prompt) for prompt in prompts],
        "output_tokens": [len(output) for output in outputs],
        "messages": np.ones(n, np.int64),
    })  # fmt: skip
    return Trace(requests, np.arange(n), make_tokens(prompts, outputs), {})


def _flatten(lists):
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in lists], dtype=np.int64))).astype(np.int64)
    return offsets, np.array([token for one in lists for token in one], np.int32)


def write_trace(trace, path):
    """Write a trace to one Parquet file, a row a request in arrival order, tokens stored as in `Tokens`."""
    tokens, rows = trace.tokens, trace.rows
    position = np.full(len(tokens.shared), -1)
    position[rows] = np.arange(len(rows))
    parent = np.where(tokens.parent[rows] >= 0, position[tokens.parent[rows]], -1)
    orphans = (tokens.shared[rows] > 0) & ((parent < 0) | (parent >= np.arange(len(rows))))
    if orphans.any():
        raise ValueError(f"request {int(orphans.argmax())} of the trace goes on from one that is not before it")
    table = pa.Table.from_pandas(trace.requests[REQUEST_COLUMNS], preserve_index=False)
    columns = [
        pa.array(parent, pa.int64()),
        pa.array(tokens.shared[rows], pa.int64()),
        _lists(tokens.own, tokens.own_offsets, rows, pa.int32()),
        _lists(tokens.own_is_template, tokens.own_offsets, rows, pa.bool_()),
        _lists(tokens.output, tokens.output_offsets, rows, pa.int32()),
    ]
    for name, column in zip(TOKEN_COLUMNS, columns, strict=True):
        table = table.append_column(name, column)
    table = table.replace_schema_metadata({"kvprefix": json.dumps(trace.info, sort_keys=True)})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_trace(path):
    """Read a trace that `write_trace` wrote."""
    with explain_os_errors(path):
        try:
            table = pq.read_table(path, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else error
            raise InputError(f"{path}: cannot be read as a Parquet trace: {reason}") from error
    missing = {*TOKEN_COLUMNS, *REQUEST_COLUMNS} - set(table.column_names)
    if missing:
        raise InputError(f"{path}: is no kvprefix trace: lacks the columns {', '.join(sorted(missing))}")
    own_offsets, own = flat_lists(table["own_token_ids"])
    output_offsets, output = flat_lists(table["output_token_ids"])
    tokens = Tokens(
        table["parent"].to_numpy(), table["shared_tokens"].to_numpy(), own_offsets, own,
        flat_lists(table["own_is_template"])[1], output_offsets, output,
    )  # fmt: skip
    info = json.loads((table.schema.metadata or {}).get(b"kvprefix", b"{}"))
    return Trace(table.select(REQUEST_COLUMNS).to_pandas(), np.arange(len(table)), tokens, info)


def flat_lists(column):
    """Return a list column as (offsets, values), offsets int64 from 0."""
    lengths = pa.compute.list_value_length(column).to_numpy().astype(np.int64)
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks if len(chunk)]
    empty = np.zeros(0, column.type.value_type.to_pandas_dtype())
    return np.concatenate(([0], np.cumsum(lengths))), np.concatenate(values) if values else empty


def _lists(flat, offsets, rows, kind):
    """Return the rows' lists as an Arrow column, in the rows' order."""
    lengths = np.diff(offsets)[rows]
    starts = np.concatenate(([0], np.cumsum(lengths)))
    take = np.arange(starts[-1]) + np.repeat(offsets[rows] - starts[:-1], lengths)
    return pa.LargeListArray.from_arrays(pa.array(starts, pa.int64()), pa.array(flat[take], kind))


def encode_messages(messages):
    """Return each message as JSON text, `{"role": ..., "content": ...}`."""
    return [_encode_json({"role": role, "content": text}) for role, text in messages]


_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def write_engine_trace(trace, encoded_messages, path):
    """Write the trace as JSON Lines that can drive a server: a request a line, in arrival order.

    Keys: `request_id conversation_id turn timestamp` (s) `messages prompt_tokens output_tokens`.

    Parameters
    ----------
    trace : Trace
    encoded_messages : mapping of int to list of str
        The messages of each conversation as `encode_messages` returns them, by `conversation_index`.
    path : path-like
    """
    columns = ["request_id", "conversation_index", "conversation_id", "turn", "arrival_s", "messages"]
    columns += ["prompt_tokens", "output_tokens"]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for name, index, conversation, turn, arrival, count, prompt, output in zip(
            *(trace.requests[column].tolist() for column in columns), strict=True
        ):
            file.write(
                f'{{"request_id": "{name}", "conversation_id": {_encode_json(conversation)}, "turn": {turn}, '
                f'"timestamp": {arrival}, "messages": [{", ".join(encoded_messages[index][:count])}], '
                f'"prompt_tokens": {prompt}, "output_tokens": {output}}}\n'
            )
