"""Server-sent events: reading them, and following a stream through interruptions.

The parser is fed bytes as they come. Following is a flow: it reconnects with `Last-Event-ID`,
waits longer after each failure, and gives up after a bounded number of failures in a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from . import errors
from ._flow import Retry, error_of, parse
from ._steps import Call, Emit, Flow, Pause, Read, Reply
from .models import Event
from .states import FINAL

#: Longest single message that is read; a stream without an end to its lines is not ours.
MESSAGE_MAX = 1024 * 1024
#: A connection that lived this long was a good one: the count of failures starts anew.
_GOOD_SECONDS = 20.0
STREAM_RETRY = Retry(attempts=8, first=0.5, longest=15.0)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream, as the standard for server-sent events reads it."""

    data: str
    id: str | None = None
    event: str = "message"


@dataclass(slots=True)
class Parser:
    """Turns bytes into messages. Feed it chunks cut anywhere, also inside a character."""

    _rest: bytes = b""
    _data: list[str] = field(default_factory=list)
    _size: int = 0
    _event: str = ""
    _id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that `chunk` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MESSAGE_MAX:
            raise errors.ServerFault("The service sent an event that is too long.")
        for line in lines:
            message = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if message is not None:
                yield message

    def _line(self, line: str) -> Message | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._size += len(value)
            if self._size > MESSAGE_MAX:
                raise errors.ServerFault("The service sent an event that is too long.")
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "event":
            self._event = value
        return None

    def _dispatch(self) -> Message | None:
        message = None
        if self._data:
            message = Message("\n".join(self._data), self._id, self._event or "message")
        self._data, self._size, self._event = [], 0, ""
        return message


def follow(
    path: str,
    *,
    after: int | None = None,
    until_final: bool = False,
    retry: Retry = STREAM_RETRY,
    silence: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Flow[None]:
    """Emit the events of a stream for as long as it is wanted.

    `after` is the id of the last event that is known already. `until_final` ends with the event
    that tells a final state (for the stream of one reservation). Each event carries the whole
    present state, so one that repeats after a reconnection does no harm.
    """
    last = after
    failures = 0
    while True:
        opened = clock()
        cause: errors.Unreachable
        try:
            if not (yield from _open(path, last, silence)):
                return
            parser = Parser()
            while chunk := (yield Read()):
                for message in parser.feed(chunk):
                    event = parse(Event, message.data.encode())
                    if last is None or event.id > last:
                        last, failures = event.id, 0
                    yield Emit(event)
                    if until_final and event.reservation.state in FINAL:
                        return
            cause = errors.Unreachable("The stream of events ended.")
        except errors.Unreachable as error:
            cause = error
        if clock() - opened >= _GOOD_SECONDS:
            failures = 0
        failures += 1
        if failures >= retry.attempts:
            raise cause
        yield Pause(retry.pause(failures))


def _open(path: str, last: int | None, silence: float | None) -> Flow[bool]:
    """Opens the stream; False where the service says that there is nothing more to come."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last is not None:
        headers["Last-Event-ID"] = str(last)
    reply: Reply = yield Call("GET", path, headers=headers, stream=True, silence=silence)
    if reply.status // 100 != 2:  # noqa: PLR2004
        error = error_of(reply)
        if reply.status == 429:  # noqa: PLR2004 - too many streams for now is worth another try
            raise errors.Unreachable(str(error)) from error
        raise error
    if reply.status == 204:  # noqa: PLR2004
        return False
    if not reply.headers.get("content-type", "").startswith("text/event-stream"):
        raise errors.ServerFault("The service answered something else than a stream of events.")
    return True
