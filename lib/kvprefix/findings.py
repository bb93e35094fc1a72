"""Say the results in sentences and tables: every number comes from what was measured, none is typed.

Each function takes statistics as `metrics.describe_mode` returns them, `{"single_turn": ..., "multi_turn": ...}`.
"""

import numpy as np
import pandas as pd

from kvprefix.describe import percent, seconds
from kvprefix.sharing import count_history_hits

PERCENTS = dict.fromkeys(["mean sharing fraction", "median sharing fraction", "token hit rate"], percent)

_CAPTIONS = {
    "sharing_fraction_cdf": "Distribution of the sharing fraction over requests (share of a prompt's tokens found in "
    "cached blocks)",
    "block_hit_distribution": "Share of distinct blocks that are accessed at least x times; both axes logarithmic",
    "reuse_gap_cdf": "Distribution of the time between consecutive accesses of one block, each reuse counted once (by "
    "block) or each request counted once (by request); logarithmic time axis, gaps below 1 ms drawn at 1 ms",
    "comparison": "Single-turn and multi-turn mode side by side: sharing fraction per request, token hit rate "
    "(token-weighted), block reuse rate and blocks reused fraction (block-weighted), and mean accesses of a block",
}


def caption_figure(name, stats):
    """Return a figure's caption, with n and the parameters."""
    return f"{_CAPTIONS[name]}. {state_conditions(stats)}"


def state_conditions(stats):
    """Return the conditions under which the rates hold, for captions: n, parameters, warm-up, accounting."""
    single, multi = stats["single_turn"], stats["multi_turn"]
    parameters = multi["parameters"]
    return (
        f"n = {single['requests']:,} single-turn and {multi['requests']:,} multi-turn requests; block size "
        f"{parameters['block_size']} tokens, {parameters['arrival_rate']:g} conversations/s, {parameters['clock']} clock, seed "
        f"{parameters['seed']}; unbounded cache, cold start, prompts only."
    )


def describe_summary(stats):
    """The report's first paragraph: the question and the answer in numbers."""
    single, multi = stats["single_turn"], stats["multi_turn"]
    return (
        f"Of the prompt tokens of {multi['requests']:,} multi-turn requests from {multi['dataset']['conversations']:,} "
        f"conversations, **{percent(multi['token_hit_rate'])}** lie in blocks of {multi['parameters']['block_size']} tokens that an "
        f"earlier request had already computed (token-weighted, cold start, prompts only). The average request finds "
        f"{percent(multi['sharing_fraction']['mean'])} of its prompt cached (median {percent(multi['sharing_fraction']['median'])}). "
        f"With one request a conversation the averages are {percent(single['sharing_fraction']['mean'])} and "
        f"{percent(single['token_hit_rate'])} of the tokens; without the tokens that the chat template itself adds, "
        f"{percent(single['without_template_tokens']['sharing_fraction']['mean'])} and "
        f"{percent(single['without_template_tokens']['token_hit_rate'])}. With generated tokens cached too, the multi-turn token hit rate "
        f"is {percent(multi['with_generated_tokens']['token_hit_rate'])}."
    )


def explain_multi_turn(result):
    """Why multi-turn shares: first turns against later ones, own history against other conversations."""
    trace, sharing, stats = result
    later = trace.requests["turn"].to_numpy() > 0
    if not later.any():
        return "Every conversation has a single turn, so multi-turn and single-turn mode are the same here."
    cached = sharing.cached_tokens
    history = count_history_hits(trace, sharing) * sharing.blocks.block_size
    fraction, prompt = sharing.sharing_fraction, sharing.prompt_tokens
    first_mean = percent(fraction[~later].mean())
    return (
        f"{percent(later.mean())} of the requests are second or later turns, and they hold {percent(prompt[later].sum() / prompt.sum())} of "
        f"the prompt tokens. A later turn repeats everything before it, so on average "
        f"{percent(fraction[later].mean())} of its prompt is cached, against {first_mean} in a first turn. "
        f"{percent(history.sum() / max(cached.sum(), 1))} of all cached tokens are a conversation's own earlier turns; other conversations "
        f"contribute {percent(1 - history.sum() / max(cached.sum(), 1))}. What a later turn does not find is the last reply and "
        f"the new message, {np.median((prompt - cached)[later]):,.0f} tokens at the median: with prompts only, the reply was generated "
        f"but never stored. With generated tokens cached as well, the token hit rate rises from {percent(stats['token_hit_rate'])} "
        f"to {percent(stats['with_generated_tokens']['token_hit_rate'])}."
    )


def explain_single_turn(result):
    """Why single-turn shares little: how many hits are the template's own, what is left without it."""
    _, sharing, stats = result
    hits, size = sharing.hit_blocks, sharing.blocks.block_size
    most_common = int(np.bincount(hits).argmax())
    bare = stats["without_template_tokens"]
    return (
        f"{percent((hits == most_common).mean())} of the single-turn requests hit exactly {most_common} "
        f"block{'s' if most_common != 1 else ''} ({most_common * size} tokens){', what all prompts of a chat template begin with' if most_common else ''}. "
        f"Prompts are short ({stats['prompt_tokens']['median']:,.0f} tokens at the median), so the mean sharing fraction is "
        f"{percent(stats['sharing_fraction']['mean'])}, while {percent(stats['token_hit_rate'])} of all tokens are cached. Without the template's tokens the mean is {percent(bare['sharing_fraction']['mean'])} and "
        f"{percent(bare['token_hit_rate'])} of the tokens are cached: first messages that begin alike, among them those of the "
        f"{stats['dataset']['exact_duplicates']:,} conversations that equal an earlier one. {percent((hits > most_common).mean())} of the requests "
        f"share more than the most common number of blocks."
    )


def explain_gaps(result):
    """What the reuse gaps mean for eviction: how soon blocks return, and how much arrives in between."""
    _, sharing, stats = result
    gap = sharing.gap_s
    if not len(gap):
        return "No block is accessed twice, so there are no reuse gaps."
    block, request = stats["reuse_gap_s"], stats["reuse_gap_s_request_weighted"]
    limits = ((60, "a minute"), (600, "ten minutes"), (3600, "an hour"))
    within = ", ".join(f"{percent((gap <= limit).mean())} within {name}" for limit, name in limits)
    half, most = np.percentile(sharing.gap_new_blocks, [50, 95])
    size = sharing.blocks.block_size
    return (
        f"Half of all block reuses come within {seconds(block['median'])} of the last access ({seconds(request['median'])} when each request "
        f"counts once); {within}. So a policy that evicts what was not used for longest, as LRU does, gives up only the reuses in the "
        f"tail: keeping every block for an hour after its last use would lose {percent((gap > 3600).mean())} of them. The gap alone does not decide a hit, "
        f"though; what is stored meanwhile does. Between the two accesses of the median reuse {half:,.0f} new blocks ({half * size:,.0f} tokens) "
        f"arrive, and for one reuse in twenty more than {most:,.0f} ({most * size:,.0f} tokens): an LRU cache smaller than the first number "
        f"loses at least half of the sharing, because it evicts blocks between the turns of a conversation."
    )


def conclude(stats):
    """The conclusion of a report, from the main numbers."""
    single, multi = stats["single_turn"], stats["multi_turn"]
    gain = multi["with_generated_tokens"]["token_hit_rate"] - multi["token_hit_rate"]
    bare = single["without_template_tokens"]["token_hit_rate"] or 0
    matter = (
        "conversations, not of common prompts"
        if bare < multi["token_hit_rate"] / 2
        else "both conversations and common prompts"
    )
    return (
        f"Prefix sharing in this traffic is a matter of {matter}: {percent(multi['token_hit_rate'])} of the multi-turn "
        f"prompt tokens are cached, and {percent(bare)} of the first messages' tokens once the template is set aside. Keeping "
        f"generated tokens as well adds {100 * gain:.1f} points. A block that is reused at all is accessed "
        f"{_mean_when_reused(multi):.1f} times on average; {percent(1 - (multi['blocks_reused_fraction'] or 0))} of the distinct blocks are "
        f"never accessed again, which is what an eviction policy could get rid of first. These are ceilings for prompts: an engine with "
        f"a finite cache hits less, the more so the longer people think between turns (median reuse gap "
        f"{seconds(multi['reuse_gap_s']['median'])})."
    )


def _mean_when_reused(stats):
    """Mean accesses of the blocks accessed twice or more."""
    blocks = stats["blocks"]
    reused = (stats["blocks_reused_fraction"] or 0) * blocks["distinct"]
    return (blocks["accesses"] - (blocks["distinct"] - reused)) / max(reused, 1)


def explain_hit_counts(results):
    """How often blocks are used: the share never reused, the most used block, the hottest hundredth."""
    lines = []
    for mode, (_, sharing, stats) in results.items():
        accesses = np.sort(sharing.accesses)[::-1]
        if not len(accesses):
            lines.append(f"In {_name(mode)} mode no prompt fills a block.")
            continue
        hottest = accesses[: max(1, len(accesses) // 100)].sum() / accesses.sum()
        lines.append(
            f"In {_name(mode)} mode {percent(1 - stats['blocks_reused_fraction'])} of the {len(accesses):,} distinct blocks are accessed only once; "
            f"the mean is {accesses.mean():.2f} accesses, the maximum {accesses[0]:,} (a block that the template writes, if nearly all of the "
            f"{stats['requests']:,} requests have it), and the most used hundredth of the blocks takes {percent(hottest)} of all accesses."
        )
    return " ".join(lines)


def explain_accountings(stats):
    """What generated tokens add, and what the template's own tokens add, in both modes."""
    single, multi = stats["single_turn"], stats["multi_turn"]
    bare_single, bare_multi = single["without_template_tokens"], multi["without_template_tokens"]
    return (
        f"In multi-turn mode, keeping generated tokens raises the token hit rate from {percent(multi['token_hit_rate'])} to "
        f"{percent(multi['with_generated_tokens']['token_hit_rate'])}: the next turn finds the reply too. Single-turn requests gain "
        f"{100 * (single['with_generated_tokens']['token_hit_rate'] - single['token_hit_rate']):.1f} points from it. The template's own tokens "
        f"are {percent(1 - bare_single['prompt_tokens']['total'] / single['prompt_tokens']['total'])} of the single-turn prompt tokens; without "
        f"them the mean sharing fraction falls from {percent(single['sharing_fraction']['mean'])} to "
        f"{percent(bare_single['sharing_fraction']['mean'])} in single-turn mode, and from {percent(multi['sharing_fraction']['mean'])} to "
        f"{percent(bare_multi['sharing_fraction']['mean'])} in multi-turn mode."
    )


def tabulate_comparison(stats):
    """Return both modes' main numbers side by side, each with its weighting: (table, a format for each row)."""
    whole = "{:,.0f}"
    rows = {
        "requests": (whole, lambda s: s["requests"]),
        "prompt tokens": (whole, lambda s: s["prompt_tokens"]["total"]),
        "sharing fraction, mean (by request)": (percent, lambda s: s["sharing_fraction"]["mean"]),
        "sharing fraction, median (by request)": (percent, lambda s: s["sharing_fraction"]["median"]),
        "sharing fraction, 95th percentile (by request)": (percent, lambda s: s["sharing_fraction"]["p95"]),
        "token hit rate (by token)": (percent, lambda s: s["token_hit_rate"]),
        "block accesses": (whole, lambda s: s["blocks"]["accesses"]),
        "distinct blocks": (whole, lambda s: s["blocks"]["distinct"]),
        "block reuse rate (by access)": (percent, lambda s: s["block_reuse_rate"]),
        "blocks reused fraction (by block)": (percent, lambda s: s["blocks_reused_fraction"]),
        "block hit count, mean": ("{:.2f}", lambda s: s["block_hit_count"]["mean"]),
        "reuse gap, median (by block), s": ("{:,.2f}", lambda s: s["reuse_gap_s"]["median"]),
        "reuse gap, median (by request), s": ("{:,.2f}", lambda s: s["reuse_gap_s_request_weighted"]["median"]),
    }
    values = {_name(mode): [pick(one) for _, pick in rows.values()] for mode, one in stats.items()}
    return pd.DataFrame({"measure": list(rows), **values}, dtype=object), [form for form, _ in rows.values()]


def tabulate_accountings(stats):
    """Return the main rates of both modes under the three accountings: a table (see PERCENTS for its formats)."""
    accountings = {
        "prompts only": lambda s: s,
        "prompts and generated tokens": lambda s: s["with_generated_tokens"],
        "prompts without the template's tokens": lambda s: s["without_template_tokens"],
    }
    return pd.DataFrame([
        {
            "mode": _name(mode),
            "cached and counted": name,
            "mean sharing fraction": pick(one)["sharing_fraction"]["mean"],
            "median sharing fraction": pick(one)["sharing_fraction"]["median"],
            "token hit rate": pick(one)["token_hit_rate"],
        }
        for mode, one in stats.items()
        for name, pick in accountings.items()
    ])  # fmt: skip


def _name(mode):
    return mode.replace("_", "-")
