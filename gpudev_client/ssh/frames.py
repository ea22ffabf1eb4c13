"""WebSocket frames (RFC 6455), for both ends; pure.

Two ways over one WebSocket, chosen by subprotocol. `RAW`: each side sends the header of one binary
frame of the greatest length there is, and from then on plain bytes, so that nobody has to look at
them. `FRAMES`: ordinary frames, for whoever reads along on the way. There a Close means that its
sender has no more data; what the other side still has comes before its own Close.
"""

from __future__ import annotations

import struct

RAW = "gpudev.ssh.raw.v1"
FRAMES = "gpudev.ssh.frames.v1"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NORMAL, PROTOCOL_ERROR, UNSUPPORTED = 1000, 1002, 1003

_ENDLESS = (1 << 63) - 1
#: The one header of either side in `RAW`. The client's mask is zero, so bytes stay as they are.
SERVER_OPENING = b"\x82\x7f" + struct.pack("!Q", _ENDLESS)
CLIENT_OPENING = b"\x82\xff" + struct.pack("!Q", _ENDLESS) + bytes(4)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTROL_MAX = 125
_SHORT, _LONG = 126, 127


class Violation(Exception):  # noqa: N818 - it is the protocol's word
    """The other side does not speak the protocol. `code` goes into the Close."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def accept(key: str) -> str:
    """The answer to a `Sec-WebSocket-Key`."""
    import binascii
    import hashlib

    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode("ascii")


def encode(opcode: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """One whole frame; a client gives four random bytes as `mask`."""
    size, bit = len(payload), 0 if mask is None else 0x80
    if size < _SHORT:
        head = struct.pack("!BB", 0x80 | opcode, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, bit | _SHORT, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, bit | _LONG, size)
    if mask is None:
        return head + payload
    return head + mask + masked(payload, mask)


def closing(code: int = NORMAL) -> bytes:
    """The payload of a Close."""
    return struct.pack("!H", code)


def masked(data: bytes, mask: bytes, offset: int = 0) -> bytes:
    """`data` under `mask`, where its first byte is the frame's byte `offset`."""
    size = len(data)
    turned = mask[offset % 4 :] + mask[: offset % 4]
    pattern = (turned * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")


class Decoder:
    """Takes bytes as they come and gives out (opcode, payload).

    Data comes out in pieces as soon as it is there, so that no frame has to fit into memory;
    control frames come out whole. `from_client` says which side's frames these are.
    """

    def __init__(self, *, from_client: bool) -> None:
        self._from_client = from_client
        self._waiting = b""
        self._left = 0
        self._offset = 0
        self._mask = b""
        self._in_message = False
        self._closed = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """What is complete now.

        Raises:
            Violation: these are no frames, or not those of this side.
        """
        found: list[tuple[int, bytes]] = []
        data = self._waiting + data if self._waiting else data
        self._waiting = b""
        while data:
            if self._left:
                piece = data[: self._left]
                found.append((BINARY, self._unmasked(piece)))
                self._left -= len(piece)
                self._offset += len(piece)
                data = data[len(piece) :]
                continue
            taken = self._header(data, found)
            if not taken:
                self._waiting = data
                break
            data = data[taken:]
        return found

    def _unmasked(self, piece: bytes) -> bytes:
        return masked(piece, self._mask, self._offset) if self._mask else piece

    def _header(self, data: bytes, found: list[tuple[int, bytes]]) -> int:
        """Reads one header, with its payload if it is a control frame; how much that was, 0 if it
        is not all there."""
        if len(data) < 2:  # noqa: PLR2004
            return 0
        first, second = data[0], data[1]
        opcode, size, at = first & 0x0F, second & 0x7F, 2
        self._check(first, opcode, size, bool(second & 0x80))
        if size >= _SHORT:
            width = 2 if size == _SHORT else 8
            if len(data) < at + width:
                return 0
            size = int.from_bytes(data[at : at + width], "big")
            at += width
            if size >> 63:
                raise Violation(PROTOCOL_ERROR, "a frame's length is no length")
        mask = b""
        if self._from_client:
            if len(data) < at + 4:
                return 0
            mask, at = data[at : at + 4], at + 4
        if opcode & 0x8:
            if len(data) < at + size:
                return 0
            payload = data[at : at + size]
            found.append((opcode, masked(payload, mask) if mask else payload))
            self._closed = self._closed or opcode == CLOSE
            return at + size
        self._in_message = not first & 0x80
        self._left, self._offset, self._mask = size, 0, mask
        return at

    def _check(self, first: int, opcode: int, size: int, has_mask: bool) -> None:
        if self._closed:
            raise Violation(PROTOCOL_ERROR, "a frame after the Close")
        if first & 0x70:
            raise Violation(PROTOCOL_ERROR, "an extension that nobody agreed on")
        if has_mask != self._from_client:
            raise Violation(PROTOCOL_ERROR, "a client masks its frames and a server does not")
        if opcode in (CLOSE, PING, PONG):
            if size > _CONTROL_MAX or not first & 0x80:
                raise Violation(PROTOCOL_ERROR, "a control frame that is too long or in parts")
        elif opcode == TEXT:
            raise Violation(UNSUPPORTED, "text where bytes are spoken")
        elif opcode not in (CONTINUATION, BINARY) or (opcode == CONTINUATION) != self._in_message:
            raise Violation(PROTOCOL_ERROR, "a frame out of order")
