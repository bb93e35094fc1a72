"""Encode a part of a log of calls: the table that `encode` makes of conversations, and what only calls have.

Beside tokens it keeps times, names and sessions, and the bodies that were sent, each message once: a call whose list
of messages continues that of the call before it in its session adds to the same chain.
"""

import json

import numpy as np
import pyarrow as pa

from kvprefix.conversations.calls import LISTS, Call, Dialog, brings_result, list_messages
from kvprefix.conversations.records import replace_halves
from kvprefix.servers.dialogs import calls_of
from kvprefix.tokens.calls import count_equal, encode_calls, share_messages
from kvprefix.tokens.encode import PART_SCHEMA, make_lists
from kvprefix.tokens.messages import add_up
from kvprefix.tokens.talks import list_new
from kvprefix.tokens.written import SAID_FIELDS, WRITTEN_FIELDS

CALL_FIELDS = (
    pa.field("parent", pa.int32()),  # an earlier row of the part whose prompt begins like this one; -1 for none
    pa.field("session", pa.string()),  # calls of one name belong together, in whatever part; null: those of this part
    pa.field("parent_session", pa.string()),  # the session that started this one: a sub-agent's
    pa.field("name", pa.string()),  # the log's own name of the call
    pa.field("order", pa.int64()),  # which request of its session it is, if the log says so
    pa.field("start_s", pa.float64()),  # seconds since 1970, UTC; null if not known, as all below
    pa.field("ttft_s", pa.float64()),  # from the start to the first token
    pa.field("service_s", pa.float64()),  # from the start to the end of the answer
    pa.field("after_tool", pa.bool_()),  # whether it brings the result of a tool
    pa.field("begins_chain", pa.bool_()),  # whether it begins a list of messages; else it adds to the row before
    pa.field("head", pa.dictionary(pa.int32(), pa.large_string())),  # API and body without its messages, as JSON
    pa.field("usage_prompt", pa.int64()),  # tokens that the provider counted
    pa.field("usage_cached", pa.int64()),
    pa.field("usage_output", pa.int64()),
    *WRITTEN_FIELDS,
    *SAID_FIELDS,
)
CALL_SCHEMA = pa.schema([*PART_SCHEMA, *CALL_FIELDS])
_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def make_calls(item):
    """Return the calls of what a reader gives: a Call, a Dialog or a Conversation."""
    if isinstance(item, Call):
        return [item]
    if not isinstance(item, Dialog):
        messages = [{"role": message.role, "content": message.text} for message in item.messages]
        item = Dialog(item.id, messages, {}, f"conversation {item.id}", item.times_s)
    return calls_of(item)


def encode_call_part(items, chat, server="vllm"):
    """Tokenise the requests of some calls and conversations as a server does.

    Parameters
    ----------
    items : sequence of Call, Dialog or Conversation
    chat : Chat
    server : str

    Returns
    -------
    table : pyarrow.Table
        One row per request (CALL_SCHEMA); the rows of a session stand together, in the order of the calls.
    note : dict
        `refused` and `unanswered` (each reason's count, first place and what is wrong with it), `undated`, `hidden`,
        `salted` and `models`.
    """
    calls, keys = [], []
    for item in items:
        made = make_calls(item)
        calls += made
        keys += [one.session if isinstance(item, Call) else None for one in made]
    calls = share_messages(calls)
    encoded = encode_calls(calls, chat, server, who=True)
    kept = encoded.table["call"].to_numpy()
    sessions = _number_sessions([calls[k] for k in kept], encoded.table["parent"].to_numpy())
    order = np.argsort(sessions, kind="stable")
    table = _sort_table(encoded.table, order)
    who = _list_who(encoded, order)
    rows = [(calls[kept[k]], keys[kept[k]]) for k in order]
    note = {
        "refused": {reason: list(lost) for reason, lost in encoded.refused.items()},
        "unanswered": {reason: list(lost) for reason, lost in encoded.replies_refused.items()},
        "undated": encoded.undated,
        "hidden": encoded.hidden,
        "salted": sum(bool(call.body.get("cache_salt")) for call, _ in rows),
        "models": sorted({str(call.model) for call, _ in rows if call.model is not None}),
    }
    return _make_table(rows, sessions[order], table, who), note


def _number_sessions(calls, parents):
    """Return the number of each call's session: 0, 1, ... as first seen; without a name it is its parent's."""
    known, numbers = {}, np.zeros(len(calls), np.int64)
    for k, call in enumerate(calls):
        if call.session is None and parents[k] >= 0:
            numbers[k] = numbers[parents[k]]
        else:
            numbers[k] = known.setdefault(k if call.session is None else (call.session,), len(known))
    return numbers


def _sort_table(table, order):
    """Return the rows of a table of calls in another order, in which parents still come first."""
    place = np.empty(len(order) + 1, np.int64)
    place[order], place[-1] = np.arange(len(order)), -1
    parents = pa.array(place[table["parent"].to_numpy()[order]], pa.int32())
    table = table.take(pa.array(order))
    return table.set_column(table.schema.get_field_index("parent"), "parent", parents)


def _list_who(encoded, order):
    """Return the columns that say which messages the rows hold, by name, in the order of the rows."""
    said = [encoded.said[k] for k in order]
    new = [list_new(one.keys, said[k - 1].keys if k else []) for k, one in enumerate(said)]
    runs = [column.take(pa.array(order)) for column in encoded.runs]
    return {
        **{field.name: column for field, column in zip(WRITTEN_FIELDS, runs, strict=True)},
        "said_before": [n for n, _ in new],
        "said_prompt": [len(one.writers) for one in said],
        "said_keys": [keys for _, keys in new],
    }


def _make_table(rows, sessions, table, who):
    calls = [call for call, _ in rows]
    turns = np.arange(len(rows)) - np.searchsorted(sessions, sessions)
    chained = [_add_to_chain(calls, k, sessions[k - 1] == sessions[k] if k else False) for k in range(len(calls))]
    texts = [[_encode_utf8(message) + b", " for message in new] for _, new in chained]
    lengths = [[len(text) for text in one] for one in texts]
    said = np.frombuffer(b"".join(text for one in texts for text in one), np.uint8)
    heads = pa.array([_encode_json(_without_messages(call)) for call in calls], pa.large_string())
    columns = {
        "conversation": sessions,
        "conversation_id": [_name_session(calls, sessions, k) for k in range(len(calls))],
        "turn": turns,
        "messages": [len(list_messages(call)) for call in calls],
        **{name: table[name].combine_chunks() for name in PART_SCHEMA.names if name in table.column_names},
        "said": make_lists(add_up(map(sum, lengths)), said),
        "said_lengths": make_lists(add_up(map(len, lengths)), np.array([n for one in lengths for n in one], np.int32)),
        "parent": table["parent"].combine_chunks(),
        "session": [None if session is None else replace_halves(str(session)) for _, session in rows],
        "parent_session": [None if call.parent is None else replace_halves(str(call.parent)) for call in calls],
        "name": [None if call.name is None else replace_halves(str(call.name)) for call in calls],
        "order": [call.turn for call in calls],
        "start_s": [call.start_s for call in calls],
        "ttft_s": [_find_span(call, call.first_token_s) for call in calls],
        "service_s": [_find_span(call, call.end_s) for call in calls],
        "after_tool": [brings_result(call) for call in calls],
        "begins_chain": [begins for begins, _ in chained],
        "head": heads.dictionary_encode(),
        **{f"usage_{name}": [getattr(call.usage, name) for call in calls] for name in ("prompt", "cached", "output")},
        **who,
    }
    arrays = [_make_array(columns[field.name], field.type) for field in CALL_SCHEMA]
    return pa.table(arrays, schema=CALL_SCHEMA)


def _make_array(column, kind):
    return column.cast(kind) if isinstance(column, pa.Array) else pa.array(column, kind)


def _name_session(calls, sessions, k):
    """Return the name of a row's session; without one, that of its first call."""
    first = calls[int(np.searchsorted(sessions, sessions[k]))]
    name = first.session if first.session is not None else first.name
    return replace_halves(str(name if name is not None else f"from {first.place}"))


def _add_to_chain(calls, k, same_session):
    """Return whether a call begins a chain, and the messages that it adds to it."""
    listed = list_messages(calls[k])
    before = list_messages(calls[k - 1]) if same_session else None
    if before is None or count_equal(before, listed) < len(before):
        return True, listed
    return False, listed[len(before) :]


def _without_messages(call):
    return [call.api, {name: value for name, value in call.body.items() if name != LISTS[call.api]}]


def _encode_utf8(value):
    return _encode_json(value).encode("utf-8", "replace")


def _find_span(call, end_s):
    """Return the seconds from a call's start to another of its times; None if one is not known."""
    return None if call.start_s is None or end_s is None or end_s <= call.start_s else end_s - call.start_s
