import dataclasses
import functools
import resource
import shutil
import signal
import unicodedata

import numpy as np
import pytest
import samples
from samples import AWKWARD, as_dicts, conversation
from transformers import AutoTokenizer

from kvprefix.conversations.records import Message
from kvprefix.files.paths import InputError
from kvprefix.tokens.encode import encode_conversations
from kvprefix.tokens.template import _learn_template, load_chat
from kvprefix.tokens.tokenizer import FALLBACK_TEMPLATE, QWEN_SYSTEM_PROMPT, QWEN_TEMPLATE, find_tokenizer

START, END = "<|im_start|>", "<|im_end|>"


def load(folder):
    return load_chat(find_tokenizer(folder))


def rebuild(table):
    """Return every row's whole prompt and template mask, from what it shares with the row before."""
    prompts, masks = [], []
    for row in table.to_pylist():
        shared = row["shared_tokens"]
        assert shared == 0 or row["turn"] > 0
        prompts.append((prompts[-1][:shared] if shared else []) + row["own_tokens"])
        masks.append((masks[-1][:shared] if shared else []) + row["own_is_template"])
    return prompts, masks


def assert_equals_template(conversations, chat, reference):
    """Check every request's ids against those of a tokenizer that was loaded apart."""
    table, refused = encode_conversations(conversations, chat)
    assert refused == {}
    reference.chat_template = chat.tokenizer.chat_template
    requests = [(c, end) for c in conversations for end in c.request_ends()]
    messages = [as_dicts(c.messages[:end]) for c, end in requests]
    expected = reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    prompts, _ = rebuild(table)
    assert len(prompts) == len(expected)
    for (c, end), prompt, ids in zip(requests, prompts, expected, strict=True):
        assert prompt == ids, (c.id, end)
    assert table["messages"].to_pylist() == [end for _, end in requests]


@pytest.fixture(scope="module")
def varied(bundled_conversations):
    """Return 200 bundled conversations, some with a system prompt or reasoning, and the awkward ones."""
    changed = []
    for k, one in enumerate(bundled_conversations[:200]):
        messages = list(one.messages)
        if k % 3 == 0:
            think = "<think>\nStep by step.\n</think>\n\n"
            messages = [m._replace(text=think + m.text) if m.role == "assistant" else m for m in messages]
        if k % 4 == 0 and messages[0].role != "system":
            messages = [Message("system", f"  Answer in {k} words.\n"), *messages]
        changed.append(one._replace(messages=tuple(messages)))
    return changed + AWKWARD


TEMPLATES = {
    "qwen": QWEN_TEMPLATE,
    "fallback": FALLBACK_TEMPLATE,
    "inst": samples.INST_TEMPLATE,
    "reasoning dropped": samples.REASONING_TEMPLATE,
    "system in first user message": samples.system_moved_template("first"),
    "system in last user message": samples.system_moved_template("last"),
    "trim": samples.TRIM_TEMPLATE,
}


@pytest.fixture(scope="module")
def chat_of(bundled_folder, tmp_path_factory):
    """Return a function that loads the bundled tokenizer with another chat template, once each."""

    @functools.cache
    def chat_of(name):
        folder = tmp_path_factory.mktemp("templates") / "tokenizer"
        shutil.copytree(bundled_folder, folder)
        (folder / "chat_template.jinja").write_text(TEMPLATES[name])
        return load(folder)

    return chat_of


@pytest.fixture(scope="module")
def bundled_reference(bundled_folder):
    return AutoTokenizer.from_pretrained(bundled_folder)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_prompt_equals_apply_chat_template(name, varied, chat_of, bundled_reference):
    chat = chat_of(name)
    assert chat.tokenizer.chat_template == TEMPLATES[name]
    assert chat.is_fenced == (name in ("qwen", "reasoning dropped", "trim"))
    assert_equals_template(varied, chat, bundled_reference)


FAMILIES = {
    "byte-level": (samples.train_byte_level, samples.SPECIAL),
    "word piece": (samples.train_word_piece, samples.SPECIAL),
    "metaspace always": (lambda: samples.train_metaspace_bpe("always"), samples.SPECIAL),
    "metaspace never": (lambda: samples.train_metaspace_bpe("never"), samples.SPECIAL),
    # only the first text after the start gets the mark of a space, so no text after a fence stands alone
    "metaspace first": (lambda: samples.train_metaspace_bpe("first"), []),
    "unigram prepend": (samples.train_unigram_prepend, samples.SPECIAL),
}


@pytest.mark.parametrize("template", [QWEN_TEMPLATE, samples.TRIM_TEMPLATE, FALLBACK_TEMPLATE])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_tokenizers_are_cut_only_where_it_is_safe(family, template, bundled_conversations, tmp_path):
    train, fences = FAMILIES[family]
    samples.save_tokenizer(tmp_path, train(), template)
    chat = load(tmp_path)
    assert set(chat.fences) & set(samples.SPECIAL) == set(fences)
    assert_equals_template(bundled_conversations[:20] + AWKWARD, chat, AutoTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize("option", ["lstrip", "rstrip", "normalized", "single_word"])
def test_token_that_minds_its_neighbours_is_no_fence(option, bundled_conversations, tmp_path):
    backend = samples.Tokenizer.from_str(samples.train_byte_level().to_str().replace(END, "<|unused|>"))
    backend.add_special_tokens([samples.AddedToken(END, special=True, **{"normalized": False, option: True})])
    samples.save_tokenizer(tmp_path, backend)
    chat = load(tmp_path)
    assert START in chat.fences and END not in chat.fences
    assert_equals_template(bundled_conversations[:10] + AWKWARD, chat, AutoTokenizer.from_pretrained(tmp_path))


def test_saved_truncation_and_padding_do_not_count(tmp_path):
    backend = samples.train_byte_level()
    backend.enable_truncation(8)
    backend.enable_padding(length=64)
    samples.save_tokenizer(tmp_path, backend, pad_token="<|endoftext|>")
    assert_equals_template(AWKWARD, load(tmp_path), AutoTokenizer.from_pretrained(tmp_path))


def test_tokenizer_written_in_python(tmp_path):
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path)
    chat = load(tmp_path)
    assert not chat.tokenizer.is_fast and chat.fences == {}
    assert_equals_template(AWKWARD, chat, AutoTokenizer.from_pretrained(tmp_path))


def chatml(messages):
    """Return a ChatML prompt's text as (text, whether the template wrote it) pairs."""
    if messages[0].role != "system":
        yield f"{START}system\n{QWEN_SYSTEM_PROMPT}{END}\n", True
    for role, text in messages:
        yield from [(f"{START}{role}\n", True), (text, False), (f"{END}\n", True)]
    yield f"{START}assistant\n", True


def fallback(messages):
    for role, text in messages:
        yield from [(f"{role.capitalize()}: ", True), (text, False), ("\n\n", True)]
    yield "Assistant:", True


def system_last(messages):
    system, rest = (messages[0].text, messages[1:]) if messages[0].role == "system" else (None, messages)
    for k, (role, text) in enumerate(rest, start=1):
        yield f"{START}{role}\n", True
        if system and k == len(rest):
            yield from [(system, False), ("\n\n", True)]
        yield from [(text, False), (f"{END}\n", True)]
    yield f"{START}assistant\n", True


PAIRS = {"qwen": chatml, "fallback": fallback, "system in last user message": system_last}


def expected_masks(conversations, pairs_of, chat):
    """Mark, from the offsets in the whole prompt, the tokens that cover no character of a message."""
    for c in conversations:
        for end in c.request_ends():
            pairs = list(pairs_of(c.messages[:end]))
            is_message = np.repeat([not flag for _, flag in pairs], [len(text) for text, _ in pairs])
            encoding = chat.encode_with_offsets(["".join(text for text, _ in pairs)])[0]
            yield [not is_message[start:stop].any() for start, stop in encoding.offsets]


MASKED = {  # the awkward ones without literal special tokens, which have a test of their own
    "bundled": lambda bundled: bundled[:100],
    "awkward": lambda bundled: [c for c in AWKWARD if "literal" not in c.id],
}


@pytest.mark.parametrize("which", MASKED)
@pytest.mark.parametrize("name", PAIRS)
def test_template_tokens_are_those_outside_the_messages(which, name, bundled_conversations, chat_of):
    chat = chat_of(name)
    conversations = MASKED[which](bundled_conversations)
    _, masks = rebuild(encode_conversations(conversations, chat)[0])
    names = [(c.id, end) for c in conversations for end in c.request_ends()]
    for case, mask, expected in zip(names, masks, expected_masks(conversations, PAIRS[name], chat), strict=True):
        assert mask == expected, case


def test_without_template_tokens_the_messages_tokens_are_left(bundled_conversations, qwen):
    chosen = [c for c in bundled_conversations if not any(m.text[0].isspace() for m in c.messages)]
    chosen = chosen[:100]  # the others merge with the newline that the template writes
    prompts, masks = rebuild(encode_conversations(chosen, qwen)[0])
    requests = [c.messages[:end] for c in chosen for end in c.request_ends()]
    for messages, prompt, mask in zip(requests, prompts, masks, strict=True):
        left = [token for token, flag in zip(prompt, mask, strict=True) if not flag]
        assert left == np.concatenate(qwen.encode([m.text for m in messages])).tolist()


def test_outputs_are_the_replies_and_the_end_token(bundled_conversations, qwen):
    conversations = bundled_conversations[:200] + AWKWARD
    rows = encode_conversations(conversations, qwen)[0].to_pylist()
    requests = [(c, end) for c in conversations for end in c.request_ends()]
    n_replies = 0
    for (c, end), row in zip(requests, rows, strict=True):
        has_reply = end < len(c.messages) and c.messages[end].role == "assistant"
        if has_reply:
            *reply, last = row["output_tokens"]
            assert last == qwen.tokenizer.eos_token_id
            assert qwen.tokenizer.decode(reply) == unicodedata.normalize("NFC", c.messages[end].text)
            n_replies += 1
        else:
            assert row["output_tokens"] == []
    assert 0 < n_replies < len(rows)


def test_next_prompt_starts_with_prompt_and_output(bundled_conversations, qwen):
    table, _ = encode_conversations(bundled_conversations[:200], qwen)
    prompts, _ = rebuild(table)
    rows = table.to_pylist()
    n_compared = 0
    for k in range(len(rows) - 1):
        reply = rows[k]["output_tokens"]
        starts_blank = reply and qwen.tokenizer.decode(reply)[0].isspace()  # merges with the template's newline
        if rows[k + 1]["turn"] == rows[k]["turn"] + 1 and reply and not starts_blank:
            before = prompts[k] + reply
            assert prompts[k + 1][: len(before)] == before
            n_compared += 1
    assert n_compared > 300


def test_reply_that_begins_with_a_newline_merges_with_the_template(qwen):
    rows = encode_conversations([conversation("a", "\nb", "c")], qwen)[0].to_pylist()
    # "assistant" "\n" ends the first prompt, "assistant" "\n\n" "b" is in the second: all but one are shared
    assert rows[0]["own_tokens"][-2:] == [77091, 198]
    assert rows[1]["shared_tokens"] == len(rows[0]["own_tokens"]) - 1
    assert rows[1]["own_tokens"][:2] == [271, 65]
    assert rows[0]["output_tokens"] == [198, 65, 151645]  # \n b <|im_end|>


def test_conversation_that_the_template_refuses_has_no_rows(tmp_path):
    chat = load(samples.save_small_tokenizer(tmp_path, samples.ALTERNATING_TEMPLATE))
    conversations = [conversation("a", "b", "c"), conversation("a", system="s"), conversation("d")]
    table, refused = encode_conversations(conversations, chat)
    assert refused == {1: "roles must alternate user/assistant"}
    assert table["conversation"].to_pylist() == [0, 0, 2]
    assert table["turn"].to_pylist() == [0, 1, 0]


ONE_BY_ONE = "{% for message in messages %}{{ message.role }}: {{ message.content }};{% endfor %}!"
BAD = "{% if message.content == 'bad' %}{{ raise_exception('bad text') }}{% endif %}"


@pytest.mark.parametrize("is_one_by_one", [True, False])
def test_late_turn_that_the_template_refuses_is_lost_with_those_after_it(tmp_path, is_one_by_one):
    template = ONE_BY_ONE.replace("{{ message.role", BAD + "{{ message.role")
    template = template if is_one_by_one else template + "{% set n = messages | length %}"
    chat = load(samples.save_small_tokenizer(tmp_path, template))
    assert chat._goes_one_by_one is is_one_by_one
    late = conversation("a", "b", "c", "d", "bad", "e", "f")
    table, refused = encode_conversations([conversation("a"), late, conversation("bad", "a", "b")], chat)
    assert refused == {1: "bad text", 2: "bad text"}
    assert table["conversation"].to_pylist() == [0, 1, 1]
    whole, _ = encode_conversations([conversation("a"), conversation("a", "b", "c", "d")], chat)
    said = ["said", "said_lengths"]  # all messages of the conversation
    assert table.drop_columns(said).equals(whole.drop_columns(said))


def test_template_that_refuses_at_its_end_refuses(tmp_path):
    folder = samples.save_small_tokenizer(tmp_path, ONE_BY_ONE + "{{ raise_exception('never') }}")
    with pytest.raises(InputError, match="renders no conversation: never"):
        load(folder)


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}BODY{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LOOP.replace("BODY", "{% set c = a %}"), "did not end within 1 s"),
        (LOOP.replace("BODY", "text"), "did not end within 1 s|needs more than 0.25 GiB"),
        ("{% set x = 10 ** (10 ** 10) %}" + ONE_BY_ONE, "did not end within 1 s"),
        ("{{ 'x' * 10 ** 11 }}", "needs more than 0.25 GiB"),
        ("{% set x = [0] * 10 ** 10 %}" + ONE_BY_ONE, "needs more than 0.25 GiB"),
        ("{{ 'x' * 10 ** 7 }}", "writes 10,000,000 characters, given 4 messages of"),
        ("{% for i in range(10 ** 12) %}{% endfor %}", "renders no conversation: Range too big"),
    ],
)
def test_template_without_end_is_stopped_in_time_and_memory(tmp_path, monkeypatch, template, said):
    monkeypatch.setattr("kvprefix.files.limits.SECONDS", 1)
    monkeypatch.setattr("kvprefix.files.limits.BYTES", 2**28)
    folder = samples.save_small_tokenizer(tmp_path / "wild", template)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(InputError, match=f"^tokenizer .*wild: (its|the) chat template.* ({said})") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 2**19  # KiB
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_template_that_runs_wild_on_some_conversations_only_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("kvprefix.files.limits.SECONDS", 1)
    template = ONE_BY_ONE + "{% if messages | length > 4 %}" + LOOP + "{% endif %}"
    chat = load(samples.save_small_tokenizer(tmp_path, template))
    with pytest.raises(InputError, match="given 5 messages, (did not end|needs more)"):
        encode_conversations([conversation("a", "b", "c"), conversation("a", "b", "c", "d", "e")], chat)


def test_template_that_renders_nothing_is_refused(tmp_path):
    folder = samples.save_small_tokenizer(tmp_path, "{{- raise_exception('never') }}")
    with pytest.raises(InputError, match="renders no conversation: never"):
        load(folder)


def test_each_message_is_encoded_once(qwen):
    n_turns, encoded = 20, []
    texts = [f"message {k} " * 50 for k in range(2 * n_turns)]
    encode = qwen.encoder.encode
    watched = qwen.encoder._replace(encode=lambda batch: encoded.extend(batch) or encode(batch))
    encode_conversations([conversation(*texts)], dataclasses.replace(qwen, encoder=watched))
    for text in texts[:-1]:
        assert sum(text in piece for piece in encoded) == 1


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (ONE_BY_ONE, True),
        ("{% if messages[0].role == 'system' %}S{% endif %}" + ONE_BY_ONE, True),
        (ONE_BY_ONE.replace("{% endfor %}", "{% if loop.last %}L{% endif %}{% endfor %}"), False),
        (ONE_BY_ONE + "{{ messages | length }}", False),
        (ONE_BY_ONE + "{{ messages[-1].role }}", False),
        ("{% set rest = messages %}" + ONE_BY_ONE, False),
        ("{% set ns = namespace(n=0) %}" + ONE_BY_ONE, False),
        ("{% for message in messages[1:] %}{{ message.content }}{% endfor %}", False),
    ],
)
def test_turns_rendered_at_once_equal_each_rendered_alone(tmp_path, template, expected):
    chat = load_chat(find_tokenizer(samples.save_small_tokenizer(tmp_path / "t", template)))
    assert chat._goes_one_by_one is expected
    messages = [{"role": r, "content": c} for r, c in zip(["system", "user", "assistant", "user"], "abcd", strict=True)]
    ends = [2, 4]
    assert list(chat.render_turns(messages, ends)) == chat.render([messages[:end] for end in ends])


def test_a_template_that_leaves_its_loop_is_rendered_turn_by_turn(tmp_path):
    template = ONE_BY_ONE.replace("{% endfor %}", "{% if message.content == 'b' %}{% break %}{% endif %}{% endfor %}")
    chat = load_chat(find_tokenizer(samples.save_small_tokenizer(tmp_path / "t", template)))
    messages = [{"role": "user", "content": c} for c in "abcd"]
    assert list(chat.render_turns(messages, [1, 3])) == ["user: a;!", "user: a;user: b;!"]


def test_a_template_that_takes_parts_alone_is_learnt_with_parts(small_folder):
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{{ c.text }}{% endfor %}"
    chat = dataclasses.replace(load(small_folder), source=source + "<|im_end|>{% endfor %}")
    assert {("user\n", ""), ("assistant\n", "")} <= set(_learn_template(chat).frames)
    refuses = dataclasses.replace(chat, source="{{ raise_exception('no') if messages[-1].content is string else 'a' }}")
    assert _learn_template(refuses).constants == {"a"}
