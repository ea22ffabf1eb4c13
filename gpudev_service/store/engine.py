"""The store: how every transaction of the service is opened, ended and repeated.

All writers form one serial history, across tasks, processes and replicas: tasks of one process
queue in order for their turn, and the database's own lock (SQLite's write lock, an advisory lock
on PostgreSQL) keeps processes apart. Admission and planning can therefore read, decide and write
in one transaction without looking over their shoulder.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from gpudev_service.clock import elapsed
from gpudev_service.together import Apart

from . import address, drivers
from .errors import OutcomeUnknown, StoreBroken, StoreError, StoreUnavailable
from .memory import Memory, Turn
from .transient import is_damage, is_transient, lasting_cause, name_of, pause_after

log = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 5
ALTER_ATTEMPTS = 12
#: Seconds after which no attempt is begun any more: whoever has asked waits for an answer.
REPEAT_LIMIT_S = 15.0
#: The same where tables are changed.
ALTER_LIMIT_S = 120.0
#: Seconds that a task waits for its turn behind the other writers of this process.
TURN_LIMIT_S = 30.0
_UNAVAILABLE = "The database cannot be used at the moment."


@dataclass(slots=True)
class _Attempt:
    """How far one write transaction has come."""

    #: PostgreSQL's name of it, from the beginning of its commit on.
    committing: str | None = None


class Fence(Protocol):
    """Lets only the leader of several replicas write."""

    async def check(self, session: AsyncSession) -> None:
        """Raises `NotLeading` in a write transaction that is not the leader's."""
        ...


class Store:
    """The database of one service.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`.
        patience: seconds that a writer waits for the lock of another process.

    Raises:
        StoreMisconfigured: the URL cannot work. Nothing is opened before the first use.
    """

    def __init__(self, url: str | URL, *, patience: float = 5.0) -> None:
        self._url = address.parse(url)
        self._patience = patience
        self._engines = drivers.create(self._url, patience)
        self._turn = asyncio.Lock()
        self._holder: asyncio.Task[object] | None = None
        #: Asked at the beginning of each write transaction, after it has the lock; not where tables
        #: are changed, which every replica does before it begins.
        self.fence: Fence | None = None
        #: That a SQLite file was found damaged; nothing is written into it any more.
        self.damage: str | None = None
        #: What is kept of one write transaction for the next.
        self.memory: Memory[Any] = Memory()

    @property
    def url(self) -> URL:
        """The address with its async driver. Holds the password; `str(store)` does not."""
        return self._url

    @property
    def is_sqlite(self) -> bool:
        return address.is_sqlite(self._url)

    def __repr__(self) -> str:
        return f"Store({address.shown(self._url)})"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A write transaction: commits at the end of the block, rolls back on any exception.

        Not repeated; use `run` where the work can be.

        Raises:
            StoreUnavailable: a failure that passes; the block may be tried again.
            OutcomeUnknown: the connection broke while committing.
            sqlalchemy.exc.IntegrityError: a constraint refused a row.
        """
        attempt = _Attempt()
        try:
            async with self._write(self._engines.write, attempt) as session:
                yield session
        except (DBAPIError, PoolTimeoutError) as error:
            self._raise_lasting(error)
            if await self._took_place(attempt, error):
                return
            raise StoreUnavailable(_UNAVAILABLE) from error

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A read-only transaction that sees one consistent state throughout.

        Raises:
            StoreUnavailable: a failure that passes.
        """
        # SQLite's statements wait for nothing: who reads row after row would let nobody else do
        # anything.
        await asyncio.sleep(0)
        try:
            async with self._session(self._engines.read) as session, session.begin():
                yield session
        except (DBAPIError, PoolTimeoutError) as error:
            self._raise_lasting(error)
            raise StoreUnavailable(_UNAVAILABLE) from error

    async def run(
        self, work: Callable[[AsyncSession], Awaitable[T]], *, attempts: int = ATTEMPTS
    ) -> T:
        """What `work(session)` returns, once its write transaction is committed.

        After a deadlock, a serialization failure, a locked database or a lost connection the whole
        transaction is repeated, `work` included: it must do nothing outside the session. When the
        connection breaks while committing, the database is asked what became of the transaction,
        so that nothing is done twice.

        Raises:
            StoreUnavailable: `attempts` have failed, or as many as there was time for; chained to
                the last failure.
            StoreBroken: waiting does not help, as on a full disk; not repeated.
            OutcomeUnknown: the connection broke while committing and nobody can tell.
            sqlalchemy.exc.IntegrityError: a constraint refused a row; never repeated.
        """
        return await self._repeat(self._engines.write, work, attempts, REPEAT_LIMIT_S)

    async def run_for(self, callers: int, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Like `run`, for several callers at once (see `Together`).

        Raises:
            Apart: one of several is at fault; all of it was rolled back.
            StoreError: as `run`. It is nobody's fault, and a commit that broke off may have been
                made: nothing of it may be done again.
        """
        try:
            return await self.run(work)
        except StoreError:
            raise
        except Exception as error:
            if callers == 1:
                raise
            raise Apart from error

    async def alter(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Like `run`, for work that changes tables: see `drivers.migration_engine`.

        It is more patient, as somebody else's migration may be under way.

        Raises:
            StoreError: foreign keys would not hold afterwards (SQLite); nothing is changed.
        """

        async def checked(session: AsyncSession) -> T:
            result = await work(session)
            if self.is_sqlite and (await session.execute(text("PRAGMA foreign_key_check"))).first():
                raise StoreError("The change would leave rows that point to nothing.")
            return result

        engine = drivers.migration_engine(self._url, self._patience)
        try:
            return await self._repeat(engine, checked, ALTER_ATTEMPTS, ALTER_LIMIT_S)
        finally:
            self.memory.forget()
            await engine.dispose()

    async def ping(self) -> None:
        """Asks the database for a sign of life.

        Raises:
            StoreUnavailable: there was none.
        """
        async with self.reading() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Closes every connection. The store can be used again after it."""
        await self._engines.dispose()
        self.damage = None

    async def _repeat(
        self,
        engine: AsyncEngine,
        work: Callable[[AsyncSession], Awaitable[T]],
        attempts: int,
        seconds: float,
    ) -> T:
        too_late = _in(seconds)
        for number in range(1, attempts + 1):
            attempt = _Attempt()
            try:
                async with self._write(engine, attempt) as session:
                    result = await work(session)
            except (DBAPIError, PoolTimeoutError) as error:
                self._raise_lasting(error)
                if await self._took_place(attempt, error):
                    return result
                if number == attempts or too_late():
                    raise StoreUnavailable(_UNAVAILABLE) from error
                log.warning(
                    "transaction failed (%s), attempt %d of %d", name_of(error), number, attempts
                )
            else:
                return result
            await _pause(number)
        raise ValueError("attempts must be at least 1")

    @asynccontextmanager
    async def _write(self, engine: AsyncEngine, attempt: _Attempt) -> AsyncIterator[AsyncSession]:
        async with self._my_turn():
            if self.damage is not None:
                raise StoreBroken(self.damage)
            async with self._session(engine) as session, session.begin():
                xid = await drivers.begin_write(session)
                if self.fence is not None and engine is self._engines.write:
                    await self.fence.check(session)
                turn: Turn[Any] = Turn(self.memory, session)
                try:
                    yield session
                except BaseException:
                    turn.rolled_back()
                    raise
                await session.flush()
                await turn.count()
                attempt.committing = xid
            turn.committed()

    @asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        """In order of arrival; SQLite's own waiting knows no order, and would starve someone."""
        task = asyncio.current_task()
        if self._holder is task:
            raise RuntimeError("a write transaction inside a write transaction of the same task")
        try:
            async with asyncio.timeout(TURN_LIMIT_S):
                await self._turn.acquire()
        except TimeoutError as error:
            raise StoreUnavailable(_UNAVAILABLE) from error
        self._holder = task
        try:
            yield
        finally:
            self._holder = None
            self.memory.taken.clear()  # whatever became of the transaction
            self._turn.release()

    def _raise_lasting(self, error: DBAPIError | PoolTimeoutError) -> None:
        """Returns only for a failure that may pass by itself."""
        if is_transient(error):
            if self.damage is not None:
                raise StoreBroken(self.damage) from error
            return
        cause = lasting_cause(error)
        if cause is None:
            raise error
        said = f"The database cannot be used: {cause}."
        if is_damage(error) and self.damage is None:
            log.error("%s Nothing is written until the service is started again.", said)
            self.damage = said
        raise StoreBroken(said) from error

    def _session(self, engine: AsyncEngine) -> AsyncSession:
        return AsyncSession(engine, expire_on_commit=False)

    async def _took_place(self, attempt: _Attempt, error: Exception) -> bool:
        """Whether a transaction that ended with `error` is committed all the same."""
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        if attempt.committing is None or not lost:
            return False  # where it is not lost, the server itself has said that it did not commit
        return await self._outcome(attempt.committing, error)

    async def _outcome(self, xid: str, error: Exception) -> bool:
        question = text("SELECT pg_xact_status(CAST(CAST(:xid AS text) AS xid8))")
        too_late = _in(REPEAT_LIMIT_S)
        # Those that are open may be as dead as the one that was lost, and each would be waited for.
        await self._engines.read.dispose()
        for number in range(1, ATTEMPTS + 1):
            try:
                async with self.reading() as session:
                    status = await session.scalar(question, {"xid": xid})
            except StoreUnavailable:
                status = None
            if status in ("committed", "aborted"):
                return bool(status == "committed")
            log.warning("asking for the outcome of a commit, attempt %d of %d", number, ATTEMPTS)
            if too_late():
                break
            await _pause(number)
        raise OutcomeUnknown(_UNAVAILABLE) from error


def _in(seconds: float) -> Callable[[], bool]:
    """Tells whether so much time has passed from now on."""
    end = elapsed() + seconds
    return lambda: elapsed() >= end


async def _pause(number: int) -> None:
    await asyncio.sleep(pause_after(number, random.random()))  # noqa: S311 - spreads, no secret
