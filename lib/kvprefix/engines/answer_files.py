"""Replay a file of requests, and write what each one hits: the files of ``python -m kvprefix replay``."""

import json

from kvprefix.engines.request_files import read_requests
from kvprefix.files.jsonlines import write_lines
from kvprefix.files.paths import refuse_same_file


def replay_file(source, target, replayer, *, engine, version=None):
    """Replay a file of requests through an engine's prefix cache, and write what each one hits.

    Parameters
    ----------
    source, target : path-like
        The requests, plain or gzip or zstandard; the answers, compressed if the name ends in `.gz` or `.zst`. The last
        line of these is `{"totals": ...}`; rates count the tokens of the requests that were admitted.
    replayer
        What an entry of `registry` makes. If it has an `overlap`, requests arrive at their `timestamp`.
    engine : str
        The entry's name.
    version : str, optional
        The version that was asked for; the totals then name it.

    Returns
    -------
    dict
        The totals. If requests run at once, also `engine_steps` (with a running request), `requests_waited` and, as
        vLLM counts them, `preempted_requests` (admissions after a preemption), `preempted_queries` (their tokens) and
        `preempted_hits`. `note`, if there is one, is a caveat on the rules.

    Raises
    ------
    InputError
        A file that cannot be read, or a line that is no request.
    """
    refuse_same_file(source, target)
    trace = read_requests(source, timed=replayer.overlap is not None)
    result = replayer.replay(trace)
    lines = []
    columns = trace.request_ids, result.prompt_tokens.tolist(), result.hit_tokens.tolist()
    for name, length, cached in zip(*columns, strict=True):
        line = {"request_id": name, "num_prompt_tokens": length, "num_cached_tokens": cached if cached >= 0 else None}
        if cached < 0:
            line["error"] = replayer.explain_refusal(length)
        lines.append(json.dumps(line))
    asked = {} if version is None else {"engine_version": version}
    totals = {"engine": engine, **asked, **_sum_up(result, replayer.outputs), **result.details}
    with write_lines(target) as file:
        file.write(("\n".join([*lines, json.dumps({"totals": totals})]) + "\n").encode())
    return totals


def _sum_up(result, outputs):
    admitted = result.hit_tokens >= 0
    queries, hits = int(result.prompt_tokens[admitted].sum()), int(result.hit_tokens[admitted].sum())
    totals = {
        "mode": "sequential",
        "block_size": result.block_size,
        "num_gpu_blocks": result.blocks,
        "capacity": "unlimited" if result.blocks is None else str(result.blocks),
        "outputs": "cached" if outputs else "ignored",
        "legacy_free": getattr(result.rules, "legacy_free", False),
        "requests": len(result),
        "errors": int((~admitted).sum()),
        "outputs_cut": result.outputs_cut,
        "prefix_cache_queries": queries,
        "prefix_cache_hits": hits,
        "hit_rate": round(hits / queries, 6) if queries else None,
        "hit_blocks": hits // result.block_size,
        "requests_with_hit": int((result.hit_tokens > 0).sum()),
        "cached_hashes_at_end": result.cached_hashes,
        "blocks_with_hash_at_end": result.blocks_with_hash,
    }
    if result.steps is None:
        return totals
    return totals | {
        "mode": "scheduler",
        "engine_steps": result.steps,
        "requests_waited": int((result.waited_s > 0).sum()),
        "preempted_requests": int(result.preemptions.sum()),
        "preempted_queries": result.tokens_again,
        "preempted_hits": result.cached_again,
    }
