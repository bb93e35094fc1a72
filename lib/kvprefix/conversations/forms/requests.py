"""Logs of requests to OpenAI's and Anthropic's endpoints, a request per record.

A record is a request of a log, and no conversation of a data set, if it has a body (`body`, `request`), an endpoint
(`url`), a name of a request (`custom_id`, `request_id`), an answer or an `input` of Responses. One without such a mark,
which has `messages` and perhaps a time or settings, may be either: the first records of its file decide, see `traffic`.
"""

import re

from kvprefix.conversations.calls import APIS, Call
from kvprefix.conversations.forms.answers import ANSWERS, find_answer, read_reply
from kvprefix.conversations.forms.bodies import check_body, find_api, is_responses
from kvprefix.conversations.forms.fields import (
    TIMES,
    find_filled,
    find_name,
    find_time,
    find_times,
    find_usage,
    load_text,
    read_usage,
)
from kvprefix.conversations.forms.form import Form, read_each
from kvprefix.conversations.records import EMPTY, LIST_FIELDS, Refused
from kvprefix.files.jsonlines import is_whole, show_value

NAMES = ("request_id", "custom_id", "id")
SESSIONS = ("conversation_id", "session_id", "sessionId", "trace_id", "thread_id", "chat_id")
USERS = ("user", "end_user", "user_id")
_URLS = ("url", "endpoint", "path", "api")
_SETTINGS = frozenset({
    "max_tokens", "max_completion_tokens", "max_output_tokens", "temperature", "top_p", "stream", "stream_options",
    "tool_choice", "stop", "stop_sequences", "presence_penalty", "frequency_penalty", "logprobs", "response_format",
    "parallel_tool_calls", "reasoning_effort", "anthropic_version", "service_tier", "store", "seed", "extra_body",
})  # fmt: skip
_BODY = frozenset({
    "messages", "input", "instructions", "system", "system_prompt", "tools", "functions", "function_call", "thinking",
    "reasoning", "n", "logit_bias", "top_logprobs", "top_k", "min_p", "repetition_penalty", "chat_template",
    "chat_template_kwargs", "documents", "add_generation_prompt", "continue_final_message", "prediction",
    "modalities", "audio", "verbosity", "cache_salt", "previous_response_id", "text", "include", "max_tool_calls",
    "truncation", "prompt", "background", "conversation", "container", "context_management", "output_config",
    "mcp_servers", "message_mode", "choices", "min_tokens", "ignore_eos", "stop_token_ids", "guided_json",
    "structured_outputs", "priority", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "web_search_options", "best_of", "echo", "add_special_tokens",
})  # what else bodies have  # fmt: skip
_LISTS = ("messages", "tools")  # of a body, perhaps as JSON text
_OF_GATEWAYS = ("model_parameters", "optional_params", "extra_body")  # where they put the rest of a body
_SESSION_IN_USER = re.compile(r"_session_([0-9a-fA-F-]{8,})$")
_ENDPOINT = re.compile(r"^/|/v1/|/(chat/completions|messages|responses)(\?|$)")
_BESIDE = {
    *NAMES,
    *SESSIONS,
    *ANSWERS,
    *TIMES,
    "url",
    "endpoint",
    "method",
    "usage",
    "turn",
    "prompt_tokens",
    "output_tokens",
    "status",
    "cache_hit",
    *_OF_GATEWAYS,
}  # of a log, if the record itself is the body
_USED = {*NAMES, *SESSIONS, *USERS, *_URLS, *ANSWERS, *TIMES, "body", "request", "params", "usage", "model", "method",
         "turn", "prompt_tokens", "output_tokens", "metadata", "status", "cache_hit", *_OF_GATEWAYS}  # fmt: skip
_KNOWN = frozenset({*_USED, *_SETTINGS, *_BODY, *_BESIDE})  # of a record that is the body


def find_body(record):
    """Return the body of a record's request: its `body`, `request`, that one's `body`, `params`, or itself; or None.

    >>> find_body({"request": {"url": "/v1/messages", "body": {"messages": []}}})
    {'messages': []}
    """
    inner, body = load_text(record.get("request")), load_text(record.get("body"))
    deeper = load_text(inner.get("body")) if isinstance(inner, dict) else None
    for part in (body, deeper, inner, load_text(record.get("params")), record):
        if isinstance(part, dict) and ("messages" in part or "input" in part):
            return part
    return None


def is_request(record):
    """Say whether a record is a request of a log: by a mark, or because its messages do not end with a reply.

    >>> turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    >>> [is_request({"messages": turns, **more}) for more in ({}, {"created": 5}, {"url": "/v1/chat/completions"})]
    [False, False, True]
    >>> is_request({"messages": turns[:1]})
    True
    """
    body = find_body(record)
    if body is None or body is record and any(record.get(name) for name in LIST_FIELDS if name != "messages"):
        return False
    return is_marked(record) or is_bare(record) and not _ends_with_reply(load_text(record["messages"]))


def is_bare(record):
    """Say whether a record without a mark may be a request: it has `messages`, each by a `role`."""
    messages = load_text(record.get("messages"))
    return isinstance(messages, list) and not any(isinstance(one, dict) and "from" in one for one in messages)


def is_marked(record):
    """Say whether a record is a request for sure: not by its last message alone."""
    if find_body(record) is not record:
        return True
    if _find_url(record) or find_filled(("custom_id", "request_id", *ANSWERS), record)[0]:
        return True
    return "messages" not in record and is_responses(record)


def _ends_with_reply(messages):
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") in ("assistant", "model")


def _fits(api):
    def fits(record):
        if not is_request(record):
            return False
        try:
            return _find_api(record, find_body(record)) == api
        except Refused:
            return api == "chat"

    return fits


def _find_url(*parts):
    """Return the endpoint that a record names; None if it names none, or its `url` is that of a page."""
    url = find_filled(_URLS, *parts)[1]
    return url if isinstance(url, str) and (url in APIS or _ENDPOINT.search(url)) else None


def _find_api(record, body):
    request = load_text(record.get("request"))
    return find_api(_find_url(record, request), body, find_answer(record, request))


def _read_request(record, place, traffic):
    """Return the call of a record."""
    body = find_body(record)
    if body is None:
        field = next((name for name in LIST_FIELDS if name in record), None)
        raise Refused("of_another_form", f"has {f'`{field}`' if field else 'no messages'}; expected a request")
    _check_answered(record)
    request = load_text(record.get("request"))
    inner = request if isinstance(request, dict) else {}
    answer = find_answer(record, inner)
    api = find_api(_find_url(record, inner), body, answer)
    is_inside, body = body is not record, complete_body(body, record, inner)
    if isinstance(body.get("messages"), str) or isinstance(body.get("tools"), str):
        body = {**body, **{name: load_text(body[name]) for name in _LISTS if name in body}}
    body = _move_system(body)
    check_body(api, body)
    reply = read_reply(api, answer)
    if answer is not None and not reply:
        traffic.counts.note("answers_not_read", place, "its answer is no message of this endpoint")
    if api == "responses":
        body = _continue_response(body, reply, answer, traffic)
    metadata = [part.get("metadata") for part in (record, body)]
    parts = (record, inner, body) if is_inside or not record.keys().isdisjoint(_OF_GATEWAYS) else (record,)
    times = find_times(traffic, place, *parts)
    if times["start_s"] is None:
        times["start_s"] = find_time(("created", "created_at"), answer)
    traffic.counts.fields.add_record(record, _USED if is_inside else _KNOWN)
    usage = find_usage(answer, *parts)
    usage = read_usage(record) if usage.prompt is None else usage
    return [Call(
        api, body, reply, place, find_name(NAMES, record), find_session(*parts, *metadata), None, **times,
        usage=usage, model=find_model(*parts), user=find_name(USERS, *parts, *metadata), turn=_find_turn(record),
    )]  # fmt: skip


def _continue_response(body, reply, answer, traffic):
    """Return a body of Responses with the items of the response that it continues, if that stands before it.

    A server keeps them by the response's id (`previous_response_id`); instructions it does not keep.
    """
    known, given = traffic.seen.setdefault("responses", {}), body.get("input")
    items = given if isinstance(given, list) else [{"role": "user", "content": given}]
    before = body.get("previous_response_id")
    if isinstance(before, str) and before in known:
        items = [*known[before], *items]
        body = {name: value for name, value in body.items() if name != "previous_response_id"} | {"input": items}
    if isinstance(answer, dict) and isinstance(answer.get("id"), str) and reply:
        known[answer["id"]] = [*items, *reply]
    return body


def _move_system(body):
    """Return a body whose `system_prompt`, which no server takes, is its first message, unless that says the same.

    >>> _move_system({"system_prompt": "s", "messages": []})
    {'messages': [{'role': 'system', 'content': 's'}]}
    """
    text, messages = body.get("system_prompt"), body.get("messages")
    if text in EMPTY or not isinstance(messages, list):
        return body
    if not isinstance(text, str):
        raise Refused("with_system_blocks", f"system_prompt is {show_value(text)}; expected a text")
    body = {name: value for name, value in body.items() if name != "system_prompt"}
    known = {"role": "system", "content": text}
    return {**body, "messages": messages if known in messages else [known, *messages]}


def _check_answered(record):
    """Raise Refused if no engine answered."""
    if record.get("cache_hit") is True:
        raise Refused("cache_hit", "a cache of the gateway answered: it never reached an engine")
    if record.get("status") in ("failure", "error", "failed"):
        raise Refused("failure", f"has status {show_value(record['status'])}")


def complete_body(body, *parts):
    """Return a body with what gateways keep beside it or in a field of its own (`model_parameters`, ...).

    >>> complete_body({"messages": []}, {"model_parameters": {"tools": [], "extra_body": {"top_k": 1}}})
    {'top_k': 1, 'tools': [], 'messages': []}
    """
    more = {}
    for part in (body, *parts):
        for name in () if part.keys().isdisjoint(_OF_GATEWAYS) else _OF_GATEWAYS:
            if isinstance(settings := load_text(part.get(name)), dict):
                more = {**complete_body(settings), **more}
    return {**more, **{name: value for name, value in body.items() if name not in _BESIDE}}


def find_session(*parts):
    """Return what joins the calls of a session; also the session in the user's name that Claude Code sends."""
    if session := find_name(SESSIONS, *parts):
        return session
    user = find_filled(("user_id",), *parts)[1]
    found = _SESSION_IN_USER.search(user) if isinstance(user, str) else None
    return found and found[1]


def find_model(*parts):
    """Return the model that is named first, None if none is."""
    name = find_filled(("model",), *parts)[1]
    return name if isinstance(name, str) else None


def _find_turn(record):
    turn = record.get("turn")
    if turn is not None and (not is_whole(turn) or turn < 0):
        raise Refused("with_odd_number", f"has turn {show_value(turn)}; expected a whole number, 0 or more")
    return turn


read_requests = read_each(_read_request)
_MAIN = frozenset({"messages", "input", "body", "request"})
_COLUMNS = frozenset({*_USED, *_SETTINGS, "instructions", "previous_response_id", "tools", "system", "reasoning",
                      "chat_template_kwargs", "documents"})  # fmt: skip
_KEPT = "the body as it is, the answer, times, names, session, user, usage"
_COUNTED = "`no_chat_call`, `cache_hit`, `failure`, `with_images`, `with_other_media`, answers that are not read"
FORMS = (
    Form(
        "openai", "logs of OpenAI chat requests",
        "`messages` in the record, its `body` or `request`; or `url` ends with `/chat/completions`",
        _KEPT, _COUNTED, _fits("chat"), read_requests, _MAIN, _COLUMNS,
    ),
    Form(
        "anthropic", "logs of Anthropic Messages requests",
        "the same with `system`, `input_schema` or blocks such as `tool_use`; or `url` ends with `/messages`",
        _KEPT, _COUNTED, _fits("messages"), read_requests, _MAIN, _COLUMNS,
    ),
    Form(
        "responses", "logs of OpenAI Responses requests",
        "`input` of items, or with `instructions` and the like; or `url` ends with `/responses`",
        _KEPT, _COUNTED, _fits("responses"), read_requests, _MAIN, _COLUMNS,
    ),
)  # fmt: skip
