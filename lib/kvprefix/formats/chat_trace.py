"""Turn a log of requests into the central trace: its messages tokenised, its own stamps as arrival times.

Every prompt's ids equal ``apply_chat_template(messages, add_generation_prompt=True)`` of the request's whole messages.
"""

import numpy as np
import pandas as pd
import pyarrow as pa

from kvprefix.files.arrow_arrays import flat_lists, to_array
from kvprefix.files.paths import InputError
from kvprefix.files.progress import show_progress
from kvprefix.files.words import count
from kvprefix.formats.chat_threads import make_chain, make_chains, thread_requests
from kvprefix.tokens.arrays import Tokens
from kvprefix.tokens.encode import encode_conversations
from kvprefix.tokens.template import open_chat
from kvprefix.traces.trace import REQUEST_COLUMNS, Trace

CHAINS_AT_A_TIME = 512


def tokenise_log(log, source, *, progress=True):
    """Tokenise a log.

    Parameters
    ----------
    log : RequestLog
    source : TokenizerSource
    progress : bool

    Returns
    -------
    Trace
        `conversation_index` and `turn` are what `thread_requests` finds. An output is what the log says the model
        answered, or what the next request says it did; else it is empty, and `output_tokens` the log's own number if it
        has one, or 0. ``info["log"]`` counts, and its `notes` say what was left out.

    Raises
    ------
    InputError
        A chat template that refuses every request.
    """
    texts = [message.text for request in log.requests for message in request.messages]
    chat, threads = open_chat(source, texts), thread_requests(log.requests)
    table, of_row, before, refused = _encode(log.requests, threads.previous, chat, progress)
    if not len(of_row):
        raise InputError(f"tokenizer {source.name}: its chat template refuses every request: {refused[1]}")
    tokens = _make_tokens(table, of_row, before, len(log))
    rows = np.argsort(of_row)
    kept = of_row[rows]
    prompt_tokens, output_tokens = tokens.prompt_lengths()[rows], np.diff(tokens.output_offsets)[rows]
    counts = {
        "requests": len(kept),
        "conversations": len(np.unique(threads.conversation[kept])),
        "going_on_from_another": int((threads.previous[kept] >= 0).sum()),
        "outputs_known": int((output_tokens > 0).sum()),
        "refused_by_template": len(log) - len(kept),
    }
    said = [log.requests[i].output_tokens for i in kept]
    output_tokens = np.array([n or said[i] or 0 for i, n in enumerate(output_tokens.tolist())], np.int64)
    requests = pd.DataFrame({
        "request_id": [log.requests[i].name for i in kept],
        "conversation_index": threads.conversation[kept],
        "conversation_id": [threads.names[number] for number in threads.conversation[kept]],
        "turn": threads.turn[kept],
        "arrival_s": log.arrival_s[kept],
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "messages": [len(log.requests[i].messages) for i in kept],
    })  # fmt: skip
    notes = [*log.info["notes"], *_describe(counts, refused, [log.requests[i].prompt_tokens for i in kept], requests)]
    info = {
        "mode": "log",
        "log": {**log.info, **counts, "notes": notes},
        "tokenizer": {"name": source.name, "sha256": source.fingerprint, "has_template": chat.has_template,
                      "encoder": chat.encoder.name},
    }
    return Trace(requests[REQUEST_COLUMNS], rows, tokens, info)


def _encode(requests, previous, chat, progress):
    """Return (table, request of each row, the one it continues, (how many were refused, a reason))."""
    chains, done = make_chains(requests, previous), np.zeros(len(requests), bool)
    tables, of_row, before, refused = [], [], [], [0, None]
    with show_progress(len(requests), "tokenising", " requests", shown=progress) as bar:
        for start in range(0, len(chains), CHAINS_AT_A_TIME):
            again = chains[start : start + CHAINS_AT_A_TIME]
            for alone in (False, True):  # of a chain that the template refuses, each request is tried alone
                table, bad = encode_conversations(again, chat)
                places = zip(*(table[name].to_pylist() for name in ("conversation", "turn")), strict=True)
                paths = [(again[chain].path, turn) for chain, turn in places]
                fresh = []
                for path, turn in paths:
                    fresh.append(not done[path[turn]])
                    if fresh[-1]:
                        done[path[turn]] = True
                        of_row.append(path[turn])
                        before.append(path[turn - 1] if turn else -1)
                tables.append(table.filter(pa.array(fresh, pa.bool_())))
                bar.update(sum(fresh))
                if bad:
                    refused = [refused[0] + alone * len(bad), next(iter(bad.values()))]
                again = [make_chain(requests, [i]) for k in bad for i in again[k].path if not done[i]]
                if not again:
                    break
    return pa.concat_tables(tables), np.array(of_row, np.int64), np.array(before, np.int64), refused


def _make_tokens(table, of_row, before, n):
    """Return the Tokens of the table's rows."""
    row_of = np.full(n + 1, -1)  # the last one is that of -1
    row_of[of_row] = np.arange(len(of_row))
    own_offsets, own = flat_lists(table["own_tokens"])
    output_offsets, output = flat_lists(table["output_tokens"])
    shared = to_array(table["shared_tokens"]).astype(np.int64)
    template = flat_lists(table["own_is_template"])[1]
    return Tokens(row_of[before], shared, own_offsets, own, template, output_offsets, output)


def _describe(counts, refused, said, requests):
    """Return what was found, and what was left out."""
    n = counts["requests"]
    notes = [
        f"{count(counts['conversations'], 'conversation')}: "
        f"{count(counts['going_on_from_another'], 'request')} of {n:,} continue an earlier one"
    ]
    if counts["refused_by_template"]:
        notes.append(f"{count(counts['refused_by_template'], 'request')} refused by the chat template: {refused[1]}")
    if counts["outputs_known"] < n:
        known = int((requests["output_tokens"] > 0).sum()) - counts["outputs_known"]
        notes.append(
            f"{count(n - counts['outputs_known'], 'request')} without a reply in the log: no generated tokens are kept "
            f"for them ({known:,} have their number)"
        )
    other = sum(a is not None and a != b for a, b in zip(said, requests["prompt_tokens"].tolist(), strict=True))
    if other:
        notes.append(
            f"{count(other, 'request')} with another prompt_tokens in the log than here: it was made with another "
            "tokenizer or chat template (--tokenizer gives the right one)"
        )
    return notes
