"""The key for a server: read from the environment, and taken out of every text that a server sends."""

import html
import json
import os
import re
from urllib.parse import quote

from kvprefix.files.paths import InputError

VARIABLE = "OPENAI_API_KEY"
_SHORT = 8  # a shorter key, such as `x` or `EMPTY`, is hidden as a word only: it may be part of any word


class Key:
    """The key of the environment variable OPENAI_API_KEY, without blanks around it; it may be missing.

    Raises
    ------
    InputError
        If no header takes the key; the message does not show it.
    """

    def __init__(self):
        text = os.environ.get(VARIABLE, "").strip()
        if not re.fullmatch(r"[ -~\xa0-\xff]*", text):
            raise InputError(
                f"the environment variable {VARIABLE} holds a control character, or one that is not Latin-1, which no "
                "header takes; expected a key"
            )
        self.headers = {"Authorization": f"Bearer {text}".encode("latin-1")} if text else {}
        self._pattern, self._is_short = _find_forms(text) if text else None, len(text) < _SHORT

    def __repr__(self):
        return "Key(***)"

    def hide(self, text):
        """Return a text with *** for the key, also for its forms in JSON, HTML and URLs."""
        return self._pattern.sub("***", text) if self._pattern else text

    def is_in(self, text):
        """Say whether a text holds the key; False for a short key, which is no secret and may be a name."""
        return not self._is_short and self.hide(text) != text


def _find_forms(key):
    as_json = json.dumps(key)[1:-1]
    forms = {key, as_json, as_json.replace("/", r"\/"), json.dumps(key, ensure_ascii=False)[1:-1], html.escape(key)}
    forms |= {quote(key), quote(key, safe=""), quote(key, safe="", encoding="latin-1"), repr(key)[1:-1]}
    forms |= {key.encode("latin-1").decode("utf-8", errors="replace")}
    any_form = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{any_form})(?!\w)" if len(key) < _SHORT else any_form)
