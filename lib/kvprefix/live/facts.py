"""Facts of the live check: of the comparison, of what may spoil it, and of possible causes of differences."""

from kvprefix.engines.versions import VLLM_VERSIONS
from kvprefix.live.recording import is_restarted
from kvprefix.report.facts.plain import gives_facts

REPLAYED = VLLM_VERSIONS.newest  # the version of vLLM whose rules the replay follows


@gives_facts
def facts_comparison(summary):
    """Return the facts of predicted and measured cached tokens, from the summary of `compare.compare_recording`."""
    names = (
        "verdict", "requests", "answered", "compared", "agree", "differ", "other_prompts", "first_other_prompt",
        "first_difference", "predicted_not_reported", "approximate_because", "prompt_tokens", "measured_cached_tokens",
        "predicted_cached_tokens", "unlimited_cached_tokens", "server_version", "block_size", "num_gpu_blocks",
        "skipped_too_long",
    )  # fmt: skip
    prompts = summary["prompt_tokens"]
    rates = {f"{name}_rate": summary[f"{name}_cached_tokens"] / prompts if prompts else None
             for name in ("measured", "predicted")}  # fmt: skip
    return {name: summary[name] for name in names} | rates | {"named": bool(summary["kv_groups"])}


@gives_facts
def facts_causes(recording, summary, compared):
    """Return the evidence for and against each cause of differences.

    Parameters
    ----------
    recording : Recording
    summary : dict
        Of `compare.compare_recording`, without the causes.
    compared : pandas.DataFrame
        Its rows that agree or differ.
    """
    predicted, measured = (compared[f"{name}_cached_tokens"].fillna(0) for name in ("predicted", "measured"))
    more, fewer = int((measured > predicted).sum()), int((measured < predicted).sum())
    size, counters, version = summary["block_size"], summary["server_counters"], summary["server_version"]
    metrics = [run.get("metrics") or {} for run in recording.runs] or [{}]
    first = min(recording.answers, key=lambda one: one["sent_s"])
    counted = counters is not None and recording.header["timing"] == "sequential"  # else it may look up twice
    more_queries = (counters or {}).get("queries", 0) > count_prompts(recording, with_lost=True)
    return {
        "more": more,
        "fewer": fewer,
        "broken": (measured % size > 0).sum(),
        "one_less": fewer > 1 and (predicted - measured)[measured != predicted].eq(size).all(),
        "hit_none": not measured.any() and not any(one.get("prefix_caching") for one in metrics),
        "named": bool(summary["kv_groups"]),
        "hybrid": next((one["hybrid"] for one in metrics if one.get("hybrid")), None),
        "counted": counted,
        "others": counted and more_queries,
        "first_hit": (compared["request_id"].eq(first["request_id"]) & (measured > predicted)).any(),
        "used": (metrics[0].get("queries") or 0) > 0 and not recording.runs[0].get("reset"),
        "block_size": size,
        "knows_pool": summary["num_gpu_blocks"] is not None,
        "version": version,
        "replayed": REPLAYED,
        "same_version": (version or "").startswith(f"{REPLAYED}."),
    }


@gives_facts
def facts_warnings(recording, summary):
    """Return what may spoil the comparison."""
    metrics = [run.get("metrics") or {} for run in recording.runs] + [(recording.end or {}).get("metrics") or {}]
    counters, run = summary["server_counters"] or {}, recording.runs[-1] if recording.runs else {}
    queries, sent = counters.get("queries", 0), count_prompts(recording, with_lost=True)
    was_reset = recording.runs and recording.runs[0].get("reset")
    several = [one for one in recording.answers if one["output_tokens"] > 1]
    return {
        "queries_before": 0 if was_reset else metrics[0].get("queries") or 0,
        "restarts": recording.find_restarts(),
        "restarted_meanwhile": bool(
            recording.runs and recording.end and is_restarted(*metrics[-2:], recording.count_sent(-1))
        ),
        "queries": queries,
        "sent": count_prompts(recording),
        "others": recording.header["timing"] == "sequential" and queries > sent,
        "engines": max((one.get("engines", 1) for one in metrics), default=1),
        "says_block_size": bool(run.get("block_size") or metrics[0].get("block_size")),
        "block_size": summary["block_size"],
        "says_pool": bool(run.get("num_gpu_blocks") or metrics[0].get("num_gpu_blocks")),
        "sent_again": summary["sent_again"],
        "unknown": sum(one.get("output_token_ids") is None for one in several),
        "without_stream": sum(one["ttft_s"] == one["duration_s"] for one in several),
        "could_be_cached": summary["unlimited_cached_tokens"],
        "prompt_tokens": summary["prompt_tokens"],
        "little_to_hit": summary["compared"] > 0
        and summary["unlimited_cached_tokens"] < 0.05 * summary["prompt_tokens"],
        "left_open": summary["requests"] - summary["answered"] - summary["skipped_too_long"],
    }


def count_prompts(recording, *, with_lost=False):
    """Return the prompt tokens of the answered requests; `with_lost`: also of attempts without an answer, at most."""
    return sum(one["server_prompt_tokens"] * (1 + with_lost * one.get("lost", 0)) for one in recording.answers)
