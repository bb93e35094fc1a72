"""How a result shows itself: a few lines of text, the same as a table in a notebook, and a figure.

The functions that draw are in a room above, so they are found by name in the table of contents, `kvprefix.contents`.
"""

import html

from kvprefix.contents import load
from kvprefix.files.extras import need


class Shown:
    """A result that prints itself by `describe`, and plots itself if the table of contents has a function for it."""

    def describe(self):
        """Return the result in words, {label: text}; the first entry is the title."""
        raise NotImplementedError

    def __repr__(self):
        (_, title), *rest = self.describe().items()
        width = max((len(label) for label, _ in rest), default=0)
        return "\n".join([title, *(f"  {label:<{width}}  {text}" for label, text in rest)])

    def _repr_html_(self):
        (_, title), *rest = self.describe().items()
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(label)}</th>'
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for label, text in rest
        )
        return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"

    def plot(self, **options):
        """Draw the result; return the matplotlib figure, which a notebook shows."""
        need("report")
        return load(f"draw:{type(self).__name__}")(self, **options)


def show_rate(rate):
    """Return a rate as a percentage of two decimals, or a dash if it does not exist.

    >>> show_rate(0.62346), show_rate(None)
    ('62.35 %', '–')
    """
    return "–" if rate is None or rate != rate else f"{100 * rate:.2f} %"
