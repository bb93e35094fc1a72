"""Write a trace as JSON Lines that can drive a server: its messages, its arrival times, no tokens."""

import json

from kvprefix.files.paths import atomic_path
from kvprefix.files.progress import show_progress

LINES_AT_A_TIME = 2**14  # requests whose table is turned into Python values at once

_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def write_engine_trace(trace, messages, path):
    """Write the trace as JSON Lines that can drive a server: a request per line, in arrival order.

    Keys: `request_id conversation_id turn timestamp` (s) `messages prompt_tokens output_tokens`.

    Parameters
    ----------
    trace : Trace
    messages : Messages
        Of every conversation of the trace.
    path : path-like
    """
    columns = ["request_id", "conversation_index", "conversation_id", "turn", "arrival_s", "messages"]
    columns += ["prompt_tokens", "output_tokens"]
    bar = show_progress(len(trace), f"writing {path.name}", " requests")
    with atomic_path(path) as temporary, open(temporary, "wb") as file, bar:
        for start in range(0, len(trace), LINES_AT_A_TIME):
            some = trace.requests[columns].iloc[start : start + LINES_AT_A_TIME]
            for name, index, conversation, turn, arrival, count, prompt, output in zip(
                *(some[column].tolist() for column in columns), strict=True
            ):
                head = (
                    f'{{"request_id": "{name}", "conversation_id": {_encode_json(conversation)}, "turn": {turn}, '
                    f'"timestamp": {arrival}, "messages": ['
                )
                tail = f'], "prompt_tokens": {prompt}, "output_tokens": {output}}}\n'
                file.write(b"".join((head.encode(), messages.first(index, count), tail.encode())))
            messages.release()
            bar.update(len(some))
