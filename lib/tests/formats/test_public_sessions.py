"""The download of the public agent sessions, from a server of the test's own, and the 60 that are taken out of them."""

import hashlib
import json
import re

import pytest
from huggingface_hub import constants
from places import SHARED
from raw_server import serve_raw

from kvprefix.__main__ import main
from kvprefix.files import download
from kvprefix.files.paths import InputError
from kvprefix.formats import public_sessions
from kvprefix.formats.public_sessions import SESSIONS, SOME, WHOLE, fetch_sessions, select_sessions

LINES = [
    {"id": f"trace_{k:04}", "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 1,
     "system_tokens": 2, "requests": [{"t": 0.0, "type": "n", "in": 70, "out": k, "hash_ids": [1]}], "totals": {"x": k}}
    for k in range(1, 30)
]  # fmt: skip
DATA = "".join(f"{json.dumps(one)}\n" for one in LINES).encode()
TAKEN = [{name: value for name, value in one.items() if name != "totals"} for one in LINES if one["id"][6:] in
         ("0002", "0003", "0013", "0020")]  # fmt: skip
CANONICAL = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in TAKEN).encode()


class Hub:
    """Answers as a hub does: HEAD redirects within the hub, then names what it links to; GET gives pieces of it."""

    def __init__(self, data=DATA, *, piece=10**6, tag=None, size=None):
        self.data, self.piece, self.asked = data, piece, []
        self.tag, self.size = tag or f'"{hashlib.sha256(data).hexdigest()}"', len(data) if size is None else size

    def __call__(self, send, request):
        method, path = request.split(b" ")[:2]
        self.asked.append(method.decode())
        if b"/resolve/" in path:
            return send(b"HTTP/1.1 307 There\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
        if method == b"HEAD":
            linked = f"X-Linked-Size: {self.size}\r\nX-Linked-ETag: {self.tag}\r\n" if self.tag != "none" else ""
            where = "Location: http://127.0.0.1:9/elsewhere\r\n" if linked else ""
            head = "302 Found" if linked else "200 OK"
            return send(f"HTTP/1.1 {head}\r\n{linked}{where}Content-Length: 0\r\n\r\n".encode())
        start = int(re.search(rb"[Rr]ange: bytes=([0-9]+)-", request)[1])
        self.asked[-1] = start
        size = len(self.data)
        send(f"HTTP/1.1 206 P\r\nContent-Range: bytes {start}-{size - 1}/{size}\r\n"
             f"Content-Length: {size - start}\r\n\r\n".encode())  # fmt: skip
        send(self.data[start : start + self.piece])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(public_sessions, "SOME_SHA256", hashlib.sha256(CANONICAL).hexdigest())
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(download, "STEP", 1000)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def fetch_from(hub, folder, monkeypatch):
    with serve_raw(hub) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        return fetch_sessions(folder)


def parts(asked):
    return [one for one in asked if isinstance(one, int)]


def test_all_sessions_arrive_and_the_known_ones_are_taken_out(tmp_path, monkeypatch, capsys):
    hub = Hub()
    found = fetch_from(hub, tmp_path, monkeypatch)
    assert found.whole.read_bytes() == DATA and found.some.read_bytes() == CANONICAL and found.is_same
    assert "29 sessions" in capsys.readouterr().out and parts(hub.asked) == [0]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_sessions(tmp_path) == found  # what is whole needs no network
    (tmp_path / SOME).write_bytes(b"cut")
    assert fetch_sessions(tmp_path).some.read_bytes() == CANONICAL


def test_a_download_goes_on_in_the_next_run(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="the next try continues from there"):
        fetch_from(Hub(piece=500), tmp_path, monkeypatch)
    assert not (tmp_path / WHOLE).exists()
    hub = Hub()
    assert fetch_from(hub, tmp_path, monkeypatch).is_same and parts(hub.asked) == [2500]


def test_a_part_of_another_version_is_not_gone_on_with(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="continues from there"):
        fetch_from(Hub(data=DATA.replace(b"m", b"n"), piece=500), tmp_path, monkeypatch)
    hub = Hub()
    assert fetch_from(hub, tmp_path, monkeypatch).is_same and parts(hub.asked) == [0]


def test_a_wrong_checksum_or_size_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="what arrived is not the expected file"):
        fetch_from(Hub(tag='"' + "0" * 64 + '"'), tmp_path, monkeypatch)
    with pytest.raises(InputError, match=rf"it offers {len(DATA):,} bytes there, 7 bytes are expected"):
        fetch_from(Hub(size=7), tmp_path, monkeypatch)
    assert not (tmp_path / WHOLE).exists() and not (tmp_path / SOME).exists()


@pytest.mark.parametrize("tag", ["none", '"a-git-name"'])
def test_a_file_whose_checksum_is_not_named_is_not_fetched(tag, tmp_path, monkeypatch):
    hub = Hub(tag=tag)
    with pytest.raises(InputError, match="names no size and no SHA-256"):
        fetch_from(hub, tmp_path, monkeypatch)
    assert not parts(hub.asked)


def test_a_busy_hub_is_asked_again_and_one_without_the_file_is_not(tmp_path, monkeypatch):
    asked = []

    def busy(send, request):
        asked.append(request)
        send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(InputError, match="503 Busy.*nothing has arrived"):
        fetch_from(busy, tmp_path, monkeypatch)
    assert len(asked) == download.ATTEMPTS
    with pytest.raises(InputError, match="it answered 404 Gone"):
        fetch_from(lambda send, _: send(b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"), tmp_path, monkeypatch)


def test_a_whole_file_that_was_altered_is_named(tmp_path, monkeypatch):
    fetch_from(Hub(), tmp_path, monkeypatch)
    (tmp_path / WHOLE).write_bytes(b"x")
    with pytest.raises(InputError, match=rf"is not the expected file \({len(DATA):,} bytes, SHA-256 .*delete it"):
        fetch_sessions(tmp_path)


def test_sessions_that_have_changed_are_said_to_have(tmp_path, monkeypatch, capsys):
    found = fetch_from(Hub(data=DATA.replace(b'"out": 2', b'"out": 9')), tmp_path, monkeypatch)
    assert not found.is_same and "the public set has changed" in capsys.readouterr().err


def test_without_a_network_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(public_sessions, "raw_folder", lambda: tmp_path)
    assert main(["fetch", "agentic"]) == 2
    error = capsys.readouterr().err
    assert f"{SESSIONS.repository}: could not be fetched" in error and "reports/agentic is the report of 60" in error


@pytest.mark.skipif(not (SHARED / "data").exists(), reason="the sessions are not here")
def test_the_real_sessions_have_the_checksum(tmp_path, monkeypatch):
    monkeypatch.undo()
    assert select_sessions(SHARED / "data/agentic_sessions.jsonl.gz", tmp_path / "some.jsonl") == 60
    digest = hashlib.sha256((tmp_path / "some.jsonl").read_bytes()).hexdigest()
    assert digest == public_sessions.SOME_SHA256
