"""A user's own policy: the same hits as the library's where it spells one of them; mistakes named with their line."""

import pickle

import numpy as np
import pytest
from cache_twin import make_random, make_small, small_traces
from hypothesis import given, settings
from hypothesis import strategies as st

from kvprefix.cache import own
from kvprefix.cache.own import Block, Call, compile_score, count_turns, fingerprint
from kvprefix.cache.policies import POLICIES, add_policy, check_setting, find_policy, policy
from kvprefix.cache.policy import Policy
from kvprefix.cache.replay import PrefixCache, replay
from kvprefix.cache.rules.gdsf import ATTENTION
from kvprefix.files.paths import InputError

SEEN = []


@pytest.fixture(autouse=True)
def known_again(monkeypatch):
    """Forget the policies that a test adds."""
    before = dict(POLICIES)
    yield
    POLICIES.clear()
    POLICIES.update(before)


def spell_lru(block):
    return block.now


def spell_fifo(block):
    return block.stored


def spell_lfu(block):
    return block.uses + block.now / 2**31


def spell_mru(block):
    return -block.now


SPELT = {"lru": spell_lru, "fifo": spell_fifo, "lfu": spell_lfu}


def run_as_python(monkeypatch):
    monkeypatch.setattr(own, "compile_score", lambda name, function: None)


@pytest.mark.parametrize("name", SPELT)
@pytest.mark.parametrize("compiled", [True, False])
@given(small_traces(), st.integers(1, 12), st.booleans())
@settings(max_examples=40)
def test_a_policy_spelt_by_a_user_hits_as_the_librarys(name, compiled, small, capacity, hold):
    mine = policy("mine")(SPELT[name])
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            run_as_python(patch)
        found = PrefixCache(policy=mine, capacity=capacity, hold=hold).replay(small.accesses)
    expected = PrefixCache(policy=name, capacity=capacity, hold=hold).replay(small.accesses)
    assert found.details["hit_blocks"].tolist() == expected.details["hit_blocks"].tolist()
    assert found.evictions == expected.evictions


@pytest.mark.parametrize("name", SPELT)
@pytest.mark.parametrize("capacity", [7, 40])
def test_so_it_does_on_longer_traces(name, capacity, monkeypatch):
    accesses = make_random(seed=capacity).accesses
    expected = replay(accesses, capacity, name).tolist()
    mine = policy("mine")(SPELT[name])
    assert compile_score("mine", SPELT[name]) is not None
    assert replay(accesses, capacity, mine).tolist() == expected
    run_as_python(monkeypatch)
    assert replay(accesses, capacity, mine).tolist() == expected


def test_a_policy_that_the_library_has_not():
    # most recently used goes first; room for 2: c evicts b, then b evicts c; a stays
    policy("mru")(spell_mru)
    assert replay(make_small(["a", "b", "c", "a", "b"]).accesses, 2, "mru").tolist() == [0, 0, 0, 1, 0]


def test_a_block_knows_what_it_says(monkeypatch):
    # "ab" at 0 s and "ab" at 2 s, of one conversation: stored at 0, accessed again at 1 as turn 1
    accesses = make_small(["ab", "ab"], arrival_s=[0, 2]).accesses
    accesses.conversation[:] = 7
    run_as_python(monkeypatch)
    SEEN.clear()
    mine = policy("mine")(lambda block: SEEN.append(block) or 0.0)
    assert replay(accesses, 2, mine).tolist() == [0, 2]
    costs = [1 + ATTENTION * 2 * (depth + 0.5) for depth in (0, 1)]  # blocks of 2 tokens
    expected = [
        Block(now=now, stored=0, uses=now + 1, depth=depth, cost=costs[depth], arrival_s=2.0 * now, turn=now)
        for now in (0, 1) for depth in (0, 1)
    ]  # fmt: skip
    assert expected == SEEN and [type(value) for value in SEEN[0]] == [int, int, int, int, float, float, int]


def test_turns_count_within_conversations():
    assert count_turns(np.array([3, 3, 9, 3, 9])).tolist() == [0, 1, 0, 2, 1]
    assert count_turns(np.array([], np.int64)).tolist() == []


def test_what_cannot_be_compiled_is_said_once_and_runs(capsys):
    accesses = make_random(seed=1, n_requests=50).accesses
    names = {"now": 0}

    @policy("looked-up")
    def look_up(block):
        return getattr(block, next(iter(names)))

    expected = replay(accesses, 5, "lru").tolist()
    assert replay(accesses, 5, look_up).tolist() == expected
    assert replay(accesses, 5, "looked-up").tolist() == expected
    said = capsys.readouterr().err
    line = look_up.score.__code__.co_firstlineno
    assert said.count("note:") == 1 and f"policy 'looked-up' ({__file__}, line {line}) cannot be compiled" in said


def raise_at_two(block):
    return 1 / (block.uses - 2)


def return_nan(block):
    return np.nan if block.uses == 2 else 1.0


def return_none(block):
    return None if block.uses == 2 else 1.0


def return_text(block):
    return "high"


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (raise_at_two, "raised ZeroDivisionError (division by zero) for Block(now=1, stored=0, uses=2, depth=0"),
        (return_nan, "returned nan for Block(now=1, stored=0, uses=2, depth=0"),
        (return_none, "returned None for Block(now=1"),
        (return_text, "returned 'high' for Block(now=0"),
    ],
)
def test_a_wrong_score_is_named_with_its_line(function, said, compiled, monkeypatch, capsys):
    if not compiled:
        run_as_python(monkeypatch)
    mine = policy("mine")(function)
    with pytest.raises(InputError) as error:
        replay(make_small(["a", "a"]).accesses, 2, mine)
    line = function.__code__.co_firstlineno + ("raised" in said)  # a function that raises: where it does
    assert str(error.value).startswith(f"policy 'mine' ({__file__}, line {line}) {said}")
    assert "expected a number" in str(error.value)


def test_what_fails_at_once_is_an_error_and_no_note_of_the_compiler(capsys):
    def misspell(block):
        weight = 3  # noqa: F841
        return block.now + wieght  # noqa: F821

    with pytest.raises(InputError) as error:
        replay(make_small(["a", "a"]).accesses, 2, policy("mine")(misspell))
    where = f"policy 'mine' ({__file__}, line {misspell.__code__.co_firstlineno + 2})"
    assert str(error.value).startswith(f"{where} raised NameError (name 'wieght' is not defined) for Block(now=0,")
    assert capsys.readouterr().err == ""
    assert error.value._render_traceback_() == [f"InputError: {error.value}"]  # all that a notebook shows


def test_an_interrupt_ends_a_replay_in_python(monkeypatch):
    run_as_python(monkeypatch)

    @policy("mine")
    def stop(block):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(make_small(["a", "a"]).accesses, 2, stop)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: 1, "takes (); expected one block"),
        (lambda block, more: 1, r"takes (block, more); expected one block"),
        (max, "is made of <built-in function max>; expected a Python function"),
        (3, "is made of 3; expected a Python function"),
    ],
)
def test_what_is_no_function_of_a_block_is_refused(function, said):
    with pytest.raises(InputError) as error:
        policy("mine")(function)
    assert said in str(error.value) and "mine" not in POLICIES


@pytest.mark.parametrize("name", ["", "a,b", " a", 3])
def test_a_name_that_a_list_cannot_hold_is_refused(name):
    with pytest.raises(InputError, match="expected a name without commas"):
        policy(name)(spell_lru)


def test_the_librarys_policies_are_not_replaced_but_ones_own_is():
    with pytest.raises(InputError, match="'lru' is one of the library's own"):
        policy("lru")(spell_mru)
    with pytest.raises(InputError, match="'session' is one of the library's own"):  # with hints
        policy("session")(spell_mru)
    policy("mine")(spell_mru)
    mine = policy("mine", "Mine")(spell_lru)
    assert find_policy("mine") is mine and POLICIES["mine"].label == "Mine" and find_policy(mine) is mine
    with pytest.raises(InputError, match="policy mine has no setting"):
        check_setting(mine, 0.5)


def test_a_policy_says_what_it_is_by_its_docstring():
    @policy("mine")
    def told(block):
        """Oldest first.

        And more.
        """
        return block.now

    assert (told.label, told.definition) == ("mine", "Oldest first.")
    assert policy("other")(spell_lru).definition == "A score of the user's own."


def test_a_functions_fingerprint_is_of_its_code_and_what_it_reads():
    def make(weight):
        return lambda block: block.now + weight * block.uses

    assert fingerprint(make(1)) == fingerprint(make(1)) != fingerprint(make(2))
    assert fingerprint(spell_lru) != fingerprint(spell_fifo)
    text = "def score(block):\n    return max(0, (lambda x: x + 1)(block.now))\n"
    same = []
    for place, above in (("/tmp/kernel-1/a.py", ""), ("/tmp/kernel-2/b.py", "\n\n")):  # as two kernels run a cell
        names = {}
        exec(compile(above + text, place, "exec"), names)
        same.append(fingerprint(names["score"]))
    assert same[0] == same[1]


def test_policies_leave_their_process_by_name():
    assert pickle.loads(pickle.dumps(POLICIES["slru"])) == POLICIES["slru"]
    inner = policy("mine")(lambda block: block.now)
    with pytest.raises(InputError, match="'mine' is known to this process alone; define it at the top of a module"):
        pickle.dumps(inner)


def test_a_policy_without_a_function_can_be_given_as_it_is():
    plain = Policy(name="again", label="Again", definition="As LRU.", make_rule=POLICIES["lru"].make_rule)
    add_policy(plain)
    accesses = make_random(seed=2, n_requests=60).accesses
    assert replay(accesses, 5, "again").tolist() == replay(accesses, 5, plain).tolist() == replay(accesses, 5).tolist()


def test_a_call_keeps_the_functions_address():
    assert Call("mine", spell_lru).__wrapper_address__() == Call("mine", spell_lru).__wrapper_address__() > 0
