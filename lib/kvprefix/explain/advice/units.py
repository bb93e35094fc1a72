"""Cut a text into units that can be moved: lines, sentences of long lines, values of JSON; compare two such lists."""

import difflib
import json
import re
from typing import NamedTuple

from kvprefix.explain.advice.kinds import classify

MOST_UNITS = 200  # of a text that are compared, from where two texts part on
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_SENTENCE = re.compile(r"(?<=[.!?])(?<!\d[.])[^\S\n]+(?=\S)")
_BRACKET = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder()
_JOINED = re.compile(r"[\w@%+#/\\:.\-]")  # characters within a value
_ENDS = ".,;:!?"
_NAMED = {"name", "function"}


class Changed(NamedTuple):
    """A unit that differs between two texts.

    Attributes
    ----------
    sort : str
        `value` (part of a unit differs), `only` (a unit that one text has), `order`, `json` or `whitespace`.
    place : int
        Which unit of the text it is.
    unit, other : str
        As it is here, and in the other text; empty if it is not there.
    """

    sort: str
    place: int
    unit: str
    other: str


def cut_units(text):
    r"""Return the units of a text; joined they are the text.

    >>> cut_units('Be kind. It is noon.\nTools: {"a":\n 1}\nEnd')
    ['Be kind. ', 'It is noon.\n', 'Tools: {"a":\n 1}\n', 'End']
    """
    units, at = [], 0
    while at < len(text):
        line = _LINE.match(text, at)[0]
        end = _end_json(text, at, line)
        units += [text[at:end]] if end else _cut_sentences(line)
        at = end or at + len(line)
    return units


def _end_json(text, at, line):
    """Return where a line ends whose last part is a JSON object or list, which may have more lines; 0 for another."""
    bracket = _BRACKET.search(line)
    if bracket is None:
        return 0
    try:
        _, end = _DECODER.raw_decode(text, at + bracket.start())
    except (ValueError, RecursionError):
        return 0
    rest = _LINE.match(text, end)
    rest = rest[0] if rest else ""
    return 0 if rest.strip(" \t\r\n,") else end + len(rest)


def _cut_sentences(line):
    cuts = [0, *(found.end() for found in _SENTENCE.finditer(line)), len(line)]
    return [line[start:stop] for start, stop in zip(cuts, cuts[1:], strict=False) if stop > start]


def compare_texts(here, there):
    """Return the Changed units between two texts, from the view of the first.

    >>> [one.sort for one in compare_texts("It is 8:15.\\nGo.\\nStay.", "It is 8:16.\\nStay.\\nGo.")]
    ['value', 'order']
    """
    ours, theirs = cut_units(here), cut_units(there)
    same = 0
    while same < min(len(ours), len(theirs)) and ours[same] == theirs[same]:
        same += 1
    ours, theirs = ours[same : same + MOST_UNITS], theirs[same : same + MOST_UNITS]
    keys, others = [one.strip() for one in ours], [one.strip() for one in theirs]
    matcher = difflib.SequenceMatcher(None, keys, others, autojunk=False)
    blocks = [one for one in matcher.get_opcodes() if one[0] != "equal"]
    gone = {others[k] for _, _, _, start, stop in blocks for k in range(start, stop)} - {""}
    come = {keys[k] for _, start, stop, _, _ in blocks for k in range(start, stop)} - {""}
    found = []
    for _, start, stop, first, last in blocks:
        mine = [k for k in range(start, stop) if keys[k] and keys[k] not in gone]
        yours = [others[k] for k in range(first, last) if others[k] and others[k] not in come]
        found += [Changed("order", same + k, keys[k], "") for k in range(start, stop) if keys[k] in gone]
        found += _pair([(same + k, keys[k]) for k in mine], yours)
    if keys.count("") != others.count("") or not found and ours != theirs:
        found.append(Changed("whitespace", same, "".join(ours), "".join(theirs)))
    return found


def _pair(mine, yours):
    """Pair the units of two places that are alike but for a value; what is left is of one text only."""
    found = []
    for place, unit in mine:
        at = next((k for k, other in enumerate(yours) if is_like(unit, other)), None)
        if at is None:
            found.append(Changed("only", place, unit, ""))
            continue
        other = yours.pop(at)
        if "".join(unit.split()) == "".join(other.split()):
            found.append(Changed("whitespace", place, unit, other))
        elif canonical(unit) is not None and canonical(unit) == canonical(other):
            found.append(Changed("json", place, unit, other))
        else:
            found.append(Changed("value", place, unit, other))
    return found


def is_like(unit, other):
    """Tell whether two units differ by a value alone: they begin or end alike, are values, or are the same JSON."""
    label, value, tail = cut_value(unit, other)
    fixed = len(re.sub(r"\W", "", label + tail))
    if fixed >= 3 and 4 * fixed >= len(value):
        return True
    if (fixed or shape(unit) == shape(other)) and classify([value]) != "text":
        return True
    return canonical(unit) is not None and canonical(unit) == canonical(other)


def shape(text):
    """Return a text's form: signs as they are, runs of digits and of letters as one each; hexadecimal ones alike.

    >>> shape("[req-12ab] 8:05"), shape("Ana Li")
    ('[a-a] 0:0', 'a a')
    """
    return re.sub(r"\d+", "0", re.sub(r"(?=\w*[^\W\d_])\w+", "a", text.strip()))


def cut_value(unit, other):
    """Return what stands before the value that differs, the value of the first unit, and what stands behind it.

    >>> cut_value("It is 2026-01-05 now.", "It is 2026-01-17 now.")
    ('It is ', '2026-01-05', ' now.')
    """
    head = next((k for k, (a, b) in enumerate(zip(unit, other, strict=False)) if a != b), min(len(unit), len(other)))
    most = min(len(unit), len(other)) - head
    tail = next((k for k in range(most) if unit[len(unit) - 1 - k] != other[len(other) - 1 - k]), most)
    return widen(unit, head, len(unit) - tail)


def widen(unit, start, stop):
    """Return a unit in three parts, the middle one widened to whole words; signs that end it are left behind it."""
    while start and _JOINED.match(unit[start - 1]):
        start -= 1
    while stop < len(unit) and _JOINED.match(unit[stop]) and not _is_end(unit, stop):
        stop += 1
    while stop > start and unit[stop - 1].isspace():
        stop -= 1
    return unit[:start], unit[start:stop], unit[stop:]


def _is_end(unit, at):
    """Tell whether a sign ends a sentence rather than stands within a value."""
    return unit[at] in _ENDS and (at + 1 == len(unit) or unit[at + 1].isspace())


def canonical(text):
    """Return a text that ends with a JSON object or list in one form, whatever its order and spaces; None for another.

    >>> canonical('Of {"b": [2, 1], "a": 1}') == canonical('Of {"a":1,"b":[1,2]}')
    True
    """
    read = _read_json(text)
    return None if read is None else read[0] + order_value(read[1])


def _read_json(text):
    """Return what stands before the JSON object or list that ends a text, and its value; None if there is none."""
    text = text.strip().rstrip(",")
    bracket = _BRACKET.search(text)
    try:
        return bracket and (text[: bracket.start()], json.loads(text[bracket.start() :]))
    except (ValueError, RecursionError):
        return None


def order_value(value, *, keys=True, lists=True):
    """Return a JSON value as a text that is equal for any order of its keys and lists, or of one of them.

    A value that is nested too deeply for Python is written as it is.
    """
    try:
        return _order(value, keys, lists)
    except RecursionError:
        return json.dumps(value)


def _order(value, keys, lists):
    if isinstance(value, dict):
        names = sorted(value) if keys else value
        return "{" + ",".join(f"{json.dumps(k)}:{_order(value[k], keys, lists)}" for k in names) + "}"
    if isinstance(value, list):
        parts = [_order(one, keys, lists) for one in value]
        return "[" + ",".join(sorted(parts) if lists else parts) + "]"
    return json.dumps(value)


def find_orders(one, other):
    """Return what of two equal JSON values, or of texts that end with them, has another order.

    Returns
    -------
    set of str
        `keys`, and of lists `tools` if all in them have a name, else `lists`.

    Examples
    --------
    >>> find_orders('T: [{"name": "a"}, {"name": "b"}]', 'T: [{"name": "b"}, {"name": "a"}]')
    {'tools'}
    """
    one, other = ((_read_json(text) or ("", text))[1] if isinstance(text, str) else text for text in (one, other))
    found = {"keys"} if order_value(one, keys=False) != order_value(other, keys=False) else set()
    if order_value(one, lists=False) == order_value(other, lists=False):
        return found
    listed = one.get("tools", one) if isinstance(one, dict) else one
    is_tools = isinstance(listed, list) and all(isinstance(each, dict) and _NAMED & set(each) for each in listed)
    return found | {"tools" if is_tools else "lists"}


def plain_space(text, *, empty_lines=True):
    r"""Return a text with one space between words, none at a line's end, and one empty line at most, or none.

    >>> plain_space("a  b \r\n\n\n\tc "), plain_space("a\n\nb", empty_lines=False)
    ('a b\n\nc', 'a\nb')
    """
    text = re.sub(r"[^\S\n]+", " ", text.replace("\r\n", "\n"))
    text = re.sub(r" ?\n ?", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() if empty_lines else re.sub(r"\n+", "\n", text).strip()


def is_json(unit):
    """Tell whether a unit ends with a JSON object or list."""
    return canonical(unit) is not None
