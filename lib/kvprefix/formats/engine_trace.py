"""Write a trace as JSON Lines that can drive a server: its messages, its arrival times, no tokens.

The messages wait in a file without a name, so that they need no memory; however the program ends, it is gone then.
"""

import json
import mmap
import tempfile
from array import array

from kvprefix.files.paths import atomic_path, explain_os_errors
from kvprefix.files.progress import show_progress

LINES_AT_A_TIME = 2**14  # requests whose table is turned into Python values at once

_encode_json = json.JSONEncoder(ensure_ascii=False).encode


class SpilledMessages:
    """The messages of many conversations as JSON text, by conversation, in a temporary file.

    Parameters
    ----------
    conversations : iterable of sequences of (role, text)
        In the order of `conversation_index`, from 0 on.
    folder : pathlib.Path
        Of the file; made if it is not there.

    Examples
    --------
    >>> from pathlib import Path
    >>> messages = SpilledMessages([[("user", "Hi"), ("assistant", "Hello")]], Path(tempfile.gettempdir()))
    >>> messages.first(0, 1)
    b'{"role": "user", "content": "Hi"}'
    """

    def __init__(self, conversations, folder):
        self._firsts, self._stops = array("q"), array("q", [0])  # a conversation's first message; where messages end
        with explain_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                for messages in conversations:
                    self._append(messages, file)
                file.flush()
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._stops[-1] else b""

    def _append(self, messages, file):
        self._firsts.append(len(self._stops) - 1)
        for role, text in messages:
            data = _encode_json({"role": role, "content": text}).encode() + b", "
            file.write(data)
            self._stops.append(self._stops[-1] + len(data))

    def first(self, conversation, count):
        """Return a conversation's first `count` messages, comma-separated, as bytes."""
        first = self._firsts[conversation]
        return self._content[self._stops[first] : self._stops[first + count] - 2]

    def release(self):
        """Let go of the memory of what was read so far; when it is needed again, it is read again."""
        if self._content and hasattr(mmap, "MADV_DONTNEED"):
            self._content.madvise(mmap.MADV_DONTNEED)


def write_engine_trace(trace, messages, path):
    """Write the trace as JSON Lines that can drive a server: a request per line, in arrival order.

    Keys: `request_id conversation_id turn timestamp` (s) `messages prompt_tokens output_tokens`.

    Parameters
    ----------
    trace : Trace
    messages : SpilledMessages
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
