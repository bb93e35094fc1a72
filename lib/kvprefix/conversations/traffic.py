"""Read chat traffic of any known form: a file, a folder or a glob, told by content.

A file is of the form of its first record that is of any; its other records are read as that form's, or skipped and
counted. Of a folder, files of no known form are counted, with the first of them. Records that have `messages` and no
mark of a request are conversations of a data set if one of the file's first ones ends with a reply; if none does, each
is a request.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field

from kvprefix.conversations.calls import Call, Dialog
from kvprefix.conversations.forms import chat_sets, requests
from kvprefix.conversations.forms.form import Record
from kvprefix.conversations.forms.registry import COLUMNS, FORMS, MAIN_COLUMNS, recognise
from kvprefix.conversations.load import ConversationReader, LoadCounts, locate_data
from kvprefix.conversations.readers import ReadState, read_document, read_odd_lines, read_records
from kvprefix.conversations.sources import find_files
from kvprefix.conversations.tables import is_table, read_rows
from kvprefix.files.jsonlines import read_magic
from kvprefix.files.paths import InputError, explain_os_errors
from kvprefix.files.words import guess

_WRAPPERS = frozenset({"data", "runs", "observations", "records", "rows", "logs", "trajectories"})
_FIRST_RECORDS = 100  # in which a form shows, if records before it are odd
SURE_RECORDS = 20  # of which one that ends with a reply shows that records without a mark are conversations


@dataclass
class TrafficCounts(LoadCounts):
    """What a source holds: as LoadCounts, and

    Attributes
    ----------
    dialogs, calls : int
        Beside `conversations`, which are of text alone.
    forms : Counter
        Files by the name of their form.
    other_files : int
        Of a folder: those of no known form.
    first_other : str or None
        The first of them, and why.
    noted, first_noted : Counter, dict
        What is left out or uncertain in what was read, by name, and where first.
    """

    dialogs: int = 0
    calls: int = 0
    forms: Counter = field(default_factory=Counter)
    other_files: int = 0
    first_other: str | None = None
    noted: Counter = field(default_factory=Counter)
    first_noted: dict = field(default_factory=dict)
    bytes_before: int = 0  # read of the files before

    def skip(self, reason, place, detail):
        """Count what is skipped under `reason`, and keep the first case to show."""
        self.skipped[reason] += 1
        place = f"record {place}" if isinstance(place, int) else place
        self.first_skipped.setdefault(reason, f"{place}: {detail}")

    def note(self, what, place, detail, n=1):
        """Count what is left out or uncertain, and keep the first case to show."""
        self.noted[what] += n
        self.first_noted.setdefault(what, f"{place}: {detail}")

    def start_file(self):
        """Forget how far the file before was read."""
        self.bytes_before, self.reading = self.bytes_read, ReadState()

    @property
    def bytes_read(self):
        """Bytes read so far, of all files."""
        return self.bytes_before + self.reading.bytes_read

    def as_dict(self):
        """Return the counts as plain JSON values."""
        return {
            **super().as_dict(),
            "dialogs": self.dialogs,
            "calls": self.calls,
            "forms": dict(sorted(self.forms.items())),
            "other_files": self.other_files,
            "first_other": self.first_other,
            "noted": dict(sorted(self.noted.items())),
            "first_noted": dict(sorted(self.first_noted.items())),
        }


class Traffic:
    """One pass over a source, as the readers of its forms see it.

    Attributes
    ----------
    counts : TrafficCounts
    reader : ConversationReader
        Of texts; it knows the names of conversations of all files.
    rejoin_split : bool
    file : str
        The file that is being read, from the source's top; "" for a single file.
    seen : dict of set
        What a form's reader remembers from file to file, by its own name.
    """

    def __init__(self, counts, drop_duplicates=False, rejoin_split=False):
        self.counts, self.rejoin_split = counts, rejoin_split
        self.reader = ConversationReader(counts, drop_duplicates)
        self.file, self.seen = "", {}

    def count_call(self, call):
        """Count a call, and note one whose name an earlier call has."""
        self.counts.calls += 1
        names = self.seen.setdefault("names", set())
        if call.name is not None and hash(call.name) in names:
            self.counts.note("repeated_names", call.place, f"an earlier call is named {call.name[:40]}")
        names.add(hash(call.name))


def read_traffic(source, *, counts=None, form=None, max_items=None, drop_duplicates=False, rejoin_split=False):
    """Stream the conversations, dialogs and calls of a source, in the order of its files and records.

    Parameters
    ----------
    source : path-like, `bundled`, or list of records
        A file (JSON array, JSON Lines, a JSON document; also gzip or zstandard; Parquet, Arrow), a folder, or a glob.
    counts : TrafficCounts, optional
        Filled in while reading.
    form : str, optional
        The name of the form; told by content if not given.
    max_items : int, optional
        Stop after so many conversations, dialogs and calls.
    drop_duplicates, rejoin_split : bool
        For data sets, as `iterate_conversations` takes them.

    Yields
    ------
    Conversation, Dialog or Call

    Raises
    ------
    InputError
        No such file; a single file that cannot be read; a folder without a file of a known form; an unknown `form`.
    """
    if form is not None and form not in FORMS:
        raise InputError(f"form {form!r} is not known; known: {', '.join(FORMS)}{guess(form, FORMS)}")
    counts = TrafficCounts() if counts is None else counts
    traffic = Traffic(counts, drop_duplicates, rejoin_split)
    items = itertools.islice(_read_all(source, form, traffic), max_items)
    for item in items:
        counts.dialogs += isinstance(item, Dialog)
        if isinstance(item, Call):
            traffic.count_call(item)
        yield item


def _read_all(source, form, traffic):
    if isinstance(source, list):
        traffic.counts.reading.at_end = True
        records = (Record(k, f"record {k}", value) for k, value in enumerate(source))
        yield from _read_records("in memory", records, form, traffic, is_alone=True)
        return
    files, top = (iter([locate_data("bundled")]), None) if str(source) == "bundled" else find_files(source)
    for path in files:
        traffic.file = "" if top is None else str(path.relative_to(top))
        traffic.counts.start_file()
        n_known = traffic.counts.forms.total()
        try:
            yield from _read_file(path, form, traffic, is_alone=top is None)
        except InputError as error:
            if top is None:
                raise
            said = str(error).removeprefix(f"{path}: ")
            if traffic.counts.forms.total() > n_known:  # it was of a known form up to there
                traffic.counts.note("damaged_files", traffic.file, said)
            else:
                _count_other(traffic, said)
        state = traffic.counts.reading
        if top is not None and state.cut_at_byte is not None:
            traffic.counts.note("cut_files", traffic.file, f"is cut at byte {state.cut_at_byte}")
            state.cut_at_byte = None
    if top is not None and not traffic.counts.forms:
        first = f" (first: {traffic.counts.first_other})" if traffic.counts.first_other else ""
        raise InputError(f"{source}: no file of a known form{first}; {expected_forms()}")


def _read_file(path, form, traffic, is_alone):
    with explain_os_errors(path):
        yield from _read_records(path, list_records(path, traffic), form, traffic, is_alone)


def list_records(path, traffic):
    """Yield the Records of a file: JSON, JSON Lines, a JSON document, a list wrapped in one, or a table."""
    prefix, reading = f"{traffic.file}, " if traffic.file else "", traffic.counts.reading
    magic = read_magic(path)
    if is_table(magic):
        for number, value in read_rows(path, magic, COLUMNS, MAIN_COLUMNS, traffic.counts):
            yield Record(number, f"{prefix}row {number}", value)
        return
    records = _read_json(path, reading)
    for number, value in records:
        place = f"{prefix}line {reading.line}" if reading.line else f"{prefix}record {number}"
        inner = _unwrap(value)
        if inner is None:
            yield Record(number, place, value)
        else:
            yield from (Record(k, f"{place}, {k}", one) for k, one in enumerate(inner))


def holds_chats(path):
    """Say whether one of a file's first records is of a known form."""
    try:
        records = itertools.islice(list_records(path, Traffic(TrafficCounts())), _FIRST_RECORDS)
        return any(recognise(record.value) for record in records)
    except InputError:
        return False


def _read_json(path, reading):
    """Yield (number, value) as `read_records` does; also the only value of a file that spreads over its lines.

    Of a file whose beginning is no JSON: its lines, if one of the first ones is a record of a known form.
    """
    records = read_records(path, reading)
    try:
        first = next(records, None)
    except InputError:
        whole = read_document(path)
        reading.cut_at_byte, reading.line = None, None
        if isinstance(whole, dict):
            reading.at_end = True
            yield 0, whole
            return
        lines = itertools.islice(read_odd_lines(path, ReadState()), _FIRST_RECORDS)
        if not any(recognise(value) for _, value in lines):
            raise
        yield from read_odd_lines(path, reading)
        return
    if first is not None:
        yield first
        yield from records


def _unwrap(value):
    """Return the records that an answer of an API wraps (``{"data": [...]}``); None if it is a record itself."""
    if not isinstance(value, dict) or _WRAPPERS.isdisjoint(value) or recognise(value):
        return None
    lists = (value[name] for name in value if name in _WRAPPERS and isinstance(value[name], list))
    return next((inner for inner in lists if inner and isinstance(inner[0], dict)), None)


def _read_records(path, records, form, traffic, is_alone):
    """Yield what the records of a file give; it is of the form of the first of them that is of any."""
    records, first = iter(records), []
    found = FORMS.get(form)
    while found is None and len(first) < _FIRST_RECORDS and (record := next(records, None)) is not None:
        first.append(record)
        found = recognise(record.value)
        if found in (*requests.FORMS, chat_sets.FORM) and _is_unclear(record.value):
            first += itertools.islice(records, SURE_RECORDS - 1)
            found = _settle(found, [one for one in first if _is_unclear(one.value)], traffic)
    if found is None and not is_alone:
        return _count_other(traffic, "holds no chats")
    found = found or chat_sets.FORM
    traffic.counts.forms[found.name] += 1
    yield from found.read(itertools.chain(first, records), traffic)


def _is_unclear(value):
    """Say whether a record may be a request or a conversation."""
    return isinstance(value, dict) and requests.is_bare(value) and not requests.is_marked(value)


def _settle(found, unclear, traffic):
    """Return the form of a file whose first records may be requests or conversations, and note what they are taken for.

    A data set's records end with a reply, but for some; a request's messages end with what is asked.
    """
    replied = sum(recognise(one.value) is chat_sets.FORM for one in unclear)
    of_first = f"of the first {len(unclear)} records"
    if not replied:
        said = f"none {of_first} ends with a reply, so each is one prompt"
        traffic.counts.note("read_as_requests", unclear[0].place, said)
        return found
    if replied < len(unclear):
        said = f"{replied} {of_first} end with a reply, so each user message is a prompt"
        traffic.counts.note("read_as_conversations", unclear[0].place, said)
    return chat_sets.FORM


def _count_other(traffic, why):
    counts = traffic.counts
    counts.other_files += 1
    counts.first_other = counts.first_other or f"{traffic.file}: {why}"


def expected_forms():
    """Return in words what a file may be."""
    return f"expected {'; '.join(one.label for one in FORMS.values())}"
