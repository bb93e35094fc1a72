"""Count the fields of records and messages that are not kept."""

import re
from collections import Counter

from kvprefix.conversations.records import EMPTY, MOST_NAMES, SYSTEM_FIELDS, TEXT_PARTS, is_plain, list_field, part_type


class FieldCounts:
    """The fields of records and messages that were not kept: how often each occurs, for the first MOST_NAMES names."""

    def __init__(self):
        self.n_records = self.n_messages = 0
        self.of_records, self.of_messages = Counter(), Counter()

    def add(self, record):
        """Count the unused fields of a record that `parse_record` accepted."""
        raw = record[list_field(record)]
        self.n_records += 1
        self.n_messages += len(raw)
        if not is_plain(record):
            used = ("id" if "id" in record else "conversation_id", list_field(record), *SYSTEM_FIELDS)
            _count(self.of_records, record, used)
        for message in raw:
            text = "content" if message.get("value") is None else "value"
            if len(message) > 2:
                _count(self.of_messages, message, ("role" if message.get("from") is None else "from", text))
            if type(message[text]) is list:
                for part in message[text]:
                    self._add_part(part)

    def add_record(self, record, used):
        """Count the fields of a record that are not kept, those that are not `used`."""
        self.n_records += 1
        _count(self.of_records, record, used)

    def add_messages(self, messages, used):
        """Count the fields of messages that are not kept, those that are not `used`."""
        self.n_messages += len(messages)
        for message in messages:
            _count(self.of_messages, message, used)

    def add_column(self, name, n):
        """Count a column of a table that was not read."""
        _count(self.of_records, {name: n}, (), n)

    def _add_part(self, part):
        if isinstance(part, dict) and len(part) > 1:
            used = ("type", TEXT_PARTS[part_type(part)])
            _count(self.of_messages, {f"content: {name}": part[name] for name in part if name not in used}, ())

    def as_dict(self):
        """Return the counts, most frequent field first, then by name; {} if every field was kept."""
        if not self.of_records and not self.of_messages:
            return {}
        return {
            "records": self.n_records,
            "record_fields": _order(self.of_records),
            "messages": self.n_messages,
            "message_fields": _order(self.of_messages),
        }


def _order(counter):
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _count(counter, fields, used, n=1):
    for name, value in fields.items():
        if name not in used and value not in EMPTY:
            name = re.sub(r"[^\w.:$@/ -]", "?", name[:40])
            counter[name if name in counter or len(counter) < MOST_NAMES else "further names"] += n
