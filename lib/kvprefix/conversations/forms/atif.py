"""ATIF, the interchange form of agents' runs (versions 1.0 to 1.7): a trajectory of steps per record.

A step of the agent is a call, whose prompt is all steps before it. Results of its tools follow it. Steps copied from
an earlier context, and those that no model made (`llm_call_count` 0), are history only. Arguments are objects there:
the text that a model wrote is not known.
"""

from kvprefix.conversations.calls import Call, Usage
from kvprefix.conversations.dialogs import read_tool
from kvprefix.conversations.forms.answers import write_arguments
from kvprefix.conversations.forms.bodies import check_message
from kvprefix.conversations.forms.fields import check_time, count_of
from kvprefix.conversations.forms.form import Form, list_objects, read_each
from kvprefix.conversations.records import EMPTY, Refused, replace_halves

_ROLES = {"system": "system", "user": "user", "agent": "assistant"}
_USED = frozenset({"schema_version", "session_id", "trajectory_id", "agent", "steps", "subagent_trajectories"})
_STEP = frozenset({
    "step_id", "timestamp", "source", "model_name", "message", "reasoning_content", "tool_calls", "observation",
    "metrics", "is_copied_context", "llm_call_count",
})  # fmt: skip


def fits(record):
    """Say whether a record is a trajectory."""
    named = str(record.get("schema_version")).startswith("ATIF")
    return isinstance(record.get("steps"), list) and (named or isinstance(record.get("agent"), dict))


def _read_trajectory(record, place, traffic, parent=None):
    """Return the calls of a trajectory, and of those of its sub-agents that lie in it."""
    if not isinstance(record.get("steps"), list):
        raise Refused("of_another_form", "has no list of `steps`")
    agent = record["agent"] if isinstance(record.get("agent"), dict) else {}
    session = record.get("session_id") or record.get("trajectory_id")
    if parent is not None:
        session = f"{parent}/{record.get('trajectory_id') or session or 'agent'}"
    session = replace_halves(str(session)) if session else place
    tools = [read_tool(tool) for tool in list_objects(agent.get("tool_definitions"))]
    body = {"model": agent.get("model_name"), **({"tools": tools} if tools else {})}
    calls, history = [], []
    for k, step in enumerate(record["steps"]):
        where = f"{place}, step {k}"
        messages = _read_step(step, k)
        if _is_call(step) and history:
            names = f"{session}/{k}", session, parent
            calls.append(_make_call(step, {**body, "messages": list(history)}, messages[0], where, names))
        elif _is_call(step):
            traffic.counts.note("answers_to_nothing", where, "no step before it")
        history += messages
    if not calls:
        traffic.counts.note("trajectories_without_calls", place, "no step of the agent follows another step")
    if not tools and any("tool_calls" in message for message in history):
        traffic.counts.note("tools_not_in_the_file", place, "the agent calls tools that it does not define")
    for one in list_objects(record.get("subagent_trajectories")):
        calls += _read_trajectory(one, place, traffic, session)
    traffic.counts.fields.add_messages(record["steps"], _STEP)
    if parent is None:
        traffic.counts.fields.add_record(record, _USED)
    return calls


def _is_call(step):
    return step.get("source") == "agent" and not step.get("is_copied_context") and step.get("llm_call_count") != 0


def _make_call(step, body, reply, place, names):
    metrics = step["metrics"] if isinstance(step.get("metrics"), dict) else {}
    usage = Usage(*(count_of(metrics, name) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")))
    time = check_time(step["timestamp"], "timestamp") if step.get("timestamp") not in EMPTY else None
    model = step.get("model_name") or body["model"]
    body = {**body, "model": model} if model else {name: body[name] for name in body if name != "model"}
    return Call("chat", body, (reply,), place, *names, time, None, None, usage, model)


def _read_step(step, k):
    """Return a step as chat messages: itself, and the results of its tools."""
    if not isinstance(step, dict) or str(step.get("source")) not in _ROLES:
        raise Refused("malformed_step", f"step {k} has no source {', '.join(_ROLES)}")
    if "message" not in step:
        raise Refused("malformed_step", f"step {k} has no message")
    made = {"role": _ROLES[step["source"]], "content": step["message"]}
    if step.get("reasoning_content") not in EMPTY:
        made["reasoning_content"] = step["reasoning_content"]
    if step.get("tool_calls") not in EMPTY:
        if not isinstance(step["tool_calls"], list):
            raise Refused("malformed_tool_call", f"step {k} has tool calls that are no list")
        made["tool_calls"] = [_read_call(call, k) for call in step["tool_calls"]]
    observation = step.get("observation")
    results = observation.get("results") if isinstance(observation, dict) else None
    messages = [made, *(_read_result(result, "tool_calls" in made) for result in list_objects(results))]
    for message in messages:
        check_message(message, k, "chat")
    return messages


def _read_call(call, k):
    if not isinstance(call, dict) or not isinstance(call.get("function_name"), str):
        raise Refused("malformed_tool_call", f"step {k} has a tool call without a name")
    function = {"name": call["function_name"], "arguments": write_arguments(call.get("arguments"))}
    return {"id": str(call.get("tool_call_id") or f"call_{k}"), "type": "function", "function": function}


def _read_result(result, of_a_call):
    """Return what a step saw: a tool's message, or a user's if the step called none."""
    content, call_id = result.get("content"), result.get("source_call_id")
    message = {"role": "tool" if call_id or of_a_call else "user", "content": "" if content is None else content}
    return {**message, "tool_call_id": call_id} if call_id else message


FORM = Form(
    "atif", "ATIF trajectories of agents",
    "`schema_version` that begins with `ATIF`, `agent`, a list of `steps`",
    "a call per step of the agent: messages, reasoning, tool calls, results, tool definitions, time, metrics, "
    "sub-agents' trajectories as sessions",
    "`malformed_step`, `malformed_tool_call`, `with_images`; noted: `tools_not_in_the_file`, "
    "`trajectories_without_calls`",
    fits, read_each(_read_trajectory), frozenset({"steps"}), _USED,
)  # fmt: skip
