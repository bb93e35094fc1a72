"""The curve command and its library: what it prints for traces of both kinds, and what it refuses."""

import gzip
import json
import os
import time
from dataclasses import replace

import pytest
from trace_lines import line, write

from kvprefix.__main__ import main
from kvprefix.blocks.prefix_trace import make_prefix_trace
from kvprefix.cache.curve import lru_curve, rate_hits, rate_unbounded
from kvprefix.cache.policies import POLICIES
from kvprefix.cache.replay import replay
from kvprefix.formats.mooncake import read_mooncake
from kvprefix.studies.sweep import _is_cached, default_capacities, is_compiled, load_accesses, sweep
from kvprefix.traces.parquet import write_trace
from kvprefix.traces.trace import make_trace_of

# A chat of two turns around another request, in blocks of 4 tokens: with room for 2 blocks the second turn hits under
# OPT alone. Unbounded: 2 of 6 blocks; 8 of 22 tokens; the mean of 0, 0 and 8 / 10.
CHAT = [line([1, 2], 8, 10), line([3], 4, 20), line([1, 2, 4], 10, 30)]


@pytest.fixture
def curve(capsys, monkeypatch):
    """Run the command, as if compiled before; return its exit code, stdout and stderr."""
    monkeypatch.setattr("kvprefix.studies.sweep.is_compiled", lambda policies: True)

    def run(*arguments):
        code = main(["curve", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def chat(tmp_path):
    return write(tmp_path / "chat.jsonl", *CHAT)


def rates(row):
    return [row["block"], row["token"], row["request_mean"]]


def test_the_json_of_a_hand_worked_trace(curve, chat):
    code, out, err = curve(chat, "--block-size", 4, "--capacities", "2,3", "--format", "json")
    result = json.loads(out)
    assert code == 0 and err == "" and list(result) == ["trace", "unbounded", "curves"]
    assert result["trace"] == {
        "path": str(chat), "requests": 3, "block_accesses": 6, "distinct_blocks": 4, "block_size": 4, "warmup": 0,
        "notes": [],
    }  # fmt: skip
    ceiling = pytest.approx([2 / 6, 8 / 22, 8 / 10 / 3])
    assert rates(result["unbounded"]) == ceiling
    assert [(row["policy"], row["capacity_blocks"]) for row in result["curves"]] == [
        ("lru", 2), ("lru", 3), ("opt", 2), ("opt", 3),
    ]  # fmt: skip
    # LRU with room for 2: block 3 takes the place of block 2, so that the second turn hits block 1 alone.
    assert rates(result["curves"][0]) == pytest.approx([1 / 6, 4 / 22, 4 / 10 / 3])
    assert all(rates(row) == ceiling for row in result["curves"][1:])


def test_the_table_says_the_same(curve, chat):
    code, out, err = curve(chat, "--block-size", "4", "--capacities", "3,2", "--policy", "opt,lru,fifo_flat")
    assert code == 0 and err == ""
    counted = "all requests, from an empty cache on"
    assert out.split("\n")[:5] == [
        f"{chat}: 3 requests, 6 block accesses, 4 distinct blocks of 4 tokens",
        f"Hit rates of {counted}: by block access, by prompt token, and the mean over requests",
        "A cache that never evicts: block 33.33 %, token 36.36 %, request mean 26.67 %",
        "",
        "| policy      |   capacity (blocks) |   block |   token |   request mean |",
    ]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in out.rstrip("\n").split("\n")[6:]]
    assert [row[:2] for row in rows] == [
        [label, capacity] for label in ("OPT", "LRU", "FIFO (flat)") for capacity in ("3", "2")
    ]
    assert rows[0][2:] == ["33.33 %", "36.36 %", "26.67 %"] and rows[3][2:] == ["16.67 %", "18.18 %", "13.33 %"]


def test_the_last_half_is_counted_after_a_warm_up(curve, chat):
    _, out, _ = curve(chat, "--block-size", 4, "--capacities", 9, "--format", "json", "--warmup", 0.5)
    result = json.loads(out)
    assert result["trace"]["warmup"] == 0.5  # of 3 requests the first, rounded down, is not counted
    assert rates(result["unbounded"]) == rates(result["curves"][0]) == pytest.approx([2 / 4, 8 / 14, 8 / 10 / 2])
    assert "Hit rates of the last 50 % of the requests:" in curve(chat, "--block-size", 4, "--warmup", 0.5)[1]


def test_every_policy_is_rated_as_its_replay_and_lru_as_its_curve(tmp_path):
    # Requests go down a tree that branches into 2, 3, 5 and 7, to a depth of 1 to 4; a block's id is its path's digits.
    paths = [[f"{i % 2 + 1}", f"{i % 3}", f"{i % 5}", f"{i % 7}"][: 1 + i // 3 % 4] for i in range(300)]
    ids = [[int("".join(path[: k + 1])) for k in range(len(path))] for path in paths]
    lines = [line(one, 4 * len(one) - i % 4, i) for i, one in enumerate(ids)]
    accesses = read_mooncake(write(tmp_path / "t", *lines), 4)
    capacities = [7, 1, 30, 7, 10**30]
    rows = sweep(accesses, list(POLICIES), capacities, warmup=0.25)
    assert [(row["policy"], row["capacity_blocks"]) for row in rows] == [(p, c) for p in POLICIES for c in capacities]
    for row in rows:
        hits = replay(accesses, row["capacity_blocks"], row["policy"])
        expected = rate_hits(accesses, hits, warmup=0.25)
        assert {name: row[name] for name in expected} == expected
    curve = lru_curve(accesses, warmup=0.25).at([7, 1, 30, 7, accesses.n_distinct])
    for name, values in curve.items():
        assert [row[name] for row in rows[: len(capacities)]] == pytest.approx(values.tolist())


def test_notes_go_to_stderr_in_both_formats(curve, tmp_path):
    path = write(tmp_path / "t", CHAT[2], CHAT[0], line([], stamp=40), CHAT[1])
    notes = ["2 stamps out of order: sorted", "1 request without tokens: kept, can hit nothing"]
    for form in ("json", "table"):
        code, out, err = curve(path, "--block-size", 4, "--format", form)
        assert code == 0 and err == "".join(f"note: {note}\n" for note in notes)
    assert json.loads(curve(path, "--block-size", 4, "--format", "json")[1])["trace"]["notes"] == notes


@pytest.mark.parametrize("lines", [[line([k, k + 1], 8, k) for k in range(0, 20, 2)], [line([]), line([])]])
def test_a_trace_without_reuse_gives_zeros(curve, tmp_path, lines):
    path = write(tmp_path / "t", *lines)
    code, out, _ = curve(path, "--block-size", 4, "--policy", ",".join(POLICIES), "--format", "json")
    result = json.loads(out, parse_constant=pytest.fail)
    assert code == 0 and {value for row in [result["unbounded"], *result["curves"]] for value in rates(row)} == {0}
    assert len(result["curves"]) == len(POLICIES) * len(default_capacities(read_mooncake(path, 4)))


@pytest.mark.parametrize(
    ("distinct", "expected"),
    [
        (0, [1]),
        (1, [1]),
        (9, [1, 3]),
        (10, [1, 3, 10]),
        (299_999, [30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000]),
        (300_000, [100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000]),
    ],
)
def test_default_capacities_are_round_and_end_at_the_distinct_blocks(distinct, expected):
    accesses = make_prefix_trace(make_trace_of([[1, 2, 3]]), 2)
    parent = accesses.parent[:1].repeat(distinct)
    assert default_capacities(replace(accesses, parent=parent)) == expected


def test_a_parquet_trace_is_cut_into_the_blocks_that_it_was_made_for(curve, tmp_path):
    trace = make_trace_of([[*range(40)], [*range(40), 7, 8], [*range(20)]])
    for parameters, size in (({}, 16), ({"parameters": {"block_size": 10}}, 10)):
        path = tmp_path / f"{size}.jsonl"  # its name does not matter
        write_trace(replace(trace, info=parameters), path)
        code, out, err = curve(path, "--format", "json")
        assert code == 0 and err == ""
        result, accesses = json.loads(out), make_prefix_trace(trace, size)
        assert result["trace"]["block_size"] == size and result["unbounded"] == rate_unbounded(accesses)
        assert result["curves"] == sweep(accesses, ["lru", "opt"], default_capacities(accesses))
    assert load_accesses(path, 8).n_distinct == 5  # 40 / 8


def test_a_compressed_trace_gives_the_same(curve, chat, tmp_path):
    packed = tmp_path / "chat.jsonl.gz"
    packed.write_bytes(gzip.compress(chat.read_bytes()))
    plain, packed = (curve(path, "--block-size", 4)[1].split("\n")[1:] for path in (chat, packed))
    assert plain == packed


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--capacities", "0"], "capacity is 0; expected a whole number of blocks, 1 or more"),
        (["--capacities=-5"], "capacity is -5; expected"),
        (["--capacities", "10,many"], "capacity is 'many'; expected"),
        (["--capacities", "10,,20"], "capacity is ''; expected"),
        (["--capacities", ""], "capacity is ''; expected"),
        (["--capacities", "1.5"], "capacity is '1.5'; expected"),
        (["--capacities", "1_000"], "capacity is '1_000'; expected"),
        (["--policy", "lru,mru"], "policy 'mru' is not known; known: lru, fifo, fifo_flat, lfu"),
        (["--policy", ""], "policy '' is not known; known: lru"),
        (["--warmup", "1"], "warmup is 1.0; expected a share of the requests, 0 or more and below 1"),
        (["--warmup", "nan"], "warmup is nan; expected"),
        (["--warmup", "half"], "warmup is 'half'; expected"),
        (["--block-size", "0"], "block size is 0; expected a whole number of tokens"),
        (["--block-size", "4.5"], "block size is '4.5'; expected"),
        (["--block-size", ""], "block size is ''; expected"),
        ([], "chat.jsonl: line 1 lists 2 blocks for input_length 8; expected 1 of 512 tokens (give another"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_refused_with_what_would_be_right(curve, chat, extra, said):
    code, out, err = curve(chat, *extra)
    assert code == 2 and out == "" and said in err and err.count("error:") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.jsonl", None, "No such file"),
        ("empty.jsonl", b"", "is empty; known formats are: chats ("),
        ("half.parquet", b"PAR1 and then nothing", "cannot be read as a Parquet trace"),
        ("engine.jsonl", b'{"turn": 0, "timestamp": 0.5, "messages": []}\n', "holds no request that can be rendered"),
        ("array.json", b"[]", "line 1 is no JSON object"),
        ("image.png", b"\x89PNG\r\n\x1a\n\0\0", "line 1 is not JSON"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_by_name(curve, tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    code, out, err = curve(path)
    assert code == 2 and out == "" and name in err and said in err and "Traceback" not in err


def test_a_parquet_trace_without_requests_is_refused(curve, tmp_path):
    write_trace(make_trace_of([]), tmp_path / "none.parquet")
    code, _, err = curve(tmp_path / "none.parquet")
    assert code == 2 and "none.parquet: holds no requests" in err


def test_compiling_is_announced(curve, chat, monkeypatch):
    asked = []
    monkeypatch.setattr("kvprefix.studies.sweep.is_compiled", lambda policies: asked.extend(policies))
    code, _, err = curve(chat, "--block-size", 4)
    assert code == 0 and err == "note: the replays are compiled first, once; this takes up to half a minute\n"
    assert asked == ["lru", "opt"]
    assert curve(chat.with_name("none.jsonl"))[2].count("\n") == 1  # a file that cannot be read is all there is to say


def test_what_is_compiled_is_known_until_its_source_changes(tmp_path, monkeypatch):
    source = tmp_path / "compiled_once.py"
    source.write_text("from numba import njit\n\n\n@njit(cache=True)\ndef add(a, b):\n    return a + b\n")
    monkeypatch.syspath_prepend(tmp_path)
    from compiled_once import add

    assert not _is_cached(add)
    assert add(1, 2) == 3 and _is_cached(add)
    os.utime(source, (time.time() + 60,) * 2)  # as a checkout leaves it: numba looks at what it holds
    assert _is_cached(add)
    source.write_text(source.read_text() + "# changed\n")
    assert not _is_cached(add)
    sweep(make_prefix_trace(make_trace_of([[1, 2, 3]]), 2), ["lru", "lfu"], [1])
    rate_unbounded(make_prefix_trace(make_trace_of([[1, 2, 3]]), 2))
    assert is_compiled(["lru"]) and is_compiled(["lru", "lfu"])
