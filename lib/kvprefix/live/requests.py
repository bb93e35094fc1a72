"""Choose the requests for a live server: of a report's trace, or of a file of token ids."""

from dataclasses import dataclass

import numpy as np

from kvprefix.engines.request_files import read_requests
from kvprefix.files.jsonlines import read_objects
from kvprefix.files.paths import InputError
from kvprefix.traces.workload import make_trace


@dataclass(frozen=True)
class Request:
    """One request to send: its token ids; for the chat interface, its messages; the trace's output tokens."""

    request_id: str
    prompt: np.ndarray
    messages: list | None = None
    conversation: int | None = None
    arrival_s: float | None = None
    cache_salt: str | None = None
    lora_name: str | None = None
    output_tokens: int = 0


def take_requests(workload, n, *, messages=False):
    """Return the first n requests of the workload's multi-turn trace, in arrival order.

    `messages` gives them, for the chat interface; raise InputError if the requests are calls of a log.
    """
    if messages and workload.messages.chains is not None:
        raise InputError(
            f"{workload.source.data}: holds logged calls, which are sent as token ids; expected `--api completions`"
        )
    trace = make_trace(workload, "multi_turn")
    n = min(n, len(trace))
    some = trace.requests.iloc[:n]
    names, indexes, arrivals, counts, outputs = (
        some[name].tolist() for name in ("request_id", "conversation_index", "arrival_s", "messages", "output_tokens")
    )
    texts = _read_messages(workload, set(indexes)) if messages else {}
    return [
        Request(
            names[i], trace.prompt(i), texts[indexes[i]][: counts[i]] if messages else None, indexes[i], arrivals[i],
            output_tokens=outputs[i],
        )
        for i in range(n)
    ]  # fmt: skip


def _read_messages(workload, indexes):
    """Return the messages of some conversations, as the chat interface takes them, by index."""
    chosen = set(indexes)
    return {
        index: [{"role": one.role, "content": one.text} for one in workload.messages.read(index)] for index in chosen
    }


def read_request_file(path, n):
    """Return the first n requests of a file of token ids, in the form of `python -m kvprefix replay`."""
    trace = read_requests(path)
    names = list(map(str, trace.request_ids))
    if len(set(names)) < len(names):
        raise InputError(f"{path}: has a request_id twice; expected a different one per request")
    outputs = trace.requests["output_tokens"].tolist()
    extras = [(line.get("cache_salt"), line.get("lora_name")) for _, line in read_objects(path, "", progress=False)]
    return [
        Request(name, trace.prompt(i), cache_salt=salt, lora_name=lora, output_tokens=output)
        for i, (name, output, (salt, lora)) in enumerate(zip(names[:n], outputs, extras, strict=False))
    ]
