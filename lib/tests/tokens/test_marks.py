"""Which message each token of a prompt is of: as a search of the text and the tokenizer's offsets give it."""

from dataclasses import replace

import pytest
from places import SHARED

from kvprefix.conversations.calls import Call
from kvprefix.conversations.traffic import read_traffic
from kvprefix.servers.prompt import Prompt
from kvprefix.servers.rules import make_prompt
from kvprefix.tokens.call_parts import make_calls
from kvprefix.tokens.calls import encode_calls, find_day, share_messages
from kvprefix.tokens.facts import find_facts
from kvprefix.tokens.marks import BY_ROLE, SYSTEM, TEMPLATE, TOOL, UNKNOWN, USER, cut_marks, mark_prompt, render_marked
from kvprefix.tokens.render import NO_DAY, render_prompt
from kvprefix.tokens.template import load_chat
from kvprefix.tokens.tokenizer import QWEN_TOOLS_TEMPLATE, find_tokenizer

USE = {"type": "tool_use", "id": "t", "name": "find", "input": {"what": "rain. Or snow"}}
RESULTS = [{"type": "tool_result", "tool_use_id": "t", "content": text} for text in ("Sunny.", "", "Half a cloud")]
TOOLS = [{"name": "find", "description": "Finds weather", "input_schema": {"type": "object", "properties": {}}}]
ANTHROPIC = {
    "system": "Speak plainly.", "tools": TOOLS,
    "messages": [
        {"role": "user", "content": "How is it outside?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Let me look."}, USE]},
        {"role": "user", "content": [*RESULTS, {"type": "text", "text": "And tomorrow?"}]},
    ],
}  # fmt: skip
RESPONSES = {
    "instructions": "Speak plainly.",
    "input": [
        {"role": "user", "content": "How is it outside?"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "I must look."}]},
        {"type": "function_call", "call_id": "t", "name": "find", "arguments": '{"what": "rain"}'},
        {"type": "function_call_output", "call_id": "t", "output": "Sunny."},
        {"role": "developer", "content": "Hurry up now"}, {"role": "user", "content": "And tomorrow?"},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def chat():
    return replace(load_chat(find_tokenizer("bundled")), source=QWEN_TOOLS_TEMPLATE)


def spread(encoded):
    """Return ((message, writer), whether it is flagged as the template's) of each token of all prompts."""
    prompts, (_, stops, messages, writers) = [], (column.to_pylist() for column in encoded.runs)
    for row, one in enumerate(encoded.table.to_pylist()):
        parent, shared = one["parent"], one["shared_tokens"]
        before = prompts[parent][:shared] if parent >= 0 else []
        of = []
        for stop, message, writer in zip(stops[row], messages[row], writers[row], strict=True):
            of += [(message, writer)] * (stop - shared - len(of))
        prompts.append(before + list(zip(of, one["own_is_template"], strict=True)))
    return prompts


def search(chat, prompt, text):
    """Return {token: (message, writer)} of the tokens with a character of a content that occurs once in a text."""
    found, offsets = {}, chat.encode_with_offsets([text])[0].offsets
    for number, message in enumerate(prompt.messages, start=1):
        content = message.get("content") or ""
        parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
        for part in filter(None, map(str.strip, parts)):
            if text.count(part) == 1:
                start = text.find(part)
                tokens = [k for k, (a, b) in enumerate(offsets) if a < start + len(part) and b > start]
                for k in tokens:
                    found.setdefault(k, (number, BY_ROLE.get(message["role"], UNKNOWN)))
    return found


def compare(chat, calls):
    """Return how many tokens were compared, and those that are of another message than the search says."""
    encoded, facts, n, off = encode_calls(calls, chat, who=True), find_facts(chat), 0, []
    assert all(encoded.runs[0].to_pylist())
    for number, of in zip(encoded.table["call"].to_pylist(), spread(encoded), strict=True):
        call = calls[number]
        prompt = make_prompt(call.api, call.body, facts)
        found = search(chat, prompt, render_prompt(chat, prompt, find_day(call)))
        n += len(found)
        off += [(number, k) for k, wanted in found.items() if of[k][0] != wanted and not of[k][1]]
    return n, off


@pytest.mark.parametrize(("api", "body", "n"), [("messages", ANTHROPIC, 29), ("responses", RESPONSES, 26)])
def test_tokens_of_bodies_are_those_of_their_messages(chat, api, body, n):
    name = "messages" if api == "messages" else "input"
    bodies = [{**body, name: body[name][:end]} for end in (1, len(body[name]))]
    calls = [Call(api, one, session="a") for one in bodies]
    assert compare(chat, calls) == (n, [])


@pytest.mark.skipif(not SHARED.exists(), reason="the samples are not beside the project")
@pytest.mark.parametrize("name", ["claude_code", "codex", "rendering"])
def test_tokens_of_samples_are_those_of_their_messages(chat, name):
    calls = [call for item in read_traffic(SHARED / "samples" / name) for call in make_calls(item)]
    n, off = compare(chat, share_messages(calls))
    assert n > 50 and not off


def test_tools_and_texts_of_the_template_are_no_messages(chat):
    (of,) = spread(encode_calls([Call("messages", ANTHROPIC)], chat, who=True))
    writers = [TEMPLATE if flag else writer for (_, writer), flag in of]
    text = render_prompt(chat, make_prompt("messages", ANTHROPIC, find_facts(chat)), NO_DAY)
    offsets = chat.encode_with_offsets([text])[0].offsets
    places = (("Finds", 0, SYSTEM), ("</tools>", 0, SYSTEM), ("Sunny", 4, TOOL), ("tomorrow", 7, USER))
    for said, number, writer in places:
        k = next(k for k, (a, b) in enumerate(offsets) if b > text.find(said) >= a)
        assert (of[k][0][0], writers[k]) == (number, writer)
    assert writers[0] == writers[-1] == TEMPLATE


def test_marks_that_a_template_trips_over_are_left_out(chat):
    fussy = replace(chat, source="{% for m in messages %}{{ m.content | length }}{{ m.content }}{% endfor %}")
    prompt = Prompt([{"role": "user", "content": "abc"}])
    assert render_marked(fussy, prompt, "3abc", NO_DAY) is None
    strict = "{% for m in messages %}{{ m.content if m.content.startswith('a') else 'no' }}{% endfor %}"
    marked = render_marked(replace(chat, source=strict), prompt, "abc", NO_DAY)  # only behind the text
    assert marked.startswith("abc") and cut_marks(marked) == ("abc", ((3, 1, 1),))
    private = Prompt([{"role": "user", "content": "abc\U000f0001"}])
    assert render_marked(chat, private, "abc\U000f0001", NO_DAY) is None


def test_a_mark_never_changes_tokens(chat):
    # a text that ends within a special token, and one that is a special token alone
    for texts in (("a<|im_", "b"), ("<|im_end|>", "<|im_start|>"), ("  a\n", "\n b ")):
        messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)]
        calls = [Call("chat", {"messages": [*messages, {"role": "user", "content": "c"}]}, session="s")] * 2
        with_marks, without = (encode_calls(calls, chat, who=who).table for who in (True, False))
        assert with_marks.equals(without)


def test_no_message_is_lost_between_marks():
    messages = [{"role": "tool", "content": text} for text in ("x", " ", "y")]
    marked = mark_prompt(Prompt(messages)).messages
    assert cut_marks("<" + "><".join(message["content"] for message in marked) + ">") == (
        "<x>< ><y>", ((2, 1, 1), (8, 3, 3), (9, 0, 3))
    )


def test_a_message_ends_at_its_text_and_a_call_with_what_closes_it():
    call = {"function": {"name": "find", "arguments": {"what": "x"}}}
    prompt = mark_prompt(Prompt([{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}]))
    user, assistant = prompt.messages
    name, arguments = assistant["tool_calls"][0]["function"].values()
    assert cut_marks(f"[{user['content']}]") == ("[a]", ((2, 1, 1), (3, 0, 1)))
    assert cut_marks(f"{user['content']}")[1] == ((1, 1, 1),)
    assert cut_marks(f"<{name}{arguments['what']}>") == ("<findx>", ((7, 2, 2),))


def test_calls_that_are_all_refused_have_no_runs(chat):
    encoded = encode_calls([Call("responses", RESPONSES)], chat, "sglang", who=True)
    assert len(encoded.table) == 0 and [len(column) for column in encoded.runs] == [0] * 4 and encoded.said == []
