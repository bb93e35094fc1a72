"""The fast encoder: equal ids on odd strings, or the reference; its proof is made once and said aloud if it fails."""

import numpy as np
import pytest
import samples
from transformers import PreTrainedTokenizerFast

from kvprefix.tokens import encoder
from kvprefix.tokens.encoder import Encoder, build_fast, choose_encoder, compare_encoders, list_odd_texts, refer
from kvprefix.tokens.messages import Messages, make_messages
from kvprefix.tokens.template import load_chat, speed_up
from kvprefix.tokens.tokenizer import find_tokenizer

KINDS = {
    "byte-level BPE": samples.train_byte_level,
    "WordPiece": samples.train_word_piece,
    "SentencePiece BPE": lambda: samples.train_metaspace_bpe("first"),
    "SentencePiece BPE, always": lambda: samples.train_metaspace_bpe("always"),
    "Unigram": samples.train_unigram_prepend,
}
TEXTS = ["the cat sat", " the  cat\n", "na\u00efve \u65e5\u672c", "", "<|im_start|>x<|im_end|>"]
AWKWARD = [message.text for one in samples.AWKWARD for message in one.messages]
fast = pytest.mark.skipif(encoder._find_version() is None, reason="this machine has no wheel of the fast encoder")


def load(train):
    return PreTrainedTokenizerFast(tokenizer_object=train(), additional_special_tokens=["<|im_start|>", "<|im_end|>"])


@pytest.mark.parametrize("kind", KINDS)
def test_ids_do_not_depend_on_the_encoder(kind, derived):
    tokenizer = load(KINDS[kind])
    chosen, reference = choose_encoder(tokenizer, kind, TEXTS), refer(tokenizer)
    assert compare_encoders(chosen, reference, [*list_odd_texts(tokenizer), *TEXTS, *AWKWARD]) == ""
    for text in TEXTS:
        assert chosen.encode([text])[0].tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


@fast
def test_the_bundled_tokenizer_is_encoded_fast_and_every_part_of_unicode_alike(qwen, bundled_conversations):
    source = find_tokenizer()
    texts = [message.text for one in bundled_conversations for message in one.messages]
    chosen = speed_up(load_chat(source), source, texts).encoder
    assert chosen.name.startswith("fastokens ")
    every = ["".join(map(chr, range(k, k + 64))) for k in range(0, 0x110000, 64) if not 0xD800 <= k < 0xE000]
    assert compare_encoders(chosen, qwen.encoder, [*texts, *every]) == ""


@fast
def test_a_proof_is_made_once_and_a_failed_one_is_said(derived, monkeypatch, capsys):
    tokenizer, made = load(samples.train_byte_level), []

    def build_wrong(*given):
        made.append(given)
        right = build_fast(*given)
        return Encoder("wrong 1", lambda texts: (right.encode(texts)[0] + (len(texts) > 1), right.encode(texts)[1]))

    monkeypatch.setattr(encoder, "build_fast", build_wrong)
    for _ in range(2):
        assert choose_encoder(tokenizer, "a", TEXTS).name == refer(tokenizer).name
    said = capsys.readouterr().out
    assert len(made) == 1 and said.count("the faster encoder cannot: wrong 1 gives other ids on 'aaaa") == 1
    assert said.startswith("tokenizers ")

    def refuse(*given):
        raise RuntimeError("of a kind\nthat is not known")

    monkeypatch.setattr(encoder, "build_fast", refuse)
    assert choose_encoder(tokenizer, "b", TEXTS).name == refer(tokenizer).name
    assert "the faster encoder cannot: of a kind that is not known" in capsys.readouterr().out


@fast
def test_the_data_are_part_of_the_proof(derived, monkeypatch, capsys):
    tokenizer = load(samples.train_byte_level)

    def build_blind(*given):
        right = build_fast(*given)
        return Encoder("blind 1", lambda texts: right.encode([text.replace("zebra", "horse") for text in texts]))

    monkeypatch.setattr(encoder, "build_fast", build_blind)
    assert choose_encoder(tokenizer, "c", [*TEXTS, "a zebra"]).name == refer(tokenizer).name
    assert "gives other ids on 'a zebra'" in capsys.readouterr().out


def test_without_a_wheel_the_reference_encodes(derived, monkeypatch):
    monkeypatch.setattr(encoder, "_find_version", lambda: None)
    tokenizer = load(samples.train_byte_level)
    assert choose_encoder(tokenizer, "d", TEXTS).name == refer(tokenizer).name and not list(derived.rglob("encoder-*"))


def test_messages_are_those_of_their_conversation():
    said = [[("user", f"question {k}"), ("assistant", 'an "\u00e9" \n\u2028')] * (k % 3) for k in range(5)]
    messages = make_messages(said)
    assert [messages.read(k) for k in range(5)] == said
    assert messages.first(4, 1) == b'{"role": "user", "content": "question 4"}'
    assert isinstance(messages, Messages) and messages.stops.dtype == messages.firsts.dtype == np.int64
