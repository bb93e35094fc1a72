"""Find which message each part of a prompt's text is of: the template renders the messages once more, with marks.

A mark is one character of a private range, before the first and behind the last letter of each text. What is left
without the marks must be the prompt itself; a template that looks closely at texts may need marks at their ends alone.
"""

import contextlib
import itertools
import re

from kvprefix.servers.prompt import Refused
from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.tokens.render import render_prompt

WRITERS = ("template", "system", "user", "assistant", "tool", "message")
TEMPLATE, SYSTEM, USER, ASSISTANT, TOOL, UNKNOWN = range(len(WRITERS))
BY_ROLE = {
    "system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": TOOL, "function": TOOL,
}  # fmt: skip
BESIDE = 0  # in place of a message's number: tools and documents
_FIRST, _LAST = 0xF0000, 0x10FFFD
_MOST = (_LAST - _FIRST) // 4  # messages
_MARKS = re.compile(f"([{chr(_FIRST)}-{chr(_LAST)}])")
_TEXTS = ("content", "reasoning", "reasoning_content", "thinking")


def render_marked(chat, prompt, text, now):
    """Return a prompt's text with marks in it.

    Parameters
    ----------
    chat : Chat
    prompt : Prompt
    text : str
        Its text without.
    now : datetime

    Returns
    -------
    str or None
        None if the template writes other text then, or the texts have such characters themselves.
    """
    if len(prompt.messages) >= _MOST or not text.isascii() and _MARKS.search(text):
        return None
    for begins in (True, False):
        with contextlib.suppress(TemplateRefusal, Refused):
            marked = render_prompt(chat, mark_prompt(prompt, begins), now)
            if _MARKS.sub("", marked) == text:
                return marked
    return None


def mark_prompt(prompt, begins=True):
    """Return a prompt whose texts have marks at their ends, and at their beginnings if `begins`."""

    def mark(text, number, is_call):
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        begin, end = (chr(_FIRST + 4 * number + 2 * is_call + k) for k in range(2))
        rest = text[start + len(core) :]
        return f"{text[:start]}{begin if begins else ''}{core}{end}{rest}"

    def mark_all(value, number, is_call=False):
        if isinstance(value, str):
            return mark(value, number, is_call)
        if isinstance(value, dict):
            return {name: one if name == "type" else mark_all(one, number, is_call) for name, one in value.items()}
        return [mark_all(inner, number, is_call) for inner in value] if isinstance(value, list) else value

    def mark_function(tool, number, *names):
        inner = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(inner, dict):
            return tool
        marked = {name: mark_all(inner[name], number, number != BESIDE) for name in names if inner.get(name)}
        return {**tool, "function": inner | marked}

    messages = []
    for number, message in enumerate(prompt.messages, start=1):
        marked = message | {name: mark_all(message[name], number) for name in _TEXTS if message.get(name)}
        if message.get("tool_calls"):
            marked["tool_calls"] = [mark_function(one, number, "name", "arguments") for one in message["tool_calls"]]
        messages.append(marked)
    tools = prompt.tools and [mark_function(one, BESIDE, "name", "description") for one in prompt.tools]
    settings = prompt.settings
    if settings.get("documents"):
        settings = {**settings, "documents": mark_all(settings["documents"], BESIDE)}
    return prompt._replace(messages=messages, tools=tools, settings=settings)


def cut_marks(piece):
    """Return a piece of a prompt without marks, and which message each part of it is of.

    A message ends at its text. What follows is of the next message, if there is one in the piece, else of none, though
    the same wrote it; beside tools it is theirs, and what closes a call of tools is the call's.

    Returns
    -------
    text : str
    layout : tuple of (int, int, int)
        Where each part ends, in characters; the number of its message, from 1 on, or BESIDE; that of the message whose
        writer wrote it. Empty if no message has text there: the template wrote it all.

    Examples
    --------
    >>> from kvprefix.servers.prompt import Prompt
    >>> marked = mark_prompt(Prompt([{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]))
    >>> cut_marks("a " + " b ".join(message["content"] for message in marked.messages) + " c")
    ('a 1 b 2 c', ((3, 1, 1), (7, 2, 2), (9, 0, 2)))
    """
    parts = [piece] if piece.isascii() else _MARKS.split(piece)
    if len(parts) == 1:
        return piece, ()
    spans, at = [], 0
    for k, part in enumerate(parts):
        if k % 2 == 0:
            at += len(part)
            continue
        number, kind = divmod(ord(part) - _FIRST, 4)
        if not spans or spans[-1][2] != number:
            spans.append([at, at, number])
        spans[-1][1] = at
    cuts = [(two[0] if one[2] == BESIDE else one[1], one[2], one[2]) for one, two in itertools.pairwise(spans)]
    stop, last = spans[-1][1:]
    if kind < 2 and stop < at:
        cuts.append((stop, last, last))
    return "".join(parts[::2]), (*cuts, (at, last if kind >= 2 or stop == at else BESIDE, last))
