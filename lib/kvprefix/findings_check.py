"""Say what the live check found, in one sentence, and what may spoil it: from the comparison's summary."""

from kvprefix.describe import percent
from kvprefix.jsonlines import count
from kvprefix.recording import is_restarted

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


def find_warnings(recording, summary):
    """Return what may spoil the comparison, a sentence each."""
    metrics = [run.get("metrics") or {} for run in recording.runs] + [(recording.end or {}).get("metrics") or {}]
    sent = sum(one["server_prompt_tokens"] for one in recording.answers)
    lost = sum(one["server_prompt_tokens"] * one.get("lost", 0) for one in recording.answers)  # at most
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
            recording.header["timing"] == "sequential" and counters.get("queries", 0) > sent + lost,
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
