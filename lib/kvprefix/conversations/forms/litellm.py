"""LiteLLM's standard logging payloads: a call of its proxy per record, written when the call ends.

`prompt_tokens` includes the cached ones. What its own cache answered never reached an engine. Of a call that is not
streamed, the time of the first token is that of the end, so it is not known. As of 1.108, a call of Anthropic's
endpoint is logged without its system prompt and with tools in OpenAI's form, and none is logged with what was in its
`extra_body` (such as `chat_template_kwargs`); `proxy_server_request`, which a logger may put beside it, holds the whole
body as the client sent it.
"""

from kvprefix.conversations.calls import LISTS, Call
from kvprefix.conversations.forms.answers import find_answer, read_reply
from kvprefix.conversations.forms.bodies import check_body
from kvprefix.conversations.forms.fields import TIMES, find_name, find_times, find_usage, load_text, read_usage
from kvprefix.conversations.forms.form import Form, read_each
from kvprefix.conversations.forms.requests import complete_body, find_model
from kvprefix.conversations.records import Refused
from kvprefix.files.jsonlines import show_value

_APIS = {
    "completion": "chat", "acompletion": "chat", "anthropic_messages": "messages",
    "responses": "responses", "aresponses": "responses",
}  # fmt: skip
_REDACTED = "redacted-by-litellm"
_SESSIONS = ("session_id", "trace_id", "litellm_trace_id")
_USED = frozenset({
    *TIMES, *_SESSIONS, "id", "request_id", "call_type", "status", "cache_hit", "model", "end_user", "messages",
    "response", "model_parameters", "prompt_tokens", "completion_tokens", "total_tokens", "usage", "stream",
    "proxy_server_request",
})  # fmt: skip


def fits(record):
    """Say whether a record is a standard logging payload."""
    return isinstance(record.get("call_type"), str) and not record.keys().isdisjoint(
        ("startTime", "trace_id", "model_parameters", "litellm_call_id")
    )


def _read_payload(record, place, traffic):
    """Return the call of a payload."""
    if record.get("cache_hit") in (True, "True", "true"):
        raise Refused("cache_hit", "LiteLLM's own cache answered: it never reached an engine")
    if record.get("status", "success") != "success":
        raise Refused("failure", f"has status {show_value(record['status'])}")
    api = _APIS.get(str(record.get("call_type")))
    if api is None:
        raise Refused("no_chat_call", f"has call_type {show_value(record.get('call_type'))}")
    body = _find_sent(record, api) or _make_body(record, api, place, traffic)
    check_body(api, body)
    answer = find_answer(record)
    reply = read_reply(api, answer)
    if answer is not None and not reply:
        traffic.counts.note("answers_not_read", place, "its answer is no message of this endpoint")
    usage = find_usage(answer, record)
    usage = read_usage(record) if usage.prompt is None else usage
    traffic.counts.fields.add_record(record, _USED)
    name, user = find_name(("id", "request_id"), record), find_name(("end_user", "user"), record, body)
    times = find_times(traffic, place, record)
    if record.get("stream") is not True and times["first_token_s"] == times["end_s"]:
        times["first_token_s"] = None
    return [Call(
        api, body, reply, place, name, find_name(_SESSIONS, record), None,
        **times, usage=usage, model=find_model(record), user=user,
    )]  # fmt: skip


def _find_sent(record, api):
    """Return the body that the client sent, if a logger put it beside the payload; None if it did not."""
    request = load_text(record.get("proxy_server_request"))
    body = load_text(request.get("body")) if isinstance(request, dict) else None
    if not isinstance(body, dict) or LISTS[api] not in body:
        return None
    return {name: value for name, value in body.items() if not name.lstrip("_").startswith("litellm_")}


def _make_body(record, api, place, traffic):
    """Return the body that a payload's messages and parameters make."""
    messages = load_text(record.get("messages"))
    if _is_redacted(messages):
        raise Refused("redacted", "its messages were not logged")
    body = {"model": record.get("model"), LISTS[api]: messages}
    body = complete_body(body, record)
    if api == "messages":
        body = _restore_tools(body)
        if "system" not in body:
            traffic.counts.note("system_prompt_not_logged", place, "LiteLLM logs none for Anthropic's endpoint")
    return body


def _restore_tools(body):
    """Return a body whose tools are in Anthropic's form again."""
    tools = body.get("tools")
    if not isinstance(tools, list):
        return body
    functions = [tool.get("function") if isinstance(tool, dict) else None for tool in tools]
    names = {"parameters": "input_schema"}
    restored = [
        {names.get(name, name): value for name, value in function.items()} if isinstance(function, dict) else tool
        for tool, function in zip(tools, functions, strict=True)
    ]
    return {**body, "tools": restored}


def _is_redacted(messages):
    if isinstance(messages, list):
        return any(isinstance(one, dict) and one.get("content") == _REDACTED for one in messages)
    return messages == _REDACTED


FORM = Form(
    "litellm", "LiteLLM's standard logging payloads",
    "`call_type` with `startTime`, `trace_id` or `model_parameters`",
    "the body of `proxy_server_request`, else messages, tools and settings of `model_parameters`; the answer, "
    "`startTime`, `completionStartTime`, `endTime`, `trace_id` as session, `end_user`, usage",
    "`cache_hit`, `failure`, `no_chat_call`, `redacted`; noted: `system_prompt_not_logged`",
    fits, read_each(_read_payload), frozenset({"messages"}), _USED,
)  # fmt: skip
