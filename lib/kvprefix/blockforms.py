"""What a line of a trace of block ids holds, and what is wrong with one that does not: for `mooncake` and `bailian`."""

from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from kvprefix.jsonlines import count, is_whole, parse_object, show_value

_IDS = "expected whole numbers of at most 64 bits, signed"


class Field(NamedTuple):
    """A field of a line.

    Attributes
    ----------
    arrow : pyarrow.DataType
        float64, int64 or string.
    is_right : callable
        Whether a JSON value is one.
    expected : str
        What would be, for messages.
    least : int or None
        Of a whole number.
    default : object
        What stands for one that is missing or null; None where it may not be.
    """

    arrow: pa.DataType
    is_right: Callable
    expected: str
    least: int | None = None
    default: object = None


class Form(NamedTuple):
    """How a file lists its requests.

    Attributes
    ----------
    fields : dict of str to Field
        By name, `timestamp` and `input_length` first; `hash_ids` is in every form, and no Field.
    block_size : int
        Tokens, unless the file says otherwise.
    units_per_second : int
        Of `timestamp`.
    expected : str
        What a line is, for messages.
    prefix_ids : bool
        Whether an id must name the whole prefix; otherwise one that follows two different blocks is two blocks.
    """

    fields: dict
    block_size: int
    units_per_second: int
    expected: str
    prefix_ids: bool

    def parse(self, line, block_size):
        """Return a line's request, and what is wrong with it (None if nothing is)."""
        request, fault = parse_object(line, self.expected)
        if fault:
            return None, fault
        needed = [name for name, one in self.fields.items() if one.default is None]
        missing = [name for name in [*needed, "hash_ids"] if request.get(name) is None]
        if missing:
            return None, f"lacks {', '.join(missing)}; {self.expected}"
        for name, one in self.fields.items():
            value = request.get(name)
            if value is not None and not one.is_right(value):
                return None, f"has {name} {show_value(value)}; {one.expected}"
        ids, length = request["hash_ids"], request["input_length"]
        if not isinstance(ids, list):
            return None, f"has hash_ids {show_value(ids)}; expected a list of whole numbers"
        strange = [one for one in ids if not is_whole(one)]
        if strange:
            return None, f"has {show_value(strange[0])} among its hash_ids; {_IDS}"
        expected = -(-length // block_size)
        if len(ids) != expected:
            return None, (
                f"lists {count(len(ids), 'block')} for input_length {length}; expected {expected} of {block_size} "
                "tokens (another size is given with --block-size, and to convert with --from-block-size)"
            )
        return request, None


def is_stamp(value):
    """Say whether a JSON value is a number that a time can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_length(value):
    """Say whether a JSON value is a number of tokens."""
    return is_whole(value) and value >= 0


STAMP = Field(pa.float64(), is_stamp, "expected a number of milliseconds")
LENGTH = Field(pa.int64(), is_length, "expected a whole number of tokens, 0 or more", 0)
