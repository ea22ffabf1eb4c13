"""What happened, told to whoever listens: event streams, pages, loops.

Events are hints about committed changes. Each carries the whole present state of its reservation,
so nobody has to have seen the one before; a listener that does not keep up is told to read anew
instead of growing a buffer without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from gpudev_client.models import Event, Role

#: How many events a listener may be behind before it is dropped.
BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a collaborator may: `role` until `until`, or as long as the lease."""

    user: str
    role: Role
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """What permissions need to know of a reservation or disk."""

    user: str
    groups: tuple[str, ...]
    server_name: str | None = None
    invited: tuple[Invitation, ...] = ()


class Dropped(Exception):  # noqa: N818
    """The listener was too slow; it should read the present state and listen again."""


#: Whose things somebody may see at most: as these users' own, or as what they are invited to.
#: None: anybody's.
Interest = frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What concerns these users, and these reservations, whoever's they are."""

    users: Interest
    reservations: frozenset[str]


class Listener:
    """One listener's bounded queue."""

    def __init__(self, accept: Callable[[Owner], bool], move: Callable[[Interest], None]) -> None:
        self._accept, self._move = accept, move
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(BACKLOG)
        self._dropped = False

    def offer(self, owner: Owner, event: Event) -> None:
        if self._dropped or not self._accept(owner):
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._dropped = True

    def drop(self) -> None:
        """Ends the listening after what is in the queue, also for one that waits just now."""
        self._dropped = True
        if self._queue.empty():
            self._queue.put_nowait(None)

    def hear_of(self, interest: Interest) -> None:
        """From now on only of these users' things, and of what they are invited to."""
        self._move(interest)

    async def next(self) -> Event:
        """The next event; raises `Dropped` once the listener has fallen too far behind."""
        if self._dropped and self._queue.empty():
            raise Dropped
        event = await self._queue.get()
        if event is None:
            raise Dropped
        return event

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        while True:
            yield await self.next()


#: What a listener may be told about: a user's things, or one reservation; None: everything.
_Topics = frozenset[tuple[str, str]] | None


def _of_users(interest: Interest) -> _Topics:
    return None if interest is None else frozenset(("user", name) for name in interest)


class EventBus:
    """Hands each event to all who listen. Publishing never waits, and asks only those listeners
    that the event may be for: thousands of promises may move at once, before a thousand readers.
    """

    def __init__(self) -> None:
        self._topics: dict[Listener, _Topics] = {}
        self._all: set[Listener] = set()
        self._of: dict[tuple[str, str], set[Listener]] = {}

    def publish(self, owner: Owner, event: Event) -> None:
        users = (owner.user, *(invited.user for invited in owner.invited))
        found = set(self._all)
        for topic in (("reservation", event.reservation.id), *(("user", name) for name in users)):
            found |= self._of.get(topic, set())
        for listener in found:
            listener.offer(owner, event)

    def lose(self) -> None:
        """Sends everybody to read the present state anew: something could not be told."""
        for listener in tuple(self._topics):
            listener.drop()

    @property
    def listeners(self) -> int:
        return len(self._topics)

    @property
    def wanted(self) -> Wanted:
        """What somebody may listen to: nobody hears of anything else."""

        def names(kind: str) -> frozenset[str]:
            return frozenset(name for of, name in self._of if of == kind)

        return Wanted(None if self._all else names("user"), names("reservation"))

    @asynccontextmanager
    async def listen(
        self,
        accept: Callable[[Owner], bool],
        interest: Interest = None,
        reservation_id: str | None = None,
    ) -> AsyncIterator[Listener]:
        """Registers at once, so that nothing is missed between reading the state and listening.

        Args:
            accept: decides for each event.
            interest: whose events it is asked about.
            reservation_id: the one reservation that it is asked about, whoever's that is.
        """
        one = None if reservation_id is None else frozenset({("reservation", reservation_id)})
        listener = Listener(accept, lambda new: self._move(listener, one or _of_users(new)))
        self._add(listener, one or _of_users(interest))
        try:
            yield listener
        finally:
            self._remove(listener)

    def _move(self, listener: Listener, topics: _Topics) -> None:
        if topics != self._topics[listener]:
            self._remove(listener)
            self._add(listener, topics)

    def _add(self, listener: Listener, topics: _Topics) -> None:
        self._topics[listener] = topics
        if topics is None:
            self._all.add(listener)
        else:
            for topic in topics:
                self._of.setdefault(topic, set()).add(listener)

    def _remove(self, listener: Listener) -> None:
        topics = self._topics.pop(listener)
        self._all.discard(listener)
        for topic in topics or ():
            self._of[topic].discard(listener)
            if not self._of[topic]:
                del self._of[topic]
