"""The conclusion and the limits of a report: facts made of those that this run's notebooks kept.

`found` is what `section_files.read_facts` returns: each notebook's facts, by their template's name. A notebook that did
not run, or failed, adds nothing.
"""

from kvprefix.report.facts.explained import tell_causes, tell_origin
from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.rounding import percent
from kvprefix.report.section_files import SHARING
from kvprefix.traces.arrivals import Auto, Poisson

ENGINES, AGENTS = "70-engine-check", "15-agents"
BOUNDED = (  # notebooks whose caches evict
    AGENTS, "25-provenance", "30-block-size", "40-cache-size", "50-eviction", "55-misses", "60-timing",
)  # fmt: skip


@gives_facts
def facts_conclusion(found):
    """Return the main facts of all notebooks; None for each notebook that has none."""
    parts = {
        "agents": _conclude_agents(found.get(AGENTS, {})),
        "sharing": _find(found, SHARING, "sharing"),
        "origin": tell_origin(_find(found, "25-provenance", "origins")),
        "causes": tell_causes(_find(found, "55-misses", "causes")),
        "advice": _find(found, "65-advice", "advice"),
        "block_sizes": _conclude_block_sizes(_find(found, "30-block-size", "block_sizes")),
        "capacities": _conclude_capacities(_find(found, "40-cache-size", "lru")),
        "policies": _conclude_policies(_find(found, "50-eviction", "policies")),
        "timing": _conclude_timing(_find(found, "60-timing", "clocks"), _find(found, "60-timing", "rates")),
        "plan": _find(found, "80-capacity-plan", "plan_choice"),
        "engines": _conclude_engines(_find(found, ENGINES, "chain")),
    }
    bounded = any(parts[name] for name in ("capacities", "causes", "plan", "policies", "timing", "engines"))
    return parts | {"bounded": bounded}


def _find(found, notebook, name):
    return found.get(notebook, {}).get(name)


def _conclude_agents(one):
    """Return what agent sessions share, what of the rest begins anew, and how far policies lie apart at most."""
    if "agent_sessions" not in one:
        return None
    misses, policies = one.get("agent_misses"), one.get("agent_policies")
    return {
        **one["agent_sessions"], "anew": misses["kinds"]["anew"]["share"] if misses and misses["missed"] else 0.0,
        "policies": policies if policies and policies["others"] else None,
    }  # fmt: skip


def _conclude_block_sizes(one):
    if one is None or len(one["sizes"]) < 2:
        return None
    small, *_, large = sorted(one["sizes"], key=lambda size: size["size"])
    return {"small": small, "large": large}


def _conclude_capacities(one):
    if one is None:
        return None
    if not one["unbounded"]:
        return {"unbounded": one["unbounded"]}
    needs = {size["share"]: size for size in one["needs"]}
    return {"unbounded": one["unbounded"], "model": one["model"], "half": needs[0.5], "most": needs[0.9]}


def _conclude_policies(one):
    """Return the capacity at which the optimum gains most, and the policy that gains most over LRU at any capacity."""
    if one is None or not one["capacities"]:
        return None
    at = max(one["capacities"], key=lambda at: (at["opt"] - at["lru"], at["blocks"]))
    most = {}
    for better in sorted(one["better"], key=lambda better: better["policy"]):
        most[better["policy"]] = max(better["points"], most.get(better["policy"], better["points"]))
    best = max(most, key=most.get) if most else None
    return {
        **at, "gain": 100 * (at["opt"] - at["lru"]), "decides": percent(at["lru"]) != percent(at["opt"]),
        "tried": one["tried"], "better": len(most), "best": best, "best_points": most.get(best),
    }  # fmt: skip


def _conclude_timing(clocks, rates):
    """Return the first and last clock in a small cache, and the first and last arrival rate in a medium one."""
    ends = []
    if clocks and clocks["others"]:
        ends.append({
            "study": "clocks", "blocks": clocks["blocks"], "first": clocks["naive"], "last": clocks["base"],
            "first_rate": clocks["naive_token_hit_rate"], "last_rate": clocks["base_token_hit_rate"]["mean"],
            "verdict": clocks["naive_verdict"],
        })  # fmt: skip
    if rates and rates["first"] != rates["last"]:
        middle = rates["capacities"][len(rates["capacities"]) // 2]
        ends.append({"study": "rates", "first": rates["first"], "last": rates["last"], **middle})
    return [one | {"separated": one["verdict"] in ("higher", "lower")} for one in ends]


def _conclude_engines(one):
    if one is None or not one["overlap"]:
        return None
    pools = one["overlap"]
    return {"engine": one["engine"], "pools": pools if len(pools) == 1 else [pools[0], pools[-1]]}


@gives_facts
def facts_limits(found, parameters):
    """Return what the report does not show, from this run's notebooks, parameters and data."""
    one = _find(found, SHARING, "sharing")
    starts, clock, think = (parameters.make(name) for name in ("arrivals", "clock", "think"))
    return {
        "bounded": [name for name in BOUNDED if name in found],
        "has_engines": ENGINES in found,
        "has_timing": "60-timing" in found,
        "has_sessions": AGENTS in found and SHARING not in found,
        "sessions": _find(found, AGENTS, "agent_sessions"),
        "arrivals": Poisson.name if isinstance(starts, Auto) else parameters.arrivals,
        "logged": starts.of_requests,
        "calls": bool(one and one.get("calls")),
        "lower_bound": bool(one and one.get("lower_bound")),
        "stamps": starts.files if starts.observed else [],
        "clock": parameters.clock,
        "naive": clock.naive,
        "think": parameters.think,
        "think_files": think.files,
        "max_conversations": parameters.max_conversations,
        "records_read": one["records_read"] if one else None,
        "records_skipped": one["records_skipped"] if one else 0,
        "is_bundled": parameters.data == "bundled",
    }
