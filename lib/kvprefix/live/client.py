"""Talk to an OpenAI-compatible server: a request and its answer, its models, its counters. Nothing is kept here.

A failure is an `Unanswered` if another attempt may help, else an `InputError`.
"""

import json
import math
import re
from functools import partial
from urllib.parse import urlsplit

import httpx

from kvprefix.files.network import Deadline, find_proxy, trust_certificates
from kvprefix.files.paths import InputError, plain_text
from kvprefix.live.answers import (
    MOST_BYTES_OF_A_PAGE,
    Unanswered,
    find_message,
    iterate_body,
    parse_metrics,
    read_answer,
    read_chunks,
    read_whole_answer,
)
from kvprefix.live.key import Key
from kvprefix.live.recording import VERSION_TEXT

MOST_SHOWN = 300  # characters of what a server says
# Options that a server may refuse because it does not know them; they are left out then.
_OPTIONS = {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True, "ignore_eos": True}
_TOO_LONG = re.compile(r"context length|context window|maximum length|too long|max_model_len", re.IGNORECASE)


class TooLong(Exception):
    """A request longer than the server's context."""


class Server:
    """A server at a URL; a context manager. Threads may share it.

    Parameters
    ----------
    url : str
        `http://host:port`, with or without `/v1`. The key is taken from the environment variable OPENAI_API_KEY; no
        message and no returned value holds it.
    timeout_s : float
        The longest time for one request, from connecting to the last byte.

    Raises
    ------
    InputError
        If the URL is not http, no header takes the key, or a proxy or certificates cannot be used.
    """

    def __init__(self, url, timeout_s=120.0):
        self.url, self.timeout_s, self._key, self._options = check_url(url), timeout_s, Key(), _OPTIONS
        if self._key.is_in(self.url):
            raise InputError("URL holds the key; the URL is recorded, expected the key in OPENAI_API_KEY alone")
        proxy = find_proxy(self.url)
        self._through = f" through the proxy of {proxy.named_by}" if proxy else ""
        self._client = httpx.Client(
            headers={**self._key.headers, "Accept-Encoding": "identity", "Content-Type": "application/json"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),  # reuse none that may be closed
            proxy=proxy and proxy.url, trust_env=False, verify=trust_certificates(),
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.close()

    def describe(self, model=None):
        """Return `{"model", "max_model_len", "version"}`; the latter two are None if the server does not say.

        `model` is by default the server's first one.
        """
        body = self._get("/v1/models")
        listed = body.get("data") if isinstance(body, dict) else None
        models = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        names = [one.get("id") for one in models if isinstance(one.get("id"), str)]
        if not names:
            raise Unanswered("/v1/models lists no model", reached=False)
        if model is not None and model not in names:
            raise InputError(f"{self.url}: has no model {model!r}; it has {self._show(', '.join(names))}")
        model = model or names[0]
        if self._key.is_in(model):
            raise InputError(f"{self.url}: names a model by the key, which would be recorded; expected --model")
        longest = next(one for one in models if one.get("id") == model).get("max_model_len")
        try:
            said = self._get("/version")
            version = said.get("version") if isinstance(said, dict) else None
        except (Unanswered, InputError):
            version = None
        version = self._key.hide(version) if isinstance(version, str) else ""
        return {
            "model": model,
            "max_model_len": longest if type(longest) is int and longest > 0 else None,
            "version": version if VERSION_TEXT.fullmatch(version) else None,
        }

    def read_metrics(self):
        """Return the counters and the cache of `/metrics`, None if there are none: see `parse_metrics`."""
        try:
            return parse_metrics(self._exchange("GET", "/metrics", _read_text))
        except (Unanswered, InputError):
            return None

    def empty_cache(self):
        """Empty the server's prefix cache, which vLLM allows in its development mode."""
        try:
            text = self._exchange("POST", "/reset_prefix_cache", _read_text)
        except InputError as error:
            advice = "--reset needs vLLM with VLLM_SERVER_DEV_MODE=1; without it, restart the server"
            raise InputError(f"{self.url}: does not let its cache be emptied; {advice}") from error
        said = self._parse(text, "/reset_prefix_cache") if text else {"success": True}  # older versions say nothing
        if not isinstance(said, dict) or said.get("success") is not True:
            raise Unanswered("did not empty its cache, in which requests hold blocks", reached=False)

    def ask(self, path, body):
        """Send a request and return its Answer.

        Parameters
        ----------
        path : str
            `/v1/completions` or `/v1/chat/completions`.
        body : dict
            Without the options that ask for a stream and token ids, and not to end early: they are added if the server
            knows them.

        Raises
        ------
        Unanswered, TooLong, InputError
        """
        while True:
            options = self._options
            try:
                return self._ask(path, {**body, **options})
            except InputError as error:
                refused = [name for name in options if re.search(rf"\b{name}\b", str(error))]
                if not refused:
                    raise
                if "stream" in refused or "stream_options" in refused:  # a stream without usage is no use
                    refused += ["stream", "stream_options"]
                self._options = {name: value for name, value in options.items() if name not in refused}

    def _ask(self, path, body):
        def read(response, chunks, started):
            whole = response.headers.get("content-type", "").startswith("application/json")
            return (read_whole_answer if whole else read_answer)(chunks, started, self.timeout_s)

        answer = self._exchange("POST", path, read, body)
        if answer.output_tokens > body["max_tokens"]:
            said = f"{answer.output_tokens:,} generated tokens, {body['max_tokens']:,} were asked for"
            raise Unanswered(f"answered nonsense: {said}", reached=True)
        return answer

    def _get(self, path):
        """Return the JSON value at a path."""
        return self._parse(self._exchange("GET", path, _read_text), path)

    def _parse(self, text, path):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise Unanswered(f"answered nonsense to {path}: {self._show(text)}", reached=False) from None

    def _exchange(self, method, path, read, body=None):
        """Send a request and return `read(response, chunks, started)` of an answer with status 200."""
        deadline = Deadline(self.timeout_s)
        content, extensions = None if body is None else json.dumps(body), {"trace": deadline.watch}
        send = partial(self._client.stream, method, f"{self.url}{path}", content=content, extensions=extensions)
        result = failure = None
        try:
            with deadline, send() as response:
                chunks = iterate_body(response)
                if response.status_code == 200:
                    result = read(response, chunks, deadline.started)
                else:
                    failure = self._explain(response, path, _read_text(response, chunks, deadline.started))
        except Unanswered as error:
            failure = Unanswered(self._show(str(error)), reached=error.reached)
        except (httpx.HTTPError, httpx.StreamError) as error:
            failure = self._find_failure(error)
        if deadline.over:
            failure = Unanswered(f"was not done within {self.timeout_s:g} s{self._through}", reached=True)
        if failure is not None:
            raise failure  # here, so that no traceback shows its cause, which may hold the key
        return result

    def _find_failure(self, error):
        """Return what a failure of the connection means."""
        reason = self._show(str(error) or type(error).__name__)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            reason = "time-out" if isinstance(error, httpx.ConnectTimeout) else reason
            return Unanswered(f"cannot be reached{self._through} ({reason})", reached=False)
        if isinstance(error, httpx.TimeoutException):
            return Unanswered(f"was not done within {self.timeout_s:g} s{self._through}", reached=True)
        return Unanswered(f"broke off its answer{self._through} ({reason})", reached=True)

    def _show(self, text, most=MOST_SHOWN):
        """Return a server's text for a message: a short line without the key and without control characters."""
        text = plain_text(" ".join(self._key.hide(text).split()))
        return text if len(text) <= most else f"{text[: most - 3]}..."

    def _explain(self, response, path, text):
        """Return the exception for an answer that is not 200."""
        status, text = response.status_code, self._show(_find_text(text))
        said = f"{status} {self._show(response.reason_phrase, 60)}".strip() + (f": {text}" if text else "")
        said += self._through
        asked = path.endswith("/completions")
        if asked and (status == 413 or (status in (400, 422) and _TOO_LONG.search(text))):
            return TooLong(said)
        if status >= 500 or status in (408, 425, 429):
            wait = response.headers.get("retry-after", "")
            wait_s = min(int(wait), 30) if re.fullmatch("[0-9]{1,9}", wait) else 0
            return Unanswered(f"answered {said}", reached=False, wait_s=wait_s)
        hints = {401: "; its key belongs in the environment variable OPENAI_API_KEY", 404: "; expected the address of "
                 "an OpenAI-compatible server, such as http://127.0.0.1:8000",
                 300: f"; expected the address that it sends on to ({self._show(response.headers.get('location', ''))})"
                 }  # fmt: skip
        hint = hints.get(401 if status == 403 else 300 if status in range(300, 400) else status, "")
        return InputError(f"{self.url}{path}: answered {said}{hint}")


def check_url(url):
    """Return a server's address without `/v1` and a slash at its end, or raise InputError.

    >>> check_url("http://127.0.0.1:8000/v1/")
    'http://127.0.0.1:8000'
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        good = False
    if not good or parts.query or parts.fragment or parts.username or parts.password:  # the URL is recorded
        shown = Key().hide(re.sub("//.*@", "//***@", url))
        raise InputError(f"URL is {shown!r}; expected a server's address such as http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _read_text(_response, chunks, started):
    """Return the text of a page; the deadline of its request bounds its time."""
    return bytearray().join(read_chunks(chunks, started, math.inf, MOST_BYTES_OF_A_PAGE)).decode(errors="replace")


def _find_text(text):
    """Return the message of an error's body."""
    try:
        return find_message(json.loads(text))
    except (ValueError, RecursionError):
        return text
