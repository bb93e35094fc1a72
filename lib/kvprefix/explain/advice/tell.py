"""Say what was found as JSON values, sentences and rows; values are masked, so that nobody's name is printed."""

import numpy as np

from kvprefix.explain.advice.bodies import is_head, role_of
from kvprefix.explain.advice.differ import HISTORY, TEMPLATE, TOOLS
from kvprefix.explain.advice.fixes import LAST_MESSAGE, LONGEST
from kvprefix.explain.advice.kinds import KINDS, classify, mask
from kvprefix.explain.advice.sites import DATE
from kvprefix.explain.advice.units import is_json
from kvprefix.files.escape import one_line
from kvprefix.files.masks import mask_values

SHOWN = 160  # characters of an example
_PLACES = {"system": "system message", "user": "message of the user", "tool": "result of a tool"}


def tell_site(proved, asked, whole):
    """Return a site as JSON values.

    Parameters
    ----------
    proved : Proved
    asked : Asked
        A request that has it.
    whole : int
        Prompt tokens of all requests.

    Returns
    -------
    dict
        `kind`, `message` (its number, from 0 on; None outside of messages), `where`, `example` (masked), `values` that
        differ, `changes` from one request to the next, `requests` that have it, `parted_requests` that part from the
        nearest earlier prompt there, `estimated_tokens`, `recoverable_tokens` (None if it is not proved), `fix`,
        `proved`, `alone_tokens`, `recoverable_share`, `both_sides`.
    """
    site, values = proved.site, list(proved.fix.values.values())
    kind, example, both = _show(site, values)
    is_proved = proved.tokens is not None
    bounded = {} if proved.bounded_tokens is None else {"bounded_recoverable_tokens": proved.bounded_tokens}
    return {
        "kind": kind, "message": site.path[1] if site.path[0] == "messages" else None,
        "where": say_where(site, asked), "example": example, "values": len(set(values)),
        "changes": sum(a != b for a, b in zip(values, values[1:], strict=False)),
        "requests": len(values) or len(site.parted), "parted_requests": len(site.parted),
        "estimated_tokens": site.estimated_tokens, "recoverable_tokens": proved.tokens,
        "fix": say_fix(proved, kind, asked), "proved": is_proved, "alone_tokens": proved.alone_tokens,
        "recoverable_share": proved.tokens / max(whole, 1) if is_proved else None, **bounded,
        "both_sides": list(both), **({} if is_proved else {"reason": proved.reason}),
    }  # fmt: skip


def _show(site, values):
    """Return the kind of a site, an example, and both sides where two prompts part, masked."""
    if site.sort in ("value", "only"):
        label = site.label if site.sort == "value" else ""
        values = values or [one[len(label) : len(one) - len(site.tail)] for one in site.both if one]
        kind = classify(values[:512], label)
        ends = {"label": mask_values(label), "tail": mask_values(site.tail)}
        both = [_frame(one, site, ends) if one else "" for one in site.both]
        return kind, _frame(None, site, ends, values[0]) if values else both[0], both
    if site.sort == "date":
        return classify(values), mask(values[0]), tuple(map(mask, site.both))
    kind = _name_order(site)
    both = [one_line(mask_values(one), SHOWN) for one in site.both]
    return kind, both[0], both


def _frame(unit, site, ends, value=None):
    """Return a unit with its value masked."""
    if site.sort == "only":
        return one_line(mask(unit or value, SHOWN), SHOWN)
    if value is None:
        fits = unit.startswith(site.label) and unit.endswith(site.tail)
        if not fits:
            return one_line(mask(unit, SHOWN), SHOWN)
        value = unit[len(site.label) : len(unit) - len(site.tail)]
    label, tail = ends["label"], ends["tail"]
    label = label if len(label) <= SHOWN // 2 else f"\u2026{label[-SHOWN // 2 :]}"
    return one_line(f"{label}{mask(value)}{tail[: SHOWN // 3]}", SHOWN)


def _name_order(site):
    if site.sort == "order":
        is_tools = site.path == TOOLS or all(is_json(one) for one in site.members)
        return "order of tools" if is_tools else "order of lines"
    names = {"json": "order of keys", "history": "rewritten history"}
    return names.get(site.sort, site.sort)


def say_where(site, asked):
    """Say in which field a site lies."""
    path = site.path
    if path == HISTORY:
        return "an earlier message of the conversation"
    if path in (TEMPLATE, DATE):
        return "what the template writes"
    if path[0] == "tools":
        inside = [str(one) for one in path[2:] if one != "function"]
        return one_line(f"tool {path[1]}, {'.'.join(inside)}", SHOWN) if len(path) > 1 else "the list of tools"
    if path[0] != "messages":
        return "system text"
    role = role_of(asked.messages[path[1]]) if path[1] < len(asked.messages) else "user"
    unit = f", line {min(site.places) + 1}" if site.places and site.sort in ("value", "only") else ""
    return f"{_PLACES.get(role, role)} (message {path[1]}){unit}"


def say_fix(proved, kind, asked):
    """Say in a sentence what to do, with the token hit rate before and after it."""
    site, noun = proved.site, KINDS[kind]
    if site.sort in ("value", "only"):
        said = _say_move(proved, noun, asked)
    elif site.sort == "whitespace":
        said = "Write white space in one way"
    elif site.sort == "history":
        said = "Keep the history append-only: send earlier messages again as they were"
    elif site.sort == "date":
        said = f"Let the template write no {noun}, or the same one for all requests"
    elif site.sort == "template":
        said = "Let the template write the same text for the messages that were there before"
    else:
        said = f"Write {'the keys of JSON' if site.sort == 'json' else _what_order(kind)} in one order"
    if not proved.rates:
        return f"{said} (an estimate: {proved.reason})."
    before, after = (f"{100 * rate:.1f} %" for rate in proved.rates)
    grown = f", and the prompts grow by {proved.grown_tokens:,} tokens" * (site.sort == "history")
    together = ", together with the fixes beside it" * (proved.alone_tokens <= 0)
    return f"{said}: {after} of the prompt tokens are cached instead of {before}{together}{grown}."


def _what_order(kind):
    return "the tools" if kind == "order of tools" else "the lines"


def _say_move(proved, noun, asked):
    site, path = proved.site, proved.site.path
    text = site.label + site.tail
    what = f"the {noun} out of its text" if len(text) > LONGEST or is_json(text) else f"the {noun}"
    verb = "Take" if what.endswith("text") else "Move"
    if proved.fix.goes == LAST_MESSAGE:
        return f"{verb} {what} to the end of the last message, behind tools and history"
    if path[0] == "tools":
        return f"Take the {noun} out of the tool and put it at the end of the system message"
    if is_head(asked, path):
        return f"{verb} {what} to the end of the system message, behind what all requests share"
    return f"{verb} {what} to the end of message {path[1]}, behind what requests share"


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
