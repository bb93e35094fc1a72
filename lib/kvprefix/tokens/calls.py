"""Turn calls of a chat server into prompt tokens: exactly the ids that the server makes of their bodies.

A server's rules make messages, tools and settings of a body (`servers`), the chat template renders them, the text is
cut at the fences, and each distinct piece is encoded once, however many prompts hold it. So the history of an agent is
not encoded again at each call. A reply's tokens are those that the template writes if the reply is put behind its
prompt: what the model sampled may have been other tokens of the same text, so they are marked as rendered.
"""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from kvprefix.conversations.calls import LISTS
from kvprefix.servers.prompt import Memo, Refused
from kvprefix.servers.rules import add_reply, make_prompt
from kvprefix.tokens.arrays import Tokens
from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.tokens.encode import encode_pieces, make_lists
from kvprefix.tokens.facts import find_facts
from kvprefix.tokens.marks import render_marked
from kvprefix.tokens.messages import add_up
from kvprefix.tokens.render import NO_DAY, render_prompt
from kvprefix.tokens.replies import Replies
from kvprefix.tokens.talks import Talks
from kvprefix.tokens.threads import Threads
from kvprefix.tokens.written import list_runs, number_cuts

CALL_SCHEMA = pa.schema(
    [
        ("call", pa.int32()),  # its place among the calls that were given
        ("parent", pa.int32()),  # an earlier row of the same session whose prompt begins like this one; -1 for none
        ("shared_tokens", pa.int32()),  # leading tokens that are the parent's
        ("own_tokens", pa.list_(pa.int32())),  # the prompt's tokens after those
        ("own_is_template", pa.list_(pa.bool_())),  # True if the template, not a message, wrote the token
        ("output_tokens", pa.list_(pa.int32())),  # the reply, up to and with the end-of-turn token
        ("reply", pa.int8()),  # how its tokens were found: see `replies`
    ]
)


class Lost(NamedTuple):
    """Calls, or replies, that a server or a template refuses for one reason.

    Attributes
    ----------
    count : int
    place : str
        Where the first of them stands.
    said : str
        What is wrong with that one.
    """

    count: int
    place: str
    said: str


class Encoded(NamedTuple):
    """The calls of some sessions as tokens.

    Attributes
    ----------
    table : pyarrow.Table
        One row per call that was not refused (CALL_SCHEMA), in the order of the calls.
    refused : dict of str to Lost
        Calls that have no prompt, by reason.
    replies_refused : dict of str to Lost
        Replies that could not be rendered, by reason; their calls have no output.
    undated : int
        Calls without a time whose template writes the date: it wrote NO_DAY.
    hidden : dict of str to int
        Prompts with `tools`, `tool_calls`, `reasoning` or `documents` under a template that never looks at them: the
        server drops them, too.
    said : list of Said
        The messages of each row, if they were asked for, and `runs`, the columns `written.WRITTEN_FIELDS`.
    """

    table: pa.Table
    refused: dict
    replies_refused: dict
    undated: int
    hidden: dict
    said: list = ()
    runs: list = ()


def encode_calls(calls, chat, server="vllm", *, who=False):
    """Tokenise calls.

    Parameters
    ----------
    calls : sequence of Call
        Those of a session in their order; a session's calls belong into one sequence. Calls without a session continue
        an earlier one if their prompt begins with all of that one's messages. What is equal in them is read once if it
        is one object, see `share_messages`.
    chat : Chat
    server : str
        Whose rules make a prompt of a body, see `servers.rules.SERVERS`.
    who : bool
        Whether to find which message each token is of, and what the messages say.

    Returns
    -------
    Encoded

    Raises
    ------
    InputError
        A server that is not known, or a template that runs wild.
    """
    plain, with_tools = (_Way(one, find_facts(one), server, Memo()) for one in _list_chats(chat))
    threads, replies = Threads(chat), Replies(chat, plain.facts)
    numbers, refused, unrendered, undated, hidden, said, talks = [], {}, {}, 0, Counter(), [], Talks()
    for number, call in enumerate(calls):
        now, way = find_day(call), with_tools if has_tools(call) else plain
        try:
            prompt = make_prompt(call.api, call.body, way.facts, server, memo=way.memo)
            text = render_prompt(way.chat, prompt, now)
        except (Refused, TemplateRefusal) as refusal:
            _count(refused, call, refusal)
            continue
        threads.add(call.session, text, render_marked(way.chat, prompt, text, now) if who else None)
        numbers.append(number)
        said += [talks.say(prompt, call.api, way.memo)] if who else []
        undated += call.start_s is None and "strftime_now" in (way.chat.source or "")
        hidden.update(_list_hidden(prompt, way.chat.source))
        try:
            answered = _add_reply(replies, len(numbers) - 1, call, prompt, text, threads.lasts[-1], way, now)
            if who and answered is not None:
                said[-1] = said[-1].answer(talks.say(answered, call.api, way.memo))
        except (Refused, TemplateRefusal) as refusal:
            _count(unrendered, call, refusal)
    table, runs = _make_table(numbers, threads, replies, chat, said if who else None)
    return Encoded(table, refused, unrendered, undated, dict(hidden), said, runs)


class _Way(NamedTuple):
    """A template, what is known of it, whose rules give it messages, and what they gave."""

    chat: object
    facts: object
    server: str
    memo: Memo


def share_messages(calls):
    """Return calls in which the messages that begin a list as that of the session's call before are the same objects.
    """
    last, shared = {}, []
    for call in calls:
        name = LISTS[call.api]
        given, before = call.body.get(name), last.get(call.session, [])
        if isinstance(given, list):
            n = count_equal(before, given)
            given = last[call.session] = before[:n] + given[n:]
            call = call._replace(body={**call.body, name: given})
        shared.append(call)
    return shared


def count_equal(one, other):
    """Return how many leading messages of two lists are written alike: 1, 1.0 and true are not, though they are equal.

    >>> count_equal([{"k": 1}, {"k": 1}], [{"k": 1}, {"k": True}])
    1
    """
    pairs = zip(one, other, strict=False)
    unlike = (k for k, (a, b) in enumerate(pairs) if a is not b and (a != b or repr(a) != repr(b)))
    return next(unlike, min(len(one), len(other)))


def _list_chats(chat):
    """Return the chats for prompts without tools and with tools: two if the tokenizer has a template for each."""
    return chat, chat if chat.tools_source is None else replace(chat, source=chat.tools_source)


def has_tools(call):
    """Tell whether a server looks for the template for tools; for Responses an empty list is none."""
    tools = call.body.get("tools")
    return tools is not None and (call.api != "responses" or tools != [])


def make_tokens(table):
    """Return the Tokens of a table of calls; row r is that of the table's row r."""
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    lists = {name: columns[name] for name in ("own_tokens", "own_is_template", "output_tokens")}
    values = {name: column.flatten().to_numpy(zero_copy_only=False) for name, column in lists.items()}
    offsets = {name: add_up(column.value_lengths().to_numpy()) for name, column in lists.items()}
    return Tokens(
        columns["parent"].to_numpy().astype(np.int64), columns["shared_tokens"].to_numpy().astype(np.int64),
        offsets["own_tokens"], values["own_tokens"], values["own_is_template"], offsets["output_tokens"],
        values["output_tokens"],
    )  # fmt: skip


def find_day(call):
    """Return the time of a call, which a template may write: UTC."""
    return NO_DAY if call.start_s is None else datetime.fromtimestamp(call.start_s, UTC)


def _list_hidden(prompt, source):
    """Return which of a prompt's parts a template never looks at."""
    if source is None:
        return []
    parts = {
        "tools": prompt.tools,
        "documents": prompt.settings.get("documents"),
        "tool_calls": any("tool_calls" in message for message in prompt.messages),
        "reasoning": any(message.get("reasoning") for message in prompt.messages),
    }
    names = {"reasoning": ("reasoning", "thinking")}  # what `reasoning_content` holds, too
    return [
        part for part, held in parts.items() if held and not any(name in source for name in names.get(part, (part,)))
    ]


def _count(lost, call, refusal):
    reason = refusal.reason if isinstance(refusal, Refused) else "the chat template"
    known = lost.get(reason, Lost(0, call.place, str(refusal)))
    lost[reason] = known._replace(count=known.count + 1)


def _add_reply(replies, row, call, prompt, text, last, way, now):
    """Add what the template writes for a call's reply, if the log has one; return the Prompt with the reply."""
    if not call.reply:
        return None
    body = add_reply(call.api, call.body, call.reply)
    answered = make_prompt(call.api, body, way.facts, way.server, answered=True, memo=way.memo)
    replies.add(
        row, text, last,
        lambda generation: render_prompt(way.chat, answered._replace(generation=generation), now),
        lambda: render_prompt(way.chat, prompt._replace(generation=False), now),
    )  # fmt: skip
    return answered


def _make_table(calls, threads, replies, chat, said):
    """Encode all pieces, and put prompts and replies together."""
    numbers = threads.numbers
    whole = replies.number(numbers)
    lasts = [numbers[last] if last else -1 for _, last, _ in replies.found]
    n_pieces = len(numbers)
    number_cuts(threads)
    ids, stops, is_template = encode_pieces(numbers, n_pieces, chat)
    pieces, lengths = np.array(threads.pieces, np.int64), np.diff(stops)
    ends = add_up(lengths[pieces])  # where the tokens of each node begin, among all that are stored
    own = np.repeat(stops[pieces] - ends[:-1], lengths[pieces]) + np.arange(ends[-1])
    parents, shared = _find_parents(threads, ends)
    offsets = ends[threads.offsets]
    runs = [] if said is None else list_runs(threads, said, shared.copy(), (ids, stops))
    if not chat.is_fenced:
        kept = _share_beginnings(threads, parents, shared, (offsets, ids[own]))
        own, offsets = own[kept], add_up(kept)[offsets]
    output_offsets, output, kinds = replies.gather(len(calls), whole, lasts, ids, stops)
    columns = [
        calls, parents, shared, make_lists(offsets, ids[own]), make_lists(offsets, is_template[own]),
        make_lists(output_offsets, output), kinds,
    ]  # fmt: skip
    arrays = [pa.array(column, CALL_SCHEMA.types[k]) for k, column in enumerate(columns)]
    return pa.table(arrays, schema=CALL_SCHEMA), runs


def _find_parents(threads, ends):
    """Return the row that each row continues, -1 for none, and how many leading tokens are that row's."""
    nodes, offsets = np.array(threads.nodes, np.int64), np.array(threads.offsets)
    parents = np.where(nodes >= 0, np.searchsorted(offsets, nodes, "right") - 1, -1)
    shared = np.zeros(len(nodes), np.int64)
    for row in np.flatnonzero(parents >= 0):
        parent = parents[row]
        shared[row] = shared[parent] + ends[nodes[row] + 1] - ends[offsets[parent]]
    return parents, shared


def _share_beginnings(threads, parents, shared, tokens):
    """Let rows go on, by their leading tokens, from the last one whose own begin at the same node.

    `parents` and `shared` are changed in place; it returns which of the own tokens are left, like them.
    """
    offsets, own = tokens
    kept = np.ones(len(own), bool)
    for row, before in enumerate(threads.before):
        if before >= 0:
            this, other = (own[offsets[k] : offsets[k + 1]] for k in (row, before))
            size = min(len(this), len(other))
            differ = np.flatnonzero(this[:size] != other[:size])
            common = int(differ[0]) if len(differ) else size
            if common:
                parents[row], shared[row] = before, shared[row] + common
                kept[offsets[row] : offsets[row] + common] = False
    return kept
