"""The facts of notebooks that several reports have: those that differ."""

import math
from numbers import Real

_REPEATING = ("90-",)  # notebooks that repeat the facts of others
NEAR = 1e-9  # numbers that differ by less, as a share, are equal
SHOWN = 6  # per notebook, in a table


def compare_findings(reports):
    """Return which facts differ.

    Returns
    -------
    dict
        `notebooks` (that at least two reports have), `facts` (how many they have in common) and `differ`: a list of
        `notebook`, `fact` (its path), `values` (label to value; a report that lacks it is left out) and `change`, the
        largest relative difference from the first, None if one is no number.
    """
    shared = [name for name in reports[0].facts if not name.startswith(_REPEATING)]
    shared = [name for name in shared if any(name in one.facts for one in reports[1:])]
    counted, differ = 0, []
    for notebook in shared:
        flat = {one.label: dict(_flatten(one.facts[notebook])) for one in reports if notebook in one.facts}
        first = next(iter(flat.values()))
        for path in first:
            values = {label: some[path] for label, some in flat.items() if path in some}
            if len(values) < 2:
                continue
            counted += 1
            start, *others = values.values()
            if not all(_equal(start, other) for other in others):
                change = _measure_change(start, others)
                differ.append({"notebook": notebook, "fact": path, "values": values, "change": change})
    return {"notebooks": shared, "facts": counted, "differ": differ}


def count_findings(found, first, other):
    """Return how many facts differ between two reports, by label, that both have."""
    both = [one["values"] for one in found["differ"] if {first, other} <= one["values"].keys()]
    return sum(not _equal(values[first], values[other]) for values in both)


def pick_findings(found):
    """Return the SHOWN facts of each notebook that differ most; those that are no numbers come first."""
    picked = []
    for notebook in found["notebooks"]:
        some = [one for one in found["differ"] if one["notebook"] == notebook]
        some.sort(key=lambda one: -math.inf if one["change"] is None else -one["change"])
        picked += some[:SHOWN]
    return picked


def _flatten(value, path=""):
    """Yield (path, value) of all single facts; an entry of a list is named by its first text, else by its position.

    >>> dict(_flatten({"modes": [{"mode": "a", "once": 1}, {"mode": "b", "once": 2}], "sizes": [{"n": 3}]}))
    {'modes[a].once': 1, 'modes[b].once': 2, 'sizes[0].n': 3}
    """
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _flatten(one, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        heads = [next(iter(one.values()), None) if isinstance(one, dict) else None for one in value]
        named = all(isinstance(head, str) for head in heads) and len(set(heads)) == len(heads)
        for k, one in enumerate(value):
            if named:
                one = dict(list(one.items())[1:])
            yield from _flatten(one, f"{path}[{heads[k] if named else k}]")
    else:
        yield path, value


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def _equal(one, two):
    if _is_number(one) and _is_number(two):
        return math.isclose(one, two, rel_tol=NEAR, abs_tol=NEAR)
    return type(one) is type(two) and one == two


def _measure_change(first, others):
    if not all(map(_is_number, (first, *others))):
        return None
    return max(abs(other - first) / max(abs(first), abs(other)) for other in others if other != first)
