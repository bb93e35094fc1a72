"""OpenTelemetry's spans of generative AI: OTLP's JSON, or a span per record as its exporters print them.

Messages are read in the three ways that are in use: the semantic conventions' `gen_ai.input.messages` (on the span or
on an event), OpenLLMetry's `gen_ai.prompt.0.content`, and OpenInference's `llm.input_messages.0.message.content`; and
from the older events `gen_ai.user.message`. Spans of agents, tools and embeddings are no calls.
"""

from kvprefix.conversations.calls import Call, Usage
from kvprefix.conversations.forms.bodies import check_body
from kvprefix.conversations.forms.fields import count_of, find_name, find_time, order_times
from kvprefix.conversations.forms.form import Form, list_objects, read_each
from kvprefix.conversations.forms.otel_messages import ATTRIBUTES, INDEXED, read_exchange
from kvprefix.conversations.records import Refused

_CALLS = frozenset({None, "chat", "generate_content", "text_completion", "completion", "responses"})
_OPERATIONS = ("gen_ai.operation.name", "llm.request.type")
_STARTS = ("startTimeUnixNano", "start_time_unix_nano", "startTime", "start_time")
_ENDS = ("endTimeUnixNano", "end_time_unix_nano", "endTime", "end_time")
_SESSIONS = ("gen_ai.conversation.id", "session.id")
_TRACES = ("traceId", "trace_id")
_SPANS = ("spanId", "span_id")
_MODELS = ("gen_ai.request.model", "gen_ai.response.model", "llm.model_name")
_USERS = ("user.id", "enduser.id")
_PROMPTS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens",
            "llm.token_count.prompt")  # fmt: skip
_CACHED = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
           "llm.usage.cache_read_input_tokens", "llm.token_count.prompt_details.cache_read")  # fmt: skip
_OUTPUTS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens",
            "llm.token_count.completion")  # fmt: skip
_READ = frozenset({*ATTRIBUTES, *_OPERATIONS, *_SESSIONS, *_MODELS, *_USERS, *_PROMPTS, *_CACHED, *_OUTPUTS,
                   "openinference.span.kind"})  # fmt: skip


def fits(record):
    """Say whether a record is an export of spans, or a span."""
    if "resourceSpans" in record or "resource_spans" in record:
        return True
    named = not record.keys().isdisjoint((*_TRACES, *_SPANS, "context"))
    return named and isinstance(record.get("attributes"), dict | list)


def _read_record(record, place, traffic):
    """Return the calls of a record's spans; each span that is skipped is counted."""
    calls = []
    spans = list(_list_spans(record))
    for k, span in enumerate(spans):
        where = place if len(spans) == 1 else f"{place}, span {k}"
        try:
            calls.append(_read_span(span, where, traffic))
        except Refused as refusal:
            traffic.counts.skip(refusal.args[0], where, refusal.args[1])
    return calls


def _list_spans(record):
    """Yield the spans of an export of OTLP; the record itself if it is a span."""
    resources = record.get("resourceSpans", record.get("resource_spans"))
    if resources is None:
        yield record
        return
    for resource in list_objects(resources):
        scopes = resource.get("scopeSpans", resource.get("scope_spans", resource.get("instrumentationLibrarySpans")))
        for scope in list_objects(scopes):
            yield from list_objects(scope.get("spans"))


def _read_span(span, place, traffic):
    """Return the call of a span; raise Refused."""
    attributes = read_attributes(span.get("attributes"))
    events = [(one.get("name"), read_attributes(one.get("attributes"))) for one in list_objects(span.get("events"))]
    for name, given in events:
        if name == "gen_ai.client.inference.operation.details":
            attributes = {**attributes, **given}
    kind = attributes.get("openinference.span.kind")
    operation = next((attributes[name] for name in _OPERATIONS if name in attributes), None)
    if not isinstance(operation, str | None) or operation not in _CALLS or kind not in (None, "LLM"):
        raise Refused("no_llm_span", f"is of {str(operation if kind is None else kind)[:40]}")
    status = span.get("status") if isinstance(span.get("status"), dict) else {}
    if status.get("code", status.get("status_code")) in (2, "STATUS_CODE_ERROR", "ERROR"):
        raise Refused("failure", "has status ERROR")
    messages, reply, tools = read_exchange(attributes, events)
    if messages is None:
        if operation is None and kind is None:
            raise Refused("no_llm_span", "is no call of a model")
        raise Refused("without_content", "its messages were not recorded")
    model = find_name(_MODELS, attributes)
    body = {"model": model, "messages": messages, **({"tools": tools} if tools else {})}
    check_body("chat", body)
    if not reply:
        traffic.counts.note("answers_not_read", place, "its answer was not recorded")
    context = span.get("context")
    start, end = find_time(_STARTS, span), find_time(_ENDS, span)
    traffic.counts.fields.add_record(_unread(attributes), ())
    session = find_name(_SESSIONS, attributes) or find_name(_TRACES, span, context)
    counts = _whole(attributes)
    usage = Usage(*(count_of(counts, *names) for names in (_PROMPTS, _CACHED, _OUTPUTS)))
    return Call(
        "chat", body, tuple(reply), place, find_name(_SPANS, span, context), session, None,
        **order_times(traffic, place, start, None, end), usage=usage, model=model, user=find_name(_USERS, attributes),
    )  # fmt: skip


def _unread(attributes):
    """Return the attributes that nothing is made of."""
    return {name: one for name, one in attributes.items() if name not in _READ and not name.startswith(INDEXED)}


def _whole(attributes):
    """Return attributes with whole numbers as such: OTLP's JSON writes them as text."""
    found = {name: attributes[name] for name in (*_PROMPTS, *_CACHED, *_OUTPUTS) if name in attributes}
    return {name: int(one) if isinstance(one, str) and one.isdecimal() else one for name, one in found.items()}


def read_attributes(given):
    """Return attributes by name, from an object or from OTLP's list.

    >>> read_attributes([{"key": "a", "value": {"intValue": "7"}}, {"key": "b", "value": {"arrayValue": {"values": [
    ...     {"stringValue": "x"}]}}}])
    {'a': 7, 'b': ['x']}
    """
    if isinstance(given, dict):
        return given
    pairs = [one for one in list_objects(given) if isinstance(one.get("key"), str)]
    return {one["key"]: _read_value(one.get("value")) for one in pairs}


def _read_value(value):
    if not isinstance(value, dict):
        return value
    if "intValue" in value:
        text = str(value["intValue"])
        return int(text) if text.removeprefix("-").isdecimal() else text
    if "arrayValue" in value:
        return [_read_value(one) for one in list_objects(_values_of(value["arrayValue"]))]
    if "kvlistValue" in value:
        return read_attributes(_values_of(value["kvlistValue"]))
    return next((value[name] for name in ("stringValue", "doubleValue", "boolValue") if name in value), None)


def _values_of(value):
    return value.get("values") if isinstance(value, dict) else None


FORM = Form(
    "otel", "OpenTelemetry's GenAI spans",
    "`resourceSpans`; or a span with `attributes`, `traceId` or `context`",
    "messages, system instructions, tools and the answer of the attributes or events, times, "
    "`gen_ai.conversation.id` (else the trace) as session, usage",
    "`no_llm_span`, `without_content`, `failure`, `with_images`",
    fits, read_each(_read_record), frozenset({"attributes", "resourceSpans"}),
    frozenset({*_STARTS, *_ENDS, *_TRACES, *_SPANS, "context", "events", "status"}),
)  # fmt: skip
