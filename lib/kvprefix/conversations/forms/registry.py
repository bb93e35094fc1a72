"""Every form of chat traffic that is read, one entry per form: what a file is and its docs are made of them.

To add a form, write a module with its entry and list it here. Nothing else knows their names.
"""

from kvprefix.conversations.forms import (
    atif,
    chat_sets,
    claude_code,
    codex,
    langfuse,
    langsmith,
    litellm,
    otel,
    requests,
)

_ALL = (
    claude_code.FORM,
    codex.FORM,
    litellm.FORM,
    langfuse.FORM,
    langsmith.FORM,
    otel.FORM,
    atif.FORM,
    *requests.FORMS,
    chat_sets.FORM,
)
FORMS = {one.name: one for one in _ALL}  # the first that fits a record is its form
MAIN_COLUMNS = frozenset().union(*(one.main for one in _ALL))
COLUMNS = MAIN_COLUMNS.union(*(one.columns for one in _ALL))


def recognise(record):
    """Return the form of a record; None if it is of none.

    >>> recognise({"url": "/v1/messages", "body": {"messages": []}}).name
    'anthropic'
    """
    if not isinstance(record, dict):
        return None
    return next((one for one in FORMS.values() if one.fits(record)), None)
