"""Which of several replicas leads, on PostgreSQL.

One row says who leads, in which epoch, and for how long that is good by the database's clock. Two
signs tell of a leader that does not live any more:

- `good_until` has passed: it is frozen, or cut off from the database;
- its connection is gone, and with it the advisory lock of its epoch: the process has ended, or was
  cut off. Then it is enough that `acts_until` has passed, the earlier one of the two.

Whoever takes the lead raises the epoch while it holds the lock of all write transactions, and each
of these looks at the epoch once it has that lock: a leader of before can begin none, and none of
its is open. What it does outside the database it does only while it `acts`, which ends, by its own
clock that only counts (a time for which the machine slept is counted too), before the database
lets anybody follow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import URL, Row, TextClause, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from gpudev_service.clock import elapsed

from . import drivers
from .errors import NotLeading, StoreUnavailable
from .models import LeadRow
from .transient import name_of

log = logging.getLogger(__name__)

#: Beside `drivers.WRITE_LOCK`; the second half of the key is the epoch.
LEAD_LOCK = 0x6C656164
_EPOCHS = 2**31

_MAKE = text(
    "INSERT INTO lead (id, epoch, holder, address, since, acts_until, good_until)"
    " VALUES (1, 0, '', '', now(), now(), now()) ON CONFLICT DO NOTHING"
)
_LOOK = text(
    "SELECT epoch, holder, address, clock_timestamp() < acts_until AS acts,"
    " clock_timestamp() < good_until AS good, clock_timestamp() AS now FROM lead WHERE id = 1"
)
_LOCK = text("SELECT pg_try_advisory_lock(:lead, :epoch)")
_UNLOCK = text("SELECT pg_advisory_unlock(:lead, :epoch)")
_RENEW = text(
    "UPDATE lead SET acts_until = clock_timestamp() + make_interval(secs => :acts),"
    " good_until = clock_timestamp() + make_interval(secs => :good)"
    " WHERE id = 1 AND epoch = :epoch RETURNING clock_timestamp()"
)
_RELEASE = text(
    "UPDATE lead SET acts_until = clock_timestamp(), good_until = clock_timestamp()"
    " WHERE id = 1 AND epoch = :epoch"
)
# A leader that was frozen within a transaction would keep everybody from writing. Only a session
# that waits for its client is ended: whoever else has the lock is at work.
_END_FROZEN = text(
    "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
    " AND l.classid = 0 AND l.objid = :key"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND (a.state LIKE 'idle in transaction%' OR a.wait_event_type = 'Client')"
)
_WRITE = text("SELECT pg_advisory_xact_lock(:key)")
_FOLLOW = text(
    "UPDATE lead SET epoch = :seen + 1, holder = :holder, address = :address,"
    " since = clock_timestamp(),"
    " acts_until = clock_timestamp() + make_interval(secs => :acts),"
    " good_until = clock_timestamp() + make_interval(secs => :good)"
    " WHERE id = 1 AND epoch = :seen AND (clock_timestamp() >= good_until"
    " OR :gone AND (clock_timestamp() >= acts_until OR holder = :holder)) RETURNING epoch"
)


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads as the database has it, and which of its times have not passed."""

    epoch: int
    holder: str
    address: str
    acts: bool
    good: bool


class Lead:
    """One replica's part in it. Its calls come from one task.

    Args:
        holder: this replica's name. No two that live have the same: where the last leader had this
            one, it was the process before on this place.
        address: where the other replicas reach it.
        seconds: how long a leader that is not heard of has the lead. It acts for half of that.
    """

    def __init__(
        self,
        url: URL,
        *,
        holder: str,
        address: str,
        seconds: float,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self.holder, self.address, self.seconds = holder, address, seconds
        #: The epoch in which this replica leads, or led; None while it stands by.
        self.epoch: int | None = None
        #: Whether another replica has followed. That is for ever: this process is of no more use.
        self.lost = False
        #: Told the database's time of day, and when it was asked for.
        self.hears: Callable[[datetime, float], None] | None = None
        self._clock = clock
        self._acts = seconds / 2
        self._until = 0.0
        self._engine = drivers.lead_engine(url, seconds)
        self._line: AsyncConnection | None = None
        self._locked = False

    def acts(self) -> bool:
        """Whether it is certain that no other replica leads."""
        return self.epoch is not None and not self.lost and self._clock() < self._until

    async def check(self, session: AsyncSession) -> None:
        """The fence of the store: to be asked in a transaction that has the write lock.

        Raises:
            NotLeading: this replica does not lead.
        """
        if self.epoch is None:
            raise NotLeading("This replica of the service stands by.")
        if self.lost or await session.scalar(select(LeadRow.epoch)) != self.epoch:
            self.lost = True
            raise NotLeading("Another replica of the service leads now.")

    async def look(self) -> Leader:
        """Who leads.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        try:
            return await self._look(await self._connected())
        except DBAPIError as error:
            raise await self._broken(error) from error

    async def take(self) -> bool:
        """Takes the lead if nobody has it; whether this replica leads now.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        try:
            return await self._take(await self._connected())
        except DBAPIError as error:
            raise await self._broken(error) from error

    async def renew(self) -> None:
        """A sign of life.

        Raises:
            NotLeading: another replica has followed.
            StoreUnavailable: the database does not answer; this replica leads as long as nobody
                follows, and may act until its time has passed.
        """
        if self.epoch is None:
            raise NotLeading("This replica of the service stands by.")
        try:
            await self._renew(await self._connected(), self.epoch)
        except DBAPIError as error:
            raise await self._broken(error) from error

    async def close(self) -> None:
        """Lets go of the lead, so that the next one need not wait; this one acts no more."""
        self._until = 0.0
        try:
            if self.epoch is not None and self._line is not None:
                await self._line.execute(_RELEASE, {"epoch": self.epoch})
        except DBAPIError as error:
            log.warning("the lead could not be given back (%s); it ends by itself", name_of(error))
        finally:
            line, self._line, self._locked = self._line, None, False
            if line is not None:
                await line.close()
            await self._engine.dispose()

    async def _connected(self) -> AsyncConnection:
        if self._line is None:
            line = await self._engine.connect()
            self._line = await line.execution_options(isolation_level="AUTOCOMMIT")
        return self._line

    async def _broken(self, error: DBAPIError) -> StoreUnavailable:
        line, self._line = self._line, None
        self._locked = False
        if line is not None:
            await line.invalidate()
            await line.close()
        return StoreUnavailable(f"The database does not answer ({name_of(error)}).")

    async def _look(self, line: AsyncConnection) -> Leader:
        asked = elapsed()
        row = (await line.execute(_LOOK)).one_or_none()
        if row is None:
            await line.execute(_MAKE)
            row = (await line.execute(_LOOK)).one()
        self._heard(row.now, asked)
        return Leader(row.epoch, row.holder, row.address, row.acts, row.good)

    async def _take(self, line: AsyncConnection) -> bool:
        seen = await self._look(line)
        if seen.acts and seen.holder != self.holder:
            return False
        gone = await _scalar(line, _LOCK, seen.epoch)
        if not gone and seen.good:
            return False
        try:
            return await self._follow(line, seen.epoch, gone=gone)
        finally:
            if gone:
                await _scalar(line, _UNLOCK, seen.epoch)

    async def _follow(self, line: AsyncConnection, epoch: int, *, gone: bool) -> bool:
        """Raises the epoch, unless somebody else is doing so."""
        if not await _scalar(line, _LOCK, epoch + 1):
            return False
        followed = False
        try:
            await line.execute(_END_FROZEN, {"key": drivers.WRITE_LOCK})
            followed = await self._raise(epoch, gone=gone)
        finally:
            if not followed:
                await _scalar(line, _UNLOCK, epoch + 1)
        self._locked = followed
        return followed

    async def _raise(self, epoch: int, *, gone: bool) -> bool:
        values = {
            "seen": epoch,
            "holder": self.holder,
            "address": self.address,
            "gone": gone,
            **self._times(),
        }
        async with self._engine.begin() as transaction:
            await transaction.execute(_WRITE, {"key": drivers.WRITE_LOCK})
            begun = self._clock()
            row: Row[tuple[int]] | None = (await transaction.execute(_FOLLOW, values)).one_or_none()
        if row is None:
            return False
        self.epoch, self._until = epoch + 1, begun + self._acts
        return True

    async def _renew(self, line: AsyncConnection, epoch: int) -> None:
        if not self._locked:  # a new connection; the one before may still be ending
            self._locked = await _scalar(line, _LOCK, epoch)
        begun = self._clock()
        values = {"epoch": epoch, **self._times()}
        asked = elapsed()
        now = (await line.execute(_RENEW, values)).scalar_one_or_none()
        if now is None:
            self.lost = True
            raise NotLeading("Another replica of the service leads now.")
        self._until = begun + self._acts
        self._heard(now, asked)

    def _heard(self, now: datetime, asked: float) -> None:
        if self.hears is not None:
            self.hears(now, asked)

    def _times(self) -> dict[str, float]:
        return {"acts": self._acts, "good": self.seconds}


async def _scalar(line: AsyncConnection, statement: TextClause, epoch: int) -> bool:
    """What an advisory lock of `epoch` answers."""
    return bool(await line.scalar(statement, {"lead": LEAD_LOCK, "epoch": epoch % _EPOCHS}))
