"""Change requests as an advice says: move what changes behind what is shared, or write it in one order.

A text is changed once, however many requests hold it. All fixes of a text are done together: what moves stands in the
order of its values, those with the fewest first, so that as much as possible stays shared.
"""

import json

from kvprefix.explain.advice.bodies import get_text, list_head, list_texts, list_tools, order_tools, put_text, role_of
from kvprefix.explain.advice.differ import HISTORY, TEMPLATE, TOOLS
from kvprefix.explain.advice.fixes import FIELD_END, LAST_MESSAGE, is_cut_out
from kvprefix.explain.advice.sites import DATE
from kvprefix.explain.advice.units import canonical, cut_units, order_value, plain_space

_SAID = ("text", "content", "output")  # names of what is said, not of other fields of a part
UNSAID = (*HISTORY, *TEMPLATE, *DATE)  # sites in no field


class Changes:
    """Some fixes together.

    Parameters
    ----------
    fixes : sequence of Fix
    """

    def __init__(self, fixes):
        self.fixes = sorted(fixes, key=lambda one: len(set(one.values.values())))
        self.done = {}

    def apply(self, key, asked):
        """Return what is behind a key with everything changed; the same object if nothing is."""
        changed, moved = asked, {FIELD_END: [], LAST_MESSAGE: []}
        for fix in self.fixes:
            changed = changed.with_messages(fix.restored[key]) if key in fix.restored else changed
        for path in dict.fromkeys(fix.site.path for fix in self.fixes):
            some = [fix for fix in self.fixes if fix.site.path == path]
            if path == TOOLS:
                changed = _order_tools(changed, some)
                continue
            text = None if path[0] in UNSAID else get_text(changed, path)
            if text is None:
                continue
            if (path, text) not in self.done:
                self.done[path, text] = change_text(text, some, is_tool=path[0] == "tools")
            new, out = self.done[path, text]
            changed = put_text(changed, path, new) if new != text else changed
            for goes, values in out.items():
                moved[goes] += values
        if moved[FIELD_END]:
            changed = _append(changed, moved[FIELD_END], _find_end(changed))
        if moved[LAST_MESSAGE]:
            changed = _append(changed, moved[LAST_MESSAGE], _find_last(changed))
        return changed


def change_text(text, fixes, *, is_tool=False):
    r"""Return a text with its fixes, and what is to be put elsewhere, by where it goes.

    >>> from kvprefix.explain.advice.fixes import Fix
    >>> from kvprefix.explain.advice.sites import Site
    >>> site = Site(sort="value", path=("messages", 0, "content"), label="It is ", tail=".", places={0})
    >>> change_text("It is noon.\nBe kind.", [Fix(site=site)])
    ('Be kind.\nIt is noon.', {'field': [], 'last': []})
    """
    out, here = {FIELD_END: [], LAST_MESSAGE: []}, []
    for fix in fixes:
        if fix.site.sort == "whitespace":
            text = plain_space(text, empty_lines="lines" not in fix.site.members)
    units = cut_units(text)
    for fix in fixes:
        if fix.site.sort == "json":
            units = [_same_form(unit, fix.known) for unit in units]
        elif fix.site.sort == "order":
            units = _in_order(units, fix.known)
    for fix in fixes:
        at = fix.find(units) if fix.site.sort in ("value", "only") else None
        if at is None:
            continue
        taken = _take(units, at, fix)
        (here if fix.goes == FIELD_END and not is_tool else out[fix.goes]).append(taken)
    rest = "".join(units)
    if here:
        rest += ("" if rest.endswith("\n") or not rest else "\n") + "\n".join(here)
    return rest, out


def _take(units, at, fix):
    """Take a unit, or its value if it is long, out of a list; return its text."""
    unit = units[at]
    text = unit.strip()
    if fix.in_brackets:
        rest, taken = fix.cut_brackets(unit)
        units[at] = unit.replace(text, rest, 1)
        return taken
    if is_cut_out(fix.site, text):
        label, value, tail = fix.cut(unit)
        units[at] = unit.replace(text, label + tail, 1)
        return value
    if unit.endswith("\n") and at and not units[at - 1].endswith("\n"):
        units[at - 1] = units[at - 1].rstrip() + "\n"
    units[at] = ""
    return text


def _same_form(unit, known):
    """Return a unit as its JSON value was written first."""
    first = known.get(canonical(unit), unit)
    return unit.replace(unit.strip(), first.strip(), 1)


def _in_order(units, known):
    r"""Return units with those that change their order in the order in which they were seen first.

    Each takes along the space behind it, so that sentences stay with their line.

    >>> _in_order(["Two. ", "Go.\n", "One."], {"One.": 0, "Two.": 1, "Go.": 2})
    ['One.\n', 'Two. ', 'Go.']
    """
    places = [k for k, unit in enumerate(units) if unit.strip() in known]
    ordered = sorted((units[k] for k in places), key=lambda unit: known[unit.strip()])
    new = list(units)
    for k, unit in zip(places, ordered, strict=True):
        new[k] = unit
    if units and new[-1] is not units[-1]:  # the text ends as it did
        last = next(k for k, unit in enumerate(new) if unit is units[-1])
        ends = [unit[len(unit.rstrip()) :] for unit in (new[-1], units[-1])]
        new[last], new[-1] = (unit.rstrip() + end for unit, end in zip((new[last], new[-1]), ends, strict=True))
    return new


def _order_tools(asked, fixes):
    tools = list_tools(asked)
    if not tools:
        return asked
    for fix in fixes:
        if fix.site.sort == "order":
            rank = {name: k for k, (name, _) in enumerate(fix.counts.most_common())}
            tools = sorted(tools, key=lambda one, rank=rank: rank[one[0]])
        else:
            tools = [(name, fix.known.get(order_value(tool), tool)) for name, tool in tools]
    new = [tool for _, tool in tools]
    return asked if json.dumps(new) == json.dumps(asked.body["tools"]) else order_tools(asked, new)


def _find_end(asked):
    """Return the path of the last text before the conversation, else of the last message."""
    return list(list_head(asked))[-1] if list_head(asked) else _find_last(asked)


def _find_last(asked):
    """Return the path of the text of the last message that a user or a tool wrote."""
    for k in range(len(asked.messages) - 1, -1, -1):
        message = asked.messages[k]
        if isinstance(message, dict) and role_of(message) in ("user", "tool"):
            paths = _list_contents(message, k)
            if paths:
                return paths[-1]
    return None


def _list_contents(message, k):
    """Return the paths of the texts that a message says, in their order; those of results of tools, too."""
    name = "output" if "output" in message else "content"
    return [path for path in list_texts(message.get(name), ("messages", k, name)) if path[-1] in _SAID]


def _append(asked, values, path):
    if path is None:
        return asked
    return put_text(asked, path, "\n".join([get_text(asked, path), *values]))
