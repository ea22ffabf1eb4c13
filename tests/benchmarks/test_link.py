"""The link of the benchmarks delays and limits as it says."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import link

MBIT = 1e6 / 8
SIZES = st.lists(st.integers(1, link.PIECE), min_size=1, max_size=40)


def test_a_byte_takes_the_delay() -> None:
    line = link.Line(1000 * MBIT, 0.010)
    assert line.arrives(5.0, 1) == pytest.approx(5.010, abs=1e-6)


@given(sizes=SIZES, mbit=st.integers(1, 1000))
def test_many_bytes_take_what_the_rate_says(sizes: list[int], mbit: int) -> None:
    line = link.Line(mbit * MBIT, 0.010)
    at = [line.arrives(5.0, size) for size in sizes]
    assert at == sorted(at)
    assert at[-1] == pytest.approx(5.0 + sum(sizes) / (mbit * MBIT) + 0.010)


def test_a_line_that_was_idle_owes_nothing() -> None:
    line = link.Line(MBIT, 0.010)
    line.arrives(5.0, 1000)
    assert line.arrives(60.0, 1000) == pytest.approx(60.0 + 1000 / MBIT + 0.010)


def test_connections_share_a_line() -> None:
    line = link.Line(MBIT, 0.010)
    one, other = link.Lane(line, 0.0), link.Lane(line, 0.0)
    one.put(5.0, bytes(10_000))
    other.put(5.0, bytes(10_000))
    assert one.due() == pytest.approx(5.0 + 10_000 / MBIT + 0.010)
    assert other.due() == pytest.approx(5.0 + 20_000 / MBIT + 0.010)


@given(sizes=SIZES, taken=st.integers(1, link.PIECE))
def test_bytes_come_in_their_order_and_then_the_end(sizes: list[int], taken: int) -> None:
    lane = link.Lane(link.Line(1000 * MBIT, 0.010), 0.0)
    sent, got = os.urandom(sum(sizes)), b""
    at = 0
    for size in sizes:
        lane.put(5.0, sent[at : at + size])
        at += size
    lane.put(5.0, b"")
    assert lane.arrived(5.0) is None
    while piece := lane.arrived(60.0):
        got += piece[:taken]
        lane.take(len(piece[:taken]))
    lane.take(0)
    assert got == sent
    assert lane.finished


def test_a_reader_that_stands_still_holds_back_the_writer() -> None:
    lane = link.Lane(link.Line(1000 * MBIT, 0.010), 0.0)
    held = 0
    while lane.accepts(5.0):
        lane.put(5.0, bytes(link.PIECE))
        held += link.PIECE
    # More than a round trip's bytes, so that it is never the queue that limits a sender.
    assert 1000 * MBIT * 0.020 < held < 8 * 1024 * 1024
    while lane.arrived(60.0):
        lane.take(link.PIECE)
    assert lane.accepts(60.0)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of somebody who says back what it hears until its end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            while data := sock.recv(link.PIECE):
                sock.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    thread.join(30)
    listener.close()


def test_a_real_link_is_never_faster_than_it_says(echo: int) -> None:
    """And what was sent comes back, also after the sender's own end."""
    sent = os.urandom(1024 * 1024)
    with link.link(echo, 100, 10) as port, socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(30)
        began = time.monotonic()

        def writing() -> None:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=writing)
        writer.start()
        got = bytearray()
        while piece := sock.recv(link.PIECE):
            got += piece
        taken = time.monotonic() - began
        writer.join(30)
    assert got == sent
    # A handshake and the way there and back; the last byte waits for all before it.
    assert taken >= 0.040 + len(sent) / (100 * MBIT)


def test_nobody_there_is_an_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    with link.link(nobody, 100, 1) as port, socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(30)
        assert sock.recv(1) == b""
