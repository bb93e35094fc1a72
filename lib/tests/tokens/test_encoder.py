"""The fast encoder: equal ids on odd strings, or the reference; its proof is made once and said aloud if it fails."""

import json
import unicodedata

import numpy as np
import pytest
import samples

from kvprefix.studies.sharing import analyse, write_results
from kvprefix.tokens import encoder, template
from kvprefix.tokens.chat import Chat, compile_template
from kvprefix.tokens.encode import encode_conversations
from kvprefix.tokens.encoder import Encoder, build_fast, compare_encoders, list_odd_texts, refer
from kvprefix.tokens.messages import Messages, make_messages
from kvprefix.tokens.template import load_chat, open_chat
from kvprefix.tokens.tokenizer import find_tokenizer
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import MODES, load_workload

KINDS = {
    "byte-level BPE": samples.train_byte_level,
    "WordPiece": samples.train_word_piece,
    "SentencePiece BPE": lambda: samples.train_metaspace_bpe("first"),
    "SentencePiece BPE, always": lambda: samples.train_metaspace_bpe("always"),
    "SentencePiece BPE with bytes": samples.train_byte_fallback,
    "Unigram": samples.train_unigram_prepend,
}
TEXTS = ["the cat sat", " the  cat\n", "na\u00efve \u65e5\u672c", "", "<|im_start|>x<|im_end|>"]
AWKWARD = [message.text for one in samples.AWKWARD for message in one.messages]
fast = pytest.mark.skipif(encoder.find_version() is None, reason="this machine has no wheel of the fast encoder")


@pytest.fixture
def small(small_folder):
    return find_tokenizer(small_folder)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_do_not_depend_on_the_encoder(kind, derived, tmp_path, bundled_conversations):
    source = find_tokenizer(samples.save_tokenizer(tmp_path / "tokenizer", KINDS[kind]()))
    opened, again, loaded = open_chat(source, TEXTS), open_chat(source, []), load_chat(source)
    for chat in (opened, again):
        odd = [*list_odd_texts(loaded.tokenizer), *TEXTS, *AWKWARD]
        assert compare_encoders(chat.encoder, loaded.encoder, odd) == ""
        chosen = [*bundled_conversations[:20], *samples.AWKWARD]
        assert encode_conversations(chosen, chat)[0] == encode_conversations(chosen, loaded)[0]


@fast
def test_a_bpe_is_encoded_fast_and_the_tokenizer_is_not_loaded_again(derived, small, monkeypatch):
    first = open_chat(small, TEXTS)
    monkeypatch.setattr(template, "load_chat", None)
    second = open_chat(small, TEXTS)
    assert first.encoder.name == second.encoder.name == f"fastokens {encoder.find_version()}"
    plain = {name: value for name, value in vars(second).items() if name in Chat.__dataclass_fields__}
    assert plain == {name: getattr(first, name) for name in plain} | {"encoder": second.encoder}
    monkeypatch.undo()
    loaded = load_chat(small)
    assert {n: v for n, v in plain.items() if n not in ("tokenizer", "encoder")} == {
        n: getattr(loaded, n) for n in plain if n not in ("tokenizer", "encoder")
    }


@fast
def test_the_bundled_tokenizer_is_encoded_fast_and_every_part_of_unicode_alike(qwen, bundled_conversations):
    texts = [message.text for one in bundled_conversations for message in one.messages]
    chosen = open_chat(find_tokenizer(), texts).encoder
    assert chosen.name.startswith("fastokens ")
    every = ["".join(map(chr, range(k, k + 64))) for k in range(0, 0x110000, 64) if not 0xD800 <= k < 0xE000]
    assert compare_encoders(chosen, qwen.encoder, [*texts, *every]) == ""


def test_odd_texts_hold_every_block_marks_unassigned_points_and_special_tokens(qwen):
    odd = list_odd_texts(qwen.tokenizer)
    held = set("".join(odd))
    for start in range(0, 0x110000, 128):  # no block of Unicode that is larger than 128 is left out
        if not 0xD800 <= start < 0xE000:
            assert held & set(map(chr, range(start, start + 128))), hex(start)
    assert {one for one in map(chr, range(0x20000)) if unicodedata.combining(one)} <= held
    assert any(unicodedata.category(one) == "Cn" for one in held)
    assert any("<|im_end|><" in text for text in odd) and "<|im_" in odd
    assert all(text == text.encode().decode() for text in odd)  # no half surrogates


@fast
def test_a_proof_is_made_once_and_a_failed_one_is_said(derived, small, monkeypatch, capsys):
    made = []

    def build_wrong(*given):
        made.append(given)
        right = build_fast(*given)
        return Encoder("wrong 1", lambda texts: (right.encode(texts)[0] + (len(texts) > 1), right.encode(texts)[1]))

    monkeypatch.setattr(template, "build_fast", build_wrong)
    for _ in range(2):
        chat = open_chat(small, TEXTS)
        assert chat.encoder.name == refer(chat.tokenizer).name
    said = capsys.readouterr().out
    assert len(made) == 1 and said.count("the faster encoder cannot: wrong 1 gives other ids on 'aaaa") == 1
    assert said.startswith("tokenizers ")


@fast
def test_a_tokenizer_that_the_fast_encoder_refuses_is_encoded_by_the_reference(derived, small, monkeypatch, capsys):
    def refuse(*given):
        raise RuntimeError("of a kind\nthat is not known")

    monkeypatch.setattr(template, "build_fast", refuse)
    assert open_chat(small, TEXTS).encoder.name.startswith("tokenizers ")
    assert "the faster encoder cannot: of a kind that is not known" in capsys.readouterr().out


@fast
def test_the_data_are_part_of_the_proof(derived, small, monkeypatch, capsys):
    def build_blind(*given):
        right = build_fast(*given)
        return Encoder("blind 1", lambda texts: right.encode([text.replace("zebra", "horse") for text in texts]))

    monkeypatch.setattr(template, "build_fast", build_blind)
    assert open_chat(small, [*TEXTS, "a zebra"]).encoder.name.startswith("tokenizers ")
    assert "gives other ids on 'a zebra'" in capsys.readouterr().out


@fast
def test_a_damaged_proof_is_made_again(derived, small, capsys):
    open_chat(small, TEXTS)
    (file,) = derived.glob("encoder-*/tokenizer.json")
    file.write_text(file.read_text().replace("Hello", "hellO", 1) + " ")
    assert open_chat(small, TEXTS).encoder.name.startswith("fastokens ")
    assert "tokenizer.json: this cached file was cut, altered" in capsys.readouterr().out


def test_a_template_without_fences_keeps_the_reference(derived, tmp_path):
    source = find_tokenizer(samples.save_small_tokenizer(tmp_path / "t", samples.INST_TEMPLATE))
    for _ in range(2):
        chat = open_chat(source, TEXTS)
        assert not chat.is_fenced and chat.encoder.name.startswith("tokenizers ") and chat.tokenizer is not None


@pytest.mark.parametrize("mode", MODES)
def test_the_data_files_do_not_depend_on_the_encoder(derived, small_folder, tmp_path, monkeypatch, mode):
    conversations = [{"messages": samples.as_dicts(one.messages)} for one in samples.AWKWARD]
    data = tmp_path / "data.json"
    data.write_text(json.dumps(conversations))
    encoders = []
    for version in (encoder.find_version(), None):
        monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path / f"derived-{version}"))
        monkeypatch.setattr(template, "find_version", lambda version=version: version)
        made = load_workload(Parameters(data=str(data), tokenizer=str(small_folder)), progress=False)
        write_results(analyse(made), made, tmp_path / str(version))
        encoders.append(made.tokenizer["encoder"])
    assert encoders[1].startswith("tokenizers ") and not list((tmp_path / "derived-None").glob("encoder-*"))
    ours, theirs = (tmp_path / str(version) for version in (encoder.find_version(), None))
    for name in ("request_metrics.csv", "block_metrics.csv", "trace.jsonl", "stats.json"):
        one, other = ((folder / f"{mode}_{name}").read_text() for folder in (ours, theirs))
        assert one.replace(encoders[0], encoders[1]) == other


TEMPLATES = {
    "qwen": samples.QWEN_TEMPLATE,
    "inst": samples.INST_TEMPLATE,
    "trim": samples.TRIM_TEMPLATE,
    "reasoning": samples.REASONING_TEMPLATE,
    "system moved": samples.system_moved_template("last"),
    "blocks and breaks": (
        "{% for m in messages %}\n  {% if loop.index == 3 %}{% break %}{% endif %}\n"
        "{{ m.content | upper }}\n{% endfor %}\n"
    ),
    "of transformers": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{{ m | tojson }}{{ dict(a=1) }}{% endfor %}"
    ),
    "refusing": "{{ raise_exception('never') }}",
    "a way out": "{{ ''.__class__.__mro__ }}{{ messages.append(1) }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_compiled_as_transformers_does(name):
    def render(compile_):
        try:
            return compile_(TEMPLATES[name]).render(messages=messages, add_generation_prompt=True)
        except Exception as error:
            return type(error), str(error)

    messages = [{"role": role, "content": f" <{role}>\n"} for role in ("system", "user", "assistant", "user")]
    from transformers.utils.chat_template_utils import _compile_jinja_template

    assert render(compile_template) == render(_compile_jinja_template)


def test_messages_are_those_of_their_conversation():
    said = [[("user", f"question {k}"), ("assistant", 'an "\u00e9" \n\u2028')] * (k % 3) for k in range(5)]
    messages = make_messages(said)
    assert [messages.read(k) for k in range(5)] == said
    assert messages.first(4, 1) == b'{"role": "user", "content": "question 4"}'
    assert isinstance(messages, Messages) and messages.stops.dtype == messages.firsts.dtype == np.int64
