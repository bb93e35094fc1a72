"""Turn conversations into prompt tokens: exactly `apply_chat_template`'s ids, with each message encoded once.

The template itself renders each prompt. The prompt is cut at the fences (see `template`), and each distinct piece is
encoded once, however many prompts hold it. A template without fences between messages gives one piece per prompt,
which is slower. It knows no arrival times.
"""

import itertools
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from kvprefix.tokens.arrays import Tokens
from kvprefix.tokens.assemble import assemble_prompts, gather_replies, mark_frames
from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.tokens.messages import add_up, make_text
from kvprefix.tokens.unfenced import encode_by_offsets

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


class _Assembled(NamedTuple):
    turns: np.ndarray
    shared: np.ndarray  # these and the next as `assemble_prompts`
    lengths: np.ndarray
    own: np.ndarray
    own_is_template: np.ndarray
    outputs: tuple  # lengths and tokens


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
    found = _assemble(prompts, chat, lambda numbers, n: _encode_texts(numbers, n, prompts, conversations, chat))
    columns = [
        [prompt.conversation for prompt in prompts],
        [conversations[prompt.conversation].id for prompt in prompts],
        found.turns,
        [prompt.messages for prompt in prompts],
        found.shared,
        _lists(found.lengths, found.own),
        _lists(found.lengths, found.own_is_template),
        _lists(*found.outputs),
        *_write_messages(prompts, conversations),
    ]
    return pa.table(columns, schema=PART_SCHEMA), refused


def encode_prompts(rendered, chat):
    """Tokenise prompts that are rendered already.

    Parameters
    ----------
    rendered : iterable of iterable of (str, str or None)
        For each conversation, the text of each prompt and of its reply, if it has one.
    chat : Chat

    Returns
    -------
    Tokens
        A row per prompt, in order. Without a template's fences, no token is marked as the template's.
    """
    prompts = []
    for index, turns in enumerate(rendered):
        texts, replies = zip(*turns, strict=True)
        cut = zip(_split_turns(texts, chat), replies, strict=True)
        prompts += [_Prompt(index, turn, 0, reply, *one) for turn, (one, reply) in enumerate(cut)]
    found = _assemble(prompts, chat, lambda numbers, n: encode_pieces(numbers, n, chat))
    lengths, output = found.outputs
    return Tokens(
        np.where(found.turns == 0, -1, np.arange(len(prompts)) - 1), found.shared.astype(np.int64),
        add_up(found.lengths), found.own, found.own_is_template, add_up(lengths), output,
    )  # fmt: skip


def _assemble(prompts, chat, encode):
    """Encode each distinct piece and put the prompts and replies together; `encode` is as `_encode_texts`."""
    numbers = {fence: k for k, fence in enumerate(chat.fences)}
    added = [[numbers.setdefault(text, len(numbers)) for text in prompt.pieces[prompt.kept :]] for prompt in prompts]
    n_pieces = len(numbers)
    whole = [-1 if p.reply is None else numbers.get(p.pieces[-1] + p.reply, -1) for p in prompts]
    alone = [
        -1 if p.reply is None or number >= 0 else numbers.setdefault(p.reply, len(numbers))
        for p, number in zip(prompts, whole, strict=True)
    ]
    ids, stops, is_template = encode(numbers, n_pieces)
    pieces, offsets = np.fromiter(itertools.chain(*added), np.int32), add_up(map(len, added))
    turns = np.array([prompt.turn for prompt in prompts], np.int32)
    kept = np.array([prompt.kept for prompt in prompts], np.int32)
    own = assemble_prompts(pieces, offsets, kept, turns == 0, ids, stops, is_template)
    outputs = _gather_outputs(prompts, (pieces[offsets[1:] - 1], whole, alone), ids, stops, chat)
    return _Assembled(turns, *own, outputs)


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


def _encode_texts(numbers, n_pieces, prompts, conversations, chat):
    """Encode each distinct piece, and each reply that no prompt holds as a piece; mark the template's tokens.

    Parameters
    ----------
    numbers : dict of str to int
        The number of each text: the fences first, then other pieces, then replies. The texts of the frames are added.
    n_pieces : int
        The number of fences and other pieces.

    Returns
    -------
    ids : ndarray of int32
    stops : ndarray of int64
        Text k has the tokens ``ids[stops[k]:stops[k + 1]]``.
    is_template : ndarray of bool
        Which tokens of the pieces the template wrote. Pieces are identified by text, so a message equal to a text that
        the template writes alone counts as the template's.
    """
    fences, texts = np.fromiter(chat.fences.values(), np.int32), list(numbers)
    if not chat.is_fenced and chat.tokenizer.is_fast:
        found = encode_by_offsets(prompts, texts[len(fences) : n_pieces], conversations, chat)
        rest, rest_stops = chat.encoder.encode(texts[n_pieces:])
        lengths = [*map(len, found[0]), *np.diff(rest_stops)]
        ids, stops = np.concatenate([fences, *found[0], rest]), add_up([*[1] * len(fences), *lengths])
        return ids, stops, np.concatenate([np.ones(len(fences), bool), *found[1], np.zeros(len(rest), bool)])
    return encode_pieces(numbers, n_pieces, chat)


def encode_pieces(numbers, n_pieces, chat):
    """Encode numbered texts, the fences first, each once; mark the template's tokens by the frames it puts around.

    Parameters
    ----------
    numbers : dict of str to int
        The texts of the frames are added.
    n_pieces : int
        The number of texts in which tokens are marked.
    chat : Chat

    Returns
    -------
    ids, stops, is_template
        As `_encode_texts`. A template without fences between messages marks no tokens but constant pieces.
    """
    fences, texts = np.fromiter(chat.fences.values(), np.int32), list(numbers)
    is_constant = np.array([text in chat.fences or text in chat.constants for text in texts[:n_pieces]], bool)
    heads, tails = np.full((2, n_pieces), -1, np.int32)
    for k in np.flatnonzero(~is_constant).tolist() if chat.is_fenced else ():
        head, tail = next(one for one in chat.frames if texts[k].startswith(one[0]) and texts[k].endswith(one[1]))
        heads[k] = numbers.setdefault(head, len(numbers)) if head else -1
        tails[k] = numbers.setdefault(tail, len(numbers)) if tail else -1
    ids, stops = chat.encoder.encode(list(numbers)[len(fences) :])  # in one call: many small ones cost more
    ids, stops = np.concatenate([fences, ids]), np.concatenate([np.arange(len(fences)), stops + len(fences)])
    return ids, stops, mark_frames(heads, tails, is_constant, ids, stops)


def _gather_outputs(prompts, numbers, ids, stops, chat):
    """Return the lengths and the tokens of all outputs; a reply that merges with its prompt's end is encoded alone."""
    last, whole, alone = (np.array(one, np.int32) for one in numbers)
    end = np.array([] if chat.end_of_turn is None else [chat.end_of_turn], np.int32)
    lengths, tokens = gather_replies(last, whole, alone, ids, stops, end)
    if len(merged := np.flatnonzero(lengths < 0)):
        more, more_stops = chat.encoder.encode([prompts[k].reply for k in merged])
        alone[merged] = len(stops) - 1 + np.arange(len(merged))
        ids, stops = np.concatenate([ids, more]), np.concatenate([stops, stops[-1] + more_stops[1:]])
        lengths, tokens = gather_replies(last, whole, alone, ids, stops, end)
    return lengths, tokens


def _write_messages(prompts, conversations):
    """Return the columns `said` and `said_lengths`: all messages of a conversation, in the row of its first turn."""
    rows = [() if prompt.turn else conversations[prompt.conversation].messages for prompt in prompts]
    texts = [[make_text(message) for message in messages] for messages in rows]
    lengths = [[len(text) for text in one] for one in texts]
    said = np.frombuffer(b"".join(itertools.chain(*texts)), np.uint8)
    return (
        _lists([sum(one) for one in lengths], said),
        _lists([len(one) for one in lengths], np.fromiter(itertools.chain(*lengths), np.int32)),
    )


def _lists(lengths, values):
    """Return a column of lists of these lengths, whose values are given one after the other."""
    return make_lists(add_up(lengths), values)


def make_lists(offsets, values):
    """Return a column of lists; list k has the values from ``offsets[k]`` up to ``offsets[k + 1]``."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
