"""Page one: sentences of this run's facts, one next step, three caveats."""

import json

import pytest
from found import FACTS, change
from said import missing

from kvprefix.report.answer import show_answer, title_report
from kvprefix.report.facts.answer import FINDINGS, choose_next
from kvprefix.report.section_files import date_results, write_facts, write_section
from kvprefix.report.sections import Section
from kvprefix.traces.parameters import Parameters

SAID = {
    "shared": [
        "62.1 % ~ prompt tokens ~ 5,001 ~ multi-turn", "86.4 % ~ replies", "one request ~ 15.1 %", "request ~ 51.2 %",
    ],
    "origin": ["62.1 % ~ 54.1 points ~ own earlier turns, 5.4 ~ template, 2.1 ~ equal ~ and 0.7 from other"],
    "causes": ["22,512 blocks ~ 69.1 % ~ 24.2 % ~ generated ~ 23.2 % ~ optimum ~ 12.4 % are new ~ 8.1 %"],
    "advice": ["2 changes ~ 0.6 points", "95 %: 0.5 to 0.7", "Move the time stamp"],
    "templates": ["2.71 times ~ 2,000 conversations ~ saves 0.0 % ~ 73.5 %"],
    "memory": ["20,000 blocks ~ 39.1 GiB ~ Llama-3.1-8B", "gets 30.6 % ~ 340,000 blocks ~ 664.1 GiB ~ gets 84.0 %",
               "one H100-80G leaves ~ 28,067 ~ blocks ( ~ 54.8 ~ GiB): ~ 39.0 %"],
    "plan": [
        "3 replicas of 2 H100-80G behind llm-d with 256 GiB ~ keep 99 % ~ 1.5 s ~ \\$25.94 per hour ~ cache 66.4 %",
        "95 %: 65.6 % to 67.1 %", "one more replica ~ +7.31 points, 100 GiB of DRAM more by +0.94",
    ],
    "policy": ["14,393 blocks ~ 23.0 % ~ optimum ~ 48.8 % ~ at most 25.8 points", "None of the 7 others"],
    "timing": ['2,468 blocks ~ "all turns at once" ~ 59.6 % ~ "causal" ~ 5.4 %', "12,264 ~ 0.1 ~ 57.5 % ~ 20 ~ 11.1 %"],
    "hinted": ["2 policies ~ Sessions ~ 14.5 % ~ gap ~ 5,038 blocks"],
}  # fmt: skip
PLANLESS = {name: one for name, one in FACTS.items() if name != "80-capacity-plan"}
OF_CHATS = [one for one in FINDINGS if one.name in SAID]  # others are said of agent sessions


def better(policy, blocks, points):
    return {"policy": policy, "blocks": blocks, "points": points}


def show(tmp_path, found, **parameters):
    section = Section("00-answer", "The answer", tmp_path, Parameters(**parameters))
    show_answer(section, found)
    return section.items["findings"]


def test_every_sentence_is_of_its_notebook_and_its_figure(tmp_path):
    item = show(tmp_path, FACTS)
    assert len(item["findings"]) == len(SAID) == len(OF_CHATS) == 10 and len(item["caveats"]) == 3
    for one, finding, patterns in zip(item["findings"], OF_CHATS, SAID.values(), strict=True):
        assert missing(one["text"], *patterns) == []
        assert one["notebook"] == finding.notebook and one["figure"] == finding.figure
    assert sum(one["figure"] is not None for one in item["findings"]) == 9
    said = "Add a replica (2 H100-80G) behind llm-d: hits go from 66.4 % to 73.7 %", "\\$8.98 per hour, of ~ \\$9.17"
    assert missing(item["next"], *said) == []
    item = show(tmp_path, PLANLESS)
    assert missing(item["next"], "14,393 blocks ~ 41,129 ~ 28.1 to 80.3 GiB", "23.0 % to 41.8 % ~ +18.8 points") == []


def test_a_card_is_told_of_only_if_it_is_known_what_is_hit_there(tmp_path):
    for at in (None, {**FACTS["40-cache-size"]["cards"]["at"], "token_hit_rate": None}):
        item = show(tmp_path, change("40-cache-size", "cards", "at", to=at))
        (text,) = [one["text"] for one in item["findings"] if one["figure"] == "40-lru-curve"]
        assert "at once" in text and "H100" not in text


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("20-prefix-sharing", "sharing", "token_hit_rate"), 0.25, "25.0 % ~ prompt tokens"),
        (("25-provenance", "origins", "sizes", 1, "parts", "template", "share"), 0.25, "25.0 from the chat template"),
        (("65-advice", "advice", "points"), 0.04, "No change of the prompts' texts"),
        (("55-misses", "causes", "sizes", 1, "parts", "capacity", "share"), 0.15, "15.0 % were evicted"),
        (("70-engine-check", "chain", "overlap", 1, "token_hit_rate"), 0.4, "40.0 %"),
        (("70-engine-check", "chain", "engine"), "SGLang 1", "SGLang 1 ~ 20,000"),
        (("40-cache-size", "cards", "at", "blocks"), 28_123, "28,123 ~ blocks"),
        (("40-cache-size", "cards", "at", "token_hit_rate", "mean"), 0.4123, "41.2 %, one request at a time"),
        (("45-templates", "templates", "strip", "ratio"), 3.14, "3.14 times"),
        (("80-capacity-plan", "plan_choice", "token"), 0.5, "cache 50.0 %"),
        (("80-capacity-plan", "plan_choice", "decoding_replicas"), 7, "overloaded, and about 7 ~ replicas are"),
        (("80-capacity-plan", "plan_choice", "is_met"), False, "None of 72 plans keeps 99 %"),
        (("80-capacity-plan", "plan_choice", "dram_gib"), 0.0, "behind llm-d keep 99 %"),
        (("80-capacity-plan", "plan_next", "dram", "points"), 2.5, "DRAM more by +2.50"),
        (("50-eviction", "policies", "capacities", 1, "opt"), 0.33, "33.0 % ~ at most 10.0 points"),
        (("50-eviction", "policies", "better"), [better("a_b_", 14393, 1.5)], "7 policies ~ a_b\\_ ~ 1.5"),
        (("50-eviction", "hinted", "most", "closed"), 0.29, "29.0 % ~ gap"),
        (("60-timing", "clocks", "naive_token_hit_rate"), 0.7, "70.0 %"),
        (("60-timing", "clocks", "naive_token_hit_rate"), 0.0541, "2,468 blocks ~ both give 5.4 %"),
        (("60-timing", "rates", "capacities", 1, "last_rate"), 0.3, "20 /s 30.0 %"),
    ],
)  # fmt: skip
def test_a_changed_fact_changes_its_sentence(tmp_path, path, to, said):
    before, after = (show(tmp_path, found)["findings"] for found in (FACTS, change(*path, to=to)))
    changed = [new["text"] for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1 and missing(changed[0], said) == []


@pytest.mark.parametrize("name", FACTS)
def test_a_notebook_that_failed_says_nothing(tmp_path, name):
    item = show(tmp_path, {other: one for other, one in FACTS.items() if other != name})
    assert [one["notebook"] for one in item["findings"]] == [one.notebook for one in OF_CHATS if one.notebook != name]
    assert item["next"]
    item = show(tmp_path, {other: one for other, one in PLANLESS.items() if other != name})
    assert bool(item["next"]) == (name != "50-eviction")
    nothing = show(tmp_path, {})
    assert (nothing["findings"], nothing["next"], len(nothing["caveats"])) == ([], "", 3)


@pytest.mark.parametrize(("name", "to"), [("verdict", "equal"), ("closed", 0.09)])
def test_hints_that_hardly_pay_are_not_told_of(tmp_path, name, to):
    item = show(tmp_path, change("50-eviction", "hinted", "most", name, to=to))
    assert not any("told what a server knows" in one["text"] for one in item["findings"])


def test_the_next_step_is_what_gains_most(tmp_path):
    found = change("50-eviction", "policies", "better", to=[better("LFU", 14393, 20.5), better("TTL", 5037, 30.0)])
    assert choose_next(found)["step"] == "policy" and choose_next(FACTS)["step"] == "plan"
    assert choose_next(change("80-capacity-plan", "plan_next", "gpu", "points", to=0.9))["step"] == "memory"
    cheap = change("80-capacity-plan", "plan_next", "per_usd", "dram", to=0.9)
    assert choose_next(cheap)["step"] == "memory"  # its 0.94 points are too few
    cheap["80-capacity-plan"]["plan_next"]["dram"]["points"] = 1.1
    assert missing(show(tmp_path, cheap)["next"], "Put 100 GiB of DRAM more ~ 66.4 % to 67.5 % for \\$1.21") == []
    cheap["80-capacity-plan"]["plan_next"]["gpu"]["pays"] = False
    said = "Buy nothing for this aim", "more hits is 100 GiB of DRAM more ~ 66.4 % to 67.5 % for \\$1.21"
    assert missing(show(tmp_path, cheap)["next"], *said) == []
    full = change("80-capacity-plan", "plan_next", "gpu", "points", to=-0.3)
    full["80-capacity-plan"]["plan_pool"] = {"blocks": 900_000, "tokens": 14_400_000, "block_size": 16, "gib": 1757.8}
    said = "Buy nothing: 2 H100-80G leave 900,000 blocks (1,757.8 GiB)", "(−0.30 ~ points) ~ 100 ~ (+0.94) gains"
    assert missing(show(tmp_path, full)["next"], *said, "raise the 66.4 %") == []
    full["80-capacity-plan"]["plan_pool"]["tokens"] = 16 * 1000  # less than the next capacity
    assert choose_next(full)["step"] == "memory"
    none = change("80-capacity-plan", "plan_choice", "is_met", to=False)
    assert missing(show(tmp_path, none)["next"], "up to 3 replicas of 2 H100-80G", "within 1.5 s") == []
    none["80-capacity-plan"]["plan_choice"]["alone_s"] = 5.2
    assert missing(show(tmp_path, none)["next"], "Take faster cards", "alone takes 5.2 s (p99) ~ within 1.5 s") == []
    said = show(tmp_path, found)["next"]
    assert missing(said, "eviction policy ~ 14,393 blocks LFU wins +20.5 ~ 41,129 blocks, +18.8") == []
    flat = [{"blocks": blocks, "lru": 0.3, "opt": 0.9} for blocks in (1000, 9000)]
    found = change("50-eviction", "policies", "capacities", to=flat)
    del found["80-capacity-plan"]
    assert missing(show(tmp_path, found)["next"], "share more ~ 1,000 blocks ~ 0.0 points ~ 0.0 ~ 62.1 %") == []
    found["50-eviction"]["policies"]["capacities"] = flat[:1]
    assert choose_next(found) is None


def test_the_caveats_are_of_this_run(tmp_path):
    stamps = tmp_path / "stamps.txt"
    stamps.write_text("0\n1\n")
    times, data, seconds = show(tmp_path, FACTS)["caveats"]
    assert "modelled (`poisson`)" in times and "ShareGPT" in data and "saved seconds" in seconds
    given = {"data": "x.jsonl", "arrivals": f"stamps:{stamps}", "think": f"data:{stamps}", "max_conversations": 9}
    times, data, _ = show(tmp_path, FACTS, **given)["caveats"]
    assert times.startswith("Conversations start at the log's own times; think times are drawn")
    assert "ShareGPT" not in data and "first 9 usable conversations" in data
    assert "naive clock `at_once`" in show(tmp_path, {}, clock="at_once")["caveats"][0]


def test_the_title_holds_name_data_and_the_day_of_equal_results(tmp_path):
    def make(n):
        write_section(tmp_path, "10-a", "A", [])
        write_facts(tmp_path, "10-a", {"n": n}, Parameters())
        return date_results(tmp_path)

    today, made = make(1), tmp_path / "made.json"
    assert title_report(tmp_path, Parameters(), "2026-01-02").startswith(tmp_path.name)
    assert title_report(tmp_path, Parameters(data="a/b.jsonl"), "2026-01-02").endswith(" in b.jsonl, 2026-01-02")
    made.write_text(json.dumps(json.loads(made.read_text()) | {"date": "2025-03-04"}))
    assert make(1) == "2025-03-04" and make(2) == today != "2025-03-04"
