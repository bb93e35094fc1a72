"""Facts: plain JSON values that a report keeps and from which templates make sentences (`words`).

Each module beside this one computes them from results; none of them holds a sentence.
"""

import functools
import math


def gives_facts(measure):
    """Decorate a function that returns facts: a dict of numbers, names, flags, lists and dicts of them, as plain JSON.

    NumPy numbers become Python's own; a number that is not finite becomes None.

    Raises
    ------
    TypeError
        If it returns anything else.
    """

    @functools.wraps(measure)
    def plain(*arguments, **options):
        return make_plain(measure(*arguments, **options))

    plain.gives_facts = True
    return plain


def make_plain(value):
    """Return facts as plain JSON values, as `gives_facts` says."""
    if isinstance(value, dict):
        return {str(name): make_plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [make_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    number = value.item() if hasattr(value, "item") else value
    if not isinstance(number, int | float):
        raise TypeError(f"a fact is {value!r}; expected a number, a name, a list or a dict")
    return None if isinstance(number, float) and not math.isfinite(number) else number
