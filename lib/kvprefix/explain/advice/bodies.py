"""The texts of requests as they were sent, by the fields that hold them; and the same with another text there.

A field is a path: ``("messages", 0, "content")``. Tools are named, not numbered, for their order may change.
"""

import functools
import json
from typing import NamedTuple

from kvprefix.conversations.calls import LISTS

SYSTEM_ROLES = ("system", "developer")
_TOOL_NAMES = ("name", "function")


class Asked(NamedTuple):
    """What a request asked a server.

    Attributes
    ----------
    api : str
    body : dict
        With its messages, or items, as a list under the name that the API has for it.
    """

    api: str
    body: dict

    @property
    def messages(self):
        """The list of messages or items."""
        return self.body[LISTS[self.api]]

    def with_messages(self, messages):
        """Return the same with other messages."""
        return self._replace(body={**self.body, LISTS[self.api]: messages})


class Bodies:
    """Reads what each row of a workload's tokens asked; equal messages of a chain are one object.

    Parameters
    ----------
    workload : Workload
    """

    def __init__(self, workload):
        self.messages, requests = workload.messages, workload.requests
        self.is_calls = self.messages.chains is not None
        self.counts = dict(zip(requests.index.tolist(), requests["messages"].tolist(), strict=True))
        listed = requests["conversation_index"].to_numpy()
        lists = listed if not self.is_calls else self.messages.chains[requests.index.to_numpy()]
        self.lists = dict(zip(requests.index.tolist(), lists.tolist(), strict=True))
        self._read = functools.lru_cache(maxsize=4096)(self._read_list)

    def of(self, row):
        """Return the Asked of a row."""
        messages = self._read(self.lists[row])[: self.counts[row]]
        head = self.messages.head(row) if self.messages.heads is not None else None
        api, rest = _read_head(head) if head else ("chat", {})
        return Asked(api, {**rest, LISTS[api]: messages})

    def whole(self, conversation):
        """Return the Asked of all messages of a conversation of text."""
        return Asked("chat", {"messages": self._read(conversation)})

    def _read_list(self, which):
        count = int(self.messages.firsts[which + 1] - self.messages.firsts[which])
        return json.loads(b"[%b]" % self.messages.first(which, count))


@functools.lru_cache(maxsize=1024)
def _read_head(head):
    return tuple(json.loads(head))


def role_of(message):
    """Return who wrote a message or an item: `system`, `user`, `assistant` or `tool`."""
    if not isinstance(message, dict):
        return "user"
    role, kind = message.get("role"), str(message.get("type"))
    if role is None:
        return "tool" if kind.endswith("_output") else "assistant"
    if role in SYSTEM_ROLES:
        return "system"
    content = message.get("content")
    if isinstance(content, list) and any(isinstance(one, dict) and one.get("type") == "tool_result" for one in content):
        return "tool"
    return {"function": "tool"}.get(role, role)


def list_texts(value, path=()):
    """Return the texts of a value by their paths, but names of types and ids."""
    if isinstance(value, str):
        return {path: value}
    found = {}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if key not in ("role", "type", "id", "tool_use_id", "tool_call_id", "call_id", "cache_control"):
            found |= list_texts(inner, (*path, key))
    return found


def list_head(asked):
    """Return the texts that stand before the conversation: system texts beside the messages or first among them."""
    found = {}
    for name in ("system", "instructions"):
        found |= list_texts(asked.body.get(name), (name,))
    for k, message in enumerate(asked.messages):
        if role_of(message) != "system":
            break
        found |= list_texts(message.get("content"), ("messages", k, "content"))
    return found


def is_head(asked, path):
    """Tell whether a field stands before the conversation: a system text, or a tool."""
    return path[0] != "messages" or role_of(asked.messages[path[1]]) == "system"


def list_tools(asked):
    """Return the tools of a body as a list of (name, tool)."""
    tools = asked.body.get("tools")
    return [(name_tool(tool), tool) for tool in tools] if isinstance(tools, list) else []


def name_tool(tool):
    """Return a tool's name.

    >>> name_tool({"type": "function", "function": {"name": "add"}}), name_tool({"name": "add"})
    ('add', 'add')
    """
    inner = tool.get("function") if isinstance(tool, dict) else None
    inner = inner if isinstance(inner, dict) else tool
    return str(inner.get("name", inner.get("type"))) if isinstance(inner, dict) else str(tool)


def get_text(asked, path):
    """Return the text at a path, None if there is none."""
    if path[0] == "messages":
        value, path = asked.messages, path[1:]
    elif path[0] == "tools":
        value, path = dict(list_tools(asked)), path[1:]
    else:
        value = asked.body
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value if isinstance(value, str) else None


def put_text(asked, path, text):
    """Return an Asked with another text at a path; nothing of the given one is changed."""
    if path[0] == "messages":
        return asked.with_messages(_put(asked.messages, path[1:], text))
    if path[0] == "tools":
        tools = [_put(tool, path[2:], text) if name == path[1] else tool for name, tool in list_tools(asked)]
        return asked._replace(body={**asked.body, "tools": tools})
    return asked._replace(body=_put(asked.body, path, text))


def _put(value, path, text):
    if not path:
        return text
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _put(value[path[0]], path[1:], text)
    return copy


def order_tools(asked, tools):
    """Return an Asked with other tools."""
    return asked._replace(body={**asked.body, "tools": tools})
