"""Download the full ShareGPT V3 from its hub, resumably, and verify its size and checksum."""

import os
import re
import time
from pathlib import Path

import httpx

from kvprefix.files.network import Deadline, find_proxy, trust_certificates
from kvprefix.files.paths import InputError, explain_os_errors, find_project, hold_lock, plain_text
from kvprefix.files.progress import show_progress
from kvprefix.files.sealed import sha256_file

REPOSITORY = "anon8231489123/ShareGPT_Vicuna_unfiltered"
FILENAME = "ShareGPT_V3_unfiltered_cleaned_split.json"
N_BYTES = 672_837_942
SHA256 = "35f0e213ce091ed9b9af2a1f0755e9d39f9ccec34ab281cd4ca60d70f6479ba4"
STALL_S = 60.0  # the longest that STEP bytes may take
STEP = 2**20
ATTEMPTS = 5  # in a row that bring less than STEP bytes each
FIRST_WAIT_S = 1.0  # before the second attempt; it doubles each time


def fetch_full_sharegpt(folder=None):
    """Download the file to `data/raw` (or `folder`) and return its path; an interrupted download continues.

    Raises
    ------
    InputError
        No network, no such file, content of another size or checksum than N_BYTES and SHA256, or another fetch under
        way.
    """
    folder = Path(folder or (find_project() or Path.cwd()) / "data" / "raw")
    path, part = folder / FILENAME, folder / f".{FILENAME}.part"
    with hold_lock(folder / f".{FILENAME}.lock", f"{path}: another run is fetching it; wait for it"):
        if not path.exists():
            _download(_find_address(), part, folder)
            if sha256_file(part, shown=True) != SHA256:
                part.unlink()
                raise InputError(f"{path}: what arrived is not the expected file (SHA-256 {SHA256}); try again")
            with explain_os_errors(path):
                os.replace(part, path)
        elif not path.is_file() or path.stat().st_size != N_BYTES or sha256_file(path, shown=True) != SHA256:
            expected = f"{N_BYTES:,} bytes, SHA-256 {SHA256}"
            raise InputError(f"{path}: is not the expected file ({expected}); delete it and try again")
    return path


def _find_address():
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _explain("the environment variable HF_HUB_OFFLINE is set", "nothing was asked")
    address = f"{constants.ENDPOINT}/datasets/{REPOSITORY}/resolve/main/{FILENAME}"
    if not re.match(r"https?://[^/]", address):
        raise InputError("the environment variable HF_ENDPOINT holds no address; expected one such as https://host")
    return address


def _explain(reason, kept):
    return InputError(
        f"{REPOSITORY}: could not be fetched from the hub ({plain_text(reason)[:300]}). It needs a network; {kept}. "
        "The bundled part (DATA=bundled) needs none"
    )


def _download(address, part, folder):
    """Append to the part until it has all bytes; give up after ATTEMPTS in a row that bring next to nothing."""
    kept = f"what has arrived is kept in {folder} and the next try continues from there"
    proxy, failures = find_proxy(address), 0
    client = httpx.Client(
        follow_redirects=True, timeout=httpx.Timeout(STALL_S, connect=min(STALL_S, 10.0)), trust_env=False,
        verify=trust_certificates(), proxy=proxy and proxy.url, limits=httpx.Limits(max_keepalive_connections=0),
    )  # fmt: skip
    if part.exists() and (not part.is_file() or part.is_symlink()):
        raise InputError(f"{part}: is no regular file; delete it and try again")
    bar = show_progress(N_BYTES, FILENAME, "B")
    with client, bar, explain_os_errors(part), open(part, "r+b" if part.exists() else "w+b") as file:
        if file.seek(0, os.SEEK_END) > N_BYTES:
            _begin_anew(file)
        bar.update(file.tell())
        while (before := file.tell()) < N_BYTES:
            deadline = Deadline(STALL_S)
            try:
                _append(client, address, file, bar, deadline)
                reason = "the connection was closed"
            except (httpx.HTTPError, httpx.StreamError) as error:
                reason = str(error) or type(error).__name__
            if deadline.over:
                reason = f"less than {STEP:,} bytes came within {STALL_S:g} s"
            failures = 0 if abs(file.tell() - before) >= STEP else failures + 1
            if failures == ATTEMPTS:
                raise _explain(f"{reason}{f', through the proxy of {proxy.named_by}' if proxy else ''}", kept)
            if failures:
                time.sleep(FIRST_WAIT_S * 2 ** (failures - 1))


def _begin_anew(file):
    file.seek(0)
    file.truncate()


def _append(client, address, file, bar, deadline):
    """Append the missing bytes that one request brings; start again if the server knows no ranges."""
    start = file.tell()
    headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
    extensions = {"trace": deadline.watch}
    with deadline, client.stream("GET", address, headers=headers, extensions=extensions) as response:
        if response.status_code >= 500 or response.status_code in (408, 429):
            raise httpx.HTTPError(f"{response.status_code} {response.reason_phrase}")
        if response.status_code not in (200, 206):
            said = f"{response.status_code} {response.reason_phrase}"
            raise _explain(f"it answered {said}", "it is there for all, so the address may have changed")
        _check_size(response, start)
        if response.status_code == 200:
            _begin_anew(file)
            bar.update(-start)
        counted = file.tell()
        for chunk in response.iter_raw():
            bar.update(file.write(chunk[: N_BYTES - file.tell()]))
            if file.tell() - counted >= STEP:
                counted = file.tell()
                deadline.renew()
            if file.tell() == N_BYTES:
                return


def _check_size(response, start):
    """Raise InputError, before anything is read, if an answer is not the rest of a file of the right size."""
    if response.status_code == 206:
        found = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", response.headers.get("content-range", ""))
        said = (int(found[1]), int(found[2])) if found else None
    else:
        length = response.headers.get("content-length", "")
        said = (start, int(length)) if re.fullmatch("[0-9]{1,18}", length) else None
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    if said != (start, N_BYTES) or encoded:
        size = "an encoded file" if encoded else f"{said[1]:,} bytes" if said else "no size"
        raise _explain(f"it offers {size} there, {N_BYTES:,} bytes are expected", "the file may have changed")
