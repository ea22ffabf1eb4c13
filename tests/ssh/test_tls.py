"""The client's TLS: every byte, both ends of a connection, and nobody who is held in memory."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpudev_client.ssh import relay
from gpudev_client.ssh.tls import TlsSocket
from tests.fixtures.certificates import self_signed

from .test_relay import HELD, MEGABYTE, pushed

HOST = "hub.example.org"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"), f"DNS:{HOST}")


class Ends:
    """The client's TLS on one end of a connection, and `ssl`'s own on the other."""

    def __init__(
        self, files: tuple[Path, Path], host: str = HOST, *, version: ssl.TLSVersion | None = None
    ) -> None:
        self.client_context = ssl.create_default_context(cafile=files[0])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        # As the proxy has it: an end without a farewell is an end.
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        if version is not None:
            context.maximum_version = version
        near, far = socket.socketpair()
        self.refused: ssl.SSLError | None = None
        self._far = far

        def accept() -> None:
            try:
                self.server = context.wrap_socket(far, server_side=True)
            except ssl.SSLError as error:
                self.refused = error

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            self.client = TlsSocket(near, self.client_context, host)
        except BaseException:
            thread.join(30)
            near.close()
            far.close()
            raise
        thread.join(30)
        self.client.settimeout(30)
        self.server.settimeout(30)

    def close(self) -> None:
        self.client.close()
        self.server.close()


Make = Callable[..., Ends]


@pytest.fixture
def ends(certificate: tuple[Path, Path]) -> Iterator[Make]:
    made: list[Ends] = []

    def make(version: ssl.TLSVersion | None = None) -> Ends:
        made.append(Ends(certificate, version=version))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_said_is_heard(ends: Make, version: ssl.TLSVersion) -> None:
    both = ends(version=version)
    both.client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert both.server.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
    both.server.sendall(b"HTTP/1.1 101 and more")
    assert both.client.recv(8) == b"HTTP/1.1"
    # The rest has come and waits for nobody.
    assert both.client.pending
    assert both.client.recv(100) == b" 101 and more"


def test_a_name_that_the_certificate_does_not_have_is_refused(
    certificate: tuple[Path, Path],
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        Ends(certificate, "another.example.org")


@pytest.mark.parametrize("farewell", [True, False])
def test_the_end_is_heard_after_all_that_came_before(ends: Make, farewell: bool) -> None:
    both = ends()
    both.server.sendall(bytes(100_000))
    if farewell:
        both.server.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):
            both.server.unwrap()
    both.server.shutdown(socket.SHUT_WR)
    got = 0
    while piece := both.client.recv(30_000):
        got += len(piece)
    assert got == 100_000
    assert both.client.recv(1) == b""


class Relayed:
    """`ssh`, our relay in a thread, and the other end of its TLS."""

    def __init__(self, both: Ends) -> None:
        self.ssh, inner = socket.socketpair()
        self.server = both.server
        self.ssh.settimeout(30)

        def carry() -> None:
            with inner:
                relay.run(relay.Raw(both.client, b""), inner.fileno(), inner.fileno())

        self._thread = threading.Thread(target=carry)
        self._thread.start()

    def ended(self) -> bool:
        self._thread.join(30)
        return not self._thread.is_alive()

    def close(self) -> None:
        self.ssh.close()
        self.server.close()
        assert self.ended()


@pytest.mark.parametrize("cuts", [[], [1, 16_384, 70_000], [200_000, 3]])
def test_every_byte_arrives_each_way(ends: Make, cuts: list[int]) -> None:
    one = Relayed(ends())
    sent_up, sent_down = os.urandom(700_000), os.urandom(600_000)
    sender = threading.Thread(target=one.server.sendall, args=(sent_down,))
    sender.start()
    at = 0
    for size in [*cuts, len(sent_up)]:
        one.ssh.sendall(sent_up[at : at + size])
        at += size
    got_down, got_up = bytearray(), bytearray()
    while len(got_down) < len(sent_down):
        got_down += one.ssh.recv(MEGABYTE)
    while len(got_up) < len(sent_up):
        got_up += one.server.recv(MEGABYTE)
    sender.join(30)
    assert (bytes(got_up), bytes(got_down)) == (sent_up, sent_down)
    one.server.close()
    assert one.ssh.recv(1) == b""
    one.close()


def test_the_server_hears_that_ssh_has_ended_and_has_the_last_word(ends: Make) -> None:
    both = ends()
    one = Relayed(both)
    both.server.sendall(b"the last word")
    one.ssh.sendall(b"bye")
    one.ssh.shutdown(socket.SHUT_WR)
    assert both.server.recv(100) == b"bye"
    assert both.server.recv(100) == b""
    assert one.ssh.recv(100) == b"the last word"
    both.server.close()
    assert one.ssh.recv(1) == b""
    one.close()


def test_an_ssh_that_never_reads_holds_back_the_network(ends: Make) -> None:
    one = Relayed(ends())
    assert pushed(one.server, bytes(MEGABYTE)) < HELD
    one.close()


def test_a_network_that_never_reads_holds_back_ssh(ends: Make) -> None:
    one = Relayed(ends())
    assert pushed(one.ssh, bytes(MEGABYTE)) < HELD
    one.close()
