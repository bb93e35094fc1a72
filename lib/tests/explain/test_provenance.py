"""Origins of hits: by hand, against the plain-Python twin, and the writers of tokens."""

import numpy as np
import pytest
from explain_twin import make_library_form, originate_tokens, small_chats
from hypothesis import given
from hypothesis import strategies as st
from twin import small_traces

from kvprefix.explain.copies import FIRSTS, HOLDERS
from kvprefix.explain.provenance import ORIGINS, find_provenance
from kvprefix.explain.said import Said, no_runs
from kvprefix.explain.writers import find_text_end, find_writers
from kvprefix.tokens.marks import USER, WRITERS
from kvprefix.traces.trace import make_trace_of


def by_name(provenance):
    return [{name: n for name, n in zip(ORIGINS, row, strict=True) if n} for row in provenance.tokens.tolist()]


def spread(writers, row, length):
    """Return the writer of each token of a row's prompt."""
    parts = []
    while row >= 0:
        first, last = writers.firsts[row], writers.firsts[row + 1]
        lengths = np.diff([writers.shared[row], *writers.stops[first:last]])
        own = np.repeat(writers.writers[first:last], lengths).tolist()
        parts = own[: max(length - writers.shared[row], 0)] + parts
        length, row = min(length, writers.shared[row]), writers.parent[row]
    return [WRITERS[one] for one in parts]


@given(small_chats(), st.integers(1, 7), st.booleans(), st.sampled_from([None, 1, 2, 5, 9]))
def test_origins_are_those_of_the_twin(requests, block_size, outputs, capacity):
    trace, said = make_library_form(requests)
    found = find_provenance(trace, block_size, said, outputs=outputs, capacity=capacity)
    assert by_name(found) == originate_tokens(requests, block_size, outputs, capacity)
    assert found.table.sum() == found.hit_tokens.sum()


@given(small_chats())
def test_writers_of_chats(requests):
    trace, said = make_library_form(requests)
    writers = find_writers(trace.tokens, said)
    for row, one in zip(trace.rows, requests, strict=True):
        assert spread(writers, row, len(one.prompt)) == one.writers
        assert writers.is_known[row]
        ends = [find_text_end(row, k + 1, len(one.prompt), writers) for k in range(len(one.messages))]
        assert ends == [end for _, end in one.messages]


@given(small_traces(in_order=True))
def test_writers_without_messages(small):
    writers = find_writers(small.trace.tokens)
    for row, flags in enumerate(small.is_template):
        assert spread(writers, row, len(flags)) == ["template" if flag else "message" for flag in flags]
        if writers.firsts[row + 1] > writers.firsts[row]:
            run = writers.firsts[row + 1] - 1
            start = writers.stops[run - 1] if run > writers.firsts[row] else writers.shared[row]
            counts = np.bincount([0 if one else 5 for one in flags[:start]], minlength=6)
            assert writers.before[run].tolist() == counts.tolist()


def test_holders_by_hand():
    # blocks of two; two conversations: the third prompt's first block is held by both, its second by its own
    trace = make_trace_of([[1, 2, 3, 4, 9], [1, 2, 7, 7, 9], [1, 2, 3, 4, 5]])
    trace.requests["conversation_index"] = [0, 1, 0]
    found = find_provenance(trace, 2)
    held = {HOLDERS[k]: n for k, n in enumerate(found.table.sum(axis=(0, 2)).tolist())}
    first = {FIRSTS[k]: n for k, n in enumerate(found.table.sum(axis=(0, 1)).tolist())}
    assert held == {"own_only": 2, "both": 2, "other_only": 2}  # the last two are the second prompt's
    assert first == {"self": 4, "duplicate": 0, "other": 2}
    assert found.totals()["own_turns"] == 4 and found.totals()["other_conversation"] == 2


@pytest.mark.parametrize(("last", "origin"), [(6, "duplicate"), (7, "other_conversation")])
def test_sessions_are_duplicates_if_all_their_lists_of_messages_are(last, origin):
    # two sessions of two agents each: the second session's prompts are the first one's again
    trace = make_trace_of([[1, 2, 3], [5, 6, 7], [1, 2, 3], [5, 6, 7]])
    trace.requests["conversation_index"] = [0, 0, 1, 1]
    one, four = np.ones(4, np.int64), np.arange(4)
    twins, users = np.array([5, 6, 5, last]), np.full(4, USER, np.int8)
    said = Said(four, four, -one, one, twins, users, four, one, no_runs(4))
    assert find_provenance(trace, 2, said).totals()[origin] == 4


def test_own_is_who_had_the_resident_copy():
    # room for one block; conversations 0, 1, 1, 0: the last one hits a copy that 1 computed, after 0's was gone
    trace = make_trace_of([[1, 2], [5, 2], [1, 3], [1, 4]])
    trace.requests["conversation_index"] = [0, 1, 1, 0]
    found = find_provenance(trace, 1, capacity=1)
    assert found.totals()["other_conversation"] == 1 and found.totals()["own_turns"] == 0
    assert find_provenance(trace, 1).totals()["own_turns"] == 1
