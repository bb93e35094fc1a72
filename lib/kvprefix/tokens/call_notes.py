"""What a server's rules and a template did to the calls of a log: counts and first cases, summed over parts."""

from collections import Counter


def add_notes(total, note):
    """Add the note of a part to that of all parts before it, in place: counts are summed, first cases kept."""
    for kind in ("refused", "unanswered"):
        known = total.setdefault(kind, {})
        for reason, (n, place, said) in note[kind].items():
            known.setdefault(reason, [0, place, said])[0] += n
    for name in ("undated", "salted"):
        total[name] = total.get(name, 0) + note[name]
    total["hidden"] = dict(Counter(total.get("hidden", {})) + Counter(note["hidden"]))
    total["models"] = sorted({*total.get("models", []), *note["models"]})
