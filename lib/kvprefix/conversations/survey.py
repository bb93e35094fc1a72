"""Sum up chat traffic: requests, sessions, times, tools, reasoning, what providers counted, a sample request."""

import json
from collections import Counter
from datetime import UTC, datetime

from kvprefix.conversations.calls import Call, Dialog, brings_result, find_time
from kvprefix.conversations.dialogs import REASONING

_MOST_SHOWN = 600  # characters of the sample


class Survey:
    """Sums over the items of `read_traffic`, taken one by one; nothing of them is kept but the first."""

    def __init__(self):
        self.n, self.roles, self.models, self.apis = Counter(), Counter(), Counter(), Counter()
        self.tokens, self.turns, self.agents, self.users = Counter(), Counter(), set(), set()
        self.first = self.last = self.earliest = self.latest = None

    def add(self, item):
        """Take a Conversation, a Dialog or a Call."""
        if isinstance(item, Call):
            self._add_call(item)
        elif isinstance(item, Dialog):
            self._add_dialog(item)
        else:
            ends = item.request_ends()
            self.roles.update(message.role for message in item.messages)
            self._add_times(item.times_s, [end - 1 for end in ends])
            self._add_turns(item.id, len(ends))
        self.first = item if self.first is None else self.first

    def _add_turns(self, session, n):
        self.n["requests"] += n
        self.turns[hash(session)] += n

    def _add_call(self, call):
        """Sum a call; of its messages, what is new: the last of its prompt, and its reply."""
        self.apis[call.api] += 1
        self.models[call.model or "not named"] += 1
        self.n["calls_without_session"] += call.session is None
        self._add_turns(call.session or ("alone", self.n["calls_without_session"]), 1)
        if call.parent is not None:
            self.agents.add(hash(call.session))
        if call.user is not None:
            self.users.add(hash(call.user))
        self.n["with_tools"] += bool(call.body.get("tools"))
        self.n["with_reply"] += bool(call.reply)
        self.n["with_tool_calls"] += any(map(_calls_tools, call.reply))
        self.n["after_tool_results"] += brings_result(call)
        self.n["with_reasoning"] += any(map(_has_reasoning, call.reply))
        self._add_usage(call.usage)
        self._add_time(call.start_s)
        self.n["with_end"] += call.end_s is not None
        self.n["with_first_token"] += call.first_token_s is not None

    def _add_dialog(self, dialog):
        messages = dialog.messages
        self.roles.update(message["role"] for message in messages)
        asked = [k for k, one in enumerate(messages) if one["role"] in ("user", "tool") and _is_answered(messages, k)]
        self._add_times(dialog.times_s, asked)
        self._add_turns(dialog.id, len(asked))
        self.n["with_tools"] += len(asked) * bool(dialog.settings.get("tools"))
        self.n["after_tool_results"] += sum(messages[k]["role"] == "tool" for k in asked)
        self.n["with_tool_calls"] += sum(map(_calls_tools, messages))
        self.n["with_reasoning"] += sum(map(_has_reasoning, messages))

    def _add_usage(self, usage):
        for name, value in usage._asdict().items():
            if value is not None:
                self.tokens[name] += value
                self.tokens[f"with_{name}"] += 1

    def _add_times(self, times, requests):
        for k in requests:
            self._add_time(find_time(times, k + 1) if times else None, is_modelled=True)

    def _add_time(self, time, is_modelled=False):
        """Count a request's time: its own, one that a clock would model, or none."""
        if time is None:
            self.n["times_modelled" if is_modelled else "times_missing"] += 1
            return
        self.n["times_real"] += 1
        self.n["times_out_of_order"] += self.last is not None and time < self.last
        self.last = time
        self.earliest = time if self.earliest is None else min(self.earliest, time)
        self.latest = time if self.latest is None else max(self.latest, time)

    def as_dict(self):
        """Return the sums as plain JSON values."""
        n, sessions = self.n, len(self.turns)
        return {
            "requests": n["requests"],
            "apis": dict(self.apis),
            "sessions": {
                "all": sessions,
                "of_sub_agents": len(self.agents),
                "calls_without_session": n["calls_without_session"],
                "users": len(self.users),
            },
            "turns": {
                "mean": n["requests"] / sessions if sessions else None,
                "most": max(self.turns.values(), default=0),
            },
            "messages_by_role": dict(sorted(self.roles.items())),
            "times": {
                **{name: n[f"times_{name}"] for name in ("real", "modelled", "missing", "out_of_order")},
                "first": _show_time(self.earliest),
                "last": _show_time(self.latest),
                "span_s": None if self.latest is None else self.latest - self.earliest,
                "with_end": n["with_end"],
                "with_first_token": n["with_first_token"],
            },
            "tools": {name: n[name] for name in ("with_tools", "with_tool_calls", "after_tool_results")},
            "reasoning": n["with_reasoning"],
            "replies": n["with_reply"],
            "usage": self._sum_usage(),
            "models": dict(self.models.most_common(10)),
            "sample": None if self.first is None else _show_item(self.first),
        }

    def _sum_usage(self):
        tokens = self.tokens
        share = tokens["cached"] / tokens["prompt"] if tokens["with_cached"] and tokens["prompt"] else None
        return {
            **{f"{name}_tokens": tokens[name] for name in ("prompt", "cached", "output")},
            "requests_with_it": tokens["with_prompt"],
            "requests_with_cached": tokens["with_cached"],
            "cached_share": share,
        }


def _calls_tools(message):
    if message.get("tool_calls") or str(message.get("type")).endswith("_call"):
        return True
    return _has_block(message, "tool_use")


def _has_reasoning(message):
    if any(message.get(name) for name in REASONING) or message.get("type") == "reasoning":
        return True
    return _has_block(message, "thinking")


def _has_block(message, kind):
    content = message.get("content")
    return isinstance(content, list) and any(isinstance(part, dict) and part.get("type") == kind for part in content)


def _is_answered(messages, k):
    """Say whether a request is made for a message: a reply follows, or nothing."""
    return k + 1 == len(messages) or messages[k + 1]["role"] == "assistant"


def _show_time(seconds):
    if seconds is None or seconds < 1e8:  # counted from a log's own start
        return seconds
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _show_item(item):
    """Return an item as JSON in one line, cut."""
    if isinstance(item, Call):
        fields = {"body": item.body, "reply": item.reply}
    elif isinstance(item, Dialog):
        fields = {"messages": item.messages, **item.settings}
    else:
        fields = {"messages": [{"role": role, "content": text} for role, text in item.messages]}
    text = json.dumps(fields, ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
