"""The way to the Hub through a network's own proxy, as HTTPS_PROXY and its like describe it.

The same variables as for the rest of the command: HTTPS_PROXY for a Hub with https, HTTP_PROXY for
one with http, ALL_PROXY for both, in capitals or not; NO_PROXY says who is reached directly. It is
always asked to `CONNECT`: a WebSocket needs the connection to itself.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from .problems import Lost, Problem

_HEAD_MAX = 64 * 1024
_NEEDS_LOGIN = 407
_PORT = 80


class Proxy:
    """One proxy. `login` is what it wants to know, `NAME:PASSWORD`; it appears in no message."""

    def __init__(self, url: str, variable: str) -> None:
        self.variable = variable
        scheme, separator, rest = url.partition("://")
        if not separator:
            scheme, rest = "http", url
        if scheme.lower() != "http":
            raise Problem(
                f"{variable} names a proxy with {scheme}://, which SSH cannot go through; give one "
                "with http://, or name the Hub in NO_PROXY."
            )
        self.login, _, netloc = rest.partition("/")[0].rpartition("@")
        host, port = _split(netloc)
        if not host or not (port or "80").isdecimal() or not netloc.isascii():
            raise Problem(
                f"{variable} does not name a proxy, such as http://proxy.example.org:3128."
            )
        self.host, self.port = host, int(port or _PORT)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def proxy_for(tls: bool, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy on the way to a host; None where it is reached directly.

    Raises:
        Problem: the variable names none that can be used.
    """
    if _is_excepted(host, port, _first(environ, "NO_PROXY")[1]):
        return None
    variable, url = _first(environ, "HTTPS_PROXY" if tls else "HTTP_PROXY", "ALL_PROXY")
    return Proxy(url, variable) if url else None


def tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Makes a connection to a proxy one to a host.

    Raises:
        Problem: the proxy does not let it through.
        Lost: it did not answer, or did not reach the host.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.login:
        lines.append(f"Proxy-Authorization: Basic {_basic(proxy.login)}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # One by one: what comes next is the host's, and not for here.
        piece = sock.recv(1)
        if not piece or len(head) > _HEAD_MAX:
            raise Lost(f"The proxy {proxy} closed the connection without an answer.")
        head += piece
    version, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/") or not status.isdecimal():
        raise Problem(f"What {proxy.variable} names, {proxy}, does not answer as a proxy does.")
    _check(proxy, target, int(status))


def _check(proxy: Proxy, target: str, status: int) -> None:
    if 200 <= status < 300:  # noqa: PLR2004
        return
    if status == _NEEDS_LOGIN:
        raise Problem(
            f"The proxy {proxy} asks who you are. Put name and password into {proxy.variable}: "
            "http://NAME:PASSWORD@HOST:PORT."
        )
    if status >= 500:  # noqa: PLR2004
        raise Lost(f"The proxy {proxy} did not reach {target} (status {status}).")
    raise Problem(
        f"The proxy {proxy} does not let connections to {target} through (status {status}). Where "
        "the Hub can be reached directly, name it in NO_PROXY."
    )


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """The first of these variables that says something, and what."""
    for name in names:
        for spelled in (name.lower(), name):
            if said := environ.get(spelled, "").strip():
                return spelled, said
    return "", ""


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    for entry in exceptions.replace(",", " ").lower().split():
        name, wanted = _split(entry)
        if entry == "*" or ("/" in entry and _is_inside(host, entry)):
            return True
        if wanted and wanted != str(port):
            continue
        bare = name.removeprefix("*").lstrip(".")
        if bare and (host.lower() == bare or host.lower().endswith(f".{bare}")):
            return True
    return False


def _is_inside(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False  # a name, or no network


def _split(netloc: str) -> tuple[str, str]:
    """Host and port; an IPv6 address with a port, or in a URL, has brackets."""
    if netloc.startswith("["):
        host, _, after = netloc[1:].partition("]")
        return host, after.removeprefix(":")
    if netloc.count(":") != 1:
        return netloc, ""
    host, _, port = netloc.partition(":")
    return host, port


def _basic(login: str) -> str:
    import binascii
    from urllib.parse import unquote

    name, _, password = login.partition(":")
    told = f"{unquote(name)}:{unquote(password)}".encode()
    return binascii.b2a_base64(told, newline=False).decode("ascii")
