"""A PostgreSQL that stands still and closes nothing: every call ends, and all goes on after it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial

import pytest
from sqlalchemy import event, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store import silence
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import OutcomeUnknown, StoreMisconfigured, StoreUnavailable
from gpudev_service.store.lead import Lead
from gpudev_service.store.models import HistoryRow
from tests.fixtures.frozen import freeze, frozen, thaw
from tests.fixtures.postgres import PostgresServer, started
from tests.fixtures.rows import NOW, reservation
from tests.fixtures.store import Templates

pytestmark = pytest.mark.postgres

#: Milliseconds that these servers may say nothing, and for how long a lead is good, in seconds.
SILENCE_MS, LEAD_SECONDS = 300, 2.0
#: Seconds after which a call that has not ended hangs.
PATIENCE = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that the tests may freeze."""
    with started() as own:
        yield own


@pytest.fixture
async def store(server: PostgresServer, templates: Templates) -> AsyncIterator[Store]:
    url = server.url(server.create_database())
    templates.fill(make_url(url))
    opened = Store(f"{url}?tcp_user_timeout={SILENCE_MS}&connect_timeout=2", patience=0.3)
    async with opened.transaction() as session:
        session.add(reservation("r1"))
    yield opened
    await opened.close()


async def note(session: AsyncSession) -> str:
    """Work that would leave two entries if it were done twice."""
    session.add(
        HistoryRow(reservation_id="r1", at=NOW, kind="note", state="queued", reason="", actor="a")
    )
    await session.flush()
    return "noted"


async def notes(store: Store) -> int:
    async with store.reading() as session:
        return len((await session.scalars(select(HistoryRow.id))).all())


def at_commit(act: Callable[[], None]) -> Callable[[AsyncSession], Awaitable[str]]:
    """Work whose commit is asked for once `act` has been done, the first time."""
    left = [act]

    async def work(session: AsyncSession) -> str:
        found = await note(session)

        @event.listens_for(session.sync_session, "before_commit")
        def begun(_: object) -> None:
            if left:
                left.pop()()

        return found

    return work


async def test_calls_end_and_go_on_afterwards(server: PostgresServer, store: Store) -> None:
    async with asyncio.timeout(PATIENCE):
        with frozen(server):
            for call in (store.ping, lambda: store.run(note), lambda: notes(store)):
                with pytest.raises(StoreUnavailable) as refused:
                    await call()
                assert not isinstance(refused.value, OutcomeUnknown)
        assert await store.run(note) == "noted"
        assert await notes(store) == 1


async def test_a_transaction_that_is_open_is_given_up(server: PostgresServer, store: Store) -> None:
    async def half() -> None:
        async with store.transaction() as session:
            await note(session)
            freeze(server)
            await note(session)

    async with asyncio.timeout(PATIENCE):
        try:
            with pytest.raises(StoreUnavailable):
                await half()
        finally:
            thaw(server)
        # Its lock is free: the server has seen that nobody is there.
        assert await store.run(note) == "noted"
        assert await notes(store) == 1


async def test_of_a_commit_that_is_not_answered_nobody_can_tell(
    server: PostgresServer, store: Store
) -> None:
    async with asyncio.timeout(PATIENCE):
        try:
            with pytest.raises(OutcomeUnknown):
                await store.run(at_commit(partial(freeze, server)))
        finally:
            thaw(server)
        await store.run(note)  # waits for the lock of the other one
        assert await notes(store) == 2


async def test_the_outcome_of_a_commit_is_asked_for_once_the_server_goes_on(
    server: PostgresServer, store: Store
) -> None:
    class Thaw(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            thaw(server)

    log, handler = logging.getLogger("gpudev_service.store.silence"), Thaw()
    log.addHandler(handler)
    try:
        async with asyncio.timeout(PATIENCE):
            assert await store.run(at_commit(partial(freeze, server))) == "noted"
    finally:
        log.removeHandler(handler)
        thaw(server)
    assert await notes(store) == 1


async def test_who_is_called_off_does_not_wait_for_the_server(
    server: PostgresServer, store: Store
) -> None:
    asked = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        freeze(server)
        asked.set()
        await session.execute(text("SELECT 1"))

    async with asyncio.timeout(PATIENCE):
        try:
            task = asyncio.create_task(store.run(work))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        finally:
            thaw(server)
        assert await store.run(note) == "noted"


async def test_a_leader_of_a_server_that_stood_still_leads_on(
    server: PostgresServer, store: Store
) -> None:
    time = [0.0]
    lead = Lead(
        store.url, holder="ada", address="http://ada", seconds=LEAD_SECONDS, clock=lambda: time[0]
    )
    async with asyncio.timeout(PATIENCE):
        assert await lead.take()
        with frozen(server):
            with pytest.raises(StoreUnavailable):
                await lead.renew()
            with pytest.raises(StoreUnavailable):
                await lead.look()
            time[0] += LEAD_SECONDS / 2
            assert not lead.acts()
        await lead.renew()
        assert lead.acts()
        assert not lead.lost
        with frozen(server):
            await lead.close()


def test_a_patience_that_is_no_number_is_refused() -> None:
    with pytest.raises(StoreMisconfigured, match="tcp_user_timeout"):
        Store("postgresql://gpudev@127.0.0.1/gpudev?tcp_user_timeout=long")


def address(server: PostgresServer) -> str:
    """Of an empty database, for the driver alone."""
    url = make_url(server.url(server.create_database())).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


async def test_a_line_that_has_ended_meanwhile_is_not_given_up_once_more(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    line = await silence.connect(address(server), silence=60.0)
    await line.execute("SELECT 1")
    await line.close()
    line._hang_up()
    assert "given up" not in caplog.text


async def test_whoever_sets_no_limit_waits_as_the_driver_does(server: PostgresServer) -> None:
    async with (
        await silence.Connection.connect(address(server)) as line,
        line.cursor() as cursor,
    ):
        await cursor.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)
