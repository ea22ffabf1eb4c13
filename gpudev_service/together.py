"""Work that waits for the same turn, done in one go.

Under load many callers wait for each write transaction. What each of them would do is much the same
(the queue is read, planned and written back), so whoever's turn comes does it for all who wait. A
caller who is alone notices nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

AskT = TypeVar("AskT")
GotT = TypeVar("GotT")

#: How many are done at once: the first of them waits for the last.
MOST = 32
#: Seconds for which somebody waits until what they ask for is begun. How long it takes then, nobody
#: can say without knowing what becomes of it.
LIMIT = 30.0


class Apart(Exception):  # noqa: N818 - what to do
    """Several could not be done together and nothing of it has happened: each is to be done alone,
    to see on whose account it was. Chained to the cause."""


@dataclass(eq=False, slots=True)
class _Piece(Generic[AskT, GotT]):
    """What one caller asks for, and what became of it."""

    asked: AskT
    got: GotT | Exception | None = None
    done: bool = False
    #: Was among several that failed together; nobody knows on whose account.
    alone: bool = False
    #: While somebody does it, what tells that they do no more: it cannot be withdrawn.
    underway: asyncio.Event | None = None


class Together(Generic[AskT, GotT]):
    """Callers in the order in which they came."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting: list[_Piece[AskT, GotT]] = []

    async def do(
        self, asked: AskT, work: Callable[[Sequence[AskT]], Awaitable[Sequence[GotT | Exception]]]
    ) -> GotT:
        """What `work` makes of `asked`, alone or among others who wait.

        `work` gets several of what is asked and returns, in their order, what each comes to: a
        result, or why there is none. Where it raises `Apart` each is done alone; whatever else it
        raises is the answer to all of them, since it may have happened.

        Raises:
            TimeoutError: the turn did not come, and nothing of it will happen.
        """
        piece: _Piece[AskT, GotT] = _Piece(asked)
        self._waiting.append(piece)
        try:
            if await self._my_turn(piece):
                try:
                    if not piece.done:
                        await self._lead(piece, work)
                finally:
                    self._turn.release()
        finally:
            if piece in self._waiting:
                self._waiting.remove(piece)
        if isinstance(piece.got, Exception):
            raise piece.got
        return piece.got  # type: ignore[return-value]  # it is done

    async def _my_turn(self, piece: _Piece[AskT, GotT]) -> bool:
        """Waits for it. False where the time was over while somebody was doing the piece already:
        whoever gives up then would be told that nothing happened, and it happens."""
        try:
            async with asyncio.timeout(LIMIT):
                return await self._turn.acquire()
        except TimeoutError:
            if piece.underway is not None:
                await piece.underway.wait()
            if not piece.done:
                raise
            return False

    async def _lead(
        self,
        mine: _Piece[AskT, GotT],
        work: Callable[[Sequence[AskT]], Awaitable[Sequence[GotT | Exception]]],
    ) -> None:
        """Does what one asks for, and what the others ask for who wait behind."""
        batch = [piece for piece in self._waiting if not piece.alone][:MOST]
        if not mine.alone and len(batch) > 1:
            # Whoever leads may be called off; the others must not be done twice for it.
            with _underway(batch):
                task = asyncio.ensure_future(work([piece.asked for piece in batch]))
                called_off = await _end_of(task)
                match task.exception():
                    case None:
                        self._settle(batch, task.result())
                    case Apart():
                        for piece in batch:
                            piece.alone = True
                    case Exception() as error:
                        self._settle(batch, [error] * len(batch))
            if called_off:
                raise asyncio.CancelledError
        if not mine.done:
            self._settle([mine], await work([mine.asked]))

    def _settle(
        self, batch: Sequence[_Piece[AskT, GotT]], found: Sequence[GotT | Exception]
    ) -> None:
        for piece, got in zip(batch, found, strict=True):
            piece.got, piece.done = got, True
            if piece in self._waiting:
                self._waiting.remove(piece)


@contextmanager
def _underway(batch: Sequence[_Piece[Any, Any]]) -> Iterator[None]:
    """While these are being done."""
    over = asyncio.Event()
    for piece in batch:
        piece.underway = over
    try:
        yield
    finally:
        for piece in batch:
            piece.underway = None
        over.set()


async def _end_of(task: asyncio.Future[Any]) -> bool:
    """Waits until it has ended, whatever happens to who waits; whether they were called off."""
    called_off = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            called_off = True
    return called_off
