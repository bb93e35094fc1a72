"""The download of the full ShareGPT, from a server of the test's own: it goes on, ends, and takes right bytes only."""

import hashlib
import re
import socket
import threading
import time

import pytest
from clocks import ENDS_S
from huggingface_hub import constants
from raw_server import DRIPS, serve_raw

from kvprefix.__main__ import main
from kvprefix.conversations import fetch
from kvprefix.conversations.fetch import SHAREGPT, fetch_full_sharegpt
from kvprefix.files import download
from kvprefix.files.paths import InputError
from kvprefix.tokens.tokenizer import find_tokenizer

PROXIES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]
DATA = bytes(range(256)) * 40  # 10,240 bytes stand for the file


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    expected = {"n_bytes": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
    monkeypatch.setattr(fetch, "SHAREGPT", SHAREGPT._replace(**expected))
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(download, "STEP", 1000)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


class Hub:
    """Serves the file in pieces of `piece` bytes a connection; remembers where each one was to begin."""

    def __init__(self, piece=10**5, ranges=True, size=10_240):
        self.piece, self.ranges, self.size, self.asked = piece, ranges, size, []

    def __call__(self, send, request):
        start = int(re.search(rb"[Rr]ange: bytes=([0-9]+)-", request)[1])
        self.asked.append(start)
        start = start if self.ranges else 0
        head = f"206 Partial\r\nContent-Range: bytes {start}-{self.size - 1}/{self.size}" if self.ranges else "200 OK"
        send(f"HTTP/1.1 {head}\r\nContent-Length: {self.size - start}\r\n\r\n".encode())
        send(DATA[start : start + self.piece])


def fetch_from(hub, folder, monkeypatch):
    with serve_raw(hub) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        return fetch_full_sharegpt(folder)


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path, monkeypatch):
    hub = Hub(piece=4000)
    path = fetch_from(hub, tmp_path, monkeypatch)
    assert path.read_bytes() == DATA and hub.asked == [0, 4000, 8000]
    assert list_names(tmp_path) == [SHAREGPT.filename]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_full_sharegpt(tmp_path) == path  # what is whole needs no network


def test_the_next_run_goes_on_too(tmp_path, monkeypatch):
    hub = Hub(piece=999)  # below STEP: five attempts
    with pytest.raises(InputError, match="the next try continues from there"):
        fetch_from(hub, tmp_path, monkeypatch)
    assert hub.asked == [0, 999, 1998, 2997, 3996]
    hub = Hub()
    assert fetch_from(hub, tmp_path, monkeypatch).read_bytes() == DATA and hub.asked == [4995]


def test_a_server_without_ranges_begins_anew(tmp_path, monkeypatch):
    (tmp_path / f".{SHAREGPT.filename}.part").write_bytes(b"x" * 5000)
    hub = Hub(ranges=False)
    assert fetch_from(hub, tmp_path, monkeypatch).read_bytes() == DATA and hub.asked == [5000]


def test_a_part_that_is_too_long_or_wrong(tmp_path, monkeypatch):
    part = tmp_path / f".{SHAREGPT.filename}.part"
    part.write_bytes(b"x" * (len(DATA) + 1))
    assert fetch_from(Hub(), tmp_path, monkeypatch).read_bytes() == DATA
    (tmp_path / SHAREGPT.filename).unlink()
    part.write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match="what arrived is not the expected file"):
        fetch_from(Hub(), tmp_path, monkeypatch)
    assert list_names(tmp_path) == []


@pytest.mark.parametrize(
    ("hub", "said"),
    [
        (Hub(size=10**15), "it offers 1,000,000,000,000,000 bytes there, 10,240 bytes are expected"),
        (Hub(size=7), "it offers 7 bytes there"),
        (lambda send, _: send(b"HTTP/1.1 200 OK\r\n\r\n" + DATA), "it offers no size there"),
        (lambda send, _: send(b"HTTP/1.1 404 Not\x9b2J\r\n\r\n"), r"it answered 404 Not"),
        (lambda send, _: send(b"HTTP/1.1 302 F\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n"), "redirects"),
        (lambda send, _: send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), "503 Busy"),
        (lambda send, _: send(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 9\r\n\r\n"), "an encoded"),
    ],
)  # fmt: skip
def test_what_is_not_the_file_is_not_read(hub, said, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=said) as raised:
        fetch_from(hub, tmp_path, monkeypatch)
    assert str(raised.value).isprintable() and "DATA=bundled" in str(raised.value)
    assert not any(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["headers", "slow body"])
def test_a_drip_is_given_up(kind, tmp_path, monkeypatch):
    def drip_body(send, _):
        send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode())
        while True:
            send(b"x")
            time.sleep(0.02)

    monkeypatch.setattr(download, "STALL_S", 0.1)
    started = time.monotonic()
    with pytest.raises(InputError, match="less than 1,000 bytes came within 0.1 s"):
        fetch_from(DRIPS["headers"] if kind == "headers" else drip_body, tmp_path, monkeypatch)
    assert time.monotonic() - started < ENDS_S


def test_two_at_once(tmp_path, monkeypatch):
    go_on = threading.Event()

    def wait(send, request):
        go_on.wait(10)
        Hub()(send, request)

    with serve_raw(wait) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        first = threading.Thread(target=fetch_full_sharegpt, args=(tmp_path,))
        first.start()
        while not tmp_path.joinpath(f".{SHAREGPT.filename}.part").exists():
            time.sleep(0.01)
        with pytest.raises(InputError, match="another run is fetching it"):
            fetch_full_sharegpt(tmp_path)
        go_on.set()
        first.join()
    assert (tmp_path / SHAREGPT.filename).read_bytes() == DATA


def test_what_is_there_and_not_right_is_left_alone(tmp_path):
    (tmp_path / SHAREGPT.filename).write_bytes(b"x")
    with pytest.raises(InputError, match="is not the expected file .* delete it and try again"):
        fetch_full_sharegpt(tmp_path)
    assert (tmp_path / SHAREGPT.filename).read_bytes() == b"x"
    other = tmp_path / "folder"
    (other / SHAREGPT.filename).mkdir(parents=True)
    with pytest.raises(InputError, match="is not the expected file"):
        fetch_full_sharegpt(other)


def test_a_part_that_points_elsewhere_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / f".{SHAREGPT.filename}.part").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="is no regular file"):
        fetch_from(Hub(), tmp_path, monkeypatch)
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_proxies_and_addresses_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("ALL_PROXY", "socks5://user:geheim@h:1")
    with pytest.raises(InputError, match="the environment variable ALL_PROXY names a SOCKS proxy"):
        fetch_full_sharegpt(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("ALL_PROXY", f"http://user:geheim@127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(InputError, match=r"through the proxy of the environment variable ALL_PROXY\)") as raised:
        fetch_full_sharegpt(tmp_path)
    assert "geheim" not in str(raised.value)
    monkeypatch.setattr(constants, "ENDPOINT", "ftp://hub")
    with pytest.raises(InputError, match="HF_ENDPOINT holds no address"):
        fetch_full_sharegpt(tmp_path)


def test_without_a_network_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("kvprefix.files.paths.find_project", lambda: None)
    assert main(["fetch"]) == 2
    assert "HF_HUB_OFFLINE is set). It needs a network" in capsys.readouterr().err


def test_a_tokenizers_download_names_its_proxy(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: 1 / 0)
    monkeypatch.setenv("all_proxy", "socks5://user:geheim@h:1")
    with pytest.raises(InputError, match="the environment variable all_proxy names a SOCKS proxy"):
        find_tokenizer("no-such/tokenizer")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:geheim@h:1")
    with pytest.raises(InputError, match=r"through the proxy of the environment variable HTTPS_PROXY\)") as raised:
        find_tokenizer("no-such/tokenizer")
    assert "geheim" not in str(raised.value)
