"""A small log of two agents' sessions, whose calls alternate, as a gateway writes it."""

import json

EPOCH = 1_764_547_200.25  # seconds
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]


def make_log(path, *, steps=3, api="chat", without_time=()):
    """Write a log; return (path, start of each call in seconds, in the order of the file)."""
    lines, starts = [], []
    for step in range(steps):
        for session in ("a", "b"):
            number, start = len(lines), EPOCH + 10 * len(lines) + (0.125 if session == "b" else 0)
            line = {"custom_id": f"{session}{step}", "session_id": session, "body": _make_body(api, session, step)}
            line["response"] = _make_response(api, step)
            if number not in without_time:
                line |= {"start_time": start, "end_time": start + 2.5}
            lines.append(line | ({"url": "/v1/messages"} if api == "messages" else {}))
            starts.append(start)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path, starts


def _make_body(api, session, step):
    if api == "messages":
        messages = [{"role": "user", "content": f"Add, {session}, please."}]
        for k in range(step):
            use = {"type": "tool_use", "id": f"t{k}", "name": "add", "input": {"k": k}}
            result = {"type": "tool_result", "tool_use_id": f"t{k}", "content": f"sum {k}"}
            messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
        tools = [{"name": "add", "input_schema": {"type": "object", "properties": {}}}]
        return {"system": "You add numbers.", "max_tokens": 9, "messages": messages, "tools": tools}
    messages = [{"role": "system", "content": "You add numbers."}, {"role": "user", "content": f"Add, {session}!"}]
    for k in range(step):
        messages += [_make_call(k), {"role": "tool", "tool_call_id": f"t{k}", "content": f"sum {k}"}]
    return {"messages": messages, "tools": TOOLS}


def _make_call(k):
    function = {"name": "add", "arguments": json.dumps({"k": k})}
    call = {"id": f"t{k}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _make_response(api, step):
    if api == "messages":
        return {"content": [{"type": "tool_use", "id": f"t{step}", "name": "add", "input": {"k": step}}]}
    return {"choices": [{"message": _make_call(step)}]}
