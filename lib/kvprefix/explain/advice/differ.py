"""What differs between two requests: a text of the system, the tools, a message, or nothing but what is rendered."""

from kvprefix.explain.advice.bodies import list_head, list_texts, list_tools, role_of
from kvprefix.explain.advice.units import Changed, compare_texts, order_value

_BESIDE = (  # what a prompt depends on beside its messages
    "system", "instructions", "tools", "functions", "documents", "chat_template_kwargs", "tool_choice", "reasoning",
    "thinking", "add_generation_prompt", "continue_final_message",
)  # fmt: skip
TOOLS = ("tools",)
HISTORY = ("history",)
TEMPLATE = ("template",)


def compare_asked(here, there, *, same, whole):
    """Return what differs between two requests, in the order of the prompt: (path, Changed) each.

    Parameters
    ----------
    here, there : Asked
        A request, and the nearest earlier one.
    same : bool
        Whether they are of one conversation: then the earlier one's messages should all be there.
    whole : bool
        Whether the earlier prompt is all in the later one: then they do not part, whatever else differs.
    """
    if whole:
        return []
    ours, theirs = list_head(here), list_head(there)
    found = [
        (path, change)
        for path, text in ours.items()
        if path in theirs and theirs[path] != text
        for change in compare_texts(text, theirs[path])
    ]
    found += _compare_tools(here, there)
    if found or not _is_alike(here, there):
        return found
    return _compare_messages(here.messages, there.messages, same)


def _is_alike(here, there):
    """Tell whether two bodies are alike but for their messages."""
    return all(here.body.get(name) == there.body.get(name) for name in _BESIDE)


def _compare_tools(here, there):
    ours, theirs = list_tools(here), list_tools(there)
    names, others = [name for name, _ in ours], [name for name, _ in theirs]
    if ours == theirs and repr(ours) == repr(theirs) or not ours or not theirs:
        return []
    if names != others:
        return [(TOOLS, Changed("order", 0, ", ".join(names), ", ".join(others)))]
    known, found = dict(theirs), []
    for name, tool in ours:
        other = known.get(name, tool)
        if repr(tool) == repr(other):
            continue
        if order_value(tool) == order_value(other):
            return [(TOOLS, Changed("json", 0, tool, other))]
        found += _compare_values((*TOOLS, name), tool, other)
    return found


def _compare_values(path, one, other):
    """Return what differs in the texts that two values have at one path."""
    theirs = list_texts(other, path)
    return [
        (where, change)
        for where, text in list_texts(one, path).items()
        if theirs.get(where, text) != text
        for change in compare_texts(text, theirs[where])
    ]


def _compare_messages(ours, theirs, same):
    for k, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one == other and repr(one) == repr(other):
            continue
        if same:
            return [(HISTORY, Changed("history", k, _tell(one), _tell(other)))]
        if role_of(one) != role_of(other) or role_of(one) == "assistant":
            return []
        return _compare_values(("messages", k), one, other)
    if same and len(ours) < len(theirs):
        return [(HISTORY, Changed("history", len(ours), "", _tell(theirs[len(ours)])))]
    return [(TEMPLATE, Changed("template", 0, "", ""))] if len(theirs) <= len(ours) else []


def _tell(message):
    texts = list_texts(message)
    return " ".join(texts.values())
