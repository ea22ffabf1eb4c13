"""The frames of the WebSocket, for all sizes and however the network cuts them."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client.ssh import frames

SIZES = st.sampled_from([0, 1, 2, 125, 126, 127, 65_535, 65_536, 70_001])
#: Where the network cuts a stream, as fractions of its length.
CUTS = st.lists(st.floats(0, 1), max_size=12)


def pieces(data: bytes, cuts: list[float]) -> list[bytes]:
    at = sorted({int(cut * len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


def decoded(data: bytes, cuts: list[float], *, from_client: bool) -> list[tuple[int, bytes]]:
    """What comes out, with neighbouring pieces of data put together."""
    decoder = frames.Decoder(from_client=from_client)
    found: list[tuple[int, bytes]] = []
    for piece in pieces(data, cuts):
        for opcode, payload in decoder.feed(piece):
            if found and opcode == found[-1][0] == frames.BINARY:
                found[-1] = (opcode, found[-1][1] + payload)
            else:
                found.append((opcode, payload))
    return [one for one in found if one[0] != frames.BINARY or one[1]]


@given(sizes=st.lists(SIZES, min_size=1, max_size=5), cuts=CUTS, client=st.booleans())
def test_data_come_out_as_they_went_in(sizes: list[int], cuts: list[float], client: bool) -> None:
    sent = [os.urandom(size) for size in sizes]
    wire = b"".join(
        frames.encode(frames.BINARY, data, os.urandom(4) if client else None) for data in sent
    )
    found = decoded(wire, cuts, from_client=client)
    assert b"".join(payload for _, payload in found) == b"".join(sent)


@given(cuts=CUTS, client=st.booleans(), ping=st.binary(max_size=125))
def test_control_frames_come_between_data(cuts: list[float], client: bool, ping: bytes) -> None:
    def frame(opcode: int, payload: bytes) -> bytes:
        return frames.encode(opcode, payload, os.urandom(4) if client else None)

    wire = frame(frames.BINARY, b"a" * 300) + frame(frames.PING, ping)
    wire += frame(frames.BINARY, b"b") + frame(frames.CLOSE, frames.closing())
    assert decoded(wire, cuts, from_client=client) == [
        (frames.BINARY, b"a" * 300),
        (frames.PING, ping),
        (frames.BINARY, b"b"),
        (frames.CLOSE, b"\x03\xe8"),
    ]


def test_a_message_in_parts_with_a_ping_inside() -> None:
    wire = b"\x02\x02ab" + b"\x89\x00" + b"\x00\x01c" + b"\x80\x01d"
    found = decoded(wire, [], from_client=False)
    assert [one for one in found if one[0] == frames.PING] == [(frames.PING, b"")]
    assert b"".join(payload for opcode, payload in found if opcode == frames.BINARY) == b"abcd"


def test_data_are_given_out_before_their_frame_is_whole() -> None:
    decoder = frames.Decoder(from_client=False)
    endless = frames.SERVER_OPENING
    assert decoder.feed(endless + b"SSH-2.0") == [(frames.BINARY, b"SSH-2.0")]
    assert decoder.feed(b"x" * 1000) == [(frames.BINARY, b"x" * 1000)]


def test_the_clients_endless_frame_has_a_mask_that_changes_nothing() -> None:
    decoder = frames.Decoder(from_client=True)
    assert decoder.feed(frames.CLIENT_OPENING + b"SSH-2.0") == [(frames.BINARY, b"SSH-2.0")]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(b"\x81\x01a", frames.UNSUPPORTED, id="text"),
        pytest.param(b"\xc2\x01a", frames.PROTOCOL_ERROR, id="compressed"),
        pytest.param(b"\x82\x81abcda", frames.PROTOCOL_ERROR, id="masked-by-a-server"),
        pytest.param(b"\x80\x01a", frames.PROTOCOL_ERROR, id="continues-nothing"),
        pytest.param(b"\x02\x01a\x82\x01b", frames.PROTOCOL_ERROR, id="begins-inside"),
        pytest.param(b"\x09\x00", frames.PROTOCOL_ERROR, id="ping-in-parts"),
        pytest.param(b"\x89\x7e\x00\x7e", frames.PROTOCOL_ERROR, id="long-ping"),
        pytest.param(b"\x83\x00", frames.PROTOCOL_ERROR, id="unknown"),
        pytest.param(b"\x88\x00\x82\x01a", frames.PROTOCOL_ERROR, id="after-the-close"),
        pytest.param(b"\x82\x7f" + b"\xff" * 8, frames.PROTOCOL_ERROR, id="negative-length"),
    ],
)
def test_what_is_no_frame_is_refused(wire: bytes, code: int) -> None:
    with pytest.raises(frames.Violation) as found:
        frames.Decoder(from_client=False).feed(wire)
    assert found.value.code == code


def test_a_client_that_does_not_mask_is_refused() -> None:
    with pytest.raises(frames.Violation):
        frames.Decoder(from_client=True).feed(b"\x82\x01a")


@given(st.binary(max_size=300))
def test_whatever_comes_it_ends_or_waits(noise: bytes) -> None:
    decoder = frames.Decoder(from_client=True)
    try:
        decoder.feed(noise)
    except frames.Violation:
        return


def test_the_answer_to_a_key_is_the_standards_own_example() -> None:
    assert frames.accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
