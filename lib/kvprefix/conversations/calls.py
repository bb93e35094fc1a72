"""What readers of chat traffic give: calls of a server as a log holds them, and dialogs of a data set.

Bodies and messages stay as they were given. A server's rules make prompts of them (see `servers`).
"""

from typing import NamedTuple

ENDPOINTS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
APIS = tuple(ENDPOINTS)
LISTS = {"chat": "messages", "messages": "messages", "responses": "input"}  # the field of a body's messages or items


class Usage(NamedTuple):
    """What a provider counted for a call: tokens, None if it does not say."""

    prompt: int | None = None
    cached: int | None = None  # of the prompt
    output: int | None = None


class Call(NamedTuple):
    """One call of a chat server.

    Attributes
    ----------
    api : str
        One of APIS: the shape of `body` and `reply`.
    body : dict
        What was sent: `messages`, or `input` and `instructions`; `system`, `tools` and all else as it was given.
    reply : tuple of dict
        What was answered, as the next body would repeat it: assistant messages, or output items of Responses. Empty if
        the log does not hold it.
    place : str
        Where it stands, for messages: ``line 3``, ``a.jsonl, line 3``.
    name : str or None
        The log's own name of the call.
    session : str or None
        Calls of one session belong together; a sub-agent has a session of its own.
    parent : str or None
        The session that started this one.
    start_s, first_token_s, end_s : float or None
        When it was sent, when its first token came, when its answer was whole: seconds since 1970, UTC.
    usage : Usage
    model : str or None
    user : str or None
        Who asked, if the log says so.
    turn : int or None
        Which request of its session it is, if the log says so.
    """

    api: str
    body: dict
    reply: tuple = ()
    place: str = ""
    name: str | None = None
    session: str | None = None
    parent: str | None = None
    start_s: float | None = None
    first_token_s: float | None = None
    end_s: float | None = None
    usage: Usage = Usage()
    model: str | None = None
    user: str | None = None
    turn: int | None = None


class Dialog(NamedTuple):
    """A conversation of a data set: a call is made for each message of a user or a tool that a reply may follow.

    Attributes
    ----------
    id : str
    messages : list of dict
        In the shape of chat bodies: `role`, `content`, and perhaps `tool_calls`, `reasoning`, `tool_call_id`, `name`.
    settings : dict
        What else a body would hold: `tools`, `chat_template_kwargs`.
    place : str
    times_s : list of float or None
        When each message was written, seconds since 1970; None for one without a time.
    """

    id: str
    messages: list
    settings: dict
    place: str = ""
    times_s: list | None = None


def list_messages(call):
    """Return the messages, or the input items, of a call's body; an input of text is one message of a user.

    >>> list_messages(Call("responses", {"input": "What is 2 + 2?"}))
    [{'role': 'user', 'content': 'What is 2 + 2?'}]
    """
    listed = call.body.get(LISTS[call.api])
    return listed if isinstance(listed, list) else [{"role": "user", "content": listed}]


def brings_result(call):
    """Say whether a call brings the result of a tool, not a person's message.

    >>> brings_result(Call("chat", {"messages": [{"role": "tool", "content": "4"}]}))
    True
    """
    last = (list_messages(call) or [None])[-1]
    if not isinstance(last, dict):
        return False
    blocks = last.get("content")
    if call.api == "messages" and isinstance(blocks, list):
        return any(isinstance(block, dict) and block.get("type") == "tool_result" for block in blocks)
    return last.get("role") in ("tool", "function") or str(last.get("type")).endswith("_call_output")


def find_time(times_s, end):
    """Return when a prompt of a conversation's first `end` messages was sent: as its last message was, else its reply.

    Some data sets, such as WildChat, have a time for replies alone.

    >>> find_time([1.0, 2.0], 1), find_time([None, 2.0], 1), find_time([None], 1)
    (1.0, 2.0, None)
    """
    time = times_s[end - 1]
    return times_s[end] if time is None and end < len(times_s) else time
