"""The recording of a live check: JSON Lines that only grow, so that a killed run continues where it stopped.

The first line is `{"recording": {...}}` with the `key` of all that determines which requests are sent, and how.
Then, as they happen: `{"run": {...}}` (a run starts: the server's state, what was given), `{"sent": request_id}`,
`{"lost": request_id}` (perhaps computed, but without an answer), `{"refused": request_id}` (not computed),
`{"answer": {...}}`, `{"skipped": {...}}` (too long) and `{"end": {...}}` (all done: the server's counters).
`{"given": {...}}` changes what was given to the run before.
"""

import json
import os
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from kvprefix.files.checks import find_wrong_ids
from kvprefix.files.jsonlines import is_whole
from kvprefix.files.paths import InputError, check_input_file, check_output_file, explain_os_errors

VERSION = 1
VERSION_TEXT = re.compile(r"[0-9A-Za-z.+!_-]{1,64}")  # of a server: sentences show it
_ANSWER = {
    "request_id": str, "prompt_token_ids": list, "server_prompt_tokens": int, "output_tokens": int, "ttft_s": float,
    "duration_s": float, "sent_s": float,
}  # fmt: skip


_HEADER = {"url": str, "model": str, "api": str, "timing": str, "speed": float, "requests": int, "source": str}
_METRICS = {
    "queries": int, "hits": int, "engines": int, "block_size": int, "num_gpu_blocks": int, "started_s": float,
    "prefix_caching": bool, "hybrid": str,
}  # fmt: skip
_RUN = {"block_size": int, "num_gpu_blocks": int, "reset": bool, "kv_groups": dict}


@dataclass
class Recording:
    """What a recording holds.

    Attributes
    ----------
    path : pathlib.Path
    header : dict
        `key`, `url`, `model`, `api`, `timing`, `speed`, `max_tokens`, `requests`, `source`.
    answers : list of dict
        In the order in which they came: `request_id`, `prompt_token_ids`, `server_prompt_tokens`, `same_prompt` (None
        if the server does not give its ids), `cached_tokens` (or None), `output_tokens`, `output_token_ids` (or
        None), `ttft_s`, `duration_s`, `sent_s` (seconds since the first run began, its pauses left out), `lost` (how
        often it was sent before without an answer), `cache_salt`, `lora_name`.
    skipped : list of dict
        `request_id`, `prompt_tokens` and `reason` of each request that was too long.
    runs : list of dict
        `metrics`, `server`, `block_size`, `num_gpu_blocks` and `kv_groups` (as given, None if not), and `reset`
        (whether the server's cache was emptied before it) of each run.
    run_starts : list of int
        The number of answers before each run.
    end : dict or None
        `metrics`; None if the recording is not complete.
    lost : Counter
        How often each request was sent without an answer, though the server may have computed it.
    done, under_way : set of str
        Requests that were answered or skipped; requests that were sent and are not done.
    """

    path: Path
    header: dict
    answers: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    runs: list = field(default_factory=list)
    run_starts: list = field(default_factory=list)
    end: dict | None = None
    lost: Counter = field(default_factory=Counter)
    done: set = field(default_factory=set)
    under_way: set = field(default_factory=set)

    def add(self, event, value):
        """Add an event; raise ValueError if there is no such event or its value is wrong."""
        if event == "run" and _is_run(value):
            self.lost.update(self.under_way)  # if the run before was killed
            self.under_way.clear()
            self.runs.append(value)
            self.run_starts.append(len(self.answers))
            self.end = None
        elif event == "given" and _has(value, _RUN) and self.runs:
            self.runs[-1] |= value
        elif event == "sent" and isinstance(value, str):
            self.under_way.add(value)
        elif event in ("lost", "refused") and isinstance(value, str):
            self.under_way.discard(value)
            self.lost[value] += event == "lost"
        elif event == "answer" and _is_answer(value):
            self.answers.append(value)
            self._finish(value["request_id"])
        elif event == "skipped" and isinstance(value, dict) and isinstance(value.get("request_id"), str):
            self.skipped.append(value)
            self._finish(value["request_id"])
        elif event == "end" and isinstance(value, dict) and _has(value.get("metrics") or {}, _METRICS):
            self.end = value
        else:
            raise ValueError(f"holds no such event: {event!r}")

    def count_sent(self, run):
        """Return the prompt tokens, as the server counts them, of a run's answers; -1 is the last run."""
        stops = [*self.run_starts[1:], None]
        return sum(one["server_prompt_tokens"] for one in self.answers[self.run_starts[run] : stops[run]])

    def find_restarts(self):
        """Return the number of answers before each restart of the server between two runs."""
        states = [run.get("metrics") or {} for run in self.runs]
        pairs = enumerate(pairwise(states))
        return [self.run_starts[run + 1] for run, pair in pairs if is_restarted(*pair, self.count_sent(run))]

    def find_fresh_starts(self):
        """Return the number of answers before each later run that began with an empty cache."""
        emptied = [start for run, start in zip(self.runs, self.run_starts, strict=True) if run.get("reset")]
        return sorted({*emptied, *self.find_restarts()} - {0})

    def _finish(self, request_id):
        self.done.add(request_id)
        self.under_way.discard(request_id)


def is_restarted(before, after, sent):
    """Say whether the server restarted between its metrics `before` and `after`; `sent` prompt tokens lie between."""
    began, begins = before.get("started_s"), after.get("started_s")
    if None not in (began, begins):
        return began != begins
    counted = before.get("queries"), after.get("queries")
    return None not in counted and counted[1] < counted[0] + sent


def read_recording(path):
    """Read a recording; skip an incomplete last line, which a killed run leaves.

    Raises
    ------
    InputError
        If the file is no recording, or a line is wrong.
    """
    path = Path(path)
    check_input_file(path)
    with explain_os_errors(path):
        *lines, _ = path.read_bytes().split(b"\n")
    advice = "expected a recording of `make engine-check`; --restart begins a new one"
    recording = None
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            ((event, value),) = content.items()
            if recording is None:
                known = {"key": str, **_HEADER}
                whole = "max_tokens" in value and known.keys() <= value.keys() and _has(value, known)
                if event != "recording" or value["version"] != VERSION or not whole:
                    raise ValueError("begins no recording of this version")
                recording = Recording(path, value)
            else:
                recording.add(event, value)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is none of a recording ({error}); {advice}") from error
    if recording is None:
        raise InputError(f"{path}: holds nothing; {advice}")
    return recording


def _has(value, kinds):
    """Say whether a JSON value is an object whose values under these names are of these kinds, or missing."""
    if not isinstance(value, dict):
        return False
    some = [(value[name], kind) for name, kind in kinds.items() if value.get(name) is not None]
    return all(isinstance(one, int | float) if kind is float else type(one) is kind for one, kind in some)


def _is_run(value):
    server = (value.get("server") or {}) if isinstance(value, dict) else None
    good = _has(value, _RUN) and _has(server, {"version": str}) and _has(value.get("metrics") or {}, _METRICS)
    return good and VERSION_TEXT.fullmatch(server.get("version") or "0") is not None


def _is_answer(value):
    if not isinstance(value, dict):
        return False
    right = [isinstance(value.get(name), kind | int if kind is float else kind) for name, kind in _ANSWER.items()]
    counts = [value.get(name, 0) for name in ("server_prompt_tokens", "output_tokens", "lost")]
    times = [value.get(name) for name in ("ttft_s", "duration_s", "sent_s")]
    if not all(right) or not all(is_whole(one) and 0 <= one < 2**24 for one in counts):
        return False
    if not all(0 <= one < 1e9 for one in times):
        return False
    ids = [*value["prompt_token_ids"], *(value.get("output_token_ids") or [])]
    cached = value.get("cached_tokens")
    return not find_wrong_ids(ids) and (cached is None or is_whole(cached))


class Recorder:
    """Appends to a recording; a context manager that threads may share. `recording` is the content so far.

    Parameters
    ----------
    path : path-like
    header : dict
        With the `key`.
    restart : bool
        Replace an existing recording.

    Raises
    ------
    InputError
        If the recording is of other requests, or of another server, model or timing.
    """

    def __init__(self, path, header, *, restart=False):
        path = Path(path)
        self._lock = threading.Lock()
        check_output_file(path)
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if restart or not path.exists() or not _has_line(path):
                self._file = open(path, "wb")  # noqa: SIM115
                self.recording = Recording(path, header)
                self._write("recording", header)
                return
        self.recording = read_recording(path)
        _compare(path, self.recording.header, header)
        with explain_os_errors(path):
            _cut_half_line(path)
            self._file = open(path, "ab")  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, event, value):
        """Append an event; once this returns, killing this process does not lose it."""
        with self._lock:
            self.recording.add(event, value)
            self._write(event, value)

    def _write(self, event, value):
        with explain_os_errors(self.recording.path):
            self._file.write(json.dumps({event: value}, separators=(",", ":")).encode() + b"\n")
            self._file.flush()


def _compare(path, old, new):
    if old["key"] == new["key"]:
        return
    shown = ("url", "model", "api", "timing", "speed", "max_tokens", "requests")
    other = [f"{name} {old.get(name)!r}, now {new.get(name)!r}" for name in shown if old.get(name) != new.get(name)]
    raise InputError(
        f"{path}: records another check ({'; '.join(other) or 'other requests: their data or parameters differ'}); "
        "--restart begins anew, another --output-dir (make: NAME) keeps both"
    )


def _has_line(path):
    with open(path, "rb") as file:
        return bool(file.readline().endswith(b"\n"))


def _cut_half_line(path):
    """Cut an incomplete line at the end, which a killed run leaves."""
    content = path.read_bytes()
    os.truncate(path, content.rfind(b"\n") + 1)
