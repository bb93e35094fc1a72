"""Make the table of requests of a log of calls from the joined parts: sessions, turns, times as the log has them."""

import numpy as np
import pandas as pd

from kvprefix.conversations.records import is_time_name, make_unique
from kvprefix.files.words import count
from kvprefix.tokens.arrays import Tokens
from kvprefix.tokens.messages import Messages, add_up
from kvprefix.tokens.written import RENDERED
from kvprefix.traces.trace import LOG_COLUMNS

NO_NOTES = {  # of parts without calls
    "refused": {}, "unanswered": {}, "undated": 0, "salted": 0, "hidden": {}, "models": [],
}  # fmt: skip


def make_joined_tokens(joined, parent):
    """Return the Tokens of joined parts, row for row; `parent` is the row that each row continues, -1 for none."""
    rows, arrays = joined.rows, joined.arrays
    own_offsets, output_offsets = (add_up(rows[name].to_numpy()) for name in ("own_tokens", "output_tokens"))
    return Tokens(
        parent, rows["shared_tokens"].to_numpy().astype(np.int64), own_offsets, arrays["own_tokens"],
        arrays["own_is_template"], output_offsets, arrays["output_tokens"],
    )  # fmt: skip


def make_call_requests(joined):
    """Return (DataFrame of requests by session and turn, their Tokens, their Messages).

    A session's requests are in order of time if all have one, else as the log numbers them, else as they stand.

    Returns
    -------
    requests : pandas.DataFrame
        Its index is the row of the tokens. Columns as for conversations, `trace.LOG_COLUMNS`, and
        `parent_session`, the `conversation_id` of the session that started a sub-agent's, else None.
    tokens : Tokens
    messages : Messages
        By chains, see there.
    """
    rows = _take_rows(joined)
    index = np.arange(len(rows))
    tokens = make_joined_tokens(joined, rows["parent"].to_numpy(copy=True))
    keys = np.where(rows["session"].isna(), "c" + rows["conversation"].astype(str), "s" + rows["session"].fillna(""))
    session = pd.factorize(keys)[0]
    order = np.lexsort((_find_order(rows, session, "order"), _find_order(rows, session, "start_s"), session))
    rows, session = rows.iloc[order], session[order]
    turn = index - np.searchsorted(session, session)
    outputs = np.diff(tokens.output_offsets)[order]
    requests = pd.DataFrame({
        "request_id": _name_calls(rows["name"], session, turn),
        "conversation_index": session,
        "conversation_id": rows["conversation_id"].groupby(session).transform("first"),
        "turn": turn,
        "prompt_tokens": tokens.prompt_lengths()[order],
        "output_tokens": np.where(outputs > 0, outputs, rows["usage_output"].fillna(0)).astype(np.int64),
        "messages": rows["messages"].astype(np.int64),
        "parent_session": rows["parent_session"],
        **{name: rows[name].astype(bool if name == "after_tool" else float) for name in LOG_COLUMNS},
    }, index=order)  # fmt: skip
    return requests, tokens, _chain_messages(joined)


def _take_rows(joined):
    """Return the joined rows as a frame, with the columns of calls also where a part of texts has none."""
    left = {"head", *RENDERED} & {*joined.rows.column_names}
    rows = joined.rows.drop_columns([*left]).to_pandas()
    for name in {*LOG_COLUMNS, "parent", "order", "begins_chain"} - {*rows}:
        rows[name] = np.nan
    for name in {"session", "parent_session", "name"} - {*rows}:
        rows[name] = None
    before = np.where(rows["turn"] > 0, np.arange(len(rows)) - 1, -1)  # of texts
    rows["parent"] = rows["parent"].where(rows["parent"].notna(), before).astype(np.int64)
    rows["after_tool"] = rows["after_tool"].eq(True)
    return rows


def _find_order(rows, session, name):
    """Return a column by which the calls of a session are put in order; 0 for all if any of them has no value."""
    values = rows[name].astype(float)
    whole = (values.notna() & rows["begins_chain"].notna()).groupby(session).transform("all")
    return values.where(whole, 0.0).to_numpy()


def _name_calls(names, session, turn):
    """Return the requests' ids: the log's own, else by conversation and turn; a repeated one becomes `ID#2`."""
    taken = {}
    made = zip(names.tolist(), session.tolist(), turn.tolist(), strict=True)
    return [make_unique(name if isinstance(name, str) else f"c{s}t{t}", taken) for name, s, t in made]


def _chain_messages(joined):
    """Return the Messages of joined rows, whose lists of messages continue one another."""
    turn, heads = joined.rows["turn"].to_numpy(), None
    begins = turn == 0
    if "begins_chain" in joined.rows.column_names:
        given = joined.rows["begins_chain"].to_pandas()
        begins, heads = np.where(given.isna(), begins, given.eq(True)), joined.rows["head"]
    names, rendered = joined.rows.column_names, None
    if set(RENDERED) <= {*names}:
        rendered = joined.rows.select(RENDERED)
    chains = np.cumsum(begins) - 1
    counts = np.bincount(chains, joined.rows["said_lengths"].to_numpy()).astype(np.int64)
    said, lengths = joined.arrays["said"], joined.arrays["said_lengths"]
    return Messages(said, add_up(lengths), add_up(counts), chains, heads, rendered)


def describe_calls(dataset, note, requests):
    """Return the counts of a dataset with what a server refused, and what is uncertain in its calls.

    Parameters
    ----------
    dataset : dict
        As `TrafficCounts.as_dict`.
    note : dict
        Of the parts, see `call_parts`.
    requests : pandas.DataFrame
    """
    refused, times = note["refused"], requests["start_s"].notna().sum() if "start_s" in requests else 0
    if times and dataset.get("not_kept"):
        fields = dataset["not_kept"]["message_fields"]
        used = {name: n for name, n in fields.items() if not is_time_name(name)}
        dataset = {**dataset, "not_kept": {**dataset["not_kept"], "message_fields": used}}
    noted = {f"reply without tokens: {reason}": lost for reason, lost in note["unanswered"].items()}
    for part, n in note["hidden"].items():
        noted[f"{part} that the template does not show"] = [n, "", f"the chat template never looks at {part}"]
    if note["undated"]:
        noted["date not known"] = [note["undated"], "", "calls without a time, in which the template writes a set day"]
    if note["salted"]:
        noted["cache salts"] = [note["salted"], "", "they are not kept: calls of other salts share here"]
    if len(note["models"]) > 1:
        said = f"{count(len(note['models']), 'model')}; their requests share as if they were one's"
        noted["several models"] = [len(note["models"]), "", said]
    return {
        **dataset,
        "conversations": int(requests["conversation_index"].nunique()),
        "requests": len(requests),
        "requests_with_time": int(times),
        "refused": {name: n for name, (n, _, _) in refused.items()},
        "first_refused": {name: f"{place}: {said}" for name, (_, place, said) in refused.items()},
        "noted": dataset["noted"] | {name: n for name, (n, _, _) in noted.items()},
        "first_noted": dataset["first_noted"]
        | {name: f"{place}: {said}" if place else said for name, (_, place, said) in noted.items()},
    }
