"""Requests of token ids, a request per line: what `replay` takes."""

import json

import numpy as np

from kvprefix.engines.request_files import read_requests as read_lines
from kvprefix.files.jsonlines import write_lines
from kvprefix.files.paths import InputError
from kvprefix.files.progress import show_progress


def read_requests(path):
    """Read a file of requests, with their conversations if all have one.

    They arrive at their timestamps if all have one, in ascending order, else at 0 s.
    """
    try:
        return read_lines(path, timed=True, grouped=True)
    except InputError:
        return read_lines(path, grouped=True)


def write_requests(trace, path, *, progress=True):
    """Write a Trace, a request per line in its order.

    Keys: `request_id`, `timestamp` (ms from the first request), `prompt_token_ids`, `output_token_ids`; `conversation`
    (its number) if there is one of several requests, and `cache_salt` (a number as text, one per combination of salt
    and adapter) if these differ.

    Parameters
    ----------
    trace : Trace
    path : path-like
        Compressed if its name ends in `.gz` or `.zst`.
    progress : bool

    Returns
    -------
    list of str
        What was dropped.
    """
    stamps = np.round(1000 * (trace.arrival_s - trace.arrival_s[:1]), 3).tolist()
    own, notes = {}, []
    talks = trace.requests["conversation_index"]
    if talks.duplicated().any():
        own["conversation"] = talks.tolist()
        notes.append("dropped: names of conversations (they are numbered)")
    if trace.contexts is not None:
        own["cache_salt"] = list(map(str, trace.contexts.tolist()))
        notes.append("dropped: names of salts and adapters (each combination is a numbered salt)")

    bar = show_progress(len(trace), f"writing {path.name}", " requests", shown=progress)
    with write_lines(path) as file, bar:
        for i, (name, stamp) in enumerate(zip(trace.request_ids, stamps, strict=True)):
            line = {
                "request_id": name, "timestamp": int(stamp) if stamp.is_integer() else stamp,
                "prompt_token_ids": trace.prompt(i).tolist(), "output_token_ids": trace.generated(i).tolist(),
            }  # fmt: skip
            line |= {name: values[i] for name, values in own.items()}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            bar.update()
    return notes
