"""Turn chat traffic of any form into the central trace: the prompts that a server would have seen, when the log says.

Calls are tokenised some at a time, so a large log is not kept in memory; prompts never depend on that. Where a batch
ends, a session's next prompt stores its beginning again.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from kvprefix.conversations.calls import list_messages
from kvprefix.conversations.records import replace_halves
from kvprefix.conversations.traffic import TrafficCounts, read_traffic
from kvprefix.files.paths import InputError
from kvprefix.files.progress import show_progress
from kvprefix.formats.call_log import name_calls, order_by_time
from kvprefix.formats.traffic_notes import describe_read, describe_skipped, describe_tokens
from kvprefix.tokens.call_parts import make_calls
from kvprefix.tokens.calls import encode_calls, make_tokens, share_messages
from kvprefix.tokens.parts import split_parts
from kvprefix.tokens.template import open_call_chat
from kvprefix.traces.trace import Trace


@dataclass
class _Rows:
    """What is kept of the calls that have prompts: a value per row."""

    calls: list = field(default_factory=list)  # without their bodies
    messages: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    refused: dict = field(default_factory=dict)
    replies_refused: dict = field(default_factory=dict)
    undated: int = 0
    salted: int = 0  # calls with a cache_salt, by which a server keeps their blocks apart
    hidden: Counter = field(default_factory=Counter)

    def add(self, calls, encoded):
        """Add a batch."""
        start, table = len(self.calls), encoded.table
        numbers = table["call"].to_pylist()
        self.calls += [calls[k]._replace(body=None, reply=()) for k in numbers]
        self.salted += sum(bool(calls[k].body.get("cache_salt")) for k in numbers)
        self.messages += [len(list_messages(calls[k])) for k in numbers]
        parents = table["parent"].to_numpy()
        moved = pa.array(np.where(parents >= 0, parents + start, -1), pa.int32())
        self.tables.append(table.set_column(table.schema.get_field_index("parent"), "parent", moved))
        for known, found in ((self.refused, encoded.refused), (self.replies_refused, encoded.replies_refused)):
            for reason, lost in found.items():
                before = known.get(reason)
                known[reason] = before._replace(count=before.count + lost.count) if before else lost
        self.undated += encoded.undated
        self.hidden.update(encoded.hidden)


def read_chats(source, tokenizer, *, server="vllm", of_run=False, progress=True):
    """Read chat traffic of any form and tokenise it as a server does.

    Parameters
    ----------
    source : path-like or `bundled`
        A file, a folder or a glob, see `read_traffic`.
    tokenizer : TokenizerSource
    server : str
        Whose rules make prompts of bodies.
    of_run : bool
        Whether `run` wrote the source: its times stay as they are, and a call's reply is in its session's next call, if
        that is tokenised with it.
    progress : bool

    Returns
    -------
    Trace
        A request per call, and per message of a user, or run of results of tools, in a data set's conversation; in
        order of time, if all have one, else of the source, at 0 s. `conversation_index` counts sessions; calls without
        a session belong to the one that they continue. ``info["log"]`` counts what was read and left out.

    Raises
    ------
    InputError
        No such source, none of a known form, or no request that can be rendered.
    """
    counts, rows = TrafficCounts(), _Rows()
    chat = None
    for calls in _read_batches(source, counts, progress):
        calls = _find_replies(calls) if of_run else calls
        chat = chat or open_call_chat(tokenizer, calls)
        rows.add(calls, encode_calls(calls, chat, server))
    if not rows.calls:
        raise InputError(f"{source}: holds no request that can be rendered{describe_skipped(counts, rows.refused)}")
    table = pa.concat_tables(rows.tables)
    tokens = make_tokens(table)
    order, arrival_s, notes = order_by_time(rows.calls, from_first=not of_run)
    requests = _make_requests(rows, tokens, table["parent"].to_numpy(), order, arrival_s)
    notes = [*describe_read(counts), *describe_tokens(rows, tokens), *notes]
    info = {
        "mode": "log",
        "log": {"trace": Path(str(source)).name, "counts": counts.as_dict(), "server": server, "notes": notes},
        "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.fingerprint, "has_template": chat.has_template,
                      "encoder": chat.encoder.name},
    }  # fmt: skip
    return Trace(requests, order, tokens, info)


def _read_batches(source, counts, progress):
    """Yield lists of calls that are tokenised at once, see `split_parts`."""
    with show_progress(None, "reading", "B", shown=progress) as bar:
        for part in split_parts(read_traffic(source, counts=counts), counts):
            yield share_messages([call for item in part for call in make_calls(item)])
            bar.update(counts.bytes_read - bar.n)


def _find_replies(calls):
    """Return calls with the reply that the next call of their session repeats."""
    calls, last = list(calls), {}
    for k, call in enumerate(calls):
        before = last.get(call.session)
        if before is not None and not calls[before].reply:
            known, messages = list_messages(calls[before]), list_messages(call)
            if messages[: len(known)] == known:
                calls[before] = calls[before]._replace(reply=_take_reply(call.api, messages[len(known) :]))
        last[call.session] = k
    return calls


def _take_reply(api, added):
    """Return the reply with which messages begin: an assistant's, or the output items of Responses up to a result."""
    if api != "responses":
        return tuple(added[:1]) if added and added[0].get("role") == "assistant" else ()
    return tuple(itertools.takewhile(_is_output, added))


def _is_output(item):
    return item.get("role", "assistant") == "assistant" and not str(item.get("type")).endswith("_call_output")


def _make_requests(rows, tokens, parents, order, arrival_s):
    """Return the columns of the trace's requests."""
    outputs = np.diff(tokens.output_offsets)
    said = np.array([call.usage.output or 0 for call in rows.calls], np.int64)
    numbers, names = _number_sessions(rows.calls, parents)
    seen, turns, ids = Counter(), [], name_calls(rows.calls)
    for k in order.tolist():
        call = rows.calls[k]
        turns.append(seen[numbers[k]] if call.turn is None else call.turn)
        seen[numbers[k]] += 1
    return {
        "request_id": [ids[k] for k in order],
        "conversation_index": numbers[order],
        "conversation_id": [names[numbers[k]] for k in order],
        "turn": np.array(turns, np.int64),
        "arrival_s": arrival_s,
        "prompt_tokens": tokens.prompt_lengths()[order],
        "output_tokens": np.where(outputs > 0, outputs, said)[order],
        "messages": np.array(rows.messages, np.int64)[order],
    }


def _number_sessions(calls, parents):
    """Return the number of each call's session, 0, 1, ... as first seen, and their names."""
    known, names, numbers = {}, [], np.zeros(len(calls), np.int64)
    for k, call in enumerate(calls):
        if call.session is None and parents[k] >= 0:
            numbers[k] = numbers[parents[k]]
            continue
        key = (call.session,) if call.session is not None else k
        numbers[k] = known.setdefault(key, len(names))
        if numbers[k] == len(names):
            names.append(replace_halves(str(call.session if call.session is not None else call.name or f"r{k}")))
    return numbers, names
