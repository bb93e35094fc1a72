"""What the registry says of a form of chat traffic, and what its reader gets."""

from collections.abc import Callable
from typing import NamedTuple

from kvprefix.conversations.records import Refused


class Record(NamedTuple):
    """A record of a file: its number (from 0), where it stands (``line 3``), and its value, None if that is no JSON."""

    number: int
    place: str
    value: object


class Form(NamedTuple):
    """A form of chat traffic.

    Attributes
    ----------
    name : str
    label : str
        What such a file is, in a few words.
    told_by, kept, counted : str
        How its records look, what is read of them, and what is skipped or noted: cells of the docs' table, in Markdown.
    fits : callable
        ``fits(record)`` says whether a JSON object is a record of this form.
    read : callable
        ``read(records, traffic)`` yields Conversations, Dialogs and Calls of a file's Records; it counts what it skips.
    main : frozenset of str
        A table of this form has one of these columns.
    columns : frozenset of str
        What else of a table is read.
    """

    name: str
    label: str
    told_by: str
    kept: str
    counted: str
    fits: Callable
    read: Callable
    main: frozenset = frozenset()
    columns: frozenset = frozenset()


def read_each(read_one):
    """Return a file's reader made of one that lists what a record holds.

    ``read_one(value, place, traffic)`` gets a JSON object, and raises Refused for one that is skipped.
    """

    def read(records, traffic):
        for record in records:
            traffic.counts.records_read += 1
            try:
                items = read_one(check_object(record.value), record.place, traffic)
            except Refused as refusal:
                traffic.counts.skip(refusal.args[0], record.place, refusal.args[1])
                continue
            yield from items

    return read


def list_objects(value):
    """Return the objects of a list; [] of anything else.

    >>> list_objects([{"a": 1}, 7]), list_objects(7)
    ([{'a': 1}], [])
    """
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def check_object(value):
    """Return a record that is an object; raise Refused for any other."""
    if value is None:
        raise Refused("not_json", "the line is not valid JSON")
    if not isinstance(value, dict):
        raise Refused("no_object", "expected an object")
    return value
