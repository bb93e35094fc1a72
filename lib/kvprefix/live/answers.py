"""Read what an OpenAI-compatible server answers: a stream of events, an error's message, vLLM's metrics.

This module turns bytes and texts into values; it sends nothing and waits for nothing.
"""

import contextlib
import json
import re
import time
from dataclasses import dataclass
from itertools import islice

from kvprefix.files.checks import find_wrong_ids

MOST_BYTES = 2**24  # of an answer: a token takes a few hundred bytes
MOST_BYTES_OF_A_PAGE = 2**22  # models, version, metrics, an error: usually tens of kB
_OURS = r"vllm:\w*prefix_cache|vllm:cache_config_info|process_start_time_seconds"
_LINE = re.compile(rf"^(?:{_OURS}).{{,65536}}$", re.MULTILINE)  # a longer one is nonsense
MOST_LINES = 2**12  # of these in a page: usually some per engine
# The names of one counter in vLLM's versions: a page that has several says the same several times.
_COUNTERS = [f"vllm:{kind}prefix_cache_{{}}{end}" for kind in ("", "gpu_") for end in ("_total", "")]
_HYBRID = ("sliding_window", "mamba_block_size")  # a number if a model keeps less than every token's KV
_RETENTION = "prefix_cache_retention_interval"


class Unanswered(Exception):
    """A request without a usable answer; `reached` says whether the server may have computed its prompt."""

    def __init__(self, reason, *, reached, wait_s=0.0):
        super().__init__(reason)
        self.reached, self.wait_s = reached, wait_s


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Attributes
    ----------
    prompt_tokens, output_tokens : int
        As the server counts them.
    cached_tokens : int or None
        None if it does not report them.
    output_token_ids, prompt_token_ids : list of int or None
        None if it does not give them.
    ttft_s, duration_s : float
        Seconds from sending to the first token, and to the end; equal if the server does not stream.
    """

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None
    output_token_ids: list | None
    prompt_token_ids: list | None
    ttft_s: float
    duration_s: float


def read_answer(chunks, started, timeout_s):
    """Read a stream of server-sent events to its end and return an Answer.

    Parameters
    ----------
    chunks : iterator of bytes
    started : float
        When the request was sent, of `time.monotonic`.
    timeout_s : float
        The longest time from then on, in seconds.

    Raises
    ------
    Unanswered
        If the stream breaks off, is nonsense or takes too long.
    """
    usage, prompt_ids, output_ids, first, done = None, None, [], None, False
    for text in _read_events(read_chunks(chunks, started, timeout_s)):
        if text == "[DONE]":
            done = True
            break
        event, choice = _read_event(text)
        usage = _merge_usage(usage, event.get("usage"))
        prompt_ids = event.get("prompt_token_ids") or choice.get("prompt_token_ids") or prompt_ids
        if first is None and _has_token(choice):
            first = time.monotonic() - started
        output_ids += choice["token_ids"] if isinstance(choice.get("token_ids"), list) else []
    duration = time.monotonic() - started
    if not done:
        raise Unanswered("closed the connection before the end of its answer", reached=True)
    if first is None:
        raise Unanswered("answered no token", reached=True)
    return _make_answer(usage, prompt_ids, output_ids, first, duration)


def read_whole_answer(chunks, started, timeout_s):
    """Read an answer that is no stream; parameters and exceptions are those of `read_answer`."""
    text = bytearray().join(read_chunks(chunks, started, timeout_s)).decode("utf-8", errors="replace")
    duration = time.monotonic() - started
    body, choice = _read_event(text)
    if not choice:
        raise Unanswered(f"answered nonsense, no choices: {text}", reached=True)
    output_ids = choice["token_ids"] if isinstance(choice.get("token_ids"), list) else []
    prompt_ids = body.get("prompt_token_ids") or choice.get("prompt_token_ids")
    return _make_answer(body.get("usage"), prompt_ids, output_ids, duration, duration)


def _read_event(text):
    """Return an event's JSON object and its first choice, {} if it has none."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unanswered(f"answered nonsense: {text}", reached=True) from error
    if not isinstance(event, dict):
        raise Unanswered(f"answered nonsense: {text}", reached=True)
    if event.get("error"):
        raise Unanswered(f"broke off with an error: {find_message(event)}", reached=True)
    choices = event.get("choices")
    return event, choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _merge_usage(old, new):
    """Return an earlier usage updated by a later one: what the later one leaves out stays, such as its details."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new if isinstance(new, dict) else old
    said = {name: value for name, value in new.items() if value is not None}
    details = [one.get("prompt_tokens_details") for one in (old, said)]
    if all(isinstance(one, dict) for one in details):
        said["prompt_tokens_details"] = _merge_usage(*details)
    return old | said


def _make_answer(usage, prompt_ids, output_ids, first, duration):
    numbers = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    if not all(type(number) is int and 0 <= number < 2**31 for number in numbers):
        raise Unanswered("answered without usage.prompt_tokens and usage.completion_tokens", reached=True)
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    if cached is not None and not (type(cached) is int and 0 <= cached <= numbers[0]):
        raise Unanswered(f"answered nonsense: {cached!r} cached of {numbers[0]} prompt tokens", reached=True)
    known = len(output_ids) == numbers[1] and not find_wrong_ids(output_ids)
    prompt_ids = prompt_ids if isinstance(prompt_ids, list) and prompt_ids and not find_wrong_ids(prompt_ids) else None
    return Answer(*numbers, cached, output_ids if known else None, prompt_ids, first, duration)


def _has_token(choice):
    """Say whether a choice holds a token, not only the role."""
    delta = choice.get("delta") if isinstance(choice.get("delta"), dict) else {}
    texts = choice.get("text"), delta.get("content"), delta.get("reasoning_content"), delta.get("reasoning")
    return bool(choice.get("token_ids") or any(texts) or choice.get("finish_reason"))


def read_chunks(chunks, started, timeout_s, most_bytes=MOST_BYTES):
    """Yield chunks of bytes; raise Unanswered if they are too many or take too long."""
    n_bytes = 0
    for chunk in chunks:
        n_bytes += len(chunk)
        if time.monotonic() - started > timeout_s:
            raise Unanswered(f"was not done within {timeout_s:g} s", reached=True)
        if n_bytes > most_bytes:
            raise Unanswered(f"answered nonsense: more than {most_bytes >> 20} MiB", reached=True)
        yield chunk


def _read_events(chunks):
    """Yield what follows `data:` in each event."""
    rest = bytearray()
    for chunk in chunks:
        rest += chunk
        if b"\n" not in chunk:
            continue
        *lines, rest = rest.split(b"\n")
        for line in lines:
            text = line.strip().decode("utf-8", errors="replace")
            if text.startswith("data:"):
                yield text[5:].strip()
            elif text and text[0] != ":" and not re.match(r"(event|id|retry)\b", text):
                raise Unanswered(f"answered nonsense, no stream of events: {text}", reached=True)
    if rest.strip() == b"data: [DONE]":
        yield "[DONE]"
    elif rest.strip() and not rest.startswith(b"data"):
        text = rest.decode("utf-8", errors="replace")
        raise Unanswered(f"answered nonsense, no stream of events: {text}", reached=True)


def parse_metrics(text):
    """Read vLLM's prefix cache out of a `/metrics` page.

    Returns
    -------
    dict or None
        `queries` and `hits` (tokens since the server's start, over its engines), `engines`, and `block_size` and
        `num_gpu_blocks`; `started_s`, when the server's process started (Unix time). What the page does not say is
        None. None is returned if it says nothing of a prefix cache. If it says so, there are also `prefix_caching`
        (whether it is switched on) and `hybrid` (a sliding window or Mamba blocks).

    Examples
    --------
    >>> parse_metrics('vllm:prefix_cache_queries_total{engine="0"} 64.0' + chr(10) +
    ...               'vllm:prefix_cache_hits_total{engine="0"} 32.0' + chr(10) +
    ...               'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="200"} 1.0')
    {'queries': 64, 'hits': 32, 'engines': 1, 'block_size': 16, 'num_gpu_blocks': 200, 'started_s': None}
    """
    counters, caches, started_s = {}, [], None
    for name, labels, value in _read_samples(text):
        number = value if 0 <= value < 1e100 else None
        if "prefix_cache" in name and number is not None:
            counters.setdefault(name, []).append(int(number))
        elif name == "process_start_time_seconds":
            started_s = number
        elif name == "vllm:cache_config_info":
            caches.append(labels)
    found = {kind: _take_counter(counters, kind) for kind in ("queries", "hits")}
    if not found["queries"] and not caches:
        return None
    sums = {kind: sum(values) if values else None for kind, values in found.items()}
    engines = max(len(caches), len(found["queries"]), 1)
    return {**sums, "engines": engines, **_read_cache(caches[0] if caches else {}), "started_s": started_s}


def _read_samples(text):
    """Yield (name, labels, value) of the first MOST_LINES lines that matter; skip a line that is no sample."""
    from prometheus_client.parser import text_string_to_metric_families  # takes a quarter of a second

    for line in islice(_LINE.finditer(text), MOST_LINES):
        with contextlib.suppress(ValueError):
            for family in text_string_to_metric_families(line[0]):
                yield from ((sample.name, sample.labels, sample.value) for sample in family.samples)


def _take_counter(counters, kind):
    """Return a counter's samples, one per engine, under the first of its names that the page has."""
    return next((counters[name] for one in _COUNTERS if (name := one.format(kind)) in counters), [])


def _read_cache(labels):
    """Return what `vllm:cache_config_info` says of an engine's cache."""
    numbers = {name: int(text) for name, text in labels.items() if re.fullmatch("[1-9][0-9]{0,8}", text)}
    said = {name: numbers.get(name) for name in ("block_size", "num_gpu_blocks")}
    switch = labels.get("enable_prefix_caching", "").lower()
    if switch in ("true", "false"):
        said["prefix_caching"] = switch == "true"
    hybrid = [f"{name}={numbers[name]}" for name in _HYBRID if name in numbers]
    if hybrid and re.fullmatch("[0-9]{1,9}", labels.get(_RETENTION, "")):
        hybrid.append(f"{_RETENTION}={labels[_RETENTION]}")
    return said | ({"hybrid": ", ".join(hybrid)} if hybrid else {})


def find_message(body):
    """Return the message in the JSON body of an error, or its text."""
    while isinstance(body, dict):
        body = next((body[name] for name in ("error", "message", "detail") if body.get(name)), "")
    try:
        return body if isinstance(body, str) else json.dumps(body)
    except RecursionError:  # nested too deeply
        return "a nested value"


def iterate_body(response):
    """Yield an answer's bytes as they came; an encoded body could unpack to a thousand times its size.

    Raises
    ------
    Unanswered
        If the body is encoded, since no encoding was asked for.
    """
    encoding = response.headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise Unanswered(f"answered in the encoding {encoding}, which was not asked for", reached=True)
    yield from response.iter_raw()
