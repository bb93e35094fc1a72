"""The central type: a request trace with the tokens of its prompts and outputs, and its files.

A trace is made by `workload`, or read from Parquet; everything after it (blocks, sharing, replay) takes one.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (pa.compute)
import pyarrow.parquet as pq
from numba import njit

from kvprefix.contents import load
from kvprefix.files.mapped import release
from kvprefix.files.paths import InputError, atomic_path, check_input_file, explain_os_errors
from kvprefix.files.progress import show_progress
from kvprefix.files.shown import Shown
from kvprefix.tokens.arrays import Tokens, flat_lists, make_tokens

if TYPE_CHECKING:
    import pandas as pd

REQUEST_COLUMNS = [
    "request_id", "conversation_index", "conversation_id", "turn", "arrival_s", "prompt_tokens", "output_tokens",
    "messages",
]  # fmt: skip
TOKEN_COLUMNS = ["parent", "shared_tokens", "own_token_ids", "own_is_template", "output_token_ids"]
ROW_GROUP = 2**16  # requests of a trace's file that are in memory at a time


class _Frame:
    """The field `requests`: given as a frame or as columns, a frame from its first use on.

    Whoever only replays token ids makes no frame and needs no pandas.
    """

    def __get__(self, trace, owner=None):
        if trace is None:
            raise AttributeError("a trace has no requests unless they are given")
        given = vars(trace)["_given"]
        if isinstance(given, dict):
            import pandas as pd

            given = vars(trace)["_given"] = pd.DataFrame(given)
        return given

    def __set__(self, trace, given):
        vars(trace)["_given"] = given


@dataclass(frozen=True, repr=False)
class Trace(Shown):
    """Requests in arrival order, and their tokens.

    Attributes
    ----------
    requests : pandas.DataFrame
        Given as one, or as a dict of columns. REQUEST_COLUMNS: `request_id` (str), `conversation_index` (0-based among
        the usable), `conversation_id` (str), `turn` (0-based), `arrival_s` (seconds from the start), `prompt_tokens`,
        `output_tokens`, and `messages` (how many of the conversation's messages the prompt holds).
    rows : (n,) ndarray of int64
        The row of each request in `tokens`.
    tokens : Tokens or MessageTokens
        May hold more rows than the trace uses; both modes of a workload share one.
    info : dict
        What made the trace: JSON values.
    contexts : (n,) ndarray of int64, optional
        Only requests of equal context can share blocks: 0, 1, ... for each cache salt and LoRA adapter. None: all can.
    """

    requests: pd.DataFrame = _Frame()
    rows: np.ndarray
    tokens: Tokens
    info: dict
    contexts: np.ndarray | None = None

    def __len__(self):
        return len(self.rows)

    @property
    def arrival_s(self):
        """Arrival times in seconds, ascending, (n,) float64."""
        return np.asarray(vars(self)["_given"]["arrival_s"])

    @property
    def request_ids(self):
        """The requests' ids as a list, as they were given."""
        return list(vars(self)["_given"]["request_id"])

    def prompt(self, i):
        """Return the prompt's token ids of the i-th request."""
        return self.tokens.prompt(self.rows[i])

    def generated(self, i):
        """Return the output's token ids of the i-th request."""
        return self.tokens.generated(self.rows[i])

    def blocks(self, block_size):
        """Return the trace as a cache of blocks sees it, a `PrefixTrace`: its full prompt blocks.

        Parameters
        ----------
        block_size : int
            Tokens per block.
        """
        return load("make_prefix_trace")(self, block_size)

    def describe(self):
        """Return what the trace holds."""
        prompts = self.tokens.prompt_lengths()[self.rows]
        mode = self.info.get("mode", "").replace("_", "-")
        span = f"{self.arrival_s[-1] - self.arrival_s[0]:,.1f} s" if len(self) else "no time"
        return {
            "what": f"Trace of {len(self):,} requests with tokens{mode and f' ({mode})'}",
            "prompt tokens": f"{prompts.sum():,}",
            "arrivals": f"within {span}",
            "conversations": f"{len(np.unique(self.requests['conversation_index'])):,}",
        }

    def without_template(self):
        """Return the trace as it would be if the chat template wrote nothing: the messages' tokens alone."""
        tokens = self.tokens.without_template
        requests = self.requests.assign(prompt_tokens=tokens.prompt_lengths()[self.rows])
        return replace(self, requests=requests, tokens=tokens, info={**self.info, "template_tokens": False})


def make_trace_of(prompts, arrival_s=None, outputs=None, *, cache_salts=None, lora_names=None):
    """Make a trace of plain lists of token ids, a conversation each.

    Parameters
    ----------
    prompts, outputs : sequence of sequence of int
        A prompt and an output per request, 0 <= id < 2**31; no outputs are empty ones.
    arrival_s : sequence of float, optional
        Seconds; 0, 1, 2, ... if not given.
    cache_salts, lora_names : sequence of str or None, optional
        Of each request; None and "" are no salt, no adapter.

    Raises
    ------
    InputError
        A token id that is no whole number of 31 bits; lists of different lengths.

    Examples
    --------
    >>> len(make_trace_of([[1, 2], [1, 2, 3]]))
    2
    """
    n = len(prompts)
    columns = {"outputs": outputs, "arrival_s": arrival_s, "cache_salts": cache_salts, "lora_names": lora_names}
    for name, column in columns.items():
        if column is not None and len(column) != n:
            raise InputError(f"{name} has {len(column)} entries for {n} prompts; expected one per prompt")
    tokens = make_tokens(prompts, [()] * n if outputs is None else outputs)
    return make_flat_trace(tokens, arrival_s=arrival_s, contexts=number_contexts(cache_salts, lora_names))


def make_flat_trace(tokens, *, request_ids=None, arrival_s=None, contexts=None):
    """Make a trace of all rows of `tokens`, a conversation each; ids and times as in `make_trace_of` if not given."""
    n = len(tokens.shared)
    requests = {
        "request_id": [f"c{i}t0" for i in range(n)] if request_ids is None else request_ids,
        "conversation_index": np.arange(n),
        "conversation_id": [str(i) for i in range(n)],
        "turn": np.zeros(n, np.int64),
        "arrival_s": np.arange(n, dtype=float) if arrival_s is None else np.asarray(arrival_s, float),
        "prompt_tokens": tokens.prompt_lengths(),
        "output_tokens": np.diff(tokens.output_offsets),
        "messages": np.ones(n, np.int64),
    }  # fmt: skip
    return Trace(requests, np.arange(n), tokens, {}, contexts)


def number_contexts(*columns):
    """Number the distinct combinations of the requests' salts, adapters, ...: 0, 1, ... as first seen; None: all equal.

    >>> number_contexts(["x", None, "x", ""], None)
    array([0, 1, 0, 1])
    """
    given = [[value or None for value in column] for column in columns if column is not None]
    codes = {}
    contexts = np.array([codes.setdefault(key, len(codes)) for key in zip(*given, strict=True)], np.int64)
    return contexts if len(codes) > 1 else None


def write_trace(trace, path):
    """Write a trace to one Parquet file, a row a request in arrival order, tokens stored as in `Tokens`."""
    if trace.contexts is not None:
        raise InputError(f"{path}: a Parquet trace holds no cache salts and no adapters; expected a trace without")
    tokens, rows = trace.tokens, trace.rows
    position = np.full(len(tokens.shared), -1)
    position[rows] = np.arange(len(rows))
    parent = np.where(tokens.parent[rows] >= 0, position[tokens.parent[rows]], -1)
    orphans = (tokens.shared[rows] > 0) & ((parent < 0) | (parent >= np.arange(len(rows))))
    if orphans.any():
        raise ValueError(f"request {int(orphans.argmax())} of the trace goes on from one that is not before it")
    note = {"kvprefix": json.dumps(trace.info, sort_keys=True)}
    table = _make_table(trace, parent, slice(0, ROW_GROUP)).replace_schema_metadata(note)
    options = {"compression": "zstd", "write_page_checksum": True}
    bar = show_progress(len(rows), f"writing {Path(path).name}", " requests")
    with atomic_path(path) as temporary, bar, pq.ParquetWriter(temporary, table.schema, **options) as file:
        for start in range(0, max(len(rows), 1), ROW_GROUP):
            file.write_table(_make_table(trace, parent, slice(start, start + ROW_GROUP)).cast(table.schema))
            for array in (tokens.own, tokens.own_is_template, tokens.output):
                release(array)
            bar.update(min(ROW_GROUP, len(rows) - start))


def _make_table(trace, parent, some):
    """Return some of the requests with their tokens as an Arrow table."""
    tokens, rows = trace.tokens, trace.rows[some]
    table = pa.Table.from_pandas(trace.requests[REQUEST_COLUMNS].iloc[some], preserve_index=False)
    columns = [
        pa.array(parent[some], pa.int64()),
        pa.array(tokens.shared[rows], pa.int64()),
        _lists(tokens.own, tokens.own_offsets, rows, pa.int32()),
        _lists(tokens.own_is_template, tokens.own_offsets, rows, pa.bool_()),
        _lists(tokens.output, tokens.output_offsets, rows, pa.int32()),
    ]
    for name, column in zip(TOKEN_COLUMNS, columns, strict=True):
        table = table.append_column(name, column)
    return table


def read_trace(path):
    """Read a trace that `write_trace` wrote."""
    check_input_file(path)
    with explain_os_errors(path):
        try:
            table = pq.read_table(path, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else error
            raise InputError(f"{path}: cannot be read as a Parquet trace: {reason}") from error
    missing = {*TOKEN_COLUMNS, *REQUEST_COLUMNS} - set(table.column_names)
    if missing:
        raise InputError(f"{path}: is no kvprefix trace: lacks the columns {', '.join(sorted(missing))}")
    with _explain_wrong(path):
        _check_kinds(table)
        info = json.loads((table.schema.metadata or {}).get(b"kvprefix", b"{}"))
        own_offsets, own = flat_lists(table["own_token_ids"])
        output_offsets, output = flat_lists(table["output_token_ids"])
        tokens = Tokens(
            table["parent"].to_numpy(), table["shared_tokens"].to_numpy(), own_offsets, own,
            flat_lists(table["own_is_template"])[1], output_offsets, output,
        )  # fmt: skip
        trace = Trace(table.select(REQUEST_COLUMNS).to_pandas(), np.arange(len(table)), tokens, info)
        _check_whole(trace)
    return trace


@contextlib.contextmanager
def _explain_wrong(path):
    """Turn what is wrong with a file's values into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: is no whole kvprefix trace: {reason}; expected one of `run --parquet`") from error


def _check_kinds(table):
    """Raise ValueError where a column holds something else than it should, or nothing."""
    kinds = {"request_id": pa.types.is_string, "conversation_id": pa.types.is_string, "arrival_s": pa.types.is_float64}
    kinds |= dict.fromkeys(["own_token_ids", "output_token_ids"], lambda kind: kind == pa.large_list(pa.int32()))
    kinds["own_is_template"] = lambda kind: kind == pa.large_list(pa.bool_())
    for name in (*REQUEST_COLUMNS, *TOKEN_COLUMNS):
        column = table[name]
        strings = pa.types.is_large_string(column.type) and name.endswith("_id")
        is_right = strings or not len(table) or kinds.get(name, pa.types.is_integer)(column.type)  # no rows, no kinds
        if column.null_count or not is_right:
            raise ValueError(f"its column {name} holds {column.type}, {column.null_count} of them nothing")


def _check_whole(trace):
    """Raise ValueError where the values contradict one another: what reads them trusts them."""
    tokens, requests, n = trace.tokens, trace.requests, len(trace)
    own, arrival = np.diff(tokens.own_offsets), trace.arrival_s
    lengths, shared, parent = tokens.shared + own, tokens.shared, tokens.parent
    before = lengths[np.clip(parent, 0, n - 1)] if n else lengths
    wrong = {
        "requests that go on from none before them": (parent < -1) | (parent >= np.arange(n)),
        "requests that share more than there is": (shared < 0) | (shared > np.where(parent < 0, 0, before)),
        "other numbers of prompt tokens than tokens": requests["prompt_tokens"].to_numpy() != lengths,
        "arrivals that are no times in order": ~np.isfinite(arrival) | (np.diff(arrival, prepend=arrival[:1]) < 0),
        "numbers below 0": (requests[["conversation_index", "turn", "output_tokens", "messages"]] < 0).any(axis=1),
        "token ids below 0": [(ids < 0).any() for ids in (tokens.own, tokens.output)],
        "other lists of template tokens than of tokens": len(tokens.own_is_template) != len(tokens.own),
    }
    found = [what for what, is_wrong in wrong.items() if np.any(is_wrong)]
    if not isinstance(trace.info, dict) or not isinstance(trace.info.get("parameters", {}), dict):
        found.append("notes that are none")
    if found:
        raise ValueError(f"it has {', '.join(found)}")


def _lists(flat, offsets, rows, kind):
    """Return the rows' lists as an Arrow column, in the rows' order."""
    starts = np.concatenate(([0], np.cumsum(np.diff(offsets)[rows])))
    return pa.LargeListArray.from_arrays(pa.array(starts, pa.int64()), pa.array(_gather(flat, offsets, rows), kind))


@njit(cache=True, nogil=True)
def _gather(flat, offsets, rows):
    total = 0
    for row in rows:
        total += offsets[row + 1] - offsets[row]
    out, position = np.empty(total, flat.dtype), 0
    for row in rows:
        length = offsets[row + 1] - offsets[row]
        out[position : position + length] = flat[offsets[row] : offsets[row + 1]]
        position += length
    return out
