"""Server-sent events: how the streams keep their promises to readers, and to memory.

A stream begins with what the reader missed (with `Last-Event-ID`) and with the whole present state,
one message per reservation; then it sends events as they happen. Each message carries a
reservation's whole state, so a reader may throw away all but the newest. A comment goes out when
nothing else did, so that a dead connection is noticed. A reader who does not read is dropped once
`events.BACKLOG` events wait or a message could not be sent for `stuck` seconds. A stream ends when
its caller may listen no more; while the Hub cannot be asked it goes on for `TRUST` seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime

from gpudev_client.models import Event, Reservation
from gpudev_client.states import FINAL
from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.events import Dropped, Interest, Listener, Owner
from gpudev_service.operations import reservations, status

from . import access
from .auth import Caller
from .permissions import Right

#: Seconds for which a running stream goes on while the Hub cannot be asked about its caller.
TRUST = 60.0

#: Kind of the messages that say how things are, not what happened.
PRESENT = "present"

Send = Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class Audience:
    """Who listens, and whether they still may; asked anew every few seconds.

    Args:
        again: authenticates the request anew; raises `Refusal`.
        recheck: how many seconds to wait before asking again, at this moment.
        now: the time, for invitations that end.
    """

    caller: Caller
    again: Callable[[], Awaitable[Caller]]
    recheck: Callable[[], float]
    now: Callable[[], datetime]
    _checked: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    _confirmed: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def may_see(self, owner: Owner) -> bool:
        return access.may_see(self.caller, owner, self.now())

    @property
    def interest(self) -> Interest:
        return access.interest(self.caller)

    @property
    def due(self) -> float:
        """The loop's time at which to ask again."""
        return self._checked + self.recheck()

    async def still_there(self) -> bool:
        """Whether the caller may go on listening; takes over what has changed for them."""
        now = asyncio.get_running_loop().time()
        if now < self.due:
            return True
        self._checked = now
        try:
            self.caller = await self.again()
        except Refusal as refusal:
            return refusal.code == "unavailable" and now - self._confirmed < TRUST
        self._confirmed = now
        return self.caller.grants.somewhere(Right.READ)


def message(event: Event) -> str:
    """One event as the wire has it."""
    return f"id: {event.id}\ndata: {event.model_dump_json()}\n\n"


async def follow(
    ctx: Context,
    audience: Audience,
    send: Send,
    *,
    reservation_id: str | None,
    last_id: int | None,
    keepalive: float,
    stuck: float,
) -> None:
    """Sends until the reader goes, falls behind, or may listen no more; for one reservation also
    until it is over.

    Args:
        keepalive: seconds without a message after which a comment is sent.
        stuck: seconds that one message may wait for the reader to take it.

    Raises:
        TimeoutError: the reader does not read.
    """

    async def deliver(text: str) -> None:
        async with asyncio.timeout(stuck):
            await send(text)

    def accept(owner: Owner) -> bool:
        return audience.may_see(owner)

    spawner = reservation_id is None and audience.caller.acts_for_others
    with ctx.starts.following() if spawner else nullcontext():
        await _follow(ctx, audience, deliver, accept, reservation_id, last_id, keepalive)


async def _follow(
    ctx: Context,
    audience: Audience,
    deliver: Send,
    accept: Callable[[Owner], bool],
    reservation_id: str | None,
    last_id: int | None,
    keepalive: float,
) -> None:
    async with ctx.events.listen(accept, audience.interest, reservation_id) as listener:
        async for event in _beginning(ctx, accept, audience.interest, reservation_id, last_id):
            await deliver(message(event))
            if event.kind == PRESENT and _over(event, reservation_id):
                return
        await deliver(": this was the present state\n\n")
        await _live(audience, listener, deliver, reservation_id, keepalive)


async def _live(
    audience: Audience,
    listener: Listener,
    deliver: Send,
    reservation_id: str | None,
    keepalive: float,
) -> None:
    loop = asyncio.get_running_loop()
    quiet_since = loop.time()
    while await audience.still_there():
        listener.hear_of(audience.interest)
        wake = min(quiet_since + keepalive, audience.due)
        try:
            async with asyncio.timeout_at(wake):
                event = await listener.next()
        except TimeoutError:
            if loop.time() >= quiet_since + keepalive:
                await deliver(": still there\n\n")
                quiet_since = loop.time()
            continue
        except Dropped:
            return
        await deliver(message(event))
        quiet_since = loop.time()
        if _over(event, reservation_id):
            return


async def _beginning(
    ctx: Context,
    accept: Callable[[Owner], bool],
    interest: Interest,
    reservation_id: str | None,
    last_id: int | None,
) -> AsyncIterator[Event]:
    """What was missed, then the present state. The newest id is read first: what happens between
    the two is sent twice rather than never."""
    newest = await status.last_event(ctx, reservation_id)
    if last_id is not None:
        for event in await status.missed(ctx, last_id, accept, reservation_id, interest):
            yield event
    now = ctx.clock.now()
    if reservation_id is not None:
        yield _present(newest, await reservations.get(ctx, reservation_id), now)
        return
    async for view in reservations.present(ctx, accept, interest):
        yield _present(newest, view, now)


def _present(newest: int, view: Reservation, now: datetime) -> Event:
    return Event(id=newest, kind=PRESENT, at=now, message=view.reason or "", reservation=view)


def _over(event: Event, reservation_id: str | None) -> bool:
    return reservation_id is not None and event.reservation.state in FINAL
