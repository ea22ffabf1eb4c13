"""The relays of both ends, against each other and against others that misbehave."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.iostream import IOStream

from gpudev_client.ssh import frames
from gpudev_client.ssh import relay as client_relay
from gpudev_lab.sshd import relay as server_relay

#: What may be on its way, in the sockets' own buffers and ours, when a reader stands still.
HELD = 16 * 1024 * 1024
MEGABYTE = 1024 * 1024


class Ends:
    """`ssh` with the client's relay, the network, the server's relay, sshd: the two outer ends of
    it. Everything between runs in two threads."""

    def __init__(self, *, client: bool = True, server: bool = True) -> None:
        self.ssh, ssh_inner = socket.socketpair()
        self.sshd, sshd_inner = socket.socketpair()
        near, far = socket.socketpair()
        self.threads: list[threading.Thread] = []
        #: What the client's relay has ended with.
        self.codes: list[int] = []
        #: With one relay only, the network's other end is the test's.
        self.network = far if not server else near
        if client:
            self._start(self._client, near, ssh_inner)
        if server:
            self._start(self._server, far, sshd_inner)
        self._others = [ssh_inner, sshd_inner, near, far]
        for one in (self.ssh, self.sshd, self.network):
            one.settimeout(30)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self.threads.append(thread)
        thread.start()

    def _client(self, network: socket.socket, inner: socket.socket) -> None:
        way = client_relay.Framed(network, b"")
        self.codes.append(client_relay.run(way, inner.fileno(), inner.fileno()))
        inner.close()

    @staticmethod
    def _server(network: socket.socket, inner: socket.socket) -> None:
        async def serve() -> None:
            await server_relay.run(IOStream(network), inner)

        asyncio.run(serve())

    def ended(self) -> bool:
        for thread in self.threads:
            thread.join(30)
        return not any(thread.is_alive() for thread in self.threads)

    def close(self) -> None:
        for one in (self.ssh, self.sshd, self.network):
            one.close()
        alive = not self.ended()
        for one in self._others:
            one.close()
        assert not alive, "a relay goes on without anybody"


@pytest.fixture
def ends() -> Iterator[Callable[..., Ends]]:
    made: list[Ends] = []

    def make(**kind: bool) -> Ends:
        made.append(Ends(**kind))
        return made[-1]

    yield make
    for one in made:
        one.close()


def read_all(sock: socket.socket) -> bytes:
    found = bytearray()
    while piece := sock.recv(MEGABYTE):
        found += piece
    return bytes(found)


def send_in(sock: socket.socket, data: bytes, sizes: list[int]) -> None:
    at = 0
    for size in [*sizes, len(data)]:
        sock.sendall(data[at : at + size])
        at += size
    sock.shutdown(socket.SHUT_WR)


@settings(max_examples=25)
@given(
    up=st.integers(0, 700_000),
    down=st.integers(0, 700_000),
    cuts=st.lists(st.integers(1, 70_000), max_size=6),
    who_first=st.sampled_from(["ssh", "sshd", "both"]),
)
def test_every_byte_arrives_whoever_ends_first(
    up: int, down: int, cuts: list[int], who_first: str
) -> None:
    """Half-close: the side that has ended still hears everything from the other one."""
    ends = Ends()
    try:
        sent_up, sent_down = os.urandom(up), os.urandom(down)
        got: dict[str, bytes] = {}

        def reading(name: str, sock: socket.socket) -> threading.Thread:
            thread = threading.Thread(target=lambda: got.update({name: read_all(sock)}))
            thread.start()
            return thread

        readers = {"up": reading("up", ends.sshd), "down": reading("down", ends.ssh)}
        if who_first == "sshd":
            # As sshd does: it ends altogether, and what was on its way up has nobody to read it.
            send_in(ends.sshd, sent_down, cuts)
            readers["down"].join(30)
            assert got["down"] == sent_down
            ends.ssh.shutdown(socket.SHUT_WR)
            readers["up"].join(30)
        elif who_first == "ssh":
            send_in(ends.ssh, sent_up, cuts)
            readers["up"].join(30)
            assert got["up"] == sent_up
            send_in(ends.sshd, sent_down, cuts)
            readers["down"].join(30)
            assert got["down"] == sent_down
        else:
            sender = threading.Thread(target=send_in, args=(ends.ssh, sent_up, cuts))
            sender.start()
            ends.sshd.sendall(sent_down)
            sender.join(30)
            readers["up"].join(30)
            ends.sshd.shutdown(socket.SHUT_WR)
            readers["down"].join(30)
            assert (got["up"], got["down"]) == (sent_up, sent_down)
        assert ends.ended()
    finally:
        ends.close()


def test_the_end_of_both_ends_both_relays_at_once(
    ends: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once took the ten seconds that are meant for a server that does not answer."""
    monkeypatch.setattr(client_relay, "GRACE", 600.0)
    both = ends()
    both.ssh.close()
    assert read_all(both.sshd) == b""
    both.sshd.close()
    assert both.ended()


def test_the_end_of_a_silent_ssh_leaves_the_server_its_last_word(
    ends: Callable[..., Ends],
) -> None:
    """It once ended everything at once where nothing had moved for a while."""
    both = ends()
    both.ssh.shutdown(socket.SHUT_WR)
    assert read_all(both.sshd) == b""
    both.sshd.sendall(b"and one thing more")
    both.sshd.close()
    assert read_all(both.ssh) == b"and one thing more"


def pushed(sock: socket.socket, data: bytes) -> int:
    """How much a socket takes until it takes no more for a second."""
    sock.settimeout(1)
    taken = 0
    try:
        while taken < 10 * HELD:
            taken += sock.send(data)
    except TimeoutError:
        return taken
    return taken


def test_a_client_that_never_reads_holds_back_sshd(ends: Callable[..., Ends]) -> None:
    one = ends(client=False)
    assert pushed(one.sshd, bytes(MEGABYTE)) < HELD


def test_an_sshd_that_never_reads_holds_back_the_client(ends: Callable[..., Ends]) -> None:
    one = ends(client=False)
    frame = frames.encode(frames.BINARY, bytes(MEGABYTE), b"abcd")
    assert pushed(one.network, frame) < HELD


def test_an_ssh_that_never_reads_holds_back_the_network(ends: Callable[..., Ends]) -> None:
    one = ends(server=False)
    assert pushed(one.network, frames.encode(frames.BINARY, bytes(MEGABYTE))) < HELD


def test_a_network_that_never_reads_holds_back_ssh(ends: Callable[..., Ends]) -> None:
    one = ends(server=False)
    assert pushed(one.ssh, bytes(MEGABYTE)) < HELD


def decoded(data: bytes, *, from_client: bool) -> list[tuple[int, bytes]]:
    return frames.Decoder(from_client=from_client).feed(data)


def test_the_server_answers_pings_also_between_data(ends: Callable[..., Ends]) -> None:
    one = ends(client=False)
    one.network.sendall(frames.encode(frames.PING, b"are you there", b"abcd"))
    assert decoded(one.network.recv(100), from_client=False) == [(frames.PONG, b"are you there")]


def test_the_client_answers_pings(ends: Callable[..., Ends]) -> None:
    one = ends(server=False)
    one.network.sendall(frames.encode(frames.PING, b"are you there"))
    assert decoded(one.network.recv(100), from_client=True) == [(frames.PONG, b"are you there")]


def test_the_server_says_what_it_does_not_understand(ends: Callable[..., Ends]) -> None:
    one = ends(client=False)
    one.network.sendall(frames.encode(frames.TEXT, b"hello", b"abcd"))
    # sshd is told that nothing more comes, and ends.
    assert one.sshd.recv(1) == b""
    one.sshd.sendall(b"bye")
    one.sshd.close()
    found = decoded(read_all(one.network), from_client=False)
    assert found == [
        (frames.BINARY, b"bye"),
        (frames.CLOSE, frames.closing(frames.UNSUPPORTED)),
    ]


@pytest.mark.parametrize("side", ["network", "sshd"])
def test_the_servers_relay_ends_with_either_side(ends: Callable[..., Ends], side: str) -> None:
    one = ends(client=False)
    getattr(one, side).close()
    if side == "network":
        assert one.sshd.recv(1) == b""
        one.sshd.close()
    else:
        assert decoded(one.network.recv(100), from_client=False)[0][0] == frames.CLOSE
        one.network.close()
    assert one.ended()


def test_a_client_that_never_reads_ends_after_its_sshd(
    ends: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_relay, "LOOK", 0.05)
    monkeypatch.setattr(server_relay, "LINGER", 0.5)
    one = ends(client=False)
    pushed(one.sshd, bytes(MEGABYTE))
    one.sshd.close()
    assert one.ended()


def test_a_server_without_a_word_does_not_keep_ssh_for_ever(
    ends: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the header of a frame came, and where `ssh` said its own words."""
    monkeypatch.setattr(client_relay, "SILENCE", 0.5)
    one = ends(server=False)
    one.ssh.sendall(b"SSH-2.0-test\r\n")
    one.network.sendall(frames.SERVER_OPENING)
    assert read_all(one.ssh) == b""
    assert one.ended()
    assert one.codes == [1]


def test_a_server_that_has_spoken_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_relay, "SILENCE", -1.0)
    (ssh, inner), (near, far) = socket.socketpair(), socket.socketpair()
    words = frames.encode(frames.BINARY, b"SSH-2.0-test\r\n")
    codes: list[int] = []

    def relaying() -> None:
        way = client_relay.Framed(near, words)
        codes.append(client_relay.run(way, inner.fileno(), inner.fileno()))
        inner.close()

    thread = threading.Thread(target=relaying)
    thread.start()
    for one in (ssh, far):
        one.settimeout(30)
    try:
        assert ssh.recv(100) == b"SSH-2.0-test\r\n"
        ssh.sendall(b"up")
        assert decoded(far.recv(100), from_client=True) == [(frames.BINARY, b"up")]
    finally:
        far.close()
        thread.join(30)
        ssh.close()
    assert codes == [0]


def test_the_pipe_to_ssh_is_made_wide() -> None:
    """Each piece that `ssh` takes out of a narrow one would wake the relay."""
    near, far = socket.socketpair()
    (in_end, ssh_in), (ssh_out, out_end) = os.pipe(), os.pipe()

    def relaying() -> None:
        client_relay.run(client_relay.Raw(near, b""), in_end, out_end)

    thread = threading.Thread(target=relaying)
    thread.start()
    try:
        far.sendall(b"S")
        assert os.read(ssh_out, 1) == b"S"
        assert fcntl.fcntl(ssh_out, fcntl.F_GETPIPE_SZ) == client_relay.PIPE
    finally:
        far.close()
        thread.join(30)
        for fd in (in_end, ssh_in, ssh_out, out_end):
            os.close(fd)
    assert not thread.is_alive()
