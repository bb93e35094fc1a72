"""Say facts in words: a Jinja template turns the facts of a function into sentences. Nothing is computed here.

`words/NAME.md.j2` gives Markdown and `words/NAME.txt.j2` plain text. A template knows the names of its facts; any other
name is an error. In Markdown all text that an expression puts out is escaped, so a template cannot forget it; `| code`
shows it as code. Plain text is escaped by what shows it (`sections` and `tell`). A number that is not whole needs a
filter that formats it.

In a template a line break is a space, but not before a line that begins with a punctuation mark. A blank line begins a
new paragraph (in plain text: a new line). Lines that begin with `- ` or `|` stay lines.
"""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, Undefined, pass_eval_context
from markupsafe import Markup

from kvprefix.files.escape import code_markdown, escape_markdown, plain_text
from kvprefix.report.labels import label_part, say_part
from kvprefix.report.rounding import counted, dollars, number, percent, points, seconds, spread

FILTERS = {
    "code": lambda text: Markup(code_markdown(text)), "plain": plain_text, "percent": percent, "seconds": seconds,
    "number": number, "points": points, "count": counted, "spread": spread, "usd": dollars,
    "says": say_part, "label": label_part,
}  # fmt: skip
GLUE, PARAGRAPH, LINE, SPACE = "\x1c", "\x1d", "\x1e", "\x1f"  # a template's own white space; the first of several wins
_ALL = GLUE + PARAGRAPH + LINE + SPACE
_WHITE = f" *[{PARAGRAPH}{LINE}{SPACE}][{_ALL} ]*|{GLUE}"


class Words:
    """The templates of a folder; without `escapes` Markdown is for a terminal, which shows text as it is.

    Examples
    --------
    >>> WORDS.say("duplicates.txt", {"duplicates": 1})
    '1 conversation equals an earlier one'
    """

    def __init__(self, folder, *, escapes=True):
        self._environment = _Environment(
            loader=FileSystemLoader(folder), undefined=StrictUndefined, finalize=_put_out,
            autoescape=lambda name: escapes and name.endswith(".md.j2"),
        )  # fmt: skip
        self._environment.filters |= {name: _expect(show) for name, show in FILTERS.items()}
        self._environment.tests["none"] = _is_none
        self._environment.globals["plain"] = self.say

    def say(self, name, facts):
        """Return what the template `NAME.md` or `NAME.txt` says of facts, a dict."""
        paragraph = "\n\n" if name.endswith(".md") else "\n"
        return _put_white(self._render(name, facts), paragraph)

    def say_each(self, name, facts):
        """Return the paragraphs of a template as a list."""
        parts = (part.strip(_ALL) for part in self._render(name, facts).split(PARAGRAPH))
        return [_put_white(part, "\n") for part in parts if part]

    def _render(self, name, facts):
        return self._environment.get_template(f"{name}.j2").render(facts).strip(_ALL)


class _Environment(Environment):
    def preprocess(self, source, name=None, filename=None):
        """Mark the line breaks of a template by their meaning."""
        source = re.sub(r"[ \t]*\n[ \t]*", "\n", source.strip())
        source = re.sub(r"(?<=\n|\})(?=[,;.:)])", GLUE, source)
        source = re.sub(r"\n{2,}", PARAGRAPH, source)
        return re.sub(r"\n(?=- |\|)", LINE, source).replace("\n", SPACE)

    def join_path(self, template, parent):
        """Let Markdown include Markdown only: included plain text would not be escaped."""
        if Path(template).suffixes != Path(parent).suffixes:
            raise TemplateError(f"{parent} includes {template}; say it with plain(NAME, facts) instead")
        return template


def _put_white(text, paragraph):
    shown = {GLUE: "", PARAGRAPH: paragraph, LINE: "\n", SPACE: " "}
    return re.sub(_WHITE, lambda found: shown[min(found[0].replace(" ", SPACE))], text)


@pass_eval_context
def _put_out(context, value):
    """Return what an expression puts out: text, escaped in Markdown, or a whole number."""
    if isinstance(value, str):
        return Markup(escape_markdown(value)) if context.autoescape and not isinstance(value, Markup) else value
    if isinstance(value, int) and not isinstance(value, bool) or isinstance(value, Undefined):
        return str(value)  # which fails if it is undefined
    raise TypeError(f"a template puts out {value!r}; expected text, a whole number, or a filter that shows it")


def _expect(show):
    """Return a filter that fails if the facts lack its value."""

    def shown(value, *form):
        return show(str(value) if isinstance(value, Undefined) else value, *form)

    return shown


def _is_none(value):
    """Say whether a value is None; fail if the facts lack it."""
    return value == None  # noqa: E711


WORDS = Words(Path(__file__).parent / "words")
say, say_plainly = WORDS.say, Words(Path(__file__).parent / "words", escapes=False).say
