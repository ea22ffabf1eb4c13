"""A repeated call is done once: the answer under a client's key is kept and given again.

A key belongs to its caller and to one request (method, path, query and body). Its row is written
before the operation runs. The operation's first transaction that changes anything also marks the
row, in the same commit, with the ids of what it made; the answer is stored after it. What a crash
leaves is therefore never ambiguous:

- no mark: nothing was done, a retry does it;
- a mark without an answer: it was done, a retry finds the present answer by the ids (`recall` of
  the route) or, for what can simply be repeated, repeats it;
- an answer: a retry gets it, status and body alike.

Refusals are kept like answers. What says "later" (a busy or failing service) is not. How long keys
are remembered is said by the loop that forgets them (`loops.retention`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from sqlalchemy import bindparam, event, inspect, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, UOWTransaction

from gpudev_service.context import Context
from gpudev_service.errors import Refusal
from gpudev_service.store.errors import StoreUnavailable
from gpudev_service.store.models import IdempotencyRow
from gpudev_service.together import Together

T = TypeVar("T")

#: A row with a mark but without an answer has this status.
_MARKED = 0


@dataclass(slots=True)
class Claim:
    """The right to carry out one request under a key. `made` has the ids of the rows that the
    effect of an interrupted call created, by table; nothing where it only changed some."""

    caller: str
    key: str
    made: Mapping[str, list[str]] = field(default_factory=dict)
    #: The effect is committed, or a commit of it was tried.
    marked: bool = False
    #: False once its answer is being kept: what its operation left running belongs to it no more.
    open: bool = True

    def undone(self) -> None:
        """What was made is gone again: the operation begins from nothing."""
        self.made, self.marked = {}, False


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer that was given before, as the bytes that were sent."""

    status: int
    body: str


_current: ContextVar[Claim | None] = ContextVar("gpudev_idempotency_claim", default=None)


class Idempotency:
    """Claims keys and keeps answers. One service works on a database at a time, so a row without
    an answer that this process does not work on is what a crash left."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        #: Calls that come at once share the transactions that only keep their books.
        self._begun: Together[_Asked, Claim | Stored] = Together()
        self._kept: Together[tuple[Claim, int, str], None] = Together()
        self._working: set[tuple[str, str]] = set()

    @asynccontextmanager
    async def claim(
        self, caller: str, key: str, request_hash: str
    ) -> AsyncIterator[Claim | Stored]:
        """The claim on a key, or what was answered under it before.

        Raises:
            Refusal: `idempotency_conflict` where another request had the key, `in_progress` while
                the first one is being worked on.
        """
        slot = (caller, key)
        if slot in self._working:
            raise Refusal(
                "in_progress", "The first call with this Idempotency-Key is still being done."
            )
        self._working.add(slot)
        try:
            found = await self._begin(caller, key, request_hash)
            if isinstance(found, Stored):
                yield found
                return
            token = _current.set(found)
            try:
                yield found
            finally:
                found.open = False
                _current.reset(token)
        finally:
            self._working.discard(slot)

    async def keep(self, claim: Claim, status: int, body: str) -> None:
        """Stores the answer for retries."""

        async def keep(batch: Sequence[tuple[Claim, int, str]]) -> list[None]:
            async def work(session: AsyncSession) -> list[None]:
                told = [_told(of, status, answer) for of, status, answer in batch]
                await session.execute(_TELL, told)
                return [None] * len(batch)

            return await self._ctx.store.run_for(len(batch), work)

        _close(claim)
        await _in_time(self._kept.do((claim, status, body), keep))

    async def release(self, claim: Claim) -> None:
        """Gives the key back where nothing was done under it."""

        async def work(session: AsyncSession) -> None:
            row = await session.get(IdempotencyRow, (claim.caller, claim.key))
            if row is not None and row.status is None:
                await session.delete(row)

        _close(claim)
        await self._ctx.store.run(work)

    async def _begin(self, caller: str, key: str, request_hash: str) -> Claim | Stored:
        asked = _Asked(caller, key, request_hash)
        return await _in_time(self._begun.do(asked, self._begin_all))

    async def _begin_all(self, batch: Sequence[_Asked]) -> list[Claim | Stored | Exception]:
        now = self._ctx.clock.now()

        async def work(session: AsyncSession) -> list[Claim | Stored | Exception]:
            row = IdempotencyRow
            asked_for = tuple_(row.caller, row.key).in_([(one.caller, one.key) for one in batch])
            rows = {
                (row.caller, row.key): row
                for row in await session.scalars(select(IdempotencyRow).where(asked_for))
            }
            return [_claimed(session, rows.get((one.caller, one.key)), one, now) for one in batch]

        return await self._ctx.store.run_for(len(batch), work)


def _close(claim: Claim) -> None:
    """From here on nothing belongs to the call: what its operation left running would write its
    mark over the answer, and a retry would do it again."""
    claim.open = False
    _current.set(None)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A key, and which request came with it."""

    caller: str
    key: str
    request_hash: str


def _claimed(
    session: AsyncSession, row: IdempotencyRow | None, asked: _Asked, now: datetime
) -> Claim | Stored | Exception:
    """What a key stands for; no two in a batch ask for the same."""
    if row is None:
        session.add(
            IdempotencyRow(
                caller=asked.caller,
                key=asked.key,
                request_hash=asked.request_hash,
                created_at=now,
            )
        )
        return Claim(asked.caller, asked.key)
    if row.request_hash != asked.request_hash:
        return Refusal(
            "idempotency_conflict",
            "This Idempotency-Key was used for another request. Use a new key for each.",
        )
    if row.status is None:
        return Claim(asked.caller, asked.key)
    if row.status == _MARKED:
        made = json.loads(row.answer or "{}")
        return Claim(asked.caller, asked.key, made=made, marked=True)
    return Stored(row.status, row.answer or "")


async def _in_time(work: Awaitable[T]) -> T:
    try:
        return await work
    except TimeoutError as error:
        raise StoreUnavailable("Too many wait for the database at the moment.") from error


def hash_of(method: str, path: str, query: str, body: bytes) -> str:
    """Tells one request from another."""
    head = "\n".join((method, path, query)).encode()
    return hashlib.sha256(head + b"\n" + body).hexdigest()


_KEYS = IdempotencyRow.__table__
#: For many keys at once.
_TELL = (
    update(_KEYS)  # type: ignore[arg-type]  # a table, as an update needs it
    .where(_KEYS.c.caller == bindparam("of_caller"), _KEYS.c.key == bindparam("of_key"))
    .values(status=bindparam("told"), answer=bindparam("said"))
)


def _told(claim: Claim, status: int, answer: str) -> dict[str, object]:
    return {"of_caller": claim.caller, "of_key": claim.key, "told": status, "said": answer}


# A session belongs to one transaction of the store; what it made is collected there, so that a
# transaction which is repeated after a deadlock starts from nothing again. Several calls may share
# a transaction; each adds what is its own.
_MADE = "gpudev_made"


@event.listens_for(Session, "transient_to_pending")
def _collect(session: Session, row: object) -> None:
    if (made := _made_by_call(session)) is not None:
        made.append(row)


@event.listens_for(Session, "after_flush")
def _notice(session: Session, _: UOWTransaction) -> None:
    """A call may only change what is there already."""
    _made_by_call(session)


def _made_by_call(session: Session) -> list[object] | None:
    """The rows that the present call has added."""
    claim = _current.get()
    if claim is None or not claim.open:
        return None
    calls = session.info.setdefault(_MADE, {})
    made: list[object] = calls.setdefault((claim.caller, claim.key), (claim, []))[1]
    return made


@event.listens_for(Session, "before_commit")
def _mark(session: Session) -> None:
    calls: dict[tuple[str, str], tuple[Claim, list[object]]] = session.info.get(_MADE, {})
    told = []
    for claim, added in calls.values():
        if not claim.open:
            continue
        # An operation may have several transactions. What those before have made is told by the
        # row, not by this process: it does not know of each whether it was committed.
        made = _noted(session, claim) if claim.marked else {}
        for row in added:
            state = inspect(row)
            if state is not None and state.persistent:
                key = str(state.mapper.primary_key_from_instance(row)[0])
                made.setdefault(state.mapper.local_table.name, []).append(key)
        told.append(_told(claim, _MARKED, json.dumps(made)))
        claim.marked = True
    if told:
        session.execute(_TELL, told)


def _noted(session: Session, claim: Claim) -> dict[str, list[str]]:
    """What the mark in the database says, as this transaction sees it."""
    row = IdempotencyRow
    marks = select(row.answer).where(
        row.caller == claim.caller, row.key == claim.key, row.status == _MARKED
    )
    made: dict[str, list[str]] = json.loads(session.scalar(marks) or "{}")
    return made
