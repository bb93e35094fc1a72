"""What the report says of templates: number by number, what is refused, what does not differ."""

import json

import numpy as np
import pytest
from places import SAMPLE
from said import missing

from kvprefix.report.captions import state_templates
from kvprefix.report.facts import templates as facts
from kvprefix.report.facts.answer import choose_templates
from kvprefix.report.paper.tabular import fit_table
from kvprefix.report.paper.widths import COLUMN_PT
from kvprefix.report.tables import NARROW, show_cells
from kvprefix.report.words import say
from kvprefix.studies.templates import study_templates, write_templates
from kvprefix.traces.behaviours import BEHAVIOURS
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload


@pytest.fixture(scope="module")
def table(bundled_workload):
    return study_templates(bundled_workload, conversations=200)


def test_every_number_is_the_study_s(table):
    found, known = facts.facts_templates(table), table.set_index(["behaviour", "outputs"])
    text = say("templates.md", found)
    strip, keep = (known.loc[(name, True)] for name in ("strip", "keep"))
    alone = known.loc[("keep", False)]
    times = f"{strip['ratio']:.2f} times ~ 95 % ~ {strip['ratio_low']:.2f} to {strip['ratio_high']:.2f}"
    each = [f"{one['computed_tokens'] / one['requests']:,.0f}" for one in (strip, keep)]
    saved = f"{100 * (1 - keep['computed_tokens'] / alone['computed_tokens']):.1f} %"
    assert not missing(text, f"{times} ~ {each[0]} tokens ~ {each[1]} ~ saves 0.0 % ~ saves {saved}")
    for name, one in BEHAVIOURS.items():
        if name != one.reference and name != "strip":
            row, reference = known.loc[(name, True)], BEHAVIOURS[one.reference].label
            ends = f"{row['ratio']:.2f} times ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
            assert f'"{one.label}" computes {ends} what "{reference}" does' in text
    ratios = [one["ratio"] for one in found["dearer"]]
    assert ratios == sorted(ratios, reverse=True) and len(ratios) == 6 and not found["alike"]
    answer = say("answer_templates.md", choose_templates({"45-templates": {"templates": found}}))
    assert not missing(answer, f"{strip['ratio']:.2f} times ~ 200 conversations ~ saves 0.0 % in place of {saved}")


def test_what_is_refused_or_alike_is_said(table):
    gone = table["behaviour"].isin(["date_daily", "minute_stamp"])
    refused = table.assign(refused=np.where(gone, "System role not <b> supported", ""))
    text = say("templates.md", facts.facts_templates(refused))
    assert 'does not take "time to the minute": System role not \\<b> supp' in text
    assert "time to the minute" not in facts.tabulate_templates(refused)["behaviour"].tolist()
    level = table.assign(ratio=1.0, ratio_low=0.9, ratio_high=1.1)
    found = facts.facts_templates(level)
    text = say("templates.md", found)
    assert "few requests continue another" in text and "Not told apart from their references: " in text
    assert choose_templates({"45-templates": {"templates": found}}) is None
    assert choose_templates({"45-templates": {}}) is None


def test_tables(table):
    whole = facts.tabulate_templates(table)
    assert whole["behaviour"].tolist() == [one.label for one in BEHAVIOURS.values()]
    assert whole[facts.TIMES].isna().tolist() == [one.reference == name for name, one in BEHAVIOURS.items()]
    made = facts.narrow_templates(whole)
    shown = show_cells(made.frame, made.formats)
    assert len(shown["head"]) <= NARROW and shown["rows"][0][-1] == "–" and shown["rows"][1][-1].count(".") == 3
    assert fit_table(shown["head"], shown["rows"], shown["numeric"], COLUMN_PT).fits
    assert facts.tabulate_behaviours()["behaviour"].tolist() == whole["behaviour"].tolist()


def test_the_file_and_the_caption(table, bundled_workload, tmp_path):
    write_templates(table, tmp_path / "templates.json")
    written = json.loads((tmp_path / "templates.json").read_text())
    assert list(written["modes"]) == table["behaviour"].drop_duplicates().tolist() and written["conversations"] == 200
    row = table[(table["behaviour"] == "strip") & table["outputs"]].iloc[0]
    one = written["modes"]["strip"]["outputs cached"]
    assert one["computed_tokens"] == row["computed_tokens"] and one["times"] == pytest.approx(row["ratio"])
    caption = state_templates(bundled_workload, table)
    assert f"n = {int(row['requests'])} multi-turn requests of 200 conversations" in caption
    assert caption.endswith("The first 200 of 300 conversations.")
    small = load_workload(Parameters(data=str(SAMPLE)), progress=False)
    assert "The first" not in state_templates(small, study_templates(small))
