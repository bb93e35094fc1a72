"""Lines of block-id traces and chat logs, and what is seen of them."""

import json

import numpy as np


def line(ids, length=None, stamp=0, **more):
    """Return a request's line; its last block of 4 tokens is full unless a length is given."""
    length = 4 * len(ids) if length is None else length
    return json.dumps({"timestamp": stamp, "input_length": length, "output_length": 1, "hash_ids": ids, **more})


def write(path, *lines, end="\n"):
    path.write_bytes("".join(one + end for one in lines).encode())
    return path


def columns(accesses):
    arrays = {name: value for name, value in vars(accesses).items() if isinstance(value, np.ndarray)}
    return {name: array.tolist() for name, array in arrays.items()}


def as_seen(values):
    """Return what a reader returns with its block ids numbered as first seen."""
    numbers = {}
    ids = [numbers.setdefault(one, len(numbers)) for one in values["hash_ids"].tolist()]
    return {**values, "hash_ids": np.array(ids, np.int64)}


def chat_line(chat, ids, length=None, stamp=0.0, parent=-1, **more):
    """Return a request's line; its last block of 4 tokens is full unless a length is given."""
    length = 4 * len(ids) if length is None else length
    return json.dumps({
        "chat_id": chat, "parent_chat_id": parent, "timestamp": stamp, "input_length": length, "output_length": 3,
        "type": "text", "turn": 1, "hash_ids": ids, **more,
    })  # fmt: skip


CHATS = [
    chat_line(9, [70, 71], 7, 0.5),
    chat_line(12, [80], 4, 1.25, type="search"),
    chat_line(10, [70, 72, 73], 10, 2, 9, turn=2),
]


def messages(*texts, system=None):
    """Return messages in OpenAI's form that alternate between user and assistant."""
    said = [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *said] if system else said


HI = {"timestamp": 1, "messages": messages("Hi")}
