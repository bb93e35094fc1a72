"""The sentences and tables of the report, number by number, against statistics of which no two are alike."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from said import make_stats, missing, said_of, says

from kvprefix.report.captions import caption_figure, state_conditions
from kvprefix.report.facts import sharing as facts_sharing
from kvprefix.report.tables import format_number
from kvprefix.stats.resampling import Resampled


def make_result(stats, prompts, hits, *, turns=None, shared=None, size=10, accesses=(), gaps=(), new_blocks=()):
    """Return a Result of requests with these hit blocks, and tokens shared with the previous turn."""
    n = len(prompts)
    requests = pd.DataFrame({"turn": [0] * n if turns is None else turns, "prompt_tokens": prompts})
    shared = np.zeros(n, np.int64) if shared is None else np.array(shared)
    trace = SimpleNamespace(requests=requests, tokens=SimpleNamespace(shared=shared), rows=np.arange(n))
    hit_tokens = size * np.array(hits)
    sharing = SimpleNamespace(
        block_size=size, prompt_tokens=np.array(prompts), hit_blocks=np.array(hits), hit_tokens=hit_tokens,
        sharing_fraction=hit_tokens / np.array(prompts), accesses=np.array(accesses, np.int64),
        gap_s=np.array(gaps, float), gap_new_blocks=np.array(new_blocks, np.int64),
    )  # fmt: skip
    return trace, sharing, stats, None


def test_captions_state_n_and_the_parameters():
    for text in (state_conditions(make_stats()), caption_figure("comparison", make_stats())):
        assert not missing(
            text, "1,334 ~ single-turn", "2,345 ~ multi-turn", "block size ~ 32 ~ tokens", "3.5 ~ conversations",
            "seed ~ 7",
        )  # fmt: skip


def test_why_multi_turn_shares():
    # Requests of 100, 200, 300, 400 tokens, blocks of 10: hits 2, 15, 21, 24 blocks = 20, 150, 210, 240 tokens.
    # The last three are later turns: 3 of 4 requests, 900 of 1,000 tokens; they find 75, 70 and 60 % cached, the first
    # one 20 %. Of 620 cached tokens 150 + 200 + 100 lie in what they share with their own earlier turn (capped by the
    # hits): 450 / 620 = 72.6 %. They leave 50, 90 and 160 tokens.
    result = make_result(
        {}, [100, 200, 300, 400], [2, 15, 21, 24], turns=[0, 1, 2, 1], shared=[0, 189, 205, 107]
    )
    assert not missing(
        said_of(facts_sharing.facts_multi_turn, result),
        "75.0 % ~ of the requests are second or later turns ~ 90.0 % ~ prompt tokens",
        "68.3 % ~ of its prompt is cached ~ 20.0 % ~ first turn",
        "72.6 % ~ earlier turn of the same conversation ~ 27.4 % ~ other",
        "leaves ~ 90 ~ tokens to compute at the median",
    )  # fmt: skip


def test_why_single_turn_shares():
    # Of 8 requests 5 hit two blocks of 10 tokens, 2 hit more, 1 hits fewer.
    stats = make_stats()["single_turn"]
    result = make_result(stats, [50] * 8, [2, 2, 2, 2, 2, 3, 4, 0])
    assert not missing(
        said_of(facts_sharing.facts_single_turn, result),
        "62.5 % ~ hit exactly ~ 2 ~ blocks ~ 20 ~ tokens ~ 25.0 % ~ more",
        "prompts have ~ 195 ~ tokens at the median", "mean sharing fraction ~ 12.1 %", "token hit rate ~ 8.7 %",
        "Without the template ~ 1.4 % ~ of a prompt ~ 2.7 % ~ of all tokens", "23 ~ conversations that equal",
    )  # fmt: skip
    one = make_result(stats, [50] * 3, [1, 1, 0])
    assert says(said_of(facts_sharing.facts_single_turn, one), "exactly ~ 1 ~ block (")


def test_what_the_gaps_mean():
    # Ten gaps: 3 within a minute (60 s counts), 5 within ten minutes, 8 within an hour; 2 beyond.
    gaps = [1, 2, 60, 61, 600, 601, 700, 3600, 3601, 9000]
    result = make_result(
        make_stats()["multi_turn"], [50], [0], gaps=gaps, new_blocks=[0, 10, 20, 30, 40, 50, 60, 70, 80, 190]
    )
    # New blocks: the median of the ten is 45; the 95th percentile lies 0.55 of the way from 80 to 190: 140.5.
    assert not missing(
        said_of(facts_sharing.facts_gaps, result), "within ~ 96 s ~ 46 s ~ each request",
        "30.0 % ~ within a minute ~ 50.0 % ~ within ten minutes ~ 80.0 % ~ within an hour",
        "for an hour ~ 20.0 % ~ of the reuses", "45 ~ new blocks ~ 450 ~ tokens ~ 140 ~ 1,405 ~ tokens",
        "fewer than ~ 45 ~ blocks",
    )  # fmt: skip


def test_how_often_blocks_are_used():
    # 250 distinct blocks: 60, 50, 40, then 247 of 2: 644 accesses, 2.576 each; the hottest hundredth is 60 + 50.
    stats = make_stats()
    hot = make_result(stats["multi_turn"], [9], [0], accesses=[2] * 200 + [40, 60, 50] + [2] * 47)
    few = make_result(stats["single_turn"], [9], [0], accesses=[3, 1, 6])
    text = said_of(facts_sharing.facts_hit_counts, {"single_turn": few, "multi_turn": hot})
    assert not missing(
        text,
        "single-turn mode ~ 98.4 % ~ of the ~ 3 ~ distinct blocks ~ mean ~ 3.33 ~ maximum ~ 6 ~ 1,334 ~ 60.0 %",
        "multi-turn mode ~ 80.0 % ~ of the ~ 250 ~ distinct blocks ~ mean ~ 2.58 ~ maximum ~ 60 ~ 2,345 ~ 17.1 %",
    )  # fmt: skip


def test_what_the_other_accountings_add():
    assert not missing(
        said_of(facts_sharing.facts_accountings, make_stats()),
        "single-turn mode ~ from ~ 8.7 % ~ to ~ 8.9 %",
        "template's own tokens are ~ 17.0 % ~ mean ~ 1.4 % ~ instead of ~ 12.1 %",
        "multi-turn mode ~ from ~ 36.6 % ~ to ~ 39.1 %",
        "template's own tokens are ~ 8.8 % ~ mean ~ 33.1 % ~ instead of ~ 40.1 %",
        "Turns that arrive before ~ 19",
    )  # fmt: skip


def test_the_table_of_both_modes():
    table, forms = facts_sharing.tabulate_comparison(make_stats())
    columns = ["single-turn", "± single-turn", "multi-turn", "± multi-turn"]
    shown = {
        row["measure"]: [format_number(row[name], form) for name in columns]
        for (_, row), form in zip(table.iterrows(), forms, strict=True)
    }  # fmt: skip
    assert shown == {
        "requests": ["1,334", "–", "2,345", "–"],
        "prompt tokens": ["200,000", "–", "1,000,000", "–"],
        "sharing fraction, mean (by request)": ["12.1 %", "–", "40.1 %", "1.2 %"],
        "sharing fraction, median (by request)": ["17.6 %", "–", "45.6 %", "1.7 %"],
        "sharing fraction, 95th percentile (by request)": ["19.8 %", "–", "47.8 %", "–"],
        "token hit rate (by token)": ["8.7 %", "0.7 %", "36.6 %", "1.4 %"],
        "block accesses": ["4,200", "–", "11,300", "–"],
        "distinct blocks": ["3,800", "–", "5,000", "–"],
        "block reuse rate (by access)": ["9.4 %", "–", "57.7 %", "1.8 %"],
        "blocks reused fraction (by block)": ["1.6 %", "–", "20.0 %", "1.1 %"],
        "block hit count, mean": ["1.11", "–", "2.31", "0.12"],
        "reuse gap, median (by block), s": ["21.00", "–", "96.00", "–"],
        "reuse gap, median (by request), s": ["12.50", "–", "46.00", "–"],
    }


def test_the_table_of_accountings():
    table = facts_sharing.tabulate_accountings(make_stats()).set_index(["mode", "cached and counted"])
    multi = table.loc["multi-turn"]
    assert multi.round(6).to_numpy().tolist() == [
        [0.401, 0.012, 0.456, 0.366, 0.014], [0.521, 0.015, 0.576, 0.391, 0.013], [0.331, 0.019, 0.386, 0.352, 0.016],
    ]  # fmt: skip
    assert list(multi.index) == [
        "prompts only", "prompts and generated tokens", "prompts without the template's tokens",
    ]  # fmt: skip
    assert list(multi) == ["mean sharing fraction", "± mean", "median sharing fraction", "token hit rate", "± rate"]
    assert table.loc["single-turn"]["token hit rate"].tolist() == [0.087, 0.089, 0.027]
    assert [facts_sharing.PERCENTS[name](0.5) for name in multi] == ["50.0 %"] * 5


def test_differences_are_in_points_with_their_own_interval():
    # Draws: single-turn 0 to 0, multi-turn evenly from -0.1 to 0.9: the differences' 2.5th and 97.5th percentiles are
    # -0.075 and 0.875. Of the block hit count they are accesses, not points.
    stats, steps = make_stats(), np.linspace(-0.1, 0.9, 1001)
    names = list(stats["multi_turn"]["intervals"])
    multi = Resampled(pd.DataFrame(dict.fromkeys(names, steps)), None, 5)
    multi.rates["token_hit_rate"] = steps + 0.2  # 0.125 to 1.075
    single = Resampled(pd.DataFrame(dict.fromkeys(names, 0 * steps)), None, 5)
    results = {
        mode: SimpleNamespace(stats=stats[mode], resampled=one)
        for mode, one in (("single_turn", single), ("multi_turn", multi))
    }
    table = facts_sharing.tabulate_differences(results).set_index(["what", "rate"])
    first = table.loc["multi-turn"].astype({"difference": float, "low": float, "high": float})
    assert (first["against"] == "single-turn").all()
    assert first["difference"].round(9).to_dict() == {
        "mean sharing fraction": 28.0, "median sharing fraction": 28.0, "token hit rate": 27.9,
        "block reuse rate": 48.3, "blocks reused fraction": 18.4, "mean block hit count": 1.2,
    }  # fmt: skip
    assert first.loc["mean sharing fraction", ["low", "high"]].tolist() == pytest.approx([-7.5, 87.5])
    assert first.loc["token hit rate", ["low", "high"]].tolist() == pytest.approx([12.5, 107.5])
    assert first.loc["mean block hit count", ["low", "high"]].tolist() == pytest.approx([-0.075, 0.875])
    assert first["verdict"].tolist() == ["not separated", "not separated", "higher", *["not separated"] * 3]
    kept, bare = (table.loc[f"multi-turn, {name}"] for name in ("generated tokens too", "no template"))
    assert set(kept["against"]) == {"prompts only"}
    assert kept["difference"].astype(float).round(9).tolist() == [12.0, 2.5]
    assert bare["difference"].astype(float).round(9).tolist() == [-7.0, -1.4]
    assert kept.loc["token hit rate", "low"] == pytest.approx(-20) == kept.loc["token hit rate", "high"]
    text = said_of(facts_sharing.facts_differences, table.reset_index())
    assert says(text, "2 ~ of ~ 14 ~ differences") and "token hit rate of multi-turn against" not in text
    alone = {mode: SimpleNamespace(stats=one.stats, resampled=one.resampled._replace(conversations=1))
             for mode, one in results.items()}  # fmt: skip
    assert set(facts_sharing.tabulate_differences(alone)["verdict"]) == {"not separated"}


def test_what_is_equal_is_told_from_what_is_not_separated():
    rows = [("multi-turn", "single-turn", "a", v) for v in ("higher", "lower", "lower", "equal", "not separated")]
    table = pd.DataFrame(rows, columns=["what", "against", "rate", "verdict"])
    table["rate"] = ["r1", "r2", "r3", "r4", "r5"]
    text = said_of(facts_sharing.facts_differences, table)
    assert says(text, "3 ~ of ~ 5 ~ differences")
    assert "Equal: r4 of multi-turn" in text and "zero: r5 of multi-turn" in text


def test_the_facts_of_both_modes_are_those_of_their_statistics():
    # 100 accesses of 40 distinct blocks, a quarter of which are reused: 30 once, so 10 blocks have 70 accesses
    mode = {
        "dataset": {"conversations": 3, "records_read": 5, "skipped": {"a": 1, "b": 1}}, "requests": 4,
        "token_hit_rate": 0.6, "sharing_fraction": {"mean": 0.5, "median": 0.4}, "block_hit_count": {},
        "with_generated_tokens": {"token_hit_rate": 0.8}, "blocks": {"accesses": 100, "distinct": 40},
        "without_template_tokens": {
            "prompt_tokens": {"total": 9}, "token_hit_rate": 0.2, "sharing_fraction": {"mean": 0.1},
        },
        "blocks_reused_fraction": 0.25, "reuse_gap_s": {"median": 7.0},
    }  # fmt: skip
    single = {**mode, "token_hit_rate": 0.3, "sharing_fraction": {"mean": 0.25}, "with_generated_tokens": None}
    assert facts_sharing.facts_sharing({"single_turn": single, "multi_turn": mode}) == {
        "calls": 0, "lower_bound": False,
        "conversations": 3, "records_read": 5, "records_skipped": 2, "requests": 4, "token_hit_rate": 0.6,
        "sharing_mean": 0.5, "sharing_median": 0.4, "with_generated": 0.8, "single_token_hit_rate": 0.3,
        "single_sharing_mean": 0.25, "bare_token_hit_rate": 0.2, "bare_sharing_mean": 0.1, "never_reused": 0.75,
        "accesses_if_reused": 7.0, "gap_median_s": 7.0,
    }  # fmt: skip
    none = {**mode, "blocks_reused_fraction": None, "blocks": {"accesses": 0, "distinct": 0}}
    taken = facts_sharing.facts_sharing({"single_turn": single, "multi_turn": none})
    assert taken["never_reused"] is taken["accesses_if_reused"] is taken["gap_median_s"] is None


def test_facts_are_numbers():
    # As above: hits of 20, 150, 210, 240 of 100, 200, 300, 400 tokens; the last three are later turns.
    result = make_result({}, [100, 200, 300, 400], [2, 15, 21, 24], turns=[0, 1, 2, 1], shared=[0, 189, 205, 107])
    facts = facts_sharing.facts_multi_turn(result)
    assert facts == pytest.approx({
        "later": 0.75, "later_tokens": 0.9, "later_sharing": (0.75 + 0.7 + 0.6) / 3, "first_sharing": 0.2,
        "own": 450 / 620, "others": 170 / 620, "left_tokens": 90,
    })  # fmt: skip
    assert facts_sharing.facts_multi_turn(make_result({}, [100], [2])) == {"later": 0}
    facts = facts_sharing.facts_accountings(make_stats())["modes"][1]
    assert facts == {
        "mode": "multi-turn", "prompts_only": 0.366, "with_generated": 0.391, "template": pytest.approx(0.088),
        "sharing_mean": 0.401, "bare_sharing_mean": 0.331,
    }  # fmt: skip
    assert facts_sharing.facts_gaps(make_result({}, [50], [0])) == {"gaps": 0}
    few = make_result(make_stats()["single_turn"], [9], [0], accesses=[3, 1, 6])
    assert facts_sharing.facts_hit_counts({"single_turn": few})["modes"] == [{
        "mode": "single-turn", "blocks": 3, "once": 0.984, "mean": pytest.approx(10 / 3), "most": 6, "requests": 1334,
        "hottest": 0.6,
    }]  # fmt: skip
