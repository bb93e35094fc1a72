"""Talk to an OpenAI-compatible server: one request and its answer, its model, its counters. Nothing is kept here.

A failure is an `Unanswered`, worth trying again, or an `InputError`, which no trying helps.
"""

import os
import re
import time
from urllib.parse import urlsplit

import httpx

from kvprefix.files import InputError
from kvprefix.serveranswers import Unanswered, find_message, parse_metrics, read_answer, read_whole_answer

# What a server that does not know it may refuse; it is left out then.
_OPTIONS = {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True, "ignore_eos": True}
_TOO_LONG = re.compile(r"context length|context window|maximum length|too long|max_model_len", re.IGNORECASE)


class TooLong(Exception):
    """A request longer than the server's context."""


class Server:
    """A server at a URL; a context manager. Threads may share it.

    Parameters
    ----------
    url : str
        `http://host:port`, with or without `/v1`. A key is taken from the environment variable OPENAI_API_KEY.
    timeout_s : float
        The longest that one request may take.

    Raises
    ------
    InputError
        A URL that is not http.
    """

    def __init__(self, url, timeout_s=120.0):
        self.url, self.timeout_s = check_url(url), timeout_s
        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # none that the server closed long ago
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0))
        self._client = httpx.Client(headers=headers, timeout=timeout, limits=limits)
        self._options = _OPTIONS

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.close()

    def describe(self, model=None):
        """Return `{"model", "max_model_len", "version"}`; the latter two are None where the server does not say.

        Without `model` it is the first one that the server has.
        """
        body = _read_json(self._get("/v1/models"))
        listed = body.get("data") if isinstance(body, dict) else None
        models = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        names = [one.get("id") for one in models if isinstance(one.get("id"), str)]
        if not names:
            raise Unanswered("/v1/models lists no model", reached=False)
        if model is not None and model not in names:
            raise InputError(f"{self.url}: has no model {model!r}; it has {', '.join(names)}")
        model = model or names[0]
        longest = next(one for one in models if one.get("id") == model).get("max_model_len")
        try:
            said = _read_json(self._get("/version"))
            version = said.get("version") if isinstance(said, dict) else None
        except (Unanswered, InputError):
            version = None
        return {"model": model, "max_model_len": longest if type(longest) is int else None, "version": version}

    def read_metrics(self):
        """Return the counters and the cache of `/metrics`, None where there is none: see `parse_metrics`."""
        try:
            return parse_metrics(self._get("/metrics").text)
        except (Unanswered, InputError):
            return None

    def empty_cache(self):
        """Empty the server's prefix cache, which vLLM lets one do in its development mode."""
        try:
            response = self._request("POST", "/reset_prefix_cache")
        except InputError as error:
            advice = "--reset needs vLLM with VLLM_SERVER_DEV_MODE=1; without it, restart the server"
            raise InputError(f"{self.url}: does not let its cache be emptied; {advice}") from error
        said = _read_json(response) if response.content else {"success": True}  # older versions say nothing
        if not isinstance(said, dict) or said.get("success") is not True:
            raise Unanswered("did not empty its cache, in which requests hold blocks", reached=False)

    def ask(self, path, body):
        """Send a request and return its Answer.

        Parameters
        ----------
        path : str
            `/v1/completions` or `/v1/chat/completions`.
        body : dict
            Without what asks for a stream and token ids, and not to end early, which is added where it is known.

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
                if "stream" in refused or "stream_options" in refused:  # without usage a stream is of no use
                    refused += ["stream", "stream_options"]
                self._options = {name: value for name, value in options.items() if name not in refused}

    def _ask(self, path, body):
        started = time.monotonic()
        try:
            with self._client.stream("POST", f"{self.url}{path}", json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._explain(response, path)
                whole = response.headers.get("content-type", "").startswith("application/json")
                read = read_whole_answer if whole else read_answer
                return read(response.iter_bytes(), started, self.timeout_s)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unanswered(error, self.timeout_s) from error

    def _get(self, path):
        return self._request("GET", path)

    def _request(self, method, path):
        try:
            response = self._client.request(method, f"{self.url}{path}")
        except httpx.HTTPError as error:
            raise _unanswered(error, self.timeout_s) from error
        if response.status_code != 200:
            raise self._explain(response, path)
        return response

    def _explain(self, response, path):
        """Return the exception for an answer that is not 200."""
        status, text = response.status_code, _read_message(response)
        said = f"{status} {response.reason_phrase}".strip() + (f": {text}" if text else "")
        if status == 413 or (status in (400, 422) and _TOO_LONG.search(text)):
            return TooLong(said)
        if status >= 500 or status in (408, 425, 429):
            wait = response.headers.get("retry-after", "")
            return Unanswered(f"answered {said}", reached=False, wait_s=min(float(wait), 30) if wait.isdecimal() else 0)
        hints = {401: "; its key belongs in the environment variable OPENAI_API_KEY", 404: "; expected the address of "
                 "an OpenAI-compatible server, such as http://127.0.0.1:8000"}  # fmt: skip
        return InputError(f"{self.url}{path}: answered {said}{hints.get(401 if status == 403 else status, '')}")


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
        raise InputError(f"URL is {url!r}; expected a server's address such as http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _unanswered(error, timeout_s):
    """Return what a failure of the connection means."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Unanswered(f"cannot be reached ({str(error) or 'time-out'})", reached=False)
    if isinstance(error, httpx.TimeoutException):
        return Unanswered(f"was not done within {timeout_s:g} s", reached=True)
    return Unanswered(f"closed the connection ({str(error) or type(error).__name__})", reached=True)


def _read_json(response):
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise Unanswered(f"answered nonsense to {response.url.path}: {response.text[:60]!r}", reached=False) from error


def _read_message(response):
    """Return the message of an error's body, cut."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = response.text
    return find_message(body)
