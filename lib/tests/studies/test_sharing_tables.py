"""The tables' bytes are those that pandas and pyarrow write of the whole table."""

import io

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv
from twin import small_traces

from kvprefix.blocks.sharing import share
from kvprefix.stats.metrics import tabulate_blocks
from kvprefix.studies import sharing_tables
from kvprefix.studies.sharing_tables import write_blocks, write_requests
from kvprefix.traces.trace import make_trace_of


@pytest.fixture(params=[2, 2**18])
def rows(request, monkeypatch):
    monkeypatch.setattr(sharing_tables, "REQUESTS", request.param)
    monkeypatch.setattr(sharing_tables, "BLOCKS", request.param)
    return request.param


def write_whole(sharing):
    table, text = tabulate_blocks(sharing.time_block_runs()), io.BytesIO()
    csv.write_csv(table, text, csv.WriteOptions(include_header=False))
    return (",".join(table.column_names) + "\n").encode() + text.getvalue()


def assert_blocks_equal(sharing, folder):
    write_blocks(sharing, folder / "blocks.csv")
    assert (folder / "blocks.csv").read_bytes() == write_whole(sharing)


@given(small=small_traces(), block_size=st.integers(1, 3), at_once=st.integers(1, 9))
def test_blocks_of_runs_are_written_as_a_whole_table_is(tmp_path_factory, small, block_size, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing_tables, "BLOCKS", at_once)
        assert_blocks_equal(share(small.trace, block_size), tmp_path_factory.mktemp("blocks"))


def test_long_and_odd_numbers_of_blocks_are_written(tmp_path, rows):
    prompts = [list(range(k, k + 1001)) for k in (0, 5000)] + [list(range(700)), list(range(13))]
    assert_blocks_equal(share(make_trace_of(prompts, arrival_s=[0.0, 1e-6, 123456.789012, 1e9]), 1), tmp_path)


def test_no_blocks_are_a_head(tmp_path, rows):
    assert_blocks_equal(share(make_trace_of([[1], []]), 2), tmp_path)


ODD = ["plain", 'a "quote"', "a, comma", "two\nlines", "a\rreturn", "", "\u00fc \u2028", "=1+1"]


@pytest.mark.parametrize("odd", ODD)
def test_requests_are_written_as_pandas_writes_them(tmp_path, rows, odd):
    frame = pd.DataFrame({
        "name": [odd, "b", "c"], "count": [1, -2, 10**12], "share": [0.0, 1e-5, 1 / 3], "time_s": [0.1, 1e16, 12.0],
        "none": None,
    })  # fmt: skip
    write_requests(frame, tmp_path / "requests.csv")
    expected = frame.assign(name=frame["name"].str.replace("\r", "\n")).to_csv(index=False, lineterminator="\n")
    assert (tmp_path / "requests.csv").read_bytes() == expected.encode()


def test_an_earlier_run_s_parts_give_way(tmp_path, rows):
    frame = pd.DataFrame({"count": range(5)})
    write_requests(frame, tmp_path / "requests.csv", parquet=True)
    write_requests(frame[:1], tmp_path / "requests.csv", parquet=True)
    parts = list((tmp_path / "requests.parquet").iterdir())
    assert [part.name for part in parts] == ["part-00000.parquet"]
    assert pa.parquet.read_table(parts[0]).to_pydict() == {"count": [0]}
    assert not list(tmp_path.glob(".*"))
