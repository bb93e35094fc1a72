"""Chat data sets: a conversation per record, in ShareGPT's, OpenAI's or Anthropic's shape.

Text alone is read as `load` reads it; tools and reasoning make a Dialog; Anthropic's blocks a Call for each reply,
whose body is what came before it.
"""

import hashlib
import json

from kvprefix.conversations.calls import Call, Dialog
from kvprefix.conversations.dialogs import MESSAGE_FIELDS, is_more_than_text, read_dialog, read_message_times
from kvprefix.conversations.forms.bodies import check_body, has_blocks
from kvprefix.conversations.forms.fields import TIMES, load_text
from kvprefix.conversations.forms.form import Form
from kvprefix.conversations.load import count_records, rejoin_records
from kvprefix.conversations.records import EMPTY, LIST_FIELDS, UNRENDERED, Refused, list_field, parse_record

_NOT_OF_TEXT = frozenset({"with_tools", "unknown_speaker", "with_thinking", "with_system_blocks", "malformed_message",
                          "with_chat_template_kwargs"})  # fmt: skip
_ROLES = ("user", "assistant", "system")  # of Anthropic's form
_TURN_TEXTS = frozenset({"text", "system_prompt"})
_USED = frozenset({"id", "conversation_id", *LIST_FIELDS, "system", "system_prompt", "tools", "functions",
                   "chat_template_kwargs"})  # fmt: skip


def is_chat(record):
    """Say whether a record holds a list of messages, perhaps as JSON text."""
    return any(isinstance(load_text(record.get(name)), list) for name in LIST_FIELDS)


def read_chats(records, traffic):
    """Yield a file's conversations."""
    counts, places = traffic.counts, {}
    numbered = _number(records, places)
    for number, value in (rejoin_records if traffic.rejoin_split else count_records)(numbered, counts):
        place = places.pop(number)
        try:
            items = _read_chat(value, number, place, traffic)
        except Refused as refusal:
            counts.skip(refusal.args[0], place, refusal.args[1])
            continue
        yield from items


def _number(records, places):
    for record in records:
        places[record.number] = record.place
        yield record.number, record.value


def _read_chat(record, number, place, traffic):
    """Return what a record gives: a Conversation of text, a Dialog, or a Call for each reply."""
    record = _normalise(record)
    try:
        parsed = parse_record(record)
        raw = record[list_field(record)]
        if not is_more_than_text(raw):
            return [traffic.reader.finish(record, number, parsed, _find_times(record, raw, parsed))]
    except Refused as refusal:
        if refusal.args[0] not in _NOT_OF_TEXT:
            raise
        raw = record[list_field(record)]
    if isinstance(record.get("system"), list) or any(has_blocks(message) for message in raw):
        return _make_calls(record, raw, number, place, traffic)
    read = read_dialog(record)
    whole = json.dumps([read.messages, read.settings], default=str)
    traffic.reader.check_new(hashlib.blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=16).digest())
    traffic.counts.repaired.update({name: n for name, n in read.repaired.items() if n})
    traffic.counts.fields.add_record(record, _USED)
    traffic.counts.fields.add_messages(raw, MESSAGE_FIELDS)
    return [Dialog(traffic.reader.name(record, number), read.messages, read.settings, place, read.times_s)]


def _normalise(record):
    """Return a record with its messages as a list, and each turn's text under the name that all others have.

    Trajectories of agents have messages as JSON text, or turns of `role` and `text` (`system_prompt` for a system).
    """
    name = list_field(record) if isinstance(record, dict) else None
    given = record.get(name) if name else None
    raw = load_text(given)
    if not isinstance(raw, list) or not raw or not isinstance(raw[0], dict):
        return record
    if not _TURN_TEXTS.isdisjoint(raw[0]) and raw[0].keys().isdisjoint(("content", "value")):
        raw = [_rename_text(turn) for turn in raw]
    return record if raw is given else {**record, name: raw}


def _rename_text(turn):
    if not isinstance(turn, dict) or "content" in turn or "value" in turn:
        return turn
    own = "system_prompt" if turn.get("role") == "system" and turn.get("system_prompt") else "text"
    return {"content" if name == own else name: value for name, value in turn.items()}


def _find_times(record, raw, parsed):
    """Return a time for each message of `parsed`, those of the system fields first; None if no message has one."""
    times = read_message_times(raw)
    return times and [None] * (len(parsed.messages) - len(raw)) + times


def _make_calls(record, raw, number, place, traffic):
    """Return a call for each reply of a conversation in Anthropic's shape, and for what is left after the last."""
    body = {name: record[name] for name in ("system", "tools") if record.get(name) not in EMPTY}
    check_body("messages", {"messages": raw})
    odd = next((message["role"] for message in raw if message["role"] not in _ROLES), None)
    if odd is not None:
        raise Refused("unknown_speaker", f"a message is by {odd[:40]!r}; known: {', '.join(_ROLES)}")
    name = traffic.reader.name(record, number)
    ends = [k for k, message in enumerate(raw) if message.get("role") == "assistant" and k]
    ends += [len(raw)] if raw[-1].get("role") == "user" else []
    traffic.counts.fields.add_record(record, _USED)
    return [
        Call("messages", {**body, "messages": raw[:k]}, tuple(raw[k : k + 1]), place, f"{name}/{turn}", name, turn=turn)
        for turn, k in enumerate(ends)
    ]


FORM = Form(
    "chats", "chat data sets",
    "a list `conversations`, `messages` or `conversation` of `from`/`value` or `role`/`content`",
    "texts, speakers, `system`, `system_prompt`, `tools`, tool calls and results, reasoning, names, a time per message",
    "`unknown_speaker`, `no_user_message`, `malformed_message`, `with_images`, `with_other_media`, `too_long`, ...",
    is_chat,
    read_chats,
    frozenset(LIST_FIELDS),
    frozenset({*_USED, *UNRENDERED, *TIMES}),
)  # fmt: skip
