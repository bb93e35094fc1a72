"""Tables: each cell as it is in CSV, as it is shown in Markdown and LaTeX, by column or by row."""

import numpy as np
import pandas as pd
import pytest

from kvprefix.report.rounding import percent
from kvprefix.report.tables import format_number, save_table, table_markdown


@pytest.mark.parametrize(
    "value, form, shown",
    [
        (43824189, None, "43,824,189"), (43824189.0, None, "43,824,189"), (0, None, "0"), (-5, None, "−5"),
        (0.41234, None, "0.412"), (-0.41264, None, "−0.413"), (0.00012346, None, "0.000123"), (12.345, None, "12.3"),
        (0.5, "{:.2%}", "50.00%"), (0.5, lambda x: f"<{x}>", "<0.5>"), (3, "{:.1f}", "3.0"),
        (-0.001, "{:+.2f}", "0.00"), (-0.01, "{:.2f}", "−0.01"),
        (None, None, "–"), (float("nan"), None, "–"), (None, "{:.1f}", "–"), (np.nan, "{:.1f}", "–"),
        ("LRU", None, "LRU"), ("7", "{:.1f}", "7"), (True, None, "True"), (np.int64(1234), None, "1,234"),
        (np.float64(0.25), None, "0.25"), (999.5, None, "1e+03"), (123456, "{:,}", "123,456"),
    ],
)  # fmt: skip
def test_a_cell(value, form, shown):
    assert format_number(value, form) == shown


def test_the_three_files(tmp_path):
    frame = pd.DataFrame({
        "policy": ["LRU", "S3-FIFO"], "rate": [0.123456789, 0.987654321], "blocks": [1000, 2345678], "low": [None, 2.5],
    })  # fmt: skip
    markdown = table_markdown(save_table(frame, tmp_path / "t", "Two rows", {"rate": percent}))
    assert (tmp_path / "t.csv").read_text() == (
        "policy,rate,blocks,low\nLRU,0.123456789,1000,\nS3-FIFO,0.987654321,2345678,2.5\n"
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.split("\n")]
    assert rows[0] == ["policy", "rate", "blocks", "low"]
    assert [rule.endswith(":") for rule in rows[1]] == [False, True, True, True]
    assert rows[2:] == [["LRU", "12.3 %", "1,000", "–"], ["S3-FIFO", "98.8 %", "2,345,678", "2.5"]]
    assert (tmp_path / "t.md").read_text() == markdown + "\n"
    latex = (tmp_path / "t.tex").read_text()
    assert r"\begin{tabular}{lrrr}" in latex and r"S3-FIFO & 98.8 \% & 2,345,678 & 2.5 \\" in latex


def test_formats_by_row(tmp_path):
    frame = pd.DataFrame({"measure": ["share", "mean"], "one": [0.5, 0.25], "two": [0.125, 8]})
    markdown = table_markdown(save_table(frame, tmp_path / "t", "", [percent, "{:.2f}"]))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.split("\n")][2:]
    assert rows == [["share", "50.0 %", "12.5 %"], ["mean", "0.25", "8.00"]]
    with pytest.raises(ValueError):
        save_table(frame, tmp_path / "t", "", ["{:.1%}"])
