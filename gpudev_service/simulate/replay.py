"""A trace replayed as discrete events: the same requests, under the rules of one queue or another.

Time is whole milliseconds and passes from event to event. At one moment leases end first, then
people ask, then the queue says who begins. The rules know how long somebody asked for; when they
really end only this module knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from heapq import heappop, heappush
from typing import Protocol

from .desk import Desk
from .requests import Request

#: So long before the end of a lease its owner asks for more.
_EXTEND_BEFORE_MS = 10 * 60_000


@dataclass(frozen=True, slots=True)
class Part:
    """One stay in the queue with the lease behind it. A request has several where its owner came
    again for the rest."""

    key: str
    request: Request
    lease_ms: int
    priority: int
    order: int
    booked_ms: int | None = None


class Rules(Protocol):
    """Who begins when and where."""

    @property
    def told(self) -> Mapping[str, int]:
        """The first start that each part was told."""
        ...

    def add(self, part: Part, now: int) -> bool:
        """A part arrives. False if it can never have a place."""
        ...

    def end(self, key: str, now: int) -> None:
        """A lease has ended."""
        ...

    def extend(self, key: str, wanted_ms: int, now: int) -> int:
        """Makes a lease longer by up to `wanted_ms`; by how much it did."""
        ...

    def begin(self, now: int) -> Iterable[str]:
        """Whose leases begin now."""
        ...

    def due_ms(self) -> int | None:
        """When to ask next who begins, if nothing else happens before."""
        ...


@dataclass(slots=True)
class Stay:
    """What became of a part: asked for (or booked for) at `asked_ms`, and its lease."""

    part: Part
    asked_ms: int
    begun_ms: int | None = None
    ended_ms: int | None = None
    told_ms: int | None = None
    held_back_ms: int = 0

    @property
    def wait_ms(self) -> int:
        return 0 if self.begun_ms is None else self.begun_ms - self.asked_ms


@dataclass(slots=True)
class Outcome:
    """Everything that happened: the stays, by request, and what was refused."""

    stays: dict[int, list[Stay]] = field(default_factory=dict)
    requests: dict[int, Request] = field(default_factory=dict)
    refused: list[Request] = field(default_factory=list)


class _Event(IntEnum):
    """What happens, in the order in which it does at one moment."""

    END = 0
    EXTEND = 1
    ASK = 2
    QUEUE = 3


@dataclass(slots=True)
class _Lease:
    stay: Stay
    until_ms: int
    extended_ms: int = 0

    @property
    def end_ms(self) -> int:
        """When its server really ends: at the lease's end, or before."""
        begun = self.stay.begun_ms or 0
        return min(self.until_ms, begun + _left(self.stay.part))


def _left(part: Part) -> int:
    return part.request.run_ms


def replay(requests: Iterable[Request], rules: Rules, desk: Desk) -> Outcome:
    """What the requests meet under these rules and limits, until the last lease has ended."""
    return _Replay(rules, desk).run(requests)


class _Replay:
    def __init__(self, rules: Rules, desk: Desk) -> None:
        self._rules, self._desk = rules, desk
        self._events: list[tuple[int, _Event, int, str, Request | None]] = []
        self._counter = self._asked = 0
        self._outcome = Outcome()
        self._waiting: dict[str, Stay] = {}
        self._leases: dict[str, _Lease] = {}
        #: Who is over a limit of theirs, by user, with the moment when they came.
        self._outside: dict[str, list[tuple[int, Request]]] = {}

    def run(self, requests: Iterable[Request]) -> Outcome:
        for request in requests:
            self._outcome.requests[request.order] = request
            self._push(request.at_ms, _Event.ASK, request=request)
        while True:
            due = self._rules.due_ms()
            if due is not None and (not self._events or due < self._events[0][0]):
                self._push(due, _Event.QUEUE)
            if not self._events:
                break
            now = self._events[0][0]
            while self._events and self._events[0][0] == now:
                _, kind, _, key, asked = heappop(self._events)
                self._happens(kind, key, asked, now)
            for key in self._rules.begin(now):
                self._begins(key, now)
        if self._waiting:
            raise RuntimeError(f"{len(self._waiting)} requests were never begun")
        return self._outcome

    def _push(self, at: int, kind: _Event, key: str = "", request: Request | None = None) -> None:
        self._counter += 1
        heappush(self._events, (at, kind, self._counter, key, request))

    def _happens(self, kind: _Event, key: str, request: Request | None, now: int) -> None:
        if kind is _Event.END and key in self._leases and self._leases[key].end_ms == now:
            self._ends(key, now)
        elif kind is _Event.EXTEND and key in self._leases:
            self._extends(key, now)
        elif kind is _Event.ASK and request is not None:
            self._asks(request, now, now)

    def _asks(self, request: Request, since: int, now: int) -> None:
        desk = self._desk
        if desk.never(request):
            self._outcome.refused.append(request)
            return
        if not desk.admit(request):
            self._outside.setdefault(request.user, []).append((since, request))
            return
        before = self._outcome.stays.setdefault(request.order, [])
        key = f"{request.order}.{len(before)}"
        part = Part(
            key=key,
            request=request,
            lease_ms=desk.asked_ms(request),
            priority=desk.priority(request),
            order=self._asked,
            booked_ms=request.booked_ms,
        )
        self._asked += 1
        if not self._rules.add(part, now):
            desk.left(request)
            self._outcome.refused.append(request)
            return
        asked = max(since, request.booked_ms or 0)
        stay = Stay(part, asked, held_back_ms=now - since)
        before.append(stay)
        self._waiting[key] = stay

    def _begins(self, key: str, now: int) -> None:
        stay = self._waiting.pop(key)
        stay.begun_ms, stay.told_ms = now, self._rules.told.get(key)
        lease = self._leases[key] = _Lease(stay, now + stay.part.lease_ms)
        self._push(lease.end_ms, _Event.END, key)
        self._may_want_more(key, now)

    def _may_want_more(self, key: str, now: int) -> None:
        lease = self._leases[key]
        begun = lease.stay.begun_ms or 0
        if begun + _left(lease.stay.part) > lease.until_ms:
            self._push(max(now, lease.until_ms - _EXTEND_BEFORE_MS), _Event.EXTEND, key)

    def _extends(self, key: str, now: int) -> None:
        lease = self._leases[key]
        request, begun = lease.stay.part.request, lease.stay.begun_ms or 0
        allowed = self._desk.longest_extension_ms(
            request, lease.extended_ms, lease.until_ms - begun
        )
        wanted = min(begun + request.run_ms - lease.until_ms, allowed)
        granted = self._rules.extend(key, wanted, now) if wanted > 0 else 0
        if granted > 0:
            lease.until_ms += granted
            lease.extended_ms += granted
            self._push(lease.end_ms, _Event.END, key)
            if lease.until_ms - _EXTEND_BEFORE_MS > now:
                self._may_want_more(key, now)

    def _ends(self, key: str, now: int) -> None:
        lease = self._leases.pop(key)
        stay, request = lease.stay, lease.stay.part.request
        stay.ended_ms = now
        self._rules.end(key, now)
        self._desk.left(request)
        left = request.run_ms - (now - (stay.begun_ms or 0))
        if left > 0:
            self._push(now, _Event.ASK, request=replace(request, run_ms=left, booked_ms=None))
        for since, again in self._outside.pop(request.user, []):
            self._asks(again, since, now)
