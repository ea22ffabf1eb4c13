"""Bodies of requests: taken in up to a limit, and refused so that the sender learns of it.

tornado closes the connection when a body is too long. A proxy in between, which is still sending,
then has no answer to pass on and makes one of its own. So what is refused is read to its end and
thrown away before the answer. Where that would be too much or take too long, the answer is sent
while the body is still coming: a sender who looks has it at once, and behind the Hub's proxy,
which stops sending then, others have it seconds later.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import Any, cast

from tornado.web import RequestHandler, stream_request_body

from gpudev_client import limits
from gpudev_service.errors import Refusal

#: Bytes, and seconds, of a body that are read before its refusal is answered.
PATIENT_MAX = 64 * 1024 * 1024
PATIENT_SECONDS = 10.0
#: What is read at all of one body, in bytes.
DROPPED_MAX = 256 * 1024 * 1024


@stream_request_body
class BodyHandler(RequestHandler):
    """A handler that counts its request's body.

    `prepare` begins with `begin_body` and gives what it refuses to `refuse_body`; the request's
    method begins with `end_body`, and does nothing more where that returns None.
    """

    #: Largest body that is taken in, in bytes.
    body_max = limits.BODY_MAX

    # Before `prepare`, which requests by unknown methods never reach.
    _size = 0
    _whole = _early = _answered = False
    _refused: Refusal | None = None

    def begin_body(self) -> None:
        """Before anything is awaited: tornado compares the announced length right after this."""
        self._chunks: list[bytes] = []
        # tornado would close the connection; `data_received` keeps the limits.
        cast("Any", self.request.connection).set_max_body_size(sys.maxsize)

    @property
    def announced(self) -> int:
        """How long the body is said to be; nonsense is tornado's to refuse."""
        text = self.request.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() else 0

    def too_large(self) -> Refusal:
        return Refusal(
            "too_large",
            f"The body is larger than {self.body_max // 1024} KiB.",
            accepted={"max_bytes": self.body_max},
        )

    def refuse(self, refusal: Refusal) -> None:
        """Answers with a refusal."""
        raise NotImplementedError

    async def refuse_body(self, refusal: Refusal) -> None:
        """The request will be refused: whatever comes of its body is thrown away."""
        self._refused = refusal
        self._chunks.clear()
        if self.announced > PATIENT_MAX:
            await self._answer_early(refusal)

    async def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._refused is None:
            if self._size <= self.body_max:
                self._chunks.append(chunk)
                return
            await self.refuse_body(self.too_large())
        elif not self._early and (
            self._size > PATIENT_MAX or self.request.request_time() > PATIENT_SECONDS
        ):
            await self._answer_early(self._refused)
        if self._size > DROPPED_MAX:
            cast("Any", self.request.connection).stream.close()

    def end_body(self) -> bytes | None:
        """The body, once all of it is here; None where the request has been answered already.

        Raises:
            Refusal: the one that was given to `refuse_body`, or the body is too large.
        """
        self._whole = True
        if self._answered:
            self.finish()
            return None
        if self._refused is not None:
            raise self._refused
        return b"".join(self._chunks)

    async def _answer_early(self, refusal: Refusal) -> None:
        # Whoever waits to be asked for the body is not asked; tornado would, after this answer.
        self.request.headers.pop("Expect", None)
        self._early = True
        self.refuse(refusal)
        await cast("Awaitable[None]", self.flush())

    def finish(self, chunk: Any = None) -> Any:
        """While the body is still coming, an answer is only written: its end would be the end of
        the connection. Whoever answers before the body is read says that the connection ends: a
        proxy that did not know would send its next request into it."""
        if not self._early or self._whole:
            unread = not getattr(self.request.connection, "_read_finished", True)
            if unread and not self._headers_written:
                self.set_header("Connection", "close")
            return super().finish(chunk)
        if not self._answered:
            self._answered = True
            if chunk is not None:
                self.write(chunk)
            self.set_header("Content-Length", sum(map(len, self._write_buffer)))
        return None
