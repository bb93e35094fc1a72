"""Traces in Bailian's form: what is read of a good file, and how a bad one is refused, by file and line."""

import gzip

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from trace_lines import CHATS, as_seen, columns, write
from trace_lines import chat_line as line

from kvprefix.cache.curve import rate_unbounded
from kvprefix.files.arrow_lines import read_fast, read_slowly
from kvprefix.files.paths import InputError
from kvprefix.formats.bailian import BAILIAN, link_chats, read_bailian, write_bailian
from kvprefix.formats.block_reader import BlockReader
from kvprefix.studies.sweep import load_accesses


def test_a_small_trace_read_by_hand(tmp_path):
    path = write(tmp_path / "t.jsonl", *CHATS)
    assert columns(read_bailian(path, 4)) == {
        "ids": [0, 1, 2, 0, 3, 4],
        "offsets": [0, 2, 3, 6],
        "last_weight": [3, 4, 2],  # 7 - 4, 4, 10 - 2 * 4
        "prompt_tokens": [7, 4, 10],
        "parent": [-1, 0, -1, 0, 3],
        "depth": [0, 1, 0, 1, 2],
        "arrival_s": [0.5, 1.25, 2],
        "finish_s": [0.5, 1.25, 2],
        "conversation": [0, 1, 0],
        "output_tokens": [3, 3, 3],
        "previous": [-1, -1, 0],
        "turn": [0, 0, 1],
    }
    trace = read_bailian(path, 4)
    assert trace.types == ["text", "search", "text"]
    assert trace.info == {"trace": "t.jsonl", "notes": []}


def test_the_usual_block_holds_16_tokens_unless_the_file_says_otherwise(tmp_path):
    path = write(tmp_path / "t", line(1, [5, 6], 17))
    assert read_bailian(path).block_size == load_accesses(path).block_size == 16
    path = write(tmp_path / "u", line(1, [5, 6], 8, block_size=4))
    assert read_bailian(path).block_size == load_accesses(path).block_size == 4
    assert load_accesses(write(tmp_path / "v", line(1, [5, 6], 600)), 512).block_size == 512


@pytest.mark.parametrize("size", ["16", 0, 2.5])
def test_a_block_size_that_is_none_is_refused(tmp_path, size):
    with pytest.raises(InputError, match=f"{tmp_path}/t: in the first request, block size is {size!r}"):
        read_bailian(write(tmp_path / "t", line(1, [5], block_size=size)))


def test_ids_that_name_a_block_s_own_tokens_are_told_apart_by_what_precedes_them(tmp_path):
    # ab, xb, ab: the b after x is another block; of 6 accesses 2 hit
    path = write(tmp_path / "t", line(1, [1, 2]), line(2, [9, 2]), line(3, [1, 2]))
    accesses = read_bailian(path, 4)
    assert accesses.ids.tolist() == [0, 1, 2, 3, 0, 1]
    assert rate_unbounded(accesses)["block"] == pytest.approx(2 / 6)
    assert accesses.info["notes"] == [
        "3 block ids name a block's own tokens, not all that precede them: with those, 4 blocks"
    ]


def test_chats_may_be_texts_or_repeat_or_lack_a_parent(tmp_path):
    lines = [line("a", [1], stamp=3), line("a", [1, 2], stamp=1), line("b", [3], stamp=2, parent="zz")]
    lines.append(line("c", [1, 4], stamp=4, parent=None))
    trace = read_bailian(write(tmp_path / "t", *lines), 4)
    assert trace.arrival_s.tolist() == [1, 2, 3, 4] and trace.previous.tolist() == [-1, -1, 0, -1]
    assert trace.conversation.tolist() == [0, 1, 0, 2]
    assert trace.info["notes"] == [
        "2 stamps out of order: sorted",
        "1 request whose parent is not before them in the file: taken as first",
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), max_size=12))
def test_chats_are_linked_as_a_search_links_them(pairs):
    chats, parents = [chat for chat, _ in pairs], [parent for _, parent in pairs]
    expected = []
    for i, (chat, parent) in enumerate(pairs):
        wanted = chat if parent == -1 else parent
        expected.append(max((k for k in range(i) if chats[k] == wanted), default=-1))
    previous, lost = link_chats(chats, parents)
    assert previous.tolist() == expected
    assert lost == sum(p != -1 and e < 0 for p, e in zip(parents, expected, strict=True))


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), st.integers(0, 3), st.floats(-9, 9),
            st.integers(-9, 9), st.integers(-1, 9) | st.none(), st.integers(1, 9), st.text(max_size=3),
        ),
        min_size=1, max_size=9,
    ),
)  # fmt: skip
def test_both_readers_agree(tmp_path_factory, requests):
    path = tmp_path_factory.mktemp("trace") / "t"
    lines = [
        line(chat, ids, max(4 * len(ids) - short, 0), stamp, parent, turn=turn, type=kind)
        for ids, short, stamp, chat, parent, turn, kind in requests
    ]
    write(path, *lines)
    slow = read_slowly(path, BlockReader(BAILIAN, 4))
    fast = read_fast(path, BlockReader(BAILIAN, 4)) or slow  # Arrow takes no lone surrogates
    assert fast[1] == slow[1] and list(fast[0]) != [] and fast[0].keys() == slow[0].keys()
    for name, column in as_seen(fast[0]).items():
        assert (column.tolist(), column.dtype) == (as_seen(slow[0])[name].tolist(), slow[0][name].dtype)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=4), st.integers(0, 3), st.floats(0, 1e6)), min_size=1),
)  # fmt: skip
def test_what_is_written_is_read_again(tmp_path_factory, requests):
    folder = tmp_path_factory.mktemp("trace")
    drawn = [(ids, max(4 * len(ids) - short, 0), stamp) for ids, short, stamp in requests]
    lines = [line(k, *one, k - 2, turn=k + 1) for k, one in enumerate(drawn)]
    trace = read_bailian(write(folder / "a", *lines), 4)
    write_bailian(trace, folder / "b")
    again = read_bailian(folder / "b")
    for name, value in vars(trace).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(again, name), err_msg=name)
    assert (again.types, again.block_size) == (trace.types, 4)


GOOD = line(1, [1, 2])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{]", "is not JSON (Expecting property name"),
        (GOOD.replace('"output_length": 3, ', ""), 'lacks output_length; a line is {"chat_id": id'),
        (line(1, [1], stamp="now"), 'has timestamp "now"; expected a number of seconds'),
        (line(1, [1], output_length=-1), "has output_length -1; expected a whole number of tokens, 0 or more"),
        (line(1.5, [1]), "has chat_id 1.5; expected a whole number or a text"),
        (line(1, [1], parent=[2]), "has parent_chat_id [2]"),
        (line(1, [1], turn=0), "has turn 0; expected a whole number, 1 or more"),
        (line(1, [1], turn="1"), 'has turn "1"'),
        (line(1, [1], type=3), "has type 3; expected a text"),
        (line(1, [1, 2], 3), "lists 2 blocks for input_length 3; expected 1 of 4 tokens (give another size with"),
    ],
)
@pytest.mark.parametrize("compress", [None, gzip.compress, zstandard.compress])
def test_a_bad_line_is_named(tmp_path, bad, said, compress):
    lines = f"{GOOD}\n\n{GOOD}\n{bad}\n{GOOD}\n".encode()
    path = tmp_path / "bad.jsonl"
    path.write_bytes(compress(lines) if compress else lines)
    with pytest.raises(InputError) as error:
        read_bailian(path, 4)
    assert str(error.value).startswith(f"{path}: line 4 ") and said in str(error.value)


def test_chats_and_blocks_may_have_names_of_any_kind(tmp_path):
    # 2**64 continues 2**63, text "c" continues "b"; their blocks are the same as in CHATS
    chats = [line(2**63, ["x", "y"], 7, 0.5), line("b", ["z"], 4, 1.25, None), line(2**64, ["x", 1, 2], 10, 2, 2**63)]
    trace, plain = (read_bailian(write(tmp_path / "t", *lines), 4) for lines in (chats, CHATS))
    assert trace.ids.tolist() == plain.ids.tolist() and trace.previous.tolist() == [-1, -1, 0]


def test_without_stamps_the_order_counts(tmp_path):
    lines = [one.replace('"timestamp"', '"x"') for one in CHATS]
    trace, plain = (read_bailian(write(tmp_path / "t", *some), 4) for some in (lines, CHATS))
    assert trace.ids.tolist() == plain.ids.tolist() and trace.arrival_s.tolist() == [0, 0, 0]
    assert trace.info["notes"] == ["no line has a time: all requests arrive at 0 s, in the lines' order"]
    with pytest.raises(InputError, match="line 3 lacks timestamp, unlike the first request; expected all or none"):
        read_bailian(write(tmp_path / "t", *CHATS[:2], lines[2]), 4)


@pytest.mark.parametrize("stamp", [1_714_567_890_123, -1e10, 1e300])  # ms, which are no seconds before the year 2100
def test_a_stamp_that_cannot_be_a_time_is_refused(tmp_path, stamp):
    with pytest.raises(InputError, match="line 2 has timestamp .* a number of seconds"):
        read_bailian(write(tmp_path / "t", GOOD, line(1, [1], stamp=stamp)), 4)


def test_a_file_without_requests_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"t: holds no requests; a line is \{"):
        read_bailian(write(tmp_path / "t"))
