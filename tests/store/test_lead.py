"""Who leads: one at a time, and none that was followed writes any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from gpudev_service.clock import elapsed
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import NotLeading, StoreUnavailable
from gpudev_service.store.lead import Lead, Leader
from gpudev_service.store.models import MaintenanceRow

pytestmark = pytest.mark.postgres

SECONDS = 30.0


class Candidate(Protocol):
    def __call__(self, name: str, clock: Callable[[], float] = ...) -> Lead: ...


@pytest.fixture
def database_url(postgres_database_url: str) -> str:
    return postgres_database_url


@pytest.fixture
async def candidate(store: Store) -> AsyncIterator[Candidate]:
    """Makes replicas by name; all let go at the end."""
    made: list[Lead] = []

    def make(name: str, clock: Callable[[], float] = lambda: 0.0) -> Lead:
        lead = Lead(
            store.url,
            holder=name,
            address=f"http://{name}",
            seconds=SECONDS,
            clock=clock,
        )
        made.append(lead)
        return lead

    yield make
    for lead in made:
        await lead.close()


async def pass_time(store: Store, seconds: float) -> None:
    """As if so much time had passed since the leader's last sign of life."""

    async with store.transaction() as session:
        await session.execute(
            text(
                "UPDATE lead SET acts_until = acts_until - make_interval(secs => :s),"
                " good_until = good_until - make_interval(secs => :s)"
            ),
            {"s": seconds},
        )


async def end_sessions(store: Store, like: str) -> None:
    """Ends the database's sessions whose last statement is like this, and waits for their end."""
    async with store.transaction() as session:
        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE :q"
            ),
            {"q": like},
        )


async def test_one_of_two_leads(candidate: Candidate) -> None:
    ada, bob = candidate("ada"), candidate("bob")
    assert sorted(await asyncio.gather(ada.take(), bob.take())) == [False, True]
    leader, other = (ada, bob) if ada.epoch else (bob, ada)
    assert (leader.epoch, other.epoch) == (1, None)
    assert leader.acts()
    assert not other.acts()
    seen = await other.look()
    assert (seen.epoch, seen.holder, seen.address) == (1, leader.holder, leader.address)
    assert seen.good
    assert not await other.take()
    with pytest.raises(NotLeading, match="stands by"):
        await other.renew()
    await leader.renew()
    assert leader.acts()


async def test_a_leader_that_lets_go_is_followed_at_once(candidate: Candidate) -> None:
    ada, bob = candidate("ada"), candidate("bob")
    assert await ada.take()
    await ada.close()
    assert not ada.acts()
    assert await bob.take()
    assert bob.epoch == 2


async def test_a_frozen_leader_is_followed_when_its_time_has_passed(
    candidate: Candidate, store: Store
) -> None:
    ada, bob = candidate("ada"), candidate("bob")
    assert await ada.take()
    await pass_time(store, SECONDS / 2)
    assert not await bob.take(), "it acts no more, but its connection lives"
    await pass_time(store, SECONDS / 2)
    assert await bob.take()
    with pytest.raises(NotLeading):
        await ada.renew()
    assert ada.lost
    assert not ada.acts()
    assert (await ada.look()).holder == "bob"


async def test_a_dead_leader_is_followed_when_it_would_act_no_more(
    candidate: Candidate, store: Store
) -> None:
    ada, bob = candidate("ada"), candidate("bob")
    assert await ada.take()
    await end_sessions(store, "%pg_advisory_unlock%")
    assert not await bob.take(), "it may only have lost its connection"
    await pass_time(store, SECONDS / 2)
    assert await bob.take()


async def test_who_came_too_late_is_in_nobodys_way(
    candidate: Candidate, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between bob's look and his attempt the leader gives a sign of life: he lets go of what he has
    locked for it, and the next one can follow."""
    ada, bob, eve = candidate("ada"), candidate("bob"), candidate("eve")
    assert await ada.take()
    await pass_time(store, SECONDS)
    look = bob._look

    async def slow(line: AsyncConnection) -> Leader:
        seen = await look(line)
        await ada.renew()
        return seen

    monkeypatch.setattr(bob, "_look", slow)
    assert not await bob.take()
    assert ada.acts()
    await pass_time(store, SECONDS)
    assert await eve.take()
    assert eve.epoch == 2


async def test_whoever_comes_back_at_the_same_place_need_not_wait(
    candidate: Candidate, store: Store
) -> None:
    assert await candidate("ada").take()
    again = candidate("ada")
    assert not await again.take(), "the one before still has its connection"
    await end_sessions(store, "%pg_advisory_unlock%")
    assert await again.take()
    assert again.epoch == 2


async def test_a_leader_keeps_the_lead_over_a_lost_connection(
    candidate: Candidate, store: Store
) -> None:
    ada, bob = candidate("ada"), candidate("bob")
    assert await ada.take()
    await end_sessions(store, "%pg_advisory_unlock%")
    with pytest.raises(StoreUnavailable):
        await ada.renew()
    await ada.renew()
    await pass_time(store, SECONDS / 2)
    assert not await bob.take(), "its new connection has the lock"
    assert not ada.lost


async def test_it_tells_the_databases_time_of_day(candidate: Candidate, store: Store) -> None:
    ada, bob = candidate("ada"), candidate("bob")
    told: list[tuple[datetime, float]] = []
    for lead in (ada, bob):
        lead.hears = lambda moment, asked: told.append((moment, asked))

    async def database() -> datetime:
        async with store.reading() as session:
            now = await session.scalar(text("SELECT clock_timestamp()"))
        assert isinstance(now, datetime)
        return now

    for ask in (ada.take, bob.look, ada.renew):
        told.clear()
        begun, least = elapsed(), await database()
        await ask()
        assert told, ask
        for moment, asked in told:
            assert least <= moment <= await database(), ask
            assert begun <= asked <= elapsed(), ask


async def test_it_acts_for_half_of_its_time(candidate: Candidate) -> None:
    now = [100.0]
    ada = candidate("ada", lambda: now[0])
    assert await ada.take()
    now[0] += SECONDS / 2 - 0.01
    assert ada.acts()
    now[0] += 0.02
    assert not ada.acts()
    await ada.renew()
    assert ada.acts()


def maintenance(name: str) -> Callable[[AsyncSession], Awaitable[None]]:
    """Some change."""

    async def work(session: AsyncSession) -> None:
        since = datetime(2026, 1, 1, tzinfo=UTC)
        session.add(MaintenanceRow(gpu_type=name, message="", actor="", since=since))

    return work


async def written(store: Store) -> list[str]:
    async with store.reading() as session:
        return sorted(await session.scalars(select(MaintenanceRow.gpu_type)))


async def test_only_the_leader_writes(candidate: Candidate, store: Store) -> None:
    ada, bob = candidate("ada"), candidate("bob")
    hers, his = Store(store.url), Store(store.url)
    hers.fence, his.fence = ada, bob
    with pytest.raises(NotLeading, match="stands by"):
        await hers.run(maintenance("too-early"))
    assert await ada.take()
    await hers.run(maintenance("hers"))
    with pytest.raises(NotLeading, match="stands by"):
        await his.run(maintenance("not-his"))
    await pass_time(store, SECONDS)
    assert await bob.take()
    with pytest.raises(NotLeading, match="leads now"):
        await hers.run(maintenance("too-late"))
    assert ada.lost
    await his.run(maintenance("his"))
    assert await written(store) == ["hers", "his"]
    await hers.close()
    await his.close()


async def test_what_a_frozen_leader_has_begun_is_ended(candidate: Candidate, store: Store) -> None:
    ada, bob = candidate("ada"), candidate("bob")
    hers = Store(store.url)
    hers.fence = ada
    assert await ada.take()
    await pass_time(store, SECONDS)

    async def freeze() -> None:
        async with hers.transaction() as session:
            await maintenance("half")(session)
            await session.flush()
            assert await bob.take(), "it need not wait for the transaction"

    with pytest.raises(StoreUnavailable):
        await freeze()
    with pytest.raises(NotLeading):
        await hers.run(maintenance("again"))
    assert await written(store) == []
    await hers.close()


async def test_one_that_is_at_work_is_waited_for(candidate: Candidate, store: Store) -> None:
    """Such as a migration."""
    assert await candidate("ada").take()
    await pass_time(store, SECONDS)
    bob = candidate("bob")

    async def work(session: AsyncSession) -> None:
        await maintenance("whole")(session)
        await session.flush()
        taking = asyncio.create_task(bob.take())
        # Ends when somebody waits for the lock that this transaction has.
        await session.execute(WAITED_FOR)
        waiting.append(taking)

    waiting: list[asyncio.Task[bool]] = []
    await store.run(work)
    assert await waiting[0]
    assert await written(store) == ["whole"]


#: Works at the server until another session waits for an advisory lock.
WAITED_FOR = text(
    """
    DO $$ BEGIN
      FOR i IN 1..3000 LOOP
        PERFORM pg_stat_clear_snapshot();
        IF EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted) THEN
          RETURN;
        END IF;
        PERFORM pg_sleep(0.01);
      END LOOP;
      RAISE 'nobody waits';
    END $$
    """
)
