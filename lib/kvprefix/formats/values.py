"""What a value of a trace or a log may be: a time, a number of tokens, a name."""

from kvprefix.files.jsonlines import is_whole

MOST_TOKENS = 10**8  # of a request: no model takes more, and sums of such numbers stay exact


def is_stamp(value):
    """Say whether a JSON value is a number that a time can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_length(value):
    """Say whether a JSON value is a number of tokens."""
    return is_whole(value) and 0 <= value <= MOST_TOKENS


def is_id(value):
    """Say whether a JSON value can name something."""
    return isinstance(value, int | str) and not isinstance(value, bool)
