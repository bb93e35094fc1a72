"""What reports say of origins and causes: shares that sum to the whole, sentences of their own numbers, files."""

import json

import pandas as pd
import pytest
from places import SAMPLE
from said import missing
from session_files import make_sessions

from kvprefix.report.facts import explained as facts
from kvprefix.report.facts.narrow import narrow_parts
from kvprefix.report.labels import LABELS, UNCACHED
from kvprefix.report.plots.explained import LOOKS, TOGETHER
from kvprefix.report.tables import NARROW, show_cells
from kvprefix.report.words import say
from kvprefix.studies.experiment import load_study
from kvprefix.studies.explain import explain_misses, explain_provenance
from kvprefix.studies.explain_draws import choose_capacities, draw_explained, study_causes, study_origins
from kvprefix.studies.explain_one import explain_one
from kvprefix.studies.explain_tables import tabulate_turns, write_misses, write_provenance
from kvprefix.traces.parameters import Parameters


@pytest.fixture(scope="module")
def workload():
    return load_study(Parameters(data=str(SAMPLE), block_size=4))


@pytest.fixture(scope="module")
def data(workload):
    return draw_explained(workload)


def test_every_part_has_a_label_and_a_look(data):
    parts = {*explain_provenance(data).names, *explain_misses(data, [None])[0].names, "first_seen"}
    assert parts == {*LABELS}
    assert {TOGETHER.get(part, part) for part in parts} == {*LOOKS}


def test_origins_are_said_with_their_numbers(workload, data):
    found, table = explain_provenance(data), study_origins(workload, choose_capacities(data, 5))
    told = facts.facts_origins(table, found, "conversation")
    free, whole = told["sizes"][-1], found.prompt_tokens.sum()
    for name, part in free["parts"].items():  # without a bound the order of requests hardly matters: one draw is it
        assert part["share"] == pytest.approx(found.totals()[name] / whole, abs=0.02)
        assert part["low"] <= part["share"] <= part["high"]
    assert free["hit"]["share"] + table.query("capacity_blocks == 0 and part == 'uncached'")["token"].mean() == 1
    assert sum(told["holders"].values()) == pytest.approx(1) == sum(told["writers"].values())
    text = say("origins.md", told)
    shares = [f"{100 * free['parts'][name]['share']:.1f} %" for name in free["shown"]]
    assert free["shown"] and missing(text, f"{100 * free['hit']['share']:.1f} %", *shares) == []
    own = [f"{100 * one['parts']['own_turns']['share']:.1f} % from own" for one in told["sizes"][:-1]]
    assert missing(text, *own) == []
    assert missing(say("origins_hidden.md", told), f"{100 * told['holders']['both']:.1f} % in blocks that both") == []
    assert "there is no hit" in say("origins.md", told | {"hit_tokens": 0})
    assert told["notes"] == [] and text.count("\n") == 0
    assert r"- ids \*are\*" in say("origins.md", told | {"notes": ["ids *are* inferred"]})


def test_causes_are_said_with_their_numbers(workload, data):
    capacities = choose_capacities(data, 7)
    table, replies = (study_causes(workload, capacities, outputs=one) for one in (False, True))
    told = facts.facts_causes(table, replies, explain_misses(data, [None])[0], 4, "conversation")
    text = say("causes.md", told)
    for one in told["sizes"]:
        assert one["hit"]["share"] + sum(part["share"] for part in one["parts"].values()) == pytest.approx(1)
        assert missing(text, f"{100 * one['hit']['share']:.1f} % ") == []
    small, free = told["sizes"][0], told["sizes"][-1]
    for size, names in ((small, ("policy", "capacity")), (free, ("cold", "generated_not_cached"))):
        shown = [f"{100 * size['parts'][name]['share']:.1f} %" for name in names if name in size["shown"]]
        assert shown and missing(text, *shown) == []
    for one in told["replies"]:
        assert one["points"] == pytest.approx(100 * (one["with"] - one["without"]))
    assert missing(say("causes_replies.md", told), f"to {100 * told['replies'][-1]['with']:.1f} %") == []
    lower = told | {"lowers": 12}
    assert "12 blocks or fewer" in say("causes_replies.md", lower)
    assert "fewer" not in say("causes_replies.md", told | {"lowers": None})


def test_turns_strips_and_one_request(data):
    (found,) = explain_misses(data, [30])
    told = facts.facts_turns(tabulate_turns(explain_provenance(data)), UNCACHED, "conversation")
    first = told["classes"][0]
    assert missing(say("origins_by_turn.md", told), f"first prompt ~ {100 * first['hit']:.1f} %") == []
    assert first["parts"]["own_turns"] == 0
    position = facts.pick_request(found)
    strips = facts.list_strips(found, position)
    assert sum(strips[-1][1].values()) == found.prompt_tokens[position]
    one = facts.facts_request(explain_one(data, strips[-1][0], capacity=30))
    text = say("one_request.md", one)
    tokens = [f"{part['tokens']:,} ({LABELS[part['part']]})" for part in one["classes"]]
    assert missing(text, f"{strips[-1][0]} ~ {one['prompt_tokens']:,} tokens", *tokens) == []
    assert "No earlier prompt" in say("one_request.md", one | {"nearest": None, "eviction": None})


def test_tables_fit_a_column(workload, data):
    for study, what in ((study_origins, "origin"), (study_causes, "cause")):
        table = facts.tabulate_parts(study(workload, choose_capacities(data, 5)), what, len(data))
        assert table.groupby("blocks", dropna=False)["share of prompt tokens"].sum().tolist() == pytest.approx(
            [1] * table["blocks"].nunique(dropna=False)
        )
        short = narrow_parts(table)
        assert len(show_cells(short.frame, short.formats)["head"]) <= NARROW
        assert short.frame.iloc[:, 1:].sum().tolist() == pytest.approx([100] * (len(short.frame.columns) - 1))


def test_files_hold_what_the_commands_print(tmp_path, data):
    found = explain_provenance(data)
    write_provenance(found, tmp_path)
    assert json.loads((tmp_path / "provenance.json").read_text()) == found.as_dict()
    rows = pd.read_csv(tmp_path / "provenance_requests.csv")
    assert len(rows) == len(data) and rows[list(found.names)].sum().to_dict() == found.totals()
    causes = explain_misses(data, [20, None])
    write_misses(causes, [], tmp_path)
    said = json.loads((tmp_path / "misses.json").read_text())["capacities"]
    rows = pd.read_csv(tmp_path / "misses_requests.csv", dtype={"capacity_blocks": str})
    for name, one in zip(("20", "unbounded"), causes, strict=True):
        kept = rows[rows["capacity_blocks"] == name]
        assert kept[list(one.names)].sum().to_dict() == one.totals() == said[name]["tokens"]
        assert (kept[list(one.names)].sum(axis=1) == kept["prompt_tokens"]).all()


def test_a_trace_of_block_ids_has_coarse_parts(tmp_path):
    experiment = load_study(Parameters(data=str(make_sessions(tmp_path / "sessions.jsonl"))))
    data = draw_explained(experiment)
    assert not data.has_tokens
    table = study_causes(experiment, choose_capacities(data, 4))
    told = facts.facts_causes(table, None, explain_misses(data, [None])[0], data.block_size, "session")
    assert set(told["sizes"][-1]["parts"]) == {"policy", "capacity", "first_seen"}
    assert told["inside"] is None and told["replies"] == []
    assert missing(say("causes.md", told), "were in no whole block before", "- of block ids no more can be told") == []
    origins = facts.facts_origins(study_origins(experiment, [3, 0]), explain_provenance(data), "session")
    assert set(origins["sizes"][-1]["parts"]) == {"own_turns", "other_conversation"} and origins["writers"] == {}
    assert "wrote" not in say("origins_hidden.md", origins)
