"""Starts that the Hub is asked for: only of leases that begin, and whatever comes in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from gpudev_client.models import Reservation, ServerReport
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.hub import Hub, HubAway, HubRefused, HubServer
from gpudev_service.loops import driving
from gpudev_service.operations import reservations, servers
from gpudev_service.servers import LocalServers, ServersAway
from gpudev_service.servers.base import Handle
from tests.fixtures.world import World

SPAWNER = Actor("gpudev-spawner")


class AskedHub(Hub):
    """Writes down what it is asked. `meanwhile` happens while it thinks, before it answers with
    `shown` or, where it is to start something, with `refusal`."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/hub/api", "t", patience=0.5)
        self.asked: list[tuple[str, str]] = []
        self.shown: HubServer | None = None
        self.trouble: Exception | None = None
        self.refusal: Exception | None = None
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def _think(self) -> None:
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()

    async def server(self, user: str, name: str) -> HubServer | None:
        self.asked.append(("server", user))
        if self.trouble is not None:
            raise self.trouble
        if self.refusal is None:
            await self._think()
        return self.shown

    async def start(self, user: str, name: str, reservation_id: str) -> None:
        self.asked.append(("start", user))
        await self._think()
        if self.refusal is not None:
            raise self.refusal

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        self.asked.append(("stop", user))

    async def remove(self, user: str, name: str) -> None:
        self.asked.append(("remove", user))

    def show(self, *, ready: bool = False, pending: str | None = None) -> None:
        # As it is read from an answer: no constant of this program.
        pending = None if pending is None else "".join(list(pending))
        self.shown = HubServer("ada", "x", ready, pending, False, None, None)


class Machine(LocalServers):
    """Where everything runs that is asked about, or nothing, or nobody knows."""

    alive_: bool | None = True

    async def alive(self, reservation_id: str, handle: Handle | None) -> bool:
        if self.alive_ is None:
            raise ServersAway("the API server does not answer")
        return self.alive_


@pytest.fixture
def hub(world: World, monkeypatch: pytest.MonkeyPatch) -> AskedHub:
    monkeypatch.setattr(driving, "PAUSE", 0.0)
    world.ctx.hub = made = AskedHub()
    return made


@pytest.fixture
def machine(world: World) -> Machine:
    world.ctx.servers = made = Machine()
    return made


def cancelling(world: World, got: Reservation) -> Callable[[], Awaitable[object]]:
    return lambda: reservations.cancel(world.ctx, got.id, Actor("ada"))


async def test_nobody_is_asked_for_the_start_of_a_lease_that_is_over(
    world: World, hub: AskedHub
) -> None:
    """It may have ended between the sweep that saw it and the turn of its task."""
    got = await world.reserve()
    await reservations.cancel(world.ctx, got.id, Actor("ada"))
    await driving.begin(world.ctx, got.id)
    assert hub.asked == []
    await world.sweep()
    hub.asked.clear()
    await driving.begin(world.ctx, got.id)
    assert hub.asked == []
    running = await world.running(await world.reserve())
    await driving.begin(world.ctx, running.id)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("status", "state"), [("failed", State.STOPPING), ("running", State.ACTIVE)]
)
async def test_a_start_that_ended_while_the_hub_was_asked_is_not_begun_again(
    world: World, hub: AskedHub, status: str, state: State
) -> None:
    got = await world.reserve()
    said = ServerReport.model_validate({"status": status})
    hub.meanwhile = lambda: servers.report(world.ctx, got.id, SPAWNER, said)
    await driving.begin(world.ctx, got.id)
    assert hub.asked == [("server", "ada")]
    assert await world.states(got) == [state]


async def test_a_refusal_that_comes_after_the_start_ends_no_lease(
    world: World, hub: AskedHub
) -> None:
    """The server was up before the Hub had thought about it."""
    got = await world.reserve()
    hub.refusal, hub.meanwhile = HubRefused(400, "it runs already"), lambda: world.running(got)
    await driving.begin(world.ctx, got.id)
    assert await world.states(got) == [State.ACTIVE]


async def test_a_refusal_that_comes_after_the_end_of_a_lease_is_not_its_reason(
    world: World, hub: AskedHub
) -> None:
    got = await world.reserve()
    hub.refusal, hub.meanwhile = HubRefused(400, "there is no lease"), cancelling(world, got)
    await driving.begin(world.ctx, got.id)
    assert hub.asked == [("server", "ada"), ("start", "ada")]
    await world.sweep()
    after = await world.look(got)
    assert after.state is State.CANCELLED
    assert "no lease" not in (after.reason or "")


async def test_a_hub_that_does_not_even_show_a_server_has_refused_its_start(
    world: World, hub: AskedHub
) -> None:
    got = await world.reserve()
    hub.trouble = HubRefused(403, "the token has too few scopes")
    await driving.begin(world.ctx, got.id)
    after = await world.look(got)
    assert after.state is State.STOPPING
    assert after.reason == "The Hub refused to start the server: the token has too few scopes"
    assert world.ctx.contact.since == world.clock.now(), "it has answered"


async def test_whoever_runs_already_is_not_started_and_what_only_seems_to_run_is(
    world: World, hub: AskedHub, machine: Machine
) -> None:
    got = await world.reserve()
    hub.show(ready=True)
    for unknown in (None, False):
        machine.alive_ = unknown
        hub.asked.clear()
        await driving.begin(world.ctx, got.id)
        assert hub.asked == [("server", "ada"), ("start", "ada")]
        assert await world.states(got) == [State.PREPARING]
    machine.alive_ = True
    hub.asked.clear()
    await driving.begin(world.ctx, got.id)
    assert hub.asked == [("server", "ada")]
    assert await world.states(got) == [State.ACTIVE]


async def test_what_is_not_ready_is_not_reported_as_running(
    world: World, hub: AskedHub, machine: Machine
) -> None:
    """A process of it may live while the Hub still waits for its first answer."""
    got = await world.reserve()
    hub.show(pending="spawn")
    await driving.begin(world.ctx, got.id)
    assert await world.states(got) == [State.PREPARING]


@pytest.mark.parametrize(
    ("pending", "left", "asked"),
    [("spawn", True, []), ("stop", False, []), (None, False, [("start", "ada")])],
)
async def test_a_start_that_is_under_way_is_left_to_the_spawner_that_follows_it(
    world: World, hub: AskedHub, pending: str | None, left: bool, asked: list[tuple[str, str]]
) -> None:
    """Where the Hub still stops the server it is asked again, and starts nothing before."""
    await world.reserve()
    hub.show(pending=pending)
    with world.ctx.starts.following():
        await world.sweep()
        assert hub.asked == [("server", "ada"), *asked]
        hub.asked.clear()
        await world.sweep()
    assert bool(hub.asked) is not left


async def test_a_start_that_the_hub_did_not_take_is_asked_for_again(
    world: World, hub: AskedHub
) -> None:
    got = await world.reserve()
    hub.refusal = HubAway("ReadTimeout")
    for _ in range(2):
        hub.asked.clear()
        await world.sweep()
        assert hub.asked == [("server", "ada"), ("start", "ada")]
    assert await world.states(got) == [State.PREPARING]


async def test_a_hub_that_answers_on_wakes_nobody(world: World, hub: AskedHub) -> None:
    """Each answer to one who waits would have everybody looked at again."""
    await world.reserve()
    await world.sweep()
    since, bell = world.ctx.contact.since, world.ctx.wake.current
    assert since == world.clock.now()
    world.clock.pass_time(seconds=1)
    await world.sweep()
    assert not bell.is_set()
    assert world.ctx.contact.since == since


async def test_while_the_hub_answers_all_starts_are_asked_for_at_once(
    world: World, hub: AskedHub
) -> None:
    users = ("ada", "grace", "linus")
    for user in users:
        await world.reserve(user, "t4", gpus=1)
    world.ctx.contact.answered(world.clock.now())
    await world.sweep()
    assert sorted(user for what, user in hub.asked if what == "start") == sorted(users)


async def test_where_everybody_is_where_they_should_be_there_is_no_next_sweep(
    world: World, hub: AskedHub
) -> None:
    got = await world.reserve()
    assert await driving.run(world.ctx) is not None
    await world.ctx.background.settle()
    await world.running(got)
    assert await driving.run(world.ctx) is None
