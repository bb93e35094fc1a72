"""Requests as JSON Lines of token ids, and an engine's answers to them: the files of ``python -m kvprefix replay``.

A line is `{"request_id": ..., "prompt_token_ids": [...]}`, optionally with `output_token_ids`, `cache_salt` and
`lora_name`, and with `timestamp` (milliseconds) where requests run at once; other fields are not read. The order of
the lines is the order of replay. Arrow reads the file; only where that fails, or something is wrong, is it gone through
line by line, to name the line.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (pa.compute)

from kvprefix.engines.sglang import longest_prompt, replay_sglang
from kvprefix.engines.vllm import Overlap, Requests, make_requests, number_contexts, replay_vllm
from kvprefix.files.arrow_lines import Fault, LineReader, read_lines_of
from kvprefix.files.checks import check_block_size
from kvprefix.files.jsonlines import show_value, write_lines
from kvprefix.files.paths import InputError, refuse_same_file
from kvprefix.tokens.arrays import flat_lists
from kvprefix.traces.trace import Tokens

_IDS = pa.list_(pa.int32())
_FIELDS = {"request_id": pa.string(), "prompt_token_ids": _IDS, "output_token_ids": _IDS, "cache_salt": pa.string(),
           "lora_name": pa.string()}  # fmt: skip
_EXPECTED = 'a line is {"request_id": name, "prompt_token_ids": [id, ...], "output_token_ids": [id, ...]}'
_MOST_MS = 2**53
ENGINES = ("vllm", "sglang")


def replay_file(
    source, target, block_size, num_gpu_blocks=None, *, outputs=True, legacy_free=False, engine="vllm", times_s=None
):  # fmt: skip
    """Replay a file of requests through an engine's prefix cache, and write what each one hits.

    Parameters
    ----------
    source, target : path-like
        The requests, plain or gzip or zstandard; the answers, compressed if the name ends in `.gz` or
        `.zst`. The last line of these
        is `{"totals": ...}`; rates count the tokens of the requests that were admitted.
    block_size, num_gpu_blocks, outputs, legacy_free
        As in `replay_vllm`. SGLang's blocks are its pages, all of them usable; it has no `legacy_free`.
    engine : str
        One of ENGINES.
    times_s : (float, float), optional
        Seconds to the first token and for each one after it: the requests then arrive at their `timestamp` and run at
        once, as `engine.Overlap` says, in vLLM only. Otherwise each one is over before the next starts.

    Returns
    -------
    dict
        The totals. Of requests that run at once also `engine_steps` (with a running request), `requests_waited` and, as
        vLLM counts them, `preempted_requests` (admissions after a preemption), `preempted_queries` (their tokens) and
        `preempted_hits`.

    Raises
    ------
    InputError
        A file or a line that is no requests, a number out of range, or with SGLang `legacy_free` or `times_s`.
    """
    refuse_same_file(source, target)
    if engine == "sglang":
        for flag, given in (("--legacy-free", legacy_free), ("--concurrent", times_s)):
            if given:
                raise InputError(f"{flag} is a rule of vLLM's; it has no meaning with the engine sglang")
        page_size, capacity = check_block_size(block_size), _count_tokens(num_gpu_blocks, block_size)
        names, requests = read_requests(source)
        result = replay_sglang(requests, page_size, capacity, outputs=outputs)
    else:
        names, requests, overlap = _read_overlap(source, times_s)
        result = replay_vllm(
            requests, block_size, num_gpu_blocks, outputs=outputs, legacy_free=legacy_free, overlap=overlap
        )
    lines = []
    for name, length, cached in zip(names, result.prompt_tokens.tolist(), result.cached_tokens.tolist(), strict=True):
        line = {"request_id": name, "num_prompt_tokens": length, "num_cached_tokens": cached if cached >= 0 else None}
        if cached < 0:
            line["error"] = _explain(engine, length, block_size, num_gpu_blocks)
        lines.append(json.dumps(line))
    totals = _sum_up(engine, result, outputs, legacy_free)
    with write_lines(target) as file:
        file.write(("\n".join([*lines, json.dumps({"totals": totals})]) + "\n").encode())
    return totals


def _read_overlap(path, times_s):
    """Return the ids, the requests and, if these run at once, their Overlap."""
    if times_s is None:
        return *read_requests(path), None
    Overlap((), *times_s)  # refuses wrong times before the file is read
    names, requests, timestamps = read_timed_requests(path)
    return names, requests, Overlap((timestamps - timestamps[0]) / 1000, *times_s)


def _count_tokens(n_pages, page_size):
    """Return the tokens of so many pages of SGLang's pool, None for unlimited."""
    if n_pages is None:
        return None
    if isinstance(n_pages, bool) or not isinstance(n_pages, int) or n_pages < 1:
        raise InputError(f"number of GPU blocks is {n_pages!r}; expected a whole number, 1 or more, or unlimited")
    return n_pages * page_size


def _explain(engine, length, block_size, num_gpu_blocks):
    """Say why a prompt never fits."""
    if engine == "sglang":
        most = longest_prompt(num_gpu_blocks * block_size, block_size)
        return f"the prompt has {length} tokens and SGLang takes {most} at most with this pool"
    return f"the prompt needs {-(-length // block_size)} blocks and the pool has {num_gpu_blocks - 1}"


def _sum_up(engine, result, outputs, legacy_free):
    admitted = result.cached_tokens >= 0
    queries, hits = int(result.prompt_tokens[admitted].sum()), int(result.cached_tokens[admitted].sum())
    totals = {
        "engine": engine,
        "mode": "sequential",
        "block_size": result.block_size,
        "num_gpu_blocks": result.num_gpu_blocks,
        "capacity": "unlimited" if result.num_gpu_blocks is None else str(result.num_gpu_blocks),
        "outputs": "cached" if outputs else "ignored",
        "legacy_free": legacy_free,
        "requests": len(admitted),
        "errors": int((~admitted).sum()),
        "outputs_cut": result.outputs_cut,
        "prefix_cache_queries": queries,
        "prefix_cache_hits": hits,
        "hit_rate": round(hits / queries, 6) if queries else None,
        "hit_blocks": hits // result.block_size,
        "requests_with_hit": int((result.cached_tokens > 0).sum()),
        "cached_hashes_at_end": result.cached_hashes,
        "blocks_with_hash_at_end": result.blocks_with_hash,
    }
    if getattr(result, "steps", None) is None:
        return totals
    return totals | {
        "mode": "scheduler",
        "engine_steps": result.steps,
        "requests_waited": int((result.waited_s > 0).sum()),
        "preempted_requests": int(result.preemptions.sum()),
        "preempted_queries": result.tokens_again,
        "preempted_hits": result.cached_again,
    }


def read_requests(path):
    """Read a file of requests.

    Parameters
    ----------
    path : path-like
        JSON Lines, optionally gzip or zstandard (found by content, not by name). Blank lines are skipped.

    Returns
    -------
    (list, Requests)
        The requests' ids as the file has them, and the requests.

    Raises
    ------
    InputError
        Naming the file and the line that is no such request.
    """
    return _read(path, timed=False)[:2]


def read_timed_requests(path):
    """Read the same of requests that all have a `timestamp`; return ids, requests and timestamps (ms, ascending)."""
    return _read(path, timed=True)


def _read(path, timed):
    return read_lines_of(path, _RequestReader(timed))


class _RequestReader(LineReader):
    """Makes ids, requests and timestamps (None if not `timed`) of a file."""

    expected, batch_bytes = _EXPECTED, 16 << 20

    def __init__(self, timed):
        self.timed = timed
        self.schema = pa.schema(_FIELDS | ({"timestamp": pa.float64()} if timed else {}))

    def from_batches(self, batches):
        table = pa.Table.from_batches(batches)
        names, prompts, outputs = (table[name] for name in list(_FIELDS)[:3])
        if not len(table) or names.null_count or prompts.null_count:
            return None
        timestamps = table["timestamp"].to_numpy() if self.timed else None  # what is missing is NaN
        if self.timed and not (np.diff(timestamps, prepend=0, append=_MOST_MS) >= 0).all():
            return None
        empty = pa.scalar([], _IDS)
        own_offsets, own = _flat(prompts)
        output_offsets, output = _flat(outputs.fill_null(empty) if outputs.null_count else outputs)
        if own is None or output is None or (np.diff(own_offsets) == 0).any():
            return None
        n = len(table)
        tokens = Tokens(
            np.full(n, -1), np.zeros(n, np.int64), own_offsets, own, np.zeros(len(own), bool), output_offsets, output
        )
        contexts = [column.to_pylist() for column in (table["cache_salt"], table["lora_name"]) if column.null_count < n]
        return names.to_pylist(), Requests(tokens, np.arange(n), number_contexts(n, *contexts)), timestamps

    def from_objects(self, objects):
        requests, timestamps = [], []
        for request in objects:
            requests.append(_take_fields(request))
            if self.timed:
                timestamps.append(_check_timestamp(request.get("timestamp"), timestamps[-1] if timestamps else 0))
        names, prompts, outputs, salts, adapters = zip(*requests, strict=True)
        requests = make_requests(prompts, outputs, cache_salts=salts, lora_names=adapters)
        return list(names), requests, np.array(timestamps, float) if self.timed else None


def _flat(column):
    """Return a list column as (offsets, token ids), ids None where one is missing or below 0."""
    if any(chunk.flatten().null_count for chunk in column.chunks):
        return None, None
    offsets, ids = flat_lists(column)
    return offsets, None if len(ids) and ids.min() < 0 else ids.astype(np.int32, copy=False)


def _take_fields(request):
    """Return a request's fields in the order of _FIELDS; raise Fault where they are wrong."""
    missing = [name for name in ("request_id", "prompt_token_ids") if request.get(name) is None]
    if missing:
        raise Fault(f"lacks {', '.join(missing)}; {_EXPECTED}")
    name, prompt, output, salt, adapter = (request.get(field) for field in _FIELDS)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise Fault(f"has request_id {show_value(name)}; expected a text or a whole number")
    for field, ids in (("prompt_token_ids", prompt), ("output_token_ids", output)):
        if ids is not None and not isinstance(ids, list):
            raise Fault(f"has {field} {show_value(ids)}; expected a list of token ids")
        strange = [one for one in ids or () if type(one) is not int or not 0 <= one < 2**31]
        if strange:
            odd = show_value(strange[0])
            raise Fault(f"has {odd} among its {field}; expected whole numbers of 31 bits")
    if not prompt:
        raise Fault("has no prompt_token_ids; expected one or more")
    for field, value in (("cache_salt", salt), ("lora_name", adapter)):
        if value is not None and not isinstance(value, str):
            raise Fault(f"has {field} {show_value(value)}; expected a text")
    return name, prompt, output or [], salt, adapter


def _check_timestamp(value, before):
    """Return a line's timestamp; raise Fault where it is wrong."""
    expected = "with --concurrent every line has the milliseconds of its arrival, 0 or more"
    if value is None:
        raise Fault(f"lacks timestamp; {expected}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_MS:
        raise Fault(f"has timestamp {show_value(value)}; {expected}")
    if value < before:
        values = f"{show_value(value)}, after {show_value(before)}"
        raise Fault(f"has timestamp {values}; expected the order of arrival")
    return value
