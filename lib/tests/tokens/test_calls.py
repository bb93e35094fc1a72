import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st
from places import CARRIED, SHARED
from tokenizers import processors
from transformers import AutoTokenizer

from kvprefix.blocks.identify import identify_rows
from kvprefix.conversations.calls import Call
from kvprefix.files.paths import InputError
from kvprefix.servers.prompt import Refused
from kvprefix.servers.rules import make_prompt
from kvprefix.tokens.calls import encode_calls, make_tokens
from kvprefix.tokens.encode import encode_conversations
from kvprefix.tokens.facts import find_facts
from kvprefix.tokens.render import render_prompt
from kvprefix.tokens.template import load_chat, open_call_chat
from kvprefix.tokens.tokenizer import QWEN_TEMPLATE, QWEN_TOOLS_TEMPLATE, find_tokenizer

RENDERING, SESSIONS = SHARED / "samples" / "rendering", SHARED / "samples" / "sessions"
TEMPLATES = ("qwen25_tools", "qwen3_like", "parts_openai")
needs_samples = pytest.mark.skipif(not RENDERING.is_dir(), reason="no ../shared/samples")


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def carried():
    """Return templates, and bodies with the ids that vLLM 0.32 made of them (null where it refused)."""
    first, *bodies = read(CARRIED / "server_bodies.jsonl.gz")
    return first["templates"], bodies


def use_template(qwen, source):
    return replace(qwen, source=source)


def encode_one(api, body, chat):
    """Return the ids of one body's prompt, None if it is refused."""
    encoded = encode_calls([Call(api, body, place="line 1")], chat)
    assert encoded.table.num_rows + sum(lost.count for lost in encoded.refused.values()) == 1
    return make_tokens(encoded.table).prompt(0).tolist() if encoded.table.num_rows else None


@pytest.mark.parametrize("name", TEMPLATES)
def test_carried_bodies_have_the_ids_of_the_server(qwen, carried, name):
    templates, bodies = carried
    chat = use_template(qwen, templates[name])
    for one in bodies:
        assert encode_one(one["api"], one["body"], chat) == one["ids"][name], one["id"]


@needs_samples
@pytest.mark.parametrize("name", TEMPLATES)
def test_all_bodies_have_the_ids_of_the_server(qwen, name):
    chat = use_template(qwen, (RENDERING / f"{name}.jinja").read_text(encoding="utf-8"))
    rows = read(RENDERING / f"{name}.jsonl.gz")
    assert (len(rows), sum(row["error"] is not None for row in rows)) == (163, 22)
    for row in rows:
        assert encode_one(row["api"], row["body"], chat) == row["prompt_token_ids"], row["id"]


def test_the_bundled_template_with_tools_gives_the_ids_of_the_server_too(carried):
    calls = [Call(one["api"], one["body"]) for one in carried[1]]
    chat = open_call_chat(find_tokenizer(), calls)
    for one in carried[1]:
        ids = encode_one(one["api"], one["body"], chat)
        if one["id"] != "function_call-legacy":  # a role that Qwen2.5's own template leaves out
            assert ids == one["ids"]["qwen25_tools"], one["id"]


def test_the_bundled_template_with_tools_is_the_one_without_for_plain_texts(qwen, bundled_conversations):
    with_tools = replace(qwen, source=QWEN_TOOLS_TEMPLATE)
    for chats in (bundled_conversations[:60], samples.AWKWARD):
        (one, refused), (other, also) = (encode_conversations(chats, chat) for chat in (qwen, with_tools))
        assert one.equals(other) and refused == also == {}


def as_calls(rows, named=True):
    """Return the calls of recorded requests."""
    replies = [row["reply"] if isinstance(row["reply"], list) else [row["reply"]] for row in rows]
    return [
        Call(row["api"], row["body"], tuple(reply), session=row["session"] if named else None)
        for row, reply in zip(rows, replies, strict=True)
    ]


def assert_tokens(encoded, rows):
    tokens = make_tokens(encoded.table)
    assert not encoded.refused and not encoded.replies_refused
    for k, row in enumerate(rows):
        assert tokens.prompt(k).tolist() == row["prompt_token_ids"], k
        assert tokens.generated(k).tolist() == row["reply_token_ids"], k
    return tokens


@pytest.mark.parametrize("named", [True, False])
def test_carried_sessions_have_the_prompts_and_replies_of_the_server(qwen, carried, named):
    rows = read(CARRIED / "server_sessions.jsonl.gz")
    chat = use_template(qwen, carried[0]["qwen25_tools"])
    tokens = assert_tokens(encode_calls(as_calls(rows, named), chat), rows)
    whole = sum(len(row["prompt_token_ids"]) for row in rows)
    assert len(tokens.own) < whole / 2


@needs_samples
@pytest.mark.parametrize("block_size", [16, 32])
def test_hit_blocks_of_sessions_are_the_expected_ones(qwen, block_size):
    rows = read(SESSIONS / "sessions.qwen25_tools.jsonl.gz")
    assert len(rows) == 93
    chat = use_template(qwen, (RENDERING / "qwen25_tools.jinja").read_text(encoding="utf-8"))
    tokens = assert_tokens(encode_calls(as_calls(rows), chat), rows)
    for outputs, name in ((False, "prompts_only_hit_blocks"), (True, "with_replies_hit_blocks")):
        blocks = identify_rows(tokens, np.arange(len(rows)), block_size, outputs=outputs)
        expected = [row["expected"][f"block{block_size}"][name] for row in rows]
        assert count_hits(blocks, tokens.prompt_lengths()) == expected, name


def count_hits(blocks, lengths):
    """Return each request's leading blocks that an earlier one left, the last token's block never: in plain Python."""
    cached, hits = set(), []
    for i, length in enumerate(lengths.tolist()):
        ids = blocks.ids[blocks.offsets[i] : blocks.offsets[i + 1]].tolist()
        found = 0
        while found < (length - 1) // blocks.block_size and ids[found] in cached:
            found += 1
        hits.append(found)
        cached.update(ids)
    return hits


TEXTS = st.sampled_from(["", "a", "\n", " b ", "<|im_end|>", "<think>\nt\n</think>\n\nc", "café\u0301", "x" * 40])
MESSAGE = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, TEXTS),
    st.builds(lambda text: {"role": "system", "content": text}, TEXTS),
    st.builds(lambda text, why: {"role": "assistant", "content": text, "reasoning_content": why}, TEXTS, TEXTS),
    st.builds(lambda text: {"role": "tool", "tool_call_id": "c", "content": text}, TEXTS),
    st.builds(
        lambda text, city: {
            "role": "assistant", "content": text,
            "tool_calls": [{"id": "c", "type": "function",
                            "function": {"name": "f", "arguments": json.dumps({"city": city})}}],
        }, TEXTS, TEXTS,
    ),
)  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


REPLY = MESSAGE.filter(lambda message: message["role"] == "assistant")


@pytest.mark.parametrize("name", TEMPLATES)
@given(messages=st.lists(MESSAGE, min_size=1, max_size=4), reply=REPLY, tools=st.booleans())
def test_a_reply_is_what_follows_the_prompts_ids_if_it_is_put_behind(qwen, carried, name, messages, reply, tools):
    chat, end = use_template(qwen, carried[0][name]), qwen.end_of_turn
    bodies = [{"messages": all_, **({"tools": TOOLS} if tools else {})} for all_ in (messages, [*messages, reply])]
    texts = [render_prompt(chat, make_prompt("chat", body, find_facts(chat))) for body in bodies]
    prompt, answered = (chat.encode([text])[0].tolist() for text in texts)
    encoded = encode_calls([Call("chat", bodies[0], (reply,))], chat)
    (output,), (kind,) = encoded.table["output_tokens"].to_pylist(), encoded.table["reply"].to_pylist()
    if answered[: len(prompt)] == prompt:
        behind = answered[len(prompt) :]
        assert (output, kind) == (behind[: behind.index(end) + 1], 1)
    elif kind:
        assert kind == 2 and output.index(end) == len(output) - 1
    else:
        assert encoded.replies_refused["the chat template"].count == 1


@pytest.mark.parametrize("name", TEMPLATES)
@given(
    sessions=st.lists(st.lists(MESSAGE, min_size=1, max_size=5), min_size=1, max_size=3),
    order=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=8),
    named=st.booleans(),
)
def test_pieces_give_the_ids_of_the_whole_text(qwen, carried, name, sessions, order, named):
    chat, calls = use_template(qwen, carried[0][name]), []
    for which, end in order:
        messages = sessions[which % len(sessions)]
        body = {"messages": messages[:end], **({"tools": TOOLS} if which else {})}
        calls.append(Call("chat", body, session=str(which) if named else None))
    encoded, facts = encode_calls(calls, chat), find_facts(chat)
    tokens = make_tokens(encoded.table)
    assert encoded.table["call"].to_pylist() == list(range(len(calls)))
    for row, call in enumerate(calls):
        text = render_prompt(chat, make_prompt("chat", call.body, facts))
        assert tokens.prompt(row).tolist() == chat.encode([text])[0].tolist()
        assert tokens.parent[row] < row


def test_without_fences_a_prompt_goes_on_from_the_one_before_it(qwen):
    source = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"
    chat = replace(qwen, source=source, is_fenced=False)
    messages = [{"role": ("user", "assistant")[k % 2], "content": f"text {k}"} for k in range(9)]
    calls = [
        Call("chat", {"messages": messages[: end % 9 + 1]}, session=str(end % 2)) for end in (0, 2, 3, 4, 4, 5, 6, 1)
    ]
    tokens = make_tokens(encode_calls(calls, chat).table)
    for row, call in enumerate(calls):
        text = render_prompt(chat, make_prompt("chat", call.body, find_facts(chat)))
        assert tokens.prompt(row).tolist() == chat.encode([text])[0].tolist()
    assert tokens.parent.tolist() == [-1, 0, -1, 1, 3, 2, 3, 5] and len(tokens.own) < tokens.prompt_lengths().sum() / 2


def test_a_template_for_tools_is_used_where_there_are_tools(tmp_path, small_folder):
    tokenizer = AutoTokenizer.from_pretrained(small_folder)
    tokenizer.chat_template = {"default": QWEN_TEMPLATE, "tool_use": "tools:{{ messages[0].content }}"}
    tokenizer.save_pretrained(tmp_path)
    chat = load_chat(find_tokenizer(tmp_path))
    plain, tools = {"messages": [{"role": "user", "content": "hi"}]}, {"tools": TOOLS}
    asked = {"input": "hi", "tools": [{"type": "web_search"}]}
    calls = [Call("chat", plain), Call("chat", plain | tools), Call("responses", {"input": "hi", "tools": []}),
             Call("responses", asked)]  # fmt: skip
    tokens = make_tokens(encode_calls(calls, chat).table)
    texts = [chat.tokenizer.decode(tokens.prompt(row)) for row in range(4)]
    assert texts[1] == texts[3] == "tools:hi" and texts[0] == texts[2] == chat.render([plain["messages"]])[0]


def test_responses_get_the_tokenizers_own_special_tokens_on_top(tmp_path):
    backend = samples.train_byte_level()
    first = [("<|endoftext|>", backend.token_to_id("<|endoftext|>"))]
    backend.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=first)
    chat = load_chat(find_tokenizer(samples.save_tokenizer(tmp_path, backend)))
    assert chat.added_special == ("<|endoftext|>", "")
    calls = [Call("chat", {"messages": [{"role": "user", "content": "hi"}]}), Call("responses", {"input": "hi"})]
    tokens = make_tokens(encode_calls(calls, chat).table)
    assert tokens.prompt(1).tolist() == [first[0][1], *tokens.prompt(0).tolist()]


def test_refusals_are_counted_by_reason_with_the_first_place(qwen):
    bad = {"messages": [{"role": "user", "content": None}]}
    good = {"messages": [{"role": "user", "content": "hi"}]}
    calls = [Call("chat", body, place=f"line {k}") for k, body in enumerate([good, bad, bad, {"messages": []}], 1)]
    encoded = encode_calls(calls, qwen)
    assert encoded.table["call"].to_pylist() == [0]
    assert {why: (lost.count, lost.place) for why, lost in encoded.refused.items()} == {
        "content": (2, "line 2"), "no messages": (1, "line 4"),
    }  # fmt: skip
    assert "null" in encoded.refused["content"].said


def test_half_characters_are_refused(qwen):
    user = {"role": "user", "content": "hi"}
    half = [{"messages": [{"role": "user", "content": "a\ud83d"}]}, {"messages": [user], "reasoning": "\ud83d"}]
    calls = [Call("chat", half[0]), Call("chat", half[1], ({"role": "assistant", "content": "\ude00"},))]
    encoded = encode_calls(calls, qwen)
    assert encoded.refused["half characters"].count == encoded.replies_refused["half characters"].count == 1


def test_a_template_that_refuses_counts_as_a_refusal(qwen):
    chat = use_template(qwen, "{{ raise_exception('no such role') if messages[0].role == 'x' else 'a' }}")
    encoded = encode_calls([Call("chat", {"messages": [{"role": "x", "content": ""}]}, place="line 1")], chat)
    assert list(encoded.refused) == ["the chat template"]
    assert encoded.refused["the chat template"].said == "no such role"


def test_a_reply_that_the_server_refuses_leaves_its_call_without_output(qwen):
    call = Call("chat", {"messages": [{"role": "user", "content": "hi"}]}, ({"role": "assistant", "content": 5},), "p")
    encoded = encode_calls([call], qwen)
    assert encoded.table["output_tokens"].to_pylist() == [[]] and encoded.table["reply"].to_pylist() == [0]
    assert encoded.replies_refused["messages"][:2] == (1, "p")


def test_a_reply_that_merges_with_the_end_of_its_prompt_is_encoded_apart(qwen):
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content }}<|im_end|>{% endfor %}"
    source += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    chat = use_template(qwen, source)
    call = Call("chat", {"messages": [{"role": "user", "content": "hi"}]}, ({"role": "assistant", "content": "yes"},))
    encoded = encode_calls([call], chat)
    assert encoded.table["reply"].to_pylist() == [2]
    expected = chat.encode(["\nyes<|im_end|>"])[0].tolist()
    assert encoded.table["output_tokens"].to_pylist() == [expected]


def test_a_reply_without_the_reasoning_that_its_prompt_opens_is_taken_behind_what_both_have(qwen):
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    source += "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    chat = use_template(qwen, source)
    call = Call("chat", {"messages": [{"role": "user", "content": "hi"}]}, ({"role": "assistant", "content": "yes"},))
    encoded = encode_calls([call], chat)
    assert encoded.table["output_tokens"].to_pylist() == [chat.encode(["yes<|im_end|>"])[0].tolist()]
    assert encoded.table["reply"].to_pylist() == [2]


def test_a_reply_ends_with_the_fence_that_the_template_writes(qwen):
    call = Call("chat", {"messages": [{"role": "user", "content": "hi"}]}, ({"role": "assistant", "content": "yes"},))
    other = replace(qwen, end_of_turn=qwen.fences["<|endoftext|>"])  # a base model's
    none, ends = use_template(other, "{% for m in messages %}{{ m.content }}|{% endfor %}"), {}
    for name, chat in {"own": qwen, "other": other, "none": none}.items():
        ends[name] = qwen.tokenizer.decode(make_tokens(encode_calls([call], chat).table).generated(0))
    assert ends == {"own": "yes<|im_end|>", "other": "yes<|im_end|>", "none": "yes<|endoftext|>"}


def test_a_template_that_changes_earlier_turns_with_the_reply_gives_no_reply(qwen):
    source = "{{ messages | length }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    chat = use_template(qwen, source)
    call = Call("chat", {"messages": [{"role": "user", "content": "hi"}]}, ({"role": "assistant", "content": "yes"},))
    encoded = encode_calls([call], chat)
    assert encoded.replies_refused["the chat template"].count == 1
    assert encoded.table["output_tokens"].to_pylist() == [[]]


def test_the_reply_to_an_open_message_goes_on_in_it(qwen):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "one, "}]
    body = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    encoded = encode_calls([Call("chat", body, ({"role": "assistant", "content": "two"},))], qwen)
    assert encoded.table["output_tokens"].to_pylist() == [qwen.encode(["two<|im_end|>"])[0].tolist()]


def test_what_a_template_never_looks_at_is_counted(qwen, carried):
    (body,) = (one["body"] for one in carried[1] if one["id"] == "reasoning_content-loop")
    hidden = {
        name: encode_calls([Call("chat", body)] * 2, use_template(qwen, source)).hidden
        for name, source in {"plain": qwen.source, **carried[0]}.items()
    }
    assert hidden == {
        "plain": {"tools": 2, "tool_calls": 2, "reasoning": 2}, "qwen25_tools": {"reasoning": 2}, "qwen3_like": {},
        "parts_openai": {"tools": 2},
    }  # fmt: skip


DATED = "{{ strftime_now('%d %B %Y') }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def test_a_template_that_writes_the_date_writes_the_calls_own_day(qwen):
    chat, body = use_template(qwen, DATED), {"messages": [{"role": "user", "content": "hi"}]}
    encoded = encode_calls([Call("chat", body, start_s=1.75e9), Call("chat", body)], chat)
    tokens = make_tokens(encoded.table)
    for row, day in enumerate(["15 June 2025", "01 January 2025"]):
        assert tokens.prompt(row).tolist() == chat.encode([f"{day}<|im_start|>hi<|im_end|>"])[0].tolist()
    assert encoded.undated == 1


def test_another_servers_rules_make_other_prompts_and_replies(qwen):
    parts = [{"type": "text", "text": one} for one in "ab"]
    call = Call("chat", {"messages": [{"role": "user", "content": parts}]}, ({"role": "assistant", "content": "yes"},))
    for server, joiner in (("vllm", "\n"), ("sglang", " ")):
        encoded = encode_calls([call, Call("messages", {})], qwen, server)
        tokens = make_tokens(encoded.table)
        (ids,) = qwen.encode(qwen.render([[{"role": "user", "content": f"a{joiner}b"}]]))
        assert tokens.prompt(0).tolist() == ids.tolist()
        assert tokens.generated(0).tolist() == qwen.encode(["yes<|im_end|>"])[0].tolist()
        assert encoded.refused.keys() == {"api" if server == "sglang" else "no messages"}


def test_an_unknown_server_is_an_input_error(qwen):
    with pytest.raises(InputError, match="server x: its rules are not known"):
        encode_calls([Call("chat", {"messages": [{"role": "user", "content": "hi"}]})], qwen, "x")


def test_refusals_name_their_reason(qwen):
    with pytest.raises(Refused) as caught:
        make_prompt("chat", {"messages": []}, find_facts(qwen))
    assert caught.value.reason == "no messages"
