"""Traces in Bailian's form: JSON Lines with chats, stamps in seconds, and blocks of 16 tokens.

The form of github.com/alibaba-edu/qwen-bailian-usagetraces-anon (Wang et al., KVCache in the Wild, USENIX ATC 2025): a
line is `{"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 521, "output_length": 132, "type":
"text", "turn": 2, "hash_ids": [...]}`; -1 (or null) is the parent of a chat's first request. Its data card says that
an id hashes its block's own tokens alone, so an id that follows two different blocks counts as two blocks.
"""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa

from kvprefix.blocks.listed import number_conversations
from kvprefix.files.jsonlines import is_whole
from kvprefix.files.words import count
from kvprefix.formats.block_forms import LENGTH, STAMP, Field, Form
from kvprefix.formats.block_lines import read_blocks, write_blocks
from kvprefix.formats.registry import FORMATS
from kvprefix.formats.values import is_id

_CHAT = Field(pa.int64(), is_id, "expected a whole number or a text")
_FIELDS = {
    "timestamp": STAMP._replace(expected="expected a number of seconds"),
    "input_length": LENGTH,
    "output_length": LENGTH,
    "chat_id": _CHAT,
    "parent_chat_id": _CHAT._replace(default=-1),
    "type": Field(pa.string(), lambda value: isinstance(value, str), "expected a text"),
    "turn": Field(
        pa.int64(), lambda value: is_whole(value) and 1 <= value < 2**31, "expected a whole number, 1 or more",
        1, 2**31 - 1,
    ),
}
BAILIAN = Form(
    _FIELDS, FORMATS["bailian"].block_size, 1,
    'a line is {"chat_id": id, "parent_chat_id": id or -1, "timestamp": seconds, "input_length": tokens, '
    '"output_length": tokens, "type": text, "turn": from 1, "hash_ids": [block, ...]}', False,
)  # fmt: skip


def read_bailian(path, block_size=None):
    """Read a trace in Bailian's form; chats that continue one another are a conversation.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.
    block_size : int, optional
        Tokens per block: a request lists ceil(input_length / block_size) ids. If not given: what the first line's
        `block_size` says, else 16.

    Returns
    -------
    PrefixTrace
        In the order of the stamps, or of the lines if there are none; with all optional fields. A request continues
        the last one before it whose `chat_id` is its `parent_chat_id`, or its own `chat_id` if it names no parent.
        ``info["notes"]`` says what was put right.

    Raises
    ------
    InputError
        Naming the file and the line that is no such request.
    """
    trace, values, _ = read_blocks(path, BAILIAN, block_size)
    chats, parents = (values[name].tolist() for name in ("chat_id", "parent_chat_id"))
    previous, lost = link_chats(chats, parents)
    if lost:
        said = f"{count(lost, 'request')} whose parent is not before them in the file: taken as first"
        trace.info["notes"].append(said)
    return replace(
        trace, output_tokens=values["output_length"], previous=previous, turn=values["turn"] - 1,
        types=values["type"].tolist(), conversation=number_conversations(previous),
    )  # fmt: skip


def link_chats(chats, parents):
    """Find the request that each one continues.

    Parameters
    ----------
    chats, parents : list of int or str
        `chat_id` and `parent_chat_id` of each request, in the order of arrival; -1 is no parent.

    Returns
    -------
    previous : (n,) ndarray of int64
        Always an earlier request; -1 for none.
    lost : int
        Requests that name a parent which is not before them.

    Examples
    --------
    >>> link_chats([5, 6, 5, 7], [-1, 5, -1, 9])
    (array([-1,  0,  0, -1]), 1)
    """
    latest, previous, lost = {}, np.full(len(chats), -1), 0
    for i, (chat, parent) in enumerate(zip(chats, parents, strict=True)):
        previous[i] = latest.get(chat if parent == -1 else parent, -1)
        lost += parent != -1 and previous[i] < 0
        latest[chat] = i
    return previous, int(lost)


def write_bailian(trace, path, *, progress=True):
    """Write a trace in Bailian's form, with `block_size` in each line; a request's `chat_id` is its position.

    Parameters
    ----------
    trace : PrefixTrace
        It lists partial blocks too. What it does not know is written as no parent, turn 1, type text and 0 tokens.
    path : path-like
    progress : bool

    Returns
    -------
    list of str
        What was dropped or added.
    """
    n, types = len(trace), trace.types or ["text"] * len(trace)
    previous = np.full(n, -1) if trace.previous is None else trace.previous
    outputs, turn = (np.zeros(n, np.int64) if one is None else one for one in (trace.output_tokens, trace.turn))
    columns = previous, trace.arrival_s, trace.prompt_tokens, outputs, turn + 1
    rows = zip(*(column.tolist() for column in columns), types, strict=True)
    heads = (
        f'{{"chat_id": {i}, "parent_chat_id": {before}, "timestamp": {arrival}, "input_length": {length}, '
        f'"output_length": {output}, "type": {json.dumps(kind)}, "turn": {turn}, "block_size": {trace.block_size}'
        for i, (before, arrival, length, output, turn, kind) in enumerate(rows)
    )
    write_blocks(trace, path, heads, progress=progress)
    notes = ["chat_id is numbered anew" if trace.types else "type is written as text"]
    if trace.previous is None:
        notes.append("no conversations are known: every request is a first turn")
    return notes
