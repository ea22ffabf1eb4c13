"""HTTP answers of others, as far as the way in reads them."""

from __future__ import annotations

import socket
import threading

import pytest

from gpudev_client.ssh.problems import Lost
from gpudev_client.ssh.wire import Address, Answer, Connection

_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def asked(answer: bytes) -> Answer:
    """What a server that says this is taken to have said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        connection = Connection(Address(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        try:
            return connection.request("GET", "/", {})
        finally:
            connection.close()
            thread.join()


def test_chunks_are_put_together() -> None:
    assert asked(_HEAD + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n").body == b"abc0123456789"


@pytest.mark.parametrize("size", [b"", b"xyz", b"-5", b"0x3", b"1_0", b"+3", b"f" * 40])
def test_a_chunk_whose_size_is_none_is_said(size: bytes) -> None:
    with pytest.raises(Lost, match="does not speak HTTP"):
        asked(_HEAD + size + b"\r\nabc\r\n0\r\n\r\n")
