import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from twin import small_traces

from kvprefix.files.paths import InputError
from kvprefix.tokens.arrays import Tokens
from kvprefix.traces import parquet as trace_module
from kvprefix.traces.parquet import read_trace, write_trace
from kvprefix.traces.trace import REQUEST_COLUMNS, Trace, make_trace_of


def prompts_of(trace):
    return [trace.prompt(i).tolist() for i in range(len(trace))]


def continues_what_is_before(trace):
    """Return whether every request that shares tokens finds its parent earlier in the trace."""
    position = {row: i for i, row in enumerate(trace.rows.tolist())}
    shared, parent = trace.tokens.shared, trace.tokens.parent
    return all(position.get(parent[row], i) < i for row, i in position.items() if shared[row])


def three_turns():
    """Return prompts 1 2 3, 1 2 3 4 5 and 1 2 6, each stored as the rest of the one before."""
    tokens = Tokens(
        parent=np.array([-1, 0, 1]), shared=np.array([0, 3, 2]), own_offsets=np.array([0, 3, 5, 6]),
        own=np.array([1, 2, 3, 4, 5, 6], np.int32), own_is_template=np.array([1, 0, 1, 1, 0, 0], bool),
        output_offsets=np.array([0, 2, 2, 3]), output=np.array([7, 8, 9], np.int32),
    )  # fmt: skip
    requests = make_trace_of([[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 6]], outputs=[[7, 8], [], [9]]).requests
    return Trace(requests, np.arange(3), tokens, {"seed": 1})


def test_prompts_are_gathered_through_their_parents():
    trace = three_turns()
    assert prompts_of(trace) == [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 6]]
    assert [trace.generated(i).tolist() for i in range(3)] == [[7, 8], [], [9]]
    # template tokens are 1, 3 and 4; row 2's first two come from row 1, which has them from row 0
    assert prompts_of(trace.without_template()) == [[2], [2, 5], [2, 6]]
    assert trace.without_template().requests["prompt_tokens"].tolist() == [1, 2, 2]


@given(small_traces())
def test_tokens_stand_for_plain_lists(small):
    trace, plain = small.trace, small.trace.without_template()
    kept = [
        [token for token, flag in zip(prompt, flags, strict=True) if not flag]
        for prompt, flags in zip(small.prompts, small.is_template, strict=True)
    ]
    assert prompts_of(trace) == small.prompts
    assert prompts_of(plain) == kept
    assert plain.requests["prompt_tokens"].tolist() == [len(prompt) for prompt in kept]
    for either in (trace, plain):
        assert (
            either.tokens.prompt_lengths()[either.rows].tolist() == either.requests["prompt_tokens"].tolist()
        )
        assert [either.generated(i).tolist() for i in range(len(either))] == small.outputs


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(small_traces(in_order=True))
def test_written_trace_reads_back(tmp_path, small):
    write_trace(small.trace, tmp_path / "a.parquet")
    back = read_trace(tmp_path / "a.parquet")
    assert back.requests.to_dict("list") == small.trace.requests[REQUEST_COLUMNS].to_dict("list")
    assert prompts_of(back) == small.prompts
    assert prompts_of(back.without_template()) == prompts_of(small.trace.without_template())
    assert [back.generated(i).tolist() for i in range(len(back))] == small.outputs
    write_trace(back, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(small_traces())
def test_request_that_goes_on_from_a_later_one_is_written_whole(tmp_path, small):
    assume(not continues_what_is_before(small.trace))
    write_trace(small.trace, tmp_path / "trace.parquet")
    again = read_trace(tmp_path / "trace.parquet")
    for i in range(len(small.trace)):
        assert again.prompt(i).tolist() == small.trace.prompt(i).tolist()
        assert again.generated(i).tolist() == small.trace.generated(i).tolist()
    assert continues_what_is_before(again)
    flags = [again.without_template().prompt(i).tolist() for i in range(len(again))]
    assert flags == [small.trace.without_template().prompt(i).tolist() for i in range(len(again))]


def test_info_is_kept(tmp_path):
    write_trace(three_turns(), tmp_path / "trace.parquet")
    assert read_trace(tmp_path / "trace.parquet").info == {"seed": 1}


@pytest.mark.parametrize(
    "column",
    ["request_id", "parent", "shared_tokens", "own_token_ids", "own_is_template", "output_token_ids"],
)
def test_file_that_lacks_a_column_is_refused(tmp_path, column):
    path = tmp_path / "trace.parquet"
    write_trace(three_turns(), path)
    pq.write_table(pq.read_table(path).drop_columns(column), path)
    with pytest.raises(InputError, match=f"trace.parquet: .*lacks the columns {column}"):
        read_trace(path)


def test_file_that_is_no_trace_is_refused(tmp_path):
    (tmp_path / "text").write_text("no Parquet")
    with pytest.raises(InputError, match="text: cannot be read"):
        read_trace(tmp_path / "text")
    with pytest.raises(InputError, match="absent: .*no such file"):
        read_trace(tmp_path / "absent")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other")
    with pytest.raises(InputError, match="is no kvprefix trace"):
        read_trace(tmp_path / "other")


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_trace_file_is_refused(tmp_path, damage):
    path = tmp_path / "trace.parquet"
    write_trace(make_trace_of(np.random.default_rng(0).integers(0, 9999, (100, 100)).tolist()), path)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(path)


def test_trace_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/trace.parquet"):
        write_trace(three_turns(), tmp_path / "file" / "trace.parquet")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(small_traces(in_order=True))
def test_row_groups_hold_the_same_trace(tmp_path, small):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace_module, "ROW_GROUP", 2)
        write_trace(small.trace, tmp_path / "groups.parquet")
    assert pq.ParquetFile(tmp_path / "groups.parquet").num_row_groups == -(-len(small.trace) // 2)
    write_trace(small.trace, tmp_path / "whole.parquet")
    groups, whole = read_trace(tmp_path / "groups.parquet"), read_trace(tmp_path / "whole.parquet")
    assert groups.requests.equals(whole.requests) and prompts_of(groups) == prompts_of(whole) == small.prompts
    assert pq.read_table(tmp_path / "groups.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))


WRONG = {  # column: values of three requests, prompts 1 2 3 4, 1 2 3 4 5 and 9, of which none goes on from another
    "a far parent": ("parent", [9**9, -1, -1]), "itself": ("parent", [0, -1, -1]), "below -1": ("parent", [-2, -1, -1]),
    "nothing to share": ("shared_tokens", [10**12, 0, 0]), "less than nothing": ("shared_tokens", [-4, 0, 0]),
    "other lengths": ("prompt_tokens", [4, 5, 10**15]), "a length missing": ("prompt_tokens", [4, None, 1]),
    "no time": ("arrival_s", [0.0, float("nan"), 2.0]), "no order": ("arrival_s", [3.0, 1.0, 2.0]),
    "texts": ("arrival_s", ["a", "b", "c"]), "a token below 0": ("own_token_ids", [[1] * 4, [1] * 5, [-9]]),
    "an output below 0": ("output_token_ids", [[], [-1], []]), "no lists": ("own_token_ids", [1, 2, 3]),
    "few flags": ("own_is_template", [[True], [True], [True]]), "a turn below 0": ("turn", [0, -1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_file_whose_values_contradict_one_another_is_refused(tmp_path, name):
    write_trace(make_trace_of([[1, 2, 3, 4], [1, 2, 3, 4, 5], [9]]), tmp_path / "t.parquet")
    table, (column, values) = pq.read_table(tmp_path / "t.parquet"), WRONG[name]
    assert len(read_trace(tmp_path / "t.parquet")) == 3
    is_list = isinstance(values[0], list)
    array = pa.array(values, table.schema.field(column).type if is_list else None)
    pq.write_table(table.set_column(table.column_names.index(column), column, array), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="t.parquet: is no whole kvprefix trace: it.*; expected one of `run"):
        read_trace(tmp_path / "t.parquet")


@pytest.mark.parametrize("info", ["{", "[1]", '{"parameters": []}', "[" * 10**5])
def test_a_file_whose_notes_are_none_is_refused(tmp_path, info):
    write_trace(make_trace_of([[1, 2]]), tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet").replace_schema_metadata({"kvprefix": info})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet: is no whole kvprefix trace"):
        read_trace(tmp_path / "t.parquet")


def test_contexts_stay_with_a_trace_but_not_in_a_file(tmp_path):
    assert make_trace_of([[1], [2]], cache_salts=["x", "x"], lora_names=[None, ""]).contexts is None
    trace = make_trace_of([[1], [2], [3]], cache_salts=[None, "x", ""])
    assert trace.contexts.tolist() == trace.without_template().contexts.tolist() == [0, 1, 0]
    with pytest.raises(InputError, match="holds no cache salts and no adapters"):
        write_trace(trace, tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize(
    "column", [{"outputs": [[1]]}, {"arrival_s": [1, 2, 3]}, {"cache_salts": []}, {"lora_names": ["a"]}]
)
def test_a_column_of_another_length_is_refused(column):
    ((name, values),) = column.items()
    with pytest.raises(InputError, match=f"{name} has {len(values)} entries for 2 prompts; expected one per prompt"):
        make_trace_of([[1], [2]], **column)


def test_columns_become_a_frame_when_they_are_read():
    trace = make_trace_of([[1], [2, 3]], [0.5, 1.5], [[4, 5], []])
    assert trace.arrival_s.tolist() == [0.5, 1.5] and trace.request_ids == ["c0t0", "c1t0"]
    assert list(trace.requests) == REQUEST_COLUMNS and trace.requests is trace.requests
    assert trace.requests["output_tokens"].tolist() == [2, 0] and trace.request_ids == ["c0t0", "c1t0"]
    assert pickle.loads(pickle.dumps(trace)).requests.equals(trace.requests)
    assert replace(trace, info={"a": 1}).requests is trace.requests
    with pytest.raises(TypeError, match="requests"):
        Trace(rows=trace.rows, tokens=trace.tokens, info={})
