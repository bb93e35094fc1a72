"""What a line of a trace of block ids holds, and what is wrong with a bad one: for `mooncake` and `bailian`."""

from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from kvprefix.conversations.times import LATEST_S
from kvprefix.files.arrow_lines import Fault
from kvprefix.files.jsonlines import show_value
from kvprefix.files.words import count
from kvprefix.formats.values import MOST_TOKENS, is_id, is_length, is_stamp


class Field(NamedTuple):
    """A field of a line.

    Attributes
    ----------
    arrow : pyarrow.DataType
        float64, int64 or string.
    is_right : callable
        Whether a JSON value is right.
    expected : str
        What would be right, for messages.
    least, most : int or None
        Of a whole number.
    default : object
        What replaces a missing or null value; None if the field must be there.
    """

    arrow: pa.DataType
    is_right: Callable
    expected: str
    least: int | None = None
    most: int | None = None
    default: object = None


class Form(NamedTuple):
    """How a file lists its requests.

    Attributes
    ----------
    fields : dict of str to Field
        By name, `timestamp` and `input_length` first; `hash_ids` is in every form and is no Field. All requests or none
        have a `timestamp`.
    block_size : int
        Tokens, unless the file says otherwise.
    units_per_second : int
        Of `timestamp`.
    expected : str
        What a line is, for messages.
    prefix_ids : bool
        Whether an id must name the whole prefix; otherwise an id that follows two different blocks is two blocks.
    has_sessions : bool
        Whether `session_id` may join requests: then they are read otherwise, see HasSessions.
    """

    fields: dict
    block_size: int
    units_per_second: int
    expected: str
    prefix_ids: bool
    has_sessions: bool = False

    @property
    def latest(self):
        """The largest `timestamp`, in its units."""
        return LATEST_S * self.units_per_second

    def check(self, request, block_size):
        """Raise Fault if a line's object is no request."""
        needed = [name for name, one in self.fields.items() if one.default is None and name != "timestamp"]
        missing = [name for name in [*needed, "hash_ids"] if request.get(name) is None]
        if missing:
            raise Fault(f"lacks {', '.join(missing)}; {self.expected}")
        for name, one in self.fields.items():
            value = request.get(name)
            if value is not None and not one.is_right(value):
                raise Fault(f"has {name} {show_value(value)}; {one.expected}")
        if abs(request.get("timestamp") or 0) > self.latest:
            expected = self.fields["timestamp"].expected
            raise Fault(f"has timestamp {show_value(request['timestamp'])}; {expected}, none after the year 2100")
        ids, length = request["hash_ids"], request["input_length"]
        if not isinstance(ids, list):
            raise Fault(f"has hash_ids {show_value(ids)}; expected a list of whole numbers or texts")
        strange = [one for one in ids if not is_id(one)]
        if strange:
            raise Fault(f"has {show_value(strange[0])} among its hash_ids; expected whole numbers or texts")
        expected = -(-length // block_size)
        if len(ids) != expected:
            raise Fault(
                f"lists {count(len(ids), 'block')} for input_length {length}; expected {expected} of {block_size} "
                "tokens (give another size with --block-size, or to convert with --from-block-size)"
            )


class HasSessions(Exception):
    """A line that names a session, in a file that is read as if there were none."""


class Rows:
    """What the lines of a file say together: their ids numbered as first seen, and who has a time.

    Attributes
    ----------
    numbers : dict
        Of each id.
    """

    def __init__(self, form):
        self.form, self.numbers, self.all_timed = form, {}, None

    def add(self, request):
        """Take in the next request and return the numbers of its ids; raise Fault if it does not fit the others."""
        if self.form.has_sessions and request.get("session_id") is not None:
            raise HasSessions
        ids = [self.numbers.setdefault(one, len(self.numbers)) for one in request["hash_ids"]]
        is_timed = request.get("timestamp") is not None
        self.all_timed = is_timed if self.all_timed is None else self.all_timed
        if is_timed != self.all_timed:
            said = "has a timestamp" if is_timed else "lacks timestamp"
            raise Fault(f"{said}, unlike the first request; expected all or none to have one")
        return ids


STAMP = Field(pa.float64(), is_stamp, "expected a number of milliseconds")
LENGTH = Field(
    pa.int64(), is_length, f"expected a whole number of tokens, 0 or more ({MOST_TOKENS} at most)", 0, MOST_TOKENS
)
