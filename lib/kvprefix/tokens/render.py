"""Render a prompt of any messages, tools and settings with a chat template, as transformers does it.

Source: transformers 5.23, `apply_chat_template` and `render_jinja_template`: fields that are null are left out, and
reasoning is given under every name that templates read.
"""

import contextlib
from datetime import UTC, datetime

from kvprefix.servers.prompt import Refused
from kvprefix.tokens.chat import TemplateRefusal

NO_DAY = datetime(2025, 1, 1, tzinfo=UTC)  # of a prompt without a time, where the template writes dates
_OPEN_END = "KVPREFIX-OPEN-END "
_REASONING = ("reasoning_content", "thinking", "reasoning")


def render_prompt(chat, prompt, now=NO_DAY):
    """Return the text of a prompt.

    Parameters
    ----------
    chat : Chat
    prompt : servers.prompt.Prompt
    now : datetime
        What the template writes if it asks for the time.

    Raises
    ------
    TemplateRefusal
    Refused
        A text that no tokenizer takes: it has half characters (lone surrogates).
    """
    messages = [_add_names({key: value for key, value in m.items() if value is not None}) for m in prompt.messages]
    last = messages[-1].get("content") if prompt.continues else None
    if prompt.continues:
        if chat.source is not None and "content" not in chat.source:
            raise TemplateRefusal("the last message is to be continued, but the template reads no `content`")
        messages[-1] = {**messages[-1], "content": _mark_end(last)}
    given = {"tools": prompt.tools, "add_generation_prompt": prompt.generation, "documents": None, **prompt.settings}
    with chat.running(messages):
        if chat.source is None:
            text = chat.tokenizer.apply_chat_template(messages, tokenize=False, **given)
        else:
            given = {**chat.special_tokens, "strftime_now": now.strftime, **given}
            text = chat.compiled.render(messages=messages, **given)
    chat.check_length(text, messages, prompt.tools)
    text = _cut_open_end(text, _last_text(last)) if prompt.continues else text
    if not _is_whole(text):
        raise Refused("half characters", "a text has half characters (lone surrogates), which are no Unicode")
    before, after = chat.added_special if prompt.adds_special else ("", "")
    return f"{before}{text}{after}"


def _is_whole(text):
    """Tell whether a text has no half characters.

    >>> _is_whole("abc"), _is_whole("abc" + chr(0xD83D))
    (True, False)
    """
    if not text.isascii():
        with contextlib.suppress(UnicodeEncodeError):
            return bool(text.encode())
        return False
    return True


def _add_names(message):
    """Return a message with its reasoning under every name."""
    reasoning = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _last_text(content):
    if isinstance(content, str):
        return content
    texts = [part["text"] for part in content or () if "text" in part]
    if not texts:
        raise TemplateRefusal("the last message, which is to be continued, has no text")
    return texts[-1]


def _mark_end(content):
    """Return a content whose last text ends with a mark."""
    text = _last_text(content) + _OPEN_END
    if isinstance(content, str):
        return text
    last = max(k for k, part in enumerate(content) if "text" in part)
    return [*content[:last], {**content[last], "text": text}, *content[last + 1 :]]


def _cut_open_end(text, last):
    """Return a prompt's text up to the mark; without white space at its end if the template trims texts."""
    if last.strip() not in text or (place := text.rfind(_OPEN_END.strip())) < 0:
        raise TemplateRefusal("the template does not write the last message, which is to be continued")
    return text[:place] if text.startswith(_OPEN_END, place) else text[:place].rstrip()
