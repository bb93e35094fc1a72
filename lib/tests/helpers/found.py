"""Facts of a run's notebooks, as `section_files.read_facts` gives them; no two numbers are alike."""

import copy


def _size(blocks, hit, **shares):
    parts = {name: {"share": share, "low": share - 0.001, "high": share + 0.001} for name, share in shares.items()}
    shown = sorted(parts, key=lambda name: -shares[name])
    hit = {"share": hit, "low": hit - 0.01, "high": hit + 0.01}
    return {"blocks": blocks, "hit": hit, "parts": parts, "shown": shown}


FACTS = {
    "20-prefix-sharing": {"sharing": {
        "conversations": 1200, "records_read": 1300, "records_skipped": 100, "requests": 5001, "token_hit_rate": 0.621,
        "sharing_mean": 0.512, "sharing_median": 0.533, "with_generated": 0.864, "single_token_hit_rate": 0.151,
        "single_sharing_mean": 0.322, "bare_token_hit_rate": 0.086, "bare_sharing_mean": 0.043, "never_reused": 0.394,
        "accesses_if_reused": 3.84, "gap_median_s": 113.0,
    }, "multi_turn": {"own": 0.945, "others": 0.055}},
    "25-provenance": {"origins": {"kind": "conversation", "sizes": [_size(22512, 0.309, own_turns=0.266), _size(
        None, 0.6213, own_turns=0.5412, template=0.0543, duplicate=0.0214, other_conversation=0.0065,
    )]}},
    "30-block-size": {"block_sizes": {"sizes": [
        {"size": 16, "token_hit_rate": 0.62}, {"size": 1, "token_hit_rate": 0.633},
        {"size": 512, "token_hit_rate": 0.408},
    ]}},
    "40-cache-size": {"lru": {"unbounded": 0.622, "model": "Llama-3.1-8B", "needs": [
        {"share": 0.5, "blocks": 22690.4, "gib": 44.317}, {"share": 0.9, "blocks": 127033.0, "gib": 248.111},
        {"share": 0.95, "blocks": 190000.0, "gib": 371.09375},
    ]}, "cards": {"model": "Llama-3.1-8B", "at": {
        "card": "H100-80G", "gpus": 1, "label": "H100-80G", "blocks": 28067, "gib": 54.818, "token_hit_rate":
        {"mean": 0.3899, "least": 0.387, "most": 0.396},
    }}},
    "45-templates": {"templates": {
        "conversations": 2000, "strip": {"ratio": 2.71, "low": 2.6, "saved": 0.0}, "keep": {"saved": 0.735},
    }},
    "50-eviction": {"policies": {
        "capacities": [
            {"blocks": 5037, "lru": 0.094, "opt": 0.345}, {"blocks": 14393, "lru": 0.230, "opt": 0.488},
            {"blocks": 41129, "lru": 0.418, "opt": 0.593},
        ],
        "tried": 7, "better": [],
    }, "hinted": {"policies": [{"policy": "TTL"}, {"policy": "Sessions"}], "most": {
        "policy": "Sessions", "blocks": 5038, "closed": 0.1447, "verdict": "better",
    }}},
    "55-misses": {"causes": {"kind": "conversation", "sizes": [
        _size(1786, 0.047),
        _size(22512, 0.3087, policy=0.2317, generated_not_cached=0.2422, cold=0.1238, capacity=0.081,
              sub_block_inside=0.0123, last_token=0.0002),
        _size(None, 0.6211),
    ]}},
    "60-timing": {
        "clocks": {
            "blocks": 2468, "base": "causal", "base_token_hit_rate": {"mean": 0.054}, "naive": "all turns at once",
            "naive_token_hit_rate": 0.596, "naive_verdict": "higher", "others": [{"variant": "all turns at once"}],
        },
        "rates": {"first": "0.1 /s", "last": "20 /s", "capacities": [
            {"blocks": 1111, "first_rate": 0.2, "last_rate": 0.1, "verdict": "higher"},
            {"blocks": 12264, "first_rate": 0.575, "last_rate": 0.111, "verdict": "not separated"},
            {"blocks": 99999, "first_rate": 0.6, "last_rate": 0.6, "verdict": "equal"},
        ]},
    },
    "65-advice": {"advice": {
        "points": 0.63, "low": 0.51, "high": 0.74, "proved": 2, "rate": 0.6212, "after": 0.6275,
        "sites": [{"fix": "Move the time stamp: 62.7 % instead of 62.1 %."}],
    }},
    "70-engine-check": {"chain": {"engine": "vLLM 0.32", "overlap": [
        {"blocks": 5000, "token_hit_rate": 0.075}, {"blocks": 20000, "token_hit_rate": 0.306},
        {"blocks": 340000, "token_hit_rate": 0.840},
    ]}},
    "80-capacity-plan": {
        "plan_choice": {
            "gpu": "H100-80G", "gpus": 2, "slo_ttft": 1.5, "slo_share": 0.99, "slo_percentile": 99, "ttft": 0.353,
            "is_met": True, "compared": 72, "replicas": 3, "router": "llm-d", "is_any": False, "dram_gib": 256.0,
            "token": 0.664, "low": 0.656, "high": 0.671, "usd_per_hour": 25.94, "busiest_load": 0.31,
            "decoding_replicas": None, "alone_s": None,
        },
        "plan_next": {
            "gpu": {"points": 7.31, "usd_cost": 8.98, "usd_saved": 9.17, "router": "llm-d", "pays": True},
            "dram": {"points": 0.94, "usd_cost": 1.21, "usd_saved": 0.08, "router": "llm-d", "pays": False},
            "gib": 100.0, "per_usd": {"gpu": 0.81, "dram": 0.78},
        },
    },
}  # fmt: skip


def change(*path, to):
    """Return FACTS with one of them changed."""
    changed = copy.deepcopy(FACTS)
    within = changed
    for name in path[:-1]:
        within = within[name]
    within[path[-1]] = to
    return changed
