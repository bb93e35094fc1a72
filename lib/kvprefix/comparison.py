"""Compare what a live server reported with what the replay predicts: the judging half of the live check.

Everything is taken from a recording; no server is asked.
"""

import re

import numpy as np
import pandas as pd

from kvprefix.describe import percent
from kvprefix.engine import Overlap, make_requests, replay_vllm
from kvprefix.jsonlines import count
from kvprefix.recording import read_recording

__all__ = ["compare_recording", "describe_comparison", "read_recording"]

ASSUMED_BLOCK_SIZE = 16  # vLLM's default, where neither the server nor the user says
COLUMNS = [
    "request_id", "prompt_tokens", "server_prompt_tokens", "predicted_cached_tokens", "measured_cached_tokens",
    "ttft_s", "status",
]  # fmt: skip
_WORDS = {
    "predicted_cached_tokens": "predicted", "measured_cached_tokens": "measured", "prompt_tokens": "ours",
    "server_prompt_tokens": "the server's",
}  # fmt: skip
TURN_ON = (
    "turn that on with --enable-prompt-tokens-details (vLLM) or --enable-cache-report (SGLang), then check again with "
    "--restart"
)


def compare_recording(recording):
    """Predict each recorded request's cached tokens and compare them with the server's.

    Parameters
    ----------
    recording : Recording
        Of `read_recording`.

    Returns
    -------
    frame : pandas.DataFrame
        COLUMNS, a row a request in the order in which they were sent, those skipped last. `status` is `agrees`,
        `differs`, `other_prompt` (the server made other tokens of it), `not_reported` or `too_long`.
    summary : dict
        JSON values. `verdict`: `agree`, `differ`, `approximate` (requests overlapped), `void` (other prompts),
        `not_reported` or `nothing`; `warnings`: sentences.

    Notes
    -----
    One at a time, the prediction is exact: the replay of `engine.replay_vllm`, generated tokens as the server gave
    them; where it gave none, as tokens that no other request holds. A request that was sent more than once counts as
    if each time its prompt had been computed. Overlapping requests are replayed with `engine.Overlap`, the median times
    of the recording for all of them: which of two requests came first, and what was waiting, is only about right.
    """
    cache = _find_cache(recording)
    answers = recording.answers
    if recording.header["timing"] == "trace":
        answers = sorted(answers, key=lambda one: one["sent_s"])
    predicted = _predict(recording, answers, cache, cache["num_gpu_blocks"])
    reports = any(one.get("cached_tokens") is not None for one in answers)
    rows = [_make_row(one, cached, reports) for one, cached in zip(answers, predicted, strict=True)]
    rows += [[one["request_id"], one.get("prompt_tokens"), *[None] * 4, "too_long"] for one in recording.skipped]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[1:5], "Int64") | {"ttft_s": "float64"})
    unlimited = predicted if cache["num_gpu_blocks"] is None else _predict(recording, answers, cache, None)
    return frame, _sum_up(recording, frame, cache, sum(unlimited))


def describe_comparison(summary):
    """Say in one sentence whether predicted and measured cached tokens agree."""
    n, verdict = summary["compared"], summary["verdict"]
    if verdict == "nothing":
        return f"No comparison: none of {count(summary['requests'], 'request')} was answered."
    if verdict == "void":
        return (
            f"No comparison: of {count(summary['other_prompts'], 'request')} of {summary['answered']:,} the server "
            f"makes other prompt tokens than we do ({summary['first_other_prompt']}): another tokenizer or chat "
            "template, which makes any comparison void."
        )
    if verdict == "not_reported":
        return f"No comparison: the server reports no cached tokens; {TURN_ON}."
    measured, prompts = summary["measured_cached_tokens"], summary["prompt_tokens"]
    rate = f"{measured:,} of {prompts:,} prompt tokens cached ({percent(measured / prompts)})"
    if verdict == "agree":
        said = f"Predicted and measured cached tokens agree on all {count(n, 'request')}: {rate}"
    elif verdict == "differ":
        said = (
            f"Predicted and measured cached tokens DIFFER on {summary['differ']:,} of {count(n, 'request')} "
            f"({summary['first_difference']}): {rate}, predicted {summary['predicted_cached_tokens']:,}"
        )
    else:
        said = (
            f"Requests overlapped, so the prediction is approximate: {rate}, predicted "
            f"{summary['predicted_cached_tokens']:,} ({percent(summary['predicted_cached_tokens'] / prompts)}); "
            f"{summary['agree']:,} of {count(n, 'request')} agree exactly"
        )
    return f"{said}. {_state_conditions(summary)}"


def _state_conditions(summary):
    blocks, said = summary["num_gpu_blocks"], [f"block size {summary['block_size']}"]
    said.append("an unlimited pool" if blocks is None else f"{blocks:,} blocks")
    if summary["unlimited_cached_tokens"] > summary["predicted_cached_tokens"]:
        said[-1] += f", which evict (unlimited: {summary['unlimited_cached_tokens']:,} cached)"
    if summary["server_version"]:
        said.insert(0, f"server version {summary['server_version']}")
    if summary["skipped_too_long"]:
        said.append(f"{count(summary['skipped_too_long'], 'request')} longer than the server's context left out")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."


def _find_cache(recording):
    """Return block size, number of blocks and freeing rule: as given, else as the server says, else assumed."""
    run = recording.runs[-1] if recording.runs else {}
    metrics = run.get("metrics") or {}
    version = (run.get("server") or {}).get("version")
    old = re.match(r"0\.(\d+)\.", version or "")
    return {
        "block_size": run.get("block_size") or metrics.get("block_size") or ASSUMED_BLOCK_SIZE,
        "num_gpu_blocks": run.get("num_gpu_blocks") or metrics.get("num_gpu_blocks"),
        "legacy_free": bool(metrics and old and int(old[1]) < 23),
        "version": version,
    }


def _predict(recording, answers, cache, num_gpu_blocks):
    """Return the cached tokens of each answered request, -1 where its prompt never fits."""
    if not answers:
        return []
    sent, outputs, rows, unknown = [], [], [], 2**31
    for one in answers:
        sent += [one] * one.get("lost", 0)
        outputs += [[]] * one.get("lost", 0)
        rows.append(len(sent))
        sent.append(one)
        ids = one.get("output_token_ids")
        if ids is None:
            ids = range(unknown - one["output_tokens"], unknown)
            unknown -= one["output_tokens"]
        outputs.append(ids)
    requests = make_requests(
        [one["prompt_token_ids"] for one in sent], outputs, cache_salts=[one.get("cache_salt") for one in sent],
        lora_names=[one.get("lora_name") for one in sent],
    )  # fmt: skip
    overlap = _find_overlap(sent) if recording.header["timing"] == "trace" else None
    result = replay_vllm(
        requests, cache["block_size"], num_gpu_blocks, legacy_free=cache["legacy_free"], overlap=overlap
    )
    return result.cached_tokens[rows].tolist()


def _find_overlap(sent):
    """Return when the requests were sent, and the median times of their first and later tokens."""
    first = np.median([one["ttft_s"] for one in sent])
    rest = [(one["duration_s"] - one["ttft_s"]) / max(one["output_tokens"] - 1, 1) for one in sent]
    return Overlap([one["sent_s"] for one in sent], max(float(first), 1e-6), max(float(np.median(rest)), 1e-6))


def _make_row(answer, predicted, reports):
    ours, theirs = len(answer["prompt_token_ids"]), answer["server_prompt_tokens"]
    measured = (answer.get("cached_tokens") or 0) if reports else None  # some servers leave a 0 out
    if ours != theirs or answer.get("same_prompt") is False:
        status = "other_prompt"
    elif measured is None:
        status = "not_reported"
    else:
        status = "agrees" if predicted == measured else "differs"
    predicted = None if predicted < 0 else predicted
    return [answer["request_id"], ours, theirs, predicted, measured, answer["ttft_s"], status]


def _sum_up(recording, frame, cache, unlimited):
    states = frame["status"].value_counts()
    n = {status: int(states.get(status, 0)) for status in ("agrees", "differs", "other_prompt", "not_reported")}
    compared = frame[frame["status"].isin(["agrees", "differs"])]
    answered = frame[frame["status"] != "too_long"]
    overlapping = recording.header["timing"] == "trace"
    if not len(answered):
        verdict = "nothing"
    elif n["other_prompt"]:
        verdict = "void"
    elif n["not_reported"]:
        verdict = "not_reported"
    else:
        verdict = "approximate" if overlapping else "differ" if n["differs"] else "agree"
    summary = {
        "verdict": verdict,
        **{name: recording.header[name] for name in ("url", "model", "api", "timing", "speed", "max_tokens", "source")},
        "server_version": cache["version"],
        "block_size": cache["block_size"],
        "num_gpu_blocks": cache["num_gpu_blocks"],
        "legacy_free": cache["legacy_free"],
        "requests": recording.header["requests"],
        "answered": len(answered),
        "skipped_too_long": len(frame) - len(answered),
        "sent_again": sum(recording.lost.values()),
        "compared": len(compared),
        "agree": n["agrees"],
        "differ": n["differs"],
        "first_difference": _show_first(frame, "differs", "predicted_cached_tokens", "measured_cached_tokens"),
        "other_prompts": n["other_prompt"],
        "first_other_prompt": _show_first(frame, "other_prompt", "prompt_tokens", "server_prompt_tokens"),
        "prompt_tokens": int(compared["prompt_tokens"].sum()),
        "predicted_cached_tokens": int(compared["predicted_cached_tokens"].sum()),
        "measured_cached_tokens": int(compared["measured_cached_tokens"].sum()),
        "unlimited_cached_tokens": unlimited,
        "ttft_s": _describe_times(answered["ttft_s"]),
        "server_counters": _count_server(recording),
    }
    return {**summary, "warnings": _find_warnings(recording, summary)}


def _show_first(frame, status, left, right):
    some = frame[frame["status"] == status]
    if not len(some):
        return None
    row = some.iloc[0]
    names = [_WORDS[name] for name in (left, right)]
    values = ["none" if row[name] is pd.NA else f"{row[name]:,}" for name in (left, right)]
    return f"first: {row['request_id']}, {names[0]} {values[0]}, {names[1]} {values[1]}"


def _describe_times(values):
    if not len(values):
        return None
    spread = {f"p{p}": np.percentile(values, p) for p in (5, 50, 95, 99)}
    spread = {"mean": values.mean(), **spread, "max": values.max()}
    return {name: round(float(value), 6) for name, value in spread.items()}


def _count_server(recording):
    """Return what the server's own counters added up to from the first run to the end, None where it has none."""
    ends = [recording.runs[0].get("metrics") if recording.runs else None, (recording.end or {}).get("metrics")]
    if not all(isinstance(one, dict) and one.get("queries") is not None for one in ends):
        return None
    added = {name: ends[1][name] - ends[0][name] for name in ("queries", "hits") if ends[1].get(name) is not None}
    return {"queries_before": ends[0]["queries"], **added}


def _find_warnings(recording, summary):
    """Return what may spoil the comparison, a sentence each."""
    metrics = [run.get("metrics") or {} for run in recording.runs] + [(recording.end or {}).get("metrics") or {}]
    queries = [one["queries"] for one in metrics if one.get("queries") is not None]
    sent = sum(one["server_prompt_tokens"] for one in recording.answers)
    lost = sum(one["server_prompt_tokens"] * one.get("lost", 0) for one in recording.answers)
    counters, run = summary["server_counters"] or {}, recording.runs[-1] if recording.runs else {}
    engines = max((one.get("engines", 1) for one in metrics), default=1)
    unknown = sum(one.get("output_token_ids") is None for one in recording.answers)
    left_open = summary["requests"] - summary["answered"] - summary["skipped_too_long"]
    known_pool = run.get("num_gpu_blocks") or metrics[0].get("num_gpu_blocks")
    found = {
        f"The server had looked up {counters.get('queries_before', 0):,} prompt tokens before: its cache may not have "
        "been empty. Restart it (or POST /reset_prefix_cache) and check again with --restart.":
            counters.get("queries_before", 0) > 0,
        "The server was restarted during the check, so its cache began anew; check again with --restart.":
            any(later < earlier for earlier, later in zip(queries, queries[1:], strict=False)),
        f"The server looked up {counters.get('queries', 0):,} prompt tokens and the check sent {sent:,}: somebody else "
        "used it meanwhile.":
            recording.header["timing"] == "sequential" and counters.get("queries", 0) > sent + lost,
        f"The server runs {engines} engines, each with a cache of its own, and the prediction is of one.": engines > 1,
        f"The server does not say its block size; {summary['block_size']} is assumed (--block-size says another).":
            not run.get("block_size") and not metrics[0].get("block_size"),
        "The server does not say its number of blocks; an unlimited pool is assumed (--num-gpu-blocks says another).":
            not known_pool,
        f"{count(summary['sent_again'], 'attempt')} got no answer and may have been computed or not; the prediction "
        "takes each as computed.": summary["sent_again"] > 0,
        f"The server does not give the tokens that it generated for {count(unknown, 'request')}; the prediction takes "
        "them as tokens that no prompt holds.": unknown > 0 and summary["max_tokens"] > 1,
        f"Only {summary['unlimited_cached_tokens']:,} of {summary['prompt_tokens']:,} prompt tokens could be cached at "
        "all, so agreement says little; more requests, or a lower arrival rate, bring conversations back.":
            summary["compared"] > 0 and summary["unlimited_cached_tokens"] < 0.05 * summary["prompt_tokens"],
        f"The recording is not complete: {count(left_open, 'request')} to go.": left_open > 0,
    }  # fmt: skip
    return [text for text, applies in found.items() if applies]
