"""Render the prompt of one call as its server does."""

from dataclasses import replace

from kvprefix.servers.rules import make_prompt
from kvprefix.tokens.calls import find_day, has_tools
from kvprefix.tokens.facts import find_facts
from kvprefix.tokens.render import render_prompt


def render_call(call, chat, server="vllm"):
    """Return the text of a call's prompt.

    Parameters
    ----------
    call : Call
    chat : Chat
    server : str
        Whose rules make a prompt of its body.

    Raises
    ------
    servers.prompt.Refused
        The server refuses the body.
    TemplateRefusal
    """
    if has_tools(call) and chat.tools_source is not None:
        chat = replace(chat, source=chat.tools_source)
    prompt = make_prompt(call.api, call.body, find_facts(chat), server)
    return render_prompt(chat, prompt, find_day(call))
