"""A repeated call has one effect and one answer, whatever happened to the first one."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from gpudev_service.api.idempotency import Claim, Idempotency, Stored
from gpudev_service.api.route import Call, Route
from gpudev_service.api.routes import ROUTES
from gpudev_service.loops import retention
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import OutcomeUnknown
from gpudev_service.store.models import DiskRow, IdempotencyRow, ReservationRow
from tests.fixtures.hub import RunningHub

from .site import Site, running

pytestmark = pytest.mark.hub

KEY = {"Idempotency-Key": "key-0001"}
BOOKING = {"gpu_type": "h100", "hours": 1, "starts_at": "2026-12-26T00:00:00Z"}


@pytest.fixture
def ada(running_hub: RunningHub) -> str:
    return running_hub.user("ida", "lab")


def body(**changes: Any) -> dict[str, Any]:
    return {"gpu_type": "t4", "hours": 1, "gpus": 1, **changes}


async def listed(site: Site, token: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await site.call("GET", "/reservations", token)).json()["items"]
    return found


async def count(site: Site, token: str) -> int:
    return len(await listed(site, token))


async def test_a_repeated_call_gets_the_same_answer(site: Site, ada: str) -> None:
    first = await site.call("POST", "/reservations", ada, body(), KEY)
    again = await site.call("POST", "/reservations", ada, body(), KEY)
    assert first.status_code == 201
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Idempotent-Replay"] == "true"
    assert await count(site, ada) == 1


async def test_a_refusal_is_repeated_too(site: Site, ada: str) -> None:
    wrong = body(gpu_type="nothing")
    first = await site.call("POST", "/reservations", ada, wrong, KEY)
    again = await site.call("POST", "/reservations", ada, wrong, KEY)
    assert first.status_code == 422
    assert (again.status_code, again.content) == (first.status_code, first.content)


async def test_a_key_belongs_to_one_request(site: Site, ada: str) -> None:
    await site.call("POST", "/reservations", ada, body(), KEY)
    other = await site.call("POST", "/reservations", ada, body(hours=2), KEY)
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "idempotency_conflict"
    elsewhere = await site.call("POST", "/disks", ada, {"name": "d1"}, KEY)
    assert elsewhere.json()["error"]["code"] == "idempotency_conflict"


async def test_a_key_belongs_to_one_caller(site: Site, ada: str, running_hub: RunningHub) -> None:
    bob = running_hub.user("ibob")
    first = await site.call("POST", "/reservations", ada, body(), KEY)
    second = await site.call("POST", "/reservations", bob, body(), KEY)
    assert first.json()["user"] == "ida"
    assert second.json()["user"] == "ibob"


async def test_the_same_call_at_once_is_done_once(site: Site, ada: str) -> None:
    answers = await asyncio.gather(
        *(site.call("POST", "/reservations", ada, body(), KEY) for _ in range(8))
    )
    done = {a.content for a in answers if a.status_code == 201}
    waiting = [a.json()["error"]["code"] for a in answers if a.status_code != 201]
    assert len(done) == 1
    assert set(waiting) <= {"in_progress"}
    assert await count(site, ada) == 1


Operation = Callable[[Call[Any, Any]], Awaitable[Any]]


def broken(route: Route, operation: Operation) -> tuple[Route, ...]:
    changed = dataclasses.replace(route, operation=operation)
    return tuple(changed if other.name == route.name else other for other in ROUTES)


def route(name: str) -> Route:
    return next(found for found in ROUTES if found.name == name)


def after(name: str) -> tuple[Route, ...]:
    """The table with one operation that does its work and then fails, as a crash would."""
    original = route(name)

    async def operation(call: Call[Any, Any]) -> Any:
        await original.operation(call)
        raise RuntimeError("the service was killed here")

    return broken(original, operation)


def before(name: str) -> tuple[Route, ...]:
    """The table with one operation that fails before it does anything."""
    original = route(name)

    async def operation(call: Call[Any, Any]) -> Any:
        raise RuntimeError("the service was killed here")

    return broken(original, operation)


CREATING = [
    ("submit_reservation", "POST", "/reservations", body(), "/reservations"),
    ("create_disk", "POST", "/disks", {"name": "made"}, "/disks"),
    ("take_snapshot", "POST", "/disks/home/snapshots", {}, "/disks/home/snapshots"),
    ("clone_disk", "POST", "/disks/home/clones", {"name": "copy"}, "/disks"),
    ("change_disk", "PATCH", "/disks/home", {"name": "renamed"}, "/disks"),
    ("delete_disk", "DELETE", "/disks/home", None, "/disks?deleted=true"),
]


@pytest.mark.parametrize("when", [before, after])
@pytest.mark.parametrize(("name", "method", "path", "sent", "listing"), CREATING)
async def test_a_crash_between_effect_and_answer_is_no_double_effect(
    name: str, method: str, path: str, sent: Any, listing: str,
    when: Callable[[str], tuple[Route, ...]],
    running_hub: RunningHub, store: Store, tmp_path: Path, ada: str,
) -> None:  # fmt: skip
    async with running(running_hub, store, tmp_path, routes=when(name)) as site:
        if "/home" in path:
            await site.call("POST", "/disks", ada, {"name": "home"})
        before_it = len((await site.call("GET", listing, ada)).json()["items"])
        crashed = await site.call(method, path, ada, sent, KEY)
        assert crashed.status_code == 500
        await site.ctx.background.settle()
    async with running(running_hub, store, tmp_path) as site:
        retried = await site.call(method, path, ada, sent, KEY)
        again = await site.call(method, path, ada, sent, KEY)
        await site.ctx.background.settle()
        after_it = len((await site.call("GET", listing, ada)).json()["items"])
    assert retried.status_code == route(name).status, retried.text
    assert (again.status_code, again.content) == (retried.status_code, retried.content)
    made = 0 if name in {"change_disk", "delete_disk"} else 1
    assert after_it == before_it + made


async def test_each_of_several_calls_in_one_transaction_finds_its_own(
    running_hub: RunningHub, store: Store, tmp_path: Path, ada: str
) -> None:
    """What waits for the same turn is written together; after a crash each retry finds its own."""
    calls = [
        (body() | {"name": f"run {at}"}, {"Idempotency-Key": f"key-of-{at:04}"}) for at in range(12)
    ]
    async with running(running_hub, store, tmp_path, routes=after("submit_reservation")) as site:
        crashed = await asyncio.gather(
            *(site.call("POST", "/reservations", ada, sent, key) for sent, key in calls)
        )
        assert {answer.status_code for answer in crashed} == {500}
    async with running(running_hub, store, tmp_path) as site:
        retried = [await site.call("POST", "/reservations", ada, *call) for call in calls]
        assert await count(site, ada) == len(calls)
    assert [answer.json()["name"] for answer in retried] == [sent["name"] for sent, _ in calls]


@contextmanager
def breaking(store: Store, commits: int) -> Iterator[list[str]]:
    """The next so many commits that write a reservation break off: PostgreSQL ends the session at
    that moment, SQLite says that it is busy. The list grows by one for each."""
    broken: list[str] = []

    def breaks(session: Session) -> None:
        wrote = session.scalar(select(func.count()).select_from(ReservationRow))
        if not wrote or len(broken) == commits:
            return
        broken.append("broken")
        if store.is_sqlite:
            busy = sqlite3.OperationalError("database is locked")
            busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise OperationalError("COMMIT", {}, busy)
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        address = store.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    event.listen(Session, "before_commit", breaks)
    try:
        yield broken
    finally:
        event.remove(Session, "before_commit", breaks)


async def test_a_commit_that_had_to_be_repeated_leaves_nothing_to_be_found(
    running_hub: RunningHub, store: Store, tmp_path: Path, ada: str
) -> None:
    """What a commit that broke off would have made is not there; a retry finds what is."""
    async with running(running_hub, store, tmp_path, routes=after("submit_reservation")) as site:
        with breaking(store, 2) as broken:
            crashed = await site.call("POST", "/reservations", ada, body(), KEY)
        assert (crashed.status_code, len(broken)) == (500, 2)
        [made] = await listed(site, ada)
    async with running(running_hub, store, tmp_path) as site:
        retried = await site.call("POST", "/reservations", ada, body(), KEY)
        assert (retried.status_code, retried.json()["id"]) == (201, made["id"])
        assert await count(site, ada) == 1


async def test_who_cannot_be_told_what_became_of_it_is_told_so(
    running_hub: RunningHub, store: Store, tmp_path: Path, ada: str
) -> None:
    submit = route("submit_reservation")

    async def lost(call: Call[Any, Any]) -> Any:
        await submit.operation(call)
        raise OutcomeUnknown

    async with running(running_hub, store, tmp_path, routes=broken(submit, lost)) as site:
        unsure = await site.call("POST", "/reservations", ada, body(), KEY)
        assert (unsure.status_code, unsure.json()["error"]["code"]) == (503, "unavailable")
        assert "may have been done" in unsure.json()["error"]["message"]
    async with running(running_hub, store, tmp_path) as site:
        assert (await site.call("POST", "/reservations", ada, body(), KEY)).status_code == 201
        assert await count(site, ada) == 1


async def test_what_was_made_again_is_found_and_not_what_is_gone(
    running_hub: RunningHub, store: Store, tmp_path: Path, ada: str
) -> None:
    made = []
    for _ in range(2):
        table = after("submit_reservation")
        async with running(running_hub, store, tmp_path, routes=table) as site:
            crashed = await site.call("POST", "/reservations", ada, body(), KEY)
            assert crashed.status_code == 500
            made += [row["id"] for row in await listed(site, ada)]
        if len(made) == 1:
            await store.run(partial(retention._forget, made))
    async with running(running_hub, store, tmp_path) as site:
        retried = await site.call("POST", "/reservations", ada, body(), KEY)
        assert [retried.json()["id"]] == made[1:]
        assert await count(site, ada) == 1


async def test_an_extension_is_not_given_twice(
    running_hub: RunningHub, store: Store, tmp_path: Path, ada: str
) -> None:
    async with running(running_hub, store, tmp_path, routes=after("extend_reservation")) as site:
        key = (await site.call("POST", "/reservations", ada, body())).json()["id"]
        path = f"/reservations/{key}/extension"
        assert (await site.call("POST", path, ada, {"hours": 1}, KEY)).status_code == 500
    async with running(running_hub, store, tmp_path) as site:
        for _ in range(2):
            answer = await site.call("POST", path, ada, {"hours": 1}, KEY)
            assert (answer.status_code, answer.json()["extended_hours"]) == (200, 1.0)


async def test_what_goes_on_in_the_background_is_not_taken_for_the_call(
    site: Site, ada: str
) -> None:
    """A snapshot's bytes come after the answer; storing them must not touch the answer's row."""
    await site.call("POST", "/disks", ada, {"name": "home"})
    first = await site.call("POST", "/disks/home/snapshots", ada, {}, KEY)
    await site.ctx.background.settle()
    again = await site.call("POST", "/disks/home/snapshots", ada, {}, KEY)
    assert first.status_code == 202
    assert again.content == first.content
    assert again.headers["Idempotent-Replay"] == "true"


async def test_what_goes_on_while_the_answer_is_kept_does_not_take_it_away(site: Site) -> None:
    ctx, books, kept = site.ctx, Idempotency(site.ctx), asyncio.Event()

    async def left_running() -> None:
        await kept.wait()
        await ctx.store.run(add)

    async def add(session: AsyncSession) -> None:
        session.add(DiskRow(id="d1", user="ida", name="d1", created_at=ctx.clock.now()))

    async with books.claim("ida", "key-0001", "hash") as claim:
        assert isinstance(claim, Claim)
        running_on = asyncio.create_task(left_running())
        await books.keep(claim, 201, "the answer")
        kept.set()
        await running_on
    async with books.claim("ida", "key-0001", "hash") as again:
        assert again == Stored(201, "the answer")


async def test_a_credential_is_not_kept(site: Site, ada: str) -> None:
    sent = {"code": "c" * 43, "verifier": "v" * 43}
    await site.call("POST", "/cli-tokens", json=sent, headers=KEY)
    later = await site.call("POST", "/reservations", ada, BOOKING)
    refused = await site.call(
        "POST", f"/reservations/{later.json()['id']}/ssh", ada, headers={"Idempotency-Key": "k" * 9}
    )
    assert refused.status_code == 409
    async with site.ctx.store.reading() as session:
        assert await session.scalar(select(func.count()).select_from(IdempotencyRow)) == 0
