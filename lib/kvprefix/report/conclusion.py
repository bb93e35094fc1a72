"""Say what a report adds up to, and what it does not show: from the facts that this run's notebooks handed over.

`facts` are those of `sections.read_facts`, by notebook. A notebook that did not run, or failed, adds nothing.
"""

from kvprefix.files.escape import code_markdown, escape_markdown
from kvprefix.files.words import count
from kvprefix.models.memory import load_model, to_gib
from kvprefix.report.describe import percent, seconds
from kvprefix.report.section_files import SHARING
from kvprefix.studies.engines import list_engines


def describe_summary(facts, parameters):
    """The report's first paragraph: the question and the answer in numbers."""
    if SHARING not in facts:
        return f"Notebook {SHARING} handed over no numbers, so there are none to sum up."
    one = facts[SHARING]
    bare = ""
    if one["bare_token_hit_rate"] is not None:
        bare = (
            f" (without the tokens that the chat template itself adds, {percent(one['bare_sharing_mean'])} and "
            f"{percent(one['bare_token_hit_rate'])})"
        )
    return (
        f"Of the prompt tokens of {count(one['requests'], 'multi-turn request')} from {count(one['conversations'], 'conversation')}, "
        f"**{percent(one['token_hit_rate'])}** lie in blocks of {count(parameters.block_size, 'token')} that an earlier request "
        f"had already computed (by token, cold start, prompts only). The average request finds "
        f"{percent(one['sharing_mean'])} of its prompt cached (median {percent(one['sharing_median'])}). With one "
        f"request per conversation it finds {percent(one['single_sharing_mean'])}, and "
        f"{percent(one['single_token_hit_rate'])} of all tokens are cached{bare}. With generated tokens cached too, the "
        f"multi-turn token hit rate is {percent(one['with_generated'])}."
    )


def conclude(facts, parameters):
    """The conclusion of a report: a paragraph on sharing without a bound, one on what bounds and timing leave of it."""
    unbounded = [_conclude_sharing(facts), _conclude_block_sizes(facts)]
    bounded = [
        _conclude_capacities(facts, parameters), _conclude_policies(facts), _conclude_timing(facts),
        _conclude_engines(facts),
    ]  # fmt: skip
    if not any(bounded):
        bounded = ["These rates are those of an unbounded cache: no bounded one was measured in this report."]
    paragraphs = (" ".join(filter(None, said)) for said in (unbounded, bounded))
    return "\n\n".join(filter(None, paragraphs))


def _conclude_sharing(facts):
    one = facts.get(SHARING)
    if one is None:
        return ""
    rate, kept, bare = one["token_hit_rate"] or 0, one["with_generated"] or 0, one["bare_token_hit_rate"]
    said = [f"{percent(rate)} of the multi-turn prompt tokens are cached (by token, cold start, prompts only)."]
    if bare is not None:
        said.append(f"Of the first messages' tokens alone, without the template, {percent(bare)} are.")
        if bare < rate / 2:
            said.append(
                "So prefix sharing in this traffic is a matter of conversations that go on, not of common prompts."
            )
    change = f"makes it {percent(kept)} ({100 * (kept - rate):+.1f} points)" if percent(kept) != percent(rate) else "changes nothing"
    said.append(f"Keeping generated tokens as well {change}.")
    if one["never_reused"] is not None:
        said.append(
            f"A block that is reused at all is accessed {one['accesses_if_reused']:.1f} times on average; "
            f"{percent(one['never_reused'])} of the distinct blocks are never accessed again. Half of the block reuses "
            f"come within {seconds(one['gap_median_s'])}."
        )
    return " ".join(said)


def _conclude_block_sizes(facts):
    one = facts.get("30-block-size")
    if one is None or len(one["sizes"]) < 2:
        return ""
    (small, most), *_, (large, least) = sorted(zip(one["sizes"], one["rates"], strict=True))
    return (
        f"Without a bound, blocks of {count(small, 'token')} find {percent(most)} of the prompt tokens, "
        f"blocks of {large} {percent(least)}."
    )


def _conclude_capacities(facts, parameters):
    one = facts.get("40-cache-size")
    if one is None:
        return ""
    if not one["unbounded"]:
        return "Nothing is ever hit, whatever the capacity."
    model = load_model(parameters.kv_model)
    half, most = one["half_blocks"], one["most_blocks"]
    gib = [to_gib(blocks, parameters.block_size, model.bytes_per_token) for blocks in (half, most)]
    return (
        f"With a bound, LRU reaches half of the unbounded {percent(one['unbounded'])} with {count(round(half), 'block')} "
        f"({gib[0]:,.1f} GiB of {escape_markdown(model.name)}'s KV cache) and 90 % of it with {most:,.0f} "
        f"({gib[1]:,.1f} GiB)."
    )


def _conclude_policies(facts):
    one = facts.get("50-eviction")
    if one is None or not one["capacities"]:
        return ""
    gain, blocks, lru, opt = max(
        (opt - lru, blocks, lru, opt)
        for blocks, lru, opt in zip(one["capacities"], one["lru"], one["opt"], strict=True)
    )
    if percent(lru) == percent(opt):
        return "Eviction decides nothing here: LRU hits as much as the optimum at every capacity tried."
    said = (
        f"At the capacities tried, better eviction wins at most {100 * gain:.1f} points: with {count(blocks, 'block')} the optimum, which "
        f"knows the future, hits {percent(opt)} and LRU {percent(lru)}."
    )
    if not one["better"]:
        return f"{said} None of the {count(one['tried'], 'other policy', 'other policies')} tried is better than LRU at any capacity."
    best = max(one["better"], key=one["better"].get)
    return (
        f"{said} Of the {count(one['tried'], 'other policy', 'other policies')} tried, better than LRU at some capacity: "
        f"{len(one['better'])}, {escape_markdown(best)} by most: {one['better'][best]:+.2f} points."
    )


def _conclude_timing(facts):
    one, said = facts.get("60-timing", {}), []
    for study, what in (("clocks", 'on the clock "{}"'), ("rates", "where conversations start at {}")):
        ends = list(one[study]["token"].items()) if one else []
        if len(ends) == 2:
            (first, high), (last, low) = ends
            if percent(high) == percent(low):
                both = f"{what.format(first)} and {what.format(last)}"
                said.append(f"With {count(one[study]['blocks'], 'block')} LRU hits {percent(high)} {both} alike.")
                continue
            note = "" if one[study]["separated"] else ", which is not separated"
            said.append(
                f"With {count(one[study]['blocks'], 'block')} LRU hits {percent(high)} {what.format(first)} and {percent(low)} "
                f"{what.format(last)}{note}."
            )
    return " ".join(said)


def _conclude_engines(facts):
    one = facts.get("70-engine-check")
    if one is None or not one["pools"]:
        return ""
    pools = [f"{percent(rate)} with {count(blocks, 'block')}" for blocks, rate in zip(one["pools"], one["rates"], strict=True)]
    ends = pools if len(pools) == 1 else [pools[0], pools[-1]]
    return (
        f"{list_engines()['vllm'].label}'s rules, with generated tokens cached and requests running at once, hit "
        f"{' and '.join(ends)}."
    )


def state_limits(facts, parameters):
    """What the report does not show, as a list: of this run's sections, parameters and data."""
    said = [_limit_cache(facts), _limit_times(facts, parameters), *_limit_data(facts, parameters)]
    said.append("Cached tokens are not saved seconds: what a hit saves depends on model, hardware and batch.")
    return "\n".join(f"- {text}" for text in said)


def _limit_cache(facts):
    bounded = [name for name in ("30-block-size", "40-cache-size", "50-eviction", "60-timing") if name in facts]
    engines = "70-engine-check" in facts
    if not bounded and not engines:
        return "The cache is unbounded in the whole report: what evictions and an engine's rules take is not measured."
    said = ["Unless a section bounds it, the cache is unbounded."]
    if bounded:
        said.append(
            f"The bounded caches of {', '.join(bounded)} evict but have no queue and no engine's own rules, and a "
            "request's blocks are held only while it is looked up and stored."
        )
    said.append(
        "The section on engines applies an engine's rules." if engines else "No section applies an engine's rules."
    )
    return " ".join(said)


def _limit_times(facts, parameters):
    starts, clock, think = (parameters.make(name) for name in ("arrivals", "clock", "think"))
    if starts.observed:
        said = [f"Conversations start at the times that {', '.join(map(code_markdown, starts.files))} holds."]
        if "60-timing" in facts:
            said.append("The rates and bursts of 60-timing are modelled.")
    else:
        said = [f"The starts of conversations are modelled ({code_markdown(parameters.arrivals)}), not observed."]
    if clock.naive:
        said.append(
            f"Later turns follow the naive clock `{parameters.clock}`, sooner than people write: for comparison only."
        )
    elif think.files:
        files = ", ".join(map(code_markdown, think.files))
        said.append(
            f"Think times are drawn from {files}, whichever conversation they belong to; service times are modelled."
        )
    else:
        said.append(f"Think times ({code_markdown(parameters.think)}) and service times are modelled, not observed.")
    return " ".join(said)


def _limit_data(facts, parameters):
    one, said = facts.get(SHARING, {}), []
    if parameters.max_conversations is not None:
        said.append(f"At most {count(parameters.max_conversations, 'usable conversation')} of the log were read, the first ones.")
    if one.get("records_skipped"):
        said.append(
            f"{one['records_skipped']:,} of {count(one['records_read'], 'record')} skipped: what they share is not counted."
        )
    said.append("A log without tools, images or sampling in parallel shares differently from one with them.")
    if parameters.data == "bundled":
        said.append("ShareGPT's conversations are those that people chose to share.")
    return said
