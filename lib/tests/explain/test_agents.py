"""Causes of what agents' prompts miss: tools in another order, reasoning left out, a date, a rewritten history."""

import json

import pytest
from samples import save_small_tokenizer

from kvprefix.files.paths import InputError
from kvprefix.studies.explain import explain_misses, explain_provenance, open_data
from kvprefix.studies.explain_one import explain_one
from kvprefix.studies.lint import lint
from kvprefix.tokens.tokenizer import QWEN_TOOLS_TEMPLATE, find_tokenizer, load_tokenizer
from kvprefix.traces.parameters import Parameters

HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
DATED = "<|im_start|>system\nToday is {{ strftime_now('%d %B') }}<|im_end|>\n" + HEAD + "{{ m.content }}" + TAIL
THINKING = (
    HEAD + "{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}" + TAIL
)
SYSTEM, FIRST, SECOND = "Mind the files", "List them all", "Now count them"
ANSWER, THOUGHT = "There are some", "Where could they be"
DAY = 86_400
EPOCH = 1_764_547_200


@pytest.fixture(scope="module")
def explain(tmp_path_factory):
    """Return what explains calls: (session, API, body, reply) in their order, a day apart."""
    folders = {}

    def explain(template, *calls):
        if template not in folders:
            folders[template] = save_small_tokenizer(tmp_path_factory.mktemp("tokenizer"), template)
        log = tmp_path_factory.mktemp("log") / "log.jsonl"
        with log.open("w") as file:
            for k, (session, api, body, reply) in enumerate(calls):
                url = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}[api]
                line = {"custom_id": f"r{k}", "session_id": session, "url": url, "body": body, "response": reply}
                file.write(json.dumps(line | {"start_time": EPOCH + k * DAY, "end_time": EPOCH + k * DAY + 1}) + "\n")
        data = open_data(
            Parameters(data=str(log), tokenizer=str(folders[template]), block_size=1, arrivals="data"),
            progress=False,
        )
        tokenizer, _ = load_tokenizer(find_tokenizer(str(folders[template])))
        return data, tokenizer

    return explain


def class_last(explained):
    """Return the classes of the last prompt, those that are not 0, and a function: its tokens up to the end of a text.
    """
    data, tokenizer = explained
    (found,) = explain_misses(data, [None])
    assert data.writers.is_known.all() and found.part("template_divergence")[0] == 0
    last = len(found) - 1
    prompt = tokenizer.decode(data.trace.prompt(last))

    def count_to(text):
        assert prompt.count(text) == 1
        return len(tokenizer.encode(prompt[: prompt.find(text) + len(text)], add_special_tokens=False))

    return {name: int(n) for name, n in zip(found.names, found.tokens[last], strict=True) if n}, count_to


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def answer(content=ANSWER, **more):
    return {"choices": [{"message": say("assistant", content, **more)}]}


def tool(name):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


BEGIN = [say("system", SYSTEM), say("user", FIRST)]
LATER = [*BEGIN, say("assistant", ANSWER), say("user", SECOND)]


def test_tools_in_another_order(explain):
    calls = [
        ("a", "chat", {"messages": messages, "tools": [tool(name) for name in names]}, answer())
        for messages, names in ((BEGIN, ("find", "move")), (LATER, ("move", "find")))
    ]
    found, count_to = class_last(explain(QWEN_TOOLS_TEMPLATE, *calls))
    reached = found["hit"]
    assert count_to(SYSTEM) < reached < count_to(FIRST)  # both begin with the system text and the head of the tools
    assert found["template_divergence"] == count_to(ANSWER) - reached
    assert found["cold"] == sum(found.values()) - count_to(ANSWER)


def test_tools_in_another_order_and_a_mark_of_the_cache_that_moves(explain):
    # Anthropic: blocks carry `cache_control` where the cache is to end, which is no part of what they say
    def body(texts, names):
        blocks = [[{"type": "text", "text": text}] for text in texts]
        blocks[-1][0]["cache_control"] = {"type": "ephemeral"}
        roles = ("user", "assistant", "user")
        tools = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in names]
        messages = [say(role, block) for role, block in zip(roles, blocks, strict=False)]
        return {"system": SYSTEM, "messages": messages, "tools": tools, "max_tokens": 9}

    reply = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    found, count_to = class_last(explain(
        QWEN_TOOLS_TEMPLATE, ("a", "messages", body([FIRST], ["find", "move"]), reply),
        ("a", "messages", body([FIRST, ANSWER, SECOND], ["move", "find"]), reply),
    ))  # fmt: skip
    assert found["hit"] + found["template_divergence"] == count_to(ANSWER)


def test_another_tool_is_no_message_that_was_there(explain):
    # only the system message is common: what follows it, the tools, is new
    calls = [
        ("a", "chat", {"messages": [say("system", SYSTEM), say("user", text)], "tools": [tool(name)]}, answer())
        for text, name in ((FIRST, "find"), (SECOND, "walk"))
    ]
    found, _ = class_last(explain(QWEN_TOOLS_TEMPLATE, *calls))
    assert set(found) == {"hit", "cold"}


@pytest.mark.parametrize("kept", [True, False])
def test_reasoning_that_is_left_out_of_the_history(explain, kept):
    # by the template, or already by the client
    later = [*BEGIN, say("assistant", ANSWER, **({"reasoning_content": THOUGHT} if kept else {})), say("user", SECOND)]
    found, count_to = class_last(explain(
        THINKING, ("a", "chat", {"messages": BEGIN}, answer(reasoning_content=THOUGHT)),
        ("a", "chat", {"messages": later}, answer()),
    ))  # fmt: skip
    assert found["template_divergence"] == count_to(ANSWER) - found["hit"] - found.get("generated_not_cached", 0)
    assert found["template_divergence"] == count_to(ANSWER) - count_to(f"{FIRST}<|im_end|>\n<|im_start|>assistant\n")


def test_reasoning_of_responses_that_is_left_out(explain):
    first = {"instructions": SYSTEM, "input": FIRST}
    thought = {"type": "reasoning", "id": "x", "summary": [], "content": [{"type": "reasoning_text", "text": THOUGHT}]}
    said = {"type": "message", "role": "assistant", "id": "y", "content": [{"type": "output_text", "text": ANSWER}]}
    later = {**first, "input": [say("user", FIRST), say("assistant", ANSWER), say("user", SECOND)]}
    found, count_to = class_last(explain(
        THINKING, ("a", "responses", first, {"output": [thought, said]}), ("a", "responses", later, {"output": []})
    ))
    assert found["template_divergence"] == count_to(ANSWER) - count_to(f"{FIRST}<|im_end|>\n<|im_start|>assistant\n")


def test_a_date_that_changed(explain):
    found, count_to = class_last(explain(
        DATED, ("a", "chat", {"messages": BEGIN}, answer()), ("a", "chat", {"messages": LATER}, answer())
    ))
    assert count_to("Today is") < found["hit"] < count_to(SYSTEM)
    assert found["template_divergence"] == count_to(ANSWER) - found["hit"]
    assert found["cold"] == sum(found.values()) - count_to(ANSWER)


def test_a_request_of_an_agent_explained(explain):
    calls = [("a", "chat", {"messages": one, "tools": [tool("find")]}, answer()) for one in (BEGIN, LATER)]
    data, _ = explain(QWEN_TOOLS_TEMPLATE, *calls)
    found = explain_one(data, "r1")
    assert found.where == "in what the template writes behind message 3" and found.there.startswith("the earlier")
    assert found.turns[-1]["request_id"] == "r1" and found.earlier_turns == 0
    side = ("a", "chat", {"messages": BEGIN, "tools": [tool("walk")]}, answer())
    found = explain_one(explain(QWEN_TOOLS_TEMPLATE, *calls, side)[0], "r2")
    assert found.where == "in the tools or another text beside the messages, behind message 1"
    assert found.here.startswith("walk") and found.there.startswith("find")
    with pytest.raises(InputError, match="request 'r9' is not among the 3 requests; near ones: r0, r1, r2"):
        explain_one(explain(QWEN_TOOLS_TEMPLATE, *calls, side)[0], "r9")


def test_a_history_that_is_summarised_is_new(explain):
    summary = [say("system", SYSTEM), say("user", "Before, some were found"), say("user", SECOND)]
    found, count_to = class_last(explain(
        QWEN_TOOLS_TEMPLATE, ("a", "chat", {"messages": BEGIN}, answer()), ("a", "chat", {"messages": LATER}, answer()),
        ("a", "chat", {"messages": summary}, answer()),
    ))  # fmt: skip
    assert found == {"hit": count_to(f"{SYSTEM}<|im_end|>\n<|im_start|>user\n"), "cold": found["cold"]}


def test_a_message_that_was_rewritten_and_all_behind_it_are_new(explain):
    edited = [*BEGIN[:1], say("user", "Print them all"), *LATER[2:]]
    found, count_to = class_last(explain(
        QWEN_TOOLS_TEMPLATE, ("a", "chat", {"messages": LATER}, answer()), ("a", "chat", {"messages": edited}, answer())
    ))
    assert found == {"hit": count_to(f"{SYSTEM}<|im_end|>\n<|im_start|>user\n"), "cold": found["cold"]}


def test_a_sub_agent_between_two_calls_of_its_session(explain):
    side = [say("system", "Be a helper"), say("user", "Look around")]
    data, tokenizer = explain(
        QWEN_TOOLS_TEMPLATE, ("a", "chat", {"messages": BEGIN}, answer()), ("b", "chat", {"messages": side}, answer()),
        ("a", "chat", {"messages": LATER}, answer()),
    )  # fmt: skip
    found, count_to = class_last((data, tokenizer))
    assert found["hit"] == count_to(f"{FIRST}<|im_end|>\n<|im_start|>assistant\n")
    assert found["generated_not_cached"] == count_to(ANSWER) - found["hit"]  # all but the end of the turn
    assert found["last_sampled_token"] == 1 and "template_divergence" not in found
    origins = explain_provenance(data)
    own = origins.tokens[2, origins.names.index("own_turns")]
    assert own == count_to(FIRST) - count_to(f"{SYSTEM}<|im_end|>\n<|im_start|>user\n")
    assert origins.part("own_turns")[1] == origins.part("other_conversation")[1] == 0


def test_chats_of_text_beside_dialogs_with_tools(tmp_path, monkeypatch):
    # chats of text in a part of their own are explained by runs of tokens, others by marks: both say the same
    called = {"id": "t", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    more = [say("assistant", None, tool_calls=[called]), say("tool", "none", tool_call_id="t")]
    chats = [LATER, [*LATER, say("assistant", "Two")], [*BEGIN[1:], *LATER[2:]], [*LATER[:-1], *BEGIN[1:]]]
    lines = [{"messages": one} for one in [*chats, [*BEGIN, *more, *LATER[2:]], [*BEGIN, *more]]]
    source = tmp_path / "chats.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = []
    for size in (100, 2):
        monkeypatch.setattr("kvprefix.tokens.parts.PART_CONVERSATIONS", size)
        monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path / str(size)))
        data = open_data(Parameters(data=str(source), block_size=4, drop_duplicates=False), progress=False)
        found.append((data, explain_provenance(data), *explain_misses(data, [None, 9], outputs=True)))
    (one, *whole), (two, *parted) = found
    assert one.said.runs.is_there.all() and two.said.runs.is_there.tolist() != one.said.runs.is_there.tolist()
    assert one.writers.is_known.all() and two.writers.is_known.all()
    for a, b in zip(whole, parted, strict=True):
        assert (a.tokens == b.tokens).all()
    assert (whole[0].table == parted[0].table).all() and whole[0].table.sum() > 0


def test_salts_that_are_not_kept_are_said(explain):
    body = {"messages": [{"role": "user", "content": FIRST}]}
    calls = [("s0", "chat", body, None), *((f"s{k}", "chat", body | {"cache_salt": f"t{k}"}, None) for k in (1, 2))]
    data, _ = explain(HEAD + "{{ m.content }}" + TAIL, *calls)
    said = "2 requests with a cache_salt: not kept, they share as if without"
    assert said in explain_provenance(data).notes and said in data.notes() and said in lint(data)[0]["notes"]
