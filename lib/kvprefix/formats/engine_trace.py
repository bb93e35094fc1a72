"""Write a trace as JSON Lines that can drive a server: its messages, its arrival times, no tokens."""

import functools
import json
from collections import Counter

from kvprefix.conversations.calls import ENDPOINTS, LISTS
from kvprefix.files.jsonlines import write_lines
from kvprefix.files.paths import atomic_path
from kvprefix.files.progress import show_progress

LINES_AT_A_TIME = 2**14  # requests whose table is turned into Python values at once
BUFFER = 2**20  # bytes that are written at once

_OWN = {"request_id", "conversation_id", "turn", "timestamp", "prompt_tokens", "output_tokens"}  # fields of a line
_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def write_engine_trace(trace, messages, path):
    """Write the trace as JSON Lines that can drive a server: a request per line, in arrival order.

    Keys: `request_id conversation_id turn timestamp` (s) `messages prompt_tokens output_tokens`. A logged call has all
    that its body had, such as `tools`; of another API than chat it has `url` and `body`.

    Parameters
    ----------
    trace : Trace
    messages : Messages
        Of every conversation of the trace, or of its calls.
    path : path-like
    """
    columns = ["request_id", "conversation_id", "turn", "arrival_s", "prompt_tokens", "output_tokens"]
    bar = show_progress(len(trace), f"writing {path.name}", " requests")
    with atomic_path(path) as temporary, open(temporary, "wb", BUFFER) as file, bar:
        for start in range(0, len(trace), LINES_AT_A_TIME):
            some = trace.requests.iloc[start : start + LINES_AT_A_TIME]
            rows = trace.rows[start : start + LINES_AT_A_TIME]
            chains = some["conversation_index"].to_numpy() if messages.chains is None else messages.chains[rows]
            content = messages.first_of(chains, some["messages"].to_numpy())
            for row, (name, conversation, turn, arrival, prompt, output), said in zip(
                rows, zip(*(some[column].tolist() for column in columns), strict=True), content, strict=True
            ):
                head = (
                    f'{{"request_id": {_encode_json(name)}, "conversation_id": {_encode_json(conversation)}, '
                    f'"turn": {turn}, "timestamp": {arrival}, '
                )
                before, after = ('"messages": [', "]") if messages.heads is None else _frame_body(messages.head(row))
                file.write(f"{head}{before}".encode())
                file.write(said)
                file.write(f'{after}, "prompt_tokens": {prompt}, "output_tokens": {output}}}\n'.encode())
            messages.release()
            bar.update(len(some))


def write_engine_log(log, path, *, progress=True):
    """Write calls as such JSON Lines; their prompts are not tokenised, so the lines count no prompt tokens.

    Parameters
    ----------
    log : formats.call_log.CallLog
    path : path-like
    progress : bool

    Returns
    -------
    list of str
        What is dropped.
    """
    turns, first = Counter(), min((call.start_s for call in log.calls if call.start_s is not None), default=0.0)
    with write_lines(path) as file, show_progress(len(log), "writing", " requests", shown=progress) as bar:
        for call in log.calls:
            session = call.name if call.session is None else call.session
            line = {
                "request_id": call.name, "conversation_id": session, "turn": turns[session],
                "timestamp": 0.0 if call.start_s is None else round(call.start_s - first, 6),
            }  # fmt: skip
            turns[session] += 1
            is_plain = call.api == "chat" and _OWN.isdisjoint(call.body)
            body = call.body if is_plain else {"url": ENDPOINTS[call.api], "body": call.body}
            tokens = {} if call.usage.output is None else {"output_tokens": call.usage.output}
            file.write((_encode_json(line | body | tokens) + "\n").encode("utf-8", "replace"))
            bar.update()
    return ["dropped: last replies of sessions; how long answers took"]


@functools.lru_cache(maxsize=64)
def _frame_body(head):
    """Return the JSON text before and after the messages of a call, from the text of its API and the rest of its body.
    """
    api, rest = json.loads(head) if head else ("chat", {})
    fields = "".join(f", {_encode_json(name)}: {_encode_json(value)}" for name, value in rest.items())
    fields = fields.encode("utf-8", "replace").decode()
    if api == "chat" and _OWN.isdisjoint(rest):
        return '"messages": [', f"]{fields}"
    return f'"url": "{ENDPOINTS[api]}", "body": {{"{LISTS[api]}": [', f"]{fields}}}"
