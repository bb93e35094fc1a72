"""What `verify` checks: a name, and whether it holds."""

from typing import NamedTuple


class Anchor(NamedTuple):
    """One thing that must hold: its name, and whether it does, with what was found if not."""

    name: str
    holds: bool
    found: str = ""


def equal(name, ours, theirs):
    """Return the anchor that two values, or lists of one per request, are equal."""
    if ours == theirs:
        return Anchor(name, True)
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        wrong = [i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
        first = wrong[0]
        return Anchor(name, False, f"{len(wrong):,} differ, first request {first}: {ours[first]}, not {theirs[first]}")
    return Anchor(name, False, f"{ours}, not {theirs}")
