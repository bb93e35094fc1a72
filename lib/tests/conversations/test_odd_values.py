"""Every form with each of its values replaced by one of another kind: counted or refused, never a crash."""

import copy
import itertools
import json
import random
import re
from collections import Counter

import pytest
from places import SHARED

from kvprefix.conversations.forms.registry import FORMS
from kvprefix.conversations.survey import Survey
from kvprefix.conversations.traffic import TrafficCounts, read_traffic
from kvprefix.files.paths import InputError

ODD = (None, True, 7, -1.5, "x", "[{", [], {}, [None], [[]], [{}], {"type": 7}, {"content": 7})
USER, REPLY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning_content": "hm"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TURNS = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]},
         {"role": "tool", "content": [{"type": "text", "text": "r"}], "tool_call_id": "c"}, REPLY]  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}
BLOCKS = [USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
          {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "r"}]}]  # fmt: skip
ROW = {"sessionId": "s", "timestamp": "2026-01-01T10:00:00Z", "isSidechain": False}
SAMPLES = {
    "chats": [{"id": "x", "messages": TURNS, "tools": TOOLS, "system": "s"},
              {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": '{"name": "f"}'},
                                 {"from": "observation", "value": "r", "timestamp": 5}]},
              {"messages": BLOCKS, "system": [{"type": "text", "text": "s"}]}],
    "openai": [{"url": "/v1/chat/completions", "custom_id": "a", "time": 5, "endTime": 6, "metadata": {"user_id": "u"},
                "request": {"body": {"messages": TURNS, "tools": TOOLS, "model": "m"}},
                "response": {"body": {"choices": [{"message": REPLY}], "usage": USAGE}}},
               {"body": {"messages": BLOCKS, "system": "s"}, "response": {"type": "message", "content": [], "usage": {
                   "input_tokens": 1}}},
               {"body": {"input": [USER, {"type": "function_call_output", "call_id": "c", "output": [{"type": "x"}]}]},
                "response": {"object": "response", "output": [{"type": "message"}]}}],
    "litellm": [{"id": "a", "call_type": "acompletion", "startTime": 5.0, "endTime": 6.0, "status": "success",
                 "cache_hit": False, "trace_id": "t", "messages": TURNS, "response": {"choices": [{"message": REPLY}],
                 "usage": USAGE}, "model_parameters": {"tools": TOOLS, "extra_body": {}}, "end_user": "u"}],
    "langfuse": [{"id": "a", "type": "GENERATION", "trace_id": "t", "start_time": "2026-01-01 10:00:00",
                  "end_time": None, "input": {"messages": TURNS, "tools": TOOLS}, "output": REPLY,
                  "model_parameters": {"temperature": 0},
                  "tool_definitions": {"f": "{}"},
                  "usage_details": {"input": 3, "output": 1, "total": 4}, "level": "DEFAULT", "session_id": "s"}],
    "langsmith": [{"id": "a", "run_type": "llm", "trace_id": "t", "start_time": "2026-01-01T10:00:00",
                   "inputs": {"messages": [[{"id": ["x", "AIMessage"], "kwargs": {"content": "", "tool_calls": [
                       {"name": "f", "args": {}, "id": "c"}], "additional_kwargs": {}}}, {"type": "human", "data": {
                           "content": "q"}}]]},
                   "outputs": {"generations": [[{"text": "a", "message": {"kwargs": {"usage_metadata": {
                       "input_tokens": 3, "input_token_details": {"cache_read": 1}}}}}]], "llm_output": {}},
                   "extra": {"invocation_params": {"tools": TOOLS}, "metadata": {"thread_id": "s"}}}],
    "otel": [{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "t", "spanId": "s", "startTimeUnixNano": "5",
              "attributes": [{"key": "gen_ai.input.messages", "value": {"stringValue": json.dumps([USER])}},
                             {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "3"}},
                             {"key": "x", "value": {"arrayValue": {"values": [{"stringValue": "y"}]}}}],
              "events": [{"name": "e", "attributes": []}], "status": {"code": 0}}]}]}]},
             {"context": {"trace_id": "t"}, "attributes": {
                 "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "q"}]},
                                           {"role": "assistant", "parts": [{"type": "tool_call", "name": "f"}]},
                                           {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c"}]}],
                 "gen_ai.system_instructions": [{"content": "s"}], "gen_ai.tool.definitions": TOOLS}},
             {"span_id": "s", "attributes": {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "q",
                                             "gen_ai.prompt.1.tool_calls.0.name": "f", "gen_ai.prompt.1.role": "a"}},
             {"span_id": "s", "attributes": {"llm.input_messages.0.message.role": "user",
                                             "llm.input_messages.0.message.contents.0.message_content.type": "text",
                                             "llm.tools.0.tool.json_schema": "{}"}}],
    "atif": [{"schema_version": "ATIF-v1.7", "session_id": "s", "agent": {"name": "a", "tool_definitions": TOOLS},
              "steps": [{"source": "user", "message": "q"},
                        {"source": "agent", "message": "a", "timestamp": "2026-01-01T10:00:00Z",
                         "reasoning_content": "r",
                         "tool_calls": [{"tool_call_id": "c", "function_name": "f", "arguments": {}}],
                         "observation": {"results": [{"source_call_id": "c", "content": "r"}]},
                         "metrics": {"prompt_tokens": 3}}],
              "subagent_trajectories": [{"steps": [], "trajectory_id": "x"}]}],
    "claude-code": [{**ROW, "type": "user", "uuid": "u", "parentUuid": None, "message": USER},
                    {**ROW, "type": "assistant", "uuid": "a", "parentUuid": "u", "message": {
                        "id": "m", "model": "c", "content": BLOCKS[1]["content"], "usage": {"input_tokens": 3}}},
                    {**ROW, "type": "user", "uuid": "r", "parentUuid": "a", "message": BLOCKS[2]},
                    {**ROW, "type": "system", "subtype": "compact_boundary", "uuid": "b", "parentUuid": None,
                     "compactMetadata": {"preservedSegment": {"headUuid": "u", "anchorUuid": "b", "tailUuid": "r"}}},
                    {**ROW, "type": "assistant", "uuid": "z", "parentUuid": "b", "message": {
                        "id": "n", "model": "c", "content": "done", "usage": {"output_tokens": 3}}}],
    "codex": [{"timestamp": "2026-01-01T10:00:00Z", "type": kind, "payload": payload} for kind, payload in [
        ("session_meta", {"id": "s", "forked_from_id": "p", "source": {"subagent": {"thread_spawn": {}}},
                          "base_instructions": {"text": "s"}}),
        ("turn_context", {"model": "m", "effort": "low"}),
        ("response_item", {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]}),
        ("response_item", {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}),
        ("response_item", {"type": "function_call_output", "call_id": "c", "output": "r"}),
        ("event_msg", {"type": "token_count", "info": {"total_token_usage": {"input_tokens": 3},
                                                       "last_token_usage": {"input_tokens": 3}}}),
        ("compacted", {"message": "m", "replacement_history": [{"type": "message", "role": "user"}]}),
        ("event_msg", {"type": "thread_rolled_back", "num_turns": 1})]],
}  # fmt: skip


def list_places(value, path=()):
    """Yield the path of every value within a value."""
    for name, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, name)
        yield from list_places(one, (*path, name))


def replaced(value, path, odd):
    whole = node = copy.deepcopy(value)
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = odd
    return whole


def read(records):
    counts, survey = TrafficCounts(), Survey()
    for item in read_traffic(records, counts=counts):
        survey.add(item)
    json.dumps([counts.as_dict(), survey.as_dict()], allow_nan=False)
    return counts


def test_every_form_has_a_sample():
    assert SAMPLES.keys() == FORMS.keys() - {"anthropic", "responses"}  # they are read as `openai` is


@pytest.mark.parametrize("form", SAMPLES)
def test_a_value_of_another_kind_is_counted(form):
    records = SAMPLES[form]
    counts = read(records)
    assert counts.forms == {form: 1} and not counts.skipped.keys() - {"not_messages", "copied_token_count"}
    for path in list_places(records):
        for odd in ODD:
            read(replaced(records, path, odd))


MARK = re.compile(r"mark[0-9]+x")
SHOWN = ("text", "content", "value", "message", "output", "response", "arguments", "input", "system", "stringValue")


def mark(value, numbers):
    """Return a value with a mark of its own in each text that a prompt may show."""
    if isinstance(value, list):
        return [mark(one, numbers) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: f"{one} mark{next(numbers)}x"
        if isinstance(one, str) and name.endswith(SHOWN) and one[:1] not in "{["
        else mark(one, numbers)
        for name, one in value.items()
    }


def mutate(records, draw):
    """Return records of which one place is left out, replaced, renamed, repeated, of an odd kind, cut or moved."""
    records = copy.deepcopy(records)
    path = draw.choice(list(list_places(records)))
    node, last = records, path[-1]
    for step in path[:-1]:
        node = node[step]
    kind = draw.choice(["drop", "replace", "rename", "repeat", "block", "cut", "reorder"])
    if kind == "drop":
        del node[last]
    elif kind == "replace":
        node[last] = draw.choice(ODD)
    elif kind == "rename" and isinstance(node, dict):
        node["other"] = node.pop(last)
    elif kind == "repeat" and isinstance(node, list):
        node.insert(last, copy.deepcopy(node[last]))
    elif kind == "block" and isinstance(node[last], str):
        node[last] = [{"type": draw.choice(["text", "image", "audio", "hologram", "tool_use"]), "text": node[last]}]
    elif kind == "cut" and isinstance(node[last], str):
        node[last] = node[last][: len(node[last]) // 2]
    elif isinstance(node, dict):
        items = draw.sample(list(node.items()), len(node))
        node.clear()
        node.update(items)
    return records


def read_marked(records):
    """Return the marks that no call or conversation holds, and all that was counted, by name."""
    counts = TrafficCounts()
    items = list(read_traffic(records, counts=counts))
    lost = set(MARK.findall(json.dumps(records))) - set(MARK.findall(json.dumps(items, default=str)))
    said = counts.as_dict()
    kept_not = said.get("not_kept", {})
    of_fields = (kept_not.get(name, {}) for name in ("record_fields", "message_fields"))
    return lost, sum(map(Counter, (said["skipped"], said["noted"], said["repaired"], *of_fields)), Counter())


@pytest.mark.parametrize("form", SAMPLES)
def test_no_text_is_lost_without_a_count(form):
    records, draw = mark(SAMPLES[form], itertools.count()), random.Random(form)
    usual, counted = read_marked(records)
    for _ in range(150):
        changed = mutate(records, draw)
        lost, now_counted = read_marked(changed)
        assert not lost - usual or now_counted - counted, changed


@pytest.mark.parametrize("form", SAMPLES)
def test_a_file_that_is_cut_anywhere_is_read_as_far_as_it_is_whole(form, tmp_path):
    data = "".join(json.dumps(one) + "\n" for one in SAMPLES[form]).encode()
    whole = read(SAMPLES[form])
    path = tmp_path / "data.jsonl"
    for end in range(1, len(data), 7):
        path.write_bytes(data[:end])
        counts = TrafficCounts()
        try:
            for _ in read_traffic(path, counts=counts):
                pass
        except InputError as error:
            assert "data.jsonl" in str(error) and "\n" not in str(error)
        else:
            assert counts.records_read <= whole.records_read


@pytest.mark.parametrize("form", SAMPLES)
@pytest.mark.parametrize("other", SAMPLES)
def test_forms_may_be_mixed_in_a_file(form, other):
    counts = read([*SAMPLES[form], *SAMPLES[other]])
    assert sum(counts.forms.values()) == 1
    assert counts.records_read == len(SAMPLES[form]) + len(SAMPLES[other])


@pytest.mark.skipif(not SHARED.is_dir(), reason="no samples beside the project")
@pytest.mark.parametrize("name", ["litellm/standard_logging.jsonl", "langfuse/observations_v2.jsonl"])
def test_the_order_of_fields_does_not_matter(name):
    records = [json.loads(line) for line in (SHARED / "samples" / name).read_text().splitlines()]
    items = [list(read_traffic([dict(sorted(one.items(), reverse=turn)) for one in records])) for turn in (True, False)]
    assert items[0] == items[1] and items[0]
