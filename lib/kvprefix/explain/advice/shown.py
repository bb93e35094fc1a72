"""Show texts of requests without what may be somebody's: a word stays if all requests have it, else its kind is said.

Times, dates and numbers keep their form: ``2026-xx-xxTxx:xx:xxZ``.
"""

import json
import re
from collections import Counter

from kvprefix.explain.advice.kinds import DAYS, MONTHS
from kvprefix.files.escape import one_line
from kvprefix.files.masks import EMAIL, UUID

SHOWN = 160  # characters of an example
MOST = 0.9  # of the texts of a place: how many have a word that is shown
_DAY = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}"
_PIECES = re.compile(
    "|".join([
        f"(?P<email>{EMAIL})", f"(?P<uuid>{UUID})",
        rf"(?P<time>(?:{_DAY}[T ])?\b\d{{1,2}}:\d{{2}}(?::\d{{2}}(?:[.,]\d+)?)?(?:\s?[ap]\.?m\b)?"
        rf"(?:Z|\s?UTC|[+-]\d{{2}}:?\d{{2}})?(?![\w:])"
        rf"|{_DAY}T\d{{1,2}}:?\d{{2}}(?::?\d{{2}}(?:[.,]\d+)?)?Z?\b|\b1\d{{9}}(?:[.,]?\d{{3,9}})?\b)",
        rf"(?P<date>\b{_DAY}\b|\b\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}\b"
        rf"|\b\d{{1,2}}(?:st|nd|rd|th)?\.?\s(?:{MONTHS})[a-z]*\b\.?(?:,?\s\d{{4}}\b)?"
        rf"|\b(?:{MONTHS})[a-z]*\b\.?\s\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s\d{{4}}\b)?"
        rf"|\b(?:{DAYS})(?:day|sday|nesday|rsday|urday)?\b)",
        r"(?P<id>(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[a-z])[\w-]{6,}|\w*\d{7,}\w*|\d[\d ()-]{6,}\d)",
        r"(?P<word>[^\W\d_]+|[^\x00-\x7f]+|_+)", r"(?P<number>\d+)",
    ]),
    re.IGNORECASE,
)  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+|[^\x00-\x7f]+|\d+")
_RUN = re.compile(r"(<(?:name|text)>)(?:[^\w<>]{0,3}<(?:name|text)>)+")
_SAID = {"email": "<e-mail>", "uuid": "<id>", "id": "<id>"}


def list_words(text):
    """Return the words and numbers of a text, a set."""
    return set(_WORD.findall(text))


def find_common(texts, share=1.0):
    """Return the words that so many of some texts have; none of fewer than two texts.

    >>> sorted(find_common(["User Ana, 8:15", "User Bo, 9:20"]))
    ['User']
    """
    texts = list(dict.fromkeys(texts))
    counts = Counter(word for text in texts for word in list_words(text))
    return {word for word, n in counts.items() if n >= share * len(texts)} if len(texts) > 1 else set()


def hide(text, common=()):
    """Return a text of which only some words are shown, and the kinds of all else, the first first.

    Parameters
    ----------
    text : str
    common : collection of str
        Words and short numbers that stay. Addresses, ids and long numbers do not.

    Examples
    --------
    >>> hide("Ana Li (ana@example.org) at 2026-11-25T08:03Z, DE1000000000000", {"at"})
    ('<name> (<e-mail>) at 2026-xx-xxTxx:xxZ, <id>', ['name', 'email', 'time', 'uuid'])
    """
    kinds = []

    def show(found):
        kind, piece = found.lastgroup, found[0]
        words = list_words(piece)
        if kind in ("word", "number", "date") and words <= set(common) or kind == "word" and piece.strip("_") == "":
            return piece
        kind = ("name" if piece[:1].isupper() or not piece[:1].isascii() else "text") if kind == "word" else kind
        kinds.append("uuid" if kind == "id" else kind)
        return _SAID.get(kind) or (f"<{kind}>" if kind in ("name", "text") else _keep_form(kind, piece))

    return _RUN.sub(r"\1", _PIECES.sub(show, text)), list(dict.fromkeys(kinds))


def _keep_form(kind, piece):
    """Return a time, a date or a number with its form alone; the year of a time stays."""
    year = re.match(r"20\d\d(?=[-/.])", piece) if kind == "time" else None
    kept = year[0] if year else ""
    return kept + re.sub(r"\d", "x", re.sub(r"[^\W\d_]{3,}", "xxx", piece[len(kept) :]))


def hide_value(value):
    """Return a JSON value as JSON with its keys and names, without what else it says.

    >>> hide_value({"name": "add", "description": "Adds.", "most": 9})
    '{"name": "add", "description": "<text>", "most": "<number>"}'
    """
    return json.dumps(_hide_inner(value), ensure_ascii=False)


def _hide_inner(value, key=""):
    if isinstance(value, dict):
        return {name: _hide_inner(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_hide_inner(inner) for inner in value]
    if isinstance(value, str):
        return value if key in ("name", "type") and re.fullmatch(r"[\w.-]{1,64}", value) else "<text>"
    return value if value is None or isinstance(value, bool) else "<number>"


def cut_shown(text):
    """Return a text in one line that is short enough to be shown."""
    return one_line(text, SHOWN)
