"""The whole report, all notebooks, on strange little data sets: nothing fails, and all that it prints means something.

Alone: `pytest -m strange`; one data set: `-k one_turn`. All take ten minutes of processor time.
"""

import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from papers import compile_tex, draw_missing, find_wide_tables, need_program
from samples import save_small_tokenizer
from strange_data import CASES, find_faults, look_at, make_report

from kvprefix.report.page.join import arrange
from kvprefix.report.paper.kit import write_paper
from kvprefix.report.paper.latex import print_text
from kvprefix.report.paper.numbers import show_headlines
from kvprefix.report.plots.axes import add_legend, make_axes, note_if_empty
from kvprefix.report.section_files import read_run_facts, read_sections

PAPERS = ("names in all scripts", "12 conversations of 3 turns", "one turn, shorter than a block", "no reuse at all")


@pytest.fixture(scope="module")
def reports(request, tmp_path_factory):
    """Return a report of each data set asked for, as a future; processes of their own make them."""
    folder = tmp_path_factory.mktemp("strange")
    small, fallback = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("fallback")
    tokenizers = {"small": save_small_tokenizer(small), "fallback": save_small_tokenizer(fallback, template=None)}
    asked = [item.callspec.params["name"] for item in request.session.items if item.get_closest_marker("strange")]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 4), mp_context=context) as pool:
        places = {name: folder / str(k) for k, name in enumerate(asked)}
        yield {name: pool.submit(make_report, name, place, tokenizers) for name, place in places.items()}


@pytest.mark.strange
@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "_").replace(",", ""))
def test_every_notebook_runs_and_the_report_means_something(name, reports):
    folder, lacking = reports[name].result()
    faults = [*lacking, *find_faults(folder), *find_wide_tables(folder / "paper")]
    assert not faults, "\n".join(faults)


@pytest.mark.strange
@pytest.mark.parametrize("name", PAPERS)
def test_the_paper_kit_of_a_report_compiles_without_a_line_too_wide(name, reports):
    need_program("pdflatex")
    folder, _ = reports[name].result()
    sections = arrange(read_sections(folder))
    draw_missing(folder / "paper", sections)
    write_paper(folder, sections, "A strange report")
    assert not compile_tex(folder / "paper")


@pytest.mark.strange
@pytest.mark.parametrize("name", ["12 conversations of 3 turns"])
def test_every_macro_of_a_paper_prints_what_the_report_says(name, reports):
    folder, _ = reports[name].result()
    said = (folder / "report.md").read_text().replace("\\", "")
    shown, missing = show_headlines(read_run_facts(folder))
    assert len(shown) > 30 and not missing
    numbers = (folder / "paper/numbers.tex").read_text()
    for one, text in shown:
        assert re.search(rf"(?<![\d.,]){re.escape(text)}(?![\d%])", said), (one.macro, text)
        assert rf"\newcommand{{\KV{one.macro}}}{{{print_text(text)}}}" in numbers


@pytest.mark.parametrize(
    "text",
    ["it is nan %", "| -inf |", "None requests", "by -0.00 points", "−0.0 %", "| -0.0 |", "0 of 0 requests",
     "of 0 of the 0", "1 requests", "1 multi-turn requests", "1 conversations", "with 1 blocks", "pools ()",
     "Better: .", "(first seed). 10 seeds"],
)  # fmt: skip
def test_a_fault_of_a_text_is_found(text, tmp_path):
    (tmp_path / "report.md").write_text(f"# Fine\n\nSo {text}, it says.\n")
    assert list(find_faults(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["None of the 24 turns", "skipped: none", "-0.01 | +0.00 | -0.10", "0.0 %", "21 requests", "1,001 blocks",
     "10 of 20", "1 conversations/s", "0.0–30.0",
     "banana, infer, Nancy", "of 1 to 10 blocks", "2024-01-01"],
)  # fmt: skip
def test_what_is_no_fault_of_a_text_is_let_be(text, tmp_path):
    (tmp_path / "report.md").write_text(f"# Fine\n\nSo {text}, it says.\n")
    assert not list(find_faults(tmp_path))


@pytest.mark.parametrize("name, text", [
    ("tables/t.csv", "rate\nnan\n"), ("figures/f.csv", "rate\n-inf\n"), ("figures/f.csv", "rate\n-0.0\n"),
    ("x_metrics.csv", "a,b\n1,NaN\n"), ("m_stats.json", '{"a": {"b": [1.0, NaN]}}'), ("m_stats.json", '{"a": -0.0}'),
])  # fmt: skip
def test_a_fault_of_a_number_is_found(name, text, tmp_path):
    (tmp_path / "report.md").write_text("")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert len(list(find_faults(tmp_path))) == 1
    (tmp_path / name).write_text(text.replace("-0.0", "0.5").replace("-inf", "").replace("NaN", "3").replace("nan", ""))
    assert not list(find_faults(tmp_path))


def test_a_fault_of_a_figure_is_found():
    figure, axes = make_axes()
    (empty,) = look_at(figure, "")
    assert "show nothing" in empty
    axes.plot([1, 2], [np.nan, np.nan])
    assert list(look_at(figure, "")) == [empty]
    note_if_empty(axes, 0, "no block is accessed twice")
    assert list(look_at(figure, "")) == ["the caption does not say 'no block is accessed twice'"]
    assert not list(look_at(figure, "A figure. No block is accessed twice."))
    figure.legend([], [])
    (fault,) = look_at(figure, "No block is accessed twice.")
    assert fault == "a legend with the entries []"
    figure, axes = make_axes()
    axes.plot([1, 2], [1, 2], label="all")
    axes.set_ylim(5, 6)
    assert len(list(look_at(figure, ""))) == 1
    axes.set_ylim(0, 6)
    add_legend(axes)
    assert not list(look_at(figure, ""))
