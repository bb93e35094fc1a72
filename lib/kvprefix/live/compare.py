"""Compare what a live server reported with what the replay predicts: the second half of the live check.

All data come from a recording; no server is asked.
"""

from itertools import pairwise

import numpy as np
import pandas as pd

from kvprefix.engines.overlap import Overlap
from kvprefix.engines.versions import VLLM_VERSIONS, choose_version, find_rules
from kvprefix.engines.vllm import VLLM
from kvprefix.live.facts import count_prompts
from kvprefix.live.findings import find_causes, find_warnings
from kvprefix.live.hybrid import make_engine
from kvprefix.traces.trace import make_trace_of

ASSUMED_BLOCK_SIZE = 16  # vLLM's default, if neither the server nor the user says
NO_COMPARISON = ("void", "switched_off", "not_reported", "nothing")  # verdicts without a comparison
COLUMNS = [
    "request_id", "prompt_tokens", "server_prompt_tokens", "predicted_cached_tokens", "measured_cached_tokens",
    "ttft_s", "status",
]  # fmt: skip
_WORDS = {
    "predicted_cached_tokens": "predicted", "measured_cached_tokens": "measured", "prompt_tokens": "ours",
    "server_prompt_tokens": "the server's",
}  # fmt: skip


def compare_recording(recording):
    """Predict each recorded request's cached tokens and compare them with the server's.

    Parameters
    ----------
    recording : Recording
        Of `read_recording`.

    Returns
    -------
    frame : pandas.DataFrame
        COLUMNS, a row per request in the order in which they were sent, skipped ones last. `status` is `agrees`,
        `differs`, `sent_again`, `other_prompt` (the server made other tokens), `not_reported` or `too_long`.
    summary : dict
        JSON values. `verdict`: `agree`, `differ`, `approximate` (requests overlapped, or generated tokens are not
        known), `void` (other prompts), `switched_off` (prefix caching), `not_reported` or `nothing`; `causes` (of
        differences, with the evidence) and `warnings`: sentences.

    Notes
    -----
    If requests are sent one at a time, the prediction is exact: `VLLM` replays them by the rules of the server's
    version, with the generated tokens that the server gave; if it gave none, with tokens that no other request holds. A
    request that was sent again, because an attempt got no answer, is not compared: it is unknown whether that attempt
    was computed. What the server reports for the request decides this for the prediction of later ones. If the server
    was restarted or its cache was emptied between two runs of the check, the prediction begins again with an empty
    cache. Overlapping requests are replayed with an `Overlap`, all with the median times of the recording: their order,
    and which of them wait, is approximate.
    """
    cache = _find_cache(recording)
    answers = recording.answers
    if recording.header["timing"] == "trace":
        answers = sorted(answers, key=lambda one: one["sent_s"])
    reports = any(one.get("cached_tokens") is not None for one in answers) or _hit_nothing(recording)
    measured = [(one.get("cached_tokens") or 0) if reports else None for one in answers]  # some leave a 0 out
    sent = _settle_lost(recording, answers, measured, cache)
    predicted = _predict(recording, answers, sent, cache, cache["num_gpu_blocks"])
    rows = [_make_row(*one) for one in zip(answers, predicted, measured, strict=True)]
    rows += [[one["request_id"], one.get("prompt_tokens"), *[None] * 4, "too_long"] for one in recording.skipped]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[1:5], "Int64") | {"ttft_s": "float64"})
    unlimited = np.array(_predict(recording, answers, sent, cache, None) + [0] * len(recording.skipped), int)
    return frame, _sum_up(recording, frame, cache, int(unlimited[_is_compared(frame)].sum()))


def _find_cache(recording):
    """Return block size, number of blocks and version of the rules: as given, else as the server says, else assumed."""
    run = recording.runs[-1] if recording.runs else {}
    metrics = run.get("metrics") or {}
    version = (run.get("server") or {}).get("version")
    return {
        "block_size": run.get("block_size") or metrics.get("block_size") or ASSUMED_BLOCK_SIZE,
        "num_gpu_blocks": run.get("num_gpu_blocks") or metrics.get("num_gpu_blocks"),
        "kv_groups": run.get("kv_groups"),
        "run": run,
        "rules_of": choose_version(VLLM_VERSIONS, version if metrics else None),  # without metrics it is not vLLM's
        "version": version,
    }


def _settle_lost(recording, answers, measured, cache):
    """Return how often each answered request's prompt was computed: a lost attempt counts if the answer shows it."""
    sent = [1] * len(answers)
    for row, answer in enumerate(answers):
        if answer.get("lost"):
            sent[row] += answer["lost"]
            if _predict(recording, answers, sent, cache, cache["num_gpu_blocks"])[row] != measured[row]:
                sent[row] = 1
    return sent


def _predict(recording, answers, sent, cache, num_gpu_blocks):
    """Return the cached tokens of each answered request, -1 if its prompt never fits; `sent`: how often it was."""
    parts = [slice(*part) for part in pairwise([0, *recording.find_fresh_starts(), len(answers)])]
    return sum((_predict_part(recording, answers[part], sent[part], cache, num_gpu_blocks) for part in parts), [])


def _predict_part(recording, answers, sent, cache, num_gpu_blocks):
    """Return the same for answers that begin with an empty cache."""
    if not answers:
        return []
    attempts = [answer for answer, times in zip(answers, sent, strict=True) for _ in range(times)]
    overlap = _find_overlap(attempts) if recording.header["timing"] == "trace" else None
    if cache["kv_groups"]:  # requests that overlap are replayed one after the other: that is approximate anyway
        engine = make_engine(cache["kv_groups"], cache["run"], cache["block_size"], num_gpu_blocks, cache["version"])
    else:
        engine = VLLM(cache["rules_of"], block_size=cache["block_size"], blocks=num_gpu_blocks, overlap=overlap)
    return engine.replay(_make_trace(answers, sent)).hit_tokens[np.cumsum(sent) - 1].tolist()


def _make_trace(answers, sent):
    """Return the answered requests as a trace, each as often as it was sent; unknown output tokens are unique."""
    outputs, unknown = [], 2**31
    for answer, times in zip(answers, sent, strict=True):
        ids = answer.get("output_token_ids")
        if ids is None:
            ids = range(unknown - answer["output_tokens"], unknown)
            unknown -= answer["output_tokens"]
        outputs += [[]] * (times - 1) + [ids]
    attempts = [answer for answer, times in zip(answers, sent, strict=True) for _ in range(times)]
    return make_trace_of(
        [one["prompt_token_ids"] for one in attempts], [one["sent_s"] for one in attempts], outputs,
        cache_salts=[one.get("cache_salt") for one in attempts], lora_names=[one.get("lora_name") for one in attempts],
    )  # fmt: skip


def _find_overlap(sent):
    """Return the median times of the requests' first and later tokens."""
    first = np.median([one["ttft_s"] for one in sent])
    rest = [(one["duration_s"] - one["ttft_s"]) / max(one["output_tokens"] - 1, 1) for one in sent]
    return Overlap(max(float(first), 1e-6), max(float(np.median(rest)), 1e-6))


def _make_row(answer, predicted, measured):
    ours, theirs = len(answer["prompt_token_ids"]), answer["server_prompt_tokens"]
    if ours != theirs or answer.get("same_prompt") is False:
        status = "other_prompt"
    elif measured is None:
        status = "not_reported"
    elif answer.get("lost"):
        status = "sent_again"
    else:
        status = "agrees" if predicted == measured else "differs"
    predicted = None if predicted < 0 else predicted
    return [answer["request_id"], ours, theirs, predicted, measured, answer["ttft_s"], status]


def _hit_nothing(recording):
    """Say whether the server's own counters rule out any hit: then a server that omits zeros has reported all."""
    counters = _count_server(recording)
    return counters is not None and counters.get("hits") == 0 and counters["queries"] >= count_prompts(recording)


def _is_switched_off(recording, frame):
    """Say whether the server says that its prefix caching is switched off, and hits nothing."""
    off = any((run.get("metrics") or {}).get("prefix_caching") is False for run in recording.runs)
    return off and not frame["measured_cached_tokens"].fillna(0).any()


def _is_compared(frame):
    return frame["status"].isin(["agrees", "differs"])


def _sum_up(recording, frame, cache, unlimited):
    states = frame["status"].value_counts()
    n = {status: int(states.get(status, 0)) for status in ("agrees", "differs", "other_prompt", "not_reported")}
    compared = frame[_is_compared(frame)]
    answered = frame[frame["status"] != "too_long"]
    unknown = any(one.get("output_token_ids") is None and one["output_tokens"] > 1 for one in recording.answers)
    doubts = {"requests overlapped": recording.header["timing"] == "trace",
              "the server does not give the tokens that it generated": unknown}  # fmt: skip
    doubt = " and ".join(text for text, applies in doubts.items() if applies) or None
    if n["other_prompt"]:
        verdict = "void"
    elif len(answered) and _is_switched_off(recording, frame):
        verdict = "switched_off"
    elif n["not_reported"]:
        verdict = "not_reported"
    elif not len(compared):
        verdict = "nothing"
    else:
        verdict = "approximate" if doubt else "differ" if n["differs"] else "agree"
    summary = {
        "verdict": verdict,
        "approximate_because": doubt,
        **{name: recording.header[name] for name in ("url", "model", "api", "timing", "speed", "max_tokens", "source")},
        "server_version": cache["version"],
        "block_size": cache["block_size"],
        "num_gpu_blocks": cache["num_gpu_blocks"],
        "kv_groups": cache["kv_groups"],
        "legacy_free": find_rules(VLLM_VERSIONS, cache["rules_of"]).rules.legacy_free,
        "requests": recording.header["requests"],
        "answered": len(answered),
        "skipped_too_long": len(frame) - len(answered),
        "sent_again": int(states.get("sent_again", 0)),
        "compared": len(compared),
        "agree": n["agrees"],
        "differ": n["differs"],
        "first_difference": _show_first(frame, "differs", "predicted_cached_tokens", "measured_cached_tokens"),
        "other_prompts": n["other_prompt"],
        "first_other_prompt": _show_first(frame, "other_prompt", "prompt_tokens", "server_prompt_tokens"),
        "predicted_not_reported": int(
            frame.loc[frame["status"] == "not_reported", "predicted_cached_tokens"].fillna(0).sum()
        ),
        "prompt_tokens": int(compared["prompt_tokens"].sum()),
        "predicted_cached_tokens": int(compared["predicted_cached_tokens"].sum()),
        "measured_cached_tokens": int(compared["measured_cached_tokens"].sum()),
        "unlimited_cached_tokens": unlimited,
        "ttft_s": _describe_times(answered["ttft_s"]),
        "server_counters": _count_server(recording),
    }
    causes = find_causes(recording, summary, compared) if n["differs"] and verdict not in NO_COMPARISON else []
    return {**summary, "causes": causes, "warnings": find_warnings(recording, summary)}


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
    """Return what the server's own counters added up to from the first run to the end, None if they do not say."""
    ends = [recording.runs[0].get("metrics") if recording.runs else None, (recording.end or {}).get("metrics")]
    if not all(isinstance(one, dict) and one.get("queries") is not None for one in ends):
        return None
    if recording.find_restarts():
        return None  # it counted anew
    added = {name: ends[1][name] - ends[0][name] for name in ("queries", "hits") if ends[1].get(name) is not None}
    return {"queries_before": ends[0]["queries"], **added}
