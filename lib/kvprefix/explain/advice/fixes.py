"""How the sites of an advice are mended: what each request has there, and what the fix does with it."""

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field

from kvprefix.explain.advice.bodies import get_text, list_texts, list_tools, role_of
from kvprefix.explain.advice.differ import TOOLS
from kvprefix.explain.advice.history import restore
from kvprefix.explain.advice.sites import has_word
from kvprefix.explain.advice.units import canonical, cut_units, order_value, shape

LONGEST = 240  # characters of a unit that is moved as a whole; of a longer one, the value alone
MOST_TEXTS = 256  # of a site that are kept, to find what all of them say
FIELD_END, LAST_MESSAGE = "field", "last"
_OPENED = re.compile(r"(?:\([^()]*|\[[^\[\]]*)$")
_CLOSED = re.compile(r"[^()\[\]]*[)\]]")


@dataclass(eq=False, kw_only=True)
class Fix:
    """How a site is mended.

    Attributes
    ----------
    site : Site
    goes : str
        FIELD_END: to the end of its field, from tools to that of the system text; LAST_MESSAGE: to the last message.
    in_brackets : bool
        Whether what is in brackets moves, not the whole unit.
    values : dict
        The value of each body that has the site, by its key; in arrival order.
    known : dict
        Of an order: what was seen first of all that is equal but for its order.
    restored : dict
        Of a history: the messages of each call whose history is another than in the call before, as they were there;
        and replies as they were generated, if they are cached.
    counts : Counter
        How many bodies have each tool: those that most have are put first. Of a history, how many have each message, by
        number and role, as the first that is another than before.
    orders : set of tuple
        The names of the tools that bodies have.
    texts : Counter
        The different units, or texts, at the site, in arrival order, and how many have each; at most MOST_TEXTS. Of a
        history, pairs: as a message was sent, and as it was before.
    """

    site: object
    goes: str = FIELD_END
    in_brackets: bool = False
    values: dict = field(default_factory=dict)
    known: dict = field(default_factory=dict)
    restored: dict = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    texts: Counter = field(default_factory=Counter)
    orders: set = field(default_factory=set)

    def survey(self, key, asked):
        """Note what a body has at the site; those that arrive first are asked first."""
        if self.site.path == TOOLS:
            self._survey_tools(key, asked)
            return
        text = get_text(asked, self.site.path)
        if text is None:
            return
        if self.site.sort in ("value", "only"):
            at = self.find(units := cut_units(text))
            if at is not None:
                self.values[key] = self.cut(units[at])[1] if self.site.sort == "value" else units[at].strip()
                self._keep(units[at].strip())
        else:
            self._keep(text)
            for unit in cut_units(text):
                self._know(unit)
            self.values[key] = self._describe(text)

    def remember(self, key, asked, conversation, reply=None):
        """Note a call's messages with the history as it was in the call before; see `restored`.

        Parameters
        ----------
        key : int
        asked : Asked
        conversation : int
        reply : str, optional
            What was answered to it, which the next call should send back so.
        """
        (before, said), sent = self.known.get(conversation, ([], None)), asked.messages
        put = restore(sent, before, said)
        restored = sent
        if put:
            restored = list(sent)
            for k, one in put.items():
                restored[k] = one
            self._note_rewritten(key, put, sent)
            self.restored[key] = restored
        self.known[conversation] = restored, reply

    def _note_rewritten(self, key, put, sent):
        """Note the first message that is another than before: its number and role, and both texts."""
        k, one = next(iter(put.items()))
        both = tuple(" ".join(list_texts(message).values()) for message in (sent[k], one))
        self.values[key] = both[0]
        self.counts[k, role_of(one)] += 1
        if len(self.texts) < MOST_TEXTS:
            self.texts[both] += 1

    @property
    def is_one_order(self):
        """Whether tools that two bodies have stand in one order in both."""
        pairs = {pair for names in self.orders for pair in itertools.combinations(names, 2)}
        return not any((other, one) in pairs for one, other in pairs)

    def _keep(self, text):
        if text in self.texts or len(self.texts) < MOST_TEXTS:
            self.texts[text] += 1

    def _survey_tools(self, key, asked):
        tools = list_tools(asked)
        self.orders.add(tuple(name for name, _ in tools))
        for name, tool in tools:
            self.counts[name] += 1  # in the order in which they were seen first
            self.known.setdefault(order_value(tool), tool)
        if tools:
            self.values[key] = repr([name for name, _ in tools] if self.site.sort == "order" else tools)

    def _know(self, unit):
        if self.site.sort == "order" and unit.strip() in self.site.members:
            self.known.setdefault(unit.strip(), len(self.known))
        elif self.site.sort == "json" and (form := canonical(unit)) is not None:
            self.known.setdefault(form, unit)

    def _describe(self, text):
        if self.site.sort == "order":
            return "\n".join(one.strip() for one in cut_units(text) if one.strip() in self.known)
        return text

    def find(self, units):
        """Return which unit of a text holds the value; None if none does."""
        site, found = self.site, []
        label, tail = site.label, site.tail
        for k, unit in enumerate(units):
            text = unit.strip()
            if site.sort == "only":
                found += [k] if text == label else []
            elif has_word(label + tail):
                is_long = len(label.strip()) >= 4 or any(abs(k - one) <= 2 for one in site.places)
                fits = text.startswith(label) and text.endswith(tail) and len(text) >= len(label) + len(tail)
                found += [k] if fits and is_long else []
            elif k in site.places and shape(text) == shape(site.both[0]):
                found.append(k)
        return min(found, key=lambda k: min(abs(k - one) for one in site.places)) if found else None

    @property
    def has_brackets(self):
        """Whether the value is in brackets, with other text of its unit about them."""
        opened, closed = _OPENED.search(self.site.label), _CLOSED.match(self.site.tail)
        if self.site.sort != "value" or not opened or not closed:
            return False
        return has_word(self.site.label[: opened.start()] + self.site.tail[closed.end() :])

    def cut_brackets(self, unit):
        """Return a unit's text without what is in brackets, and that with them."""
        label, value, tail = self.cut(unit)
        start, stop = _OPENED.search(label).start(), _CLOSED.match(tail).end()
        before, behind = label[:start], tail[stop:]
        joined = before + (behind if before else behind.lstrip())
        return re.sub(r"(?<=\S)  (?=\S)", " ", joined), f"{label[start:]}{value}{tail[:stop]}"

    def cut(self, unit):
        """Return a unit's label, value and tail."""
        text, label, tail = unit.strip(), self.site.label, self.site.tail
        return label, text[len(label) : len(text) - len(tail)], tail


def is_cut_out(site, text):
    """Tell whether the value alone is taken out of a unit, for it is long or JSON."""
    return site.sort == "value" and (len(text) > LONGEST or canonical(text) is not None)
