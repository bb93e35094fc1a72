"""Write a trace as JSON Lines that can drive a server: its messages, its arrival times, no tokens."""

import json

from kvprefix.files.paths import atomic_path
from kvprefix.files.progress import show_progress

LINES_AT_A_TIME = 2**14  # requests whose table is turned into Python values at once
BUFFER = 2**20  # bytes that are written at once

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
    columns = ["request_id", "conversation_id", "turn", "arrival_s", "prompt_tokens", "output_tokens"]
    bar = show_progress(len(trace), f"writing {path.name}", " requests")
    with atomic_path(path) as temporary, open(temporary, "wb", BUFFER) as file, bar:
        for start in range(0, len(trace), LINES_AT_A_TIME):
            some = trace.requests.iloc[start : start + LINES_AT_A_TIME]
            content = messages.first_of(some["conversation_index"].to_numpy(), some["messages"].to_numpy())
            for (name, conversation, turn, arrival, prompt, output), said in zip(
                zip(*(some[column].tolist() for column in columns), strict=True), content, strict=True
            ):
                head = (
                    f'{{"request_id": "{name}", "conversation_id": {_encode_json(conversation)}, "turn": {turn}, '
                    f'"timestamp": {arrival}, "messages": ['
                )
                file.write(head.encode())
                file.write(said)
                file.write(b'], "prompt_tokens": %d, "output_tokens": %d}\n' % (prompt, output))
            messages.release()
            bar.update(len(some))
