"""Learn where a chat template's prompts can be cut into pieces that are encoded independently.

A *fence* is a special token at which the tokenizer cuts a text before anything else; BPE never merges across it. The
text between fences is a *piece*. `encode` encodes conversations.
"""

import contextlib
import functools
import itertools
import re
from dataclasses import dataclass, replace

from kvprefix.files.limits import bounded
from kvprefix.files.paths import InputError
from kvprefix.tokens.encoder import Encoder, choose_encoder, refer
from kvprefix.tokens.tokenizer import load_tokenizer

_MOST_WRITTEN = 2**20  # characters that a template may write beside the messages
_SENTINELS = [f"kvprefixmessage{k}" for k in range(4)]
_PROBES = ("a", " a", "\na", "  ", "\u2581a", "a ", "\u0301a", "1", "\n", "don't")


class _Watched(list):
    """Messages that note how much the template had written (`chunks`) each time it asked for the next message."""

    def __init__(self, messages):
        super().__init__(messages)
        self.chunks, self.starts = [], []

    def __iter__(self):
        for message in super().__iter__():
            self.starts.append(len(self.chunks))
            yield message
        self.starts.append(len(self.chunks))


class TemplateRefusal(Exception):
    """A chat template raised an error on a conversation; some insist on strictly alternating roles."""


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its template, and what was learnt about the two.

    Attributes
    ----------
    tokenizer : PreTrainedTokenizerBase
    has_template : bool
        False if the fallback template is used.
    fences : dict of str to int
        Special tokens, by text, at which a text can be cut without changing its tokens.
    frames : tuple of (str, str)
        What the template writes before and after a message's text within a piece, longest first; ends with ("", "").
    constants : frozenset of str
        Pieces that hold no message.
    is_fenced : bool
        True if no piece holds two messages, so that each message is encoded once.
    name : str
        The tokenizer's name, for error messages.
    encoder : Encoder
    """

    tokenizer: object
    has_template: bool
    fences: dict
    frames: tuple = ()
    constants: frozenset = frozenset()
    is_fenced: bool = True
    name: str = ""
    encoder: Encoder | None = None

    def render(self, conversations):
        """Return the prompt text of each message list, ready for the model's reply."""
        return [self._render(messages) for messages in conversations]

    def render_turns(self, messages, ends):
        """Yield the prompt text of ``messages[:end]`` for each of the ends, ready for the model's reply.

        A template that goes through the messages one by one is rendered once: the text before it asks for message k,
        and the text after the last message, are the prompt of the first k. A template that refuses some message is
        rendered turn by turn, up to the first turn that it refuses.
        """
        watched, is_whole = _Watched(messages[: ends[-1]]), False
        if self._goes_one_by_one:
            with contextlib.suppress(TemplateRefusal), self._running(watched):
                for chunk in self._template.generate(self._context(watched)):
                    watched.chunks.append(chunk)
                is_whole = len(watched.starts) == len(watched) + 1
        if not is_whole:  # another kind of template, or it refused a message, or left its loop early
            yield from (self._render(messages[:end]) for end in ends)
            return
        tail = "".join(watched.chunks[watched.starts[-1] :])
        text, done = "", 0
        for end in ends:
            text += "".join(watched.chunks[done : watched.starts[end]])
            done = watched.starts[end]
            yield self._check_length(text + tail, messages)

    def _render(self, messages):
        with self._running(messages):
            if self._template is None:
                text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            else:
                text = self._template.render(self._context(messages))
        return self._check_length(text, messages)

    @contextlib.contextmanager
    def _running(self, messages):
        """Limit the template's time and memory; any other error of its code counts as a refusal."""
        with bounded(f"tokenizer {self.name}: its chat template, given {len(messages):,} messages,"):
            try:
                yield
            except MemoryError:
                raise
            except Exception as error:  # the template's raise_exception, or any other error in its code
                raise TemplateRefusal(str(error).partition("\n")[0][:300] or type(error).__name__) from error

    def _check_length(self, text, messages):
        if len(text) > _MOST_WRITTEN:
            given = sum(len(message["content"]) for message in messages)
            if len(text) > _MOST_WRITTEN + 16 * given:
                raise InputError(
                    f"tokenizer {self.name}: its chat template writes {len(text):,} characters, given "
                    f"{len(messages):,} messages of {given:,}; a template that runs wild?"
                )
        return text

    def split(self, text):
        """Cut a prompt into pieces and fences, in order, without empty pieces."""
        if not self.fences:
            return [text]
        return [piece for piece in self._fence_pattern.split(text) if piece] or [text]

    def encode(self, texts):
        """Return the token ids of each text, as int32 arrays."""
        ids, stops = self.encoder.encode(texts)
        return [ids[start:stop] for start, stop in itertools.pairwise(stops.tolist())]

    def encode_with_offsets(self, texts):
        """Return the `tokenizers.Encoding` of each text: ids, and the characters that each token covers."""
        return self.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)

    @functools.cached_property
    def _template(self):
        """The compiled template; None if the tokenizer's class has an `apply_chat_template` of its own."""
        from transformers import PreTrainedTokenizerBase
        from transformers.utils.chat_template_utils import _compile_jinja_template

        if type(self.tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
            return None
        return _compile_jinja_template(self.tokenizer.get_chat_template())

    def _context(self, messages):
        settings = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
        return {**self._special_tokens, **settings}

    @functools.cached_property
    def _special_tokens(self):
        return self.tokenizer.special_tokens_map

    @functools.cached_property
    def _goes_one_by_one(self):
        """Whether the template's text for a message depends only on that message and those before it.

        Its source shows it: `messages` occurs in one plain loop and in `messages[0]` only, and nothing can see how many
        messages follow, or carry a state past the loop.
        """
        source = re.sub(r"\bmessages\s*\[\s*0\s*\]", "", self.tokenizer.get_chat_template())
        loops = re.findall(r"{%[-+]?\s*for\s+\w+\s+in\s+messages\s*[-+]?%}", source)
        carries = re.search(r"\b(loop|recursive|namespace|joiner|cycler|macro|generation)\b", source)
        return self._template is not None and len(loops) == 1 == source.count("messages") and not carries

    @functools.cached_property
    def frame_ids(self):
        """The token ids of each text of the frames, by text."""
        texts = sorted({text for frame in self.frames for text in frame})
        return dict(zip(texts, self.encode(texts), strict=True))

    @functools.cached_property
    def _fence_pattern(self):
        longest_first = sorted(self.fences, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


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
    chat = Chat(tokenizer, has_template, {}, name=source.name, encoder=refer(tokenizer))
    return _learn_template(replace(chat, fences=_find_fences(chat)))


def speed_up(chat, source, texts):
    """Return a chat with the fastest encoder that gives its tokenizer's ids (`encoder.choose_encoder`).

    A template without fences needs the places of tokens in the text, which only the reference gives.
    """
    if not chat.is_fenced:
        return chat
    return replace(chat, encoder=choose_encoder(chat.tokenizer, source.fingerprint, texts))


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


def _learn_template(chat):
    """Render a conversation of known texts to see what the template writes around and between them."""
    roles = ("system", "user", "assistant", "user")
    known = [{"role": role, "content": text} for role, text in zip(roles, _SENTINELS, strict=True)]
    frames, constants, is_fenced, rendered = set(), set(), True, 0
    for messages in (known, known[1:], known[:2], known[1:2]):
        try:
            text = chat.render([messages])[0]
        except TemplateRefusal as refusal:
            reason = refusal
            continue
        rendered += 1
        for piece in chat.split(text):
            around = re.split("|".join(_SENTINELS), piece)
            is_fenced = is_fenced and len(around) <= 2
            if len(around) == 1:
                constants.add(piece)
            else:
                frames.add((around[0], around[-1]))
    if not rendered:
        raise InputError(f"tokenizer {chat.name}: the chat template renders no conversation: {reason}")
    longest_first = sorted({*frames, ("", "")}, key=lambda frame: (-len(frame[0]), -len(frame[1])))
    return replace(
        chat, frames=tuple(longest_first), constants=frozenset(constants) - set(chat.fences), is_fenced=is_fenced
    )
