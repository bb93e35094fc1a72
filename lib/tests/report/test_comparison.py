"""A comparison of reports: right differences, right pairing, verdicts that hold, and everything written."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from samples import INST_TEMPLATE, save_small_tokenizer
from small_reports import change_json, chats, make_report

from kvprefix.__main__ import main
from kvprefix.report.comparison import curves
from kvprefix.report.comparison.differences import Beside, narrow_table, tabulate
from kvprefix.report.comparison.findings import compare_findings, pick_findings
from kvprefix.report.comparison.parts import compare_plans
from kvprefix.report.comparison.read import Report, read_report
from kvprefix.report.comparison.write import compare, compare_reports, describe
from kvprefix.report.facts.answer import PLAN
from kvprefix.report.rounding import percent
from kvprefix.report.tables import show_cells

MODES = ("single_turn", "multi_turn")


@pytest.fixture(scope="module")
def reports(shared_derived, small_folder, tmp_path_factory):
    """Return folders of reports, by name; each differs from `base` in what its name says."""
    top = tmp_path_factory.mktemp("reports")
    other_template = save_small_tokenizer(top / "other-template", INST_TEMPLATE)
    data = str(make_report(top / "base", small_folder, studies=True).parent / "base.json")
    return {
        "base": top / "base",
        "seed": make_report(top / "seed", small_folder, data=data, seed=1, studies=True),
        "blocks": make_report(top / "blocks", small_folder, data=data, block_size=32, studies=True),
        "template": make_report(top / "template", other_template, data=data),
        "data": make_report(top / "data", small_folder, chats(30, first=100)),
        "half": make_report(top / "half", small_folder, data=data, max_conversations=15, seed=2),
    }


def compare_folders(*folders):
    found = compare([read_report(folder, label) for label, folder in zip("abcdef", folders, strict=False)])
    return found, json.loads(json.dumps(describe(found)))


def read_rows(folder, mode):
    with open(folder / f"{mode}_request_metrics.csv", newline="") as file:
        return {(row["conversation_id"], row["turn"]): row for row in csv.DictReader(file)}


def recompute(rows):
    """Return rates of request rows, in plain Python."""
    cached, prompt = ([int(row[name]) for row in rows] for name in ("cached_tokens", "prompt_tokens"))
    fractions = sorted(c / p for c, p in zip(cached, prompt, strict=True))
    n, known = len(rows), [row for row in rows if row["prompt_tokens_no_template"]]
    bare = [sum(int(row[name]) for row in known) for name in ("cached_tokens_no_template", "prompt_tokens_no_template")]
    return {
        "token_hit_rate": sum(cached) / sum(prompt),
        "with_generated_tokens.token_hit_rate": sum(int(r["cached_tokens_with_generated"]) for r in rows) / sum(prompt),
        "without_template_tokens.token_hit_rate": bare[0] / bare[1] if known else None,
        "sharing_fraction.mean": sum(fractions) / n,
        "sharing_fraction.median": (fractions[(n - 1) // 2] + fractions[n // 2]) / 2,
        "tokens_left.mean": (sum(prompt) - sum(cached)) / n,
    }


def recompute_blocks(folder, mode):
    with open(folder / f"{mode}_block_metrics.csv", newline="") as file:
        accesses = [int(row["accesses"]) for row in csv.DictReader(file)]
    total, distinct = sum(accesses), len(accesses)
    return {"block_reuse_rate": (total - distinct) / total, "block_hit_count.mean": total / distinct,
            "blocks_reused_fraction": sum(one > 1 for one in accesses) / distinct}  # fmt: skip


@pytest.mark.parametrize("name", ["base", "seed", "blocks", "template", "data", "half"])
def test_rates_and_differences_equal_a_twin(reports, name):
    folders = reports["base"], reports[name]
    found = compare_folders(*folders)[1]
    for mode in MODES:
        rows = [read_rows(folder, mode) for folder in folders]
        twins = [
            recompute(list(some.values())) | recompute_blocks(folder, mode)
            for some, folder in zip(rows, folders, strict=True)
        ]  # fmt: skip
        measures = {one["rate"]: one for one in found["rates"] if one["mode"] == mode}
        assert measures.keys() == twins[0].keys()
        for rate, one in measures.items():
            assert one["values"] == {label: pytest.approx(twin[rate]) for label, twin in zip("ab", twins, strict=True)}
            difference = twins[1][rate] - twins[0][rate]
            assert one["against"]["b"]["difference"] == pytest.approx(difference, abs=1e-9), rate
        common = rows[0].keys() & rows[1].keys()
        (pair,) = found["pairs"][mode]
        names = [{conversation for conversation, _ in some} for some in rows]
        assert pair["conversations_common"] == len(names[0] & names[1])
        assert pair["conversations_only_in_first"] == len(names[0] - names[1])
        assert pair["conversations_only_in_report"] == len(names[1] - names[0])
        more = [int(rows[1][key]["cached_tokens"]) - int(rows[0][key]["cached_tokens"]) for key in common]
        counts = [sum(one > 0 for one in more), sum(one < 0 for one in more), sum(one == 0 for one in more)]
        assert [pair[f"requests_with_{what}_cached"] for what in ("more", "fewer", "equal")] == counts
        lengths = sum(rows[0][key]["prompt_tokens"] == rows[1][key]["prompt_tokens"] for key in common)
        assert pair["requests_common"] == len(common) and pair["requests_with_equal_prompts"] == lengths


def test_common_requests_equal_a_twin(reports):
    found = compare_folders(reports["base"], reports["half"])[1]
    assert {one["report"] for one in found["common_requests"]} == {"b"}
    for mode in MODES:
        rows = [read_rows(reports[name], mode) for name in ("base", "half")]
        common = sorted(rows[0].keys() & rows[1].keys())
        twins = [recompute([some[key] for key in common]) for some in rows]
        measures = {one["rate"]: one for one in found["common_requests"] if one["mode"] == mode}
        for rate in twins[0]:
            values = {label: pytest.approx(twin[rate]) for label, twin in zip("ab", twins, strict=True)}
            assert measures[rate]["values"] == values, rate
            assert measures[rate]["against"]["b"]["interval"] == "paired"
    whole = [compare_folders(reports["base"], reports[name])[1]["common_requests"] for name in ("seed", "data")]
    assert whole == [[], []]  # all are common, or none


def verdicts(found, label="b"):
    lists = ("rates", "lru", "policies", "engines")
    return {one["against"][label]["verdict"] for name in lists for one in found[name]} - {None}


def test_a_run_and_itself_have_no_difference(reports):
    all_, found = compare_folders(reports["base"], reports["base"])
    assert found["verdicts"] == {"b": "no difference"} and verdicts(found) == {"equal"}
    assert not found["parameters"]["differ"] and found["parameters"]["things"] == {"b": []}
    assert found["findings"]["facts"] > 3 and not found["findings"]["differ"]
    assert all(found[name] for name in ("lru", "policies", "engines"))
    assert {one["what"] for one in found["policies"]} == {"LRU", "OPT", "TTL", "Pinned prompts", "Sessions"}


def test_two_seeds_are_not_separated(reports):
    found = compare_folders(reports["base"], reports["seed"])[1]
    assert found["verdicts"] == {"b": "not separated"}
    assert found["parameters"]["things"] == {"b": ["seed"]} and found["parameters"]["differ"] == {"seed": [0, 1]}
    assert verdicts(found) == {"equal", "not separated"}
    unmoved = {"token_hit_rate", "block_reuse_rate", "block_hit_count.mean", "blocks_reused_fraction"}
    assert {one["against"]["b"]["verdict"] for one in found["rates"]
            if one["rate"] in unmoved - {"token_hit_rate"}} == {"equal"}  # fmt: skip


def test_two_block_sizes_differ_in_one_thing_and_at_equal_memory(reports):
    found = compare_folders(reports["base"], reports["blocks"])[1]
    assert found["verdicts"] == {"b": "different"} and found["parameters"]["things"] == {"b": ["block_size"]}
    multi = {one["rate"]: one["against"]["b"] for one in found["rates"] if one["mode"] == "multi_turn"}
    assert multi["token_hit_rate"]["verdict"] == "lower" and multi["token_hit_rate"]["high"] < 0
    assert multi["tokens_left.mean"]["verdict"] == "higher" and multi["token_hit_rate"]["interval"] == "paired"
    for one in found["lru"]:
        assert one["against"]["b"]["interval"] == "over arrival times"
        tokens = one["memory (tokens)"]
        assert all(0 < value < 1 for value in one["values"].values()) and tokens > 0
    assert {one["memory (tokens)"] for one in found["engines"]} == {4096}


def test_lru_at_equal_memory_equals_the_curves_own_numbers(reports):
    found = compare_folders(reports["base"], reports["blocks"])[1]
    for label, size, name in (("a", 16, "base"), ("b", 32, "blocks")):
        curves = {}
        with open(reports[name] / "figures/40-lru-curve.csv", newline="") as file:
            for row in csv.DictReader(file):
                if row["what"] != "lru":
                    continue
                curves.setdefault(row["seed"], []).append((int(row["capacity_blocks"]) * size, float(row["token"])))
        for one in found["lru"]:
            rates = []
            for points in curves.values():
                below = max(point for point in points if point[0] <= one["memory (tokens)"])
                above = min(point for point in points if point[0] >= one["memory (tokens)"])
                part = 0.0
                if above[0] > below[0]:
                    part = np.log(one["memory (tokens)"] / below[0]) / np.log(above[0] / below[0])
                rates.append(below[1] + part * (above[1] - below[1]))
            assert one["values"][label] == pytest.approx(sum(rates) / len(rates))


def test_origins_and_causes_stand_side_by_side(reports):
    found = compare_folders(reports["base"], reports["blocks"])[0]
    sums = {sort: {label: sum(one.values[label] for one in found.parts if one.keys["sort"] == sort) for label in "ab"}
            for sort in ("origin", "cause")}  # fmt: skip
    for label, report in zip("ab", found.reports, strict=True):
        rate = report.stats["multi_turn"]["token_hit_rate"]
        assert sums["origin"][label] == pytest.approx(rate, abs=1e-6)
        assert sums["cause"][label] == pytest.approx(1 - rate, abs=1e-6)
    (one,) = [one for one in found.parts if one.more["name"] == "sub_block_inside"]
    assert one.values["b"] > one.values["a"] and one.against["b"]["verdict"] == "higher"  # blocks of 32, not of 16
    assert compare_folders(reports["base"], reports["half"])[0].parts == []  # the second has no such notebooks


def test_another_template_makes_other_prompts_and_says_so(reports, tmp_path):
    path, facts = compare_reports([reports["base"], reports["template"]], tmp_path / "out")
    found = json.loads((path / "comparison.json").read_text())
    assert found["parameters"]["things"] == {"template": ["tokenizer"]}
    (pair,) = found["pairs"]["multi_turn"]
    assert pair["requests_with_equal_prompts"] < pair["requests_common"] and not pair["conversations_only_in_first"]
    page = (path / "report.md").read_text()
    assert "makes other prompts of the same messages" in page and "Warning" not in page
    assert "LRU curves: template: notebook 40-cache-size has not run" in page


def test_other_data_have_no_conversation_in_common(reports):
    all_, found = compare_folders(reports["base"], reports["data"])
    assert found["parameters"]["things"] == {"b": ["data"]}
    assert {one["against"]["b"]["interval"] for one in found["rates"]} == {"unpaired"}
    assert all(pair[0]["requests_common"] == 0 for pair in found["pairs"].values())


def test_a_log_with_another_name_is_no_difference(reports, small_folder, tmp_path):
    (tmp_path / "same.json").write_bytes((reports["base"].parent / "base.json").read_bytes())
    make_report(tmp_path / "renamed", small_folder, data=str(tmp_path / "same.json"))
    all_, found = compare_folders(reports["base"], tmp_path / "renamed")
    assert found["parameters"]["things"] == {"b": []} and "data" in found["parameters"]["differ"]
    assert found["verdicts"] == {"b": "no difference"}


def test_several_things_are_a_warning(reports, tmp_path):
    path, _ = compare_reports([reports["base"], reports["half"]], tmp_path / "out")
    assert "**Warning: half and base differ in 2 things (max\\_conversations, seed).**" in re.sub(
        r"(?<!\\)_", r"\\_", (path / "report.md").read_text()
    )


def test_any_number_of_reports_is_written_whole_and_again_the_same(reports, tmp_path):
    given = [reports[name] for name in ("base", "seed", "blocks", "template", "base")]
    contents = []
    for _ in range(2):
        path, facts = compare_reports(given, tmp_path / "out")
        contents.append({one.relative_to(path): one.read_bytes() for one in path.rglob("*") if one.is_file()})
    assert contents[0] == contents[1] and [one.name for one in tmp_path.iterdir()] == ["out"]
    assert {one.name for one in path.iterdir()} == {
        "report.md", "report.html", "comparison.json", "figures", "tables", "paper"
    }  # fmt: skip
    found = json.loads(contents[0][(path / "comparison.json").relative_to(path)])
    assert found["reports"] == ["base", "seed", "blocks", "template", "base (2)"]
    assert found["verdicts"]["base (2)"] == "no difference"
    assert [one["report"] for one in facts["pairs"]] == found["reports"][1:]
    with open(path / "tables/90-main.csv", newline="") as file:
        assert len(next(csv.reader(file))) <= 5
    assert {one["values"].keys() >= set("ab") for one in found["rates"]} == {False}
    pictures = len(list((path / "figures").glob("*.png")))
    assert (path / "report.html").read_text().count("<img ") == pictures


def test_a_changed_value_changes_its_sentence(reports):
    from kvprefix.report.facts.comparison import facts_compared
    from kvprefix.report.words import say

    all_, _ = compare_folders(reports["base"], reports["blocks"])
    facts = facts_compared(all_.reports, all_.measures, all_.lru_measures, all_.findings)
    text = say("compared.md", facts)
    assert "**b** against **a**: **different.**" in text and ", lower." in text
    for name, value in {"higher": 77, "lower": 88, "rate": 0.123, "points": -9.87}.items():
        assert say("compared.md", {**facts, "pairs": [{**facts["pairs"][0], name: value}]}) != text
    same, _ = compare_folders(reports["base"], reports["base"])
    said = say("compared.md", same.facts["compared"])
    assert "**no difference.**" in said and "No parameter that changes a measure differs." in said


def test_the_reference_names_every_key(reports):
    from places import LIB

    found = compare_folders(reports["base"], reports["half"], reports["blocks"])[1]
    page = (LIB / "docs/reference/files.md").read_text().partition("## A comparison")[2]

    def check(content):
        for name, value in content.items():
            assert f"`{name}`" in page or f".{name}`" in page, name
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict) and name not in ("values", "against", "ranges", "verdicts", "things"):
                    check(one)

    check({name: one for name, one in found.items() if name not in ("parameters", "pairs")})
    check({name: {} for name in found["parameters"]} | found["pairs"]["multi_turn"][0])
    assert found["findings"]["differ"]
    check(found["rates"][0]["against"]["b"] | found["findings"]["differ"][0] | {"ranges": {}, "report": ""})


def test_a_report_made_before_the_accountings_were_kept_is_compared_with_wider_intervals(reports, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    for path in reports["blocks"].glob("*_*.*"):
        (old / path.name).write_bytes(path.read_bytes())
    for mode in MODES:
        lines = (old / f"{mode}_request_metrics.csv").read_text().splitlines()
        (old / f"{mode}_request_metrics.csv").write_text("\n".join(line.rsplit(",", 3)[0] for line in lines) + "\n")
    found = compare_folders(reports["base"], old)[1]
    new = compare_folders(reports["base"], reports["blocks"])[1]
    for one, other in zip(found["rates"], new["rates"], strict=True):
        apart = one["rate"].startswith("with") and "tokens.token_hit_rate" in one["rate"]
        assert one["against"]["b"]["interval"] == ("of both intervals" if apart else "paired")
        if apart:
            assert one["values"] == other["values"]
            widths = [some["against"]["b"]["high"] - some["against"]["b"]["low"] for some in (one, other)]
            assert widths[0] > widths[1]


def test_the_command_says_the_verdicts(reports, tmp_path, capsys):
    given = [str(reports["base"]), str(reports["seed"])]
    assert main(["compare", *given, "--out", str(tmp_path / "x")]) == 0
    said = capsys.readouterr().out
    assert said == f"seed against base: not separated\nthe comparison is in {tmp_path / 'x'}\n"


def test_a_report_of_one_conversation_separates_nothing(small_folder, tmp_path):
    for name, size in (("one", 16), ("two", 4)):
        make_report(tmp_path / name, small_folder, chats(1), block_size=size)
    found = compare_folders(tmp_path / "one", tmp_path / "two")[1]
    assert verdicts(found) <= {"equal", "not separated"}


def test_rates_that_one_report_lacks_have_no_verdict(reports, small_folder, tmp_path):
    make_report(tmp_path / "large", small_folder, data=str(reports["base"].parent / "base.json"), block_size=100_000)
    found = compare_folders(reports["base"], tmp_path / "large")[1]
    rates = {one["rate"]: one for one in found["rates"] if one["mode"] == "multi_turn"}
    assert rates["block_reuse_rate"]["values"]["b"] is None
    assert rates["block_reuse_rate"]["against"]["b"]["verdict"] is None
    assert rates["token_hit_rate"]["values"]["b"] == 0 and rates["token_hit_rate"]["against"]["b"]["verdict"] == "lower"
    compare_reports([reports["base"], tmp_path / "large"], tmp_path / "out")
    change_json(tmp_path / "large/multi_turn_stats.json", lambda stats: stats.update(requests_without_reply=0))


def beside(values, differences, share=True):
    first, *others = values
    against = {
        label: {"difference": one, "low": one and one - 0.01, "high": one and one + 0.01, "verdict": "lower"}
        for label, one in zip(others, differences, strict=True)
    }
    return Beside({"measure": "rate"}, values, against, share)


def test_tables_of_two_and_of_more_reports_show_what_was_found():
    two, more = beside({"a": 0.5, "b": 0.4}, [-0.1]), beside({"a": 0.5, "b": None, "c": 0.4}, [None, -0.1])
    wide = tabulate([two]).iloc[0]
    assert wide["difference"] == pytest.approx(-10) and wide["95 % low"] == pytest.approx(-11)
    assert list(wide.index) == ["measure", "a", "b", "difference", "95 % low", "95 % high", "verdict"]
    narrow = narrow_table([two], percent)
    assert show_cells(narrow.frame, narrow.formats)["rows"] == [
        ["rate", "50.0 %", "40.0 %", "−10.00 (−11.00, −9.00)", "lower"]
    ]
    assert tabulate([more]).iloc[0]["c: difference"] == pytest.approx(-10)
    narrow = narrow_table([more], percent)
    assert show_cells(narrow.frame, narrow.formats)["rows"] == [
        ["rate", "a", "50.0 %", "–"], ["rate", "b", "–", "lower"], ["rate", "c", "40.0 %", "lower"]
    ]  # fmt: skip
    count = tabulate([beside({"a": 5.0, "b": 4.0}, [-1.0], share=False)]).iloc[0]
    assert count["difference"] == -1.0  # no share: not in points


def test_facts_that_differ_are_found_by_name_and_sorted_by_change():
    def report(label, **facts):
        return Report(label, None, {}, {}, {}, facts)

    rows = [{"mode": "s", "k": 1}, {"mode": "m", "k": 2}]
    one = report("a", **{"10-x": {"f": {"n": 10, "m": 1.0, "t": "x", "rows": rows}}, "20-y": {"f": {"n": 1}},
                         "90-report": {"f": {"n": 1}}})  # fmt: skip
    two = report("b", **{"10-x": {"f": {"n": 11, "m": 1.0 + 1e-12, "t": "y", "more": 3,
                                        "rows": [{"mode": "m", "k": 4}, {"mode": "s", "k": 1}]}},
                         "90-report": {"f": {"n": 2}}})  # fmt: skip
    found = compare_findings([one, two])
    assert found["notebooks"] == ["10-x"] and found["facts"] == 5
    changes = {item["fact"]: item["change"] for item in found["differ"]}
    assert changes == {"f.n": pytest.approx(1 / 11), "f.t": None, "f.rows[m].k": 0.5}
    assert [item["fact"] for item in pick_findings(found)] == ["f.t", "f.rows[m].k", "f.n"]


def test_policies_are_compared_only_at_capacities_that_are_near():
    def frame(tokens):
        rows = [{"seed": s, "tokens": t, "name": n, "token": 0.5 + s / 100, "low": 0.4, "high": 0.6}
                for s in (0, 1) for t in tokens for n in ("lru", "opt")]  # fmt: skip
        return pd.DataFrame(rows)

    reports = [Report(label, None, {"multi_turn": {"parameters": {"seed": 0}}}, {}, {}, {}) for label in "ab"]
    study = curves.Study(reports, [frame([1000, 3000, 9000]), frame([1040, 3200, 9100])])
    assert curves.list_comparable(study, ["lru", "opt"]) == [1000, 9000]
    study = curves.Study(reports, [frame([1000]), frame([2000])])
    assert curves.list_comparable(study, ["lru", "opt"]) == [] and curves.choose_memories(study) == []


def test_policies_with_hints_join_the_others_and_change_none(tmp_path):
    for name in "ab":
        (tmp_path / name / "figures").mkdir(parents=True)
        for slug, names in (("policies", ["lru", "ttl"]), ("hinted", ["lru", "ttl", "tool"])):
            rates = {"token": 0.6 if slug == "hinted" else 0.5, "low": 0.4, "high": 0.7}
            table = pd.DataFrame({"seed": 0, "policy": names, "capacity_blocks": 9, **rates})
            table.to_csv(tmp_path / name / f"figures/50-{slug}.csv", index=False)
    stats = {"multi_turn": {"parameters": {"seed": 0, "block_size": 16}}}
    reports = [Report(name, tmp_path / name, stats, {}, {}, {"50-eviction": {}}) for name in "ab"]
    study = curves.read_study(reports, "50-eviction", "policies", name="policy")
    joined = curves.add_named(study, reports, "50-eviction", "hinted", "policy")
    assert [list(zip(one["name"], one["token"], strict=True)) for one in joined.frames] == [
        [("lru", 0.5), ("ttl", 0.5), ("tool", 0.6)]
    ] * 2
    (tmp_path / "b/figures/50-hinted.csv").unlink()  # of an older version
    assert curves.add_named(study, reports, "50-eviction", "hinted", "policy") is study


@pytest.mark.parametrize(
    ("first", "other", "verdict"),
    [([0.5, 0.5, 0.5], [0.6, 0.61, 0.62], "higher"), ([0.5, 0.5, 0.5], [0.6, 0.49, 0.6], "not separated"),
     ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], "equal"), ([0.5], [0.6], "not separated")],
)  # fmt: skip
def test_the_same_conversations_are_judged_over_the_draws(first, other, verdict):
    sides = [{"rates": np.array(rates), "mean": float(np.mean(rates)), "ends": [0.1, 0.9]} for rates in (first, other)]
    found = curves._judge_seeds(*sides, True, False)
    assert found["verdict"] == verdict and found["interval"] == "over arrival times"
    if len(first) > 1:
        half = scipy.stats.t.ppf(0.975, len(first) - 1) * scipy.stats.sem(np.subtract(other, first))
        assert (found["low"], found["high"]) == pytest.approx((found["difference"] - half, found["difference"] + half))
    apart = curves._judge_seeds(*sides, False, False)
    assert apart["interval"] == "of both intervals" and apart["verdict"] in ("not separated", "equal")


def test_plans_that_all_measured_stand_side_by_side(reports):
    def plan(replicas, router, token, gib=0.0):
        ends = {"low": token - 0.01, "high": token + 0.01}
        return {"replicas": replicas, "router": router, "token": token, "dram_gib": gib, **ends}

    some = [read_report(reports["base"], label) for label in "ab"]
    grids = (
        [plan(1, "rr", 0.3), plan(2, "rr", 0.25), plan(2, "rr", 0.4, 256.0), plan(2, "llm-d", 0.5)],
        [plan(1, "rr", 0.305), plan(2, "llm-d", 0.7), plan(4, "llm-d", 0.8)],
    )
    for one, grid in zip(some, grids, strict=True):
        one.facts[PLAN] = {"plan_grid": {"plans": grid}}
    first, second = compare_plans(some)
    assert first.keys == {"replicas": 1, "router": "rr"} and first.against["b"]["verdict"] == "not separated"
    assert second.keys == {"replicas": 2, "router": "llm-d"} and second.values == {"a": 0.5, "b": 0.7}
    assert second.against["b"]["verdict"] == "higher" and second.against["b"]["difference"] == pytest.approx(0.2)
    del some[1].facts[PLAN]
    assert compare_plans(some) == []
