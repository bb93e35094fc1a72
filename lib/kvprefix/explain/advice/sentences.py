"""Say in a sentence what a fix changes, as the replay did it, and what it wins."""

from kvprefix.explain.advice.bodies import get_text, is_head
from kvprefix.explain.advice.differ import TOOLS
from kvprefix.explain.advice.fixes import LAST_MESSAGE, is_cut_out
from kvprefix.explain.advice.kinds import KINDS
from kvprefix.explain.advice.units import cut_units
from kvprefix.files.words import count

_WRITERS = {"user": "message of the user", "tool": "result of a tool", "assistant": "reply of the model"}
_JSON = {
    ("keys",): "the keys of JSON", ("lists",): "lists in JSON", ("tools",): "the tools",
    ("keys", "lists"): "the keys of JSON, and its lists,", ("keys", "tools"): "the tools and their keys",
    ("lists", "tools"): "the tools and the lists in them",
    ("keys", "lists", "tools"): "the tools, their keys, and the lists in them,",
}  # fmt: skip
_VOWELS = ("a", "e", "i", "o")


def find_unit(fix, asked):
    """Return which line of its text a fix moves, or of which line a part; nothing if the text has no such unit.

    Parameters
    ----------
    fix : Fix
    asked : Asked
        A request that has the site.
    """
    units = cut_units(get_text(asked, fix.site.path) or "")
    at = fix.find(units)
    if at is None:
        return ""
    before = "".join(units[:at])
    line = f"line {before.count(chr(10)) + 1}"
    is_line = (not before or before.endswith("\n")) and (units[at].endswith("\n") or at + 1 == len(units))
    return line if is_line else f"a sentence of {line}"


def say_fix(proved, kinds, asked):
    """Say in a sentence what to do, with the share of the log's prompt tokens that is cached before and after it.

    Parameters
    ----------
    proved : Proved
    kinds : list of str
        Of what differs there.
    asked : Asked
        A request that has the site.
    """
    site = proved.site
    if site.sort in ("value", "only"):
        said = _say_move(proved.fix, kinds, asked)
    elif site.sort == "whitespace":
        said = "Write white space in one way"
    elif site.sort == "history":
        said = _say_history(proved.fix, kinds[1:])
    elif site.sort == "date":
        said = f"Let the template write no {KINDS[kinds[0]]}, or the same one for all requests"
    elif site.sort == "template":
        said = "Let the template write the same text for the messages that were there before"
    elif site.sort == "json":
        said = f"Write {_JSON[tuple(sorted(site.members))]} in one order" if site.members else "Write JSON in one form"
    else:
        said = _say_order(proved.fix, kinds[0])
    if not proved.rates:
        return f"{said} (an estimate: {proved.reason})."
    together = ", together with the fixes beside it" * (proved.alone_tokens <= 0)
    return f"{said}{_say_won(proved)}{together}."


def _say_won(proved):
    """Say two shares with as many decimals as tell them apart; of prompts that grow, by how much they do."""
    if proved.site.sort == "history" and proved.grown_tokens > 0:
        grown = count(proved.grown_tokens, "token")
        return f": {proved.tokens:,} more tokens are cached, and the prompts grow by {grown}"
    for decimals in (1, 2):
        one, other = (f"{100 * rate:.{decimals}f} %" for rate in proved.rates)
        if one != other:
            return f": {other} of the prompt tokens are cached instead of {one}"
    return ""


def say_rewritten(fix):
    """Say which message of a history is rewritten first, the most frequent of several; nothing if none is known."""
    if not fix.counts:
        return ""
    (number, role), _ = fix.counts.most_common(1)[0]
    more = f" and {len(fix.counts) - 1} more" if len(fix.counts) > 1 else ""
    return f"{_WRITERS.get(role, 'message')} (message {number}){more}, sent in another form than before"


def _say_history(fix, kinds):
    said = "Keep the history append-only: send earlier messages again as they were"
    if not fix.counts:
        return said
    (number, _), _ = fix.counts.most_common(1)[0]
    nouns = [KINDS[kind] if kind == "whitespace" else _add_article(KINDS[kind]) for kind in kinds]
    differing = f", in which {_join(nouns)} change{'s' * (len(nouns) == 1)}" if nouns else ""
    return f"{said}, above all message {number}{differing}"


def _say_order(fix, kind):
    if fix.site.path != TOOLS:
        return f"Write {'the tools' if kind == 'order of tools' else 'the lines'} in one order"
    some = min(fix.counts.values(), default=0) < len(fix.values)
    if not some:
        return "Write the tools in one order"
    if fix.is_one_order:
        return "Put the tools that only some requests have last"
    return "Write the tools in one order, those that only some requests have last"


def _say_move(fix, kinds, asked):
    path, nouns = fix.site.path, [KINDS[kind] for kind in kinds]
    if is_cut_out(fix.site, fix.site.both[0]) and not fix.in_brackets:
        what = f"the {_join(nouns)} out of {_say_unit(fix, asked)}"
        verb = "Take"
    else:
        changing = f"in which {_join([_add_article(one) for one in nouns])} change{'s' * (len(nouns) == 1)}"
        changing = "which only some requests have" if fix.site.sort == "only" else changing
        what, verb = f"{_say_unit(fix, asked)}, {changing},", "Move"
    if fix.goes == LAST_MESSAGE:
        return f"{verb} {what} to the end of the last message, behind tools and history"
    if is_head(asked, path):
        return f"{verb} {what} to the end of the system message, behind what all requests share"
    return f"{verb} {what} to the end of message {path[1]}, behind what requests share"


def _say_unit(fix, asked):
    """Name the unit that is moved, and its field."""
    path = fix.site.path
    field = f"message {path[1]}" if path[0] == "messages" and not is_head(asked, path) else "the system message"
    field = f"tool {path[1]}" if path[0] == "tools" else field
    return f"{'what is in brackets in ' * fix.in_brackets}{find_unit(fix, asked) or 'the text'} of {field}"


def _join(nouns):
    return " and ".join(", ".join(nouns).rsplit(", ", 1))


def _add_article(noun):
    return f"{'an' if noun.startswith(_VOWELS) else 'a'} {noun}"
