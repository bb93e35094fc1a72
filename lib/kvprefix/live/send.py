"""Send a trace's requests to a live server and record what it reports: the first half of the live check.

`compare` interprets the recording.
"""

import hashlib
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from kvprefix.files.checks import check_choice, check_number, check_whole
from kvprefix.files.paths import InputError, tell
from kvprefix.files.progress import show_progress
from kvprefix.files.sealed import seal_key
from kvprefix.files.words import count
from kvprefix.live.answers import Unanswered
from kvprefix.live.client import Server, TooLong
from kvprefix.live.hybrid import KVGroups
from kvprefix.live.recording import VERSION, Recorder

APIS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
TIMINGS = ("sequential", "trace")
MOST_AT_ONCE = 256  # requests under way with trace timing
FIRST_WAIT_S = 0.5  # before the second attempt; it doubles


@dataclass(frozen=True)
class Check:
    """How requests are sent.

    Attributes
    ----------
    url : str
    model : str, optional
        By default the server's first one.
    api : {"completions", "chat"}
        Token ids, or messages that the server's own template turns into tokens.
    timing : {"sequential", "trace"}
        One at a time, or at their arrival times.
    speed : float
        Arrival times are divided by it.
    max_tokens : int or "trace"
        Tokens to generate: this number per request, or as many as in the trace.
    timeout_s : float
        The longest time for one attempt.
    attempts : int
        Per request.
    block_size, num_gpu_blocks : int, optional
        Of the server's cache; by default what the server says.
    kv_groups : KVGroups, optional
        Of a hybrid model; by default all layers have full attention.
    """

    url: str
    model: str | None = None
    api: str = "completions"
    timing: str = "sequential"
    speed: float = 1.0
    max_tokens: int | str = 1
    timeout_s: float = 120.0
    attempts: int = 5
    block_size: int | None = None
    num_gpu_blocks: int | None = None
    kv_groups: KVGroups | None = None
    wait: object = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self):
        for name, known in (("api", APIS), ("timing", TIMINGS)):
            check_choice(getattr(self, name), name, known)
        for name in ("speed", "timeout_s"):
            check_number(getattr(self, name), name, "a number above 0 (1e-6 to 1e6)", least=1e-6, most=1e6)
        for name, least in (("max_tokens", 1), ("attempts", 1), ("block_size", 1), ("num_gpu_blocks", 2)):
            value, also = getattr(self, name), ["trace"] if name == "max_tokens" else [None]
            if value not in also:
                known = f"{least} or more (below 2**31)" + (", or trace" if name == "max_tokens" else "")
                check_whole(value, name, f"a whole number, {known}", least=least)

    def count_tokens(self, request):
        """Return how many tokens to generate for a request: at least one."""
        return max(request.output_tokens, 1) if self.max_tokens == "trace" else self.max_tokens


def record_check(check, requests, path, source, *, restart=False, reset=False, tell=tell, progress=True):
    """Send the requests that the recording does not hold yet, and record the answers.

    Parameters
    ----------
    check : Check
    requests : list of Request
    path : path-like
        The recording; see `kvprefix.live.recording`.
    source : str
        Where the requests come from, for the record.
    restart : bool
        Begin a new recording.
    reset : bool
        Empty the server's cache first.
    tell : callable
        Shows a sentence to the user.
    progress : bool

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If the server refuses, or does not answer after all attempts; if the recording is of another check. What was
        recorded stays.
    """
    _check_requests(check, requests)
    with Server(check.url, check.timeout_s) as server:
        known = _persist(check, server, "the server", lambda: server.describe(check.model))
        header = _make_header(check, server, known["model"], requests, source)
        if reset:
            _persist(check, server, "the server", server.empty_cache)
        with Recorder(path, header, restart=restart) as recorder:
            recording = recorder.recording
            left = [request for request in requests if request.request_id not in recording.done]
            if len(left) < len(requests):
                tell(f"{count(len(requests) - len(left), 'request')} of {len(requests):,} are in {path} already")
            given = {"block_size": check.block_size, "num_gpu_blocks": check.num_gpu_blocks}
            given["kv_groups"] = check.kv_groups and check.kv_groups.as_dict()
            if not left and recording.end is not None:
                if any(recording.runs[-1].get(name) != value for name, value in given.items()):
                    recorder.write("given", given)
                return recording
            recorder.write("run", {"server": known, "metrics": server.read_metrics(), "reset": reset, **given})
            _tell_state(recording, tell)
            sender = _Sender(check, server, recorder, known)
            with show_progress(len(requests), "asking the server", " requests", shown=progress) as bar:
                bar.update(len(requests) - len(left))
                send = _send_one_by_one if check.timing == "sequential" else _send_as_they_arrive
                send(sender, left, bar)
            recorder.write("end", {"metrics": server.read_metrics()})
    return recording


def _tell_state(recording, tell):
    """Say before a run what may spoil its prediction."""
    run, answers = recording.runs[-1], len(recording.answers)
    used = (run["metrics"] or {}).get("queries") or 0
    if recording.run_starts[-1] in recording.find_restarts():
        tell("note: the server was restarted since; the prediction continues with an empty cache")
    elif run["reset"]:
        tell("the server's prefix cache was emptied")
    elif answers:
        tell("note: what follows can only be predicted if nobody else has used the server since")
    elif used:
        tell(
            f"warning: the server has looked up {used:,} prompt tokens already; unless its cache is empty, the first "
            "hits will differ (--restart --reset empties it, if vLLM runs with VLLM_SERVER_DEV_MODE=1)"
        )


def _check_requests(check, requests):
    if not requests:
        raise InputError("there are no requests to send")
    if check.api == "chat" and requests[0].messages is None:
        raise InputError("a file of token ids has no messages; expected --api completions")
    if check.timing == "trace" and requests[0].arrival_s is None:
        raise InputError("a file of token ids has no arrival times; expected --timing sequential")


def _make_header(check, server, model, requests, source):
    digest = hashlib.sha256()
    for one in requests:
        times = one.arrival_s if check.timing == "trace" else None
        lengths = (one.output_tokens,) if check.max_tokens == "trace" else ()
        digest.update(repr((one.request_id, one.cache_salt, one.lora_name, times, one.messages, *lengths)).encode())
        digest.update(np.asarray(one.prompt, np.int32).tobytes())
    header = {
        "version": VERSION, "url": server.url, "model": model, "api": check.api, "timing": check.timing,
        "speed": check.speed, "max_tokens": check.max_tokens, "requests": len(requests), "source": source,
    }  # fmt: skip
    key = {name: value for name, value in header.items() if name != "source"}
    return {**header, "key": seal_key({**key, "sha256": digest.hexdigest()})}


class _Sender:
    """Sends requests and records the answers; knows the time since the check began."""

    def __init__(self, check, server, recorder, known):
        self.check, self.server, self.recorder, self.known = check, server, recorder, known
        answers = recorder.recording.answers
        self.before_s = max((one["sent_s"] + one["duration_s"] for one in answers), default=0.0)
        self.started, self.stopped = time.monotonic(), threading.Event()

    def now(self):
        """Return the seconds since the check began, pauses between runs left out."""
        return self.before_s + time.monotonic() - self.started

    def send(self, request):
        """Send a request until it is answered, and record the answer."""
        longest = self.known["max_model_len"]
        if longest is not None and len(request.prompt) + self.check.count_tokens(request) > longest:
            self._skip(request, f"the server's context is {longest:,} tokens")
            return
        try:
            answer, sent_s = _persist(
                self.check, self.server, f"request {request.request_id}", lambda: self._try(request), self.stopped,
                f"; {count(len(self.recorder.recording.answers), 'answer')} kept in {self.recorder.recording.path}, "
                "and the next run continues from there",
            )  # fmt: skip
        except TooLong as error:
            self._skip(request, str(error))
            return
        ours = np.asarray(request.prompt).tolist()
        self.recorder.write("answer", {
            "request_id": request.request_id,
            "prompt_token_ids": ours,
            "server_prompt_tokens": answer.prompt_tokens,
            "same_prompt": None if answer.prompt_token_ids is None else answer.prompt_token_ids == ours,
            "cached_tokens": answer.cached_tokens,
            "output_tokens": answer.output_tokens,
            "output_token_ids": answer.output_token_ids,
            "ttft_s": round(answer.ttft_s, 6),
            "duration_s": round(answer.duration_s, 6),
            "sent_s": round(sent_s, 6),
            "lost": self.recorder.recording.lost[request.request_id],
            **{name: getattr(request, name) for name in ("cache_salt", "lora_name") if getattr(request, name)},
        })  # fmt: skip

    def _try(self, request):
        self.recorder.write("sent", request.request_id)
        body = {"model": request.lora_name or self.known["model"]}
        body |= {"max_tokens": self.check.count_tokens(request), "temperature": 0}
        if self.check.api == "chat":
            body["messages"] = request.messages
        else:
            body["prompt"] = np.asarray(request.prompt).tolist()
        if request.cache_salt:
            body["cache_salt"] = request.cache_salt
        sent_s = self.now()
        try:
            return self.server.ask(APIS[self.check.api], body), sent_s
        except Exception as error:
            reached = isinstance(error, Unanswered) and error.reached
            self.recorder.write("lost" if reached else "refused", request.request_id)
            raise

    def _skip(self, request, reason):
        value = {"request_id": request.request_id, "prompt_tokens": len(request.prompt), "reason": reason}
        self.recorder.write("skipped", value)


def _persist(check, server, what, ask, stopped=None, kept=""):
    """Return what `ask` returns, after several attempts if need be; waits double, or are as long as the server asks."""
    for attempt in range(1, check.attempts + 1):
        try:
            return ask()
        except Unanswered as error:
            if attempt == check.attempts or (stopped is not None and stopped.is_set()):
                tried = count(attempt, "attempt")
                raise InputError(f"{server.url}: {what}, {tried}: {error}{kept}") from error
            check.wait(max(FIRST_WAIT_S * 2 ** (attempt - 1), error.wait_s))


def _send_one_by_one(sender, requests, bar):
    for request in requests:
        sender.send(request)
        bar.update()


def _send_as_they_arrive(sender, requests, bar):
    """Send each request at its time, but not before the previous one of its conversation is answered."""
    first, start, speed = requests[0].arrival_s, sender.now(), sender.check.speed
    answered, futures = {}, []

    def run(request, before, done):
        try:
            if before is not None:
                before.wait()
            if not sender.stopped.is_set():
                sender.send(request)
                bar.update()
        except BaseException:
            sender.stopped.set()
            raise
        finally:
            done.set()

    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        try:
            for request in requests:
                if sender.stopped.wait(max(start + (request.arrival_s - first) / speed - sender.now(), 0)):
                    break
                before, done = answered.get(request.conversation), threading.Event()
                answered[request.conversation] = done
                futures.append(pool.submit(run, request, before, done))
            wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            sender.stopped.set()
            raise
    for future in futures:
        future.result()
