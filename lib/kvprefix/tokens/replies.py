"""Find the tokens of replies: what a template writes behind a prompt if the reply is put there.

What the model sampled may have been other tokens of the same text; a log of texts does not say.
"""

import numpy as np

from kvprefix.servers.prompt import Prompt
from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.tokens.messages import add_up
from kvprefix.tokens.render import render_prompt

_SAID = "kvprefixmessage"
NO_REPLY, RENDERED, RENDERED_APART = range(3)  # apart: its first token merges with the prompt's end, or lies elsewhere


class Replies:
    """The replies of some prompts, as texts.

    Attributes
    ----------
    found : list of (int, str, str)
        The row of a prompt, the text after the prompt's last fence, and the reply's text up to and with what ends it.
    apart : set of int
        Rows whose reply does not stand behind the prompt as it is.
    end : str or None
        The fence that the template writes at the end of a reply.
    after : str
        What it writes behind a reply, if that is no fence.
    """

    def __init__(self, chat, facts):
        self.chat, self.found, self.apart = chat, [], set()
        self.end, self.after = find_end(chat, facts)

    def add(self, row, text, last, render, render_bare):
        """Add a reply.

        Parameters
        ----------
        row : int
        text : str
            The prompt.
        last : str
            Its text after its last fence.
        render : callable
            ``render(generation)`` returns the text with the reply; with the start of another reply, or without.
        render_bare : callable
            It returns the prompt without the start of a reply.

        Raises
        ------
        TemplateRefusal
            The template writes the messages before the reply in another way if the reply follows.
        """
        answered = render(True)
        start = _count_common(text, answered)
        if self.end is None or self.end not in answered[start:]:
            answered = render(False)
            start = _count_common(text, answered)
        if start < len(text):
            if not answered.startswith(render_bare()):
                raise TemplateRefusal("with the reply behind them, it writes the messages before in another way")
            self.apart.add(row)
        reply = answered[start:]
        if self.end is not None and (stop := reply.find(self.end)) >= 0:
            reply = reply[: stop + len(self.end)]
        else:
            reply = reply.removesuffix(self.after)
        self.found.append((row, last, reply))

    def number(self, numbers):
        """Number the pieces of all replies, each cut together with the end of its prompt; return them."""
        whole = [
            self.chat.split(reply if row in self.apart else last + reply) if last + reply else []
            for row, last, reply in self.found
        ]
        return [[numbers.setdefault(piece, len(numbers)) for piece in pieces] for pieces in whole]

    def gather(self, n_rows, whole, lasts, ids, stops):
        """Return the tokens of the replies of all rows.

        Parameters
        ----------
        n_rows : int
        whole : list of list of int
            What `number` returned.
        lasts : list of int
            For each reply, the number of the text after the prompt's last fence; -1 for none.
        ids : ndarray of int32
        stops : ndarray of int64
            Piece k has the tokens ``ids[stops[k]:stops[k + 1]]``.

        Returns
        -------
        offsets : (n_rows + 1,) ndarray of int64
        tokens : ndarray of int32
        kinds : (n_rows,) ndarray of int8
        """
        outputs, kinds = [np.zeros(0, np.int32)] * n_rows, np.zeros(n_rows, np.int8)
        merged = []
        for (row, last, reply), pieces, before in zip(self.found, whole, lasts, strict=True):
            parts = [ids[stops[k] : stops[k + 1]] for k in pieces]
            kinds[row] = RENDERED_APART if row in self.apart else RENDERED
            if row not in self.apart and last:
                head = ids[stops[before] : stops[before + 1]]
                if not np.array_equal(parts[0][: len(head)], head):
                    merged.append((row, reply))
                    continue
                parts[0] = parts[0][len(head) :]
            outputs[row] = self._finish(parts)
        for row, reply in merged:
            kinds[row] = RENDERED_APART
            outputs[row] = self._finish(self.chat.encode(self.chat.split(reply)))
        return add_up(map(len, outputs)), np.concatenate([np.zeros(0, np.int32), *outputs]), kinds

    def _finish(self, parts):
        """Return a reply's tokens; the end-of-turn token is added if the template does not write it."""
        end = self.chat.end_of_turn if self.end is None else self.chat.fences[self.end]
        if end is not None and not (parts and len(parts[-1]) and parts[-1][-1] == end):
            parts = [*parts, np.array([end], np.int32)]
        return np.concatenate([np.zeros(0, np.int32), *parts])


def find_end(chat, facts):
    """Return the fence that ends a reply, and what else the template writes behind one if it writes no fence.

    The fence is the tokenizer's end-of-turn token if the template writes that, else the first one.
    """
    messages = [{"role": "user", "content": _SAID}, {"role": "assistant", "content": _SAID}]
    if facts.content_format == "openai":
        messages = [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in messages]
    try:
        after = render_prompt(chat, Prompt(messages, generation=False)).rpartition(_SAID)[2]
    except TemplateRefusal:
        return None, ""
    fences = [piece for piece in chat.split(after) if piece in chat.fences] if after else []
    if not fences:
        return None, after
    return next((text for text in fences if chat.fences[text] == chat.end_of_turn), fences[0]), ""


def _count_common(a, b):
    """Return the number of leading characters that two texts have in common.

    >>> _count_common("abc", "abd"), _count_common("ab", "abc"), _count_common("", "a")
    (2, 2, 0)
    """
    low, high = 0, min(len(a), len(b))
    while low < high:  # by halves: comparing long texts at once is far faster than one by one
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low
