"""A tokenizer with its chat template: it renders prompts, cuts them at the fences and encodes texts.

A *fence* is a special token at which the tokenizer cuts a text before anything else; BPE never merges across it. The
text between fences is a *piece*. `template` learns the fences; `encode` encodes conversations.
"""

import contextlib
import functools
import itertools
import re
from dataclasses import dataclass, field

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kvprefix.files.extras import import_transformers
from kvprefix.files.limits import bounded
from kvprefix.files.paths import InputError
from kvprefix.tokens.encoder import Encoder

_MOST_WRITTEN = 2**20  # characters that a template may write beside the messages
# Words of templates that need what only transformers adds to jinja
_OF_TRANSFORMERS = re.compile(r"\b(tojson|strftime_now|dict|namespace|generation)\b")


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
    tokenizer : PreTrainedTokenizerBase or None
        None if what was kept about it is enough.
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
    source : str or None
        The template; None if the tokenizer's class renders prompts in its own way.
    tools_source : str or None
        The template for prompts with tools, if the tokenizer brings one of its own for them.
    special_tokens : dict of str to str
        By the names that a template uses.
    end_of_turn : int or None
        The token that ends a reply.
    added_special : tuple of (str, str)
        The special tokens, as texts, that the tokenizer itself puts before and after a text if it is asked to.
    """

    tokenizer: object
    has_template: bool
    fences: dict
    frames: tuple = ()
    constants: frozenset = frozenset()
    is_fenced: bool = True
    name: str = ""
    encoder: Encoder | None = None
    source: str | None = None
    special_tokens: dict = field(default_factory=dict)
    end_of_turn: int | None = None
    added_special: tuple = ("", "")
    tools_source: str | None = None

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
            with contextlib.suppress(TemplateRefusal), self.running(watched):
                for chunk in self.compiled.generate(self._context(watched)):
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
            yield self.check_length(text + tail, messages)

    def _render(self, messages):
        with self.running(messages):
            if self.compiled is None:
                text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            else:
                text = self.compiled.render(self._context(messages))
        return self.check_length(text, messages)

    @contextlib.contextmanager
    def running(self, messages):
        """Limit the template's time and memory; any other error of its code counts as a refusal."""
        with bounded(f"tokenizer {self.name}: its chat template, given {len(messages):,} messages,"):
            try:
                yield
            except MemoryError:
                raise
            except Exception as error:  # the template's raise_exception, or any other error in its code
                raise TemplateRefusal(str(error).partition("\n")[0][:300] or type(error).__name__) from error

    def check_length(self, text, messages, tools=None):
        """Return a prompt's text; raise InputError if the template wrote far more than it was given."""
        if len(text) > _MOST_WRITTEN:
            given = sum(_measure(message) for message in messages) + _measure(tools)
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
    def compiled(self):
        return None if self.source is None else compile_template(self.source)

    def _context(self, messages):
        settings = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
        return {**self.special_tokens, **settings}

    @functools.cached_property
    def _goes_one_by_one(self):
        """Whether the template's text for a message depends only on that message and those before it.

        Its source shows it: `messages` occurs in one plain loop and in `messages[0]` only, and nothing can see how many
        messages follow, or carry a state past the loop.
        """
        source = re.sub(r"\bmessages\s*\[\s*0\s*\]", "", self.source or "")
        loops = re.findall(r"{%[-+]?\s*for\s+\w+\s+in\s+messages\s*[-+]?%}", source)
        carries = re.search(r"\b(loop|recursive|namespace|joiner|cycler|macro|generation)\b", source)
        return len(loops) == 1 == source.count("messages") and not carries

    @functools.cached_property
    def _fence_pattern(self):
        longest_first = sorted(self.fences, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


def _measure(value):
    """Return the number of characters of the texts in a message or a tool, however deep they lie."""
    if isinstance(value, str):
        return len(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_measure, inner))


@functools.lru_cache(maxsize=16)
def compile_template(source):
    """Return a chat template compiled as transformers does it; a plain one without importing transformers.

    Notes
    -----
    transformers 5.23, `_cached_compile_jinja_template` in `utils/chat_template_utils.py`: a sandbox in which nothing
    can be changed, with `break` and `continue`.
    """
    if _OF_TRANSFORMERS.search(source):
        import_transformers()
        from transformers.utils.chat_template_utils import _compile_jinja_template

        return _compile_jinja_template(source)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise
    return environment.from_string(source)


def _raise(message):
    raise TemplateError(message)
