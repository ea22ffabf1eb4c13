"""What stands in for others does what it says."""

from __future__ import annotations

import contextlib
import socket

import pytest

from .middlebox import Middlebox


def test_a_middlebox_that_resets_cuts_who_says_nothing_more() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        box = Middlebox("resets", b"what")
        stack.callback(box.close)
        box.target = server.getsockname()[1]
        client = stack.enter_context(socket.create_connection(("127.0.0.1", box.port), 30))
        inner, _ = server.accept()
        stack.enter_context(inner)
        client.sendall(b"GET /what HTTP/1.1\r\n\r\n")
        assert b"what" in inner.recv(100)
        head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
        inner.sendall(head)
        assert client.recv(len(head), socket.MSG_WAITALL) == head
        with pytest.raises(ConnectionResetError):
            client.recv(1)
