"""Number the lists of messages that prompts hold by what is said in them: roles, texts, calls of tools.

Names of calls, reasoning and what only steers a cache are no part of that: a message whose reasoning is left out later
is the same message.
"""

import hashlib
import json
import re
from typing import NamedTuple

from kvprefix.servers.prompt import Memo
from kvprefix.tokens.marks import BY_ROLE, UNKNOWN

_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


def digest_message(message):
    """Return a 16-byte digest of what a message says.

    >>> digest_message({"role": "assistant", "content": "<think>x</think>4"}) == digest_message(
    ...     {"role": "assistant", "content": "4", "reasoning": "x"})
    True
    """
    role, content = message.get("role"), message.get("content") or ""
    if role == "assistant" and isinstance(content, str):
        content = content[found.end() :] if (found := _THOUGHT.match(content)) else content
    calls = [call.get("function") or call for call in message.get("tool_calls") or ()]
    said = [role, _list_texts(content), [[call.get("name"), call.get("arguments")] for call in calls]]
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _list_texts(content):
    """Return a content's texts, whether it is a text or parts."""
    if isinstance(content, str):
        return [content] if content else []
    return [part.get("text", part) if isinstance(part, dict) else part for part in content]


class Said(NamedTuple):
    """The messages of a call.

    Attributes
    ----------
    writers : tuple of int
        Of its prompt's messages, see `marks.WRITERS`.
    keys : list of bytes
        Of its prompt's messages, and of those of its reply: equal keys are equal messages after equal messages.
    """

    writers: tuple
    keys: list

    def answer(self, answered):
        """Return it with the messages that stand behind it in the prompt with its reply."""
        return self._replace(keys=answered.keys) if answered.keys[: len(self.keys)] == self.keys else self


class Talks:
    """What the prompts of calls say."""

    def __init__(self):
        self._known = {}

    def say(self, prompt, api, memo):
        """Return the Said of a Prompt; `memo` is that of its messages."""
        memo = Memo() if api == "responses" else memo  # its messages are made anew for each prompt
        keys, before = [], b""
        for message in prompt.messages:
            digest = memo.apply(digest_message, message)
            before = hashlib.blake2b(before + digest, digest_size=16).digest()
            before = self._known.setdefault(before, before)
            keys.append(before)
        return Said(tuple(BY_ROLE.get(message.get("role"), UNKNOWN) for message in prompt.messages), keys)


def list_new(keys, before):
    """Return how many leading keys are those of the list before, and the others.

    >>> list_new([b"a", b"c"], [b"a", b"b"])
    (1, [b'c'])
    """
    n = next((k for k, (a, b) in enumerate(zip(keys, before, strict=False)) if a != b), min(len(keys), len(before)))
    return n, keys[n:]
