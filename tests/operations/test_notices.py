"""What the people of a lease should know about its server: picked out of the history."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpudev_client.models import Notice, Reservation, ServerReport
from gpudev_service.actor import Actor
from gpudev_service.loops import reconcile
from gpudev_service.operations import lab, notices, reservations, servers
from gpudev_service.operations.notices import Line
from gpudev_service.servers import LocalServers
from tests.fixtures.world import START, World

SPAWNER = Actor("gpudev-spawner")
RUNS = "The server runs again."
NO_MEMORY = "The server used more memory than it has (4 GB), and was ended for it."
AGAIN = f"{NO_MEMORY} It was started again in its place."
LOST = f"{NO_MEMORY} Your GPUs are kept for 10 min: start it again from the Hub's home page."


async def report(world: World, of: Reservation, status: str, message: str | None = None) -> None:
    said = ServerReport.model_validate({"status": status, "message": message})
    await servers.report(world.ctx, of.id, SPAWNER, said)


async def lose(world: World, monkeypatch: pytest.MonkeyPatch, why: str | None) -> None:
    """No process of the server is there, as with every lease of these tests."""

    async def told(self: LocalServers, key: str) -> str | None:
        return why

    monkeypatch.setattr(LocalServers, "why_gone", told)
    await reconcile.run(world.ctx)


@pytest.mark.parametrize(
    ("lines", "lost", "expected"),
    [
        ([], False, None),
        ([("The server is starting.", {}), ("It can be reached.", {})], True, None),
        ([("Old.", notices.happened()), ("New.", notices.happened())], False, "New."),
        ([(AGAIN, notices.happened()), ("The server is starting.", {})], False, AGAIN),
        ([(LOST, notices.lost(NO_MEMORY))], True, NO_MEMORY),
        ([(LOST, notices.lost(NO_MEMORY)), (RUNS, {})], False, f"{NO_MEMORY} {RUNS}"),
        (
            [(LOST, notices.lost(NO_MEMORY)), ("No image.", notices.failed_start())],
            True,
            "No image.",
        ),
        (
            [(LOST, notices.lost(NO_MEMORY)), ("No image.", notices.failed_start()), (RUNS, {})],
            False,
            f"{NO_MEMORY} {RUNS}",
        ),
    ],
)
def test_the_newest_line_that_matters(
    lines: list[tuple[str, dict[str, str]]], lost: bool, expected: str | None
) -> None:
    told = [Line(START + timedelta(minutes=at), *line) for at, line in enumerate(lines)]
    found = notices.latest(reversed(told), is_lost=lost)
    assert (found and found.text) == expected
    assert found is None or found.at in {line.at for line in told}


async def test_a_start_in_place_is_told_with_its_time(world: World) -> None:
    got = await world.running(await world.reserve())
    assert (await world.look(got)).notice is None
    world.clock.pass_time(minutes=5)
    await report(world, got, "note", AGAIN)
    at = world.clock.now()
    world.clock.pass_time(minutes=5)
    await report(world, got, "note", AGAIN)  # a Hub that does not know that it has said so
    notice = Notice(text=AGAIN, at=at)
    assert (await world.look(got)).notice == notice
    assert (await lab.view(world.ctx, got.id)).reservation.notice == notice
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await world.sweep()
    assert (await world.look(got)).notice is None, "its reason says why it is over"


@pytest.mark.parametrize("why", [NO_MEMORY, None])
async def test_why_a_server_was_lost_is_told_until_and_after_it_runs_again(
    world: World, monkeypatch: pytest.MonkeyPatch, why: str | None
) -> None:
    got = await world.running(await world.reserve())
    await lose(world, monkeypatch, why)
    lost, at = await world.look(got), world.clock.now()
    text = why or "The server has ended unexpectedly."
    assert lost.server_lost_at == at
    assert lost.notice == Notice(text=text, at=at)
    world.clock.pass_time(minutes=1)
    await report(world, got, "failed", "The image is gone.")
    assert (await world.look(got)).notice == Notice(text="The image is gone.", at=world.clock.now())
    await world.running(got)
    again = (await world.look(got)).notice
    assert again == Notice(text=f"{text} {RUNS}", at=at)


async def test_a_server_that_starts_and_is_reached_is_no_news(world: World) -> None:
    got = await world.reserve()
    handle: dict[str, str | int | float] = {"kind": "pod", "uid": "u-1"}
    said = ServerReport(status="starting", handle=handle)
    await servers.report(world.ctx, got.id, SPAWNER, said)
    await world.running(got)
    assert "The server is starting." in await world.reasons(got)
    assert (await world.look(got)).notice is None
