"""The connection breaks at the commit: what was done is not done twice, nor taken for lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

import pytest
from sqlalchemy import URL, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_service.store.engine import ATTEMPTS, Store
from gpudev_service.store.errors import OutcomeUnknown
from gpudev_service.store.models import HistoryRow
from tests.fixtures.rows import NOW, reservation
from tests.fixtures.store import Templates

COMMIT = b"COMMIT\0"


class Cut(Enum):
    """Where the line breaks at a commit."""

    BEFORE = "the server never hears of the commit"
    AFTER = "the server commits, the answer is lost"
    FOR_GOOD = "the answer is lost and nobody can connect any more"


class Line:
    """A line to the server that breaks at the first `cuts` commits."""

    def __init__(self, server: URL, cut: Cut, cuts: int) -> None:
        self._server = server
        self._cut = cut
        self._left = cuts
        self._dead = False
        self.commits = 0

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[int]:
        """The port at which it can be reached."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._dead:
            writer.close()
            return
        there = await asyncio.open_connection(self._server.host, self._server.port)
        answers = asyncio.create_task(copy(there[0], writer))
        try:
            while data := await reader.read(65536):
                if COMMIT in data and await self._breaks(data, there, answers):
                    break
                there[1].write(data)
        finally:
            answers.cancel()
            there[1].close()
            writer.close()

    async def _breaks(
        self,
        data: bytes,
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        answers: asyncio.Task[None],
    ) -> bool:
        self.commits += 1
        if self._left == 0:
            return False
        self._left -= 1
        if self._cut is not Cut.BEFORE:
            answers.cancel()
            await asyncio.wait([answers])
            there[1].write(data)
            assert b"COMMIT" in await there[0].read(65536)
        self._dead = self._cut is Cut.FOR_GOOD
        return True


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)


def through(url: str, port: int) -> str:
    """The address of the database by way of the line; unencrypted, so that it can be read."""
    by_line = make_url(url).set(port=port).update_query_dict({"sslmode": "disable"})
    return by_line.render_as_string(hide_password=False)


async def note(session: AsyncSession) -> str:
    """Work that would leave two entries if it were done twice."""
    session.add(
        HistoryRow(reservation_id="r1", at=NOW, kind="note", state="queued", reason="", actor="a")
    )
    return "noted"


@pytest.fixture
async def direct(postgres_database_url: str, templates: Templates) -> AsyncIterator[Store]:
    templates.fill(make_url(postgres_database_url))
    store = Store(postgres_database_url)
    async with store.transaction() as session:
        session.add(reservation("r1"))
    yield store
    await store.close()


async def notes(store: Store) -> int:
    async with store.reading() as session:
        return len((await session.scalars(select(HistoryRow.id))).all())


@pytest.mark.parametrize(("cut", "commits"), [(Cut.BEFORE, 3), (Cut.AFTER, 1)])
async def test_it_is_done_once(
    direct: Store, postgres_database_url: str, cut: Cut, commits: int
) -> None:
    line = Line(direct.url, cut, cuts=2)
    async with line.laid() as port:
        store = Store(through(postgres_database_url, port))
        assert await store.run(note) == "noted"
        await store.close()
    assert await notes(direct) == 1
    # A reader's COMMIT comes by the same line: the one that asked for the outcome.
    assert line.commits >= commits


async def test_a_single_transaction_that_took_place(
    direct: Store, postgres_database_url: str
) -> None:
    async with Line(direct.url, Cut.AFTER, cuts=1).laid() as port:
        store = Store(through(postgres_database_url, port))
        async with store.transaction() as session:
            await note(session)
        await store.close()
    assert await notes(direct) == 1


async def test_nobody_can_tell(
    direct: Store, postgres_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line(direct.url, Cut.FOR_GOOD, cuts=1)
    async with line.laid() as port:
        store = Store(through(postgres_database_url, port))
        with pytest.raises(OutcomeUnknown):
            await store.run(note)
        await store.close()
    assert await notes(direct) == 1
    asked = [text for text in caplog.messages if text.startswith("asking for the outcome")]
    assert asked == [
        f"asking for the outcome of a commit, attempt {number} of {ATTEMPTS}"
        for number in range(1, len(asked) + 1)
    ]
    assert 1 <= len(asked) <= ATTEMPTS
