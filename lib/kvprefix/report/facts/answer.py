"""The answer on page one: facts made of those that this run's notebooks kept, one entry a finding.

A notebook that has something to say there adds an entry to FINDINGS, and the template `words/answer_NAME.md.j2`; a
finding whose notebook did not run, or failed, is left out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kvprefix.report.facts.conclusion import facts_limits
from kvprefix.report.facts.explained import tell_causes, tell_origin
from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.section_files import SHARING

WORTH = 1.0  # points of token hit rate below which a change is not proposed
LRU_CURVE, EVICTION, TIMING, ENGINES = "40-cache-size", "50-eviction", "60-timing", "70-engine-check"
AGENTS, ORIGINS, CAUSES, TEMPLATES = "15-agents", "25-provenance", "55-misses", "45-templates"
ADVICE, PLAN = "65-advice", "80-capacity-plan"
TENTH = 0.1  # of the gap between LRU and the optimum: less is not told of
FEWEST = 30  # requests after pauses of which page one tells


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A sentence of page one.

    Attributes
    ----------
    name : str
        Of its template, `words/answer_NAME.md.j2`.
    notebook : str
        Where it is shown at length.
    choose : callable
        ``choose(found)`` returns its facts, from those of all notebooks (`section_files.read_facts`), or None.
    figure : str, optional
        The figure that is shown small.
    """

    name: str
    notebook: str
    choose: Callable
    figure: str | None = None


def choose_shared(found):
    """Return what could be shared without a bound."""
    return found[SHARING].get("sharing")


def choose_origin(found):
    """Return where cached tokens come from without a bound."""
    return tell_origin(found[ORIGINS].get("origins"))


def choose_causes(found):
    """Return why the rest is missed at the capacity near the memory at hand."""
    return tell_causes(found[CAUSES].get("causes"))


def choose_advice(found):
    """Return what changes of the prompts' texts win."""
    return found[ADVICE].get("advice")


def choose_memory(found):
    """Return what the engine hits in the memory at hand, in the largest pool, and in what a card leaves, if known."""
    chain = found[ENGINES].get("chain", {})
    if not chain.get("overlap"):
        return None
    at, largest = _find_pool(found), chain["overlap"][-1]
    pools = [at] if at["blocks"] == largest["blocks"] else [at, largest]
    cards = found.get(LRU_CURVE, {}).get("cards") or {"at": None}
    card = cards["at"] if cards["at"] and cards["at"]["token_hit_rate"] else None
    pools = [one | _size(found, one["blocks"]) for one in pools]
    return {"engine": chain["engine"], "pools": pools, "card": card, "model": cards["model"] if card else None}


def choose_policy(found):
    """Return what a better policy could win at the capacity nearest to the memory at hand; not of agent sessions."""
    return None if AGENTS in found else _find_headroom(found)


def _find_headroom(found):
    policies = found[EVICTION].get("policies", {})
    if not policies.get("capacities"):
        return None
    at = _find_nearest(policies["capacities"], found)
    best = _find_best(found, at["blocks"])
    return {**at, "gain": 100 * (at["opt"] - at["lru"]), "tried": policies["tried"], "best": best}


def _find_best(found, blocks):
    """Return the policy that is better than LRU by most at a capacity; None if none is."""
    better = [one for one in found[EVICTION]["policies"]["better"] if one["blocks"] == blocks]
    return max(better, key=lambda one: one["points"], default=None)


def choose_timing(found):
    """Return what the clock and the rate decide."""
    clocks, rates = found[TIMING].get("clocks"), found[TIMING].get("rates")
    clocks = clocks if clocks and clocks["others"] else None
    middle = None
    if rates and rates["first"] != rates["last"]:
        middle = rates["capacities"][len(rates["capacities"]) // 2]
        middle = {"first": rates["first"], "last": rates["last"], **middle}
    return {"clocks": clocks, "rates": middle} if clocks or middle else None


def choose_agents(found):
    """Return what agent sessions share without a bound."""
    return found[AGENTS].get("agent_sessions")


def choose_misses(found):
    """Return what agent sessions do not share, if anything is missed."""
    one, sessions = found[AGENTS].get("agent_misses"), found[AGENTS].get("agent_sessions", {})
    return one if one and one["missed"] and sessions.get("kind") != "request" else None


def choose_templates(found):
    """Return what taking reasoning out of histories costs, if it costs anything."""
    one = found[TEMPLATES].get("templates") or {}
    return one if one.get("strip") and one["strip"]["low"] > 1 else None


def choose_plan(found):
    """Return the plan that is chosen, and what the next steps bring."""
    one, steps = found[PLAN].get("plan_choice"), found[PLAN].get("plan_next")
    return {**one, "next": steps} if one and steps else None


def choose_curve(found):
    """Return what LRU needs for half and for most of the unbounded rate; of agent sessions, which have no replies."""
    one = found[LRU_CURVE].get("lru", {})
    if AGENTS not in found or not one.get("needs"):
        return None
    needs = {size["share"]: size for size in one["needs"]}
    return {**one, "half": needs[0.5], "most": needs[0.9]}


def choose_agent_policies(found):
    """Return how far policies lie apart where they differ most; None if they do not."""
    one = found[AGENTS].get("agent_policies")
    return one if one and one["apart"] >= WORTH / 10 else None


def choose_hinted(found):
    """Return which policy with hints closes most of the gap to the optimum; None if it closes less than a tenth."""
    one = found[EVICTION].get("hinted")
    most = one and one["most"]
    if not most or most["verdict"] != "better" or most["closed"] < TENTH:
        return None
    return {**most, "tried": len(one["policies"])}


def choose_pauses(found):
    """Return what the pause costs that costs most, of those before enough requests, beside the shortest."""
    one = found[AGENTS].get("agent_pauses") or {}
    classes = one.get("classes") or []
    worst = [each for each in classes[1:] if each["requests"] >= FEWEST] or classes[1:]
    if not worst:
        return None
    return {
        **max(worst, key=lambda each: each["unbounded"] - each["rate"]),
        "short": classes[0],
        "blocks": one["blocks"],
    }


FINDINGS = (
    Finding(name="shared", notebook=SHARING, choose=choose_shared, figure="20-sharing-fraction-cdf"),
    Finding(name="agents", notebook=AGENTS, choose=choose_agents, figure="15-session-rates"),
    Finding(name="misses", notebook=AGENTS, choose=choose_misses),
    Finding(name="origin", notebook=ORIGINS, choose=choose_origin, figure="25-origins"),
    Finding(name="causes", notebook=CAUSES, choose=choose_causes, figure="55-causes"),
    Finding(name="advice", notebook=ADVICE, choose=choose_advice, figure="65-fixes"),
    Finding(name="templates", notebook=TEMPLATES, choose=choose_templates, figure="45-computed"),
    Finding(name="memory", notebook=ENGINES, choose=choose_memory, figure="40-lru-curve"),
    Finding(name="plan", notebook=PLAN, choose=choose_plan, figure="80-plans"),
    Finding(name="curve", notebook=LRU_CURVE, choose=choose_curve, figure="40-lru-curve"),
    Finding(name="policy", notebook=EVICTION, choose=choose_policy, figure="50-policies"),
    Finding(name="agent_policies", notebook=AGENTS, choose=choose_agent_policies, figure="15-policies"),
    Finding(name="timing", notebook=TIMING, choose=choose_timing, figure="60-clocks"),
    Finding(name="pauses", notebook=AGENTS, choose=choose_pauses, figure="15-pauses"),
    Finding(name="hinted", notebook=EVICTION, choose=choose_hinted),
)
SAID_OTHERWISE = {"agents", "curve", "policy", "timing"}  # where agents' sessions are known by their tokens


@gives_facts
def facts_answer(found, parameters):
    """Return the facts of each finding by its name, None if there is none; of the next step; and of the caveats."""
    left_out = SAID_OTHERWISE if {SHARING, AGENTS} <= found.keys() else ()
    ran = [one for one in FINDINGS if one.notebook in found and one.name not in left_out]
    return {
        "findings": {one.name: one.choose(found) for one in ran},
        "next": choose_next(found),
        "limits": facts_limits(found, parameters),
    }


def choose_next(found):
    """Return the change that gains most: of the prompts' texts, of the policy, or the next capacity.

    The last two are near the memory at hand. The planner's next step stands for the next capacity if there is a plan:
    the one with more hits per dollar. None if nothing is known. `step` is ``"advice"``, ``"cards"`` (no plan keeps the
    aim), ``"plan"``, ``"enough"`` (the plan's pool holds more than the next capacity), ``"memory"``, ``"policy"``, or
    ``"prompts"`` if none gains WORTH points: then only prompts that share more would.
    """
    advice = found.get(ADVICE, {}).get("advice")
    if advice and advice["points"] >= WORTH:  # it gains in a cache of any size
        return {"step": "advice", **advice}
    if step := _choose_step(found):
        return step
    capacities = found.get(EVICTION, {}).get("policies", {}).get("capacities", [])
    if len(capacities) < 2:
        return None
    policy = _find_headroom(found)
    k = min(next(k for k, one in enumerate(capacities) if one["blocks"] == policy["blocks"]), len(capacities) - 2)
    at, best = capacities[k], _find_best(found, capacities[k]["blocks"])
    enough = [one for one in capacities[k + 1 :] if 100 * (one["lru"] - at["lru"]) >= WORTH]  # the curve may be flat
    larger = enough[0] if enough else capacities[k + 1]
    if enough := _find_enough(found, larger["blocks"]):
        return {"step": "enough", **enough}
    gains = {"memory": 100 * (larger["lru"] - at["lru"]), "policy": best["points"] if best else 0.0}
    step = max(gains, key=gains.get)
    return {
        "step": step if gains[step] >= WORTH else "prompts", "at": at | _size(found, at["blocks"]),
        "larger": larger | _size(found, larger["blocks"]), "gains": gains, "best": best,
        "unbounded": (found.get(SHARING, {}).get("sharing") or {}).get("token_hit_rate"),
    }  # fmt: skip


def _choose_step(found):
    """Return the planner's next step if the aim is not kept, or if it gains WORTH points and more than a policy."""
    plan, steps = (found.get(PLAN, {}).get(name) for name in ("plan_choice", "plan_next"))
    if not plan or not steps:
        return None
    if not plan["is_met"]:
        return {"step": "cards", **plan}
    best, headroom = 0.0, found.get(EVICTION, {}).get("policies", {}).get("capacities") and _find_headroom(found)
    if headroom:
        best = (_find_best(found, headroom["blocks"]) or {"points": 0.0})["points"]
    per_usd = steps["per_usd"] or {name: steps[name]["points"] for name in ("gpu", "dram")}
    name = max(per_usd, key=per_usd.get)
    if steps[name]["points"] < max(WORTH, best):
        return None
    pays = None if steps["per_usd"] is None else any(steps[one]["pays"] for one in ("gpu", "dram"))
    return {"step": "plan", "name": name, "pays": pays, "before": plan, "gib": steps["gib"], "after": steps[name]}


def _find_enough(found, blocks):
    """Return the plan, a replica's pool and the next steps if that holds so many blocks and no step gains WORTH."""
    plan, pool, steps = (found.get(PLAN, {}).get(name) for name in ("plan_choice", "plan_pool", "plan_next"))
    if not plan or not pool or not steps or pool["tokens"] < blocks * pool["block_size"]:
        return None
    is_enough = max(steps[name]["points"] for name in ("gpu", "dram")) < WORTH
    return {**plan, "pool": pool, "next": steps} if is_enough else None


def _find_pool(found):
    """Return the engine's pool that stands for the memory at hand: the second, a 50th of the distinct blocks."""
    pools = found[ENGINES]["chain"]["overlap"]
    return pools[min(1, len(pools) - 1)]


def _find_nearest(capacities, found):
    """Return the capacity nearest to the memory at hand by ratio; without an engine's pool, the middle one."""
    if not found.get(ENGINES, {}).get("chain", {}).get("overlap"):
        return capacities[len(capacities) // 2]
    blocks = _find_pool(found)["blocks"]
    return min(capacities, key=lambda one: abs(math.log(one["blocks"] / blocks)))


def _size(found, blocks):
    """Return the GiB of blocks in the KV cache of the model of notebook 40; None if it did not say."""
    lru = found.get(LRU_CURVE, {}).get("lru", {})
    if not lru.get("needs"):
        return {"gib": None, "model": None}
    known = lru["needs"][-1]
    return {"gib": blocks * known["gib"] / known["blocks"], "model": lru["model"]}
