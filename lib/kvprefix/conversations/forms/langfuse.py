"""Langfuse's observations, as its blob storage export or its API gives them (`start_time` or `startTime`).

Only generations are calls. Times are UTC. Input and output may be JSON in a text. The keys of `usage_details` are
free: cached tokens are counted beside `input` or inside it, which the total tells.
"""

from kvprefix.conversations.calls import Call, Usage
from kvprefix.conversations.dialogs import read_tool
from kvprefix.conversations.forms.answers import read_reply
from kvprefix.conversations.forms.bodies import check_body, find_api
from kvprefix.conversations.forms.fields import TIMES, count_of, find_filled, find_name, find_times, load_text
from kvprefix.conversations.forms.form import Form, read_each
from kvprefix.conversations.forms.langchain import read_message
from kvprefix.conversations.forms.requests import complete_body
from kvprefix.conversations.records import EMPTY, Refused
from kvprefix.files.jsonlines import show_value

_TYPES = frozenset({
    "GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL",
})  # fmt: skip
_MODELS = ("provided_model_name", "providedModelName", "model", "internal_model")
_PARAMETERS = ("model_parameters", "modelParameters")
_TOOLS = ("tool_definitions", "toolDefinitions")
_USAGES = ("usage_details", "usageDetails", "usage")
_SESSIONS = ("session_id", "sessionId", "trace_id", "traceId")
_USERS = ("user_id", "userId")
_USED = frozenset({
    *TIMES, *_MODELS, *_PARAMETERS, *_USAGES, *_SESSIONS, *_USERS, *_TOOLS, "id", "type", "level", "input", "output",
    "parent_observation_id", "parentObservationId",
})  # fmt: skip


def fits(record):
    """Say whether a record is an observation."""
    names = record.keys()
    return str(record.get("type")) in _TYPES and ("trace_id" in names or "traceId" in names) and (
        "start_time" in names or "startTime" in names
    )  # fmt: skip


def _read_observation(record, place, traffic):
    """Return the call of an observation."""
    if record.get("type") != "GENERATION":
        raise Refused("no_generation", f"is of type {show_value(record.get('type'))}")
    if record.get("level") == "ERROR":
        raise Refused("level_error", "has level ERROR")
    body = _read_body(record)
    output = load_text(record.get("output"))
    api = find_api(None, body, output)
    check_body(api, body)
    reply = read_reply(api, output) if output not in EMPTY else ()
    if output not in EMPTY and not reply:
        traffic.counts.note("answers_not_read", place, "its output is no message")
    usage = read_details(load_text(find_filled(_USAGES, record)[1]))
    if usage is None:
        traffic.counts.note("usage_unknown", place, "its total does not tell where cached tokens are counted")
    traffic.counts.fields.add_record(record, _USED)
    model, user = find_name(_MODELS, record), find_name(_USERS, record)
    return [Call(
        api, body, reply, place, find_name(("id",), record), find_name(_SESSIONS, record), None,
        **find_times(traffic, place, record), usage=usage or Usage(), model=model, user=user,
    )]  # fmt: skip


def _read_body(record):
    """Return the body that the input of an observation holds: a list of messages, or an object with them."""
    given = load_text(record.get("input"))
    if isinstance(given, str):
        raise Refused("input_is_plain_text", f"has input {show_value(given)}; expected messages")
    body = {"messages": given} if isinstance(given, list) else given
    if isinstance(body, dict) and isinstance(body.get("messages"), list):
        body = {**body, "messages": [read_message(message) for message in body["messages"]]}
    if not isinstance(body, dict) or ("messages" not in body and "input" not in body):
        raise Refused("no_messages", "has an input without messages")
    settings = load_text(find_filled(_PARAMETERS, record)[1])
    body = complete_body(body, {"model_parameters": settings})
    tools = _read_tools(load_text(find_filled(_TOOLS, record)[1]))
    return {**body, "tools": tools} if tools and not body.get("tools") else body


def _read_tools(given):
    """Return the tools beside an input: a list, or an object of a definition per name."""
    if isinstance(given, dict):
        found = {name: load_text(one) for name, one in given.items()}
        given = [{"name": name, **(one if isinstance(one, dict) else {})} for name, one in found.items()]
    return [read_tool(tool) for tool in given] if isinstance(given, list) else []


def read_details(details):
    """Return the Usage of free keys; None if they do not tell it.

    Keys whose values add up to the total are parts beside each other; else `input` and `output` must add up to it.

    >>> read_details({"input": 34, "input_cached_tokens": 176, "output": 6, "total": 216})
    Usage(prompt=210, cached=176, output=6)
    >>> read_details({"input": 210, "input_cached_tokens": 176, "output": 6, "total": 216})
    Usage(prompt=210, cached=176, output=6)
    """
    if not isinstance(details, dict) or not details:
        return Usage()
    counts = {name: n for name in details if (n := count_of(details, name)) is not None}
    inputs = {name: n for name, n in counts.items() if "input" in name or "cache" in name or name == "promptTokens"}
    rest = {name: n for name, n in counts.items() if name not in inputs}
    outputs = {name: n for name, n in rest.items() if name.startswith(("output", "completion"))}
    cached = sum(n for name, n in inputs.items() if "cache" in name and "creation" not in name and "write" not in name)
    total = counts.get("total", counts.get("totalTokens"))
    given, made = (next(iter(one.values()), None) for one in (inputs, outputs))
    if total == sum(inputs.values()) + sum(outputs.values()) or total is None and len(inputs) == 1:
        return Usage(sum(inputs.values()), cached, sum(outputs.values()))
    given, made = counts.get("input", given), counts.get("output", made)
    return Usage(given, cached, made) if total == (given or 0) + (made or 0) else None


FORM = Form(
    "langfuse", "Langfuse's observations",
    "`type` (`GENERATION`, `SPAN`, ...) with `trace_id` and `start_time`, or in camel case",
    "messages and tools of `input`, settings, `output`, times, `session_id` (else `trace_id`), `user_id`, usage",
    "`no_generation`, `level_error`, `input_is_plain_text`; noted: `usage_unknown`",
    fits, read_each(_read_observation), frozenset({"input"}), _USED,
)  # fmt: skip
