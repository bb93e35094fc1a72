"""Encode prompts of a template without fences between messages: each prompt whole, with the places of its tokens."""

import re

import numpy as np

from kvprefix.tokens.chat import TemplateRefusal


def encode_by_offsets(prompts, texts, conversations, chat):
    """Encode pieces, and mark the tokens that cover no character of a message.

    Parameters
    ----------
    prompts : list
        With their `pieces`, those known to be the previous prompt's (`kept`), their conversation and its `messages`.
    texts : list of str
        The distinct pieces of all prompts.
    conversations : sequence of Conversation
    chat : Chat

    Returns
    -------
    ids, masks : list of ndarray
        Of each text: its tokens (int32), and which of them the template wrote (bool).
    """
    encoded = dict(zip(texts, chat.encode_with_offsets(texts), strict=True))
    offsets = {piece: np.array(one.offsets).reshape(-1, 2) for piece, one in encoded.items()}
    owner, masks = {piece: p for p in prompts for piece in p.pieces[p.kept :] if piece in encoded}, {}
    for prompt in {id(prompt): prompt for prompt in owner.values()}.values():
        messages = conversations[prompt.conversation].messages[: prompt.messages]
        masks.update(_mask_by_offsets(prompt.pieces, offsets, _find_texts(prompt.pieces, messages, chat)))
    return [np.array(one.ids, np.int32) for one in encoded.values()], [masks[piece] for piece in texts]


def _mask_by_offsets(pieces, offsets, is_text):
    """Mark the tokens without any character of a message; `is_text` marks those characters in the prompt."""
    texts_before = np.concatenate(([0], np.cumsum(is_text)))
    masks, start = {}, 0
    for piece in pieces:
        if piece in offsets:
            first, last = offsets[piece].T + start
            masks[piece] = texts_before[last] == texts_before[first]
        start += len(piece)
    return masks


def _find_texts(pieces, messages, chat):
    """Return which characters of a prompt are a message's, (n_characters,) bool.

    The template is rendered once more with a mark in place of each message. If the texts (as they are, or stripped) in
    place of the marks give the prompt, they lie there. Otherwise the template changes texts, such as leaving out
    earlier reasoning, and each text is searched for in order.
    """
    prompt = "".join(pieces)
    marks = [f"kvprefixmessage{k}end" for k in range(len(messages))]
    marked = [{"role": m.role, "content": mark} for m, mark in zip(messages, marks, strict=True)]
    try:
        parts = re.split("kvprefixmessage([0-9]+)end", chat.render([marked])[0])
    except TemplateRefusal:
        parts = []
    for texts in ([m.text for m in messages], [m.text.strip() for m in messages]):
        filled = [texts[int(part)] if k % 2 else part for k, part in enumerate(parts)]
        if "".join(filled) == prompt:
            return np.repeat(np.arange(len(filled)) % 2 == 1, [len(part) for part in filled])
    is_text, position = np.zeros(len(prompt), bool), 0
    for text in texts:
        start = prompt.find(text, position)
        if start >= 0:
            is_text[start : start + len(text)] = True
            position = start + len(text)
    return is_text
