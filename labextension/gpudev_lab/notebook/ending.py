"""Word before a lease ends, for code that wants to save what it has.

    import gpudev_lab

    gpudev_lab.before_end(lambda ending: model.save("checkpoint"), minutes=10)

    async for ending in gpudev_lab.endings(30, 10, 2):
        save(); print(ending)

One thread per process follows the reservation's event stream; nothing is polled. An extension moves
what is still to come, and word that was given is given again for the new end. An early end (given
back, cancelled, idle) is told at once: nothing is left then, but the seconds in which the server is
closed.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from gpudev_client import Client, config, words
from gpudev_client.errors import GpuDevError
from gpudev_client.models import Event, Reservation
from gpudev_client.states import FINAL, State

from .lease import reservation_id

log = logging.getLogger(__name__)

#: Seconds before the stream is opened again after it broke: the first time, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
#: The minutes of `endings()` without any.
DEFAULT = (30.0, 15.0, 5.0)


@dataclass(frozen=True, slots=True)
class Ending:
    """Word that the lease ends.

    Attributes:
        expires_at: the lease's end; of one that ends early, the moment at which that was known.
        left: what is left until then. Never negative.
        minutes: the warning that this is; 0 for a lease that ends early.
        reason: why it ends before its time, else None.
    """

    expires_at: datetime
    left: timedelta
    minutes: float
    reason: str | None = None

    def __str__(self) -> str:
        if self.reason is not None:
            return f"the lease ends now: {self.reason}"
        return f"the lease ends in {words.duration(self.left.total_seconds())}"


Callback = Callable[[Ending], object]


@dataclass(slots=True)
class Warnings:
    """Which word has been given for which end. Pure: `now` is given."""

    minutes: tuple[float, ...]
    _end: datetime | None = None
    _given: set[float] = field(default_factory=set)
    _closed: bool = False

    def look(self, reservation: Reservation, now: datetime) -> Ending | None:
        """The word to give now, if any; of several that are due only the most urgent."""
        if reservation.state in FINAL or reservation.state is State.STOPPING:
            if self._closed:
                return None
            self._closed = True
            at = reservation.expires_at or now
            if at <= now:
                return Ending(at, timedelta(0), 0.0)
            return Ending(now, timedelta(0), 0.0, reservation.reason or "It was given back.")
        end = reservation.expires_at
        if end is None:
            return None
        if end != self._end:
            self._end, self._given = end, set()
        passed = [m for m in self.minutes if end - timedelta(minutes=m) <= now]
        fresh = [m for m in passed if m not in self._given]
        self._given.update(passed)
        if not fresh:
            return None
        return Ending(end, max(timedelta(0), end - now), min(fresh))

    def next(self, reservation: Reservation, now: datetime) -> datetime | None:
        """When to look again if nothing happens before; None: not before something happens."""
        end = reservation.expires_at
        if end is None or self._closed:
            return None
        ahead = [end - timedelta(minutes=m) for m in self.minutes if m not in self._given]
        return min((moment for moment in ahead if moment > now), default=None)


class Source(Protocol):
    """Where reservations come from; a client with the server's token."""

    def events(self, reservation_id: str, after: int | None = None) -> Iterable[Event]: ...


class Follower:
    """One thread that follows a reservation, and one that gives word; both end with the lease."""

    def __init__(
        self,
        key: str,
        source: Source,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._key, self._source, self._now = key, source, now
        self._news: queue.Queue[Reservation | None] = queue.Queue()
        self._lock = threading.Lock()
        self._listeners: dict[Listener, Warnings] = {}
        self._latest: Reservation | None = None
        self._over = threading.Event()

    def start(self) -> None:
        for work in (self._follow, self._tell):
            threading.Thread(target=work, name=f"gpudev {work.__name__}", daemon=True).start()

    def close(self) -> None:
        """Ends the telling; the stream's thread ends with its next message."""
        self._over.set()
        self._news.put(None)

    def add(self, listener: Listener, minutes: Sequence[float]) -> None:
        """Gives word to `listener` from now on."""
        with self._lock:
            self._listeners[listener] = Warnings(tuple(sorted(minutes)))
            latest = self._latest
        if latest is None:
            return  # the stream begins with the present state
        if latest.state in FINAL:
            listener.over()
        else:
            self._news.put(latest)

    def remove(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.pop(listener, None)

    def _follow(self) -> None:
        """Feeds the news until the reservation is over; while the service is away, with pauses."""
        failures = 0
        while not self._over.is_set():
            try:
                for event in self._source.events(self._key):
                    failures = 0
                    self._news.put(event.reservation)
                    if event.reservation.state in FINAL or self._over.is_set():
                        return
            except GpuDevError as error:
                failures += 1
                log.debug("no events of the lease: %s", error)
            self._over.wait(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures, 6)))

    def _tell(self) -> None:
        while not self._over.is_set():
            try:
                news = self._news.get(timeout=self._pause())
            except queue.Empty:
                news = self._latest
            if news is None:
                continue
            self._latest = news
            self.tell(news)
            if news.state in FINAL:
                return

    def _pause(self) -> float | None:
        if self._latest is None:
            return None
        now = self._now()
        with self._lock:
            moments = [w.next(self._latest, now) for w in self._listeners.values()]
        ahead = [moment for moment in moments if moment is not None]
        return max(0.0, (min(ahead) - now).total_seconds()) if ahead else None

    def tell(self, reservation: Reservation) -> None:
        """Gives everybody the word that is due; one who fails is reported and stops no other."""
        now = self._now()
        with self._lock:
            due = [(who, found.look(reservation, now)) for who, found in self._listeners.items()]
        for who, ending in due:
            if ending is not None:
                who.give(ending)
            if reservation.state in FINAL:
                who.over()


class Listener:
    """Somebody who gets word."""

    def __init__(self, callback: Callback, over: Callable[[], object] = lambda: None) -> None:
        self._callback, self._over = callback, over

    def give(self, ending: Ending) -> None:
        try:
            self._callback(ending)
        except Exception:
            log.exception("a function that was given to gpudev_lab.before_end failed")

    def over(self) -> None:
        self._over()


def in_own_thread(callback: Callback) -> Listener:
    """One whose callback keeps nobody else waiting. Its own words come one after another: two
    checkpoints at once would spoil each other."""
    inner, turn = Listener(callback), threading.Lock()

    def in_turn(ending: Ending) -> None:
        with turn:
            inner.give(ending)

    def begin(ending: Ending) -> None:
        threading.Thread(
            target=in_turn, args=[ending], name="gpudev before_end", daemon=True
        ).start()

    return Listener(begin)


_follower: Follower | None = None
_starting = threading.Lock()


def _shared() -> Follower:
    """The process's follower; made when it is first wanted."""
    global _follower  # noqa: PLW0603 - one stream per process, however many want word
    with _starting:
        if _follower is None:
            key, settings = reservation_id(), config.load()
            _follower = Follower(key, Client(settings.url, settings.token))
            _follower.start()
        return _follower


def before_end(callback: Callback, minutes: float = 10.0) -> Callable[[], None]:
    """Calls `callback(ending)` in a thread of its own when `minutes` are left, again for a new end
    after an extension, and at once when the lease ends early; never twice at the same time.

    Returns a function that takes it back. What the callback raises is logged.

    Raises:
        NotOnALease: this process runs on no lease.
    """
    if minutes < 0:
        raise ValueError(f"minutes must not be negative; it is {minutes}")
    follower, listener = _shared(), in_own_thread(callback)
    follower.add(listener, [minutes])
    return lambda: follower.remove(listener)


async def endings(*minutes: float) -> AsyncIterator[Ending]:
    """Yields an `Ending` at each of `minutes` before the end (30, 15 and 5 without any), and when
    the lease ends early; stops with the lease.

    Raises:
        NotOnALease: this process runs on no lease.
    """
    if any(m < 0 for m in minutes):
        raise ValueError(f"minutes must not be negative; they are {minutes}")
    loop, news = asyncio.get_running_loop(), asyncio.Queue[Ending | None]()

    def hand_over(ending: Ending | None) -> None:
        loop.call_soon_threadsafe(news.put_nowait, ending)

    follower = _shared()
    listener = Listener(hand_over, over=lambda: hand_over(None))
    follower.add(listener, minutes or DEFAULT)
    try:
        while (ending := await news.get()) is not None:
            yield ending
    finally:
        follower.remove(listener)
