"""What the explorer shows: facts of the point at the present memory, and of what tells its curves apart."""

from kvprefix.cache.policies import label_policy
from kvprefix.cache.rules.lru import LRU
from kvprefix.report.facts.plain import gives_facts


@gives_facts
def facts_readout(settings, point):
    """Return facts of the settings' point, from what `studies.explore.measure_point` measured.

    `policy` is None for LRU, and `survival_s` is None if the trace is too short to show it.
    """
    return {
        "gib": settings.gib,
        "block_size": settings.block_size,
        "blocks": point["capacity_blocks"],
        "all_fit": point["capacity_blocks"] >= point["distinct_blocks"],
        "policy": None if settings.policy == LRU.name else label_policy(settings.policy),
        "rate": point["rate"],
        "lru": point["lru"],
        "gain_points": 100 * (point["rate"] - point["lru"]),
        "points_per_gib": 100 * (point["lru_next"] - point["lru"]),
        "survival_s": point["survival_s"],
    }


def find_varied(many):
    """Return the names of the settings in which some of many differ, in their order.

    >>> from kvprefix.studies.explore import Settings
    >>> one = Settings(arrival_rate=2.0, think_median_s=110.0, block_size=16, kv_model="Llama-3.1-8B")
    >>> find_varied([one, one])
    []
    """
    return [name for name in vars(many[0]) if len({getattr(one, name) for one in many}) > 1]


@gives_facts
def facts_label(settings, varied):
    """Return the settings that tell a curve apart from the others; LRU, whose curve each of them is, is not named."""
    values = vars(settings) | {"policy": label_policy(settings.policy)}
    named = [name for name in varied if name != "policy" or settings.policy != LRU.name]
    return {"parts": [{"name": name, "value": values[name]} for name in named]}
