"""What people, servers, operators and faults do to the simulated service, one function per step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from gpudev_client.models import (
    ActivityReport,
    ActivitySource,
    CollaboratorRequest,
    Reservation,
    ReservationRequest,
    ServerReport,
)
from gpudev_client.states import LIVE, State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.operations import (
    capacity,
    disks,
    extension,
    idle,
    reservations,
    servers,
    sharing,
    snapshots,
)
from gpudev_service.store.models import PlacementRow

from .doubles import HubRow
from .stage import ADMIN, GROUPS, HOURS, SPAWNER, TYPES, USERS

if TYPE_CHECKING:
    from .world import Life

Step = Callable[["Life"], Awaitable[None]]


async def submit(life: Life) -> None:
    rng = life.rng
    kind = rng.choice(list(TYPES.values()))
    user = rng.choice(USERS)
    values: dict[str, object] = {}
    if rng.random() < 0.3:
        values["starts_at"] = life.clock.now() + timedelta(minutes=rng.choice((1, 20, 90, 400)))
    if rng.random() < 0.25:
        values |= {"disk": rng.choice(("work", "data")), "create_disk": True}
    by_form = rng.random() < 0.4
    if by_form:
        values["server_name"] = rng.choice(("", "lab"))
    request = ReservationRequest.model_validate(
        {
            "gpu_type": kind.name,
            "gpus": rng.choice(kind.valid_counts),
            "hours": rng.choice(HOURS),
            **values,
        }
    )
    groups = GROUPS.get(user, ())
    made = await reservations.submit(life.ctx, Actor(user, groups), request, groups)
    life.checker.answer(made.id)
    if by_form:  # the Hub waits in the start of the server
        life.hub.rows[user, made.server_name] = HubRow("spawn", reservation=made.id)


async def cancel(life: Life) -> None:
    row = await life.pick()
    if row is not None:
        await reservations.cancel(life.ctx, row.id, Actor(row.user))


async def extend(life: Life) -> None:
    row = await life.pick(*LIVE)
    if row is not None:
        hours = life.rng.choice((0.01, 0.25, 1, 5, 30))
        if life.rng.random() < 0.5:
            offer = await extension.offer(life.ctx, row.id)
            hours = offer.possible_hours or hours
            await extension.extend(life.ctx, row.id, Actor(row.user), hours)
        else:
            await extension.extend(life.ctx, row.id, Actor(row.user), hours)


async def report(life: Life) -> None:
    """Somebody says something, which may be old or untrue."""
    row = await life.pick()
    if row is not None:
        status = life.rng.choice(("running", "failed", "stopped", "left", "starting", "running"))
        said = ServerReport.model_validate({"status": status, "handle": row.server_handle})
        if status == "stopped":
            life.machine.processes.pop(row.id, None)
        await servers.report(life.ctx, row.id, SPAWNER, said)


async def hear_late(life: Life) -> None:
    if life.late:
        key, said = life.late.pop(life.rng.randrange(len(life.late)))
        await servers.report(life.ctx, key, SPAWNER, said)


async def spawn(life: Life) -> None:
    """The Hub goes on with a start that is pending there."""
    pending = [key for key, row in life.hub.rows.items() if row.pending]
    if pending:
        await bring_up(life, life.rng.choice(pending))


async def bring_up(life: Life, key: tuple[str, str]) -> None:
    row = life.hub.rows.get(key)
    if row is None or row.pending != "spawn" or row.reservation is None:
        return
    reservation = row.reservation
    view = await reservations.get(life.ctx, reservation)
    if view.state in {State.QUEUED, State.SCHEDULED}:
        return
    _lose_a_node(life, view)
    try:
        await servers.launch(life.ctx, reservation)
    except Refusal:
        row.pending = None
        return
    if not life.deep and life.chance.strikes(0.25):
        # The lease ends between the Hub's question and the start of the process.
        await reservations.cancel(life.ctx, reservation, Actor(view.user))
        await life.sweep()
    if life.chance.strikes(0.1):
        row.pending = None
        await _say(life, reservation, ServerReport(status="failed", message="It did not start."))
        return
    handle = life.machine.start(reservation, leased=await _holds(life, reservation))
    answer = await _say(life, reservation, ServerReport(status="starting", handle=dict(handle)))
    if answer is not None and answer.state not in {State.PREPARING, State.ACTIVE}:
        row.pending = row.reservation = None
        if not life.chance.strikes(0.7):  # else the Hub was killed before it could end it
            life.machine.processes.pop(reservation, None)
        return
    if life.chance.strikes(0.1):
        return  # stays pending; the process is there
    if life.hub.rows.get(key) is row and row.pending:
        row.pending, row.ready = None, True
    await _say(life, reservation, ServerReport(status="running"))


def _lose_a_node(life: Life, view: Reservation) -> None:
    """Now and then it goes between the plan and the start."""
    if view.placement and life.chance.strikes(0.1):
        life.outside.unseen.add(life.rng.choice(view.placement).node)


async def _holds(life: Life, key: str) -> bool:
    view = await reservations.get(life.ctx, key)
    return view.state in {State.PREPARING, State.ACTIVE}


async def _say(life: Life, key: str, said: ServerReport) -> Reservation | None:
    """A report that arrives, arrives twice, arrives later, or never."""
    if life.chance.strikes(0.15):
        life.late.append((key, said))
        return None
    if life.chance.strikes(0.05):
        return None
    if life.chance.strikes(0.1):
        life.late.append((key, said))
    return await servers.report(life.ctx, key, SPAWNER, said)


async def die(life: Life) -> None:
    if life.machine.processes:
        key = life.rng.choice(list(life.machine.processes))
        del life.machine.processes[key]
        for row in life.hub.rows.values():
            if row.reservation == key:
                row.ready, row.pending = False, None


async def start_again(life: Life) -> None:
    """The owner of a crashed server starts it again from the Hub's home page."""
    row = await life.pick(State.ACTIVE)
    if row is not None and row.id not in life.machine.processes:
        life.hub.rows[row.user, row.server_name] = HubRow("spawn", reservation=row.id)
        await bring_up(life, (row.user, row.server_name))


async def stop_button(life: Life) -> None:
    row = await life.pick(State.ACTIVE)
    if row is not None:
        life.machine.processes.pop(row.id, None)
        life.hub.forget(row.user, row.server_name)
        await _say(life, row.id, ServerReport(status="stopped"))


async def ask(life: Life) -> None:
    """When something could be had; of that nothing may come."""
    kind, user = life.rng.choice(list(TYPES.values())), life.rng.choice(USERS)
    groups, counts = GROUPS.get(user, ()), kind.valid_counts
    asked = {"gpu_type": kind.name, "gpus": life.rng.choice(counts), "hours": 1}
    request = ReservationRequest.model_validate(asked)
    await reservations.preview(life.ctx, Actor(user, groups), request, groups)


async def invite(life: Life) -> None:
    row = await life.pick(*LIVE)
    if row is not None:
        role = life.rng.choice(("use", "use", "view"))
        until = life.clock.now() + timedelta(minutes=life.rng.choice((1, 10)))
        request = CollaboratorRequest.model_validate(
            {"role": role, "until": until if life.rng.random() < 0.3 else None}
        )
        guest = life.rng.choice(USERS)
        await sharing.invite(life.ctx, row.id, guest, request, Actor(row.user))


async def uninvite(life: Life) -> None:
    guests = await life.guests()
    if guests:
        guest = life.rng.choice(guests)
        await sharing.remove(life.ctx, guest.reservation_id, guest.user, Actor(guest.user))


async def lose_guests(life: Life) -> None:
    """An older copy of the Hub's database is put back."""
    if life.hub.guests:
        life.hub.guests[life.rng.choice(list(life.hub.guests))].clear()


async def drain(life: Life) -> None:
    await capacity.drain(life.ctx, life.rng.choice(life.nodes).name, "cooling", ADMIN)


async def fail_node(life: Life) -> None:
    """A node is gone, with the servers on it; the service is not told, it looks. Where its view is
    behind, it hears of it only from the node itself, and most likely when somebody is to start."""
    outside, node = life.outside, life.rng.choice(life.nodes).name
    row = await life.pick(State.PREPARING)
    if row is not None and row.planned_nodes and life.rng.random() < 0.7:
        node = life.rng.choice(row.planned_nodes)
    (outside.failed if life.rng.random() < 0.5 else outside.unseen).add(node)
    async with life.ctx.store.reading() as session:
        query = select(PlacementRow.reservation_id).where(PlacementRow.node == node)
        there = set(await session.scalars(query))
    for key in sorted(there & life.machine.processes.keys()):
        del life.machine.processes[key]


async def return_node(life: Life) -> None:
    life.outside.failed.clear()
    life.outside.unseen.clear()


async def see_nodes(life: Life) -> None:
    """The view catches up."""
    life.outside.failed |= life.outside.unseen
    life.outside.unseen.clear()


async def cut_off(life: Life) -> None:
    """The fleet cannot be seen, or can again."""
    life.outside.cut_off = not life.outside.cut_off and life.rng.random() < 0.5


async def step_clock(life: Life) -> None:
    """Somebody sets the machine's clock; the service goes by it from its next start on."""
    life.machine_ahead = timedelta(seconds=life.rng.choice((3600, -3600, 40, -40, 0)))


async def use(life: Life) -> None:
    """A server says what goes on in it."""
    row = await life.pick(State.ACTIVE)
    if row is not None:
        busy = life.rng.random() < 0.4
        last = None if life.rng.random() < 0.5 else life.clock.now() - timedelta(minutes=10)
        source = ActivitySource(source="kernels", busy=busy, last_at=last)
        await idle.record(life.ctx, row.id, ActivityReport(sources=[source]))


async def keep(life: Life) -> None:
    row = await life.pick(State.ACTIVE)
    if row is not None:
        await idle.keep(life.ctx, row.id, Actor(row.user))


async def undrain(life: Life) -> None:
    for node in life.nodes:
        await capacity.undrain(life.ctx, node.name, ADMIN)


async def maintain(life: Life) -> None:
    name = life.rng.choice(list(TYPES))
    if life.rng.random() < 0.3:
        await capacity.set_maintenance(life.ctx, name, "upgrade", ADMIN)
    else:
        await capacity.end_maintenance(life.ctx, name, ADMIN)


async def use_disk(life: Life) -> None:
    user, name = life.rng.choice(USERS), life.rng.choice(("work", "data"))
    match life.rng.randrange(4):
        case 0:
            await snapshots.take(life.ctx, user, name, None, Actor(user))
        case 1:
            await disks.delete(life.ctx, user, name, (), Actor(user))
        case 2:
            await disks.undelete(life.ctx, user, name, (), Actor(user))
        case _:
            await disks.rename(life.ctx, user, name, "work", Actor(user))


async def sweep(life: Life) -> None:
    await life.sweep()


async def live_seconds(life: Life) -> None:
    await life.live_through(timedelta(seconds=life.rng.choice((1, 5, 40))))


async def live_hours(life: Life) -> None:
    await life.live_through(timedelta(minutes=life.rng.choice((4, 15, 45, 200))))


async def stand_still(life: Life) -> None:
    """Time passes and nothing runs: the machine was busy, or the service was away."""
    life.pass_time(timedelta(seconds=life.rng.choice((0.5, 7, 50, 90, 1200, 9000))))


async def arm_crash(life: Life) -> None:
    life.store.crash_in = life.rng.choice((0, 0, 1, 2, 3, 5))
    life.store.crash_after_commit = life.rng.random() < 0.5


async def hub_comes_and_goes(life: Life) -> None:
    life.hub.away = not life.hub.away


async def database_goes_and_comes(life: Life) -> None:
    life.store.away = not life.store.away and life.rng.random() < 0.5


STEPS: dict[str, tuple[int, Step]] = {
    "submit": (24, submit),
    "cancel": (4, cancel),
    "extend": (8, extend),
    "report": (5, report),
    "hear_late": (6, hear_late),
    "spawn": (16, spawn),
    "die": (3, die),
    "start_again": (3, start_again),
    "stop_button": (3, stop_button),
    "ask": (6, ask),
    "invite": (12, invite),
    "uninvite": (3, uninvite),
    "lose_guests": (3, lose_guests),
    "drain": (2, drain),
    "undrain": (3, undrain),
    "fail_node": (4, fail_node),
    "return_node": (4, return_node),
    "see_nodes": (2, see_nodes),
    "cut_off": (3, cut_off),
    "step_clock": (1, step_clock),
    "use": (6, use),
    "keep": (2, keep),
    "maintain": (2, maintain),
    "use_disk": (4, use_disk),
    "sweep": (8, sweep),
    "live_seconds": (14, live_seconds),
    "live_hours": (8, live_hours),
    "stand_still": (5, stand_still),
    "arm_crash": (4, arm_crash),
    "hub": (3, hub_comes_and_goes),
    "database": (4, database_goes_and_comes),
}
