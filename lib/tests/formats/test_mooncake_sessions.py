"""Mooncake's lines with sessions: whole prompts, or what is new since the line before."""

import json

import numpy as np
import pytest
from session_twin import SESSIONS, count_hits, count_prefix_hits, list_requests, stream_prompts
from session_twin import read_sessions as read_twin
from trace_lines import line, write

from kvprefix.cache.curve import count_seen, rate_unbounded
from kvprefix.files.paths import InputError
from kvprefix.formats.mooncake_sessions import read_mooncake_sessions
from kvprefix.formats.read import read_sessions, read_trace
from kvprefix.formats.session_rows import Clockwork
from kvprefix.formats.timing import Timing

CLOCK = Clockwork(1.0, 0.5)


def turn(session, ids, length=None, *, stamp=None, output=1, **more):
    given = json.loads(line(ids, length, stamp, session_id=session, **more)) | {"output_length": output}
    return json.dumps({name: value for name, value in given.items() if value is not None})


def read(tmp_path, *lines, size=4):
    return read_mooncake_sessions(write(tmp_path / "t", *lines), CLOCK, size)


def hit_tokens(trace):
    return trace.hit_tokens(count_seen(trace.ids, trace.offsets)).tolist()


def test_whole_prompts_keep_their_times_and_follow_one_another(tmp_path):
    path = write(
        tmp_path / "t", turn("a", [1, 2], 7, stamp=9000), turn("b", [1, 3], 8, stamp=5000), line([9], 4, 0),
        turn("a", [1, 2, 4], 12, stamp=9500), turn("b", [1, 5], 8, stamp=20_000),
    )  # fmt: skip
    trace = read_trace(path, block_size=4)
    assert trace.arrival_s.tolist() == [0, 5, 9, 9.5, 20]
    assert trace.conversation.tolist() == [2, 1, 0, 0, 1] and trace.previous.tolist() == [-1, -1, -1, 2, 1]
    assert hit_tokens(trace) == [0, 0, 4, 8, 4] and trace.last_weight.tolist() == [4, 4, 3, 4, 4]


def test_a_delay_counts_from_the_reply_before(tmp_path):
    trace = read(
        tmp_path, turn("a", [1, 2], stamp=1000, output=4), turn("a", [1, 2, 3], delay=500), turn("b", [7], stamp=0),
        turn("a", [1, 2, 3, 4], output=0), turn("b", [7, 8], delay=0.5),
    )  # fmt: skip
    placed = Timing({"ttft_s": 1.0, "time_per_output_token_s": 0.5}).arrange(trace)
    # a: 1, then 1 + 4 / 2 of service and 0.5, then 1 + 1 / 2 of service; b: 0, then 1.5 of service and 0.0005
    assert placed.arrival_s.tolist() == [0, 1, 1.5005, 4.5, 6]
    drawn = Timing({"arrivals": "stamps:" + str(write(tmp_path / "s", "5", "7"))}).arrange(trace)
    assert drawn.arrival_s.tolist() == [0, 2, 3.5, 3.5005, 5]


def test_without_any_times_the_lines_order_counts(tmp_path):
    trace = read(tmp_path, turn("a", [1]), turn("b", [2]), turn("a", [1, 3]), turn("b", [2, 4]))
    placed = Timing().arrange(trace)
    assert placed.arrival_s.tolist() == [0] * 4 and placed.conversation.tolist() == [0, 1, 0, 1]
    assert placed.ids.tolist() == [0, 1, 0, 2, 1, 3]


def test_lines_that_list_what_is_new_by_hand(tmp_path):
    # blocks of 4: a's second prompt is 8 + 2 + 4 tokens, its third 14 + 1 + 6; b begins as a does
    lines = [
        turn("a", [1, 2], 8, stamp=0, output=2), turn("a", [3], 4, delay=5, output=1),
        turn("b", [1, 9], 7, stamp=1, output=0), turn("a", [4, 5], 6, delay=5), turn("b", [7], 1, delay=1),
    ]  # fmt: skip
    trace = read(tmp_path, *lines)
    assert trace.accesses.prompt_tokens.tolist() == [8, 14, 21, 7, 8]
    placed = Timing().arrange(trace)
    assert trace.accesses.info["notes"][0] == (
        "2 sessions whose later lines list only what is new: read as all that came before, and that, with the 3 tokens "
        "of the replies between"
    )
    assert placed.arrival_s[:2].tolist() == [0, 0.001] and placed.prompt_tokens.tolist()[:2] == [8, 7]
    hits = dict(zip(placed.prompt_tokens.tolist(), hit_tokens(placed), strict=True))
    assert hits == {8: 4, 7: 4, 14: 8, 21: 12}  # of b's second prompt block 1 alone: its last token was not there


@pytest.mark.parametrize(("mode", "replies"), [(None, True), ("deltas_with_responses", False)])
def test_what_is_new_equals_the_twin_that_writes_out_every_token(tmp_path, mode, replies):
    rng, rows = np.random.default_rng(5), []
    for _ in range(60):
        ids = rng.integers(0, 50, rng.integers(1, 5)) + 100 * rng.integers(0, 3, 1)
        session, short = int(rng.integers(6)), int(rng.integers(4))
        first = not any(row["session_id"] == session for row in rows)
        ids = [0, 1, *ids.tolist()] if first else ids.tolist()
        rows.append({
            "session_id": session, "input_length": 4 * len(ids) - short, "output_length": int(rng.integers(9)),
            "hash_ids": ids, "timestamp" if first else "delay": 0, **({"context_mode": mode} if mode else {}),
        })  # fmt: skip
    trace = read(tmp_path, *map(json.dumps, rows))
    prompts = stream_prompts(rows, 4, replies)
    by_line = trace.arrange(open_loop=True)  # the twin reads them in the same order
    order = np.lexsort((trace.line, trace.accesses.arrival_s))
    lines = trace.line[order].tolist()
    assert by_line.prompt_tokens.tolist() == [len(prompts[k]) for k in lines]
    assert hit_tokens(by_line) == count_prefix_hits([prompts[k] for k in lines], 4)


@pytest.mark.skipif(not SESSIONS.exists(), reason="the public sessions do not lie beside the project")
def test_public_sessions_written_as_what_is_new_give_their_own_rates(tmp_path):
    rows, expected = [], []
    for number, one in enumerate(read_twin()[:12]):
        session, before, ids = f"s{number}", 0, []
        kept = []
        for t, tokens, listed in list_requests(one, main_only=True):
            if listed[: len(ids)] == ids and tokens >= before:
                new = [f"{number}-{k}" for k in listed[len(ids) :]]
                rows.append({"session_id": session, "timestamp": 1000 * t, "input_length": tokens - before,
                             "output_length": 9, "hash_ids": new})  # fmt: skip
                before, ids = tokens, listed
                kept.append((t, tokens, listed))
        expected += count_hits(kept)
    trace = read(tmp_path, *map(json.dumps, rows), size=64)
    accesses = trace.accesses
    assert "read as all that came before" in accesses.info["notes"][0]
    hits = count_seen(accesses.ids, accesses.offsets)
    ours = zip(accesses.prompt_tokens, accesses.hit_tokens(hits), accesses.blocks, hits, strict=True)
    assert list(ours) == expected
    assert rate_unbounded(accesses)["token"] > 0.9


def test_sessions_of_whole_prompts_with_a_fresh_start_stay_whole(tmp_path):
    lines = turn("a", [1, 2], stamp=0), turn("a", [1, 2, 3], stamp=1), turn("b", [7], stamp=2), turn("b", [8], stamp=3)
    trace = read(tmp_path, *lines)
    assert trace.accesses.prompt_tokens.tolist() == [8, 12, 4, 4]
    assert trace.accesses.info["notes"][0] == (
        "1 session whose later requests do not begin as the first: read as whole prompts, as the others"
    )


def test_a_file_may_say_what_its_lines_hold(tmp_path):
    lines = [turn("b", [7], stamp=2), turn("b", [8], stamp=3)]
    assert read(tmp_path, *lines).accesses.prompt_tokens.tolist() == [4, 9]
    for mode, tokens in {"message_array_with_responses": [4, 4], "deltas_with_responses": [4, 8]}.items():
        said = [json.dumps({**json.loads(one), "context_mode": mode}) for one in lines]
        assert read(tmp_path, *said).accesses.prompt_tokens.tolist() == tokens
    with pytest.raises(InputError, match='has context_mode "x"; expected one of message_array'):
        read(tmp_path, json.dumps({**json.loads(lines[0]), "context_mode": "x"}))


def test_other_names_of_the_fields_are_read(tmp_path):
    row = {"session_id": 3, "input_tokens": 4, "output_tokens": 2, "hash_ids": [1]}
    trace = read(tmp_path, json.dumps(row | {"created_time": 500}), json.dumps(row | {"delay_ms": 250}))
    assert Timing({"ttft_s": 1.0, "time_per_output_token_s": 0.5}).arrange(trace).arrival_s.tolist() == [0.5, 2.75]
    assert trace.accesses.output_tokens.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (turn("s", [1], delay=-1), "line 2 has delay -1; expected milliseconds, 0 or more"),
        (turn("s", [1], delay="500"), 'has delay "500"'),
        (turn("s", [1], delay=True), "has delay true"),
        (turn("s", [1], stamp=1e300), "has timestamp 1e+300; expected a number of milliseconds"),
        (turn(1.5, [1], stamp=0), "has session_id 1.5; expected a text or a whole number"),
        (turn("t", [1]), "line 2 lacks timestamp, unlike the first request; expected all sessions or none"),
        (turn("s", [1, 2], 4, stamp=0), "lists 2 blocks for input_length 4; expected 1 of 4 tokens"),
        (turn("s", None, 4, stamp=0), "lacks hash_ids; a line is {"),
        (turn("s", [1], -1, stamp=0), "has input_length -1; expected a whole number of tokens"),
        (turn("s", [1], stamp=0, output="x"), 'has output_length "x"'),
        (turn("s", [[1]], 4, stamp=0), "has [1] among its hash_ids"),
        (turn("s", [1], 4, stamp=0)[:30], "is not JSON"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, bad, said):
    with pytest.raises(InputError) as error:
        read(tmp_path, turn("s", [1], stamp=0), bad)
    assert str(error.value).startswith(f"{tmp_path / 't'}: line 2") and said in str(error.value)


def test_a_block_size_that_differs_from_the_files_is_refused(tmp_path):
    path = write(tmp_path / "t", turn("s", [1], stamp=0, block_size=4))
    assert read_sessions(path).accesses.block_size == 4
    with pytest.raises(InputError, match="line 1 says that its blocks hold 4 tokens, and 8 were given"):
        read_sessions(path, block_size=8)


def test_times_for_a_file_without_sessions_are_refused(tmp_path):
    path = write(tmp_path / "t", line([1], 4))
    with pytest.raises(InputError, match="no line has a session_id, so requests keep their times"):
        read_trace(path, block_size=4, timing=Timing({"arrivals": "poisson"}))
    assert read_trace(path, block_size=4, timing=Timing()).ids.tolist() == [0]
