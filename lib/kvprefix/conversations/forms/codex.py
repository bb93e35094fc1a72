"""Codex's rollout files: items of Responses, settings of turns, counts of tokens.

A call is a count of tokens whose total differs from the one before, or, in newer files, one per response: its answer is
what came last, its prompt all items before that, in Responses' shape. A forked session starts with a copy of its
parent's history, whose counts are not its own. Compaction replaces the history. Reasoning is encrypted: it is kept as
it is, and no open server renders it. The tools are not in the file: the text of a prompt is a lower bound, `usage` is
the provider's.
"""

from kvprefix.conversations.calls import Call, Usage
from kvprefix.conversations.forms.bodies import find_media
from kvprefix.conversations.forms.fields import check_time, count_of
from kvprefix.conversations.forms.form import Form
from kvprefix.conversations.forms.requests import find_model
from kvprefix.conversations.records import Refused

_TYPES = frozenset({"session_meta", "turn_context", "response_item", "event_msg", "compacted",
                    "token_usage_record"})  # fmt: skip
_COPY_GAP_S = 0.1  # rows of a copied history are closer together than a model can answer
_CONTEXT = ("<environment_context>", "<user_instructions>", "<permissions", "# AGENTS.md")


def fits(record):
    """Say whether a record is a row of a rollout."""
    return "payload" in record and "timestamp" in record and str(record.get("type")) in _TYPES


def read_rollout(records, traffic):
    """Yield the calls of a rollout, in its order."""
    rollout = _Rollout(traffic)
    for record in records:
        traffic.counts.records_read += 1
        try:
            if call := rollout.read(record):
                yield call
        except Refused as refusal:
            traffic.counts.skip(refusal.args[0], record.place, refusal.args[1])
    rollout.close()


class _Rollout:
    """What a rollout has said so far: its history, and the items since the last call."""

    def __init__(self, traffic):
        self.traffic, self.counts = traffic, traffic.counts
        self.session = self.parent = self.instructions = self.total = self.time = None
        self.context, self.history, self.n_calls = {}, [], 0
        self.answer, self.times, self.late = [], [], []  # items of the answer, their times; items that follow it
        self.is_copy = self.saw_gap = self.saw_context = False
        self.ended_by, self.responses = None, set()  # the kind of the last count, and the responses that are counted
        self.n_known = 0  # items of the history that a call has
        self.media = None  # the reason to skip what has such an item in its prompt

    def read(self, record):
        """Take a row; return the call that ends with it, or None."""
        row = record.value
        if row is None:
            raise Refused("unparsable_line", "is not valid JSON")
        payload = row.get("payload") if isinstance(row, dict) else None
        if not isinstance(payload, dict):
            raise Refused("no_object", "has no object `payload`")
        time = check_time(row["timestamp"], "timestamp") if row.get("timestamp") is not None else None
        if time is not None and self.time is not None and time - self.time >= _COPY_GAP_S:
            self.saw_gap = True
        self.time = time if time is not None else self.time
        kind = row.get("type")
        if kind == "response_item":
            self._add_item(payload, time, record)
        elif kind == "session_meta":
            self._start(payload)
        elif kind == "turn_context":
            self.context, self.saw_context = payload, True
        elif kind == "compacted":
            self._compact(payload, record)
        elif kind == "event_msg" and payload.get("type") == "token_count":
            return self._read_count(payload, time, record)
        elif kind == "token_usage_record":
            return self._read_record(payload, time, record)
        elif kind == "event_msg" and payload.get("type") == "thread_rolled_back":
            self._roll_back(payload, record)
        else:
            what = payload.get("type") if kind == "event_msg" else kind
            raise Refused("not_messages", f"is of type {str(what)[:40]}, which repeats or frames the items")
        return None

    def _start(self, meta):
        """Read who this is; a second `session_meta` belongs to the history that is copied."""
        if self.session is not None:
            self.is_copy = True
            return
        self.session = str(meta["id"]) if meta.get("id") is not None else (self.traffic.file or None)
        source = meta.get("source")
        spawned = source.get("subagent") if isinstance(source, dict) else None
        spawned = spawned.get("thread_spawn") if isinstance(spawned, dict) else None
        parent = meta.get("forked_from_id") or (spawned or {}).get("parent_thread_id")
        self.parent, self.is_copy = (str(parent), True) if parent else (None, False)
        base = meta.get("base_instructions")
        text = base.get("text") if isinstance(base, dict) else meta.get("instructions")
        self.instructions = text if isinstance(text, str) else None
        if self.instructions is None:
            where = self.traffic.file or "the file"
            self.counts.note("instructions_not_in_the_file", where, "it has no text of a system prompt")

    def _add_item(self, item, time, record):
        """Take an item: of the answer, a result of one of its calls, or something new, which ends the answer."""
        if item.get("encrypted_content"):
            self.counts.note("encrypted_reasoning", record.place, "a server that cannot decrypt it refuses the prompt")
        if _is_answer(item):
            self.answer.append(item)
            self.times.append(time)
        elif self.answer and "call_id" in item and item["call_id"] in [one.get("call_id") for one in self.answer]:
            self.late.append(item)
        else:
            self._take_in(record)
            self.history.append(item)
        self.media = self.media or find_media(item)

    def _take_in(self, record=None):
        """Make the answer so far a part of the history."""
        if self.answer and record and not self.is_copied:
            self.counts.note("answers_without_usage", record.place, "no count of tokens follows: no call is made")
        self.history += self.answer + self.late
        self.answer, self.times, self.late = [], [], []

    @property
    def is_copied(self):
        """Whether what is read is still the copy of the parent's history."""
        return self.is_copy and not (self.saw_gap and self.saw_context)

    def _compact(self, payload, record):
        self._take_in()
        given = payload.get("replacement_history")
        if isinstance(given, list):
            self._replace([item for item in given if isinstance(item, dict)])
            return
        self.counts.note("compactions_without_history", record.place, "only the summary is known of what replaced it")
        text = payload.get("message") if isinstance(payload.get("message"), str) else ""
        self._replace([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}])

    def _replace(self, history):
        self.n_known = 0
        self.history, self.media = history, next(filter(None, map(find_media, history)), None)

    def _roll_back(self, payload, record):
        """Cut turns off the history: from the n-th last message of a person on."""
        self._take_in()
        turns = [k for k, item in enumerate(self.history) if _is_turn(item)]
        n = payload.get("num_turns")
        n = n if isinstance(n, int) and n > 0 else 1
        if turns:
            self.counts.note("turns_rolled_back", record.place, "they are left out of what follows", n)
            self._replace(self.history[: turns[-min(n, len(turns))]])

    def _read_count(self, payload, time, record):
        """Return the call that a `token_count` ends."""
        info = payload.get("info")
        if not isinstance(info, dict):
            raise Refused("token_count_without_info", "counts no tokens")
        total = info.get("total_token_usage")
        if total == self.total:
            raise Refused("repeated_token_count", "has the same total as the one before")
        self.total = total
        return self._end_call("token_count", info.get("last_token_usage"), time, record)

    def _read_record(self, payload, time, record):
        """Return the call that a `token_usage_record` ends, which newer files have beside a `token_count`."""
        response = payload.get("response_id")
        if isinstance(response, str) and response in self.responses:
            raise Refused("repeated_token_count", "counts a response that an earlier row counts")
        self.responses.add(str(response))
        return self._end_call("token_usage_record", payload.get("usage"), time, record)

    def _end_call(self, kind, usage, time, record):
        """Return the call that a count of tokens ends; raise Refused for one of a copy, or of an answer counted."""
        if self.is_copied:
            self._take_in()
            raise Refused("copied_token_count", "belongs to the history of the session that this one continues")
        if not self.answer and self.ended_by not in (None, kind):
            raise Refused("repeated_token_count", f"the {self.ended_by} before it counts the same answer")
        self.ended_by = kind
        call = self._make_call(usage if isinstance(usage, dict) else {}, time, record)
        self._take_in()
        self.n_known = len(self.history)
        if self.media:
            raise Refused(self.media, "its prompt has an item that is no text")
        return call

    def _make_call(self, last, time, record):
        usage = Usage(
            count_of(last, "input_tokens"), count_of(last, "cached_input_tokens"), count_of(last, "output_tokens")
        )
        model, effort = find_model(self.context), self.context.get("effort")
        body = {"model": model, "instructions": self.instructions, "input": list(self.history),
                "reasoning": {"effort": effort} if effort else None}  # fmt: skip
        body = {name: value for name, value in body.items() if value is not None}
        name, self.n_calls = f"{self.session}/{self.n_calls}", self.n_calls + 1
        first = next((one for one in self.times if one is not None), time)
        self.counts.note("text_is_a_lower_bound", record.place, "the tools are not in the file")
        return Call(
            "responses", body, tuple(self.answer), record.place, name, self.session, self.parent, first, None, time,
            usage, model, None, self.n_calls - 1,
        )  # fmt: skip

    def close(self):
        """Count what is left at the file's end."""
        where = self.traffic.file or "the file"
        cut = self.counts.reading.cut_at_byte
        if cut is not None:
            self.counts.skip("unparsable_line", f"{where}, byte {cut}", "the last line is cut")
        if self.answer:
            self.counts.note("answers_without_usage", where, "no count of tokens follows: no call is made")
        left = len(self.history) + len(self.late) - self.n_known
        if left > 0:
            self.counts.note("messages_of_no_call", where, "no call that is read has them", left)
        if not self.n_calls:
            self.counts.note("sessions_without_calls", where, "no count of tokens: no call can be read")


def _is_answer(item):
    """Say whether a model wrote an item."""
    kind = str(item.get("type"))
    return item.get("role") == "assistant" or kind == "reasoning" or kind.endswith("_call")


def _is_turn(item):
    """Say whether an item is what a person wrote, and not what the client adds to it."""
    content = item.get("content") if item.get("role") == "user" else None
    texts = [part.get("text") for part in content if isinstance(part, dict)] if isinstance(content, list) else [content]
    return bool(texts) and isinstance(texts[0], str) and not texts[0].lstrip().startswith(_CONTEXT)


FORM = Form(
    "codex", "Codex rollouts",
    "rows of `timestamp`, `type` (`session_meta`, `response_item`, ...) and `payload`",
    "a call per `token_count` with a new total, or per `token_usage_record`, its usage, instructions, items, "
    "compaction, forks, turns rolled back",
    "`not_messages`, `repeated_token_count`, `copied_token_count`, `token_count_without_info`, `unparsable_line`; "
    "noted: `encrypted_reasoning`, `text_is_a_lower_bound`, `answers_without_usage`, `messages_of_no_call`, "
    "`instructions_not_in_the_file`",
    fits, read_rollout,
)  # fmt: skip
