"""How far a lease may be extended: as far as no promised start moves later.

An extension is tried out for real: the lease takes its units for longer, whoever is in the way is
offered another place that starts no later than promised, and everything is put back. What is tried
is exactly what building the pool from the stored promises would do after the extension, so a
granted extension moves nobody.
"""

from __future__ import annotations

from dataclasses import replace

from .model import Extension, Hold, Reason
from .pool import Pool, occupied_until
from .seats import Place, Seat, by_key


def max_extension(pool: Pool, hold_id: str, wanted_ms: int) -> Extension:
    """The most by which the lease may be extended, up to `wanted_ms`."""
    hold = pool.holds.get(hold_id)
    if hold is None:
        return Extension(0, None, Reason.NO_SUCH_HOLD)
    if hold.until_ms <= pool.seating.now:
        return Extension(0, None, Reason.OVERSTAYED)
    if wanted_ms <= 0:
        return Extension(0)
    blocker = _try(pool, hold, hold.until_ms + wanted_ms)
    if blocker is None:
        return Extension(wanted_ms)
    # Only at somebody's start can an extension begin to be in the way. It may always last until the
    # first of these, and never until after the last; the last that works lies between.
    end = pool.ends[hold_id]
    starts = {
        seat.start for seat in _concerned(pool, hold, hold.until_ms + wanted_ms) if seat.start > end
    }
    until = [end, *sorted(starts), hold.until_ms + wanted_ms]
    works, fails = 0, len(until) - 1
    while fails - works > 1:
        middle = (works + fails) // 2
        found = _try(pool, hold, until[middle])
        if found is None:
            works = middle
        else:
            fails, blocker = middle, found
    return Extension(until[works] - hold.until_ms, blocker, Reason.PROMISED_TO_OTHERS)


def extend(pool: Pool, hold_id: str, until_ms: int) -> str | None:
    """Extends the lease if no promised start moves later; else says whose would."""
    longer = replace(pool.holds[hold_id], until_ms=until_ms)
    attempt = _Attempt(pool, longer)
    blocker = attempt.make()
    if blocker is not None:
        attempt.undo()
        return blocker
    pool.holds[hold_id] = longer
    pool.ends[hold_id] = attempt.end
    pool.improve()
    return None


def _try(pool: Pool, hold: Hold, until_ms: int) -> str | None:
    """Who could not be kept if the lease ended at `until_ms`; leaves everything as it was."""
    attempt = _Attempt(pool, replace(hold, until_ms=until_ms))
    blocker = attempt.make()
    attempt.undo()
    return blocker


def _concerned(pool: Pool, hold: Hold, end: int) -> list[Seat]:
    """Whose slots overlap what the extension would add, on its nodes or under its quotas."""
    begin = pool.ends[hold.id]
    nodes = {pool.seating.number[name] for name in hold.units if name in pool.seating.number}
    quotas = set(hold.quota_keys)
    return [
        seat
        for seat in pool.seats.values()
        if seat.start < end
        and seat.end > begin
        and not (nodes.isdisjoint(seat.nodes) and quotas.isdisjoint(seat.quotas))
    ]


class _Attempt:
    """An extension in the making, with what it takes to put everything back.

    It is made between two events, when nobody can gain from anything: so nobody can once it is put
    back.
    """

    def __init__(self, pool: Pool, longer: Hold) -> None:
        self._pool = pool
        self._hold = longer
        self._begin = pool.ends[longer.id]
        self.end = occupied_until(longer, pool.rules, pool.seating.now)
        self._before: list[tuple[Seat, Place]] = []

    def make(self) -> str | None:
        """Extends, and seats again who is in the way; the id of the first who cannot be."""
        pool, seating = self._pool, self._pool.seating
        if seating.fresh:
            raise AssertionError(f"{self._hold.id}: extended while others may gain")
        if self.end <= self._begin:
            return None
        seats = sorted(_concerned(pool, self._hold, self.end), key=by_key)
        self._before = [(seat, (seat.start, seat.nodes)) for seat in seats]
        for seat in seats:
            seating.lift(seat)
        seating.take_lease(self._hold, self._begin, self.end)
        displaced = []
        for seat, place in self._before:
            if seating.fits(seat, place):
                seating.sit(seat, place)
            else:
                displaced.append(seat)
        for seat in displaced:
            elsewhere = seating.find_no_later(seat, seat.start)
            if elsewhere is None:
                return seat.demand.id
            seating.sit(seat, elsewhere)
        return None

    def undo(self) -> None:
        """Puts everybody back."""
        seating = self._pool.seating
        if self.end <= self._begin:
            return
        for seat, _ in self._before:
            if seat.nodes:
                seating.lift(seat)
        seating.give_lease(self._hold, self._begin, self.end)
        for seat, place in self._before:
            seating.sit(seat, place)
        seating.fresh.take()
