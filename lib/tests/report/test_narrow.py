"""The narrow forms of tables: at most five columns, and what each cell says."""

import pandas as pd
import pytest

from kvprefix.report.facts import narrow
from kvprefix.report.facts.sharing import tabulate_comparison
from kvprefix.report.tables import NARROW, show_cells


def show(made):
    """Return the rows of a Narrow as they are shown, after looking that it is narrow."""
    shown = show_cells(made.frame, made.formats)
    assert len(shown["head"]) <= NARROW
    return shown["rows"]


def test_an_estimate_keeps_its_interval_in_a_table_and_shows_it():
    frame = pd.DataFrame({"rate": [0.5, None], "low": [0.45, None], "high": [0.56, None]})
    column = narrow._estimates(frame, "rate", "low", "high")
    assert list(column) == [0.5, None] and column[0].high == 0.56
    assert narrow.show_estimate(".1f", 100)(narrow.Estimate(-0.5, -0.56, 0.0)) == "−50.0 [−56.0, 0.0]"
    assert narrow.show_estimate(".1f")(narrow.Estimate(2, mark="↑ ")) == "↑ 2.0"


def test_policies_are_a_matrix_with_an_arrow_where_they_differ_from_lru():
    sizes, rates = (10, 20, 40, 80, 160), {"LRU": ("–", 0.1), "LFU": ("worse", 0.05), "X": ("not separated", 0.101)}
    frame = pd.DataFrame([
        {"blocks": size, "policy": name, "token hit rate": rate, "verdict": verdict}
        for size in sizes for name, (verdict, rate) in rates.items()
    ])  # fmt: skip
    made = narrow.narrow_policies(frame)
    assert list(made.frame.columns) == ["policy", "10", "20", "80", "160"]  # the middle one of five is left out
    assert show(made) == [["LRU", *["10.0"] * 4], ["LFU", *["↓ 5.0"] * 4], ["X", *["10.1"] * 4]]
    assert made.notes[-1] == "Not shown: 40 blocks."


@pytest.mark.parametrize("build", [narrow.narrow_chain, narrow.narrow_engines, narrow.narrow_hybrids])
def test_causes_and_engines_are_a_matrix_over_pools(build):
    frame = pd.DataFrame({
        "pool (blocks)": [500, 500, 2000, 2000], "case": ["a", "b"] * 2, "token hit rate": [0.1, 0.2, 0.3, 0.2],
        "verdict": ["–", "higher", "–", "lower"],
    })  # fmt: skip
    made = build(frame)
    assert show(made) == [["a", "10.0", "30.0"], ["b", "↑ 20.0", "↓ 20.0"]]
    assert made.notes[0] == "Token hit rate in percent; columns: blocks of the pool." and len(made.notes) == 2


def test_a_pool_may_have_a_name():
    frame = pd.DataFrame({"pool (blocks)": ["500", "no bound"], "case": "a", "token hit rate": [0.1, 0.3]})
    made = narrow.narrow_hybrids(frame.assign(verdict="–"))
    assert list(made.frame.columns) == ["case", "500", "no bound"] and show(made) == [["a", "10.0", "30.0"]]


def test_differences_share_a_cell_with_their_interval_and_the_base_is_a_note():
    frame = pd.DataFrame({"what": ["multi", "bare"], "against": ["single", "prompts only"], "rate": ["r", "s"],
                          "difference": [1.234, -0.001], "low": [0.8, -0.1], "high": [1.6, 0.1]})  # fmt: skip
    made = narrow.narrow_differences(frame)
    assert show(made) == [["multi", "r", "+1.23 [0.80, 1.60]"], ["bare", "s", "0.00 [−0.10, 0.10]"]]
    assert made.notes[:2] == ("Against single: multi.", "Against prompts only: bare.")


def test_clocks_show_rate_and_difference():
    frame = pd.DataFrame({"blocks": [1000, 1000], "variant": ["naive", "causal"], "token hit rate": [0.6, 0.2],
                          "± sd": 0.0, "95 % low": 0.1, "95 % high": 0.7, "against causal": [40.0, 0.0],
                          "low": [39.0, None], "high": [41.0, None], "verdict": ["higher", "–"]})  # fmt: skip
    assert show(narrow.narrow_variants(frame)) == [
        ["1,000", "naive", "60.0", "+40.00 [39.00, 41.00]"], ["1,000", "causal", "20.0", "0.00"],
    ]  # fmt: skip


def test_the_comparison_has_half_of_the_interval_beside_each_number_and_the_unit_last():
    summary = {"mean": 0.5, "median": 0.25, "p95": 1.0}
    one = {"requests": 1200, "prompt_tokens": {"total": 5000}, "sharing_fraction": summary, "token_hit_rate": 0.4,
           "blocks": {"accesses": 10, "distinct": 5}, "block_reuse_rate": 0.5, "blocks_reused_fraction": None,
           "block_hit_count": {"mean": 2.0}, "reuse_gap_s": {"median": 3.0},
           "reuse_gap_s_request_weighted": {"median": None},
           "intervals": {"token_hit_rate": [0.38, 0.43], "block_hit_count.mean": [1.9, 2.1]}}  # fmt: skip
    table, formats = tabulate_comparison({"single_turn": one, "multi_turn": one})
    rows = {row[0]: row[1] for row in show(narrow.narrow_comparison(table, formats))}
    assert rows["requests"] == "1,200" and rows["token hit rate (by token)"] == "40.0 ± 2.5 %"
    assert rows["block hit count, mean"] == "2.00 ± 0.10" and rows["blocks reused fraction (by block)"] == "–"


def test_equal_memory_takes_the_interval_into_the_cell():
    frame = pd.DataFrame({"block size": [1, 16], "LRU, 3,000 tokens": [0.093, 0.082], "± sd, 3,000": 0.01,
                          "95 %, 3,000": ["6.1–12.8", "5.0–11.8"]})  # fmt: skip
    made = narrow.narrow_equal_memory(frame)
    assert list(made.frame.columns) == ["block size", "3,000 tokens"]
    assert show(made) == [["1", "9.3 [6.1, 12.8]"], ["16", "8.2 [5.0, 11.8]"]]


def test_what_capacities_need_has_the_range_over_seeds():
    frame = pd.DataFrame({"share of the unbounded rate": ["50.0 %"], "blocks: mean": [1567], "least": [1309],
                          "most": [1838], "tokens: mean": [25074], "GiB, M": [3.06]})  # fmt: skip
    assert show(narrow.narrow_needs(frame)) == [["50.0 %", "1,567 [1,309, 1,838]", "25,074", "3.1"]]


def test_sources_of_models_are_a_note():
    page = "https://huggingface.co/a/B-7b/blob/main/config.json"
    frame = pd.DataFrame({"model": ["B", "mine"], "attention": ["GQA", "MHA"], "bytes per token": [131072, 8],
                          "GiB for 95 %": [17.4, 0.01], "source": [page, "my/config.json"]})  # fmt: skip
    made = narrow.narrow_models(frame)
    assert show(made)[0] == ["B", "GQA", "131,072", "17.4"]
    mean, sources = made.notes
    assert "with windows or states" in mean and "the mean of a sequence of 8,192 tokens" in mean
    assert sources == "Sources (config.json at huggingface.co): a/B-7b, my/config.json."


def test_waits_leave_what_never_fits_to_a_note():
    frame = pd.DataFrame({
        "pool (blocks)": [500], "requests that waited": [0.615], "mean wait (s)": [32.0],
        "99 % wait less than (s)": [97.77], "preemptions": [407.0], "prompts that never fit": [1],
    })  # fmt: skip
    made = narrow.narrow_waits(frame)
    assert show(made) == [["500", "61.5", "32.00", "97.77", "407"]]
    assert made.notes == ("Prompts that never fit, by pool: 1.",)


def test_the_rest_is_chosen_columns_in_percent():
    sizes = pd.DataFrame({"block size": [16], "token hit rate": [0.6], "mean sharing fraction": [0.5],
                          "block reuse rate": [0.7], "tokens lost per request": [8.12]})  # fmt: skip
    assert show(narrow.narrow_block_sizes(sizes)) == [["16", "60.0", "50.0", "70.0", "8.1"]]
    margin = pd.DataFrame({"blocks": [100], "tokens": [1600], "GiB, M": [0.2], "token hit rate": [0.058],
                           "95 % low": [0.033], "95 % high": [0.088], "points per further GiB": [13.7]})  # fmt: skip
    assert show(narrow.narrow_margin(margin)) == [["100", "0.2", "5.8 [3.3, 8.8]", "13.7"]]
    che = pd.DataFrame({"variant": ["2 /s"], "blocks": [392], "characteristic time (s)": [7.04], "simulated": [0.047],
                        "points off": [-0.03], "assumption": ["does not hold"]})  # fmt: skip
    made = narrow.narrow_characteristic(che)
    assert show(made) == [["2 /s", "392", "7.0", "4.7", "−0.03"]]
    assert made.notes == ("The assumption does not hold for 2 /s with 392 blocks.",)
    lengths = pd.DataFrame({"mode": ["multi-turn"], "tokens": ["prompt"], "total": [5000], "mean": [230.4], "p5": [1],
                            "median": [54], "p95": [1040], "p99": [3], "max": [4]})  # fmt: skip
    assert show(narrow.narrow_lengths(lengths)) == [["multi-turn, prompt", "5,000", "230", "54", "1,040"]]
