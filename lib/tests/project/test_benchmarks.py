"""The table of the benchmarks: medians, ratios and their spread, and rows that are kept."""

import pytest
from places import LIB


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(LIB / "benchmarks"))
    import bench
    import table

    return bench, table


def make_row(table, pairs, **more):
    row = table.Row("sweep", "a job", "a tool 1.0", "CPU s", None, 10, 15, **more)
    return table.Measured(row, table.Job("us", "them", None), [table.Pair(*pair) for pair in pairs])


def test_a_row_holds_the_medians_and_how_far_the_pairs_are_apart(benchmarks):
    _, table = benchmarks
    pairs = [(2.0, 20.0), (1.0, 14.0), (4.0, 36.0)]  # ratios 10, 14 and 9
    line = table.write_row(make_row(table, pairs))
    assert line == "| sweep | a job | a tool 1.0 | CPU s | 2 | 20.0 | **10.0** | 9 to 14.0 (3) | 10 | 15 |"
    shared = table.write_row(make_row(table, [(1.0, 4.0)], is_share=True))
    assert shared.endswith("| 1 | 4 | **0.25** | 0.25 to 0.25 (1) | at most 10 | at most 15 |")


def test_a_row_that_cannot_be_measured_says_why_and_the_others_go_on(benchmarks):
    bench, table = benchmarks

    def prepare(_):
        raise table.NotHereError("a tool 1.0 does not install")

    row = table.Row("sweep", "a job", "a tool 1.0", "CPU s", prepare)
    measured = bench.measure(row, None, 3)
    assert "not measured" in table.write_row(measured)
    assert table.describe_row(measured) == "- sweep: not measured: a tool 1.0 does not install"


def test_rows_that_are_not_asked_for_stay_as_they_were(benchmarks):
    bench, table = benchmarks
    first = make_row(table, [(1.0, 11.0)])
    other = first._replace(row=first.row._replace(name="vllm"))
    before = bench.write_table({"sweep": first, "vllm": other})
    after = bench.write_table({"vllm": other._replace(pairs=[table.Pair(1.0, 3.0)])}, before)
    assert bench.write_table({}, after) == after
    kept = [line for line in before.splitlines() if "sweep" in line]
    assert len(kept) == 2 and all(line in after for line in kept) and "**3**" in after and "**11.0**" in after


def test_rows_are_written_at_once_so_that_a_later_fault_loses_none(benchmarks, tmp_path, monkeypatch):
    bench, table = benchmarks

    def prepare(of):
        def take_pair(k):
            return table.Pair(*of)

        return lambda _: table.Job("us", "them", take_pair)

    rows = [table.Row(name, "a job", "a tool", "CPU s", prepare(of)) for name, of in (("one", (1, 2)), ("two", "x"))]
    monkeypatch.setattr(bench, "ROWS", rows)
    monkeypatch.setattr("sys.argv", ["bench.py", "--output", str(tmp_path / "bench.md")])
    with pytest.raises(TypeError):
        bench.main()
    assert "| one | a job |" in (tmp_path / "bench.md").read_text()
