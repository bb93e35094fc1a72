"""Tables and the report: what is shown is what is saved; sections join in order; the page stands alone."""

from pathlib import Path

import pandas as pd
import pytest
from drawn import draw_line
from said import said_of

from kvprefix.files.paths import InputError
from kvprefix.report.facts.conclusion import facts_conclusion, facts_limits
from kvprefix.report.facts.sharing import (
    facts_accountings,
    facts_gaps,
    facts_hit_counts,
    facts_multi_turn,
    facts_sharing,
    facts_single_turn,
    tabulate_comparison,
)
from kvprefix.report.facts.workload import check_parameters, facts_causality
from kvprefix.report.page.join import write_report
from kvprefix.report.section_files import mark_failed, read_sections, read_stats
from kvprefix.report.sections import Section
from kvprefix.report.tables import save_table, table_markdown
from kvprefix.studies.sharing import analyse, write_results
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload, make_trace


def test_a_table_is_full_precision_in_csv_and_rounded_and_escaped_elsewhere(tmp_path):
    frame = pd.DataFrame({"name": ["a_b & 5 %", None], "rate": [0.123456789, None], "count": [1234567, 2]})
    markdown = table_markdown(save_table(frame, tmp_path / "t", "What it is", {"rate": "{:.1%}"}))
    assert "0.123456789" in (tmp_path / "t.csv").read_text()
    assert "12.3%" in markdown and "1,234,567" in markdown and "–" in markdown
    latex = (tmp_path / "t.tex").read_text()
    assert r"a\_b \& 5 \%" in latex and r"\toprule" in latex and latex.startswith("% What it is\n")


def test_a_table_can_be_formatted_by_row(tmp_path):
    frame = pd.DataFrame({"value": [0.5, 0.5]})
    markdown = table_markdown(save_table(frame, tmp_path / "t", "", ["{:.0%}", "{:.2f}"]))
    assert "50%" in markdown and "0.50" in markdown


def make_report(folder):
    front, middle, back = (
        Section(name, title, folder) for name, title in (("00-front", "A"), ("20-x", "B"), ("90-z", "C"))
    )
    front.say("Heading", "Text with **bold** and 5 < 6.")
    middle.show_figure("line", "A line.", draw_line, also="fixed_name")
    middle.show_table("numbers", "One number.", pd.DataFrame({"n": [1]}))
    back.say("", "The end.")
    return write_report(folder, "Title")


def test_sections_join_in_order_and_the_page_holds_its_pictures(tmp_path):
    page = make_report(tmp_path).read_text()
    markdown = (tmp_path / "report.md").read_text()
    order = [
        markdown.index(part)
        for part in ("# Title", "## A", "### Heading", "## B", "figures/20-line.png", "## C", "The end.")
    ]
    assert order == sorted(order)
    assert page.count("data:image/png;base64,") == 1 and "figures/20-line.png" not in page
    assert "://" not in page and "5 &lt; 6" in page
    assert {"20-line.png", "20-line.pdf", "20-line.csv", "20-line.txt"} == {
        p.name for p in (tmp_path / "figures").iterdir()
    }
    assert (tmp_path / "fixed_name.png").read_bytes() == (tmp_path / "figures/20-line.png").read_bytes()
    assert {"20-numbers.csv", "20-numbers.md", "20-numbers.tex"} == {p.name for p in (tmp_path / "tables").iterdir()}


def test_running_a_cell_again_replaces_what_it_said(tmp_path):
    section = Section("10-a", "A", tmp_path)
    section.say("H", "old")
    section.say("H", "new")
    assert list(section.items.values()) == [{"kind": "text", "heading": "H", "text": "new"}]


def test_a_new_run_removes_the_files_that_it_no_longer_makes(tmp_path):
    frame = pd.DataFrame({"x": [1, 2], "y": [1, 2]})
    section = Section("10-a", "A", tmp_path)
    section.show_figure("old", "Old", draw_line, frame)
    section.show_table("old", "Old", frame)
    before = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("10-old*")}
    assert {"figures/10-old.csv", "paper/10-old-column.pdf", "tables/10-old.tex"} < before and len(before) == 10
    own = [tmp_path / "figures/10-mine.png", tmp_path / "tables/11-old.csv", tmp_path / "figures/10-older.png"]
    for path in own:
        path.touch()
    mark_failed(tmp_path, "10-a", "A", "why")  # what it showed before it failed stays
    assert len(list(tmp_path.rglob("10-old.*"))) == 7
    Section("10-a", "A", tmp_path).show_table("new", "New", frame)
    assert not list(tmp_path.rglob("10-old.*")) + list(tmp_path.rglob("10-old-*")) and all(map(Path.exists, own))


@pytest.mark.parametrize("items", ["", "7", "[7]", '[{"kind": []}]', '[{"kind": "table", "name": "../10-x"}]'])
def test_a_record_changed_by_hand_removes_nothing_else(tmp_path, items):
    Section("10-a", "A", tmp_path / "r")
    (tmp_path / "10-x.csv").touch()
    (tmp_path / "r/sections/10-a.json").write_text(f'{{"form": 2, "title": "A", "items": {items}}}')
    Section("10-a", "A", tmp_path / "r")
    assert (tmp_path / "10-x.csv").exists()


def test_the_report_refuses_statistics_of_other_parameters(bundled_workload, tmp_path):
    with pytest.raises(InputError, match="run notebook 20"):
        read_stats(tmp_path, Parameters())
    write_results(analyse(bundled_workload), bundled_workload, tmp_path)
    stats = read_stats(tmp_path, Parameters())
    check_parameters(stats, Parameters(max_conversations=300))
    with pytest.raises(InputError, match="another block_size, seed"):
        check_parameters(stats, Parameters(max_conversations=300, block_size=8, seed=3))


@pytest.mark.parametrize("block_size", [1, 16, 10_000])
def test_every_sentence_can_be_said_at_every_block_size(bundled_workload, block_size):
    from dataclasses import replace

    workload = replace(bundled_workload, parameters=replace(bundled_workload.parameters, block_size=block_size))
    results = analyse(workload)
    stats = {mode: result.stats for mode, result in results.items()}
    facts = {"20-prefix-sharing": {"sharing": facts_sharing(stats)}}
    said = [
        said_of(facts_multi_turn, results["multi_turn"]),
        said_of(facts_single_turn, results["single_turn"]),
        said_of(facts_gaps, results["multi_turn"]), said_of(facts_hit_counts, results),
        said_of(facts_accountings, stats),
        said_of(facts_conclusion, facts), said_of(facts_limits, facts, workload.parameters),
    ]  # fmt: skip
    assert all(said) and not any("nan" in text.lower().split() for text in said)
    table, formats = tabulate_comparison(stats)
    assert len(table) == len(formats)


def test_the_naive_clocks_are_called_out(shared_derived):
    parameters = Parameters(max_conversations=300, clock="at_once")
    workload = load_workload(parameters, progress=False)
    with pytest.warns(UserWarning, match="for comparison only"):
        trace = make_trace(workload, "multi_turn")
    assert "for comparison only" in said_of(facts_causality, trace, parameters.make("clock"))


def test_a_section_of_another_version_is_left_out_and_said(tmp_path, capsys):
    make_report(tmp_path)
    old = tmp_path / "sections/15-old.json"
    old.write_text('{"title": "Old", "items": ["### Markdown"]}')
    assert list(read_sections(tmp_path)) == ["00-front", "20-x", "90-z"]
    assert f"{old}: is of another version and left out" in capsys.readouterr().out
    assert write_report(tmp_path, "Title").is_file()
