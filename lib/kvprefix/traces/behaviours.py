"""What chat templates do that decides how much of a history is found again, done to a workload's own conversations.

The workload's own template renders every prompt. Where a behaviour adds a text inside a message, the message is
rendered with a mark, and the text is put in its place: so a template that would take the text out again (a reasoning
model's) does not. Times are those of the workload, whatever the behaviour.
"""

import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from kvprefix.files.paths import InputError
from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.tokens.encode import encode_prompts
from kvprefix.tokens.template import open_chat
from kvprefix.tokens.tokenizer import find_tokenizer

MOST_REASONING = 200  # tokens of a reply's reasoning
START = datetime(2024, 7, 26, 9)  # what clocks in prompts show when the trace begins
OPEN, CLOSE = "<think>\n", "\n</think>\n\n"
NO_REASONING = "<think>\n\n</think>\n\n"
SYSTEM = (
    "You are a careful assistant of a software company. Answer in the language of the question, briefly and in plain "
    "words. Say so if you are not sure, and never invent a source. Put code into fenced blocks and name its language. "
    "Do not repeat the question, and do not apologise. If a task has several steps, number them. If the question is "
    "unclear, ask one short question before you answer. Keep personal data out of examples, and refuse politely what "
    "would harm others. Keep lists short, and spell names as they stand."
)
SHORT_SYSTEM = "You are a helpful assistant."
_MARK = "kvprefixmark0end"


def _describe_tool(name, purpose, **fields):
    properties = {field: {"type": "string", "description": text} for field, text in fields.items()}
    parameters = {"type": "object", "properties": properties, "required": list(fields)}
    return {"type": "function", "function": {"name": name, "description": purpose, "parameters": parameters}}


TOOLS = [
    _describe_tool("search", "Search the web.", query="What to look for.", language="Code of the language."),
    _describe_tool("read_file", "Read a text file.", path="Its path.", encoding="How it is encoded there."),
    _describe_tool("write_file", "Write a text file.", path="Its path from here.", content="What it holds then."),
    _describe_tool("run", "Run a command in a shell.", command="The line to run there.", folder="Where it runs now."),
]
TOOL_LIST = f"[AVAILABLE_TOOLS]{json.dumps(TOOLS)}[/AVAILABLE_TOOLS]"


class Told(NamedTuple):
    """A conversation as behaviours take it.

    Attributes
    ----------
    messages : list of dict
        `role` and `content`.
    ends : list of int
        For each request, the number of messages in its prompt.
    replies, thoughts : list of (str or None)
        For each request, the text of its reply, and a text that stands for the reasoning before it.
    days, minutes : list of str
        For each request, what a clock in its prompt shows: the date, and date and time.
    """

    messages: list
    ends: list
    replies: list
    thoughts: list
    days: list
    minutes: list


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What a template does.

    Attributes
    ----------
    name, label : str
    reference : str
        The behaviour that it is compared with; its own name if it is one.
    says : str
        What it does, in a few words.
    tell : callable
        ``tell(told, chat)`` yields the text of each prompt, and of what is generated (None if the log has no reply).
    """

    name: str
    label: str
    reference: str
    says: str
    tell: Callable


def _tell_plain(told, chat, opening="", reasons=False):
    """Histories hold replies alone; `opening` ends the prompt, and what is generated goes on behind it."""
    rendered = chat.render_turns(told.messages, told.ends)
    for text, reply, thought in zip(rendered, told.replies, told.thoughts, strict=True):
        generated = f"{OPEN}{thought}{CLOSE}{reply}".removeprefix(opening) if reasons else reply
        yield text + opening, None if reply is None else generated


def _tell_kept(told, chat):
    """Histories hold replies with their reasoning, as generated."""
    pairs = zip(told.replies, told.thoughts, strict=True)
    thoughts = [None if reply is None else f"{OPEN}{thought}{CLOSE}" for reply, thought in pairs]
    places = [end for end, one in zip(told.ends, thoughts, strict=True) if one is not None]
    for turn, parts in enumerate(_render_marked(told.messages, told.ends, places, chat)):
        reply = told.replies[turn]
        text = _fill(parts, [one for one in thoughts[:turn] if one is not None])
        yield text, None if reply is None else thoughts[turn] + reply


def _tell_beside_user(told, chat, text, is_last):
    """A text stands before the first or the last message of the user."""
    places = [end - 1 for end in told.ends]
    for turn, parts in enumerate(_render_marked(told.messages, told.ends, places, chat)):
        fillings = [""] * (turn + 1)
        fillings[turn if is_last else 0] = f"{text}\n\n"
        yield _fill(parts, fillings), told.replies[turn]


def _tell_stamped(told, chat, stamps):
    """The system message begins with a date or a time, those of the requests."""
    messages, ends = told.messages, told.ends
    if messages[0]["role"] != "system":
        messages, ends = [{"role": "system", "content": SHORT_SYSTEM}, *messages], [end + 1 for end in ends]
    rendered = _render_marked(messages, ends, [0], chat)
    for parts, stamp, reply in zip(rendered, stamps, told.replies, strict=True):
        yield _fill(parts, [f"{stamp}\n\n"]), reply


def _render_marked(messages, ends, places, chat):
    """Yield each prompt, cut at the messages at some places."""
    marked = list(messages)
    for k in places:
        if k < len(marked):
            marked[k] = {**marked[k], "content": _MARK + marked[k]["content"]}
    for text in chat.render_turns(marked, ends):
        yield text.split(_MARK)


def _fill(parts, fillings):
    """Put texts between the parts of a prompt."""
    if len(parts) != len(fillings) + 1:
        raise TemplateRefusal("the template does not write every message once, so nothing can be put into one")
    return "".join(itertools.chain.from_iterable(zip(parts, [*fillings, ""], strict=True)))


BEHAVIOURS = {one.name: one for one in (
    Behaviour(
        name="keep", label="reasoning kept", reference="keep", says="the history keeps what was generated",
        tell=_tell_kept,
    ),
    Behaviour(
        name="strip", label="reasoning stripped", reference="keep", says="the history keeps replies without reasoning",
        tell=lambda told, chat: _tell_plain(told, chat, reasons=True),
    ),
    Behaviour(
        name="strip_gen_think", label="stripped, opened by prompt", reference="keep",
        says="the same, and the prompt ends with <think>",
        tell=lambda told, chat: _tell_plain(told, chat, OPEN, reasons=True),
    ),
    Behaviour(name="none", label="no reasoning", reference="none", says="nothing is added", tell=_tell_plain),
    Behaviour(
        name="empty_think", label="empty think block", reference="none",
        says="the prompt ends with an empty think block, which the history leaves out",
        tell=lambda told, chat: _tell_plain(told, chat, NO_REASONING),
    ),
    Behaviour(
        name="date_daily", label="date that changes once", reference="none",
        says="the system message begins with the date, and midnight is in the middle of the trace",
        tell=lambda told, chat: _tell_stamped(told, chat, told.days),
    ),
    Behaviour(
        name="minute_stamp", label="time to the minute", reference="none",
        says="the system message begins with the time",
        tell=lambda told, chat: _tell_stamped(told, chat, told.minutes),
    ),
    Behaviour(
        name="system_first", label="system text first", reference="system_first",
        says="a system text stands in the first message of the user",
        tell=lambda told, chat: _tell_beside_user(told, chat, SYSTEM, False),
    ),
    Behaviour(
        name="system_in_last", label="system text in last message", reference="system_first",
        says="it stands in the last message of the user",
        tell=lambda told, chat: _tell_beside_user(told, chat, SYSTEM, True),
    ),
    Behaviour(
        name="tools_first", label="tools first", reference="tools_first",
        says="a list of tools stands before the first message of the user",
        tell=lambda told, chat: _tell_beside_user(told, chat, TOOL_LIST, False),
    ),
    Behaviour(
        name="tools_in_last", label="tools before last message", reference="tools_first",
        says="it stands before the last message of the user",
        tell=lambda told, chat: _tell_beside_user(told, chat, TOOL_LIST, True),
    ),
)}  # fmt: skip


def list_told(workload, requests):
    """Return the Told of each conversation.

    Parameters
    ----------
    workload : Workload
        Of conversations of text.
    requests : pandas.DataFrame
        Some of its multi-turn requests, by conversation and turn, with `arrival_s`.
    """
    middle = float(requests["arrival_s"].sort_values().iloc[len(requests) // 2])
    index, columns = requests["conversation_index"].to_numpy(), ["messages", "output_tokens", "arrival_s"]
    firsts = np.flatnonzero(np.diff(index, prepend=-1))
    parts = [np.split(requests[name].to_numpy(), firsts[1:]) for name in columns]
    read = workload.messages.read
    return [_make_told(read(one), middle, *each) for one, *each in zip(index[firsts], *parts, strict=True)]


def _make_told(messages, middle, ends, lengths, arrival):
    """Make the Told of one conversation: `ends`, `lengths` of outputs and times are those of its requests.

    A reply's reasoning is the beginning of the conversation's next reply, or of the first one: as much of its text as
    MOST_REASONING of its tokens are, on average.
    """
    ends, lengths, arrival = ends.tolist(), (lengths - 1).tolist(), arrival.tolist()
    replies = [
        messages[end].text if end < len(messages) and messages[end].role == "assistant" else None for end in ends
    ]
    begun = [
        one and one[: len(one) * MOST_REASONING // max(n, MOST_REASONING)]
        for one, n in zip(replies, lengths, strict=True)
    ]
    following = [*begun[1:], None]
    thoughts = [next((one for one in (later, begun[0]) if one is not None), "") for later in following]
    return Told(
        [{"role": message.role, "content": message.text} for message in messages], ends, replies, thoughts,
        [f"Today Date: {START + timedelta(days=at >= middle):%d %b %Y}" for at in arrival],
        [f"Current time: {START + timedelta(minutes=at // 60):%Y-%m-%d %H:%M}" for at in arrival],
    )  # fmt: skip


def open_workload_chat(workload):
    """Return the Chat of a workload's tokenizer."""
    source = find_tokenizer(workload.source.tokenizer)
    if source.fingerprint != workload.tokenizer["sha256"]:
        raise InputError(f"tokenizer {source.name}: is not the one that made the workload; run again")
    return _open(source)


@functools.lru_cache(maxsize=1)
def _open(source):
    """Open a tokenizer, once for all behaviours."""
    return open_chat(source, ())


def encode_behaviour(behaviour, told, chat):
    """Return the Tokens of conversations under a behaviour, a row per request.

    Parameters
    ----------
    behaviour : Behaviour
    told : list of Told
    chat : Chat

    Raises
    ------
    TemplateRefusal
        The template does not take it.
    """
    return encode_prompts((list(behaviour.tell(one, chat)) for one in told), chat)
