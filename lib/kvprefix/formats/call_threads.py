"""Find out which calls of a log continue one another, by their messages: the conversations and their branches.

A call continues an earlier one if its messages begin with that one's, and go on with what the model answered, if the
log says what that was. If the log says whose session it is, or who asked, both must have the same.
"""

import json
from typing import NamedTuple

from kvprefix.conversations.calls import list_messages
from kvprefix.conversations.records import EMPTY, TEXT_PARTS, NotText, join_text_parts

_OF_ONE_ANSWER = frozenset({"id", "status", "annotations", "refusal", "logprobs"})  # what a next call need not repeat


class Chain(NamedTuple):
    """The calls from a conversation's first to one that none continues.

    Attributes
    ----------
    path : list of int
        The calls.
    name : str
        The conversation's: its session, else the name of its first call.
    turns : list of (str, str or None)
        Role and text of the last call's messages, and of its reply if that is known; None for what is no text alone.
    """

    path: list
    name: str
    turns: list


def find_previous(calls):
    """Return the call that each one continues, always an earlier one; -1 for none.

    Parameters
    ----------
    calls : list of Call
        In order of time.

    Returns
    -------
    list of int

    Notes
    -----
    The messages of all calls are walked down one tree, message by message. Of several earlier calls that fit, the one
    with the most messages is taken; of these, one whose answer is known to fit, then the last one that none continues
    yet, else the last.
    """
    steps, waiting, latest = {}, {}, {}
    previous = [-1] * len(calls)

    def walk(node, messages):
        for message in messages:
            node = steps.setdefault((node, _key(message)), len(steps) + 1)
            yield node

    for i, call in enumerate(calls):
        who, before, found, node = (call.session, call.user), None, None, 0
        for node in walk(0, _list_all(call)):
            ends = (node, who, True), (before, who, False)
            found = next((end for end in ends if end in latest), found)
            before = node
        if found:
            previous[i] = waiting[found].pop() if waiting[found] else latest[found]
        end = [node, *walk(node, call.reply)][-1], who, bool(call.reply)
        latest[end] = i
        waiting.setdefault(end, []).append(i)
    return previous


def make_chains(calls):
    """Return a Chain for each call that none continues, by their first calls; calls before a branch are in several."""
    previous = find_previous(calls)
    chains, continued = [], set(previous)
    for i, call in enumerate(calls):
        if i not in continued:
            path = [i]
            while previous[path[-1]] >= 0:
                path.append(previous[path[-1]])
            name = call.session if call.session is not None else calls[path[-1]].name
            turns = [(_role(message), _text(message)) for message in (*_list_all(call), *call.reply)]
            chains.append(Chain(path[::-1], name, turns))
    return sorted(chains, key=lambda chain: chain.path[0])


def _list_all(call):
    """Return the messages or items of a call's prompt, its system prompt first."""
    system = call.body.get("system" if call.api == "messages" else "instructions") if call.api != "chat" else None
    return [*([] if system in EMPTY else [{"role": "system", "content": system}]), *list_messages(call)]


def _key(message):
    """Return what is equal for messages that say the same, whatever shape their text has."""
    text, kept = _text(message), {name for name, value in message.items() if value not in EMPTY} - _OF_ONE_ANSWER
    if text is not None and kept <= {"role", "content", "type"}:
        return _role(message), text
    fields = {name: message[name] for name in kept}
    return json.dumps({**fields, "content": message.get("content") if text is None else text}, sort_keys=True)


def _role(message):
    return message.get("role") or message.get("type")


def _text(message):
    """Return the text of a message that is nothing but text; None for any other."""
    content = message.get("content")
    if message.get("tool_calls") or message.get("role") == "tool":
        return None
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") in TEXT_PARTS for part in content):
        try:
            return join_text_parts(content)
        except NotText:
            return None
    return content if isinstance(content, str) else "" if content is None and message.get("role") else None
