"""Download a file of a data set from its hub, resumably, and check its size and checksum."""

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

import httpx

from kvprefix.files.network import Deadline, find_proxy, trust_certificates
from kvprefix.files.paths import InputError, explain_os_errors, hold_lock, plain_text
from kvprefix.files.progress import show_progress
from kvprefix.files.sealed import read_sealed, sha256_file, write_sealed

STALL_S = 60.0  # the longest that STEP bytes may take
STEP = 2**20
ATTEMPTS = 5  # in a row that bring less than STEP bytes each
FIRST_WAIT_S = 1.0  # before the second attempt; it doubles each time
REDIRECTS = 5


class Source(NamedTuple):
    """A file of a data set of the hub.

    Attributes
    ----------
    repository, filename : str
    instead : str
        What there is without a network, as a sentence.
    n_bytes : int, optional
    sha256 : str, optional
        If they are not known, those that the hub names for the file, as it does for every large one.
    """

    repository: str
    filename: str
    instead: str
    n_bytes: int | None = None
    sha256: str | None = None

    def explain(self, reason, kept):
        """Return an InputError that says why the file could not be fetched."""
        return InputError(
            f"{self.repository}: could not be fetched from the hub ({plain_text(reason)[:300]}). It needs a network; "
            f"{kept}. {self.instead}"
        )

    def knows(self, path):
        """Say whether a file has the size and the checksum."""
        return path.is_file() and path.stat().st_size == self.n_bytes and sha256_file(path, shown=True) == self.sha256


def fetch_file(source, path):
    """Download a Source to a path and return the path; an interrupted download continues.

    What a hub named is kept beside the file as `.NAME.expected`: a whole file needs no network.

    Raises
    ------
    InputError
        No network, no such file, content of another size or checksum than is expected, or another fetch under way.
    """
    path = Path(path)
    part, expected = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.expected")
    with hold_lock(path.with_name(f".{path.name}.lock"), f"{path}: another run is fetching it; wait for it"):
        if path.exists():
            known = _recall(source, expected)
            if not known.knows(path):
                size = f" ({known.n_bytes:,} bytes, SHA-256 {known.sha256})" if known.sha256 else ""
                raise InputError(f"{path}: is not the expected file{size}; delete it and try again")
            return path
        with _Hub(source) as hub:
            known = source if source.sha256 else hub.name_content()
            if known not in (source, _recall(source, expected)):
                part.unlink(missing_ok=True)  # of another version
                write_sealed(expected, [known.n_bytes, known.sha256])
            hub.source = known
            hub.download(part)
        if sha256_file(part, shown=True) != known.sha256:
            part.unlink()
            raise InputError(f"{path}: what arrived is not the expected file (SHA-256 {known.sha256}); try again")
        with explain_os_errors(path):
            os.replace(part, path)
    return path


def _recall(source, expected):
    """Return the source with the size and the checksum that were kept, if they are not known otherwise."""
    kept = None if source.sha256 else read_sealed(expected)
    return source._replace(n_bytes=kept[0], sha256=kept[1]) if kept else source


def _find_address(source):
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise source.explain("the environment variable HF_HUB_OFFLINE is set", "nothing was asked")
    address = f"{constants.ENDPOINT}/datasets/{source.repository}/resolve/main/{source.filename}"
    if not re.match(r"https?://[^/]", address):
        raise InputError("the environment variable HF_ENDPOINT holds no address; expected one such as https://host")
    return address


class _Hub:
    """A connection to the hub for one Source; a request that brings next to nothing is made again."""

    def __init__(self, source):
        self.source, self.address = source, _find_address(source)
        proxy = find_proxy(self.address)
        self.through = f", through the proxy of {proxy.named_by}" if proxy else ""
        self.client = httpx.Client(
            follow_redirects=True, timeout=httpx.Timeout(STALL_S, connect=min(STALL_S, 10.0)), trust_env=False,
            verify=trust_certificates(), proxy=proxy and proxy.url, limits=httpx.Limits(max_keepalive_connections=0),
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def name_content(self):
        """Return the source with the size and the SHA-256 that the hub names for it."""
        return self._try(self._ask, lambda: 0, "nothing has arrived")

    def _ask(self, deadline):
        """Follow the hub's own redirects until one names the file; the last one leads to where it lies."""
        at, headers = httpx.URL(self.address), {"Accept-Encoding": "identity"}
        with deadline:
            for _ in range(REDIRECTS):
                request = self.client.build_request("HEAD", at, headers=headers, extensions={"trace": deadline.watch})
                answer = self.client.send(request, follow_redirects=False)
                size, tag = (answer.headers.get(f"x-linked-{name}", "") for name in ("size", "etag"))
                if re.fullmatch("[0-9]{1,18}", size) and (digest := re.fullmatch('"?([0-9a-f]{64})"?', tag)):
                    return self.source._replace(n_bytes=int(size), sha256=digest[1])
                if tag or answer.next_request is None:
                    _check_status(self.source, answer, (200, 302))
                    break
                at = answer.next_request.url
        raise self.source.explain("it names no size and no SHA-256 of the file", "the file may have moved")

    def download(self, part):
        """Append to the part until it has all bytes."""
        if part.exists() and (not part.is_file() or part.is_symlink()):
            raise InputError(f"{part}: is no regular file; delete it and try again")
        n_bytes = self.source.n_bytes
        kept = f"what has arrived is kept in {part.parent} and the next try continues from there"
        bar = show_progress(n_bytes, self.source.filename, "B")
        with bar, explain_os_errors(part), open(part, "r+b" if part.exists() else "w+b") as file:
            if file.seek(0, os.SEEK_END) > n_bytes:
                _begin_anew(file)
            bar.update(file.tell())

            def append(deadline):
                self._append(file, bar, deadline)
                return file.tell() == n_bytes or None

            if file.tell() < n_bytes:
                self._try(append, file.tell, kept)

    def _try(self, attempt, tell, kept):
        """Return what an attempt returns, if it is not None; give up after ATTEMPTS in a row that bring too little."""
        failures = 0
        while True:
            before, deadline = tell(), Deadline(STALL_S)
            try:
                if (found := attempt(deadline)) is not None:
                    return found
                reason = "the connection was closed"
            except (httpx.HTTPError, httpx.StreamError) as error:
                reason = str(error) or type(error).__name__
            if deadline.over:
                reason = f"less than {STEP:,} bytes came within {STALL_S:g} s"
            failures = 0 if abs(tell() - before) >= STEP else failures + 1
            if failures == ATTEMPTS:
                raise self.source.explain(f"{reason}{self.through}", kept)
            if failures:
                time.sleep(FIRST_WAIT_S * 2 ** (failures - 1))

    def _append(self, file, bar, deadline):
        """Append the missing bytes that one request brings; start again if the server knows no ranges."""
        start, n_bytes = file.tell(), self.source.n_bytes
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
        extensions = {"trace": deadline.watch}
        with deadline, self.client.stream("GET", self.address, headers=headers, extensions=extensions) as response:
            _check_status(self.source, response, (200, 206))
            _check_size(self.source, response, start)
            if response.status_code == 200:
                _begin_anew(file)
                bar.update(-start)
            counted = file.tell()
            for chunk in response.iter_raw():
                bar.update(file.write(chunk[: n_bytes - file.tell()]))
                if file.tell() - counted >= STEP:
                    counted = file.tell()
                    deadline.renew()
                if file.tell() == n_bytes:
                    return


def _begin_anew(file):
    file.seek(0)
    file.truncate()


def _check_status(source, response, good):
    """Raise an error to try again after if a server is busy, InputError if it has no such file."""
    said = f"{response.status_code} {response.reason_phrase}"
    if response.status_code >= 500 or response.status_code in (408, 429):
        raise httpx.HTTPError(said)
    if response.status_code not in good:
        raise source.explain(f"it answered {said}", "it is there for all, so the address may have changed")


def _check_size(source, response, start):
    """Raise InputError, before anything is read, if an answer is not the rest of a file of the right size."""
    if response.status_code == 206:
        found = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", response.headers.get("content-range", ""))
        said = (int(found[1]), int(found[2])) if found else None
    else:
        length = response.headers.get("content-length", "")
        said = (start, int(length)) if re.fullmatch("[0-9]{1,18}", length) else None
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    if said != (start, source.n_bytes) or encoded:
        size = "an encoded file" if encoded else f"{said[1]:,} bytes" if said else "no size"
        raise source.explain(
            f"it offers {size} there, {source.n_bytes:,} bytes are expected", "the file may have changed"
        )
