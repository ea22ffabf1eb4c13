"""What is kept in memory from one write transaction to the next, and when it is good no more.

A plan is made from many rows, of which hardly any change from one transaction to the next. So what
was made of them may be kept, by GPU type, as long as it is known what has changed since
(`MEMORY_IS_OF_THE_ROWS`):

- each transaction of this process notes which reservations it changes in something that plans are
  made from (`PLANNED`), and what changes by statements on whole tables, as everything;
- the one row of `plan_count` counts the transactions that changed any, whoever made them: at a
  number that this process does not expect, it forgets everything;
- whoever changes what is kept has taken it out. It comes back when their transaction is committed,
  and is lost with one that is rolled back, or of which nobody knows;
- who only asks leaves it where it is, or gives it back whatever becomes of their transaction;
- where nothing is kept, what a reader has made of all rows is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from sqlalchemy import event, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction
from sqlalchemy.orm.attributes import get_history
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE

from .models import Base, DiskRow, LeaseUnitRow, PlanCountRow, ReservationRow

KeptT = TypeVar("KeptT")

#: What plans are made from: tables with their columns. The nodes and their drains are not among
#: it; they are few, and read for each plan.
PLANNED: Mapping[type[Base], tuple[str, ...]] = MappingProxyType(
    {
        ReservationRow: (
            "id",
            "user",
            "groups",
            "state",
            "gpu_type",
            "nodes",
            "units_per_node",
            "duration_s",
            "extension_s",
            "priority",
            "disk_id",
            "node_labels",
            "submitted_at",
            "booked_for",
            "planned_start",
            "planned_nodes",
            "first_promise",
            "expires_at",
        ),
        LeaseUnitRow: ("reservation_id", "gpu_type", "node", "unit", "gpu_id"),
        DiskRow: ("reach",),
    }
)
_TABLES = frozenset(row.__tablename__ for row in PLANNED)
_TURN = "gpudev_turn"

#: Execution option of a statement on such a table that says what it changes: GPU types with the
#: reservations.
CHANGES = "gpudev_changes"


class Memory(Generic[KeptT]):
    """What one store keeps, by GPU type, with the reservations that have changed since."""

    def __init__(self) -> None:
        self.kept: dict[str, KeptT] = {}
        self.stale: dict[str, set[str]] = {}
        #: Of which types the write transaction that is under way has it out.
        self.taken: set[str] = set()
        #: The number in `plan_count` at which it is good.
        self.count: int | None = None

    async def look(self, session: AsyncSession, gpu_type: str) -> Look[KeptT] | None:
        """What is kept of a type, for a transaction that only reads; None where nothing is kept of
        the state that it sees."""
        count = (await session.scalars(select(PlanCountRow.count))).one()
        kept = self.kept.get(gpu_type)
        if kept is None or count != self.count:
            return None
        return Look(self, gpu_type, kept, frozenset(self.stale.get(gpu_type, ())), count)

    def is_there(self, gpu_type: str) -> bool:
        """Whether anything is kept of a type, also where it is out, or of another state than a
        reader's."""
        return gpu_type in self.kept or gpu_type in self.taken

    async def keep(self, session: AsyncSession, gpu_type: str, kept: KeptT) -> None:
        """Keeps what a transaction that only reads has made of all rows as it sees them, unless
        more is known by now."""
        count = (await session.scalars(select(PlanCountRow.count))).one()
        if count == self.count and not self.is_there(gpu_type):
            self.kept[gpu_type] = kept
            self.stale.pop(gpu_type, None)

    def expect(self, count: int) -> None:
        """Forgets everything unless nobody else has changed anything."""
        if count != self.count:
            self.forget()
        self.count = count

    def forget(self) -> None:
        self.kept.clear()
        self.stale.clear()


@dataclass(frozen=True, slots=True)
class Look(Generic[KeptT]):
    """What is kept, as a reader found it, and which reservations have changed since then."""

    memory: Memory[KeptT]
    gpu_type: str
    kept: KeptT
    stale: frozenset[str]
    count: int

    @property
    def still(self) -> bool:
        """Whether nobody has taken it, and nothing has changed since; so until the next await."""
        memory, name = self.memory, self.gpu_type
        return (
            memory.kept.get(name) is self.kept
            and memory.count == self.count
            and self.stale == memory.stale.get(name, set())
        )

    def renewed(self) -> None:
        """It has taken in what has changed."""
        self.memory.stale.pop(self.gpu_type, None)

    def spoiled(self) -> None:
        """It is of no use any more."""
        self.memory.kept.pop(self.gpu_type, None)


class Turn(Generic[KeptT]):
    """One write transaction's part in it."""

    def __init__(self, memory: Memory[KeptT], session: AsyncSession) -> None:
        self._memory, self._session = memory, session
        self._changed: dict[str, set[str]] = {}
        self._everything = False
        self._counts = self._looked = False
        self._mine: dict[str, KeptT] = {}
        self._asked: dict[str, KeptT] = {}
        self._count: int | None = None
        session.info[_TURN] = self

    @classmethod
    def of(cls, session: AsyncSession) -> Turn[KeptT]:
        """That of a write transaction."""
        turn: Turn[KeptT] = session.info[_TURN]
        return turn

    @classmethod
    def within(cls, session: AsyncSession) -> Turn[KeptT] | None:
        """That of a transaction, if it may write."""
        turn: Turn[KeptT] | None = session.info.get(_TURN)
        return turn

    def note_row(self, row: object) -> None:
        """A row is new, gone, or different in what plans are made from."""
        match row:
            case ReservationRow():
                self._note(row.gpu_type, row.id)
            case LeaseUnitRow():
                self._note(row.gpu_type, row.reservation_id)
            case DiskRow():
                self.note_everything()

    def note_these(self, changes: Iterable[tuple[str, str]]) -> None:
        for gpu_type, reservation_id in changes:
            self._note(gpu_type, reservation_id)

    def _note(self, gpu_type: str, reservation_id: str) -> None:
        self._counts = True
        self._changed.setdefault(gpu_type, set()).add(reservation_id)

    def note_everything(self) -> None:
        self._counts = self._everything = True
        self._mine.clear()

    async def take(self, gpu_type: str) -> tuple[KeptT | None, set[str]]:
        """What is kept of a type, and which reservations have changed since then."""
        await self._session.flush()
        if not self._looked:  # nobody else writes before this transaction is over
            self._memory.expect((await self._session.scalars(select(PlanCountRow.count))).one())
            self._looked = True
        self._asked.pop(gpu_type, None)
        self._memory.taken.add(gpu_type)
        kept = self._mine.pop(gpu_type, None) or self._memory.kept.pop(gpu_type, None)
        stale = self._memory.stale.pop(gpu_type, set()) | self._changed.get(gpu_type, set())
        return (None if self._everything else kept), stale

    def put(self, gpu_type: str, kept: KeptT) -> None:
        """Keeps what agrees with all that this transaction has flushed so far."""
        self._changed.pop(gpu_type, None)
        self._mine[gpu_type] = kept

    def kept(self, gpu_type: str) -> KeptT | None:
        """What agrees with the rows as this transaction has them now, if there is such."""
        return None if gpu_type in self._changed else self._mine.get(gpu_type)

    def give_back(self, gpu_type: str, kept: KeptT) -> None:
        """The same of what was only asked: good also if this transaction is rolled back, unless
        that has changed anything before."""
        if not self._counts:
            self._asked[gpu_type] = kept
        self.put(gpu_type, kept)

    async def count(self) -> None:
        """Counts the transaction, if it has changed anything; the last that it does."""
        if self._counts:
            add = update(PlanCountRow).values(count=PlanCountRow.count + 1)
            counted = await self._session.scalars(add.returning(PlanCountRow.count))
            self._count = counted.one()

    def rolled_back(self) -> None:
        self._memory.kept.update(self._asked)

    def committed(self) -> None:
        memory = self._memory
        if self._count is not None:
            if memory.count is None or self._count != memory.count + 1:
                memory.forget()
            memory.count = self._count
        if self._everything:
            memory.forget()
        memory.kept.update(self._mine)
        for gpu_type, ids in self._changed.items():
            if gpu_type in memory.kept:
                memory.stale.setdefault(gpu_type, set()).update(ids)


@event.listens_for(Session, "after_flush")
def _collect(session: Session, _: UOWTransaction) -> None:
    turn: Turn[Any] | None = session.info.get(_TURN)
    if turn is None:
        return
    for row in (*session.new, *session.deleted):
        if not isinstance(row, DiskRow):  # which is nobody's when it comes, and when it goes
            turn.note_row(row)
    for row in session.dirty:
        if _differs(row):
            turn.note_row(row)


def _differs(row: object) -> bool:
    """Whether a row has changed in what plans are made from."""
    columns = PLANNED.get(type(row), ())  # type: ignore[arg-type]  # other rows are not in it
    return any(get_history(row, name, PASSIVE_NO_INITIALIZE).has_changes() for name in columns)


@event.listens_for(Session, "do_orm_execute")
def _look(state: ORMExecuteState) -> None:
    """Statements on whole tables: nobody knows which rows they change, unless they say so."""
    turn: Turn[Any] | None = state.session.info.get(_TURN)
    if turn is None or state.is_select:
        return
    table = getattr(state.statement, "table", None)
    if table is None or table.name not in _TABLES:
        return
    if CHANGES in state.execution_options:
        turn.note_these(state.execution_options[CHANGES])
    else:
        turn.note_everything()
