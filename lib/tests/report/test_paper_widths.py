"""The widths of tables, estimated without TeX: no less than LaTeX's own, and a layout that fits."""

import re
import subprocess

import pytest
from papers import need_program

from kvprefix.report.paper.latex import print_text
from kvprefix.report.paper.tabular import fit_table, wrap_head, write_tabular
from kvprefix.report.paper.widths import COLUMN_PT, PAGE_PT, SIZES, measure_text

TEXTS = ["token hit rate", "43,824,189", "+22.33 [19.52, 24.97]", "58.4 ± 3.1 %", "−0.48", "Llama-3.1-405B", "AV Tofi",
         "multi-turn, generated tokens too", "≥ × ≤", "ShareGPT_V3", "[U+4E2D]", "naïve", "99af0276a840…"]  # fmt: skip
WORDS = "every full block seen before, and then a longer text that says what it is about"


@pytest.mark.parametrize("size", SIZES)
def test_an_estimate_is_no_less_than_latex_s_width_and_little_more(size, tmp_path):
    need_program("pdflatex")
    boxes = "\n".join(rf"\setbox0\hbox{{\{size} {print_text(text)}}}\typeout{{WIDTH \the\wd0}}" for text in TEXTS)
    (tmp_path / "w.tex").write_text(rf"\documentclass[10pt]{{article}}\begin{{document}}{boxes}\end{{document}}")
    done = subprocess.run(["pdflatex", "w"], cwd=tmp_path, capture_output=True, text=True, check=True)
    true = [float(width) for width in re.findall(r"^WIDTH ([\d.]+)pt", done.stdout, re.M)]
    ratios = {text: measure_text(text, size) / width for text, width in zip(TEXTS, true, strict=True)}
    assert all(1 <= ratio <= 1.25 for ratio in ratios.values()), ratios


def test_what_fits_stays_on_one_line_and_in_the_larger_type():
    layout = fit_table(["policy", "rate"], [["LRU", "9.4 %"]], [False, True], COLUMN_PT)
    assert (layout.size, layout.wraps, layout.heads) == ("footnotesize", [None, None], [["policy"], ["rate"]])


def test_a_long_heading_is_broken_before_a_text_is():
    head = ["blocks", "mean sharing fraction", "token hit rate, by request", "points per further GiB", "range"]
    layout = fit_table(head, [["1,000", "50.8 %", "62.2 %", "0.5", "1–2"]], [True] * 5, COLUMN_PT)
    assert layout.fits and layout.size == "footnotesize" and max(map(len, layout.heads)) == 2


def test_a_long_text_wraps_and_every_column_keeps_its_longest_word():
    layout = fit_table(["what", "why", "n"], [[WORDS, WORDS[:40], "12"]] * 2, [False, False, True], COLUMN_PT)
    assert layout.fits and layout.wraps[0] > layout.wraps[1] > measure_text("longer text") and layout.wraps[2] is None
    lines = layout.count_lines([[WORDS, "short", "12"]])
    assert lines[0] >= measure_text(WORDS) / layout.wraps[0]
    body = write_tabular(layout, [[WORDS, "short", "12"]], [False, False, True], r"\columnwidth")
    assert rf">{{\raggedright\arraybackslash}}p{{{layout.wraps[0]:.1f}pt}}" in body[1]


def test_what_fits_in_no_layout_is_scaled():
    head = [f"column{k}" for k in range(14)]
    layout = fit_table(head, [["1,234,567"] * 14], [True] * 14, COLUMN_PT)
    assert not layout.fits
    assert write_tabular(layout, [], [True] * 14, r"\columnwidth")[1] == r"\resizebox{\columnwidth}{!}{%"
    assert fit_table(head[:9], [["1,234,567"] * 9], [True] * 9, PAGE_PT).fits


def test_a_heading_takes_as_few_lines_as_its_cells_allow():
    assert wrap_head("a b c d", ["long enough"], 9, "footnotesize") == ["a b c d"]
    assert wrap_head("one two three", ["1"], 9, "footnotesize") == ["one", "two", "three"]
    assert wrap_head("one two three", ["1"], 1, "footnotesize") == ["one two three"]
