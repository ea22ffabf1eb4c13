"""HTTP as far as this needs it: one connection, one answer after the other, then a WebSocket.

`http.client` would take longer to import than a whole login may.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from . import frames, proxies
from .problems import Lost, Problem

if TYPE_CHECKING:
    from .tls import TlsSocket

_HEAD_MAX = 64 * 1024
_BODY_MAX = 1024 * 1024
_CHUNK = 64 * 1024
#: Digits of a chunk's size.
_SIZE_MAX = 16
#: Seconds until a connection is there, and until an answer is.
CONNECT_TIMEOUT = 10.0
ANSWER_TIMEOUT = 60.0


class Address:
    """Where a URL leads: scheme, host, port, path."""

    def __init__(self, url: str) -> None:
        scheme, separator, rest = url.partition("://")
        netloc, slash, path = rest.partition("/")
        host, port = netloc, ""
        if netloc.startswith("["):
            host, _, after = netloc[1:].partition("]")
            port = after.removeprefix(":")
        elif ":" in netloc:
            host, _, port = netloc.partition(":")
        clean = url.isascii() and url.isprintable() and " " not in url and "@" not in netloc
        if not (separator and host and clean and scheme in {"http", "https"}):
            raise Problem("The Hub gave an address that is none; nothing was sent to it.")
        if port and not port.isdecimal():
            raise Problem("The Hub gave an address with a port that is none.")
        self.tls = scheme == "https"
        self.host = host
        self.port = int(port) if port else (443 if self.tls else 80)
        self.netloc = netloc
        self.path = slash + path

    @property
    def origin(self) -> tuple[bool, str, int]:
        return self.tls, self.host, self.port

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.netloc}"


class Answer:
    """What came back. `rest` is what arrived after it already."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, rest: bytes) -> None:
        self.status, self.headers, self.body, self.rest = status, headers, body, rest


class Connection:
    """A connection to one host, with TLS where the address says so."""

    def __init__(self, address: Address) -> None:
        self.address = address
        proxy = proxies.proxy_for(address.tls, address.host, address.port, os.environ)
        first = (proxy.host, proxy.port) if proxy else (address.host, address.port)
        try:
            sock = socket.create_connection(first, CONNECT_TIMEOUT)
        except OSError as error:
            who = f"proxy {proxy} ({proxy.variable})" if proxy else f"Hub at {address}"
            raise Lost(f"The {who} cannot be reached ({_reason(error)}).") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if proxy:
            self._through(sock, proxy)
        self.sock: socket.socket | TlsSocket = self._wrapped(sock) if address.tls else sock
        self.sock.settimeout(ANSWER_TIMEOUT)

    def request(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        """Sends a request without a body and reads the whole answer, or up to a 101's end."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.address.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if method != "GET":
            lines.append("Content-Length: 0")
        text = "\r\n".join([*lines, "", ""])
        if text.count("\n") != len(lines) + 1 or not text.isascii():
            raise Problem("A header with a line's end in it was not sent.")
        try:
            self.sock.sendall(text.encode("ascii"))
            return self._answer()
        except OSError as error:
            raise Lost(f"The connection to {self.address} was lost ({_reason(error)}).") from error

    def upgrade(self, path: str, headers: dict[str, str], protocols: list[str]) -> Answer:
        """Asks for a WebSocket; with status 101 it is one."""
        import binascii

        key = binascii.b2a_base64(os.urandom(16), newline=False).decode("ascii")
        answer = self.request(
            "GET",
            path,
            {
                **headers,
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": key,
                "Sec-WebSocket-Protocol": ", ".join(protocols),
            },
        )
        if answer.status == 101 and (  # noqa: PLR2004
            answer.headers.get("sec-websocket-accept") != frames.accept(key)
            or answer.headers.get("sec-websocket-protocol") not in protocols
        ):
            raise Problem(f"{self.address} answered, but not as a server of gpudev does.")
        return answer

    def close(self) -> None:
        self.sock.close()

    def _through(self, sock: socket.socket, proxy: proxies.Proxy) -> None:
        sock.settimeout(ANSWER_TIMEOUT)
        try:
            proxies.tunnel(sock, proxy, self.address.host, self.address.port)
        except OSError as error:
            raise Lost(
                f"The connection to the proxy {proxy} was lost ({_reason(error)})."
            ) from error

    def _wrapped(self, sock: socket.socket) -> TlsSocket:
        import ssl

        from gpudev_client import trust

        from .tls import TlsSocket

        context = trust.context()
        context.set_alpn_protocols(["http/1.1"])
        try:
            return TlsSocket(sock, context, self.address.host)
        except ssl.SSLCertVerificationError as error:
            raise Problem(
                f"The certificate of {self.address} is not trusted: {error.verify_message}."
            ) from error
        except OSError as error:
            raise Lost(f"No secure connection to {self.address} ({_reason(error)}).") from error

    def _answer(self) -> Answer:
        data = b""
        while b"\r\n\r\n" not in data:
            if len(data) > _HEAD_MAX:
                raise Lost(f"{self.address} answered with endless headers.")
            data += self._more()
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdecimal():
            raise Lost(f"{self.address} does not speak HTTP.")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        code = int(status[:3])
        if code == 101 or code in (204, 304):  # noqa: PLR2004
            return Answer(code, headers, b"", rest)
        return Answer(code, headers, self._body(headers, rest), b"")

    def _body(self, headers: dict[str, str], data: bytes) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks(data)
        length = headers.get("content-length")
        wanted = int(length) if length is not None and length.isdecimal() else None
        while wanted is None or len(data) < wanted:
            if len(data) > _BODY_MAX:
                raise Lost(f"{self.address} answered with more than it should.")
            piece = self.sock.recv(_CHUNK)
            if not piece:
                if wanted is None:
                    break
                raise Lost(f"The answer of {self.address} was cut off.")
            data += piece
        return data

    def _chunks(self, data: bytes) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in data:
                data += self._more()
            line, _, data = data.partition(b"\r\n")
            told = line.partition(b";")[0].strip()
            if not told or len(told) > _SIZE_MAX or told.strip(b"0123456789abcdefABCDEF"):
                raise Lost(f"{self.address} does not speak HTTP.")
            size = int(told, 16)
            if len(body) + size > _BODY_MAX:
                raise Lost(f"{self.address} answered with more than it should.")
            while len(data) < size + 2:
                data += self._more()
            body, data = body + data[:size], data[size + 2 :]
            if size == 0:
                return body

    def _more(self) -> bytes:
        piece = self.sock.recv(_CHUNK)
        if not piece:
            raise Lost(f"The connection to {self.address} was closed without an answer.")
        return piece


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    return (error.strerror or type(error).__name__).lower()
