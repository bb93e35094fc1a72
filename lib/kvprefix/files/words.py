"""Say numbers in words, as messages, notes and reports do."""


def count(n, noun, plural=None):
    """Return a number with its noun.

    >>> count(1, "request"), count(2000, "request"), count(0, "reply", "replies")
    ('1 request', '2,000 requests', '0 replies')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"
