"""Mask what in a text may be somebody's: addresses, keys and long numbers, so that an example may be shown."""

import re

EMAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
UUID = r"(?i:(?<![0-9a-f])[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}(?![0-9a-f]))"
_MASKS = (
    ("<email>", re.compile(EMAIL)),
    ("<uuid>", re.compile(UUID)),
    ("<key>", re.compile(r"\b(?=[\w-]*[0-9])(?=[\w-]*[A-Za-z])[\w-]{20,}\b")),
    ("<number>", re.compile(r"\b[A-Za-z_]+[0-9]{7,}\w*\b")),
    ("<number>", re.compile(r"\b(?![0-9]{4}-[0-9]{2}-[0-9]{2}\b)[0-9][0-9 ()-]{6,}[0-9]\b")),
)


def mask_values(text):
    """Return a text with such values replaced by their kind.

    >>> mask_values("IBAN DE1000000000000")
    'IBAN <number>'
    >>> mask_values("write to jo.doe@example.org or 0171-555 1234 with sk-a1b2c3d4e5f6a7b8c9d0, on 2024-05-01")
    'write to <email> or <number> with <key>, on 2024-05-01'
    """
    for mask, pattern in _MASKS:
        text = pattern.sub(mask, text)
    return text
