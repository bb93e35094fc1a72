"""Checks of what a user gave: what is taken, what is refused, and what is said."""

import numpy as np
import pytest

from kvprefix.files.checks import check_block_size, check_choice, check_number, check_share, check_whole
from kvprefix.files.paths import InputError


@pytest.mark.parametrize("value", [1, np.int32(7), np.int64(9)])
def test_whole_numbers_are_taken_as_int(value):
    taken = check_whole(value, "jobs", "a whole number", most=9)
    assert taken == value and type(taken) is int


@pytest.mark.parametrize("value", [0, 10, -1, 1.0, True, False, np.True_, "3", None, float("nan"), [1]])
def test_what_is_no_whole_number_in_the_range_is_refused_as_it_is(value):
    with pytest.raises(InputError) as refused:
        check_whole(value, "jobs", "a whole number, 1 to 9", most=9)
    assert str(refused.value) == f"jobs is {value!r}; expected a whole number, 1 to 9"


def test_a_number_that_is_too_large_is_told_how_large_it_may_be():
    for expected, said in (("a number, 1 or more", "a number, 1 or more, up to 9"), ("1 to 9", "1 to 9")):
        with pytest.raises(InputError) as refused:
            check_whole(10, "jobs", expected, most=9)
        assert str(refused.value) == f"jobs is 10; expected {said}"


def test_a_bound_may_be_left_out_and_the_value_shown_otherwise():
    assert check_whole(10**30, "requests", "any", most=float("inf")) == 10**30
    with pytest.raises(InputError, match=r"^layers is missing; expected any$"):
        check_whole(None, "layers", "any", shown="missing")
    with pytest.raises(InputError, match="^block size is 2147483648; expected a whole number of tokens"):
        check_block_size(2**31)


@pytest.mark.parametrize("value", [0, 0.5, np.float64(2), np.int64(2), 2])
def test_numbers_stay_as_they_are(value):
    assert check_number(value, "speed", "any", most=2) is value


@pytest.mark.parametrize("value", [-1e-9, 2.1, float("inf"), float("nan"), True, "1", None, 1j])
def test_what_is_no_number_in_the_range_is_refused(value):
    with pytest.raises(InputError, match="^speed is .*; expected 0 to 2$"):
        check_number(value, "speed", "0 to 2", most=2)
    with pytest.raises(InputError, match="inf; expected any"):
        check_number(float("inf"), "speed", "any")


def test_a_share_is_below_one():
    assert check_share(0, "warmup", "a share") == 0 and check_share(0.999, "warmup", "a share") == 0.999
    for value in (1, 1.0, -0.1, True):
        with pytest.raises(InputError, match=f"^warmup is {value}; expected a share$"):
            check_share(value, "warmup", "a share")


def test_a_choice_names_what_there_is():
    assert check_choice("lru", "policy", {"lru": 1}) == "lru"
    with pytest.raises(InputError, match="^policy is 'mru'; known: lru, opt$"):
        check_choice("mru", "policy", ("lru", "opt"))
