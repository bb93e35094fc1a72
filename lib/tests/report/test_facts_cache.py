"""What the cache study found, number by number, on small tables whose values are all different."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from said import missing, said_of, says

from kvprefix.cache.curve import Curve
from kvprefix.cache.policies import POLICIES
from kvprefix.models.memory import Model, load_model
from kvprefix.report.captions import state_study
from kvprefix.report.facts import cache as facts_cache
from kvprefix.report.rounding import spread
from kvprefix.report.words import say
from kvprefix.traces.parameters import Parameters

MODEL = Model("Tiny", 2**20, "")  # a MiB per token: 1,024 tokens are a GiB
NEEDS = pd.DataFrame(
    [(share, seed, blocks + 10 * seed)
     for share, blocks in ((0.5, 90), (0.9, 390), (0.95, 790), (0.99, 1590)) for seed in (0, 1, 3)],
    columns=["share", "seed", "capacity_blocks"],
)  # fmt: skip
"""Means over three seeds, of which the third is out by twice as much: 103 1/3, 403 1/3, 803 1/3, 1,603 1/3 blocks."""


def lru_curve(seeds=(0, 1, 5)):
    """Return a curve of five capacities: rates 0.1 to 0.5 and 0.01 more per seed; intervals of the first seed alone."""
    rows = []
    for seed in seeds:
        for k, capacity in enumerate((64, 128, 192, 320, 384), start=1):
            ends = (0.1 * k - 0.02, 0.1 * k + 0.05) if seed == 0 else (np.nan, np.nan)
            rows.append((seed, capacity, 0.1 * k + 0.01 * seed, *ends))
    return pd.DataFrame(rows, columns=["seed", "capacity_blocks", "token", "low", "high"])


def test_mean_and_range():
    assert spread(facts_cache.measure_spread([0.1, 0.2, 0.6])) == "30.0 % (10.0 %–60.0 %)"
    assert spread(facts_cache.measure_spread([0.2, 0.2])) == "20.0 %"


def test_the_study_s_conditions():
    workload = SimpleNamespace(
        parameters=Parameters(block_size=32, seed=7, arrival_rate=3.5), dataset={"conversations": 1_334}
    )
    text = state_study(workload, range(2_345))
    assert not missing(
        text, "2,345 ~ multi-turn requests of ~ 1,334 ~ conversations", "block size ~ 32 ~ tokens",
        "3.5 ~ conversations/s", "seed ~ 7",
    )  # fmt: skip


def test_the_table_of_needs():
    # 103 1/3 blocks of 16 tokens are 1,653 1/3 tokens: 1.6146 GiB.
    table = facts_cache.tabulate_needs(NEEDS, 16, MODEL)
    assert table["share of the unbounded rate"].tolist() == ["50.0 %", "90.0 %", "95.0 %", "99.0 %"]
    assert table["blocks: mean"].tolist() == [103, 403, 803, 1603]
    assert table["least"].tolist() == [90, 390, 790, 1590] and table["most"].tolist() == [120, 420, 820, 1620]
    assert table["tokens: mean"].tolist() == [1653, 6453, 12853, 25653]
    gib = [tokens / 1024 for tokens in (1653.3333, 6453.3333, 12853.3333, 25653.3333)]
    assert table["GiB, Tiny"].tolist() == pytest.approx(gib)


def test_what_a_further_gib_adds():
    # Blocks of 16 tokens, 64 per GiB: 1, 2, 3, 5, 6 GiB. Means 0.12, 0.22, ...; the sd of 0, 0.01, 0.05 is the root of
    # (4 + 1 + 9) / 2 ten-thousandths. Ten points per GiB, five between 3 and 5. Intervals of the first seed move with
    # the mean, 0.02 above it.
    table = facts_cache.tabulate_margin(lru_curve(), 16, MODEL)
    assert table["blocks"].tolist() == [64, 128, 192, 320, 384] and table["GiB, Tiny"].tolist() == [1, 2, 3, 5, 6]
    assert table["tokens"].tolist() == [1024, 2048, 3072, 5120, 6144]
    assert table["token hit rate"].tolist() == pytest.approx([0.12, 0.22, 0.32, 0.42, 0.52])
    assert table["± over seeds (sd)"].tolist() == pytest.approx([7e-4**0.5] * 5)
    assert table["95 % low"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert table["95 % high"].tolist() == pytest.approx([0.17, 0.27, 0.37, 0.47, 0.57])
    assert table["points per further GiB"].tolist()[:4] == pytest.approx([10, 10, 5, 10])
    assert np.isnan(table["points per further GiB"].tolist()[4])
    few = facts_cache.tabulate_margin(lru_curve(), 16, MODEL, rows=3)
    assert few["blocks"].tolist() == [64, 192, 384]
    assert few["points per further GiB"].tolist()[:2] == pytest.approx([10, 20 / 3])


def test_tiers():
    # Blocks of 2 tokens, 512 per GiB: the tiers hold 1 and 2 GiB. The curve rises by 1/4,096 per block up to 0.75.
    rates = np.minimum(np.arange(4097) / 4096, 0.75)
    table = facts_cache.tabulate_tiers(Curve(rates / 2, rates, rates / 3), [1, 2], 2, MODEL)
    assert table["tier"].tolist() == ["tier 1", "tier 2", "a larger hierarchy", "computed"]
    assert table["blocks"].tolist()[:2] == [512, 1024]
    assert table["share of prompt tokens"].tolist() == pytest.approx([0.125, 0.25, 0.375, 0.25])
    assert table["GiB, Tiny"].tolist()[:2] == [1, 2]


def test_what_other_models_need():
    # 803 1/3 blocks of 16 tokens at 131,072 bytes: 1.569 GiB.
    table = facts_cache.tabulate_models(NEEDS, 16).set_index("model")
    bytes_per_token = load_model("Llama-3.1-8B").bytes_per_token
    assert table.loc["Llama-3.1-8B", "bytes per token"] == bytes_per_token == 131_072
    assert table.loc["Llama-3.1-8B", "GiB for 95 %"] == pytest.approx(12853.3333 * 131_072 / 2**30)
    kinds = ["Llama-3.1-8B", "DeepSeek-V3.2", "Gemma-3-27B", "Mistral-7B-v0.1", "Llama-4-Scout", "Jamba-v0.1"]
    assert table["exact or mean"][kinds].tolist() == ["exact", "exact", "mean", "mean", "mean", "mean"]


def test_how_much_memory_buys_how_much():
    text = said_of(facts_cache.facts_lru, lru_curve(), NEEDS, {"token": 0.55}, 16, MODEL)
    assert not missing(
        text, "55.0 % ~ of the prompt tokens",
        "half ~ 103 ~ blocks ~ 1,653 ~ tokens ~ 1.6 ~ GiB ~ 90 % ~ with ~ 403 ~ 6.3 ~ GiB",
        "95 % ~ with ~ 803 ~ 12.6 ~ GiB ~ 99 % ~ with ~ 1,603 ~ 25.1 ~ GiB", "means of ~ 3 ~ draws",
        "largest capacity ~ 52.0 % ~ 50.0 % ~ 55.0 %",
    )  # fmt: skip
    assert "Nothing is ever hit" in said_of(facts_cache.facts_lru, lru_curve(), NEEDS, {"token": 0.0}, 16, MODEL)


def test_what_gap_distance_and_the_hottest_blocks_decide():
    # Eleven gaps 0, 1, 4, ..., 100 s: median 25, 95th percentile 90.5. Distances 20 times as much: 500 and 1,810.
    gaps, distances = np.arange(11) ** 2.0, np.arange(11) ** 2 * 20.0
    reuse = (np.linspace(0, 1, 21), np.linspace(0, 1, 21) ** 0.5)
    text = said_of(facts_cache.facts_reuse, gaps, distances, reuse, 8)
    assert not missing(
        text, "half of the reuses come within ~ 25 ~ s ~ 95 % ~ within ~ 90 ~ s",
        "half of the reuses need ~ 500 ~ blocks ~ 4,000 ~ tokens ~ 95 % ~ need ~ 1,810",
        "tenth ~ 31.6 % ~ of the reuses",
    )  # fmt: skip


SIZES = pd.DataFrame(
    [
        (1, 0, np.nan, 0.62, 0.71, 0.801, 1600.25, 0.0, np.nan, np.nan),
        (16, 0, np.nan, 0.58, 0.66, 0.75, 98.75, 7.25, np.nan, np.nan),
        (64, 0, np.nan, 0.47, 0.52, 0.59, 23.5, 28.5, np.nan, np.nan),
        (1, 0, 2000.0, 0.31, 0, 0, 0, 0, 0.29, 0.34), (1, 1, 2000.0, 0.35, 0, 0, 0, 0, np.nan, np.nan),
        (16, 0, 2000.0, 0.28, 0, 0, 0, 0, 0.25, 0.32), (16, 1, 2000.0, 0.30, 0, 0, 0, 0, np.nan, np.nan),
        (64, 0, 2000.0, 0.18, 0, 0, 0, 0, 0.17, 0.20), (64, 1, 2000.0, 0.24, 0, 0, 0, 0, np.nan, np.nan),
    ],
    columns=[
        "block_size", "seed", "memory_tokens", "token", "request_mean", "block", "blocks", "lost_tokens", "low", "high",
    ],
)  # fmt: skip


NOTHING_LEFT_OUT = {"left_out": [], "budget": 200_000_000}


def test_the_table_of_block_sizes():
    table = facts_cache.tabulate_block_sizes(SIZES)
    assert table.to_numpy().tolist() == [
        [1, 0.62, 0.71, 0.801, 1600.25, 0, 0], [16, 0.58, 0.66, 0.75, 98.75, 7.25, 7.5],
        [64, 0.47, 0.52, 0.59, 23.5, 28.5, 31.5],
    ]  # fmt: skip
    assert list(table)[1:6] == [
        "token hit rate", "mean sharing fraction", "block reuse rate", "blocks (hashes) per request",
        "tokens lost per request",
    ]  # fmt: skip


def test_block_sizes_at_equal_memory():
    # Size 1: mean 0.33, sd 0.0283; its first seed is 0.02 below the mean, so its interval moves up by 0.02.
    table = facts_cache.tabulate_equal_memory(SIZES)
    assert table["LRU, 2,000 tokens"].tolist() == pytest.approx([0.33, 0.29, 0.21])
    assert table["± sd, 2,000"].tolist() == pytest.approx([0.04 / 2**0.5, 0.02 / 2**0.5, 0.06 / 2**0.5])
    assert table["95 %, 2,000"].tolist() == ["31.0–36.0", "26.0–33.0", "20.0–23.0"]


def test_what_larger_blocks_cost():
    text = say("block_sizes.md", facts_cache.facts_block_sizes(SIZES) | NOTHING_LEFT_OUT)
    assert not missing(
        text, "blocks of ~ 1 ~ token ~ 62.0 % ~ blocks of ~ 16 ~ 58.0 % ~ blocks of ~ 64 ~ 47.0 %",
        "looks up ~ 1,600 ~ 98.8 ~ 23.5 ~ blocks", "blocks of ~ 16 ~ lose ~ 7.2 ~ cached tokens ~ half a block ~ 7.5",
        "blocks of ~ 64 ~ lose ~ 28.5 ~ half a block ~ 31.5", "memory of ~ 2,000 ~ tokens ~ 29.0 % ~ 28.0 % ~ 30.0 %",
        "with blocks of ~ 16 ~ and ~ 33.0 % ~ 31.0 % ~ 35.0 % ~ with blocks of ~ 1",
    )  # fmt: skip
    assert facts_cache.name_smallest(SIZES) == "one token"
    one_seed_against = SIZES.assign(token=SIZES["token"].where(SIZES.index != 4, 0.299))
    facts = facts_cache.facts_block_sizes(one_seed_against) | NOTHING_LEFT_OUT
    assert "equal memory" not in say("block_sizes.md", facts)


def policies_frame():
    """Return two seeds of four policies at two capacities; intervals are of the first seed, which is off the mean."""
    rates = {
        (100, "lru"): (0.30, 0.32), (100, "fifo"): (0.27, 0.28), (100, "lfu"): (0.34, 0.37),
        (100, "opt"): (0.45, 0.49), (900, "lru"): (0.50, 0.51), (900, "fifo"): (0.48, 0.505),
        (900, "lfu"): (0.51, 0.50), (900, "opt"): (0.55, 0.57),
    }  # fmt: skip
    rows = []
    for (capacity, policy), tokens in rates.items():
        lru = rates[capacity, "lru"]
        for seed, token in enumerate(tokens):
            gain = token - lru[seed]
            ends = (token - 0.03, token + 0.02, gain - 0.01, gain + 0.015) if seed == 0 else [np.nan] * 4
            rows.append((seed, policy, capacity, token, *ends))
    columns = ["seed", "policy", "capacity_blocks", "token", "low", "high", "gain_low", "gain_high"]
    return pd.DataFrame(rows, columns=columns)


def test_the_table_of_policies():
    table = facts_cache.tabulate_policies(policies_frame(), {"token": 0.8}).set_index(["blocks", "policy"])
    numbers = ["token hit rate", "± sd", "95 % low", "95 % high", "against LRU", "low", "high", "of the unbounded rate"]
    # LFU: mean 0.355, 0.015 above its first seed: 0.31 to 0.36 becomes 0.325 to 0.375; gains 4 and 5 points, mean 4.5.
    expected = {
        (100, "lru"): [0.31, 0.02 / 2**0.5, 0.28, 0.33, 0, -1, 1.5, 0.3875],
        (100, "fifo"): [0.275, 0.01 / 2**0.5, 0.245, 0.295, -3.5, -4.5, -2, 0.34375],
        (100, "lfu"): [0.355, 0.03 / 2**0.5, 0.325, 0.375, 4.5, 3.5, 6, 0.44375],
        (100, "opt"): [0.47, 0.04 / 2**0.5, 0.44, 0.49, 16, 15, 17.5, 0.5875],
        (900, "lfu"): [0.505, 0.01 / 2**0.5, 0.475, 0.525, 0, -1, 1.5, 0.63125],
    }  # fmt: skip
    for (capacity, policy), row in expected.items():
        found = table.loc[(capacity, POLICIES[policy].label), numbers].astype(float).tolist()
        assert found == pytest.approx(row), (capacity, policy)
    verdicts = ["–", "worse", "better", "bound", "–", "not separated", "not separated", "bound"]
    assert table["verdict"].tolist() == verdicts
    of_nothing = facts_cache.tabulate_policies(policies_frame(), {"token": 0})["of the unbounded rate"]
    assert of_nothing[0] == pytest.approx(0.31)


def test_rates_of_policies_are_means_of_seeds_not_medians():
    rows = []
    for policy, tokens in (("lru", (0.1, 0.1, 0.1)), ("lfu", (0.2, 0.3, 0.7))):
        for seed, token in enumerate(tokens):
            ends = [token, token, token - 0.1, token - 0.1] if seed == 0 else [np.nan] * 4
            rows.append((seed, policy, 10, token, *ends))
    columns = ["seed", "policy", "capacity_blocks", "token", "low", "high", "gain_low", "gain_high"]
    row = facts_cache.tabulate_policies(pd.DataFrame(rows, columns=columns), {"token": 0.8}).loc[1]
    assert row[["token hit rate", "95 % low", "against LRU", "low", "of the unbounded rate"]].tolist() == pytest.approx(
        [0.4, 0.4, 30, 30, 0.5]
    )  # fmt: skip
    sizes = SIZES.dropna(subset="memory_tokens").query("block_size == 1")
    third = sizes.iloc[:1].assign(seed=2, token=0.6, low=np.nan, high=np.nan)
    table = facts_cache.tabulate_equal_memory(pd.concat([sizes, third]))
    assert table["LRU, 2,000 tokens"].tolist() == pytest.approx([0.42])  # of 0.31, 0.35, 0.6


def test_what_a_better_policy_could_win():
    label = {name: policy.label for name, policy in POLICIES.items()}
    text = said_of(facts_cache.facts_policies, facts_cache.tabulate_policies(policies_frame(), {"token": 0.8}))
    assert not missing(
        text, "With ~ 100 ~ blocks LRU hits ~ 31.0 % ~ optimum ~ 47.0 % ~ 16.0 ~ points",
        "With ~ 900 ~ blocks LRU hits ~ 50.5 % ~ optimum ~ 56.0 % ~ 5.5 ~ points",
        f"Better than LRU ~ {label['lfu']} with ~ 100 ~ blocks ~ +4.50 ~ points",
    )  # fmt: skip
    assert f"{label['fifo']} (1)" in text.partition("Worse than LRU")[2].partition("Not separated")[0]
    open_ = text.partition("Not separated")[2]
    assert f"{label['fifo']} (1)" in open_ and f"{label['lfu']} (1)" in open_
    none = policies_frame().query("policy != 'lfu'")
    text = said_of(facts_cache.facts_policies, facts_cache.tabulate_policies(none, {"token": 0.8}))
    assert "None of the other policies is better" in text and says(text, "16.0 ~ points")


def test_the_table_of_what_policies_are():
    table = facts_cache.list_policies()
    with_hints = ["Pinned prompts", "Sessions", "Tool calls", "Priority"]
    assert table["policy"].tolist() == [*(policy.label for policy in POLICIES.values()), *with_hints]
    assert table.set_index("policy")["setting"]["TTL"] == 600


def test_facts_are_numbers():
    facts = facts_cache.facts_lru(lru_curve(), NEEDS, {"token": 0.55}, 16, MODEL)
    assert facts["unbounded"] == 0.55 and facts["model"] == "Tiny" and facts["draws"] == 3
    assert facts["largest"] == pytest.approx({"mean": 0.52, "least": 0.5, "most": 0.55})
    assert [one["share"] for one in facts["needs"]] == [0.5, 0.9, 0.95, 0.99]
    n = 310 / 3  # blocks of 16 tokens of a MiB each
    assert facts["needs"][0] == pytest.approx({"share": 0.5, "blocks": n, "tokens": 16 * n, "gib": n / 64})

    facts = facts_cache.facts_block_sizes(SIZES)
    assert [facts[name] for name in ("small", "usual", "large")] == [1, 16, 64]
    assert facts["sizes"][2] == {
        "size": 64, "token_hit_rate": 0.47, "blocks": 23.5, "lost_tokens": 28.5, "half_a_block": 31.5,
    }  # fmt: skip
    (memory,) = facts["memories"]
    assert memory["small_is_better"] and memory["tokens"] == 2000
    assert memory["small"] == pytest.approx({"mean": 0.33, "least": 0.31, "most": 0.35})

    facts = facts_cache.facts_policies(facts_cache.tabulate_policies(policies_frame(), {"token": 0.8}))
    assert facts["capacities"][0] == pytest.approx({"blocks": 100, "lru": 0.31, "opt": 0.47, "points": 16})
    label = {name: policy.label for name, policy in POLICIES.items()}
    assert facts["better"] == [{"policy": label["lfu"], "blocks": 100, "points": pytest.approx(4.5)}]
    assert facts["worse"] == [{"policy": label["fifo"], "capacities": 1}] and facts["tried"] == 2
    assert {one["policy"]: one["capacities"] for one in facts["open"]} == {label["fifo"]: 1, label["lfu"]: 1}
