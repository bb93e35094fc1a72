"""How servers differ, as data; and the one way in: a body's prompt by a server's rules."""

from typing import NamedTuple

from kvprefix.conversations.calls import LISTS
from kvprefix.files.paths import InputError
from kvprefix.servers.anthropic import read_messages
from kvprefix.servers.chat import read_chat
from kvprefix.servers.prompt import Memo, Refused
from kvprefix.servers.responses import read_responses
from kvprefix.servers.sglang import read_sglang_chat


class Rules(NamedTuple):
    """How a server makes prompts.

    Attributes
    ----------
    name : str
    version : str
        The version that the rules were taken from.
    readers : dict of str to callable
        By the shapes of bodies that are known: ``read(body, facts, rules, memo)`` returns a Prompt, or raises Refused.
    joiner : str
        What stands between the text parts of a message where the template wants one text.
    ends_with_user : bool
        Whether an assistant's message at the end of a body becomes a user's.
    """

    name: str
    version: str
    readers: dict
    joiner: str
    ends_with_user: bool = False


SERVERS = {
    "vllm": Rules("vllm", "0.32", {"chat": read_chat, "messages": read_messages, "responses": read_responses}, "\n"),
    "sglang": Rules("sglang", "0.5.23", {"chat": read_sglang_chat}, " ", ends_with_user=True),
}


def find_rules(server="vllm"):
    """Return the Rules of a server; raise InputError if it is not known."""
    if server not in SERVERS:
        raise InputError(f"server {server}: its rules are not known; expected one of {', '.join(SERVERS)}")
    return SERVERS[server]


def make_prompt(api, body, facts, server="vllm", *, answered=False, memo=None):
    """Return what a server gives to its chat template for a body.

    Parameters
    ----------
    api : str
        The shape of the body: `chat`, `messages` or `responses`.
    body : dict
    facts : TemplateFacts
    server : str
    answered : bool
        Whether the body ends with the server's own reply (see `add_reply`), which stays as it is.
    memo : Memo, optional
        Of bodies with the same facts and server, whose messages are the same objects where they are equal.

    Returns
    -------
    Prompt

    Raises
    ------
    Refused
        The server answers with an error.
    InputError
        A server that is not known.
    """
    rules = find_rules(server)
    if api not in rules.readers:
        raise Refused("api", f"the rules of {server} for {api} bodies are not known")
    prompt = rules.readers[api](body, facts, rules, memo or Memo())
    *before, last = prompt.messages
    if rules.ends_with_user and not answered and last["role"] == "assistant" and isinstance(last["content"], str):
        return prompt._replace(messages=[*before, {"role": "user", "content": last["content"]}])
    return prompt


def add_reply(api, body, reply):
    """Return the body that asks for what follows a reply: the reply stands behind its messages or items.

    >>> add_reply("chat", {"messages": [{"role": "user", "content": "a"}]}, [{"role": "assistant", "content": "b"}])
    {'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]}
    """
    name = LISTS[api]
    before = body[name]
    if isinstance(before, str):
        before = [{"role": "user", "content": before}]
    if api == "chat" and body.get("continue_final_message"):
        said = [before[-1].get("content"), reply[0].get("content")]
        if not all(isinstance(text, str) for text in said):
            raise Refused("a reply to an open message", "the open message or the reply is no text")
        before, reply = before[:-1], [{**before[-1], "content": "".join(said)}, *reply[1:]]
        body = {**body, "continue_final_message": False, "add_generation_prompt": True}
    return {**body, name: [*before, *reply]}
