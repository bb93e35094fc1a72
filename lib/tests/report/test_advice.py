"""What reports say of the linter's advice: its numbers, on page one too, in tables that fit a column, and in files."""

import json

import pandas as pd
import pytest
from planted import make_systems, write_log
from said import missing

from kvprefix.report.facts import advice as facts
from kvprefix.report.facts.answer import choose_next
from kvprefix.report.tables import NARROW, show_cells
from kvprefix.report.words import say
from kvprefix.studies.lint import study_lint, write_lint_files
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload


@pytest.fixture(scope="module")
def studied(shared_derived, small_folder, tmp_path_factory):
    """Return the study of a log with several defects, and of one without."""
    folder = tmp_path_factory.mktemp("logs")
    logs = [write_log(folder / f"{name}.jsonl", make_systems(name, 40)) for name in ("mixed", "clean")]
    return [study_lint(load_workload(Parameters(data=str(log), tokenizer=str(small_folder)))) for log in logs]


def test_what_is_won_is_said(studied):
    found, rows = studied[0]
    told = facts.facts_advice(found, rows)
    won, whole = rows["hit_tokens_after"].sum() - rows["hit_tokens"].sum(), rows["prompt_tokens"].sum()
    assert told["points"] == pytest.approx(100 * won / whole)
    assert told["low"] <= told["points"] <= told["high"]
    assert told["points"] == pytest.approx(sum(one["points"] for one in told["sites"]))
    text = say("advice.md", told)
    ends = f"95 % interval over resampled conversations: {told['low']:.1f} to {told['high']:.1f}"
    assert missing(text, f"{100 * told['rate']:.1f} % to ~ {100 * told['after']:.1f} %", ends) == []
    assert text.count("\n- ") == len(found["sites"]) + len(found["notes"])
    answer = say("answer_advice.md", told)
    assert missing(answer, f"{told['proved']} changes ~ {told['points']:.1f} points") == []
    assert answer.endswith(f"as a replay confirms: {found['sites'][0]['fix']}")
    step = choose_next({"65-advice": {"advice": told}})
    assert step["step"] == "advice"
    assert missing(say("answer_next.md", step), found["sites"][0]["fix"], f"{100 * told['after']:.1f} %") == []


def test_a_log_without_defects_has_no_advice(studied):
    found, rows = studied[1]
    told = facts.facts_advice(found, rows)
    assert told["points"] == told["low"] == told["high"] == 0 and told["sites"] == []
    assert "No change of the prompts' texts" in say("advice.md", told)
    assert "No change of the prompts' texts" in say("answer_advice.md", told)
    assert choose_next({"65-advice": {"advice": told}}) is None
    site = {**studied[0][0]["sites"][0], "recoverable_tokens": 9}
    small = facts.facts_advice({**found, "recoverable_tokens": 9, "sites": [site]}, rows)
    assert small["sites"] == [] and "1 change in the table wins 0.01 points" in say("advice.md", small)


def test_an_unproved_site_is_said_as_an_estimate(studied):
    found, rows = studied[0]
    one = {**found["sites"][0], "proved": False, "recoverable_tokens": None, "fix": "Move *it* (an estimate: why)."}
    told = facts.facts_advice({**found, "recoverable_tokens": 0, "sites": [one]}, rows)
    assert "Not proved, so estimates only:\n\n- Move \\*it\\* (an estimate: why)." in say("advice.md", told)
    table = facts.tabulate_sites({**found, "sites": [one]})
    assert table["recoverable (tokens)"].tolist() == [None] and facts.list_steps({**found, "sites": [one]}).empty


def test_tables_and_steps_hold_what_was_found(studied):
    found, _ = studied[0]
    steps = facts.list_steps(found)
    assert steps["before"].iloc[0] == pytest.approx(found["hit_tokens"] / found["prompt_tokens"])
    after = (found["hit_tokens"] + found["recoverable_tokens"]) / found["prompt_tokens"]
    assert (steps["before"] + steps["won"]).iloc[-1] == pytest.approx(after)
    sites, sides = facts.tabulate_sites(found), facts.tabulate_sides(found)
    assert sites["recoverable (tokens)"].sum() == found["recoverable_tokens"]
    assert sides["what to do"].tolist() == [one["fix"] for one in found["sites"]]
    for short in (facts.narrow_sites(sites), facts.narrow_sides(sides)):
        assert len(show_cells(short.frame, short.formats)["head"]) <= NARROW


def test_files_hold_what_was_found(studied, tmp_path):
    found, rows = studied[0]
    write_lint_files(found, rows, tmp_path)
    assert json.loads((tmp_path / "lint.json").read_text()) == found
    kept = pd.read_csv(tmp_path / "lint_requests.csv")
    assert len(kept) == found["requests"] and kept["hit_tokens"].sum() == found["hit_tokens"]
