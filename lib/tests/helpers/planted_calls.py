"""Logs of agents' calls with planted defects, in three shapes of bodies."""

import json
import random

from planted import question, rule, stamp, system, tool

from kvprefix.conversations.calls import ENDPOINTS, LISTS


def make_calls(path, *, api="chat", sessions=6, steps=4, text=None, tools=None, edit=None, every_s=10):
    """Write a log of agents' calls, whose sessions take turns.

    Parameters
    ----------
    path : pathlib.Path
    api : str
    sessions, steps : int
    text, tools : callable, optional
        ``text(k)`` is the system text of call k, ``tools(k)`` are its tools.
    edit : callable, optional
        ``edit(messages, step)`` returns what is sent instead of all messages so far.
    every_s : float
        Seconds between calls.
    """
    text = text or (lambda k: system(tools=[]))
    tools = tools or (lambda k: [tool(n) for n in range(4)])
    with open(path, "w", encoding="utf-8") as file:
        for k in range(sessions * steps):
            step, session = divmod(k, sessions)
            messages = [one for n in range(step + 1) for one in _make_step(api, session, n)][: 1 + 2 * step]
            messages = edit(messages, step) if edit else messages
            body = _make_body(api, text(k), messages, [_wrap(api, one) for one in tools(k)])
            line = {"custom_id": f"r{k}", "session_id": f"s{session}", "body": body, "start_time": 1.7e9 + every_s * k}
            file.write(json.dumps(line | {"url": ENDPOINTS[api]}) + "\n")
    return path


def _wrap(api, one):
    if api == "messages":
        return {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
    return {"type": "function", **one} if api == "responses" else {"type": "function", "function": one}


def _make_body(api, text, messages, tools):
    beside = {"tools": tools} if tools else {}
    if api == "chat":
        return {"messages": [{"role": "system", "content": text}, *messages], **beside}
    name = {"messages": "system", "responses": "instructions"}[api]
    return {"model": "m", "max_tokens": 9, name: text, LISTS[api]: messages, **beside}


def _make_step(api, session, n):
    """Return what a step adds: at first the question, then a call of a tool and its result."""
    first = {"role": "user", "content": question(session)}
    name, given = f"t{session}_{n}", json.dumps({"q": rule(n)})
    result = f"Result {n} of {session}: " + " ".join(rule(100 * session + 10 * n + k) for k in range(3))
    if api == "messages":
        use = {"type": "tool_use", "id": name, "name": "tool_1", "input": json.loads(given)}
        back = {"type": "tool_result", "tool_use_id": name, "content": result}
        added = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [back]}]
    elif api == "responses":
        added = [{"type": "function_call", "call_id": name, "name": "tool_1", "arguments": given},
                 {"type": "function_call_output", "call_id": name, "output": result}]  # fmt: skip
    else:
        call = {"id": name, "type": "function", "function": {"name": "tool_1", "arguments": given}}
        added = [{"role": "assistant", "content": None, "tool_calls": [call]},
                 {"role": "tool", "tool_call_id": name, "content": result}]  # fmt: skip
    return [first, *added] if n == 0 else added


def stamped(k):
    """Return a system text that begins with the time of a call."""
    return system(first=[stamp(k)], tools=[])


def shuffled(k):
    """Return the tools in an order of the call."""
    tools = [tool(n) for n in range(4)]
    random.Random(k).shuffle(tools)
    return tools


def clear_results(messages, step):
    """Return messages in which all results of tools but the last are cleared."""
    cleared = [
        {**one, "content": "[cleared]"} if one.get("role") == "tool" and k < len(messages) - 2 else one
        for k, one in enumerate(messages)
    ]
    return cleared if step > 1 else messages


def compact(messages, step):
    """Return messages of which those between the first and the last two are summed up, from the third step on."""
    summary = {"role": "user", "content": "Summary: all went well."}
    return messages if step < 3 else [messages[0], summary, *messages[-2:]]


def keep_last(messages, step):
    """Return the first message and the last four: those between are left out from the fourth step on."""
    return messages if step < 3 else [messages[0], *messages[-4:]]
