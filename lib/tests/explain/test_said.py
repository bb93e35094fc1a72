"""Who wrote which message, and which messages are equal, of texts and of messages as they were sent."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd

from kvprefix.explain.said import WRITERS, read_said
from kvprefix.tokens.arrays import make_tokens
from kvprefix.tokens.messages import Messages, add_up

BRIEF, EMPTY = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": ""}
SENT = [
    [BRIEF, {"role": "user", "content": "Hi"}, EMPTY],
    [
        {"content": 'say "role": "tool"', "role": "user"}, {"type": "function_call", "name": "find", "arguments": "{}"},
        {"type": "function_call_output", "output": "7"}, {"type": "custom_tool_call_output", "output": "8"},
        {"role": "developer", "content": [{"type": "input_text", "text": "x"}]}, {"role": None}, "text", {},
    ],
    [BRIEF, {"role": "user", "content": "Hi"}, EMPTY],
    [BRIEF, {"role": "user", "content": "Ho"}, EMPTY],
]  # fmt: skip


def read(conversations, counts, outputs):
    texts = [[(json.dumps(one) + ", ").encode() for one in messages] for messages in conversations]
    flat = [text for some in texts for text in some]
    messages = Messages(np.frombuffer(b"".join(flat), np.uint8), add_up(map(len, flat)), add_up(map(len, texts)))
    requests = pd.DataFrame({"conversation_index": np.arange(len(counts)), "messages": counts})
    return read_said(SimpleNamespace(messages=messages, requests=requests, tokens=make_tokens([[1]] * 4, outputs)))


def test_writers_of_messages_as_they_were_sent():
    said = read(SENT, [2, 8, 2, 2], [[1], [1], [], [1]])
    assert [WRITERS[one] for one in said.roles] == [
        "system", "user", "assistant",
        "user", "assistant", "tool", "tool", "system", "assistant", "message", "assistant",
        "system", "user", "assistant", "system", "user", "assistant",
    ]  # fmt: skip
    # a reply is the message after the prompt, if there are tokens of it; the second conversation has none after it
    assert said.has_reply.tolist() == [True, False, False, True]
    # the third is the first again; the fourth differs from its second message on
    assert said.twins[0] == said.twins[2] != said.twins[3]
    chains = [said.chains[first : first + 3].tolist() for first in said.firsts]
    assert chains[0] == chains[2] and chains[0][0] == chains[3][0]
    assert not set(chains[0][1:]) & set(chains[3][1:])  # equal replies after other messages are others
    assert said.groups.tolist()[:9] == [0, 1, 2, 3, 4, 5, 6, 6, 7]  # the second tool's result follows the first
