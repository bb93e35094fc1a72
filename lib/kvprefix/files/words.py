"""Say numbers in words, as messages, notes and reports do; say what a misspelt name may mean.

The Makefile runs this file alone, so it imports only the standard library.
"""

import difflib
import sys


def count(n, noun, plural=None):
    """Return a number with its noun.

    >>> count(1, "request"), count(2000, "request"), count(0, "reply", "replies")
    ('1 request', '2,000 requests', '0 replies')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def guess(name, known):
    """Return the end of a message about a name that is not known: the known one that it is like, if there is one.

    >>> guess("blok_size", ["block_size", "seed"]), guess("x", ["block_size", "seed"])
    ('; did you mean block_size?', '')
    """
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, 1)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


if __name__ == "__main__":
    sys.stdout.write(guess(sys.argv[1], sys.argv[2:]))
