"""Render changed requests again, with their template and tokenizer, and replay them in the same order."""

import functools
import re
from dataclasses import replace

import numpy as np

from kvprefix.cache.replay import replay
from kvprefix.conversations.calls import Call
from kvprefix.conversations.load import Conversation
from kvprefix.conversations.records import Message
from kvprefix.explain.advice.bodies import Bodies
from kvprefix.explain.walks import cut_blocks, find_repeats, make_walks
from kvprefix.tokens.arrays import Tokens
from kvprefix.tokens.calls import encode_calls, find_day, make_tokens
from kvprefix.tokens.encode import encode_conversations
from kvprefix.tokens.messages import add_up
from kvprefix.tokens.template import open_call_chat, open_chat
from kvprefix.tokens.tokenizer import find_tokenizer, load_decoder

AT_ONCE = 1024  # conversations that are tokenised together


class NotRendered(Exception):
    """Changed requests of which the template or the server's rules make no prompt; the reason."""


class Prover:
    """Replays a trace with some of its requests changed.

    A key stands for what is changed as one: a conversation of text, or a call, by its row.

    Parameters
    ----------
    workload : Workload
    trace : Trace
        Of its requests.
    block_size : int
    outputs : bool
        Whether generated tokens are cached.
    """

    def __init__(self, workload, trace, block_size, *, outputs=False):
        self.workload, self.trace, self.block_size, self.outputs = workload, trace, block_size, outputs
        self.bodies = Bodies(workload)
        self.is_calls = self.bodies.is_calls
        requests = workload.requests
        by_key = requests.index if self.is_calls else requests["conversation_index"]
        self._key_of = dict(zip(requests.index.tolist(), by_key.tolist(), strict=True))
        self.rows_of = {}
        for row, key in self._key_of.items():
            self.rows_of.setdefault(key, []).append(row)
        self.keys = list(dict.fromkeys(self._key_of[row] for row in trace.rows.tolist()))  # in arrival order
        self._conversations = requests["conversation_index"].to_dict() if self.is_calls else {}
        self._chat = self._decode = None

    def key(self, request):
        """Return the key of a request of the trace."""
        return self._key_of[int(self.trace.rows[request])]

    def conversation(self, key):
        """Return the conversation of a key."""
        return int(self._conversations[key]) if self.is_calls else key

    def asked(self, key):
        """Return what is behind a key: a call, or a whole conversation as an Asked."""
        return self.bodies.of(key) if self.is_calls else self.bodies.whole(key)

    def list_values(self, fix):
        """Return the values that a fix moves or writes anew, one for each request that has its site; in arrival order.

        Of chats, a key is a whole conversation: a turn has a message only if it holds it.
        """
        path, rows = fix.site.path, [row for row in self.trace.rows.tolist() if self._key_of[row] in fix.values]
        if path[0] == "messages":
            rows = [row for row in rows if path[1] < self.bodies.counts[row]]
        return [fix.values[self._key_of[row]] for row in rows]

    @functools.cached_property
    def written_times(self):
        """What the template writes of the time of each call, by key; empty if it writes none."""
        if not self.is_calls:
            return {}
        chat = self._open({key: self.asked(key) for key in self.keys[:1]})
        forms = re.findall(r"strftime_now\(\s*['\"]([^'\"]+)['\"]", f"{chat.source} {chat.tools_source}")
        times = self.workload.requests["start_s"].to_dict()
        calls = {key: Call("chat", {}, start_s=None if times[key] != times[key] else times[key]) for key in self.keys}
        return {key: " ".join(map(find_day(call).strftime, forms)) for key, call in calls.items()} if forms else {}

    def reply(self, key):
        """Return the text that was generated for a call; nothing if no replies are cached, or the log has none."""
        if not (self.outputs and self.is_calls):
            return ""
        if self._decode is None:
            chat = self._open({key: self.asked(key)})
            self._decode, self._end = load_decoder(self.workload.source.tokenizer), chat.end_of_turn
        offsets, output = self.trace.tokens.output_offsets, self.trace.tokens.output
        ids = output[offsets[key] : offsets[key + 1]].tolist()
        return self._decode(ids[: -1 if ids[-1:] == [self._end] else None])

    def read_template(self):
        """Return the text of the template, whose words are nobody's."""
        chat = self._open({key: self.asked(key) for key in self.keys[:1]})
        return f"{chat.source} {getattr(chat, 'tools_source', '')}"

    def replay(self, changed, capacity=None, *, undated=False):
        """Return the hit tokens of each request if some keys asked something else.

        Parameters
        ----------
        changed : dict of int to Asked
        capacity : int, optional
            Blocks of an LRU cache; nothing is evicted if not given.
        undated : bool
            Whether the template writes the same date into all prompts.

        Returns
        -------
        hit_tokens, prompt_tokens : (n,) ndarrays of int64

        Raises
        ------
        NotRendered
        """
        if undated:
            changed = {key: changed.get(key) or self.asked(key) for key in self.keys}
        trace = self.render(changed, undated=undated) if changed else self.trace
        walks = make_walks(trace)
        usable = np.maximum(walks.prompt_tokens - 1, 0) // self.block_size
        if capacity is None:
            blocks = find_repeats(walks, outputs=self.outputs).stored // self.block_size
        else:
            blocks = replay(cut_blocks(walks, trace, self.block_size, outputs=self.outputs).list_blocks(), capacity)
        return np.minimum(blocks, usable) * self.block_size, walks.prompt_tokens

    def render(self, changed, *, undated=False):
        """Return the trace with some keys' prompts rendered anew."""
        rows = np.array([row for key in changed for row in self.rows_of[key]], np.int64)
        new = self._encode_calls(changed, undated) if self.is_calls else self._encode_texts(changed)
        if len(new.shared) != len(rows):
            raise NotRendered("a changed conversation has fewer prompts: the template refuses some")
        old = self.trace.tokens
        places = np.arange(len(old.shared))
        places[rows] = len(old.shared) + np.arange(len(rows))
        return replace(self.trace, rows=places[self.trace.rows], tokens=_join(old, new, rows))

    def _encode_texts(self, changed):
        chat, parts = self._open(changed), []
        conversations = [
            Conversation(str(key), tuple(Message(one["role"], one["content"]) for one in asked.messages), b"")
            for key, asked in changed.items()
        ]
        for start in range(0, len(conversations), AT_ONCE):
            table, refused = encode_conversations(conversations[start : start + AT_ONCE], chat)
            if refused:
                raise NotRendered(f"the template refuses what is changed: {next(iter(refused.values()))}")
            first = table["turn"].to_numpy() == 0
            parents = np.where(first, -1, np.arange(len(first)) - 1)
            table = table.append_column("parent", [parents.astype(np.int32)])
            parts.append(make_tokens(table))
        return _concatenate(parts)

    def _encode_calls(self, changed, undated):
        chat, known = self._open(changed), self.workload.requests
        times = known["start_s"].to_dict()
        calls = [
            Call(
                asked.api, asked.body, place=f"request {key}", session=str(self.conversation(key)),
                start_s=None if undated or times[key] != times[key] else times[key],
            )
            for key, asked in changed.items()
        ]  # fmt: skip
        encoded = encode_calls(calls, chat, self.workload.source.server)
        if encoded.refused:
            reason, lost = next(iter(encoded.refused.items()))
            raise NotRendered(f"{reason} refuses what is changed: {lost.said}")
        return make_tokens(encoded.table)

    def _open(self, changed):
        if self._chat is None:
            source = find_tokenizer(self.workload.source.tokenizer)
            some = list(changed.values())[:64]
            if self.is_calls:
                self._chat = open_call_chat(source, [Call(one.api, one.body) for one in some])
            else:
                self._chat = open_chat(source, [message["content"] for one in some for message in one.messages])
        return self._chat


def _concatenate(parts):
    """Return several Tokens as one, their rows one after the other."""
    starts = add_up(len(one.shared) for one in parts)
    own, output = (add_up(len(getattr(one, name)) for one in parts) for name in ("own", "output"))
    joined = {name: [getattr(one, name) for one in parts] for name in ("shared", "own", "own_is_template", "output")}
    parents = [np.where(one.parent >= 0, one.parent + start, -1) for one, start in zip(parts, starts, strict=False)]
    return Tokens(
        np.concatenate(parents), np.concatenate(joined["shared"]), _offsets(parts, "own_offsets", own),
        np.concatenate(joined["own"]), np.concatenate(joined["own_is_template"]),
        _offsets(parts, "output_offsets", output), np.concatenate(joined["output"]),
    )  # fmt: skip


def _offsets(parts, name, starts):
    shifted = [getattr(one, name)[:-1] + start for one, start in zip(parts, starts, strict=False)]
    return np.concatenate([*shifted, starts[-1:]])


def _join(old, new, rows):
    """Return the old rows and the new ones behind them; the replies of the new are those of the rows they replace."""
    lengths = np.diff(old.output_offsets)[rows]
    places = np.repeat(old.output_offsets[rows] - add_up(lengths)[:-1], lengths) + np.arange(lengths.sum())
    new = replace(new, output_offsets=add_up(lengths), output=np.asarray(old.output)[places])
    return _concatenate([old, new])
