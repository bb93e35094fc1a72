"""What bounds an answer: a deadline that no dripping outlasts, and a number of bytes."""

import contextlib
import socket
import threading
import time

from kvprefix.serveranswers import Unanswered

MOST_BYTES_OF_A_PAGE = 2**22  # models, version, metrics, an error: some ten kB are usual


class Deadline:
    """Shuts a request's connection down when its time is over, whatever the server sends until then.

    A context manager. A time-out of a socket does not do: it begins anew with each byte. `over` says whether it came
    to that.

    Parameters
    ----------
    seconds : float
        From entering it on, or from `renew`.
    """

    def __init__(self, seconds):
        self.started, self.over = time.monotonic(), False
        self._seconds, self._timer, self._socket, self._lock = seconds, None, None, threading.Lock()

    def __enter__(self):
        self.renew()
        return self

    def __exit__(self, *_):
        self._timer.cancel()
        with self._lock:
            if self._socket is not None:
                self._socket.close()

    def renew(self):
        """Let the time begin anew."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, event, info):
        """Take the connection as soon as there is one: the hook that httpcore names `trace`."""
        if event == "connection.connect_tcp.complete":
            with self._lock:
                if self._socket is not None:
                    self._socket.close()  # of a redirect
                self._socket = info["return_value"].get_extra_info("socket").dup()  # TLS takes the first one away
                if self.over:
                    self._shut_down()

    def _end(self):
        with self._lock:
            self.over = True
            if self._socket is not None:
                self._shut_down()

    def _shut_down(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def iterate_body(response):
    """Yield an answer's bytes as they came; no encoding was asked for, and one may unpack to a thousand times as much.

    Raises
    ------
    Unanswered
        A body that is encoded.
    """
    encoding = response.headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise Unanswered(f"answered in the encoding {encoding}, which was not asked for", reached=True)
    yield from response.iter_raw()
