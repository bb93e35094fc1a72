"""Who wrote which message, and which messages are equal, of texts and of messages as they were sent."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd

from kvprefix.explain.said import read_said
from kvprefix.tokens.arrays import make_tokens
from kvprefix.tokens.marks import WRITERS
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
    # a reply is the message after the prompt, if there are tokens of it; the second conversation has none after it
    assert (said.replies != said.nodes).tolist() == [True, False, False, True]
    assert said.depths[said.nodes].tolist() == [2, 8, 2, 2] and said.up[said.replies[0]] == said.nodes[0]
    # the third is the first again; the fourth differs from its second message on
    assert said.twins[0] == said.twins[2] != said.twins[3]
    assert said.nodes[0] == said.nodes[2] != said.nodes[3]
    assert said.up[said.nodes[0]] == said.up[said.nodes[3]]
    assert said.replies[0] != said.replies[3]  # equal replies after other messages are others
