"""Turn conversations into prompt tokens: exactly `apply_chat_template`'s ids, with each message encoded once.

The template itself renders each prompt. The prompt is cut at the fences (see `template`), and each distinct piece is
encoded once, however many prompts hold it. A template without fences between messages gives one piece per prompt,
which is slower. It knows no arrival times.
"""

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.tokens.messages import make_text

PART_SCHEMA = pa.schema(
    [
        ("conversation", pa.int32()),  # index within the part
        ("conversation_id", pa.string()),
        ("turn", pa.int32()),  # 0-based
        ("messages", pa.int32()),  # the prompt is the conversation's first N messages
        ("shared_tokens", pa.int32()),  # leading tokens equal to the previous turn's prompt
        ("own_tokens", pa.list_(pa.int32())),  # the prompt's tokens after those
        ("own_is_template", pa.list_(pa.bool_())),  # True if the template, not a message, wrote the token
        ("output_tokens", pa.list_(pa.int32())),  # the reply, ended by the end-of-turn token
        ("said", pa.list_(pa.uint8())),  # in a first turn: all messages of the conversation, see `messages.Messages`
        ("said_lengths", pa.list_(pa.int32())),  # bytes of each of them
    ]
)


class _Prompt(NamedTuple):
    conversation: int
    turn: int
    messages: int
    reply: str | None
    kept: int  # leading pieces shared with the previous turn
    pieces: list


def encode_conversations(conversations, chat):
    """Tokenise every request of a few hundred conversations.

    Request k of a conversation is everything up to its k-th user message; its ids equal
    ``apply_chat_template(messages[:k], add_generation_prompt=True)``. Its output is the reply's tokens and the
    end-of-turn token; it is empty if the log has no reply. The reply's tokens are those in the next prompt if they are
    separate there, else those of the reply tokenised alone.

    Parameters
    ----------
    conversations : sequence of Conversation
    chat : Chat

    Returns
    -------
    table : pyarrow.Table
        One row per request (PART_SCHEMA), in conversation order.
    refused : dict of int to str
        Index and error of each conversation that the template refused at some turn; the table holds its turns before
        that one, and none from there on.
    """
    prompts, refused = _render_all(conversations, chat)
    ids, masks = _encode_pieces(prompts, conversations, chat)
    end_of_turn = chat.end_of_turn
    end = [] if end_of_turn is None else [np.array([end_of_turn], np.int32)]
    shared, own, templates, outputs, said, said_lengths = [], *(_Lists() for _ in range(5))
    previous, stops = [], [0]
    for prompt in prompts:
        kept, within = _count_shared(previous if prompt.turn else [], prompt, ids)
        added = prompt.pieces[kept:]
        del stops[kept + 1 :]
        shared.append(stops[-1] + within)
        own.append([ids[added[0]][within:], *[ids[piece] for piece in added[1:]]])
        templates.append([masks[added[0]][within:], *[masks[piece] for piece in added[1:]]])
        outputs.append([] if prompt.reply is None else [_reply_ids(prompt, ids, chat), *end])
        texts = [] if prompt.turn else [make_text(m) for m in conversations[prompt.conversation].messages]
        said.append([np.frombuffer(b"".join(texts), np.uint8)])
        said_lengths.append([np.array([len(text) for text in texts], np.int32)])
        for piece in added:
            stops.append(stops[-1] + len(ids[piece]))
        previous = prompt.pieces
    columns = [
        [prompt.conversation for prompt in prompts],
        [conversations[prompt.conversation].id for prompt in prompts],
        [prompt.turn for prompt in prompts],
        [prompt.messages for prompt in prompts],
        shared,
        own,
        templates,
        outputs,
        said,
        said_lengths,
    ]
    arrays = [_column(values, field.type) for values, field in zip(columns, PART_SCHEMA, strict=True)]
    return pa.table(arrays, schema=PART_SCHEMA), refused


class _Lists:
    """A column of lists: each list is given as several arrays."""

    def __init__(self):
        self.arrays, self.lengths = [], []

    def append(self, arrays):
        self.arrays += arrays
        self.lengths.append(sum(map(len, arrays)))


def _render_all(conversations, chat):
    prompts, refused = [], {}
    for index, conversation in enumerate(conversations):
        messages = [{"role": message.role, "content": message.text} for message in conversation.messages]
        ends = conversation.request_ends()
        cuts = _split_turns(chat.render_turns(messages, ends), chat)
        try:
            for turn, (end, (kept, pieces)) in enumerate(zip(ends, cuts, strict=True)):
                prompts.append(_Prompt(index, turn, end, _reply(conversation.messages, end), kept, pieces))
        except TemplateRefusal as refusal:
            refused[index] = str(refusal)
    return prompts, refused


def _split_turns(texts, chat):
    """Cut each turn's prompt; yield (number of leading pieces known to be the previous turn's, all pieces).

    A prompt that continues the previous one is cut only after the last fence of that one. The text before is cut
    already, and the longer text is cut there in the same way, because no fence holds another.
    """
    known, known_pieces = None, []
    for text in texts:
        if known is not None and text.startswith(known):
            pieces = known_pieces + chat.split(text[len(known) :])
        else:
            known_pieces, pieces = [], chat.split(text)
        yield len(known_pieces), pieces
        last = len(pieces) - 1
        while last > 0 and pieces[last] not in chat.fences:
            last -= 1
        known_pieces = pieces[: last + 1] if pieces[last] in chat.fences else []
        known = text[: len(text) - sum(map(len, pieces[last + 1 :]))] if known_pieces else None


def _reply(messages, end):
    """Return the text of the reply to the user message before `end`; None if there is none."""
    answered = end < len(messages) and messages[end].role == "assistant"
    return messages[end].text if answered else None


def _encode_pieces(prompts, conversations, chat):
    """Encode each distinct piece, and each reply that no prompt holds as a piece; mark the template's tokens.

    Returns
    -------
    ids, masks : dict of str to ndarray
        Token ids (int32) of each piece or reply; for each piece, which of its tokens the template wrote (bool). Pieces
        are identified by text, so a message equal to a text that the template writes alone counts as the template's.
    """
    owner = {piece: prompt for prompt in prompts for piece in prompt.pieces[prompt.kept :] if piece not in chat.fences}
    ids = {content: np.array([token], np.int32) for content, token in chat.fences.items()}
    masks = {content: np.ones(1, bool) for content in chat.fences}
    replies = {p.reply: None for p in prompts if p.reply is not None and _reply_piece(p) not in owner}
    if chat.is_fenced or not chat.tokenizer.is_fast:
        texts = {**owner, **replies}
        ids.update(zip(texts, chat.encode(list(texts)), strict=True))  # in one call: many small ones cost more
        masks.update({piece: _mask_by_frame(piece, ids[piece], chat) for piece in owner})
        return ids, masks
    encoded = chat.encode_with_offsets(list(owner))
    for piece, encoding in zip(owner, encoded, strict=True):
        ids[piece] = np.array(encoding.ids, np.int32)
    offsets = {p: np.array(e.offsets).reshape(-1, 2) for p, e in zip(owner, encoded, strict=True)}
    for prompt in {id(prompt): prompt for prompt in owner.values()}.values():
        messages = conversations[prompt.conversation].messages[: prompt.messages]
        masks.update(_mask_by_offsets(prompt.pieces, offsets, _find_texts(prompt.pieces, messages, chat)))
    ids.update(zip(replies, chat.encode(list(replies)), strict=True))
    return ids, masks


def _mask_by_frame(piece, ids, chat):
    """Mark the template's tokens around a message; a token that merges template and message is the message's."""
    mask = np.zeros(len(ids), bool)
    if piece in chat.constants:
        mask[:] = True
    elif chat.is_fenced:
        head, tail = next(f for f in chat.frames if piece.startswith(f[0]) and piece.endswith(f[1]))
        mask[: count_common(chat.frame_ids[head], ids)] = True
        if tail:
            mask[len(ids) - count_common(chat.frame_ids[tail][::-1], ids[::-1]) :] = True
    return mask


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


def _reply_piece(prompt):
    """Return the prompt's last piece and the reply: a piece of the next prompt if the template only appends."""
    return prompt.pieces[-1] + prompt.reply


def _reply_ids(prompt, ids, chat):
    start, whole = ids[prompt.pieces[-1]], ids.get(_reply_piece(prompt))
    if whole is not None and count_common(start, whole) == len(start):
        return whole[len(start) :]
    if prompt.reply not in ids:  # it merges with the prompt's end, so the next prompt does not show its tokens
        ids[prompt.reply] = chat.encode([prompt.reply])[0]
    return ids[prompt.reply]


def _count_shared(previous, prompt, ids):
    """Return how many leading pieces a prompt shares with the previous turn, and how many tokens of the next piece."""
    kept = prompt.kept
    most = min(len(previous), len(prompt.pieces) - 1)
    while kept < most and previous[kept] == prompt.pieces[kept]:
        kept += 1
    if kept >= len(previous):
        return kept, 0
    return kept, count_common(ids[previous[kept]], ids[prompt.pieces[kept]])


def count_common(a, b):
    """Return the length of the common prefix of two arrays.

    >>> count_common(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
    2
    """
    n = min(len(a), len(b))
    differs = (a[:n] != b[:n]).nonzero()[0]
    return int(differs[0]) if len(differs) else n


def _column(values, kind):
    if not isinstance(values, _Lists):
        return pa.array(values, kind)
    offsets = np.concatenate(([0], np.cumsum(values.lengths, dtype=np.int64)))
    flat = np.concatenate(values.arrays) if values.arrays else np.zeros(0, kind.value_type.to_pandas_dtype())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat, kind.value_type))
