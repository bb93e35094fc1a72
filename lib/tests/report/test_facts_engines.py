"""What the engine study found, number by number, on small tables whose values are all different."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from said import missing, said_of

from kvprefix.report.facts import engines as facts_engines
from kvprefix.report.rounding import points
from kvprefix.studies.engines import CHAIN, list_engines
from kvprefix.traces.trace import make_trace_of

TOKENS = {  # pool -> case -> two seeds
    100: {
        "seen": (0.60, 0.62), "last_token": (0.58, 0.61), "outputs": (0.66, 0.70), "bounded": (0.41, 0.47),
        "vllm": (0.40, 0.42), "overlap": (0.37, 0.40), "vllm_prompts": (0.33, 0.36), "vllm_legacy": (0.405, 0.423),
        "sglang_page": (0.44, 0.45), "sglang_token": (0.40, 0.42),
    },
    7000: {
        "seen": (0.60, 0.62), "last_token": (0.58, 0.61), "outputs": (0.66, 0.70), "bounded": (0.63, 0.67),
        "vllm": (0.62, 0.65), "overlap": (0.625, 0.649), "vllm_prompts": (0.53, 0.56), "vllm_legacy": (0.59, 0.61),
        "sglang_page": (0.64, 0.67), "sglang_token": (0.65, 0.69),
    },
}  # fmt: skip
WAITS = {  # pool -> waited, mean, 99th percentile, preemptions of two seeds; prompts that never fit
    100: ((0.125, 0.375), (3.5, 5.5), (60.0, 80.0), (4, 8), (2, 4)), 7000: ((0, 0), (0, 0), (0, 0), (0, 0), (0, 0)),
}  # fmt: skip


def frame():
    rows, bases = [], {name: case.base for name, case in (list_engines() | CHAIN).items()}
    for pool, cases in TOKENS.items():
        for name, tokens in cases.items():
            for seed, token in enumerate(tokens):
                step = token - cases[bases[name]][seed] if bases[name] else np.nan
                ends = (token - 0.03, token + 0.05, step - 0.01, step + 0.02) if seed == 0 else [np.nan] * 4
                waits = [one[seed] for one in WAITS[pool][:4]] if name == "overlap" else [np.nan] * 4
                rows.append((seed, pool, name, token, *ends, *waits, WAITS[pool][4][seed]))
    return pd.DataFrame(rows, columns=[
        "seed", "pool", "case", "token", "low", "high", "step_low", "step_high", "waited", "wait_mean_s", "wait_p99_s",
        "preemptions", "never_fit",
    ])  # fmt: skip


def test_the_chain_s_table():
    table = facts_engines.tabulate_chain(frame()).set_index(["pool (blocks)", "case"])
    label = {name: case.label for name, case in CHAIN.items()}
    assert [case for _, case in table.index] == list(label.values()) * 2
    # Evictions at 100 blocks: 25 and 23 points less, mean -24; of the first seed -26 to -23, moved by 1 point.
    expected = {
        (100, "seen"): [0.61, 0.02 / 2**0.5, 0.58, 0.66],
        (100, "bounded"): [0.44, 0.06 / 2**0.5, 0.41, 0.49, -24, -25, -22],
        (100, "overlap"): [0.385, 0.03 / 2**0.5, 0.355, 0.435, -2.5, -3.5, -0.5],
        (7000, "outputs"): [0.68, 0.04 / 2**0.5, 0.65, 0.73, 8.5, 7.5, 10.5],
    }
    for (pool, name), row in expected.items():
        found = table.loc[(pool, label[name])].drop("verdict").dropna().astype(float).tolist()
        assert found == pytest.approx(row), (pool, name)
    assert table["verdict"].tolist() == [
        "–", "not separated", "higher", "lower", "lower", "lower", "–", "not separated", "higher", "lower",
        "not separated", "not separated",
    ]  # fmt: skip


def test_rates_and_waits_are_means_of_seeds_not_medians():
    third = frame()[lambda rows: rows["seed"] == 1].assign(seed=2)
    third["token"] += np.where(third["case"] == "bounded", 0.2, 0.02)
    third[["waited", "wait_mean_s", "wait_p99_s", "preemptions", "never_fit"]] *= 4
    both = pd.concat([frame(), third], ignore_index=True)
    row = facts_engines.tabulate_chain(both).iloc[3]
    assert row["token hit rate"] == pytest.approx((0.41 + 0.47 + 0.67) / 3)
    assert row["points"] == pytest.approx(100 * (-0.25 - 0.23 - 0.05) / 3)
    waits = facts_engines.tabulate_waits(both).iloc[0].tolist()
    assert waits == pytest.approx([100, 2 / 3, 31 / 3, 460 / 3, 44 / 3, 22 / 3])


def test_the_engines_are_compared_with_vllm():
    table = facts_engines.tabulate_engines(frame()).set_index(["pool (blocks)", "case"])
    points = table["points"].astype(float).round(6).tolist()
    assert points[1:5] == [-6.5, 0.4, 3.5, 0.0] and points[6:] == [-9.0, -3.5, 2.0, 3.5] and np.isnan(points[0])
    assert table["verdict"].tolist()[:5] == ["–", "lower", "not separated", "higher", "equal"]
    assert list(table)[:4] == ["token hit rate", "± sd", "95 % low", "95 % high"]
    text = said_of(facts_engines.facts_engines, frame())
    names = {name: case.label for name, case in list_engines().items()}
    assert not missing(
        text, f"With ~ 100 ~ blocks {names['vllm']} hits ~ 41.0 %",
        f"{names['vllm_prompts']} ~ 34.5 % ~ −6.50 ~ points: lower",
        f"{names['vllm_legacy']} ~ 41.4 % ~ +0.40 ~ points: not separated",
        f"{names['sglang_page']} ~ 44.5 % ~ +3.50 ~ points: higher",
        f"{names['sglang_token']} ~ 41.0 % ~ 0.00 ~ points: equal",
        f"With ~ 7,000 ~ blocks {names['vllm']} hits ~ 63.5 %",
        f"{names['sglang_token']} ~ 67.0 % ~ +3.50 ~ points: higher",
    )  # fmt: skip


def test_what_each_cause_costs():
    text = said_of(facts_engines.facts_chain, frame())
    case = {name: one.label for name, one in CHAIN.items()}
    assert not missing(
        text, "61.0 % ~ 60.0 % ~ 62.0 % ~ lie in leading full blocks",
        "With ~ 100 ~ blocks, ~ 61.0 % ~ become ~ 38.5 %",
        f"{case['last_token']} ~ −1.50 ~ not separated ~ {case['outputs']} ~ +8.50 ~ {case['bounded']} ~ −24.00",
        f"{case['bounded']} ~ −24.00 ~ {case['vllm']} ~ −3.00 ~ {case['overlap']} ~ −2.50",
        "With ~ 7,000 ~ blocks, ~ 61.0 % ~ become ~ 63.7 %", f"{case['overlap']} ~ +0.20 ~ not separated",
    )  # fmt: skip
    assert "−24.00 (" not in text


def test_who_waits():
    table = facts_engines.tabulate_waits(frame())
    assert table.iloc[0].tolist() == [100, 0.25, 4.5, 70, 6, 3] and table.iloc[1].tolist() == [7000, 0, 0, 0, 0, 0]
    assert list(table) == [
        "pool (blocks)", "requests that waited", "mean wait (s)", "99 % wait less than (s)", "preemptions",
        "prompts that never fit",
    ]  # fmt: skip
    text = said_of(facts_engines.facts_waits, frame())
    assert not missing(text, "with ~ 100 ~ blocks ~ 25.0 % ~ of the requests wait ~ 4.5 ~ s on average")
    assert "7,000" not in text
    assert "no request waits" in said_of(facts_engines.facts_waits, frame().query("pool == 7000"))


def test_the_accounting_agrees_with_the_rules_request_by_request():
    # Blocks of 2. The third prompt repeats the first and its output: with generated tokens cached it hits 2 blocks.
    trace = make_trace_of([[1, 2, 3], [1, 2, 9, 9], [1, 2, 3, 4, 5]], outputs=[[4, 5], [], []])
    text = said_of(facts_engines.facts_agreement, trace, 2)
    assert not missing(text, "3 ~ of ~ 3 ~ requests", "cached, for ~ 3")


def test_agreement_is_counted_for_each_accounting(monkeypatch):
    trace = make_trace_of([[1, 2, 3], [1, 2, 9, 9], [1, 2, 3, 4, 5]], outputs=[[4, 5], [], []])

    def make(block_size, outputs=True):  # counted are 0, 2, 2 and 0, 2, 4
        replayed = SimpleNamespace(hit_tokens=np.array([0, 0, 4] if outputs else [2, 0, 2]))
        return SimpleNamespace(replay=lambda trace: replayed)

    monkeypatch.setattr(facts_engines, "VLLM", make)
    assert not missing(said_of(facts_engines.facts_agreement, trace, 2), "1 ~ of ~ 3 ~ requests ~ cached, for ~ 2")


def test_the_pools():
    assert facts_engines.choose_pools(500_000, 16) == [2500, 10_000, 50_000, 170_000]
    assert facts_engines.choose_pools(123_456, 16) == [620, 2500, 12_000, 41_000]
    assert facts_engines.choose_pools(30_000, 16) == [512, 600, 3000, 10_000]  # 8,192 tokens are 512 blocks
    assert facts_engines.choose_pools(100, 4096) == [8, 10, 33]


def test_points_have_a_sign_but_zero():
    shown = [points(one) for one in (1.234, -1.236, 0.0, -0.004, 0.004, 0.006)]
    assert shown == ["+1.23", "−1.24", "0.00", "0.00", "0.00", "+0.01"]


def test_facts_are_numbers():
    facts = facts_engines.facts_chain(frame())
    assert facts["seen"] == pytest.approx({"mean": 0.61, "least": 0.6, "most": 0.62})
    assert [one["case"] for one in facts["causes"]] == [case.label for case in CHAIN.values() if case.base]
    first = facts["pools"][0]
    assert (first["blocks"], first["start"], first["end"]) == (100, pytest.approx(0.61), pytest.approx(0.385))
    assert [one["points"] for one in first["steps"]] == pytest.approx([-1.5, 8.5, -24, -3, -2.5])
    assert facts["engine"] == list_engines()["vllm"].label
    assert facts["overlap"] == [
        {"blocks": 100, "token_hit_rate": pytest.approx(0.385)},
        {"blocks": 7000, "token_hit_rate": pytest.approx(0.637)},
    ]  # fmt: skip
    assert facts_engines.facts_waits(frame()) == {"pools": [{"blocks": 100, "waited": 0.25, "mean_s": 4.5}]}
    facts = facts_engines.facts_engines(frame())["pools"][1]
    assert facts["token_hit_rate"] == pytest.approx(0.635) and len(facts["others"]) == len(list_engines()) - 1
    assert facts["others"][-1] == {
        "case": list_engines()["sglang_token"].label, "token_hit_rate": pytest.approx(0.67),
        "points": pytest.approx(3.5), "verdict": "higher",
    }  # fmt: skip
