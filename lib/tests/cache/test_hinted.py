"""Policies with hints: against plain-Python twins, bounded by the optimum, and what hints are read off a trace."""

from dataclasses import replace

import numpy as np
import pytest
from cache_twin import Lru, make_small, replay_twin, small_traces
from hypothesis import given, settings
from hypothesis import strategies as st

from kvprefix.blocks.sessions import NOTHING, PERSON, TOOL
from kvprefix.cache.hinted import HINTED, list_hinted, make_hinted
from kvprefix.cache.hints import read_hints
from kvprefix.cache.replay import replay
from kvprefix.cache.rules.classes import STEPS, tabulate_waits
from kvprefix.files.paths import InputError


@st.composite
def hinted_traces(draw):
    """Draw a small trace of a few sessions, and its hints."""
    small = draw(small_traces())
    n = len(small.paths)
    columns = (draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)) for _ in range(4))
    session, system, tool, priority = map(np.array, columns)
    small = small._replace(accesses=replace(small.accesses, conversation=session))
    return small, read_hints(small.accesses, system_blocks=system, calls_tool=tool > 1, priority=priority)


class Pin(Lru):
    def __init__(self, hints, *args):
        super().__init__(*args)
        self.hints, self.pinned = hints, set()

    def pin(self, blocks, now):
        self.pinned |= {block for block in blocks if len(block) <= self.hints.system_blocks[now]}

    def hit(self, blocks, now):
        super().hit(blocks, now)
        self.pin(blocks, now)

    def store(self, block, now):
        super().store(block, now)
        self.pin([block], now)

    def evict(self, victim):
        super().evict(victim)
        self.pinned.discard(victim)

    def choose(self, leaves, block, now):
        pinned = [leaf for leaf in leaves if leaf in self.pinned]
        free = [leaf for leaf in leaves if leaf not in self.pinned]
        first, then = (pinned, free) if len(self.pinned) > self.setting * self.capacity else (free, pinned)
        return super().choose(first or then, block, now)


class Priority(Lru):
    def __init__(self, hints, *args):
        super().__init__(*args)
        self.hints = hints

    def score(self, block):
        return self.hints.priority[self.resident[block].used], super().score(block)


class Expected(Lru):
    def __init__(self, hints, *args):
        super().__init__(*args)
        self.classes = getattr(hints, self.name)
        self.waits = tabulate_waits(hints.gap_s, self.classes, self.classes.max() + 1, self.setting)

    def wait(self, block, now):
        used, arrival_s = self.resident[block].used, self.accesses.arrival_s
        step = int(np.log2(arrival_s[now] - arrival_s[used] + 1) * STEPS)
        return self.waits[self.classes[used], step]

    def choose(self, leaves, block, now):
        found = {}
        for leaf in leaves:
            found.setdefault(self.classes[self.resident[leaf].used], []).append(leaf)
        firsts = [self.first_out(some) for some in found.values()]
        return max(firsts, key=lambda leaf: (self.wait(leaf, now), -self.resident[leaf].used), default=None)


class Session(Expected):
    name = "turn_class"


class Tool(Expected):
    name = "calls_tool"


TWINS = {"pin": (Pin, 0.4), "priority": (Priority, None), "session": (Session, 2.0), "tool": (Tool, 2.0)}


@pytest.mark.parametrize("name", TWINS)
@given(hinted_traces(), st.integers(1, 9))
@settings(max_examples=60)
def test_small_traces_agree_with_the_twins(name, hinted, capacity):
    small, hints = hinted
    twin, setting = TWINS[name]
    expected = replay_twin(small, capacity, lambda *args: twin(hints, *args), setting=setting)
    assert replay(small.accesses, capacity, make_hinted(name, hints), setting=setting).tolist() == expected


@given(hinted_traces(), st.integers(1, 9))
@settings(max_examples=60)
def test_no_policy_with_hints_beats_the_optimum(hinted, capacity):
    small, hints = hinted
    most = replay(small.accesses, capacity, "opt").sum()
    for name in HINTED:
        assert replay(small.accesses, capacity, make_hinted(name, hints)).sum() <= most


@given(hinted_traces(), st.integers(1, 9))
@settings(max_examples=30)
def test_hints_that_tell_nothing_leave_lru(hinted, capacity):
    small, _ = hinted
    blocks = replace(small.accesses, conversation=np.arange(len(small.paths)))
    hints = read_hints(blocks, system_blocks=np.zeros(len(blocks)))
    assert list_hinted(hints) == ["ttl"]
    for name in ("pin", "session", "tool", "priority"):
        assert replay(blocks, capacity, make_hinted(name, hints)).tolist() == replay(blocks, capacity).tolist()


def test_a_session_in_a_tool_call_stays():
    # "t" calls a tool and is back after 2 s; "p" waits for a person, 90 s. At 21 s one must go for "x" (room for two).
    small = make_small(["t", "t", "p", "p", "t", "p", "x", "t"], arrival_s=[0, 2, 3, 93, 100, 101, 102, 103])
    session = np.array([0, 0, 1, 1, 0, 1, 2, 0])
    blocks = replace(small.accesses, conversation=session)
    hints = read_hints(blocks, calls_tool=np.array([1, 1, 0, 0, 1, 0, 0, 0]))
    assert hints.gap_s.tolist()[:4] == [2, 98, 90, 8]
    assert replay(blocks, 2, "lru")[-1] == 0 and replay(blocks, 2, make_hinted("tool", hints))[-1] == 1


def test_expected_waits_by_hand():
    # Two of four requests go on, after 1 and 3 s; the others never: within 10 s, from 0 s on,
    # 1 s that all wait, 2 s that three of four do, 7 s that two do.
    waits = tabulate_waits(np.array([1.0, 3.0, np.nan, np.nan]), np.zeros(4, int), 1, 10.0)[0]
    assert waits[0] == pytest.approx(1 + 2 * 0.75 + 7 * 0.5)
    assert waits[2 * STEPS] == pytest.approx(10)  # 3 s idle: only those that never go on are left
    # All go on: after the longest gap nothing is expected any more.
    assert tabulate_waits(np.array([1.0, 3.0]), np.zeros(2, int), 1, 10.0)[0, 3 * STEPS] == 10


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=1, max_size=8), st.floats(0.5, 60))
@settings(max_examples=40)
def test_expected_waits_are_integrals(gaps, horizon):
    found = np.array([np.nan if gap is None else gap for gap in gaps])
    waits = tabulate_waits(found, np.zeros(len(gaps), int), 1, horizon)[0]
    never = np.where(np.isnan(found), np.inf, found)
    for step in (0, 5, STEPS, 3 * STEPS):
        idle = 2 ** (step / STEPS) - 1
        left = never[never > idle] - idle
        expected = np.minimum(left, horizon).mean() if len(left) else horizon
        assert waits[step] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_hints_are_read_off_a_trace():
    small = make_small(["sa", "sab", "sc", "sab", "q"], arrival_s=[0, 5, 6, 9, 10])
    blocks = replace(
        small.accesses, conversation=np.array([0, 0, 1, 0, 2]), previous=np.array([-1, 0, -1, 1, -1]),
        after=np.array([NOTHING, TOOL, NOTHING, PERSON, NOTHING], np.int8),
    )  # fmt: skip
    hints = read_hints(blocks)
    assert hints.system_blocks.tolist() == [1, 1, 1, 1, 0]  # sessions 0 and 1 begin with "s"
    assert hints.turn_class.tolist() == [0, 1, 0, 2, 0] and hints.calls_tool.tolist() == [1, 0, 0, 0, 0]
    assert hints.gap_s[:2].tolist() == [5, 4] and np.isnan(hints.gap_s[2:]).all()
    assert list_hinted(hints) == ["ttl", "pin", "session", "tool"]
    unlinked = read_hints(replace(blocks, previous=None, after=None))
    assert unlinked.turn_class.tolist() == [0, 1, 0, 2, 0] and not unlinked.calls_tool.any()


def test_wrong_hints_are_refused():
    blocks = make_small(["a", "b"]).accesses
    with pytest.raises(InputError, match="hint priority has shape .3,.; expected a number for each of 2 requests"):
        read_hints(blocks, priority=[1, 2, 3])
    with pytest.raises(InputError, match="hint priority has 101 levels; expected 100 at most"):
        make_hinted("priority", read_hints(make_small(["a"] * 101).accesses, priority=range(101)))
    with pytest.raises(InputError, match="policy 'pinn' is not known; known with hints: ttl, pin.* did you mean pin"):
        make_hinted("pinn", read_hints(blocks))
