"""What every request to another machine needs: its proxy (by curl's rules), certificates and a deadline."""

import contextlib
import os
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies

from kvprefix.files.paths import InputError


@dataclass(frozen=True)
class Proxy:
    """A proxy's address, which may hold a password and is never shown, and who names it."""

    url: str = field(repr=False)
    named_by: str


def find_proxy(url):
    """Return the Proxy for a URL, or None.

    It reads `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in lower or upper case. `no_proxy` lists names,
    with or without a leading dot, addresses, and networks such as `10.0.0.0/8`; each may have a port. This machine is
    never asked through a proxy.

    Raises
    ------
    InputError
        A value that is not the address of a proxy, or a SOCKS proxy.
    """
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    if not host or _is_this_machine(host) or _is_left_out(host, port):
        return None
    for kind in (parts.scheme, "all"):
        value = (getproxies().get(kind) or "").strip()  # from the environment or the system
        if value:
            return Proxy(_check_proxy(value, name := _name_variable(kind), host), name)
    return None


def _name_variable(kind):
    names = [name for name in (f"{kind}_proxy", f"{kind}_proxy".upper()) if os.environ.get(name)]
    return f"the environment variable {names[0]}" if names else "the system's settings"


def _check_proxy(value, name, host):
    """Return the address with its scheme, or raise an error that does not show it."""
    advice = f"expected http://host:port, or {host} in NO_PROXY"
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        good = parts.hostname and parts.port != 0 and re.fullmatch(r"[!-~]+", address)
    except ValueError:
        good = False
    if good and parts.scheme.startswith("socks"):
        raise InputError(f"{name} names a SOCKS proxy, which is not supported; {advice}")
    if not good or parts.scheme not in ("http", "https"):
        raise InputError(f"{name} holds no proxy's address; {advice}")
    return address


def _is_this_machine(host):
    address = _read_address(host)
    if address is None:
        return host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost")
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _is_left_out(host, port):
    entries = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").replace(",", " ").split()
    return any(_matches(entry.lower(), host.rstrip("."), port) for entry in entries)


def _matches(entry, host, port):
    """Say whether an entry of NO_PROXY matches a host; a malformed one, such as 10.0.0.0/99, matches none."""
    if entry == "*":
        return True
    entry, address = entry.partition("://")[2] or entry, _read_address(host)
    if with_port := re.fullmatch(r"(\[[^]]*\]|[^:]*):([0-9]{1,5})", entry):  # an address without brackets has none
        entry = with_port[1]
        if int(with_port[2]) != port:
            return False
    network = _read_network(entry)
    if network is not None:
        return address is not None and address in network
    name = entry.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _read_address(text):
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None


def _read_network(text):
    try:
        return ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def trust_certificates():
    """Return the certificates to trust: those that the environment names, else the bundled ones."""
    import httpx

    try:
        return httpx.create_ssl_context(trust_env=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"SSL_CERT_FILE or SSL_CERT_DIR of the environment cannot be read ({reason})") from error


class Deadline:
    """A context manager that shuts a request's connection down after some time, whatever the server sends.

    A socket's time-out is not enough: it restarts with each byte. `over` says whether the time ran out.

    Parameters
    ----------
    seconds : float
        Counted from entry, or from the last `renew`.
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
        """Restart the time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, event, info):
        """Note the connection once there is one: httpcore calls this hook `trace`."""
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
