"""TraceLab's rounds: blocks that are made of what the provider's cache had, and times of events."""

import json

import pytest
from trace_lines import write

from kvprefix.blocks.sessions import NOTHING, PERSON, TOOL
from kvprefix.files.paths import InputError
from kvprefix.formats.lookup import recognise
from kvprefix.formats.session_rows import Clockwork
from kvprefix.formats.tracelab import read_tracelab

CLOCK = Clockwork(1.0, 0.5)


def event(kind, second):
    return {"event_type": kind, "timestamp": f"2026-08-25T00:00:{second:06.3f}Z"}


def round_(session, index, total, prefix, *events, **more):
    return json.dumps({
        "session_id": session, "round_index": index, "input_tokens_total": total, "prefix_tokens": prefix,
        "newly_append_tokens": total - prefix, "output_tokens": 2, "timing_events": list(events), **more,
    })  # fmt: skip


def test_rounds_by_hand(tmp_path):
    lines = [
        round_("b", 0, 9, 0, event("user_message", 20)),
        round_("a", 1, 17, 9, event("tool_result", 8), event("tool_result", 9), event("text", 12.5)),
        round_("a", 0, 10, 4, event("user_message", 2), event("tool_call", 4), first_input_event_type="user_message"),
        round_("a", 2, 13, 4, event("user_message", 30), event("reasoning", 31)),
    ]  # fmt: skip
    path = write(tmp_path / "t", *lines)
    assert recognise(path).name == "tracelab"
    trace = read_tracelab(path, CLOCK, 4)
    placed = trace.arrange()
    # sessions start at 20 and 2; the first round has 10 // 4 blocks, of the second 9 // 4 are the same, of the third 1
    assert placed.arrival_s.tolist() == [0, 7, 18, 28] and placed.blocks.tolist() == [2, 4, 2, 3]
    assert placed.ids.tolist() == [0, 1, 0, 1, 2, 3, 4, 5, 0, 6, 7]
    assert (placed.finish_s - placed.arrival_s).tolist() == [2, 3.5, 2, 1]
    assert trace.after.tolist() == [NOTHING, NOTHING, TOOL, PERSON]
    assert "shared is what the provider's cache had" in placed.info["notes"][0]


def test_rounds_without_times_keep_their_order_or_come_with_the_one_before(tmp_path):
    lines = [round_("a", 0, 8, 0), round_("b", 0, 4, 0), round_("a", 1, 12, 8)]
    trace = read_tracelab(write(tmp_path / "t", *lines), CLOCK, 4)
    assert not trace.is_timed and trace.arrange().prompt_tokens.tolist() == [8, 12, 4]
    timed = round_("a", 0, 8, 0, event("user_message", 5))
    trace = read_tracelab(write(tmp_path / "t", timed, lines[2]), CLOCK, 4)
    assert trace.accesses.arrival_s.tolist() == [0, 0]
    assert "1 round without times: taken to come with the one before" in trace.accesses.info["notes"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (round_(None, 0, 8, 0), "has session_id null"),
        (round_("a", 0, 8, 0, {"event_type": "text", "timestamp": "now"}), 'has the time "now"; expected one like'),
        (round_("a", 0, -8, 0), "has input_tokens_total -8; expected a whole number of tokens"),
        (round_("a", 0, 8, 0, output_tokens="2"), 'has output_tokens "2"'),
        ("{", "is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, bad, said):
    with pytest.raises(InputError) as error:
        read_tracelab(write(tmp_path / "t", round_("a", 0, 8, 0), bad), CLOCK, 4)
    assert str(error.value).startswith(f"{tmp_path / 't'}: line 2") and said in str(error.value)
