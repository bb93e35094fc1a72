"""The messages of many conversations as JSON text, in flat arrays that may lie in files."""

import json
from dataclasses import dataclass
from json.encoder import encode_basestring

import numpy as np

from kvprefix.conversations.records import Message
from kvprefix.files.mapped import release


@dataclass(frozen=True)
class Messages:
    """Messages as JSON objects, one after the other with a comma and a space between.

    Those of a conversation of text have `role` and `content`; those of calls are as they were sent. Calls whose list
    of messages continues the one before are a chain, which takes the place of the conversation.

    Attributes
    ----------
    content : ndarray of uint8
        UTF-8; a comma and a space follow every message.
    stops : (n_messages + 1,) ndarray of int64
        Message k is ``content[stops[k]:stops[k + 1] - 2]``.
    firsts : (n_conversations + 1,) ndarray of int64
        Conversation c has the messages from ``firsts[c]`` up to ``firsts[c + 1]``; none if the template refused it.
    chains : (n_rows,) ndarray of int64, optional
        Of calls: the chain of each row of the tokens.
    heads : pyarrow.ChunkedArray of str, optional
        Of calls: for each row, its API and the rest of its body, a JSON list of the two; null for a conversation.
    rendered : pyarrow.Table, optional
        Of calls: for each row, which messages its prompt holds as the template gets them, and which of its tokens are
        of which, see `call_parts`; nulls for a conversation.
    """

    content: np.ndarray
    stops: np.ndarray
    firsts: np.ndarray
    chains: np.ndarray | None = None
    heads: object = None
    rendered: object = None

    def first(self, conversation, count):
        """Return a conversation's first `count` messages, comma-separated, as bytes."""
        first = self.firsts[conversation]
        return self.content[self.stops[first] : max(self.stops[first + count] - 2, self.stops[first])].tobytes()

    def first_of(self, conversations, counts):
        """Yield views of the bytes of `first` for each conversation and its number of messages."""
        starts = self.stops[first := self.firsts[conversations]]
        ends, content = np.maximum(self.stops[first + counts] - 2, starts), memoryview(self.content)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            yield content[start:end]

    def read(self, conversation):
        """Return a conversation's messages, or a chain's, as `Message` tuples; what is no text is given as JSON."""
        count = int(self.firsts[conversation + 1] - self.firsts[conversation])
        return [_show_message(one) for one in json.loads(b"[%b]" % self.first(conversation, count))]

    def head(self, row):
        """Return the API and the rest of the body of a row's call, a JSON list of the two; None for a conversation."""
        return self.heads[int(row)].as_py()

    def release(self):
        """Let go of the memory of what was read so far; when it is needed again, it is read again."""
        release(self.content)


def _show_message(one):
    """Return a message, or an item of Responses, as a role and a text."""
    if not isinstance(one, dict):
        return Message("unknown", json.dumps(one, ensure_ascii=False))
    content = one.get("content")
    if isinstance(content, str) and set(one) <= {"role", "content", "type", "id", "name"}:
        return Message(str(one.get("role", one.get("type"))), content)
    rest = {name: value for name, value in one.items() if name not in ("role", "type") and value is not None}
    return Message(str(one.get("role", one.get("type"))), json.dumps(rest, ensure_ascii=False))


def make_text(message):
    """Return a (role, text) pair as a JSON object in UTF-8, with the comma and the space that follow it.

    >>> make_text(("user", "caf\u00e9")).decode()
    '{"role": "user", "content": "caf\u00e9"}, '
    """
    role, text = message
    return f'{{"role": {encode_basestring(role)}, "content": {encode_basestring(text)}}}, '.encode()


def make_messages(conversations):
    """Return the Messages of conversations in memory, sequences of (role, text)."""
    texts = [make_text(message) for messages in conversations for message in messages]
    return Messages(
        np.frombuffer(b"".join(texts), np.uint8), add_up([len(text) for text in texts]), add_up(map(len, conversations))
    )


def add_up(lengths):
    """Return where things of these lengths begin, one after the other, and where the last one ends: int64.

    >>> add_up([2, 3]).tolist()
    [0, 2, 5]
    """
    return np.concatenate(([0], np.cumsum(np.asarray(list(lengths), np.int64))))
