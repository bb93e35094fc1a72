"""How servers differ, as data; and the one way in: a body's prompt by a server's rules."""

from typing import NamedTuple

from kvprefix.files.paths import InputError
from kvprefix.servers.anthropic import read_messages
from kvprefix.servers.chat import read_chat
from kvprefix.servers.prompt import Refused
from kvprefix.servers.responses import read_responses

_READERS = {"chat": read_chat, "messages": read_messages, "responses": read_responses}


class Rules(NamedTuple):
    """How a server makes prompts.

    Attributes
    ----------
    name : str
    version : str
        The version that the rules were taken from.
    apis : tuple of str
        The shapes of bodies for which the rules are known.
    joiner : str
        What stands between the text parts of a message where the template wants one text.
    """

    name: str
    version: str
    apis: tuple
    joiner: str


SERVERS = {"vllm": Rules("vllm", "0.32", ("chat", "messages", "responses"), "\n")}


def find_rules(server="vllm"):
    """Return the Rules of a server; raise InputError if it is not known."""
    if server not in SERVERS:
        raise InputError(f"server {server}: its rules are not known; expected one of {', '.join(SERVERS)}")
    return SERVERS[server]


def make_prompt(api, body, facts, server="vllm"):
    """Return what a server gives to its chat template for a body.

    Parameters
    ----------
    api : str
        The shape of the body: `chat`, `messages` or `responses`.
    body : dict
    facts : TemplateFacts
    server : str

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
    if api not in rules.apis:
        raise Refused("api", f"the rules of {server} for {api} bodies are not known")
    return _READERS[api](body, facts, rules)


def add_reply(api, body, reply):
    """Return the body that asks for what follows a reply: the reply stands behind its messages or items.

    >>> add_reply("chat", {"messages": [{"role": "user", "content": "a"}]}, [{"role": "assistant", "content": "b"}])
    {'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]}
    """
    name = "input" if api == "responses" else "messages"
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
