"""Closes the distance between what a reservation is and what it should become.

`preparing` reservations that nobody starts are started through the Hub; `stopping` ones are ended:
server stopped and verified, GPUs released (the next in line starts in the same transaction), disk
snapshotted, final state. Each reservation is driven by one task at a time. Every step may be
repeated, so after a crash the loop simply drives on.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.limits import is_reservation_id
from gpudev_client.models import ServerReport
from gpudev_client.states import State
from gpudev_service.actor import SERVICE
from gpudev_service.context import Context
from gpudev_service.disks import base as backend
from gpudev_service.hub import HubAway, HubRefused
from gpudev_service.kube import KubeAway, KubeRefused
from gpudev_service.operations import disks, holding, places, planning, servers, snapshots, views
from gpudev_service.operations.reservations import end_in
from gpudev_service.operations.transitions import Entry, note, transition
from gpudev_service.servers import ServersAway
from gpudev_service.settings import STOP_POLITELY
from gpudev_service.store.models import HistoryRow, LeaseUnitRow, ReservationRow, SnapshotRow

from .pace import next_sweep

log = logging.getLogger(__name__)

#: Before a step that did not work is tried again, in seconds.
PAUSE = 1.0
#: How often a start that is under way is looked at, five times in a pause, until it is ended.
START_LOOKS = 50

#: Who is not where they should be. Asked at each change, and so made once.
_ON_THEIR_WAY = select(
    ReservationRow.id,
    ReservationRow.state,
    ReservationRow.user,
    ReservationRow.server_name,
    ReservationRow.starts_at,
).where(ReservationRow.state.in_((State.PREPARING, State.STOPPING)))


async def run(ctx: Context) -> datetime | None:
    """Begins a task for every reservation that is not where it should be; returns the next sweep
    where there is any, as what did not work is tried again."""
    now = ctx.clock.now()
    async with ctx.store.reading() as session:
        found = list(await session.execute(_ON_THEIR_WAY))
    asks = False
    for key, state, user, server_name, starts_at in found:
        if state == State.STOPPING:
            ctx.background.start(f"end:{key}", end(ctx, key))
        elif not ctx.starts.looked_after(user, server_name, starts_at, now):
            if asks and ctx.contact.since is None:
                continue  # one of them finds out whether the Hub answers
            asks = True
            ctx.background.start(f"begin:{key}", begin(ctx, key))
    return next_sweep(ctx) if found else None


async def begin(ctx: Context, key: str) -> None:
    """Starts the server of a lease through the Hub, unless a spawn of it is already under way.

    A server that was reported as starting is looked after too: a Hub that was killed meanwhile has
    forgotten the start, and one whose last report was lost runs without our knowing.
    """
    row = await _row(ctx, key)
    if row.state != State.PREPARING:
        return
    try:
        server = await ctx.hub.server(row.user, row.server_name)
    except HubAway as error:
        ctx.contact.lost()
        log.warning("the Hub did not take the start of %s: %s", key, error)
    except HubRefused as refusal:
        _answered(ctx)
        await _refused(ctx, key, refusal)
        return
    else:
        _answered(ctx)
        if server is not None and server.ready and await _runs(ctx, row):
            await servers.report(ctx, key, SERVICE, ServerReport(status="running"))
            return
        if server is not None and server.pending == "spawn":
            ctx.starts.seen(row.user, row.server_name, ctx.clock.now())
        if server is None or server.pending is None:
            # The Hub has no start under way. Was there one that failed, its spawner had told us
            # before the Hub knew, so that only now we see it.
            row = await _row(ctx, key)
            if row.state != State.PREPARING or not await _start(ctx, row):
                return
    await asyncio.sleep(PAUSE)


def _answered(ctx: Context) -> None:
    """The Hub is there: whoever waited for that begins now."""
    if ctx.contact.since is None:
        ctx.wake.set()
    ctx.contact.answered(ctx.clock.now())


async def _runs(ctx: Context, row: ReservationRow) -> bool:
    """Whether anything of the server is known to run."""
    try:
        return await ctx.servers.alive(row.id, row.server_handle)
    except ServersAway as away:
        log.warning("whether %s runs is not known: %s", row.id, away)
        return False


async def _start(ctx: Context, row: ReservationRow) -> bool:
    """Asks the Hub for the server; False where it said no."""
    try:
        await ctx.hub.start(row.user, row.server_name, row.id)
    except HubAway as error:
        log.warning("the Hub did not take the start of %s: %s", row.id, error)
    except HubRefused as refusal:
        await _refused(ctx, row.id, refusal)
        return False
    return True


async def _refused(ctx: Context, key: str, refusal: HubRefused) -> None:
    log.warning("the Hub refused to start %s: %s", key, refusal.status)

    async def work(session: AsyncSession) -> list[Entry]:
        row = await session.get_one(ReservationRow, key)
        if row.state != State.PREPARING:
            return []
        reason = f"The Hub refused to start the server: {refusal.message}"
        return await end_in(ctx, session, row, State.FAILED, reason, SERVICE, ctx.clock.now())

    await views.publish(ctx, await ctx.store.run(work))


async def end(ctx: Context, key: str) -> None:
    """Ends one reservation that is `stopping`."""
    row = await _row(ctx, key)
    if row.state != State.STOPPING:
        return
    await _let_close(ctx, row)
    until = asyncio.get_running_loop().time() + ctx.settings.times.hub_patience
    if not await stop_server(ctx, row):
        log.error("the server of %s does not end; its GPUs stay held", key)
        await asyncio.sleep(PAUSE)
        return
    await _release(ctx, key)
    # For the Hub the server may be stopping still; until it is done nobody can start it again.
    await ctx.background.ended(_asking(key), until)
    try:
        snapshot = await snapshots.take_at_end(ctx, row.disk_id, key) if row.disk_id else None
    except backend.DiskBusy:
        await asyncio.sleep(PAUSE)  # somebody's own snapshot is just being taken
        return
    scratch = servers.scratch(ctx, key)
    if not row.disk_id and scratch.exists():
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
    await _remove_shared(ctx, row)
    if row.disk_id:
        await _locate(ctx, row.disk_id)
    await _finish(ctx, key, snapshot)
    # What never came up stays for a while, so that the Hub's page can say why.
    came_up = row.target != State.FAILED or row.active_at is not None
    if is_reservation_id(row.server_name) and came_up:
        await _forget_server(ctx, row)
    if row.disk_id:
        await _measure(ctx, row.disk_id)


async def _remove_shared(ctx: Context, row: ReservationRow) -> None:
    """What the nodes of a lease shared goes with it; the retention loop removes what stays."""
    if ctx.shared is None or row.nodes == 1:
        return
    try:
        await ctx.shared.remove(row.id)
    except (KubeAway, KubeRefused) as error:
        log.warning("the shared folder of %s stays for now: %s", row.id, error)


async def _locate(ctx: Context, disk_id: str) -> None:
    """Where a disk can be used is decided by its first use; its next reservation has to know."""
    try:
        await places.locate(ctx, disk_id)
    except backend.DiskError as error:
        log.warning("where disk %s is could not be found out: %s", disk_id, error)


async def _measure(ctx: Context, disk_id: str) -> None:
    try:
        await disks.measure(ctx, disk_id)
    except backend.DiskError as error:
        log.warning("the size of disk %s could not be found out: %s", disk_id, error)


async def _let_close(ctx: Context, row: ReservationRow) -> None:
    """Gives a server that listens the time to save what is open, where its lease ends early. A
    lease that ends at its time is not prolonged by that: the server has begun before."""
    if row.target == State.EXPIRED or row.stopping_at is None or row.expires_at is None:
        return
    until = row.stopping_at + timedelta(seconds=ctx.settings.times.closing)
    left = (min(until, row.expires_at) - ctx.clock.now()).total_seconds()
    if left > 0 and not await ctx.labs.wait_closed(row.id, left):
        log.info("the server of %s did not say that it has closed", row.id)


async def stop_server(ctx: Context, row: ReservationRow) -> bool:
    """Stops the server and verifies that it is gone.

    The Hub is asked first, so that its own view stays right, but not waited for: neither once what
    runs the server tells that nothing is left of it, nor when its patience is over. What still runs
    then, or whatever it answers, is stopped directly.
    """
    stopping = asyncio.Event()
    asked = asyncio.create_task(_ask_hub(ctx, row, stopping))
    if await _told_gone(ctx, row, stopping, asked):
        ctx.background.start(_asking(row.id), _heard(asked))
        return True
    if not asked.done():
        log.info("the Hub takes its time to stop %s", row.id)
        ctx.background.start(_asking(row.id), _heard(asked))
    elif error := asked.exception():
        log.error("the Hub could not be asked to stop %s", row.id, exc_info=error)
    # The handle may have been reported while the Hub was asked.
    handle = (await _row(ctx, row.id)).server_handle
    try:
        if not await ctx.servers.alive(row.id, handle):
            return True
    except ServersAway as away:
        log.warning("whether %s still runs is not known: %s", row.id, away)
        return False
    return await ctx.servers.stop(row.id, handle, STOP_POLITELY)


async def _told_gone(
    ctx: Context, row: ReservationRow, stopping: asyncio.Event, asked: asyncio.Task[None]
) -> bool:
    """Whether we are told that the server is gone before the Hub answers, or its patience is over.

    Only while the Hub stops it is that heard: a start that is under way there removes what an
    earlier one has left and makes it anew.
    """

    async def told() -> bool:
        await stopping.wait()
        try:
            await ctx.servers.told_gone(row.id)
        except ServersAway as away:
            log.info("whether %s is gone is not known: %s", row.id, away)
            return False
        return True

    hearing = asyncio.create_task(told())
    try:
        async with asyncio.timeout(ctx.settings.times.hub_patience):
            await asyncio.wait({asked, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done() and hearing.result():
                return True
            await asyncio.wait({asked})
    except TimeoutError:
        pass
    finally:
        hearing.cancel()
    return False


def _asking(key: str) -> str:
    """The background work of asking the Hub to stop a reservation's server."""
    return f"ask:{key}"


async def _heard(asked: asyncio.Task[None]) -> None:
    """Keeps hold of a question that is still under way, so that its failure is not lost."""
    await asked


async def _ask_hub(ctx: Context, row: ReservationRow, stopping: asyncio.Event) -> None:
    """`stopping` is set when no start is under way and the Hub is being asked."""
    try:
        if await _start_is_over(ctx, row):
            stopping.set()
            await ctx.hub.stop(row.user, row.server_name)
    except HubAway as error:
        log.warning("the Hub could not be asked to stop %s: %s", row.id, error)
    except HubRefused as refusal:
        log.warning("the Hub did not stop %s: %s", row.id, refusal.status)


async def _start_is_over(ctx: Context, row: ReservationRow) -> bool:
    """Lets a start that is under way end by itself, for a while. False where the reservation has
    gone on meanwhile: what the Hub starts now may be another one's.

    The spawner hears that the lease is over and ends its start with the reason, which the Hub's
    page then shows; a start that is stopped from outside says nothing.
    """
    for _ in range(START_LOOKS):
        server = await ctx.hub.server(row.user, row.server_name)
        if (await _row(ctx, row.id)).state != State.STOPPING:
            return False
        if server is None or server.pending != "spawn":
            return True
        await asyncio.sleep(PAUSE / 5)
    return True


async def _release(ctx: Context, key: str) -> None:
    """Frees the units of a lease whose server is gone (`NO_SERVER_WITHOUT_A_LEASE`), all at once
    (`LEASES_HOLD_WHAT_THEY_ARE_OF`); whoever is next starts in the same transaction."""

    async def work(session: AsyncSession) -> list[Entry]:
        held = await session.scalars(select(LeaseUnitRow).where(LeaseUnitRow.reservation_id == key))
        units = list(held)
        if not units:
            return []
        # Its nodes may have become another type's meanwhile.
        types = await holding.gpu_types(ctx, session, key)
        for unit in units:
            await session.delete(unit)
        now = ctx.clock.now()
        row = await session.get_one(ReservationRow, key)
        what = words.gpus(row.gpus, row.gpu_type)
        entry = note(
            session,
            row,
            "server",
            f"The server is gone; {what} given back.",
            actor=SERVICE.name,
            now=now,
        )
        outcome = await planning.replan(ctx, session, now, sorted(types))
        return [entry, *outcome.entries]

    await views.publish(ctx, await ctx.store.run(work))


async def _finish(ctx: Context, key: str, snapshot: SnapshotRow | None) -> None:
    async def work(session: AsyncSession) -> list[HistoryRow]:
        row = await session.get_one(ReservationRow, key)
        if row.state != State.STOPPING:
            return []
        now = ctx.clock.now()
        entries = []
        if snapshot is not None:
            said = (
                _taken(snapshot)
                if snapshot.state == "ready"
                else f"No snapshot: {snapshot.note} The disk itself is as you left it."
            )
            data = {"snapshot": snapshot.id, "ok": snapshot.state == "ready"}
            entries.append(
                note(session, row, "snapshot", said, actor=SERVICE.name, now=now, data=data)
            )
        reason = row.reason or ""
        target = State(row.target)
        entries.append(transition(session, row, target, reason=reason, actor=SERVICE.name, now=now))
        return entries

    await views.publish(ctx, await ctx.store.run(work))


def _taken(snapshot: SnapshotRow) -> str:
    size = snapshot.size_bytes
    return "Snapshot taken." if size is None else f"Snapshot taken: {words.size(size)}."


async def _forget_server(ctx: Context, row: ReservationRow) -> None:
    """Removes the Hub's row of a server that gpudev named; the reconcile loop removes the rest."""
    try:
        await ctx.hub.remove(row.user, row.server_name)
    except (HubAway, HubRefused) as error:
        log.info("the server row of %s stays for now: %s", row.id, error)


async def _row(ctx: Context, key: str) -> ReservationRow:
    async with ctx.store.reading() as session:
        return await session.get_one(ReservationRow, key)
