"""LangSmith's runs, as its exports give them: those of `run_type` llm are calls.

Messages are OpenAI's, or LangChain's as it serialises them: ``{"id": [..., "HumanMessage"], "kwargs": {...}}`` or
``{"type": "human", "data": {...}}``. `session_id` is the project, so a session is what the metadata names, else the
trace.
"""

from kvprefix.conversations.calls import Call, Usage
from kvprefix.conversations.dialogs import read_tool
from kvprefix.conversations.forms.answers import read_reply
from kvprefix.conversations.forms.bodies import check_body, find_api
from kvprefix.conversations.forms.fields import (
    TIMES,
    count_of,
    find_filled,
    find_name,
    find_times,
    load_text,
    read_usage,
)
from kvprefix.conversations.forms.form import Form, read_each
from kvprefix.conversations.forms.langchain import read_message
from kvprefix.conversations.forms.requests import find_model
from kvprefix.conversations.records import EMPTY, Refused
from kvprefix.files.jsonlines import show_value

_USAGES = ("usage_metadata", "usage", "token_usage")
_SESSIONS = ("session_id", "conversation_id", "thread_id")
_USED = frozenset({
    *TIMES, "id", "run_type", "inputs", "outputs", "error", "trace_id", "parent_run_id", "extra", "prompt_tokens",
    "completion_tokens", "total_tokens", "session_id", "status",
})  # fmt: skip


def fits(record):
    """Say whether a record is a run."""
    return isinstance(record.get("run_type"), str) and "inputs" in record


def _read_run(record, place, traffic):
    """Return the call of a run."""
    if record.get("run_type") != "llm":
        raise Refused("no_llm_run", f"has run_type {show_value(record.get('run_type'))}")
    if record.get("error") not in EMPTY or record.get("status") == "error":
        raise Refused("failure", "has an error")
    extra = load_text(record.get("extra"))
    extra = extra if isinstance(extra, dict) else {}
    params = extra.get("invocation_params") if isinstance(extra.get("invocation_params"), dict) else {}
    metadata = extra.get("metadata") if isinstance(extra.get("metadata"), dict) else {}
    inputs, outputs = load_text(record.get("inputs")), load_text(record.get("outputs"))
    body = _read_body(inputs, params)
    api = find_api(None, body, outputs)
    check_body(api, body)
    answer = _find_answer(outputs)
    reply = read_reply(api, answer)
    if answer is not None and not reply:
        traffic.counts.note("answers_not_read", place, "its outputs are no message")
    traffic.counts.fields.add_record(record, _USED)
    model = find_model(params, body) or find_name(("ls_model_name",), metadata)
    session = find_name(_SESSIONS, metadata) or find_name(("trace_id",), record)
    return [Call(
        api, body, reply, place, find_name(("id",), record), session, None, **find_times(traffic, place, record),
        usage=_find_usage(record, outputs, metadata), model=model, user=find_name(("user_id",), metadata),
    )]  # fmt: skip


def _read_body(inputs, params):
    """Return the body that a run's inputs and invocation parameters hold."""
    if not isinstance(inputs, dict):
        raise Refused("no_messages", "has no object `inputs`")
    messages = load_text(inputs.get("messages", inputs.get("input")))
    if messages is None and "prompts" in inputs or isinstance(messages, str):
        raise Refused("input_is_plain_text", "has prompts of text; expected messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], list):
        messages = messages[0]  # a batch of one
    if isinstance(messages, list):
        messages = [read_message(message) for message in messages]
    tools = next((one for one in (inputs.get("tools"), params.get("tools"), params.get("functions")) if one), None)
    body = {"messages": messages}
    if "system" in inputs:
        body["system"] = inputs["system"]
    if isinstance(tools, list):
        is_native = any(isinstance(tool, dict) and "input_schema" in tool for tool in tools)
        body["tools"] = tools if is_native else [read_tool(tool) for tool in tools]
    return body


def _find_answer(outputs):
    """Return the answer of a run: a chat completion, or the message of its first generation."""
    if not isinstance(outputs, dict):
        return outputs or None
    if given := _find_generation(outputs):
        return read_message(given["message"]) if isinstance(given.get("message"), dict) else given.get("text")
    for name in ("message", "output", "messages"):
        found = outputs.get(name)
        found = found[-1] if isinstance(found, list) and found else found
        if isinstance(found, dict | str):
            return read_message(found)
    return outputs or None


def _find_generation(outputs):
    """Return the first generation, {} if there is none."""
    given = outputs.get("generations")
    while isinstance(given, list) and given:
        given = given[0]
    return given if isinstance(given, dict) else {}


def _find_usage(record, outputs, metadata):
    """Return what the provider counted, from wherever a run holds it."""
    outputs = outputs if isinstance(outputs, dict) else {}
    message = _find_generation(outputs).get("message")
    fields = message.get("kwargs", message.get("data")) if isinstance(message, dict) else None
    named = find_filled(_USAGES, outputs, outputs.get("llm_output"), fields, message, metadata)[1]
    named = named if isinstance(named, dict) else {}
    usage = read_usage(named)
    details = named.get("input_token_details")
    if usage.cached is None and isinstance(details, dict):
        usage = usage._replace(cached=count_of(details, "cache_read"))
    if usage.prompt is None:
        usage = Usage(count_of(record, "prompt_tokens"), usage.cached, count_of(record, "completion_tokens"))
    return usage


FORM = Form(
    "langsmith", "LangSmith's runs",
    "`run_type` and `inputs`",
    "messages of OpenAI's or LangChain's shape, tools of `inputs` or `extra.invocation_params`, `outputs`, times, "
    "session of the metadata (else `trace_id`), usage",
    "`no_llm_run`, `failure`, `input_is_plain_text`",
    fits, read_each(_read_run), frozenset({"inputs"}), _USED,
)  # fmt: skip
