"""A live server's worst: drips, endless bodies, bombs, echoed keys, proxies that are none. All on loopback."""

import gzip
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from clocks import ENDS_S
from fake_server import FakeServer, serve
from hypothesis import given
from hypothesis import strategies as st
from raw_server import CHUNKED, DRIPS, OK, STREAM, drip, flood, serve_raw

from kvprefix.__main__ import main
from kvprefix.files.network import find_proxy
from kvprefix.files.paths import InputError
from kvprefix.live import answers
from kvprefix.live import send as servercheck
from kvprefix.live.answers import MOST_BYTES, Unanswered, parse_metrics, read_answer
from kvprefix.live.client import Server, TooLong, check_url
from kvprefix.live.key import Key

KEY = "sk-Geheim/0123+456=="
BODY = {"model": "m", "prompt": [1, 2, 3], "max_tokens": 1}
PROXIES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(servercheck, "FIRST_WAIT_S", 0.001)
    for name in ("OPENAI_API_KEY", *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


# ---- Time


@pytest.mark.parametrize("what", ["models", "metrics", "ask"])
@pytest.mark.parametrize("kind", DRIPS)
def test_a_drip_does_not_outlast_the_time(kind, what):
    with serve_raw(DRIPS[kind]) as url, Server(url, timeout_s=0.15) as server:
        started = time.monotonic()
        if what == "metrics":
            assert server.read_metrics() is None
        else:
            with pytest.raises(Unanswered, match="was not done within 0.15 s") as raised:
                server.describe() if what == "models" else server.ask("/v1/completions", BODY)
            assert raised.value.reached
        assert time.monotonic() - started < ENDS_S


def test_an_answer_that_is_cut_by_the_deadline_is_never_taken_as_whole():
    def answer(send, _):  # without a length, the end of the connection is the end of the body: `1` is JSON at any time
        send(OK + b"\r\n")
        drip(send)

    with serve_raw(answer) as url, Server(url, timeout_s=0.15) as server, pytest.raises(Unanswered, match="not done"):
        server._get("/version")


def test_a_server_that_reads_slowly_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def read_slowly():
            with suppress(OSError), listener.accept()[0] as connection:
                while connection.recv(5_000):
                    time.sleep(0.02)

        threading.Thread(target=read_slowly, daemon=True).start()
        url, started = f"http://127.0.0.1:{listener.getsockname()[1]}", time.monotonic()
        with Server(url, timeout_s=0.3) as server, pytest.raises(Unanswered, match="was not done within 0.3 s"):
            server.ask("/v1/completions", {**BODY, "prompt": list(range(2 * 10**6))})  # 16 MB: a minute
        assert time.monotonic() - started < ENDS_S


def test_the_command_ends_in_time_with_one_line(tmp_path, capsys):
    requests = tmp_path / "r.jsonl"
    requests.write_text('{"request_id": "a", "prompt_token_ids": [1, 2]}\n')
    with serve_raw(DRIPS["body"]) as url:
        arguments = ["check", "--url", url, "--requests", str(requests), "--output-dir", str(tmp_path / "out")]
        assert main([*arguments, "--timeout", "0.1", "--attempts", "2"]) == 2
    assert capsys.readouterr().err == f"error: {url}: the server, 2 attempts: was not done within 0.1 s\n"
    assert not (tmp_path / "out").exists()


# ---- Memory


FLOODS = {
    "page": (lambda send, _: (send(OK + b"\r\n["), flood(send, b"1,")), "answered nonsense: more than 4 MiB"),
    "error": (lambda send, _: (send(b"HTTP/1.1 400 No\r\n\r\n"), flood(send, b"x")), "nonsense: more than 4 MiB"),
    "one header": (lambda send, _: (send(OK + b"X-A: "), flood(send, b"x")), "broke off its answer"),
    "headers": (lambda send, _: (send(OK), flood(send, b"X-A: b\r\n")), "broke off its answer"),
    "status": (lambda send, _: (send(b"HTTP/1.1 200 "), flood(send, b"O")), "broke off its answer"),
    "chunk": (lambda send, _: (send(CHUNKED + b"1;"), flood(send, b"x")), "broke off"),
    "trailer": (lambda send, _: (send(CHUNKED + b"0\r\n"), flood(send, b"A: b\r\n")), "broke off"),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_an_endless_page_is_given_up_after_some_bytes(kind):
    answer, said = FLOODS[kind]
    with serve_raw(answer) as url, Server(url, timeout_s=20) as server:
        for ask in (server.describe, server.empty_cache):
            with pytest.raises(Unanswered, match=said):
                ask()
        assert server.read_metrics() is None


@pytest.mark.parametrize(
    "start",
    [STREAM, STREAM + b"data: ", OK + b"\r\n[", STREAM + b": "],
)
def test_an_endless_answer_is_given_up_after_some_bytes(start):
    line = b": ping\n\n" if start == STREAM else b"x"
    with serve_raw(lambda send, _: (send(start), flood(send, line))) as url, Server(url, timeout_s=20) as server:
        started = time.monotonic()
        with pytest.raises(Unanswered, match="answered nonsense: more than 16 MiB"):
            server.ask("/v1/completions", BODY)
        assert time.monotonic() - started < ENDS_S


def test_small_pieces_are_read_in_linear_time():
    started = time.monotonic()
    pieces = (b"x" for _ in range(MOST_BYTES // 8))  # a line that grows byte by byte
    with pytest.raises(Unanswered):
        read_answer(pieces, started, math.inf)
    assert time.monotonic() - started < ENDS_S


def test_the_peak_of_memory_stays_low():
    program = (
        "import resource, sys\n"
        "from kvprefix.live.client import Server\n"
        "from kvprefix.live.answers import Unanswered\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with Server(sys.argv[1], 20) as server:\n"
        "    ask = lambda: server.ask('/v1/completions', {'max_tokens': 1})\n"
        "    for call in (server.describe, server.read_metrics, ask):\n"
        "        try: call()\n"
        "        except Unanswered: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    with serve_raw(lambda send, _: (send(OK + b"\r\n["), flood(send, b"[],"))) as url:
        done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, timeout=60, check=True)
    assert int(done.stdout) < 150_000  # kB


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense"])
def test_an_encoded_answer_is_refused_not_unpacked(encoding):
    bomb = gzip.compress(b"0" * 2**24)
    head = OK + f"Content-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    asked = []

    def answer(send, request):
        asked.append(request)
        send(head + bomb)

    with serve_raw(answer) as url, Server(url, timeout_s=5) as server:
        for ask in (server.describe, lambda: server.ask("/v1/completions", BODY)):
            with pytest.raises(Unanswered, match=f"answered in the encoding {encoding}, which was not asked for"):
                ask()
    assert b"accept-encoding: identity" in asked[0].lower()


def test_a_redirect_is_not_followed_and_says_where_to():
    asked = []

    def answer(send, request):
        asked.append(request)
        send(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\x9b2J\r\nContent-Length: 0\r\n\r\n")

    said = r"307 Temporary Redirect; expected the address that it sends on to \(http://127.0.0.1:1/\\x9b2J\)"
    with serve_raw(answer) as url, Server(url, timeout_s=5) as server, pytest.raises(InputError, match=said):
        server.describe()
    assert len(asked) == 1


@given(st.data())
def test_a_broken_line_of_metrics_is_left_out_and_the_others_are_read(data):
    whole = 'vllm:cache_config_info{block_size="16",engine="0",model="a\\"}\\n"} 1.0 1700000000000'
    cut = data.draw(st.integers(22, len(whole)))
    added, lost = data.draw(st.text('"{}=,\\ #1e+_NaInf\t', max_size=8)), data.draw(st.integers(0, 9))
    odd = whole[:cut] + added + whole[cut + lost :]
    found = parse_metrics(f"vllm:prefix_cache_queries_total 64\n{odd}\nvllm:prefix_cache_hits_total 32.0\n")
    assert (found["queries"], found["hits"]) == (64, 32)


def test_a_hostile_page_of_metrics_is_read_fast():
    started = time.monotonic()
    n = answers.MOST_BYTES_OF_A_PAGE
    labels = ["a" * (n // 2), 'a="' * (n // 6), 'a="' + "\\" * (n // 2), 'a="' + '\\"a=' * (n // 8)]
    lines = [f"vllm:cache_config_info{{{label}{end}" for label in labels for end in ("", "} 1")]
    lines += ["vllm:prefix_cache_queries 1\n" * (n // 28), "vllm:prefix_cache_hits" + "1" * n]
    lines += ["a" + "\n" * n + "1", "a " * (n // 2), "{" * n, "vllm:x" + "{}" * (n // 2), "a:" * (n // 2)]
    for line in lines:
        parse_metrics(line)
    assert time.monotonic() - started < ENDS_S


@pytest.mark.parametrize(
    "body", [b'{"data": {"id": 1}}', b'{"data": [{"id": 3}]}', b"[" * 10**5, b"9" * 10**5, b"\xff", b'"x"']
)
def test_a_list_of_models_that_is_nonsense(body):
    with (
        serve_raw(lambda send, _: send(OK + b"\r\n" + body)) as url,
        Server(url, timeout_s=5) as server,
        pytest.raises(Unanswered) as raised,
    ):
        server.describe()
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("depth", [10, 300, *range(600, 1000, 7), 10**5])
def test_an_error_that_is_nested_deeply(depth):
    text = b'data: {"error": ' + b"[" * depth + b"]" * depth + b"}\n\n"
    with pytest.raises(Unanswered, match="broke off with an error|answered nonsense"):
        read_answer([text], time.monotonic(), 5)
    with pytest.raises(Unanswered, match="without usage|answered nonsense"):
        text = b'data: {"choices": [{"text": "x"}], "usage": ' + b"[" * depth + b"]" * depth + b"}\n\ndata: [DONE]\n"
        read_answer([text], time.monotonic(), 5)


@pytest.mark.parametrize("status", [413, 400])
def test_a_page_that_is_too_long_is_no_request_that_is(status):
    said = f"HTTP/1.1 {status} No\r\nContent-Length: 8\r\n\r\ntoo long".encode()
    with serve_raw(lambda send, _: send(said)) as url, Server(url, timeout_s=5) as server:
        with pytest.raises(InputError, match=f"/v1/models: answered {status} No: too long"):
            server.describe()
        with pytest.raises(TooLong):
            server.ask("/v1/completions", BODY)


def test_what_a_server_says_is_shown_as_plain_text_and_cut():
    said = json.dumps({"error": {"message": "\x1b]0;title\x07\x1b[31mred\u202e\r\nnext" + "x" * 5000}}).encode()
    with (
        serve_raw(lambda send, _: send(b"HTTP/1.1 400 \x9b2J\r\n\r\n" + said)) as url,
        Server(url, timeout_s=5) as server,
        pytest.raises(InputError) as raised,
    ):
        server.ask("/v1/completions", BODY)
    text = str(raised.value)
    assert text.isprintable() and "red" in text and "next" in text and len(text) < 500


# ---- The key


def echo(send, request):
    """Answer 400 with all headers of the request, in several spellings."""
    header = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"authorization"))
    text = header.decode("latin-1")
    said = {"error": {"message": f"no: {text} | {text!r} | {json.dumps(text)} | " + text.replace("/", "\\/")}}
    send(b"HTTP/1.1 401 " + header + b"\r\nX-A: " + header + b"\r\n\r\n" + json.dumps(said).encode())


ECHOES = {
    "error": echo,
    "text": lambda send, request: send(b"HTTP/1.1 500 No\r\n\r\n" + request),
    "cut": lambda send, request: send(b"HTTP/1.1 500 No\r\n\r\n" + b"x" * 290 + KEY.encode()),
    "php": lambda send, request: send(OK + b"\r\n{" + json.dumps(KEY).replace("/", "\\/").encode()),
    "url": lambda send, request: send(OK + b"\r\n{sk-Geheim%2F0123%2B456%3D%3D"),
    "nonsense": lambda send, request: send(OK + b"\r\n" + request),
    "stream": lambda send, request: send(STREAM + request),
    "event": lambda send, request: send(STREAM + b"data: " + json.dumps({"error": KEY}).encode() + b"\n\n"),
    "status line": lambda send, request: send(KEY.encode() + b"\r\n\r\n"),
    "encoding": lambda send, request: send(OK + b"Content-Encoding: " + KEY.encode() + b"\r\n\r\n"),
    "redirect": lambda send, request: send(b"HTTP/1.1 302 F\r\nLocation: /" + KEY.encode() + b"\r\n\r\n"),
    "models": lambda send, request: send(OK + b"\r\n" + json.dumps({"data": [{"id": f"m {KEY}"}]}).encode()),
}


@pytest.mark.parametrize("kind", ECHOES)
def test_an_echoed_key_is_not_shown(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    got = []

    def answer(send, request):
        got.append(request)
        ECHOES[kind](send, request)

    requests = tmp_path / "r.jsonl"
    requests.write_text('{"request_id": "a", "prompt_token_ids": [1, 2]}\n')
    with serve_raw(answer) as url:
        arguments = ["check", "--url", url, "--requests", str(requests), "--output-dir", str(tmp_path / "out")]
        assert main([*arguments, "--attempts", "1"]) == 2
        with Server(url, 5) as server, pytest.raises((Unanswered, InputError, TooLong)) as raised:
            server.ask("/v1/completions", BODY)
    assert f"authorization: bearer {KEY}\r\n".lower().encode() in got[0].lower()  # without blanks, and sent
    said = capsys.readouterr()
    error = raised.value
    seen = [said.out, said.err, str(error), repr(error), str(error.__cause__), str(error.__context__)]
    for text in seen:
        assert "Geheim" not in text and "sk-Ge" not in text and "\x1b" not in text
    assert said.err.count("\n") == 1


def test_the_key_is_in_no_file(tmp_path, monkeypatch, capsys):
    fake = FakeServer()
    fake.version, fake.labels = KEY, f'a="{KEY}",'
    fake.faults = {0: (400, f"maximum context length; {KEY}"), 1: (500, KEY)}  # the first one: skipped, with its reason
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    requests = tmp_path / "r.jsonl"
    requests.write_text("".join(json.dumps({"request_id": n, "prompt_token_ids": [1, 2]}) + "\n" for n in "ab"))
    with serve(fake) as url:
        assert main(["check", "--url", url, "--requests", str(requests), "--output-dir", str(tmp_path)]) == 0
    files = list((tmp_path / "engine_check").iterdir())
    assert len(files) > 4 and not any(b"Geheim" in path.read_bytes() for path in files)
    assert "***" in (tmp_path / "engine_check/recording.jsonl").read_text()
    assert "Geheim" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("key", ["sk-\x00geheim", "sk-ge\nheim", "sk-\x1b[2Jgeheim", "sk-geheim\u2028x", "sk-日geheim"])
def test_a_key_that_no_header_takes_is_refused_without_being_shown(key, monkeypatch):
    monkeypatch.setattr(os, "environ", {"OPENAI_API_KEY": key})
    said = "OPENAI_API_KEY holds a control character, or one that is not Latin-1"
    with pytest.raises(InputError, match=said) as raised:
        Server("http://127.0.0.1:1")
    assert "heim" not in str(raised.value) and "sk-" not in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__context__ is None


def test_keys_of_blanks_short_keys_and_latin_1(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " \t\n")
    assert Key().headers == {} and Key().hide("text") == "text"
    monkeypatch.setenv("OPENAI_API_KEY", "m")  # any word may hold it: only the word goes
    assert Key().hide("Bearer m, my model") == "Bearer ***, my model" and not Key().is_in("m")
    monkeypatch.setenv("OPENAI_API_KEY", "clé-secrète")
    assert Key().headers == {"Authorization": b"Bearer cl\xe9-secr\xe8te"} and Key().hide("clé-secrète") == "***"
    assert "secr" not in repr(Key())


def test_a_key_in_the_url_is_refused(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(InputError, match="URL holds the key") as raised:
        Server(f"http://127.0.0.1:1/{KEY}/v1")
    assert "Geheim" not in str(raised.value)
    with pytest.raises(InputError, match="URL is") as raised:
        check_url(f"http://user:{KEY.replace('/', '_')}@h")
    assert "Geheim" not in str(raised.value)


# ---- Proxies


@pytest.mark.parametrize(
    "no_proxy",
    [
        "gate", "GATE", ".local,gate", "*", "gate:80", "x, gate ,y", "x gate", "http://gate", "*gate",
    ],
)  # fmt: skip
def test_a_host_that_no_proxy_names(no_proxy, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert find_proxy("http://gate") is None
    assert (find_proxy("http://other:8000") is None) == (no_proxy == "*")


@pytest.mark.parametrize(
    ("no_proxy", "url", "left_out"),
    [
        ("10.0.0.0/8", "http://10.1.2.3:8000", True), ("10.0.0.0/8", "http://11.1.2.3:8000", False),
        ("10.1.2.3", "http://10.1.2.3:8000", True), ("10.1.2.3:8000", "http://10.1.2.3:8000", True),
        ("10.1.2.3:8001", "http://10.1.2.3:8000", False), ("10.0.0.0/99", "http://10.1.2.3", False),
        ("[fd00::1]", "http://[fd00::1]:8000", True), ("fd00::1", "http://[fd00::1]:8000", True),
        ("[fd00::1]:8000", "http://[fd00::1]:8000", True), ("[fd00::1]:80", "http://[fd00::1]:8000", False),
        ("fd00::/8", "http://[fd00::1]:8000", True), ("[fd00::]/8", "http://[fd00::1]:8000", True),
        ("fd00::/8", "http://gate", False), ("[::1]", "http://gate", False), ("[", "http://gate", False),
        (".local", "http://a.local", True), (".local", "http://local", True), (".local", "http://alocal", False),
        ("*.local", "http://a.local", True), ("local", "http://a.local", True), ("local", "http://alocal", False),
        ("local", "http://a.local.", True), ("", "http://gate", False), (",,", "http://gate", False),
    ],
)  # fmt: skip
def test_addresses_networks_and_names_in_no_proxy(no_proxy, url, left_out, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (find_proxy(url) is None) == left_out


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LOCALHOST", "[::ffff:127.0.0.1]", "a.localhost"]
)
def test_this_machine_is_asked_without_a_proxy(host, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:1")
    assert find_proxy(f"http://{host}:8000") is None and find_proxy(f"https://{host}") is None


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5://user:geheim@h:1", "names a SOCKS proxy, which is not supported"), ("socks4a://h", "names a SOC"),
        *[(value, "holds no proxy's address") for value in (
            "ftp://h:geheim", "http://geheim:99999999", "http://[geheim", "//", "ftp://h", "http://h:0", "geheim x",
        )],
    ],
)  # fmt: skip
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(name, value, said, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"the environment variable {name} {said}") as raised:
        Server("http://gate.example:8000")
    assert "gate.example in NO_PROXY" in str(raised.value) and "geheim" not in str(raised.value)


def test_which_proxy_is_taken(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "all:1")
    monkeypatch.setenv("HTTPS_PROXY", "https://one:2")
    assert find_proxy("http://gate").url == "http://all:1" and find_proxy("https://gate").url == "https://one:2"
    monkeypatch.setenv("http_proxy", "http://user:geheim@two:3")
    proxy = find_proxy("http://gate")
    assert proxy.url.endswith("@two:3") and proxy.named_by == "the environment variable http_proxy"
    assert "geheim" not in repr(proxy)


def test_a_proxy_is_used_or_named_where_it_cannot_be_reached(tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://user:geheim@127.0.0.1:{port}")
    requests = tmp_path / "r.jsonl"
    requests.write_text('{"request_id": "a", "prompt_token_ids": [1, 2]}\n')
    arguments = ["check", "--url", "http://gate.invalid", "--requests", str(requests), "--output-dir", str(tmp_path)]
    assert main([*arguments, "--attempts", "1"]) == 2
    error = capsys.readouterr().err
    assert "cannot be reached through the proxy of the environment variable HTTP_PROXY (" in error
    assert error.count("\n") == 1 and "geheim" not in error
    asked = []

    def answer(send, request):
        asked.append(request)
        send(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    with serve_raw(answer) as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        assert main([*arguments, "--attempts", "1"]) == 2
    assert asked[0].startswith(b"GET http://gate.invalid/v1/models HTTP/1.1")
    assert "502 Bad Gateway through the proxy of the environment variable HTTP_PROXY" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["no certificate", None])
def test_certificates_that_cannot_be_read_are_named(content, monkeypatch, tmp_path):
    if content is not None:
        (tmp_path / "bad.pem").write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bad.pem"))
    with pytest.raises(InputError, match=r"SSL_CERT_FILE or SSL_CERT_DIR of the environment cannot be read \("):
        Server("https://gate")
