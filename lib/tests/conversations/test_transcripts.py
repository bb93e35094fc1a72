"""Sessions of Claude Code and of Codex: the shared samples, and small ones with a trap each."""

import json

import pytest
from places import SHARED

from kvprefix.conversations.traffic import TrafficCounts, read_traffic

SAMPLES = SHARED / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples beside the project")


def read(source):
    counts = TrafficCounts()
    return list(read_traffic(source, counts=counts)), counts


def expected(name):
    return json.loads((SAMPLES / f"{name}.expected.json").read_text())


def seconds(text):
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def sums(calls):
    return {
        "requests": len(calls),
        **{f"{name}_tokens": sum(getattr(one.usage, name) for one in calls) for name in ("prompt", "cached", "output")},
    }


def show(message, summary="This session is continued"):
    """Return a message as the expected results write it: its role, and its blocks if they are no single text."""
    kinds = [part["type"] for part in message["content"]] if isinstance(message["content"], list) else []
    if isinstance(message["content"], str) and message["content"].startswith(summary):
        kinds = ["summary"]
    return f"{message['role']}({','.join(kinds)})" if kinds else message["role"]


def answers_what(call):
    return "tool" if "tool_use_id" in str(call.body["messages"][-1]) else "user"


@needs_samples
def test_the_sample_of_claude_code_is_read_as_its_notes_say():
    right, (calls, counts) = expected("claude_code"), read(SAMPLES / "claude_code")
    parts = {}
    for call in calls:
        parts.setdefault((call.session, json.dumps(call.body["messages"][0])), []).append(call)
    main = sorted((one for one in parts.values() if one[0].parent is None), key=lambda one: one[0].start_s)
    for found, one in zip(main + [c for c in parts.values() if c[0].parent], right["conversations"], strict=True):
        assert {call.session for call in found} == {one["id"]}
        assert (found[0].parent is not None) == one.get("sidechain", False)
        assert [
            (call.name, call.start_s, *call.usage, answers_what(call))
            for call in found
        ] == [
            (r["id"], seconds(r["first_line_time"]), r["prompt_tokens"], r["cached_tokens"], r["output_tokens"],
             r["new_turn"]) for r in one["requests"]
        ]  # fmt: skip
        if "message_turns" in one:
            turns = [show(message) for message in [*found[-1].body["messages"], *found[-1].reply]]
            short = {"assistant(text)": "assistant"} if one["part"] == "after compaction" else {}
            assert [short.get(turn, turn) for turn in turns] == one["message_turns"]
    in_time = [call.name for call in sorted(calls, key=lambda call: call.start_s)]
    assert in_time == right["order_of_requests_by_time"]
    assert sums(calls) == right["totals"]
    assert {call.model for call in calls} == {right["model"]}
    assert counts.skipped == {name: n for name, n in right["skipped"].items() if name != "note"}
    assert counts.noted == {"text_is_a_lower_bound": 6}


@needs_samples
def test_the_sample_of_codex_is_read_as_its_notes_say():
    right, (calls, counts) = expected("codex"), read(SAMPLES / "codex")
    rest = list(calls)
    for one in right["conversations"]:
        found, rest = rest[: len(one["requests"])], rest[len(one["requests"]) :]
        assert {(call.session, call.parent, call.model) for call in found} == {
            (one["id"], one.get("forked_from"), "gpt-demo")
        }
        assert [(call.end_s, *call.usage) for call in found] == [
            (seconds(r["usage_time"]), r["prompt_tokens"], r["cached_tokens"], r["output_tokens"])
            for r in one["requests"]
        ]
    assert not rest and sums(calls) == right["totals"]
    assert calls[0].body["instructions"] == "You are a coding agent."
    assert [len(call.body["input"]) for call in calls] == [3, 6, 2, 4, 2]
    assert counts.skipped == {
        "copied_token_count": 2, "not_messages": 2, "repeated_token_count": 1, "token_count_without_info": 1,
    }  # fmt: skip
    assert counts.noted["encrypted_reasoning"] == 1


class Session:
    """Writes rows of a Claude Code session."""

    def __init__(self):
        self.rows = []

    def add(self, uuid, parent, message, kind=None, **more):
        time = f"2026-11-25T10:00:{len(self.rows):02}Z"
        self.rows.append({"type": kind or message["role"], "uuid": uuid, "parentUuid": parent, "sessionId": "s",
                          "timestamp": time, "message": message, **more})  # fmt: skip
        return self

    def user(self, uuid, parent, content="q", **more):
        return self.add(uuid, parent, {"role": "user", "content": content}, **more)

    def answer(self, uuid, parent, name, *blocks, usage=None, **more):
        blocks = list(blocks) or [{"type": "text", "text": uuid}]
        usage = {"input_tokens": 1, "output_tokens": 1} if usage is None else usage
        return self.add(uuid, parent, {"role": "assistant", "id": name, "content": blocks, "usage": usage}, **more)

    def read(self, folder, name="s.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return read(folder)


def use(name):
    return {"type": "tool_use", "id": name, "name": "f", "input": {}}


def result(*names):
    return [{"type": "tool_result", "tool_use_id": name, "content": f"of {name}"} for name in names]


def prompts(calls):
    """Return the messages of each call in short: texts of a user, names of results and of blocks."""

    def short(part):
        return part.get("tool_use_id") or part.get("id") or part.get("text")

    return {
        call.name: [
            one["content"] if isinstance(one["content"], str) else [short(part) for part in one["content"]]
            for one in call.body["messages"]
        ]
        for call in calls
    }  # fmt: skip


def test_results_of_parallel_calls_are_in_the_prompt_though_one_chain_holds_one_of_them(tmp_path):
    session = Session().user("u1", None).answer("a1", "u1", "m1", use("t1")).answer("a2", "a1", "m1", use("t2"))
    session.user("r1", "a1", result("t1")).user("r2", "a2", result("t2")).answer("b", "r2", "m2")
    session.user("u2", "b", "more").answer("c", "u2", "m3")
    calls, counts = session.read(tmp_path)
    assert prompts(calls) == {
        "m1": ["q"],
        "m2": ["q", ["t1", "t2"], ["t1"], ["t2"]],
        "m3": ["q", ["t1", "t2"], ["t1"], ["t2"], ["b"], "more"],
    }
    assert calls[0].reply[0]["content"] == [use("t1"), use("t2")]
    assert set(counts.noted) == {"text_is_a_lower_bound"}


def test_a_result_between_blocks_of_one_answer_comes_behind_it(tmp_path):
    session = Session().user("u1", None).answer("a1", "u1", "m1", use("t1")).user("r1", "a1", result("t1"))
    session.answer("a2", "r1", "m1", use("t2")).user("r2", "a2", result("t2")).answer("b", "r2", "m2")
    calls, _ = session.read(tmp_path)
    assert prompts(calls) == {"m1": ["q"], "m2": ["q", ["t1", "t2"], ["t1"], ["t2"]]}


def test_usage_is_each_fields_maximum(tmp_path):
    early = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 1}
    late = {"input_tokens": 5, "cache_creation_input_tokens": 3, "output_tokens": 9}
    session = Session().user("u", None).answer("a", "u", "m", usage=early).answer("b", "a", "m", usage=late)
    (call,), _ = session.read(tmp_path)
    assert call.usage == (15, 7, 9)  # 5 + 3 + 7
    assert call.end_s - call.start_s == 1


def test_forks_share_what_lies_above_them(tmp_path):
    session = Session().user("u1", None).answer("a1", "u1", "m1").user("u2", "a1", "one").answer("a2", "u2", "m2")
    session.user("u3", "a1", "two").answer("a3", "u3", "m3")  # the person went back and wrote something else
    calls, _ = session.read(tmp_path)
    assert prompts(calls) == {"m1": ["q"], "m2": ["q", ["a1"], "one"], "m3": ["q", ["a1"], "two"]}


def test_two_roots_are_two_prefixes(tmp_path):
    session = Session().user("u1", None).answer("a1", "u1", "m1").user("u2", None, "other").answer("a2", "u2", "m2")
    calls, _ = session.read(tmp_path)
    assert prompts(calls) == {"m1": ["q"], "m2": ["other"]}


def test_a_cycle_of_parents_is_skipped(tmp_path):
    session = Session().user("u1", "a2").answer("a1", "u1", "m1").user("u2", "a1").answer("a2", "u2", "m2")
    session.user("v", None).answer("b", "v", "m3")
    calls, counts = session.read(tmp_path)
    assert list(prompts(calls)) == ["m3"]
    assert counts.skipped == {"cycle_of_parents": 2}
    assert counts.first_skipped["cycle_of_parents"].startswith("s.jsonl, line 2: ")
    assert counts.noted["messages_of_no_call"] == 4


def test_rows_that_are_no_messages_link_those_that_are(tmp_path):
    session = Session().user("u1", None)
    session.rows.append({"type": "system", "uuid": "x", "parentUuid": "u1", "sessionId": "s"})
    session.answer("a1", "x", "m1").user("u2", "lost").answer("a2", "u2", "m2")
    calls, counts = session.read(tmp_path)
    assert prompts(calls) == {"m1": ["q"], "m2": ["q"]}
    assert counts.skipped == {"not_messages": 1}
    assert counts.noted["parents_not_in_the_file"] == 1


def test_what_a_compaction_keeps_follows_its_summary(tmp_path):
    session = (
        Session().user("u1", None, "old").answer("a1", "u1", "m1").user("u2", "a1", "kept").answer("a2", "u2", "m2")
    )
    kept = {"headUuid": "u2", "anchorUuid": "u3", "tailUuid": "a2"}
    session.rows.append({"type": "system", "subtype": "compact_boundary", "uuid": "b", "parentUuid": None,
                         "sessionId": "s", "compactMetadata": {"preservedSegment": kept}})  # fmt: skip
    session.user("u3", "b", "summary", isCompactSummary=True).user("u4", "u3", "new").answer("a4", "u4", "m4")
    calls, _ = session.read(tmp_path)
    assert prompts(calls) == {
        "m1": ["old"], "m2": ["old", ["a1"], "kept"], "m4": ["summary", "kept", ["a2"], "new"],
    }  # fmt: skip


def test_side_chains_in_the_same_file_are_sessions_of_their_own(tmp_path):
    session = Session().user("u1", None).answer("a1", "u1", "m1", use("t"))
    session.user("v", None, "task", isSidechain=True, agentId="x").answer("w", "v", "m2", isSidechain=True, agentId="x")
    session.user("r", "a1", result("t")).answer("a2", "r", "m3")
    calls, _ = session.read(tmp_path)
    assert [(call.name, call.session, call.parent) for call in calls] == [
        ("m1", "s", None), ("m2", "s/x", "s"), ("m3", "s", None)
    ]  # fmt: skip
    assert prompts(calls)["m3"] == ["q", ["t"], ["t"]]


def test_calls_copied_into_a_later_file_are_history_there(tmp_path):
    session = Session().user("u1", None).answer("a1", "u1", "m1")
    session.read(tmp_path, "1.jsonl")
    calls, counts = session.user("u2", "a1", "more").answer("a2", "u2", "m2").read(tmp_path, "2.jsonl")
    assert prompts(calls) == {"m1": ["q"], "m2": ["q", ["a1"], "more"]}
    assert counts.skipped == {"repeated_call": 1}
    assert counts.first_skipped["repeated_call"].startswith("2.jsonl, line 2: ")


@pytest.mark.parametrize(
    "content, reason",
    [
        ([{"type": "image", "source": {}}], "with_images"),
        ([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]}], "with_images"),
        (7, "malformed_message"),
    ],
)
def test_calls_with_something_else_in_their_prompt_are_skipped(tmp_path, content, reason):
    session = Session().user("u1", None).answer("a1", "u1", "m1", use("t")).user("u2", "a1", content)
    calls, counts = session.answer("a2", "u2", "m2").user("u3", "a2").answer("a3", "u3", "m3").read(tmp_path)
    assert (list(prompts(calls)), counts.skipped) == (["m1"], {reason: 2})


def test_odd_rows_of_a_session_are_counted(tmp_path):
    session = Session().user("u1", None).answer("a1", "u1", "m1")
    session.rows += [7, {"type": "user", "uuid": "x", "sessionId": "s"}, {"messages": []}]
    session.answer("a2", "u1", "m2", timestamp="noon")
    calls, counts = session.read(tmp_path)
    assert list(prompts(calls)) == ["m1"]
    assert counts.skipped == {"no_object": 1, "malformed_message": 1, "not_messages": 1, "with_odd_time": 1}


def test_a_session_without_an_answer_is_noted(tmp_path):
    calls, counts = Session().user("u1", None).read(tmp_path)
    assert (calls, counts.noted) == ([], {"sessions_without_calls": 1, "messages_of_no_call": 1})


class Rollout:
    """Writes rows of a Codex rollout."""

    def __init__(self, **meta):
        self.rows, self.total, self.time = [], 0, 0.0
        self.row("session_meta", {"id": "s", **meta})

    def row(self, kind, payload, wait_s=1.0):
        self.time += wait_s
        time = f"2026-11-25T10:00:{self.time:06.3f}Z"
        self.rows.append({"timestamp": time, "type": kind, "payload": payload})
        return self

    def message(self, role, text, wait_s=1.0):
        part = "output_text" if role == "assistant" else "input_text"
        content = [{"type": part, "text": text}]
        return self.row("response_item", {"type": "message", "role": role, "content": content}, wait_s)

    def item(self, kind, **more):
        return self.row("response_item", {"type": kind, **more})

    def count(self, n, wait_s=1.0):
        self.total += n
        usage = {"input_tokens": n, "cached_input_tokens": 0, "output_tokens": 1}
        info = {"total_token_usage": {"input_tokens": self.total}, "last_token_usage": usage}
        return self.row("event_msg", {"type": "token_count", "info": info}, wait_s)

    def record(self, n, response):
        usage = {"input_tokens": n, "cached_input_tokens": 1, "output_tokens": 2}
        return self.row("token_usage_record", {"thread_id": "s", "response_id": response, "usage": usage})

    def read(self, folder):
        (folder / "rollout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return read(folder / "rollout.jsonl")


def inputs(calls):
    return [
        [item["content"][0]["text"] if "content" in item else item.get("call_id") for item in call.body["input"]]
        for call in calls
    ]


def test_an_output_before_the_count_of_tokens_follows_the_answer(tmp_path):
    rollout = Rollout().message("user", "q").item("function_call", call_id="c", name="f", arguments="{")
    rollout.item("function_call_output", call_id="c", output="r").count(9).message("assistant", "done").count(8)
    calls, _ = rollout.read(tmp_path)
    assert inputs(calls) == [["q"], ["q", "c", "c"]]
    assert [item["type"] for item in calls[0].reply] == ["function_call"]
    assert calls[0].reply[0]["arguments"] == "{"  # invalid JSON stays: a server judges it
    assert [call.end_s - call.start_s for call in calls] == [2, 1]


def test_a_record_of_usage_per_response_is_a_call_and_the_count_beside_it_is_none(tmp_path):
    rollout = Rollout().message("user", "q").message("assistant", "before").count(5)  # by an older version
    rollout.message("user", "r").item("function_call", call_id="c", name="f", arguments="{}").record(9, "r1")
    rollout.item("function_call_output", call_id="c", output="o").count(9).record(9, "r1")
    rollout.message("assistant", "done").count(12).record(12, "r2")
    calls, counts = rollout.read(tmp_path)
    assert inputs(calls) == [["q"], ["q", "before", "r"], ["q", "before", "r", "c", "c"]]
    assert [call.usage.prompt for call in calls] == [5, 9, 12]
    assert counts.skipped == {"repeated_token_count": 3} and "messages_of_no_call" not in counts.noted


def test_turns_that_were_rolled_back_are_in_no_later_prompt(tmp_path):
    rollout = Rollout().message("user", "<environment_context>x").message("user", "one").message("assistant", "1")
    rollout.count(1).message("user", "two").message("assistant", "2").count(2)
    rollout.row("event_msg", {"type": "thread_rolled_back", "num_turns": 1}).message("user", "three").count(3)
    calls, counts = rollout.read(tmp_path)
    context = "<environment_context>x"
    assert inputs(calls) == [[context, "one"], [context, "one", "1", "two"], [context, "one", "1", "three"]]
    assert counts.noted["turns_rolled_back"] == 1


@pytest.mark.parametrize("context_is_copied", [False, True])
def test_the_usage_of_a_copied_history_is_its_parents(tmp_path, context_is_copied):
    rollout = Rollout(forked_from_id="p").row("session_meta", {"id": "p"}, 0)
    if context_is_copied:
        rollout.row("turn_context", {"model": "m"}, 0.001)
    rollout.message("user", "old", 0.001).message("assistant", "1", 0.001).count(5, 0.001)
    rollout.row("turn_context", {"model": "m"}, 0.001 if context_is_copied else 1)  # a sub-agent starts at once
    rollout.message("user", "new", 0.001).message("assistant", "2").count(6)
    calls, counts = rollout.read(tmp_path)
    assert inputs(calls) == [["old", "1", "new"]]
    assert (calls[0].parent, calls[0].usage.prompt) == ("p", 6)
    assert counts.skipped == {"copied_token_count": 1}


def test_odd_rows_of_a_rollout_are_counted(tmp_path):
    rollout = Rollout().message("user", "q").message("assistant", "a")
    rollout.rows += [{"timestamp": "noon", "type": "event_msg", "payload": {}}, {"type": "x"}, 7]
    rollout.count(3).message("user", "z").message("assistant", "b").message("user", "y")
    rollout.row("response_item", {"type": "message", "role": "user", "content": [{"type": "input_image"}]}).count(4)
    calls, counts = rollout.read(tmp_path)
    assert inputs(calls) == [["q"]]
    assert counts.skipped == {"with_odd_time": 1, "no_object": 2, "with_images": 1}
    assert counts.noted["answers_without_usage"] == 1
    assert Rollout().message("user", "q").read(tmp_path)[1].noted == {
        "sessions_without_calls": 1, "messages_of_no_call": 1, "instructions_not_in_the_file": 1
    }  # fmt: skip
