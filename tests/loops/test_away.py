"""The Hub is away for long, is killed in the middle, or its report got lost."""

from datetime import timedelta

import pytest

from gpudev_client.models import ServerReport
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.hub import Hub, HubAway, HubServer
from gpudev_service.loops import driving, reconcile
from gpudev_service.operations import servers
from gpudev_service.servers import LocalServers
from gpudev_service.servers.base import Handle
from tests.fixtures.world import World

SPAWNER = Actor("gpudev-spawner")
HANDLE: dict[str, str | int | float] = {"kind": "process", "pid": 2**22 + 1, "created": 1.0}


class ForgetfulHub(Hub):
    """Is away, or shows of every server what a test has put into `shown`."""

    away = False
    shown: HubServer | None = None

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/hub/api", "t", patience=0.5)
        self.started: list[str] = []

    async def server(self, user: str, name: str) -> HubServer | None:
        if self.away:
            raise HubAway("ConnectError")
        return self.shown

    async def servers(self) -> list[HubServer]:
        if self.away:
            raise HubAway("ConnectError")
        return []

    async def start(self, user: str, name: str, reservation_id: str) -> None:
        self.started.append(reservation_id)

    async def stop(self, user: str, name: str, *, remove: bool = False) -> None:
        if self.away:
            raise HubAway("ConnectError")

    async def remove(self, user: str, name: str) -> None:
        await self.stop(user, name)

    def show(self, *, ready: bool = False, pending: str | None = None) -> None:
        self.shown = HubServer("ada", "x", ready, pending, False, None, None)


class Alive(LocalServers):
    """Everything runs that is asked about."""

    async def alive(self, reservation_id: str, handle: Handle | None) -> bool:
        return True


@pytest.fixture
def hub(world: World, monkeypatch: pytest.MonkeyPatch) -> ForgetfulHub:
    monkeypatch.setattr(driving, "PAUSE", 0.0)
    world.ctx.hub = made = ForgetfulHub()
    return made


async def test_a_hub_that_is_away_for_hours_costs_nobody_their_place(
    world: World, hub: ForgetfulHub
) -> None:
    hub.away = True
    first = await world.reserve("ada", hours=2)
    await world.sweep()
    world.clock.pass_time(minutes=90)
    await world.sweep()
    assert await world.states(first) == [State.PREPARING]
    hub.away = False
    await world.sweep()
    assert hub.started == [first.id]
    world.clock.pass_time(seconds=world.ctx.settings.times.start_limit - 1)
    await world.sweep()
    assert await world.states(first) == [State.PREPARING]
    world.clock.pass_time(seconds=1)
    await world.sweep()
    await world.sweep()
    got = await world.look(first)
    assert got.state is State.FAILED
    assert "did not come up" in (got.reason or "")


async def test_of_all_who_wait_for_the_hub_one_asks_whether_it_is_back(
    world: World, hub: ForgetfulHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds that ask all the time would keep it from coming up."""
    asked: list[str] = []

    async def server(user: str, name: str) -> None:
        asked.append(user)
        if hub.away:
            raise HubAway("ConnectError")

    monkeypatch.setattr(hub, "server", server)
    hub.away = True
    leases = [await world.reserve(user, "t4", gpus=1) for user in ("ada", "grace", "linus")]
    for _ in range(3):
        await world.sweep()
    assert len(asked) == 3
    assert len(set(asked)) == 1
    hub.away = False
    bell = world.ctx.wake.current
    await world.sweep()
    assert bell.is_set(), "the others begin at once"
    await world.sweep()
    assert set(hub.started) == {lease.id for lease in leases}


async def test_a_lease_ends_at_its_time_though_nobody_could_start_it(
    world: World, hub: ForgetfulHub
) -> None:
    hub.away = True
    first, second = await world.reserve("ada"), await world.reserve("grace")
    world.clock.pass_time(hours=1)
    await world.sweep()
    got = await world.look(first)
    assert (got.state, got.reason) == (
        State.FAILED,
        "The server could not be started before the lease ended.",
    )
    assert await world.states(second) == [State.PREPARING]


async def test_the_time_for_a_start_begins_anew_with_the_service(
    world: World, hub: ForgetfulHub
) -> None:
    """A service that was away for minutes must not fail what its first look finds."""
    got = await world.reserve()
    world.clock.pass_time(minutes=10)
    assert world.ctx.contact.since is None  # as after a restart
    await world.sweep()
    assert await world.states(got) == [State.PREPARING]
    assert hub.started == [got.id]


async def test_a_start_that_a_killed_hub_has_forgotten_is_asked_for_again(
    world: World, hub: ForgetfulHub
) -> None:
    got = await world.reserve()
    said = ServerReport(status="starting", handle=HANDLE)
    await servers.report(world.ctx, got.id, SPAWNER, said)
    hub.show(pending="spawn")
    await world.sweep()
    assert hub.started == []
    hub.show()
    await world.sweep()
    assert hub.started == [got.id]


async def test_a_server_whose_last_report_was_lost_becomes_active(
    world: World, hub: ForgetfulHub
) -> None:
    got = await world.reserve()
    hub.show(ready=True)
    await world.sweep()
    assert await world.states(got) == [State.PREPARING]  # the Hub has not noticed that it is gone
    world.ctx.servers = Alive()
    await world.sweep()
    assert await world.states(got) == [State.ACTIVE]


async def test_contact_is_noticed_by_whoever_asks(world: World, hub: ForgetfulHub) -> None:
    await reconcile.run(world.ctx)
    since = world.ctx.contact.since
    assert since == world.clock.now()
    world.clock.pass_time(seconds=timedelta(minutes=1).total_seconds())
    await reconcile.run(world.ctx)
    assert world.ctx.contact.since == since
    hub.away = True
    await reconcile.run(world.ctx)
    assert world.ctx.contact.since is None


async def test_the_hub_is_not_asked_about_a_start_that_its_spawner_looks_after(
    world: World, hub: ForgetfulHub
) -> None:
    got = await world.reserve()
    hub.show()
    with world.ctx.starts.following():
        world.ctx.starts.heard(got.user, got.server_name, world.clock.now())
        world.clock.pass_time(seconds=30)
        await world.sweep()
        assert hub.started == []
        world.clock.pass_time(seconds=31)
        await world.sweep()
        assert hub.started == [got.id], "nobody has said anything of it for long"


async def test_it_is_asked_at_once_when_the_spawner_is_gone(
    world: World, hub: ForgetfulHub
) -> None:
    got = await world.reserve()
    hub.show()
    with world.ctx.starts.following():
        world.ctx.starts.heard(got.user, got.server_name, world.clock.now())
    await world.sweep()
    assert hub.started == [got.id]


async def test_a_spawner_that_was_heard_has_time_to_follow(world: World, hub: ForgetfulHub) -> None:
    got = await world.reserve()
    hub.show()
    world.ctx.starts.heard(got.user, got.server_name, world.clock.now())
    await world.sweep()
    assert hub.started == []
    world.clock.pass_time(seconds=10)
    await world.sweep()
    assert hub.started == [got.id]
