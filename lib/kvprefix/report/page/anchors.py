"""Name the places of a report that a link can lead to: anchors made of titles and names, each given once."""

import re

RESERVED = {"contents", "top"}  # of the page itself


def make_anchor(text):
    """Return the anchor that GitHub gives a heading.

    >>> make_anchor("What the load does: CV > 1")
    'what-the-load-does-cv--1'
    """
    return re.sub(r"[^\w\- ]", "", " ".join(text.split()).lower()).replace(" ", "-")


class Anchors:
    """Anchors of one page, all different.

    >>> anchors = Anchors()
    >>> anchors.take("Cache size"), anchors.take("Cache size"), anchors.take("?")
    ('cache-size', 'cache-size-2', 'part')
    """

    def __init__(self):
        self._taken = set(RESERVED)

    def take(self, text):
        """Return the anchor of a text, with a number if it is taken, and take it."""
        anchor = free = make_anchor(text) or "part"
        number = 1
        while free in self._taken:
            number += 1
            free = f"{anchor}-{number}"
        self._taken.add(free)
        return free
