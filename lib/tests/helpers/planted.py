"""Logs of chats with planted defects: a long system text that all share but for what is planted, and a question each.

The texts are made of numbered words, so that nothing but the defect parts the system texts.
"""

import json
import random

NAMES = ("Gus", "Fay", "Jun", "Ana", "Chen", "Hana", "Dora", "Emil", "Boris", "Ivo")
_NOUNS = ("order", "invoice", "parcel", "refund", "account", "ticket", "voucher", "delivery", "contract", "device")
_VERBS = ("check", "confirm", "explain", "record", "forward", "close", "review", "describe", "repeat", "compare")


def rule(k):
    """Return a rule of the system text: a sentence of its own."""
    return (
        f"Rule {k}: always {_VERBS[k % 10]} the {_NOUNS[(k * 3) % 10]} of case {k} before you "
        f"{_VERBS[(k * 7 + 1) % 10]} the {_NOUNS[(k + 5) % 10]}, "
        f"and say plainly what the customer of case {k} has to do next."
    )


def tool(k):
    """Return a tool as a line of JSON."""
    about = f"Looks up the {_NOUNS[k % 10]} by its number, version {k}, and says what became of it since."
    parameters = {"type": "object", "properties": {"q": {"type": "string"}, "n": {"type": "integer"}}}
    return {"name": f"tool_{k}", "description": about, "parameters": parameters}


def system(*, first=(), middle=(), last=(), rules=16, tools=None):
    """Return a system text with lines at three places."""
    tools = [tool(k) for k in range(5)] if tools is None else tools
    lines = [*first, "You are the support assistant of Example Corp. Follow these rules."]
    listed = [rule(k) for k in range(rules)]
    lines += [*listed[: rules // 2], *middle, *listed[rules // 2 :], "Tools:"]
    return "\n".join([*lines, *(one if isinstance(one, str) else json.dumps(one) for one in tools), *last])


def question(k):
    """Return what a user asks, different for each request from its first word on."""
    return f"{k * 7919 % 100003} is my number; please {_VERBS[k % 10]} my {_NOUNS[(k // 10) % 10]}, request {k}."


def stamp(k):
    """Return a time stamp as a line."""
    seconds = 37 * k
    return f"Current time: 2026-11-25T{8 + seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"


def name(k):
    """Return the name of a user as a line."""
    return f"The user is called {random.Random(k).choice(NAMES)}."


def session(k):
    """Return a line with a random id."""
    digits = f"{random.Random(k).getrandbits(128):032x}"
    parts = digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]
    return f"Session id: {'-'.join(parts)}."


def shuffled(k):
    """Return the tools in an order of the request."""
    tools = [tool(n) for n in range(5)]
    random.Random(k).shuffle(tools)
    return tools


DEFECTS = {
    "clean": lambda k: system(),
    "timestamp_first": lambda k: system(first=[stamp(k)]),
    "timestamp_last": lambda k: system(last=[stamp(k)]),
    "user_name_first": lambda k: system(first=[name(k)]),
    "uuid_middle": lambda k: system(middle=[session(k)]),
    "tools_shuffled": lambda k: system(tools=shuffled(k)),
}
MIXED = ("timestamp_first", "uuid_middle", "user_name_first", "tools_shuffled")


def make_systems(defect, n):
    """Return the system texts of n requests; `mixed` has each of four defects in every fourth one."""
    if defect == "mixed":
        kinds = random.Random(3).choices(MIXED, k=n)
        return [DEFECTS[kind](k) for k, kind in enumerate(kinds)]
    return [DEFECTS[defect](k) for k in range(n)]


def write_log(path, systems, *, timed=True, tools=None):
    """Write a log with a request per system text; return its path."""
    with open(path, "w", encoding="utf-8") as file:
        for k, text in enumerate(systems):
            messages = [{"role": "system", "content": text}, {"role": "user", "content": question(k)}]
            line = {"messages": messages} | ({"timestamp": 3.0 * k} if timed else {})
            file.write(json.dumps(line | ({} if tools is None else {"tools": tools(k)})) + "\n")
    return path
