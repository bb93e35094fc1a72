"""Say the results in sentences and tables: every number comes from what was measured, none is typed.

Each function takes statistics as `metrics.describe_mode` returns them, `{"single_turn": ..., "multi_turn": ...}`.
"""

import numpy as np
import pandas as pd

from kvprefix.blocks.sharing import count_history_hits
from kvprefix.files.words import count
from kvprefix.report.describe import percent, seconds, state_clock
from kvprefix.stats.intervals import interval, judge_difference
from kvprefix.stats.resampling import read_rate

PERCENTS = dict.fromkeys(["mean sharing fraction", "median sharing fraction", "token hit rate"], percent)
PERCENTS |= dict.fromkeys(["± mean", "± rate"], percent)
ACCOUNTINGS = {  # what each prefix of a rate's name counts
    "": "prompts only",
    "with_generated_tokens.": "prompts and generated tokens",
    "without_template_tokens.": "prompts without the template's tokens",
}
SHORT = {"with_generated_tokens.": "generated tokens too", "without_template_tokens.": "no template"}
COMPARED = {
    "sharing_fraction.mean": "mean sharing fraction",
    "sharing_fraction.median": "median sharing fraction",
    "token_hit_rate": "token hit rate",
    "block_reuse_rate": "block reuse rate",
    "blocks_reused_fraction": "blocks reused fraction",
    "block_hit_count.mean": "mean block hit count",
}

_CAPTIONS = {
    "sharing_fraction_cdf": "Distribution of the sharing fraction over requests (share of a prompt's tokens found in "
    "cached blocks); bands: 95 % interval over resampled conversations",
    "block_hit_distribution": "Share of distinct blocks that are accessed at least x times; both axes logarithmic",
    "reuse_gap_cdf": "Distribution of the time between consecutive accesses of one block, each reuse counted once (by "
    "block) or each request counted once (by request); logarithmic time axis, gaps below 1 ms drawn at 1 ms",
    "comparison": "Single-turn and multi-turn mode side by side: sharing fraction per request, token hit rate "
    "(token-weighted), block reuse rate and blocks reused fraction (block-weighted), and mean accesses of a block; lines: 95 % interval over resampled "
    "conversations",
}


def caption_figure(name, stats):
    """Return a figure's caption, with n and the parameters."""
    return f"{_CAPTIONS[name]}. {state_conditions(stats)}"


def state_conditions(stats):
    """Return the conditions under which the rates hold, for captions: n, parameters, warm-up, accounting."""
    *_, (last, of_last) = stats.items()
    requests = [f"{one['requests']:,} {_name(mode)}" for mode, one in stats.items() if mode != last]
    requests.append(count(of_last["requests"], f"{_name(last)} request"))
    parameters = of_last["parameters"]
    return (
        f"n = {' and '.join(requests)}; block size {count(parameters['block_size'], 'token')}, "
        f"{state_clock(parameters)}, seed {parameters['seed']}; unbounded cache, cold start, prompts only."
    )


def explain_multi_turn(result):
    """Why multi-turn shares: first turns against later ones, own history against other conversations."""
    trace, sharing, stats, _ = result
    later = trace.requests["turn"].to_numpy() > 0
    if not later.any():
        return "Every conversation has a single turn, so multi-turn and single-turn mode are the same here."
    fraction, prompt, cached = sharing.sharing_fraction, sharing.prompt_tokens, sharing.hit_tokens
    said = [
        f"{percent(later.mean())} of the requests are second or later turns, and they hold "
        f"{percent(prompt[later].sum() / prompt.sum())} of the prompt tokens. A later turn repeats everything before it: on average "
        f"{percent(fraction[later].mean())} of its prompt is cached, against {percent(fraction[~later].mean())} in a first turn (means by "
        f"request, cold start)."
    ]
    if cached.any():
        own = count_history_hits(trace, sharing).sum() * sharing.blocks.block_size / cached.sum()
        said.append(
            f"{percent(own)} of all cached tokens are a conversation's own earlier turns, {percent(1 - own)} are blocks of other "
            f"conversations or the template."
        )
    said.append(
        f"A later turn leaves {_tokens(np.median((prompt - cached)[later]))} to compute at the median: the last reply, which prompts-only "
        f"accounting does not store, the new message, and what does not fill a block."
    )
    return " ".join(said)


def explain_single_turn(result):
    """Why single-turn shares little or much: how many hits are alike, what is left without the template."""
    _, sharing, stats, _ = result
    hits, size, bare = sharing.hit_blocks, sharing.blocks.block_size, stats["without_template_tokens"]
    most_common = int(np.bincount(hits).argmax())
    said = [
        "A first message has no history: it can share only what other conversations begin with. "
        f"{percent((hits == most_common).mean())} of the single-turn requests hit exactly {count(most_common, 'block')} "
        f"({_tokens(most_common * size)}), {percent((hits > most_common).mean())} hit more. Their prompts have "
        f"{_tokens(stats['prompt_tokens']['median'])} at the median; the mean sharing fraction is "
        f"{percent(stats['sharing_fraction']['mean'])} (by request), the token hit rate {percent(stats['token_hit_rate'])} (by token)."
    ]
    if bare["prompt_tokens"]:
        n = stats["dataset"]["exact_duplicates"]
        equal = "the conversation that equals an earlier one" if n == 1 else f"the {n:,} conversations that equal an earlier one"
        said.append(
            f"Without the template's own tokens, {percent(bare['sharing_fraction']['mean'])} of a prompt and "
            f"{percent(bare['token_hit_rate'])} of all tokens are cached: this is what first messages themselves have in common"
            f"{f', including those of {equal}' if n else ''}."
        )
    return " ".join(said)


def explain_gaps(result):
    """What the reuse gaps mean for eviction: how soon blocks return, and how much arrives in between."""
    _, sharing, stats, _ = result
    gap = sharing.gap_s
    if not len(gap):
        return "No block is accessed twice, so there are no reuse gaps."
    block, request = stats["reuse_gap_s"], stats["reuse_gap_s_request_weighted"]
    limits = ((60, "a minute"), (600, "ten minutes"), (3600, "an hour"))
    within = ", ".join(f"{percent((gap <= limit).mean())} within {name}" for limit, name in limits)
    half, most = np.percentile(sharing.gap_new_blocks, [50, 95])
    size = sharing.blocks.block_size
    said = [
        f"Half of all block reuses come within {seconds(block['median'])} of the last access ({seconds(request['median'])} when each request "
        f"counts once); {within}. Evicting what was not used for longest, as LRU does, gives up the tail first: keeping every block for an hour "
        f"after its last use would lose {percent((gap > 3600).mean())} of the reuses. The gap alone does not decide a hit, though; what is "
        f"stored meanwhile does. Between the two accesses of the median reuse {_blocks(half, 'new block')} ({_tokens(half * size)}) "
        f"{'arrives' if round(half) == 1 else 'arrive'}, and for one reuse in twenty more than {most:,.0f} ({_tokens(most * size)})."
    ]
    if half >= 1:
        said.append(f"An LRU cache of fewer than {_blocks(half)} therefore loses at least half of the block reuses.")
    return " ".join(said)


def explain_hit_counts(results):
    """How often blocks are used: the share never reused, the most used block, the hottest hundredth."""
    lines = []
    for mode, (_, sharing, stats, _) in results.items():
        accesses = np.sort(sharing.accesses)[::-1]
        if not len(accesses):
            lines.append(f"In {_name(mode)} mode no prompt fills a block.")
            continue
        hottest = accesses[: max(1, len(accesses) // 100)].sum() / accesses.sum()
        lines.append(
            f"In {_name(mode)} mode {percent(1 - stats['blocks_reused_fraction'])} of {_the_blocks(len(accesses))} accessed only once; "
            f"the mean is {accesses.mean():.2f} accesses, the maximum {accesses[0]:,} of {count(stats['requests'], 'request')}, and the most used hundredth of the blocks takes {percent(hottest)} of all accesses."
        )
    return " ".join(lines)


def explain_accountings(stats):
    """What generated tokens add, and what the template's own tokens add, in both modes."""
    said = []
    for mode, one in stats.items():
        kept, bare = one["with_generated_tokens"], one["without_template_tokens"]
        before, after = percent(one["token_hit_rate"]), percent(kept["token_hit_rate"])
        change = f"changes the token hit rate from {before} to {after}" if before != after else f"leaves the token hit rate at {after}"
        said.append(f"In {_name(mode)} mode, keeping generated tokens too {change}.")
        if bare["prompt_tokens"]:
            template = 1 - bare["prompt_tokens"]["total"] / one["prompt_tokens"]["total"]
            said.append(
                f"The template's own tokens are {percent(template)} of its prompt tokens; without them the mean sharing fraction is "
                f"{percent(bare['sharing_fraction']['mean'])} instead of {percent(one['sharing_fraction']['mean'])}."
            )
        else:
            said.append("Which tokens are the template's is not known with this tokenizer.")
    early = stats["multi_turn"]["early_turns"]
    if early:
        said.append(f"**Turns that arrive before the reply that they follow is complete: {early:,}.** They count tokens that are not generated yet.")
    return " ".join(said)


def tabulate_comparison(stats):
    """Return both modes' main numbers side by side, each with its weighting: (table, a format for each row)."""
    whole = "{:,.0f}"
    rows = {
        "requests": (whole, "requests"),
        "prompt tokens": (whole, "prompt_tokens.total"),
        "sharing fraction, mean (by request)": (percent, "sharing_fraction.mean"),
        "sharing fraction, median (by request)": (percent, "sharing_fraction.median"),
        "sharing fraction, 95th percentile (by request)": (percent, "sharing_fraction.p95"),
        "token hit rate (by token)": (percent, "token_hit_rate"),
        "block accesses": (whole, "blocks.accesses"),
        "distinct blocks": (whole, "blocks.distinct"),
        "block reuse rate (by access)": (percent, "block_reuse_rate"),
        "blocks reused fraction (by block)": (percent, "blocks_reused_fraction"),
        "block hit count, mean": ("{:.2f}", "block_hit_count.mean"),
        "reuse gap, median (by block), s": ("{:,.2f}", "reuse_gap_s.median"),
        "reuse gap, median (by request), s": ("{:,.2f}", "reuse_gap_s_request_weighted.median"),
    }
    columns = {"measure": list(rows)}
    for mode, one in stats.items():
        columns[_name(mode)] = [read_rate(one, path) for _, path in rows.values()]
        columns[f"± {_name(mode)}"] = [_half_width(one, path) for _, path in rows.values()]
    return pd.DataFrame(columns, dtype=object), [form for form, _ in rows.values()]


def _half_width(stats, name):
    """Return half of the width of a rate's 95 % interval, None where it has none."""
    found = stats["intervals"].get(name)
    return found and (found[1] - found[0]) / 2


def tabulate_accountings(stats):
    """Return the main rates of both modes under the three accountings: a table (see PERCENTS for its formats)."""
    return pd.DataFrame([
        {
            "mode": _name(mode),
            "cached and counted": name,
            "mean sharing fraction": read_rate(one, f"{prefix}sharing_fraction.mean"),
            "± mean": _half_width(one, f"{prefix}sharing_fraction.mean"),
            "median sharing fraction": read_rate(one, f"{prefix}sharing_fraction.median"),
            "token hit rate": read_rate(one, f"{prefix}token_hit_rate"),
            "± rate": _half_width(one, f"{prefix}token_hit_rate"),
        }
        for mode, one in stats.items()
        for prefix, name in ACCOUNTINGS.items()
    ])  # fmt: skip


def tabulate_differences(results):
    """Return what modes and accountings differ in, with the 95 % interval of each difference, paired by conversation.

    Parameters
    ----------
    results : dict of str to run.Result

    Returns
    -------
    pandas.DataFrame
        `what`, `against`, `rate`, `difference` (percentage points; of the block hit count, accesses), `low`, `high`,
        `verdict` (of `intervals.judge_difference`).
    """
    single, multi = results["single_turn"], results["multi_turn"]
    rows = [("multi-turn", "single-turn", rate, (multi, rate), (single, rate)) for rate in COMPARED]
    for mode, one in results.items():
        for prefix, name in SHORT.items():
            for rate in ("sharing_fraction.mean", "token_hit_rate"):
                rows.append((f"{_name(mode)}, {name}", "prompts only", rate, (one, f"{prefix}{rate}"), (one, rate)))
    return pd.DataFrame([_compare(*row) for row in rows if all(name in one.resampled.rates for one, name in row[3:])])


def _compare(what, against, rate, *both):
    factor = 1 if rate == "block_hit_count.mean" else 100
    values = [read_rate(one.stats, name) for one, name in both]
    draws = factor * np.subtract(*(one.resampled.rates[name].to_numpy() for one, name in both))
    row = {"what": what, "against": against, "rate": COMPARED[rate]}
    if None in values or np.isnan(draws).any():
        return {**row, "difference": None, "low": None, "high": None, "verdict": "not separated"}
    difference, (low, high) = factor * (values[0] - values[1]), interval(draws)
    separable = both[0][0].resampled.conversations > 1
    verdict = judge_difference([difference], low, high) if separable else "not separated"
    return {**row, "difference": difference, "low": low, "high": high, "verdict": verdict}


def describe_differences(table):
    """Say which differences are larger than what other conversations of the same kind would change."""
    apart = table["verdict"].isin(["higher", "lower"])
    said = [
        f"{apart.sum()} of {len(table)} differences between the modes and between the accountings have a 95 % interval, over resampled "
        "conversations, that leaves zero out."
    ]
    for verdict, text in (("not separated", "Not separated from zero"), ("equal", "Equal")):
        names = [f"{row.rate} of {row.what} against {row.against}" for row in table[table["verdict"] == verdict].itertuples()]
        if names:
            said.append(f"{text}: {'; '.join(names)}.")
    return " ".join(said)


def _blocks(n, noun="block"):
    """Return a number of blocks, which may be a mean, with its noun."""
    return count(round(n), noun)


def _tokens(n):
    return _blocks(n, "token")


def _the_blocks(n):
    return "the only distinct block is" if n == 1 else f"the {n:,} distinct blocks are"


def _name(mode):
    return mode.replace("_", "-")
