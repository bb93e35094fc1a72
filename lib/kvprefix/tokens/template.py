"""Load a tokenizer and learn where its chat template's prompts can be cut into pieces that are encoded independently.

What was learnt is kept beside the proof that a fast encoder gives the same ids, so that it is loaded once.
"""

import functools
import itertools
import re
from dataclasses import replace
from importlib import metadata

from kvprefix.files.paths import InputError, derived_folder, explain_os_errors, tell, write_bytes
from kvprefix.files.sealed import make_once, read_folder, seal_folder, seal_key, sha256_file
from kvprefix.tokens.chat import Chat, TemplateRefusal
from kvprefix.tokens.encoder import PROOF_VERSION, SAMPLE, build_fast, find_reason, find_version, refer
from kvprefix.tokens.tokenizer import QWEN_TEMPLATE, QWEN_TOOLS_TEMPLATE, load_tokenizer

_SENTINELS = [f"kvprefixmessage{k}" for k in range(4)]
_PROBES = ("a", " a", "\na", "  ", "\u2581a", "a ", "\u0301a", "1", "\n", "don't")
_KEPT = (  # of a Chat
    "has_template", "fences", "frames", "constants", "source", "special_tokens", "end_of_turn", "added_special",
    "tools_source",
)  # fmt: skip


def open_call_chat(source, calls):
    """Return what `open_chat` does, for calls of a chat server: the bundled template then knows tools.

    Texts of the first calls are part of the proof.
    """
    texts = list(itertools.islice(itertools.chain.from_iterable(_list_texts(call.body) for call in calls), SAMPLE))
    chat = open_chat(source, texts)
    return replace(chat, source=QWEN_TOOLS_TEMPLATE) if chat.source == QWEN_TEMPLATE else chat


def _list_texts(value):
    """Yield the texts in a body, however deep they lie."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _list_texts(inner)


def open_chat(source, texts):
    """Return a tokenizer with its template and the fastest encoder that is proved to give its ids.

    The Hugging Face tokenizer encodes if no fast encoder is installed, if the proof fails, or if the template has no
    fences: then the places of tokens in the text are needed, which only the reference gives.

    Parameters
    ----------
    source : TokenizerSource
    texts : sequence of str
        Of the data; a sample of them is part of the proof, if there is none yet.

    Returns
    -------
    Chat
    """
    if (version := find_version()) is None:
        return load_chat(source)
    versions = [version, *(metadata.version(name) for name in ("tokenizers", "transformers"))]
    folder = derived_folder() / f"encoder-{seal_key([PROOF_VERSION, source.fingerprint, versions])}"
    load = functools.cache(lambda: load_chat(source))
    build = functools.cache(lambda: build_fast(folder / "tokenizer.json", version))
    kept = make_once(folder, lambda: read_folder(folder), lambda: _prove(load(), build, texts, folder))["note"]
    if kept["reason"]:
        return load()
    about = {**kept["chat"], "constants": frozenset(kept["chat"]["constants"])}
    about["frames"] = tuple(tuple(frame) for frame in about["frames"])
    about["added_special"] = tuple(about["added_special"])
    return Chat(None, name=source.name, encoder=build(), **about)


def _prove(chat, build, texts, folder):
    """Keep what `open_chat` needs of a chat in a folder, or why the fast encoder is not used."""
    with explain_os_errors(folder):
        folder.mkdir(exist_ok=True)
    file, kept = folder / "tokenizer.json", {}
    if not chat.is_fenced or not chat.tokenizer.is_fast or chat.source is None:
        reason = "the template has no fences, or the tokenizer is of a kind of its own"
    else:
        write_bytes(file, chat.tokenizer.backend_tokenizer.to_str())
        kept = {"chat": {name: getattr(chat, name) for name in _KEPT} | {"constants": sorted(chat.constants)}}
        if reason := find_reason(build, chat.tokenizer, texts):
            tell(f"{chat.encoder.name} encodes, for the faster encoder cannot: {reason}")
    seal_folder(folder, {file.name: sha256_file(file)} if kept else {}, {"reason": reason, **kept})
    return read_folder(folder, check=False)


def load_chat(source):
    """Load a tokenizer and learn where its template's prompts can be cut.

    Parameters
    ----------
    source : TokenizerSource

    Returns
    -------
    Chat
    """
    tokenizer, has_template = load_tokenizer(source)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    chat = Chat(
        tokenizer, has_template, {}, name=source.name, encoder=refer(tokenizer),
        source=_find_template(tokenizer, source.name), special_tokens=tokenizer.special_tokens_map,
        end_of_turn=tokenizer.eos_token_id,
        tools_source=tokenizer.chat_template.get("tool_use") if isinstance(tokenizer.chat_template, dict) else None,
    )  # fmt: skip
    chat = replace(chat, fences=_find_fences(chat))
    return _learn_template(replace(chat, added_special=_find_added_special(chat)))


def _find_template(tokenizer, name):
    """Return a tokenizer's chat template; None if its class has an `apply_chat_template` of its own."""
    from transformers import PreTrainedTokenizerBase

    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        return None
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:  # several templates, and none is the default
        raise InputError(f"tokenizer {name}: {error}") from error


def _find_fences(chat):
    """Return the added tokens at which the tokenizer cuts a text, each tested beside awkward texts.

    A token whose text is part of another's is left out: the other may stand there.
    """
    if not chat.tokenizer.is_fast:
        return {}
    added = chat.tokenizer.added_tokens_decoder
    texts = {token.content for token in added.values()}
    plain = {
        token.content: token_id
        for token_id, token in added.items()
        if not (token.normalized or token.lstrip or token.rstrip or token.single_word)
        and sum(token.content in text for text in texts) == 1
    }
    apart = [one.tolist() for one in chat.encode(list(_PROBES))]

    def is_fence(content, token_id):
        whole = chat.encode([f"x{content}{probe}{content}y" for probe in _PROBES])
        x, y = (one.tolist() for one in chat.encode(["x", "y"]))
        return all(one.tolist() == [*x, token_id, *ids, token_id, *y] for one, ids in zip(whole, apart, strict=True))

    return {content: token_id for content, token_id in plain.items() if is_fence(content, token_id)}


def _find_added_special(chat):
    """Return the texts of the special tokens that the tokenizer adds to a text; none if they are no fences."""
    if not chat.tokenizer.is_fast:
        return "", ""
    plain, added = (chat.tokenizer("a", add_special_tokens=flag)["input_ids"] for flag in (False, True))
    start = next((k for k in range(len(added)) if added[k : k + len(plain)] == plain), 0)
    texts = {number: text for text, number in chat.fences.items()}
    before, after = added[:start], added[start + len(plain) :]
    return tuple("".join(texts.get(number, "") for number in numbers) for numbers in (before, after))


def _learn_template(chat):
    """Render a conversation of known texts to see what the template writes around and between them.

    If it does not write them, they are given once more as lists of parts.
    """
    pieces, refusals = _render_known(chat, _SENTINELS)
    if not any(text in piece for piece in pieces for text in _SENTINELS):
        parts = _render_known(chat, [[{"type": "text", "text": text}] for text in _SENTINELS])
        pieces, refusals = parts if parts[0] else (pieces, refusals)
    if not pieces:
        raise InputError(f"tokenizer {chat.name}: the chat template renders no conversation: {refusals[-1]}")
    around = [re.split("|".join(_SENTINELS), piece) for piece in pieces]
    frames = {("", ""), *((one[0], one[-1]) for one in around if len(one) > 1)}
    return replace(
        chat,
        frames=tuple(sorted(frames, key=lambda frame: (-len(frame[0]), -len(frame[1])))),
        constants=frozenset(one[0] for one in around if len(one) == 1) - set(chat.fences),
        is_fenced=all(len(one) <= 2 for one in around),
    )


def _render_known(chat, contents):
    """Return the pieces of the prompts of a conversation and of parts of it, and the refusals of the others."""
    roles, pieces, refusals = ("system", "user", "assistant", "user"), [], []
    known = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    for messages in (known, known[1:], known[:2], known[1:2]):
        try:
            pieces += chat.split(chat.render([messages])[0])
        except TemplateRefusal as refusal:
            refusals.append(refusal)
    return pieces, refusals
