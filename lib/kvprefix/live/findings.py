"""Say what the live check found, in one sentence, what may spoil it, and what differences may come from."""

from kvprefix.engines.versions import VLLM_VERSIONS
from kvprefix.files.words import count
from kvprefix.live.recording import is_restarted
from kvprefix.report.describe import percent

REPLAYED = VLLM_VERSIONS.newest  # the version of vLLM whose rules the replay follows
RETENTION = (
    "at a retention of 0, its default, vLLM keeps a checkpoint only at the end of a prompt, so parts of it hit less"
)
TURN_ON = (
    "turn that on with --enable-prompt-tokens-details (vLLM) or --enable-cache-report (SGLang), then check again with "
    "--restart"
)


def describe_comparison(summary):
    """Say in one sentence whether predicted and measured cached tokens agree."""
    n, verdict = summary["compared"], summary["verdict"]
    if verdict == "nothing":
        return f"No comparison: none of {count(summary['requests'], 'request')} was answered when first sent."
    if verdict == "void":
        return (
            f"No comparison: of {count(summary['other_prompts'], 'request')} of {summary['answered']:,} the server "
            f"makes other prompt tokens than we do ({summary['first_other_prompt']}): another tokenizer or chat "
            "template, which makes any comparison void."
        )
    if verdict == "switched_off":
        return (
            "No comparison: the server's prefix caching is switched off (enable_prefix_caching in its /metrics), so it "
            "hits nothing; start it with --enable-prefix-caching (vLLM), then check again with --restart."
        )
    if verdict == "not_reported" and not summary["predicted_not_reported"]:
        return (
            "No comparison: the server reports no cached tokens and none are predicted; a server that leaves a 0 out "
            "says no more. More requests, or a lower arrival rate, bring conversations back; if it then reports none, "
            f"{TURN_ON}."
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
            f"The prediction is approximate ({summary['approximate_because']}): {rate}, predicted "
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


def find_causes(recording, summary, compared):
    """Return what the differences may come from, a sentence each: first what something points to, with what that is.

    Parameters
    ----------
    recording : Recording
    summary : dict
        Of `comparison.compare_recording`, without the causes.
    compared : pandas.DataFrame
        Its rows that agree or differ.
    """
    predicted, measured = (compared[f"{name}_cached_tokens"].fillna(0) for name in ("predicted", "measured"))
    fewer, size, counters = int((measured < predicted).sum()), summary["block_size"], summary["server_counters"]
    metrics = [run.get("metrics") or {} for run in recording.runs] or [{}]
    first = min(recording.answers, key=lambda one: one["sent_s"])
    facts = {
        "more": int((measured > predicted).sum()),
        "fewer": fewer,
        "broken": int((measured % size > 0).sum()),
        "one_less": fewer > 1 and (predicted - measured)[measured != predicted].eq(size).all(),
        "hit_none": not measured.any() and not any(one.get("prefix_caching") for one in metrics),
        "hybrid": next((one["hybrid"] for one in metrics if one.get("hybrid")), None),
        "counted": counters is not None and recording.header["timing"] == "sequential",  # else it may ask twice
        "more_queries": (counters or {}).get("queries", 0) > count_prompts(recording, with_lost=True),
        "first_hit": (compared["request_id"].eq(first["request_id"]) & (measured > predicted)).any(),
        "used": (metrics[0].get("queries") or 0) > 0 and not recording.runs[0].get("reset"),
        "same_version": (summary["server_version"] or "").startswith(f"{REPLAYED}."),
    }
    facts["others"] = facts["counted"] and facts["more_queries"]
    possible, unlikely = _sort_rest(facts, summary)
    found = [f"{count(facts['more'], 'request')} hit more than predicted, {fewer:,} less."]
    found += _find_shown(facts, summary)
    found += [f"Possible, though nothing here shows it: {'; '.join(possible)}."] if possible else []
    return found + ([f"Unlikely: {'; '.join(unlikely)}."] if unlikely else [])


def _find_shown(facts, summary):
    """Return the causes that something points to."""
    size, version, hybrid = summary["block_size"], summary["server_version"], facts["hybrid"]
    before = "the very first request was hit" if facts["first_hit"] else "the server had been asked before the check"
    shown = {
        "Prefix caching that is switched off: no request was hit at all.": facts["hit_none"],
        f"Another block size: {count(facts['broken'], 'measured value')} cannot be made of blocks of {size} "
        "(--block-size says another).": facts["broken"] > 0,
        "Traffic of others: the server looked up more prompt tokens than the check sent.": facts["others"],
        f"A cache that was not empty: {before}.": facts["more"] > 0 and (facts["first_hit"] or facts["used"]),
        f"Another engine version: the server says {version}, the replay follows vLLM {REPLAYED}.":
            version is not None and not facts["same_version"],
        f"A hybrid model: the server says {hybrid}; {RETENTION}.": hybrid is not None,
        "Speculative decoding of the EAGLE or MTP kind, which drops the last block of a hit: each difference is one "
        "block less.": facts["one_less"],
        "A smaller pool: the number of blocks is not known, and fewer tokens were hit than of an unlimited one "
        "(--num-gpu-blocks says it).": summary["num_gpu_blocks"] is None and facts["fewer"] > 0,
    }  # fmt: skip
    return [text for text, applies in shown.items() if applies]


def _sort_rest(facts, summary):
    """Return the causes that nothing points to: those that may be, and those that something speaks against."""
    possible = {
        f"a hybrid model (window or recurrent layers; {RETENTION})": facts["fewer"] > 0 and facts["hybrid"] is None,
        f"another engine version than vLLM {REPLAYED} (the server does not say its own)":
            summary["server_version"] is None,
        "traffic of others (the server does not count, or not with certainty)": not facts["counted"],
        "an earlier use of the cache, or a larger pool":
            facts["more"] > 0 and not (facts["others"] or facts["used"] or facts["first_hit"]),
    }  # fmt: skip
    unlikely = {
        "a hybrid model (no request hit less than predicted)": facts["fewer"] == 0 and facts["hybrid"] is None,
        f"another engine version (the server says {summary['server_version']})": facts["same_version"],
        "traffic of others (the server looked up no more prompt tokens than the check sent)":
            facts["counted"] and not facts["others"],
    }  # fmt: skip
    return [[text for text, applies in one.items() if applies] for one in (possible, unlikely)]


def find_warnings(recording, summary):
    """Return what may spoil the comparison, a sentence each."""
    metrics = [run.get("metrics") or {} for run in recording.runs] + [(recording.end or {}).get("metrics") or {}]
    sent, most_sent = count_prompts(recording), count_prompts(recording, with_lost=True)
    counters, run = summary["server_counters"] or {}, recording.runs[-1] if recording.runs else {}
    engines = max((one.get("engines", 1) for one in metrics), default=1)
    unknown = sum(one.get("output_token_ids") is None and one["output_tokens"] > 1 for one in recording.answers)
    whole = sum(one["ttft_s"] == one["duration_s"] and one["output_tokens"] > 1 for one in recording.answers)
    before = 0 if recording.runs and recording.runs[0].get("reset") else metrics[0].get("queries") or 0
    restarts = recording.find_restarts()
    ended = recording.runs and recording.end and is_restarted(*metrics[-2:], recording.count_sent(-1))
    left_open = summary["requests"] - summary["answered"] - summary["skipped_too_long"]
    known_pool = run.get("num_gpu_blocks") or metrics[0].get("num_gpu_blocks")
    found = {
        f"The server had looked up {before:,} prompt tokens before: its cache may not have been empty. Restart it and "
        "check again with --restart, or with --restart --reset where vLLM runs with VLLM_SERVER_DEV_MODE=1.":
            before > 0,
        f"The server was restarted between two runs of the check (answers before that: {restarts}); the "
        "prediction begins anew there, with an empty cache.": bool(restarts),
        "The server was restarted during the check, so its cache began anew; check again with --restart.": bool(ended),
        f"The server looked up {counters.get('queries', 0):,} prompt tokens and the check sent {sent:,}: somebody else "
        "used it meanwhile.":
            recording.header["timing"] == "sequential" and counters.get("queries", 0) > most_sent,
        f"The server runs {engines} engines, each with a cache of its own, and the prediction is of one.": engines > 1,
        f"The server does not say its block size; {summary['block_size']} is assumed (--block-size says another).":
            not run.get("block_size") and not metrics[0].get("block_size"),
        "The server does not say its number of blocks; an unlimited pool is assumed (--num-gpu-blocks says another).":
            not known_pool,
        f"{count(summary['sent_again'], 'request')} had to be sent again and cannot be compared; what the server "
        "reports then says whether it had computed the attempt without an answer.": summary["sent_again"] > 0,
        f"The server does not give the tokens that it generated for {count(unknown, 'request')}; the prediction takes "
        "them as tokens that no prompt holds.": unknown > 0,
        f"{count(whole, 'answer')} came without a stream; there the time to the first token is that to the last one.":
            whole > 0,
        f"Only {summary['unlimited_cached_tokens']:,} of {summary['prompt_tokens']:,} prompt tokens could be cached at "
        "all, so agreement says little; more requests, or a lower arrival rate, bring conversations back.":
            summary["compared"] > 0 and summary["unlimited_cached_tokens"] < 0.05 * summary["prompt_tokens"],
        f"The recording is not complete: {count(left_open, 'request')} to go.": left_open > 0,
    }  # fmt: skip
    return [text for text, applies in found.items() if applies]


def count_prompts(recording, *, with_lost=False):
    """Return the prompt tokens of the answered requests; `with_lost`: also of attempts without an answer, at most."""
    return sum(one["server_prompt_tokens"] * (1 + with_lost * one.get("lost", 0)) for one in recording.answers)
