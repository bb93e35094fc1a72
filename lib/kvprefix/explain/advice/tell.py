"""Say what was found as JSON values and rows; values are masked, so that nobody's name is printed."""

import itertools
import re
from collections import Counter

import numpy as np

from kvprefix.explain.advice.bodies import is_head, role_of
from kvprefix.explain.advice.differ import HISTORY, TEMPLATE, TOOLS
from kvprefix.explain.advice.kinds import classify
from kvprefix.explain.advice.sentences import find_unit, say_fix, say_rewritten
from kvprefix.explain.advice.shown import MOST, SHOWN, cut_shown, find_common, hide, hide_value, list_words
from kvprefix.explain.advice.sites import DATE
from kvprefix.explain.advice.units import compare_texts, cut_value, is_json
from kvprefix.files.escape import one_line

MOST_TEXT = 20_000  # characters of a message that are compared
OFTEN = 0.1  # of the values: how many have a kind that is named
_PLACES = {"system": "system message", "user": "message of the user", "tool": "result of a tool"}
_FIRST = re.compile(r"^\W*([^\W\d_]+)", re.MULTILINE)


def tell_site(proved, asked, whole, keys, in_order):
    """Return a site as JSON values.

    Parameters
    ----------
    proved : Proved
    asked : Asked
        A request that has it.
    whole : int
        Prompt tokens of all requests.
    keys : int
        How many requests, or conversations of text, there are.
    in_order : list of str
        The value of each request that has the site, in arrival order.

    Returns
    -------
    dict
        `kind`, `kinds` (of all that differs there, the first is `kind`), `message` (its number, from 0 on; None outside
        of messages), `where`, `example` (masked), `values` that differ, `changes` from one request to the next,
        `requests` that have it, `parted_requests` that part from the nearest earlier prompt there, `estimated_tokens`,
        `recoverable_tokens` (None if it is not proved), `fix`, `proved`, `alone_tokens`, `recoverable_share`,
        `both_sides`.
    """
    site, values = proved.site, list(proved.fix.values.values())
    common = _list_common(proved, asked, keys)
    kinds, example, both = _show(proved, values, common)
    is_proved = proved.tokens is not None
    bounded = {} if proved.bounded_tokens is None else {"bounded_recoverable_tokens": proved.bounded_tokens}
    return {
        "kind": kinds[0], "kinds": kinds, "message": site.path[1] if site.path[0] == "messages" else None,
        "where": say_where(proved, asked), "example": example, "values": len(set(in_order)),
        "changes": sum(a != b for a, b in itertools.pairwise(in_order)),
        "requests": len(in_order) or len(site.parted), "parted_requests": len(site.parted),
        "estimated_tokens": site.estimated_tokens, "recoverable_tokens": proved.tokens,
        "fix": say_fix(proved, kinds, asked), "proved": is_proved, "alone_tokens": proved.alone_tokens,
        "recoverable_share": proved.tokens / max(whole, 1) if is_proved else None, **bounded,
        "both_sides": list(both), **({} if is_proved else {"reason": proved.reason}),
    }  # fmt: skip


def _list_common(proved, asked, keys):
    """Return the words that may be shown: those that all units have, or nearly all texts.

    Of a place that fewer than half of the requests have, they may be one person's: then none that a user wrote, and of
    the system's text those in small letters and the first.
    """
    site, texts = proved.site, proved.fix.texts
    if site.sort == "history":
        return set()
    if site.sort not in ("value", "only"):
        return _keep_plain(find_common(texts, MOST), texts)
    common = find_common(texts) if len(texts) > 1 else {word for text in texts for word in list_words(text)}
    if 2 * len(proved.fix.values) >= keys:
        return common
    if not is_head(asked, site.path):
        return set()
    return {word for word in _keep_plain(common, texts) if word.isalpha()}


def _keep_plain(common, texts):
    """Return those words that are no names: in small letters, or the first of a line."""
    first = {word for text in texts for word in _FIRST.findall(text)}
    return {word for word in common if word in first or word == word.lower()}


def _show(proved, values, common):
    """Return the kinds of a site, an example, and both sides where two prompts part, masked."""
    site = proved.site
    if site.sort in ("value", "only"):
        label = site.label if site.sort == "value" else ""
        values = values or [one[len(label) : len(one) - len(site.tail)] for one in site.both if one]
        both = [_frame(one, site, common) for one in site.both]
        example = next(iter(proved.fix.texts), site.both[0])
        tail = site.tail if site.sort == "value" else ""
        return _name_kinds(values[:512], (label, tail), common), _frame(example, site, common), both
    if site.sort == "date":
        return [classify(values)], hide(values[0])[0], [hide(one)[0] for one in site.both]
    if site.path == HISTORY:
        return _show_history(proved)
    if site.path == TOOLS and site.sort == "json":
        both = [hide_value(one) for one in site.both]
    elif site.path == TOOLS:
        both = site.both  # names of tools
    else:
        both = [hide(one, common)[0] for one in site.both]
    both = list(map(cut_shown, both))
    return [_name_order(site)], both[0], both


def _show_history(proved):
    """Return the kinds of what is rewritten, and a message as it was sent, and as it was before: no word of it."""
    counts, pairs = Counter(), list(proved.fix.texts) or [proved.site.both]
    for pair in pairs:
        counts.update(_name_rewritten(*pair))
    kinds = ["rewritten history", *(one for one, n in counts.most_common() if n >= OFTEN * len(pairs))]
    both = [f"{len(one):,} characters: {hide(one)[0]}" if one else "" for one in pairs[0]]
    return kinds, cut_shown(both[0]), list(map(cut_shown, both))


def _name_rewritten(sent, before):
    """Return which kinds of values differ between a message and the same as it was before, a set."""
    if "".join(sent.split()) == "".join(before.split()):
        return {"whitespace"}
    changes = [one for one in compare_texts(sent[:MOST_TEXT], before[:MOST_TEXT]) if one.sort == "value"]
    return {classify([cut_value(one.unit, one.other)[1]]) for one in changes} - {"text"}


def _name_kinds(values, about, common):
    """Return the kinds of what differs: that of most values, then those of their parts; `about` is the text there."""
    kind, counts = classify(values, *about), Counter()
    for value in values:
        parts = hide(value, common)[1]
        counts.update(parts if len(parts) > 1 else [kind])
    more = [one for one, n in counts.most_common() if n >= OFTEN * len(values) and one not in (kind, "text")]
    return [kind, *more] if kind != "text" or not more else more


def _frame(unit, site, common):
    """Return a unit with its value masked, and what is about it as far as it is shown."""
    fits = site.sort == "value" and unit.startswith(site.label) and unit.endswith(site.tail)
    fits = fits and len(unit) >= len(site.label + site.tail)
    start, stop = (len(site.label), len(unit) - len(site.tail)) if fits else (0, 0)
    label, tail = hide(unit[:start], common)[0], hide(unit[stop:], common)[0]
    value = hide(unit[start:stop], _keep_plain(common, [unit]))[0]
    label = label if len(label) <= SHOWN // 2 else f"\u2026{label[-SHOWN // 2 :]}"
    return cut_shown(f"{label}{value}{tail}")


def _name_order(site):
    if site.sort == "order":
        is_tools = site.path == TOOLS or all(is_json(one) for one in site.members)
        return "order of tools" if is_tools else "order of lines"
    if site.sort == "json" and "tools" in site.members:
        return "order of tools"
    names = {"json": "order of keys", "history": "rewritten history"}
    return names.get(site.sort, site.sort)


def say_where(proved, asked):
    """Say in which field a site lies."""
    site, path = proved.site, proved.site.path
    if path == HISTORY:
        return say_rewritten(proved.fix) or "an earlier message of the conversation"
    if path in (TEMPLATE, DATE):
        return "what the template writes"
    if path[0] == "tools":
        inside = [str(one) for one in path[2:] if one != "function"]
        return one_line(f"tool {path[1]}, {'.'.join(inside)}", SHOWN) if len(path) > 1 else "the list of tools"
    unit = find_unit(proved.fix, asked) if site.sort in ("value", "only") else ""
    unit = f", {unit}" if unit else ""
    if path[0] != "messages":
        return f"system text{unit}"
    role = role_of(asked.messages[path[1]]) if path[1] < len(asked.messages) else "user"
    return f"{_PLACES.get(role, 'message')} (message {path[1]}){unit}"


def list_requests(advice, requests):
    """Return the columns of a row per request.

    Parameters
    ----------
    advice : Advice
    requests : dict of str to ndarray
        Columns that say which request it is.

    Returns
    -------
    dict of str to ndarray
        `site` is the number of the site where the request parts, as listed, from 1 on; 0 for none.
    """
    site = np.zeros(len(advice.hits), np.int64)
    for number, proved in reversed(list(enumerate([*advice.ranked, *advice.unproved], start=1))):
        site[list(proved.site.parted)] = number
    return {
        **requests, "prompt_tokens": advice.prompt_tokens, "hit_tokens": advice.hits,
        "earlier_request": advice.found.earlier.requests, "earlier_tokens": advice.found.earlier.tokens,
        "site": site, "estimated_tokens": advice.found.seen, "hit_tokens_after": advice.after,
    }  # fmt: skip
