"""The numbers of many new lines of history, fetched before they are written, on PostgreSQL.

Rows whose number the database chooses go in by one statement that returns them, with the values of
all of them as its parameters. The driver takes so long a statement apart each time, which costs
more than the rows. With their numbers they are rows like any others, one by one of a statement that
is known.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event, func, inspect, select
from sqlalchemy.orm import Session, UOWTransaction

from .models import HistoryRow

#: Statements with more parameters than this are not remembered by psycopg.
_REMEMBERED = 50
_MANY = _REMEMBERED // (len(HistoryRow.__table__.columns) - 1) + 1
_NEXT = func.nextval(func.pg_get_serial_sequence(HistoryRow.__tablename__, "id"))


@event.listens_for(Session, "before_flush")
def _number(session: Session, _: UOWTransaction, __: Any) -> None:
    new = [row for row in session.new if isinstance(row, HistoryRow) and row.id is None]
    if len(new) < _MANY or session.get_bind().dialect.name != "postgresql":
        return
    numbers = session.scalars(select(_NEXT).select_from(func.generate_series(1, len(new))))
    # In the order in which they were added: a stream goes by it.
    new.sort(key=lambda row: inspect(row).insert_order)
    for row, number in zip(new, sorted(numbers), strict=True):
        row.id = number
