"""CSV cells that a spreadsheet would run as formulas: as they are by default, guarded where the switch is on."""

import csv
import json
import os

import pandas as pd
import pytest
from samples import write_notebook

from kvprefix.__main__ import main
from kvprefix.files.csv_cells import VARIABLE, guard_cells, guarding
from kvprefix.files.paths import InputError
from kvprefix.report.plots.axes import make_axes, save_figure
from kvprefix.report.tables import save_table

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1", '=HYPERLINK("http://x")', "\uff1d1"]
RETURNS = {"a\r=1": "a\n=1", "\r\n=1": "\n=1"}  # a bare carriage return begins a row, and what follows it a cell
HARMLESS = ["a=1", "'=1", " =1", "", "1-1", "\u2013"]


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("option", [[], ["--csv-safe"]])
def test_names_of_the_data_are_guarded_in_the_request_table_on_request(tmp_path, option):
    records = [{"id": name, "messages": [{"role": "user", "content": "Hi"}]} for name in [*FORMULAS, *HARMLESS[:3]]]
    (tmp_path / "data").write_text("".join(json.dumps(record) + "\n" for record in records))
    command = ["run", "--data", str(tmp_path / "data"), "--output-dir", str(tmp_path / "out"), "--skip-visualization"]
    assert main([*command, *option]) == 0 and VARIABLE not in os.environ
    for mode in ("single_turn", "multi_turn"):
        rows = rows_of(tmp_path / f"out/{mode}_request_metrics.csv")
        rows.sort(key=lambda row: int(row["conversation_index"]))
        assert [row["conversation_id"] for row in rows] == [
            *(f"'{name}" if option else name for name in FORMULAS), *HARMLESS[:3]
        ]  # fmt: skip
        told = [json.loads(one) for one in (tmp_path / f"out/{mode}_trace.jsonl").read_text().splitlines()]
        assert {one["conversation_id"] for one in told} == {*FORMULAS, *HARMLESS[:3]}  # JSON is no spreadsheet


@pytest.mark.parametrize("is_on", [False, True])
def test_tables_and_figures_are_guarded_too(tmp_path, is_on):
    frame = pd.DataFrame({"name": [*FORMULAS, *HARMLESS], "value": -1.5, "n": -2})
    with guarding(is_on):
        save_table(frame, tmp_path / "table", "caption")
        save_figure(make_axes()[0], frame, "caption", tmp_path / "figure")
    for name in ("table", "figure"):
        rows = rows_of(tmp_path / f"{name}.csv")
        assert [row["name"] for row in rows] == [*(f"'{text}" if is_on else text for text in FORMULAS), *HARMLESS]
        assert {(row["value"], row["n"]) for row in rows} == {("-1.5", "-2")}  # numbers are none


def test_notebooks_see_the_switch(tmp_path):
    code = f"import os; open(f'{{output_dir}}/seen', 'w').write(os.environ.get({VARIABLE!r}, 'unset'))"
    source = write_notebook(tmp_path / "90-z.ipynb", code)
    for option, seen in ([], "unset"), (["--csv-safe"], "true"):
        assert main(["notebooks", str(source), "--output-dir", str(tmp_path / "out"), *option]) == 0
        assert (tmp_path / "out/seen").read_text() == seen


def test_numbers_are_written_alike_with_and_without():
    frame = pd.DataFrame({"a": [0.1 + 0.2, 1e-300, float("nan")], "b": [2**53 + 1, -1, 0], "c": [None, "x", True]})
    plain = frame.to_csv(index=False)
    with guarding(True):
        assert guard_cells(frame).to_csv(index=False) == plain
    pd.testing.assert_frame_equal(guard_cells(frame), frame)
    column = pd.Series([1, 2.5, "x", None], dtype=object)
    mixed = pd.DataFrame({"a": column, "b": pd.Categorical(["=1", "=1", "y", "y"])})
    assert guard_cells(mixed).to_csv(index=False) == mixed.to_csv(index=False) == "a,b\n1,=1\n2.5,=1\nx,y\n,y\n"


@pytest.mark.parametrize("is_on", [False, True])
def test_a_carriage_return_begins_no_row(tmp_path, is_on):
    frame = pd.DataFrame({"name": [*RETURNS], "n": [1, 2]})
    with guarding(is_on):
        guard_cells(frame).to_csv(tmp_path / "t.csv", index=False, lineterminator="\n")
    assert [row["name"] for row in rows_of(tmp_path / "t.csv")] == ["a\n=1", "'\n=1" if is_on else "\n=1"]


def test_the_switch_is_true_or_false(monkeypatch):
    for value, is_on in {"true": True, "1": True, "TRUE": True, "false": False, "0": False, "": False}.items():
        monkeypatch.setenv(VARIABLE, value)
        assert guard_cells(pd.DataFrame({"a": ["=1"]}))["a"].tolist() == ["'=1" if is_on else "=1"]
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(InputError, match=f"{VARIABLE} is 'yes'; expected true or false"):
        guard_cells(pd.DataFrame())
    with guarding(True):
        assert os.environ[VARIABLE] == "true"
    assert os.environ[VARIABLE] == "yes"
