"""A server that sends what a test says, byte for byte, on loopback; and answers that drip without end."""

import re
import socket
import threading
import time
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def find_end(request):
    """Return how many bytes a request has whose headers are there."""
    length = re.search(rb"content-length: ([0-9]+)", request.lower())
    return request.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)


@contextmanager
def serve_raw(answer):
    """Serve what `answer(send, request)` sends, byte for byte; yields the URL. `send` ends with ConnectionError."""
    listener, done = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def handle(connection):
        def send(data):
            if done.is_set():
                raise ConnectionError
            connection.sendall(data)

        with connection, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request or len(request) < find_end(request):
                request += (piece := connection.recv(65536))
                if not piece:
                    return
            answer(send, request)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1)
            connection.recv(1)  # closed while something is unread, it would be reset

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def drip(send, data=b"1", pause_s=0.02):
    while True:
        send(data)
        time.sleep(pause_s)


def flood(send, data):
    while True:
        send(data * 4096)


DRIPS = {
    "headers": lambda send, _: (send(b"HTTP/1.1 200 OK\r\nX-A: "), drip(send)),
    "hints": lambda send, _: drip(send, b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "body": lambda send, _: (send(OK + b"\r\n["), drip(send)),
    "blanks": lambda send, _: (send(OK + b"\r\n"), drip(send, b" ")),
    "error": lambda send, _: (send(b"HTTP/1.1 500 No\r\n\r\n"), drip(send)),
    "chunks": lambda send, _: (send(CHUNKED), drip(send, b"1\r\n \r\n")),
    "events": lambda send, _: (send(STREAM), drip(send, b": ping\n\n")),
    "half line": lambda send, _: (send(STREAM), drip(send)),
    "nothing": lambda send, _: drip(send, b""),
}
