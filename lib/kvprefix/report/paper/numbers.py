r"""The headline numbers of a run as macros of LaTeX: `\KVTokenHitRate{}` prints `62.2\,\%`, as the report says it.

`HEADLINES` and `OF_SESSIONS` are the whole list: a macro's name, the notebook and the path of its fact, how it is
shown, and what it is.
"""

import re
from typing import NamedTuple

from kvprefix.report.paper.latex import print_text
from kvprefix.report.rounding import dollars, number, percent, points, seconds

PREFIX = "KV"


class Headline(NamedTuple):
    """A number of the report: where its fact lies, and how it is shown.

    `path` has names between dots; `needs[share=0.9]` is the entry of a list with that value, `capacities[0]` the first,
    `capacities[-1]` the last.
    """

    macro: str
    notebook: str
    path: str
    form: callable
    what: str


def whole(value):
    """Return a count, rounded to a whole number."""
    return number(None if value is None else round(value))


def gib(value):
    """Return GiB with one decimal."""
    return number(value, ",.1f", " GiB")


def gain(value):
    """Return points that can only be gained, so without a sign."""
    return number(value, ".1f")


def ratio(value):
    """Return how many times something is another."""
    return number(value, ".2f")


def as_it_is(value):
    """Return a name or a number as the facts hold it."""
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


_SHARING, _SIZES, _MEMORY = "20-prefix-sharing", "30-block-size", "40-cache-size"
_ORIGINS, _CAUSES, _TEMPLATES, _ADVICE = "25-provenance", "55-misses", "45-templates", "65-advice"
_PLAN = "80-capacity-plan"
_EVICTION, _TIMING, _ENGINES = "50-eviction", "60-timing", "70-engine-check"
HEADLINES = (
    Headline("Conversations", _SHARING, "sharing.conversations", whole, "conversations"),
    Headline("Requests", _SHARING, "sharing.requests", whole, "multi-turn requests"),
    Headline("TokenHitRate", _SHARING, "sharing.token_hit_rate", percent, "multi-turn token hit rate, unbounded"),
    Headline("TokenHitRateWithReplies", _SHARING, "sharing.with_generated", percent, "the same, replies cached too"),
    Headline("TokenHitRateSingleTurn", _SHARING, "sharing.single_token_hit_rate", percent, "single-turn, the same"),
    Headline("TokenHitRateBare", _SHARING, "sharing.bare_token_hit_rate", percent, "single-turn, without the template"),
    Headline("SharingMean", _SHARING, "sharing.sharing_mean", percent, "multi-turn mean sharing fraction"),
    Headline("SharingMedian", _SHARING, "sharing.sharing_median", percent, "multi-turn median sharing fraction"),
    Headline("SharingMeanSingleTurn", _SHARING, "sharing.single_sharing_mean", percent, "single-turn mean"),
    Headline("NeverReused", _SHARING, "sharing.never_reused", percent, "multi-turn blocks accessed once"),
    Headline("GapMedian", _SHARING, "sharing.gap_median_s", seconds, "median reuse gap, block-weighted"),
    Headline("OwnHistory", _SHARING, "multi_turn.own", percent, "cached tokens that an earlier turn had stored"),
    Headline("FromOwnTurns", _ORIGINS, "origins.sizes[-1].parts.own_turns.share", percent, "prompt tokens: own turns"),
    Headline("FromTemplate", _ORIGINS, "origins.sizes[-1].parts.template.share", percent, "the chat template"),
    Headline("FromDuplicates", _ORIGINS, "origins.sizes[-1].parts.duplicate.share", percent, "equal conversations"),
    Headline("FromOthers", _ORIGINS, "origins.sizes[-1].parts.other_conversation.share", percent, "other ones"),
    Headline("MissBlocks", _CAUSES, "causes.sizes[1].blocks", whole, "the capacity at which misses are told of"),
    Headline("MissHit", _CAUSES, "causes.sizes[1].hit.share", percent, "hit there, LRU, prompts only"),
    Headline("MissPolicy", _CAUSES, "causes.sizes[1].parts.policy.share", percent, "the optimum would keep"),
    Headline("MissCapacity", _CAUSES, "causes.sizes[1].parts.capacity.share", percent, "evicted"),
    Headline("MissReplies", _CAUSES, "causes.sizes[1].parts.generated_not_cached.share", percent, "replies"),
    Headline("MissNew", _CAUSES, "causes.sizes[1].parts.cold.share", percent, "new tokens"),
    Headline("Recoverable", _ADVICE, "advice.points", gain, "points that changes of the prompts' texts win"),
    Headline("RecoverableAfter", _ADVICE, "advice.after", percent, "token hit rate after them, unbounded"),
    Headline("SmallBlock", _SIZES, "block_sizes.small", whole, "smallest block, tokens"),
    Headline("SmallBlockRate", _SIZES, "block_sizes.sizes[0].token_hit_rate", percent, "token hit rate with it"),
    Headline("LargeBlock", _SIZES, "block_sizes.large", whole, "largest block, tokens"),
    Headline("LargeBlockRate", _SIZES, "block_sizes.sizes[-1].token_hit_rate", percent, "token hit rate with it"),
    Headline("StrippedTimes", _TEMPLATES, "templates.strip.ratio", ratio, "computed, reasoning stripped against kept"),
    Headline("Model", _MEMORY, "lru.model", as_it_is, "the model whose memory is counted"),
    Headline("MemoryForHalf", _MEMORY, "lru.needs[share=0.5].gib", gib, "memory for half of the unbounded rate, LRU"),
    Headline("MemoryForMost", _MEMORY, "lru.needs[share=0.9].gib", gib, "memory for 90 % of it"),
    Headline("BlocksForHalf", _MEMORY, "lru.needs[share=0.5].blocks", whole, "blocks for half of the unbounded rate"),
    Headline("BlocksForMost", _MEMORY, "lru.needs[share=0.9].blocks", whole, "blocks for 90 % of it"),
    Headline("Card", _MEMORY, "cards.at.label", as_it_is, "a card, or some, whose memory is told of"),
    Headline("CardBlocks", _MEMORY, "cards.at.blocks", whole, "KV blocks that it leaves after the model's weights"),
    Headline("CardRate", _MEMORY, "cards.at.token_hit_rate.mean", percent, "the engine's rate there, replies cached"),
    Headline("StackMedian", _MEMORY, "reuse.half_blocks", whole, "median stack distance, blocks"),
    Headline("SmallCache", _EVICTION, "policies.capacities[0].blocks", whole, "smallest capacity of the policies"),
    Headline("SmallCacheLRU", _EVICTION, "policies.capacities[0].lru", percent, "LRU's token hit rate there"),
    Headline("SmallCacheOPT", _EVICTION, "policies.capacities[0].opt", percent, "the optimum's"),
    Headline("SmallCacheHeadroom", _EVICTION, "policies.capacities[0].points", gain, "points between them"),
    Headline("PoliciesTried", _EVICTION, "policies.tried", whole, "policies beside LRU and OPT"),
    Headline("HintsPolicy", _EVICTION, "hinted.most.policy", as_it_is, "the policy with hints that is best"),
    Headline("HintsClosed", _EVICTION, "hinted.most.closed", percent, "of the gap between LRU and OPT that it closes"),
    Headline("HintsBlocks", _EVICTION, "hinted.most.blocks", whole, "the capacity at which it does"),
    Headline("NaiveClock", _TIMING, "clocks.naive", as_it_is, "the naive clock"),
    Headline("NaiveRate", _TIMING, "clocks.naive_token_hit_rate", percent, "token hit rate it promises"),
    Headline("CausalRate", _TIMING, "clocks.base_token_hit_rate.mean", percent, "token hit rate under a causal clock"),
    Headline("ClockBlocks", _TIMING, "clocks.blocks", whole, "blocks of the cache in which both are measured"),
    Headline("SlowRate", _TIMING, "rates.first", as_it_is, "lowest arrival rate"),
    Headline("FastRate", _TIMING, "rates.last", as_it_is, "highest arrival rate"),
    Headline("Engine", _ENGINES, "chain.engine", as_it_is, "the engine"),
    Headline("SmallPool", _ENGINES, "chain.pools[0].blocks", whole, "smallest pool, blocks"),
    Headline("SmallPoolRate", _ENGINES, "chain.overlap[0].token_hit_rate", percent, "the engine's rate there"),
    Headline("LargePool", _ENGINES, "chain.pools[-1].blocks", whole, "largest pool, blocks"),
    Headline("LargePoolRate", _ENGINES, "chain.overlap[-1].token_hit_rate", percent, "the engine's rate there"),
    Headline("PlanCard", _PLAN, "plan_choice.gpu", as_it_is, "the card of the plan"),
    Headline("PlanBlocks", _PLAN, "plan_pool.blocks", whole, "blocks that a replica's cards leave"),
    Headline("PlanReplicas", _PLAN, "plan_choice.chosen.replicas", whole, "replicas of the plan that is chosen"),
    Headline("PlanHit", _PLAN, "plan_choice.chosen.token", percent, "token hit rate of it, by the engine's replay"),
    Headline("PlanCost", _PLAN, "plan_choice.chosen.usd_per_hour", dollars, "its price per hour"),
    Headline("PlanNextCard", _PLAN, "plan_next.gpu.points", points, "points that one replica more brings"),
    Headline("PlanNextDRAM", _PLAN, "plan_next.dram.points", points, "points that 100 GiB of DRAM more bring"),
)


_AGENTS = "15-agents"
OF_SESSIONS = (
    Headline("Sessions", _AGENTS, "agent_sessions.sessions", whole, "sessions"),
    Headline("Requests", _AGENTS, "agent_sessions.requests", whole, "requests"),
    Headline("TokenHitRate", _AGENTS, "agent_sessions.rate", percent, "token hit rate, unbounded"),
    Headline("TokenHitRateLow", _AGENTS, "agent_sessions.rate_interval[0]", percent, "its 95 % interval over sessions"),
    Headline("TokenHitRateHigh", _AGENTS, "agent_sessions.rate_interval[1]", percent, "the same"),
    Headline("TokenHitRateMedian", _AGENTS, "agent_sessions.rate_median", percent, "the median session's"),
    Headline("PoliciesApart", _AGENTS, "agent_policies.apart", gain, "points between the best and the worst policy"),
    Headline("PoliciesApartBlocks", _AGENTS, "agent_policies.blocks", whole, "the capacity at which they are"),
    Headline("PoliciesApartLRU", _AGENTS, "agent_policies.lru.rate", percent, "LRU's token hit rate there"),
    Headline("PoliciesApartOPT", _AGENTS, "agent_policies.opt.rate", percent, "the optimum's"),
)


def list_headlines(found):
    """Return the headlines of a run: those of sessions first; they replace others only if its tokens are not known."""
    usual = {one.macro for one in HEADLINES} if _SHARING in found else ()
    own = [one for one in OF_SESSIONS if _AGENTS in found and one.macro not in usual]
    named = {one.macro for one in own}
    return [*own, *(one for one in HEADLINES if one.macro not in named)]


def show_headlines(found):
    """Return the headlines of a run whose facts are `found` (of `section_files.read_facts`), and what is missing.

    Returns
    -------
    shown : list of (Headline, str)
        Each with its number in plain text.
    missing : list of Headline
    """
    shown, missing = [], []
    for one in list_headlines(found):
        value = find_fact(found.get(one.notebook), one.path)
        if value is None:
            missing.append(one)
        else:
            shown.append((one, one.form(value)))
    return shown, missing


def find_fact(facts, path):
    """Return the fact at a path of `Headline`, None if there is none.

    >>> find_fact({"a": [{"share": 0.5, "gib": 44}]}, "a[share=0.5].gib"), find_fact({}, "a.b")
    (44, None)
    """
    for step in re.findall(r"[^.\[]+(?:\[[^\]]*\])?", path):
        name, _, choice = step.rstrip("]").partition("[")
        facts = facts.get(name) if isinstance(facts, dict) else None
        if choice:
            facts = _choose(facts or [], choice)
    return facts


def _choose(entries, choice):
    """Return the entry of a list that a number counts or that has a value (`share=0.5`), None if there is none."""
    name, equals, value = choice.partition("=")
    if equals:
        return next((one for one in entries if str(one.get(name)) == value), None)
    return entries[int(choice)] if entries else None


def write_numbers(shown, missing):
    r"""Return `numbers.tex`: a macro per headline, a comment for each that this run has not."""
    lines = [r"% Numbers of this report, as it says them. Write \KVTokenHitRate{}: without braces no space follows."]
    for one, text in shown:
        lines += [rf"\newcommand{{\{PREFIX}{one.macro}}}{{{print_text(text)}}} % {print_text(one.what)}"]
    lines += [rf"% no \{PREFIX}{one.macro}: this report has no {one.path} of {one.notebook}" for one in missing]
    return "\n".join(lines) + "\n"
